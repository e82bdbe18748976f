"""The ground and the feet that touch it, and what the world is solved with.

`main.motion.world` is made of them: people as it takes them, the plane they stand on, and linear
equations over a clip.
"""

import logging
import math
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import binary_closing, binary_opening
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import spsolve

from human_models.body import BodyModel
from human_models.joints import JOINTS, SIDES
from main.motion.camera import JOINT_WEIGHTS, PELVIS, CameraMotion
from main.motion.camera_motion import as_dolly
from main.motion.rows import FINAL_ROW, FinalRows
from main.motion.trajectories import pose_joints, pose_vertices
from utils.geometry import smooth

log = logging.getLogger(__name__)

_TOUCHING_M: Final = 0.05
"""Points farther from the plane than this count less and less (Cauchy's weights)."""
_LEAN: Final = 0.05
"""Deviation of the expected slope from the true one, by people over their feet."""
_SIZE_ERROR: Final = 0.04
"""Deviation of the estimated size of a body, as a share."""
_IMPLAUSIBLE: Final = 4
"""So many deviations are not believed."""
_INDEPENDENT: Final = 20
"""The points say at most as much as this many independent ones would."""
_PASSES: Final = 15
_FITS: Final = 3
"""Of a plane and levels over it, in turns."""
_CLIMBED: Final = 0.05
"""Share of a person's contacts from which they touch a level; for a level that they climb to, the
same share must be elsewhere."""
_LEAST_STEP_M: Final = 0.12
"""Levels of the ground are so far apart."""
_MOST_STEP_M: Final = 0.55
"""At most so far: two steps, if nobody stands on the first one for long."""
FOOT_JOINTS: Final = ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
"""What the four columns of `foot_contact` are about."""
FEET: Final = [JOINTS.index(name) for name in FOOT_JOINTS]
TRUNK: Final = (JOINTS.index("pelvis"), JOINTS.index("neck"))
SLOW_M_S: Final = 0.4
NEAR_M: Final = 0.10
"""A slow foot at most so high above or below the plane touches it."""
MOST_POINTS: Final = 5_000
LEAST_POINTS: Final = 4


class Plane(NamedTuple):
    """Points p with up @ p = height; `up` has length 1 and points away from the ground."""

    up: Float[np.ndarray, "3"]
    height: float

    def height_of(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N"]:
        """Metres above the plane."""
        return points @ self.up - self.height


def fit_floor(
    points: Float[np.ndarray, "N 3"],
    owners: Int[np.ndarray, " N"],
    expected_up: Float[np.ndarray, "3"],
) -> tuple[Plane, Float[np.ndarray, " N"]]:
    """The plane that most points lie on, near to `expected_up` where they leave its slope open.

    Iteratively reweighted least squares of the height over the plane across `expected_up`, begun
    at the median height; a prior on the slope stands for people who stay at one place. All points
    of a person may be too high or too low, because a person who is estimated too small seems to be
    nearer to the camera.

    Args:
        points: at least one, relative to the camera; some may be off the ground.
        owners: whose they are.
        expected_up: any length but 0.

    Returns: the plane, and by how much each point is too high because of its owner's size.
    """
    axes = _axes(expected_up)  # rows: right, up, back
    local = points.astype(np.float64) @ axes.T
    centre = np.median(local, axis=0)
    across, height = local[:, ::2] - centre[::2], local[:, 1] - centre[1]
    people, number = np.unique(owners, return_inverse=True)
    design = np.column_stack([across, np.ones(len(points)), np.eye(len(people))[number]])
    solution = np.zeros(design.shape[1])
    raised_m = _size_error_m(centre[1])
    prior = (_TOUCHING_M / np.r_[_LEAN, _LEAN, 1e3, np.full(len(people), raised_m)]) ** 2
    for _ in range(_PASSES):
        residual = height - design @ solution
        weights = 1 / (1 + (residual / _TOUCHING_M) ** 2)
        weights *= min(1.0, _INDEPENDENT / max(float(weights.sum()), 1e-9))
        normal = design.T @ (weights[:, None] * design) + np.diag(prior)
        solution = np.linalg.solve(normal, design.T @ (weights * height))
    up = np.array([-solution[0], 1.0, -solution[1]]) @ axes
    up /= np.linalg.norm(up)
    on_plane = (centre + np.array([0, solution[2], 0])) @ axes
    return Plane(up, float(up @ on_plane)), solution[3:][number]


def _size_error_m(plane_height: float) -> float:
    """Deviation of the height of somebody's feet, because the size of a body is not known well.

    Args:
        plane_height: of the ground over the camera, metres.
    """
    return max(_SIZE_ERROR * abs(plane_height), 0.01)


def nearest_level(
    heights: Float[np.ndarray, "*N"], levels: Float[np.ndarray, " L"]
) -> Float[np.ndarray, "*N"]:
    """The level, or the plane itself, that is nearest to each height."""
    every = np.array([0.0, *levels])
    return every[np.abs(heights[..., None] - every).argmin(axis=-1)]


def find_levels(
    heights: Float[np.ndarray, " N"], owners: Int[np.ndarray, " N"], camera_m: float
) -> Float[np.ndarray, " L"]:
    """Heights at which there are many contacts, in ascending order; one of them is 0.

    Somebody must be at such a height and at another one, and it must be near enough to be climbed.
    Somebody who always is at one height may rather be of another size than estimated. Errors of
    sizes do not explain heights far above the plane. They may explain any below it, because
    children are often taken for adults, and people who sit for people who stand, and then seem to
    be farther away and lower. So who is at a lower level must also be at one that is known.

    Args:
        owners: whose contacts they are.
        camera_m: height of the camera.
    """
    levels: list[float] = [0.0]
    free = np.abs(heights) > _LEAST_STEP_M
    while free.sum() > LEVEL_SHARE * len(heights):
        bins = np.round(heights[free] / 0.03).astype(int)
        found = 0.03 * np.bincount(bins - bins.min()).argmax() + 0.03 * bins.min()
        mine = free & (np.abs(heights - found) < _LEAST_STEP_M / 2)
        free &= np.abs(heights - found) > _LEAST_STEP_M
        elsewhere = np.abs(heights - found) > _LEAST_STEP_M / 2
        if found < 0:
            elsewhere &= np.abs(heights[:, None] - levels).min(axis=1) < _LEAST_STEP_M / 2
        here, there, whole = (
            np.bincount(owners, chosen) for chosen in (mine, elsewhere, np.ones(len(owners)))
        )
        climbed = (np.minimum(here, there) > _CLIMBED * whole).any()
        climbed |= found > _IMPLAUSIBLE * _size_error_m(camera_m)
        climbed &= np.abs(found - np.array(levels)).min() < _MOST_STEP_M
        if climbed and mine.sum() > LEVEL_SHARE * len(heights):
            levels.append(float(np.median(heights[mine])))
    return np.array(sorted(levels))


class Ground(NamedTuple):
    """A plane and levels over it, ascending and with 0 among them.

    Attributes:
        heights: of the contacts over the plane, less what their owners' sizes explain.
        misfit: how badly contacts and the expected direction are explained.
    """

    plane: Plane
    levels: Float[np.ndarray, " L"]
    heights: Float[np.ndarray, " N"]
    misfit: float


def fit_ground(
    points: Float[np.ndarray, "N 3"],
    owners: Int[np.ndarray, " N"],
    expected_up: Float[np.ndarray, "3"],
) -> Ground:
    """The plane and levels that contacts lie on.

    Somebody who climbs steps has contacts on a slope, too: of a sloping ground and one with levels,
    it is the one that explains contacts and the expected direction better.
    """
    level = Plane(expected_up, float(np.median(points @ expected_up)))
    starts = ((level, np.zeros(len(points))), fit_floor(points, owners, expected_up))
    tried = [_fit_levels(points, owners, plane, raised, expected_up) for plane, raised in starts]
    return min(tried, key=lambda ground: ground.misfit)


def _fit_levels(
    points: Float[np.ndarray, "N 3"],
    owners: Int[np.ndarray, " N"],
    plane: Plane,
    raised: Float[np.ndarray, " N"],
    expected_up: Float[np.ndarray, "3"],
) -> Ground:
    """The ground near to `plane`, where points are `raised` by their owners' sizes."""
    for fits in range(_FITS + 1):
        heights = plane.height_of(points) - raised
        levels = find_levels(heights, owners, -plane.height)
        off = heights - nearest_level(heights, levels)
        if fits < _FITS:
            flat = points - (heights - off)[:, None] * expected_up
            plane, raised = fit_floor(flat, owners, expected_up)
    slope = float(np.linalg.norm(np.cross(plane.up, expected_up))) / _LEAN
    sizes = raised[np.unique(owners, return_index=True)[1]] / _size_error_m(plane.height)
    # Half of it is about the negative logarithm of a likelihood.
    misfit = _INDEPENDENT * float(np.log1p((off / _TOUCHING_M) ** 2).mean())
    misfit += slope**2 + float((sizes**2).sum()) + len(levels)
    return Ground(plane, levels, heights, misfit)


def common_level(
    heights: Float[np.ndarray, " N"], owners: Int[np.ndarray, " N"], levels: Float[np.ndarray, " L"]
) -> float:
    """The lowest level that at least half of the people touch; the lowest of all if there is none.

    Args:
        heights: of contacts, and `owners` whose they are.
        levels: ascending, with 0 among them.
    """
    nearest = nearest_level(heights, levels)
    people = [nearest[owners == one] for one in np.unique(owners)]
    for level in levels.tolist():
        touching = [(mine == level).mean() > _CLIMBED for mine in people]
        if 2 * sum(touching) >= len(people):
            return float(level)
    return float(levels[0])


def world_from_camera(plane: Plane) -> Float[np.ndarray, "4 4"]:
    """Rigid transform into a world with y up, the plane at y = 0 and the camera above its origin.

    x is the camera's right, levelled; z points from the scene back to the camera.
    """
    transform = np.eye(4)
    transform[:3, :3] = _axes(plane.up)
    transform[1, 3] = -plane.height
    return transform


def _axes(up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Rows: right, up and back; right-handed, in the camera's frame."""
    up = up.astype(np.float64) / np.linalg.norm(up)
    right = np.array([1.0, 0, 0]) - up[0] * up
    right /= np.linalg.norm(right)
    return np.stack([right, up, np.cross(right, up)])


LIMBS: Final = [
    *FEET,
    *(JOINTS.index(f"{side}_{name}") for name in ("ankle", "knee", "hip") for side in SIDES),
]
_UPRIGHT: Final = math.cos(math.radians(35))
"""Cosine of the angle between trunk and legs of somebody who stands."""
LEVEL_SHARE: Final = 0.1
"""Of the time of all contacts, what makes a level."""
STEADY_S: Final = 0.06
"""Kernel by which feet are smoothed before their speed is judged."""
_SHORTEST_S: Final = 0.1
"""Contacts are not shorter, nor are gaps between contacts."""
_ZOOMED: Final = 0.03
"""Logarithm of a zoom that may be motion instead."""
_CLEARLY: Final = 0.88
"""Of how feet move under a zoom, what they move at most under a motion that is believed."""
_SHOWN: Final = 0.4
"""Score of a keypoint below which the image may not show the joint at all."""


def means_of(
    values: Float[np.ndarray, "C D"], owner: Int[np.ndarray, " C"]
) -> Float[np.ndarray, "S D"]:
    """Mean of the values of each owner, 0 to S - 1, all of whom have some."""
    sums = [np.bincount(owner, column) for column in values.T]
    return np.stack(sums, axis=1) / np.bincount(owner)[:, None]


class Equations:
    """Linear equations of a few unknowns each, which are solved by least squares."""

    def __init__(self, unknowns: int) -> None:
        self.unknowns = unknowns
        self.normal = csc_array((unknowns, unknowns))
        self.right = np.zeros(unknowns)

    def copy(self) -> "Equations":
        other = Equations(self.unknowns)
        other.normal, other.right = self.normal, self.right.copy()
        return other

    def add(
        self,
        columns: Int[np.ndarray, "N _ K"],
        values: Float[np.ndarray, "N R K"],
        right: Float[np.ndarray, "N R"],
    ) -> None:
        """Equations sum_k values[n, r, k] * unknown[columns[n, r, k]] = right[n, r]."""
        columns = np.broadcast_to(columns, values.shape)
        rows = np.broadcast_to(np.arange(right.size).reshape(*right.shape, 1), values.shape)
        entries = (values.ravel(), (rows.ravel(), columns.ravel()))
        matrix = coo_array(entries, shape=(right.size, self.unknowns)).tocsc()
        self.normal = self.normal + matrix.T @ matrix
        self.right += matrix.T @ right.ravel()

    def solve(self) -> Float[np.ndarray, " U"]:
        return np.asarray(spsolve(self.normal.tocsc(), self.right))


def slow_points(
    points: Float[np.ndarray, "T P 3"], fps: float, limit_m_s: float
) -> Bool[np.ndarray, "T P"]:
    """Points that are slow for a while."""
    if len(points) < 2:
        return np.zeros(points.shape[:2], bool)
    steady = smooth(points, STEADY_S * fps)
    slow = np.linalg.norm(np.gradient(steady, axis=0), axis=-1) * fps < limit_m_s
    return lasting(slow, fps)


def lasting(contacts: Bool[np.ndarray, "T P"], fps: float) -> Bool[np.ndarray, "T P"]:
    """Contacts without short ones, and without short gaps."""
    length = np.ones((max(1, round(_SHORTEST_S * fps)), 1), bool)
    margin = len(length)
    padded = np.pad(contacts, ((margin, margin), (0, 0)), mode="edge")
    padded = binary_opening(binary_closing(padded, length), length)
    return padded[margin:-margin]


def segments_of(contacts: Bool[np.ndarray, "T P"]) -> Int[np.ndarray, "T P"]:
    """A number for each stretch of contact of a point, counted over all points; -1 outside."""
    begins = contacts & ~np.pad(contacts, ((1, 0), (0, 0)))[:-1]
    numbers = np.cumsum(begins.T.ravel()).reshape(begins.T.shape).T - 1
    return np.where(contacts, numbers, -1)


class Seen(NamedTuple):
    """People as their final rows have them, in the first camera's frame.

    Attributes:
        runs: rows of consecutive frames of one person.
        person: number of each row's person.
        centre: of the camera.
        weight: 1, or less where nobody was detected.
        ray: direction from the camera to the middle of the body.
        limbs: `FOOT_JOINTS`, then ankles, knees and hips, relative to the pelvis.
        soles: heights of `FOOT_JOINTS` over the sole.
        hidden: the image shows some keypoints, but no ankles.
    """

    runs: list[Int[np.ndarray, " T"]]
    person: Int[np.ndarray, " N"]
    pelvis: Float[np.ndarray, "N 3"]
    centre: Float[np.ndarray, "N 3"]
    ray: Float[np.ndarray, "N 3"]
    weight: Float[np.ndarray, " N"]
    limbs: Float[np.ndarray, "N 10 3"]
    soles: Float[np.ndarray, "N 4"]
    hidden: Bool[np.ndarray, " N"]


def observe(rows: FinalRows, motion: CameraMotion, soles: Float[np.ndarray, "N 4"]) -> Seen:
    frames = rows.column("frame_index")
    rotation = motion.camera_from_first[frames, :3, :3].transpose(0, 2, 1)
    centre = -np.einsum("nij,nj->ni", rotation, motion.camera_from_first[frames, :3, 3])
    pelvis = rows.column("joints_3d_m", PELVIS).astype(np.float64)
    limbs = rows.column("joints_3d_m", LIMBS) - pelvis[:, None]
    middle = np.empty_like(pelvis)
    for block, part in rows.blocks():
        middle[block] = JOINT_WEIGHTS @ part["joints_3d_m"] / JOINT_WEIGHTS.sum()
    middle -= pelvis
    # A longer lens shows somebody who is farther away at the same size.
    pelvis[:, 2] *= motion.zoom[frames]
    ray = pelvis + middle
    ray /= np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), 1e-6)
    interpolated, scores = rows.column("interpolated"), rows.column("keypoint_score")
    shown: Bool[np.ndarray, "N 137"] = scores >= _SHOWN
    return Seen(
        _runs(rows),
        rows.column("person"),
        np.einsum("nij,nj->ni", rotation, pelvis) + centre,
        centre,
        np.einsum("nij,nj->ni", rotation, ray),
        np.where(interpolated, 0.1, 1.0),
        np.einsum("nij,nkj->nki", rotation, limbs),
        soles,
        np.asarray(shown.any(axis=1) & ~shown[:, LIMBS[4:6]].any(axis=1)),
    )


def _runs(rows: FinalRows) -> list[Int[np.ndarray, " T"]]:
    frames = rows.column("frame_index")
    return [
        run
        for mine in rows.by_identity().values()
        for run in np.split(mine, np.flatnonzero(np.diff(frames[mine]) > 1) + 1)
    ]


def soles_of(rows: FinalRows, body: BodyModel) -> Float[np.ndarray, "N 4"]:
    """How high heels and toes are over the lowest point of each person who stands."""
    soles = np.zeros((len(rows), 4))
    for mine in rows.by_identity().values():
        standing = np.zeros(1, FINAL_ROW)
        standing["betas"] = rows.take(mine[:1], "betas")
        heights = pose_joints(body, standing)[0, FEET, 1]
        soles[mine] = heights - pose_vertices(body, standing)[0, :, 1].min()
    return soles


def upright(rows: FinalRows, motion: CameraMotion) -> Float[np.ndarray, "3"]:
    """Median direction of people who stand or walk, from between the ankles to the neck.

    Who walks leans forward, but is above the feet. Where nobody stands, that from pelvis to neck;
    in the first camera's frame.
    """
    step = max(1, len(rows) // MOST_POINTS)
    points = rows.column("joints_3d_m", [*TRUNK, *LIMBS[4:6]])[::step]
    pelvis, neck, ankles = points[:, 0], points[:, 1], points[:, 2:].mean(axis=1)
    turns = motion.camera_from_first[rows.column("frame_index")[::step], :3, :3]
    trunk, legs = (
        np.einsum("nji,nj->ni", turns, vectors) for vectors in (neck - pelvis, pelvis - ankles)
    )
    standing = _stand(trunk, legs)
    whole = (trunk + legs)[standing] if standing.mean() > LEVEL_SHARE else trunk
    median = np.median(whole, axis=0)
    length = float(np.linalg.norm(median))
    return median / length if length > 0.2 else np.array([0.0, -1.0, 0.0])


def _stand(
    trunk: Float[np.ndarray, "N 3"], legs: Float[np.ndarray, "N 3"]
) -> Bool[np.ndarray, " N"]:
    """Trunk (from pelvis to neck) and legs (from the ankles to the pelvis) have one direction."""
    lengths = np.linalg.norm(trunk, axis=1) * np.linalg.norm(legs, axis=1)
    return np.asarray((trunk * legs).sum(axis=1) > _UPRIGHT * lengths)


def zoom_or_dolly(
    rows: FinalRows, motion: CameraMotion, soles: Float[np.ndarray, "N 4"], fps: float
) -> CameraMotion:
    """The motion as it is, or without its zoom where feet then stand much more firmly.

    A background in which nothing is near looks the same under a zoom and under a camera that goes
    ahead, but people do not.
    """
    if np.abs(np.log(motion.zoom)).max(initial=0) < _ZOOMED:
        return motion
    ahead = as_dolly(motion)
    zooming, moving = (find_scale(observe(rows, one, soles), fps)[1] for one in (motion, ahead))
    if not moving < _CLEARLY * zooming:  # both are infinite where nobody is seen for long enough
        return motion
    log.warning("camera: by people's feet, it moves ahead or back instead of zooming")
    return ahead


def find_scale(seen: Seen, fps: float) -> tuple[float, float]:
    """Metres in the unit of the camera's motion: with it, some foot stands still most of the time.

    A foot's speed is that of a camera that stands still plus the scale times the camera's own.

    Returns: the scale, and by how much feet move all the same: the mean of log(1 + square) of the
        slowest foot's speed over that of one that stands. Of several people, it is the geometric
        mean: the arithmetic one is decided by a badly estimated body, whose feet never rest.
    """
    still, moving, owners = [], [], []
    for run in seen.runs:
        if len(run) > 2:
            feet = (seen.pelvis - seen.centre)[run, None] + seen.limbs[run, :4]
            # More smoothing would mix standing feet with walking ones: the scale becomes too small.
            still.append(np.gradient(smooth(feet, STEADY_S / 2 * fps), axis=0) * fps)
            moving.append(np.gradient(seen.centre[run], axis=0) * fps)
            owners.append(seen.person[run])
    if not still:
        return 1.0, math.inf
    speed, own = np.concatenate(still), np.concatenate(moving)[:, None]
    _, owner, frames = np.unique(np.concatenate(owners), return_inverse=True, return_counts=True)
    squared = (own**2).sum(axis=-1)
    moves = squared[:, 0] > 0.1 * squared.mean()
    tried = (-(speed * own).sum(axis=-1)[moves] / squared[moves]).ravel()
    tried = np.quantile(tried[tried > 0], np.linspace(0, 1, 200)) if (tried > 0).any() else [1.0]
    costs: list[float] = []
    for scale in tried:
        slowest = np.linalg.norm(speed + scale * own, axis=-1).min(axis=1)
        means = np.bincount(owner, np.log1p((slowest / SLOW_M_S) ** 2)) / frames
        costs.append(math.exp(np.average(np.log(np.maximum(means, 1e-9)), weights=frames)))
    best = int(np.argmin(costs))
    return float(tried[best]), float(costs[best])
