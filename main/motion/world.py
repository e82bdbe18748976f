"""The world that people move in: the ground, feet that stand on it, and everybody's way over it.

`find_floor` finds the ground under a camera that stands still and leaves people as they are.
`solve_world` also takes the camera's motion and moves people: along their lines of sight, which an
image says least about, so that feet that touch the ground stand still on it; then it bends their
legs by what is left.

Lengths are metres. "First" is the frame of the camera in the first frame of the clip, in which
everything is solved; the world has y up, the floor at y = 0 and the first camera above its origin.
"""

import logging
import math
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import (
    binary_closing,
    binary_opening,
    gaussian_filter1d,
    maximum_filter1d,
)
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from human_models.body import BodyModel
from human_models.joints import BODY_JOINTS, JOINTS, SIDES
from main.motion.camera import PELVIS, Clip
from main.motion.camera_motion import CameraMotion, scaled
from main.motion.rows import BLOCK, FINAL_ROW, WORLD_ROW, FinalRows, WorldRows
from main.motion.trajectories import pose_joints, pose_vertices
from utils.geometry import smooth

log = logging.getLogger(__name__)

_TOUCHING_M: Final = 0.05
"""Points farther from the plane than this count less and less (Cauchy's weights)."""
_LEAN: Final = 0.1
"""Deviation of the expected slope from the true one, by trunks."""
_INDEPENDENT: Final = 20
"""The points say at most as much as this many independent ones would."""
_PASSES: Final = 15


class Plane(NamedTuple):
    """Points p with up @ p = height; `up` has length 1 and points away from the ground."""

    up: Float[np.ndarray, "3"]
    height: float

    def height_of(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N"]:
        """Metres above the plane."""
        return points @ self.up - self.height


def fit_floor(
    points: Float[np.ndarray, "N 3"], expected_up: Float[np.ndarray, "3"], lean: float = _LEAN
) -> Plane:
    """The plane that most points lie on, near to `expected_up` where they leave its slope open.

    Iteratively reweighted least squares of the height over the plane across `expected_up`, begun
    at the median height; a prior on the slope stands for people who stay at one place.

    Args:
        points: at least one; some may be off the ground.
        expected_up: any length but 0.
        lean: deviation of its slope from the true one.
    """
    axes = _axes(expected_up)  # rows: right, up, back
    local = points.astype(np.float64) @ axes.T
    centre = np.median(local, axis=0)
    across, height = local[:, ::2] - centre[::2], local[:, 1] - centre[1]
    design = np.column_stack([across, np.ones(len(points))])
    solution = np.zeros(3)
    for _ in range(_PASSES):
        residual = height - design @ solution
        weights = 1 / (1 + (residual / _TOUCHING_M) ** 2)
        weights *= min(1.0, _INDEPENDENT / max(float(weights.sum()), 1e-9))
        prior = np.diag([(_TOUCHING_M / lean) ** 2] * 2 + [1e-9])
        normal = design.T @ (weights[:, None] * design) + prior
        solution = np.linalg.solve(normal, design.T @ (weights * height))
    up = np.array([-solution[0], 1.0, -solution[1]]) @ axes
    up /= np.linalg.norm(up)
    on_plane = (centre + np.array([0, solution[2], 0])) @ axes
    return Plane(up, float(up @ on_plane))


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


FOOT_JOINTS: Final = ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
"""What the four columns of `foot_contact` are about."""
_FEET: Final = [JOINTS.index(name) for name in FOOT_JOINTS]
_TRUNK: Final = (JOINTS.index("pelvis"), JOINTS.index("neck"))
_SLOW_M_S: Final = 0.4
_NEAR_M: Final = 0.10
"""A slow foot at most so high above or below the plane touches it."""
_MOST_POINTS: Final = 20_000
_LEAST_POINTS: Final = 4


class Floor(NamedTuple):
    """The ground, and which of `FOOT_JOINTS` touch it in each final row."""

    plane: Plane
    contacts: Bool[np.ndarray, "N 4"]


def find_floor(rows: FinalRows, fps: float) -> Floor | None:
    """The ground that all people walk on, from their final joints.

    Heels and toes that are slow are taken to rest on something; the plane is fitted to most of
    them, near to across the people's trunks where the feet leave its slope open. The camera must
    stand still. None, with a warning, where no foot rests.
    """
    feet = rows.column("joints_3d_m", _FEET)
    slow = _slow_feet(rows, feet, fps)
    resting = np.argwhere(slow)
    resting = resting[:: max(1, len(resting) // _MOST_POINTS)]
    if len(resting) < _LEAST_POINTS:
        log.warning("--floor: no foot rests for a moment, so there is no floor to be found")
        return None
    plane = fit_floor(feet[tuple(resting.T)], _trunks_up(rows))
    return Floor(plane, slow & (np.abs(plane.height_of(feet)) < _NEAR_M))


def _slow_feet(
    rows: FinalRows, feet: Float[np.ndarray, "N 4 3"], fps: float
) -> Bool[np.ndarray, "N 4"]:
    slow = np.zeros(feet.shape[:2], bool)
    frames = rows.column("frame_index")
    for mine in rows.by_identity().values():
        for run in np.split(mine, np.flatnonzero(np.diff(frames[mine]) > 1) + 1):
            if len(run) > 1:
                speed = np.linalg.norm(np.gradient(feet[run], axis=0), axis=-1) * fps
                slow[run] = speed < _SLOW_M_S
    return slow


def _trunks_up(rows: FinalRows) -> Float[np.ndarray, "3"]:
    """Median direction from pelvis to neck; the camera's own up where people lie about."""
    step = max(1, len(rows) // _MOST_POINTS)
    pelvis, neck = (rows.column("joints_3d_m", joint)[::step] for joint in _TRUNK)
    median = np.median(neck - pelvis, axis=0)
    return median if np.linalg.norm(median) > 0.2 else np.array([0.0, -1.0, 0.0])


_WINDOW: Final = 1500
"""Frames that are solved at once, and _OVERLAP on both sides that only lead up to them."""
_OVERLAP: Final = 150
_ROUNDS: Final = 3
"""Contacts, ground and ways are found in turns, each with what the others were before."""
_MISPLACED_PX: Final = 1.0
"""Deviation across the line of sight, in pixels at the person's distance."""
_MISJUDGED: Final = 0.012
"""Deviation of a person's distance, as a share; it lasts for _LASTING_S."""
_LASTING_S: Final = 0.5
_UNPLANTED_M: Final = 0.04
"""Deviation of a foot that stands, relative to the pelvis."""
_UNEVEN_M: Final = 0.02
"""Deviation of the ground from a level."""
_ACCELERATION_M_S2: Final = 3.0
_FIRST_SLOW_M_S: Final = 0.6
"""As _SLOW_M_S, before distances are known better."""
_STEADY_S: Final = 0.06
"""Kernel by which feet are smoothed before their speed is judged."""
_STANDING_M_S: Final = 0.6
_LOWEST_M: Final = 0.12
"""Before the ground is known, a point so far above a person's lowest one is not on it."""
_UPRIGHT: Final = math.cos(math.radians(35))
"""Cosine of the angle between trunk and legs of somebody who stands."""
_STANDING_LEAN: Final = 0.05
"""As _LEAN, by people over their feet."""
_SHORTEST_S: Final = 0.1
"""Contacts are not shorter, nor are gaps between contacts."""
_LEAST_STEP_M: Final = 0.12
"""Levels of the ground are so far apart."""
_LEVEL_SHARE: Final = 0.1
"""Of the time of all contacts, what makes a level."""
_FADE_S: Final = 0.5
"""A leg's correction is gone so long after the last contact, and comes so long before the next."""
_STRETCHED: Final = 0.9998
"""Of a leg's length, the farthest that an ankle is from the hip."""
_REACH: Final = 0.9985
"""Of a leg's length, how far it reaches before the pelvis goes down, within _SINKING_S."""
_SINKING_S, _MOST_SINKING_M = 0.1, 0.15
_LIMBS: Final = [
    *_FEET,
    *(JOINTS.index(f"{side}_{name}") for name in ("ankle", "knee", "hip") for side in SIDES),
]
_HINGE: Final = np.array([1.0, 0.0, 0.0])
"""The axis about which a knee bends, in the thigh's frame."""


class World(NamedTuple):
    """What all people of a clip share in the world.

    Attributes:
        motion: the camera's, in metres.
        plane: the ground, in the first camera's frame.
        levels: heights of further grounds over it, such as steps.
    """

    motion: CameraMotion
    plane: Plane
    levels: Float[np.ndarray, " L"]

    @property
    def from_first(self) -> Float[np.ndarray, "4 4"]:
        return world_from_camera(self.plane)

    def describe(self) -> dict[str, object]:
        """For the summary of a result."""
        return {"camera": self.motion.kind, "levels_m": [round(x, 4) for x in self.levels.tolist()]}


class _Seen(NamedTuple):
    """People as their final rows have them, in the first camera's frame.

    Attributes:
        runs: rows of consecutive frames of one person.
        centre: of the camera.
        weight: 1, or less where nobody was detected.
        limbs: `FOOT_JOINTS`, then ankles, knees and hips, relative to the pelvis.
        soles: heights of `FOOT_JOINTS` over the sole.
    """

    runs: list[Int[np.ndarray, " T"]]
    pelvis: Float[np.ndarray, "N 3"]
    centre: Float[np.ndarray, "N 3"]
    weight: Float[np.ndarray, " N"]
    limbs: Float[np.ndarray, "N 10 3"]
    soles: Float[np.ndarray, "N 4"]


class _Ways(NamedTuple):
    """People in the first camera's frame: what the solution says of every row.

    Attributes:
        anchors: where `FOOT_JOINTS` stand while they are in contact.
        level: height of the ground under each foot's point over the plane.
    """

    pelvis: Float[np.ndarray, "N 3"]
    contacts: Bool[np.ndarray, "N 4"]
    anchors: Float[np.ndarray, "N 4 3"]
    level: Float[np.ndarray, "N 4"]


def solve_world(
    rows: FinalRows, clip: Clip, motion: CameraMotion, body: BodyModel, world: WorldRows
) -> World:
    """Append everybody in the world to `world`, a row for each final row.

    Args:
        motion: of every frame of the clip. Where its scale is not known, people's feet say it.
    """
    soles = _soles(rows, body)
    if not motion.scale_known:
        motion = scaled(motion, _find_scale(_observe(rows, motion, soles), motion, clip.fps))
    seen = _observe(rows, motion, soles)
    feet = seen.pelvis[:, None] + seen.limbs[:, :4]
    contacts = np.zeros(feet.shape[:2], bool)
    for run in seen.runs:
        feet_smooth = smooth(feet[run], 0.25 * clip.fps)
        contacts[run] = _slow(feet_smooth, clip.fps, _FIRST_SLOW_M_S)
    expected_up = _upright(rows, motion)
    lowest = (feet @ -expected_up).max(axis=1, keepdims=True) + feet @ expected_up
    contacts &= lowest < _LOWEST_M
    ways = _Ways(seen.pelvis, contacts, feet, np.zeros(feet.shape[:2]))
    plane, levels = _ground(seen, ways, expected_up, np.zeros(0))
    for number in range(_ROUNDS):
        # Where the ground is not settled yet, feet must not be drawn to a wrong one.
        settled = number == _ROUNDS - 1
        ways = _solve(seen, ways, plane, levels if settled else None, clip)
        if number < _ROUNDS - 1:
            contacts = _touching(seen, ways, plane, levels, clip.fps)
            ways = ways._replace(contacts=contacts)
            levels = _levels(seen, ways, plane)
            plane, levels = _ground(seen, ways, expected_up, levels)
    solved = World(motion, plane, levels)
    _write(rows, solved, seen, ways, clip.fps, body, world)
    return solved


def _observe(rows: FinalRows, motion: CameraMotion, soles: Float[np.ndarray, "N 4"]) -> _Seen:
    frames = rows.column("frame_index")
    rotation = motion.camera_from_first[frames, :3, :3].transpose(0, 2, 1)
    centre = -np.einsum("nij,nj->ni", rotation, motion.camera_from_first[frames, :3, 3])
    pelvis = rows.column("joints_3d_m", PELVIS).astype(np.float64)
    limbs = rows.column("joints_3d_m", _LIMBS) - pelvis[:, None]
    # A longer lens shows somebody who is farther away at the same size.
    pelvis[:, 2] *= motion.zoom[frames]
    interpolated = rows.column("interpolated")
    return _Seen(
        _runs(rows),
        np.einsum("nij,nj->ni", rotation, pelvis) + centre,
        centre,
        np.where(interpolated, 0.1, 1.0),
        np.einsum("nij,nkj->nki", rotation, limbs),
        soles,
    )


def _runs(rows: FinalRows) -> list[Int[np.ndarray, " T"]]:
    frames = rows.column("frame_index")
    return [
        run
        for mine in rows.by_identity().values()
        for run in np.split(mine, np.flatnonzero(np.diff(frames[mine]) > 1) + 1)
    ]


def _soles(rows: FinalRows, body: BodyModel) -> Float[np.ndarray, "N 4"]:
    """How high heels and toes are over the lowest point of each person who stands."""
    soles = np.zeros((len(rows), 4))
    for mine in rows.by_identity().values():
        standing = np.zeros(1, FINAL_ROW)
        standing["betas"] = rows.take(mine[:1], "betas")
        heights = pose_joints(body, standing)[0, _FEET, 1]
        soles[mine] = heights - pose_vertices(body, standing)[0, :, 1].min()
    return soles


def _upright(rows: FinalRows, motion: CameraMotion) -> Float[np.ndarray, "3"]:
    """Median direction of people who stand or walk, from between the ankles to the neck.

    Who walks leans forward, but is above the feet. Where nobody stands, that from pelvis to neck;
    in the first camera's frame.
    """
    step = max(1, len(rows) // _MOST_POINTS)
    points = rows.column("joints_3d_m", [*_TRUNK, *_LIMBS[4:6]])[::step]
    pelvis, neck, ankles = points[:, 0], points[:, 1], points[:, 2:].mean(axis=1)
    turns = motion.camera_from_first[rows.column("frame_index")[::step], :3, :3]
    trunk, legs = (
        np.einsum("nji,nj->ni", turns, vectors) for vectors in (neck - pelvis, pelvis - ankles)
    )
    lengths = np.linalg.norm(trunk, axis=1) * np.linalg.norm(legs, axis=1)
    upright = (trunk * legs).sum(axis=1) > _UPRIGHT * lengths
    whole = (trunk + legs)[upright] if upright.mean() > _LEVEL_SHARE else trunk
    median = np.median(whole, axis=0)
    length = float(np.linalg.norm(median))
    return median / length if length > 0.2 else np.array([0.0, -1.0, 0.0])


def _find_scale(seen: _Seen, motion: CameraMotion, fps: float) -> float:
    """Metres in the unit of the camera's motion: with it, some foot stands still most of the time.

    A foot's speed is that of a camera that stands still plus the scale times the camera's own.
    """
    still, moving = [], []
    for run in seen.runs:
        if len(run) > 2:
            feet = (seen.pelvis - seen.centre)[run, None] + seen.limbs[run, :4]
            # More smoothing would mix standing feet with walking ones: the scale becomes too small.
            still.append(np.gradient(smooth(feet, _STEADY_S / 2 * fps), axis=0) * fps)
            moving.append(np.gradient(seen.centre[run], axis=0) * fps)
    if not still:
        return 1.0
    speed, own = np.concatenate(still), np.concatenate(moving)[:, None]
    squared = (own**2).sum(axis=-1)
    moves = squared[:, 0] > 0.1 * squared.mean()
    if not moves.any() or squared.mean() == 0:
        return 1.0
    tried = (-(speed * own).sum(axis=-1)[moves] / squared[moves]).ravel()
    tried = np.quantile(tried[tried > 0], np.linspace(0, 1, 200)) if (tried > 0).any() else [1.0]
    costs = []
    for scale in tried:
        slowest = np.linalg.norm(speed + scale * own, axis=-1).min(axis=1)
        costs.append(np.log1p((slowest / _SLOW_M_S) ** 2).mean())
    return float(tried[int(np.argmin(costs))])


def _slow(
    points: Float[np.ndarray, "T P 3"], fps: float, limit_m_s: float
) -> Bool[np.ndarray, "T P"]:
    """Points that are slow for a while."""
    if len(points) < 2:
        return np.zeros(points.shape[:2], bool)
    steady = smooth(points, _STEADY_S * fps)
    slow = np.linalg.norm(np.gradient(steady, axis=0), axis=-1) * fps < limit_m_s
    return _lasting(slow, fps)


def _lasting(contacts: Bool[np.ndarray, "T P"], fps: float) -> Bool[np.ndarray, "T P"]:
    length = np.ones((max(1, round(_SHORTEST_S * fps)), 1), bool)
    margin = len(length)
    padded = np.pad(contacts, ((margin, margin), (0, 0)), mode="edge")
    padded = binary_opening(binary_closing(padded, length), length)
    return padded[margin:-margin]


def _touching(
    seen: _Seen, ways: _Ways, plane: Plane, levels: Float[np.ndarray, " L"], fps: float
) -> Bool[np.ndarray, "N 4"]:
    """Feet that are slow and near a level of the ground."""
    feet = ways.pelvis[:, None] + seen.limbs[:, :4]
    height = plane.height_of(feet) - seen.soles
    near = np.abs(height - _nearest(height, levels)) < _NEAR_M
    contacts = np.zeros(near.shape, bool)
    for run in seen.runs:
        slow = _slow(feet[run], fps, _STANDING_M_S)
        contacts[run] = _lasting(slow & near[run], fps)
    return contacts


def _nearest(
    heights: Float[np.ndarray, "*N"], levels: Float[np.ndarray, " L"]
) -> Float[np.ndarray, "*N"]:
    """The level, or the plane itself, that is nearest to each height."""
    every = np.array([0.0, *levels])
    return every[np.abs(heights[..., None] - every).argmin(axis=-1)]


def _levels(seen: _Seen, ways: _Ways, plane: Plane) -> Float[np.ndarray, " L"]:
    """Heights over the plane at which there are many contacts, beside the plane's own."""
    height = (plane.height_of(ways.anchors) - seen.soles)[ways.contacts]
    levels: list[float] = [0.0]
    free = np.abs(height) > _LEAST_STEP_M
    while free.sum() > _LEVEL_SHARE * len(height):
        bins = np.round(height[free] / 0.03).astype(int)
        found = 0.03 * np.bincount(bins - bins.min()).argmax() + 0.03 * bins.min()
        mine = free & (np.abs(height - found) < _LEAST_STEP_M / 2)
        free &= np.abs(height - found) > _LEAST_STEP_M
        if mine.sum() > _LEVEL_SHARE * len(height):
            levels.append(float(np.median(height[mine])))
    return np.array(sorted(levels[1:]))


def _ground(
    seen: _Seen, ways: _Ways, expected_up: Float[np.ndarray, "3"], levels: Float[np.ndarray, " L"]
) -> tuple[Plane, Float[np.ndarray, " L"]]:
    """The lowest ground, and the levels over it."""
    resting = np.argwhere(ways.contacts)
    resting = resting[:: max(1, len(resting) // _MOST_POINTS)]
    if len(resting) < _LEAST_POINTS:
        log.warning("no foot rests for a moment: the ground is where the lowest feet are")
        feet = ways.pelvis[:, None] + seen.limbs[:, :4]
        lowest = (feet @ expected_up - seen.soles).min(axis=1)
        return Plane(expected_up, float(np.quantile(lowest, 0.05))), np.zeros(0)
    places = tuple(resting.T)
    points = ways.anchors[places] - (seen.soles + ways.level)[places][:, None] * expected_up
    plane = fit_floor(points, expected_up, _STANDING_LEAN)
    every = np.array([0.0, *levels])
    return Plane(plane.up, plane.height + every.min()), np.sort(every - every.min())[1:]


def _solve(
    seen: _Seen,
    ways: _Ways,
    plane: Plane,
    levels: Float[np.ndarray, " L"] | None,
    clip: Clip,
) -> _Ways:
    """Everybody's way with the contacts of `ways`, window after window.

    Args:
        levels: grounds over the plane; None: feet may stand at any height.
    """
    solved = _Ways(*(values.copy() for values in ways))
    for run in seen.runs:
        for start in range(0, len(run), _WINDOW):
            first = max(0, start - _OVERLAP)
            part = run[first : start + _WINDOW + _OVERLAP]
            kept = slice(start - first, start - first + _WINDOW)
            window = _solve_window(seen, ways, part, plane, levels, clip)
            for values, found in zip(solved, window, strict=True):
                values[part[kept]] = found[kept]
        _settle(seen, solved, run)
    return solved


def _settle(seen: _Seen, ways: _Ways, run: Int[np.ndarray, " T"]) -> None:
    """Give each point of a foot one place while the foot stands, and both the foot's length."""
    contacts, segment = ways.contacts[run], _segments(ways.contacts[run])
    when, point = np.nonzero(contacts)
    if not len(when):
        return
    owner = segment[when, point]
    means = _means(ways.anchors[run[when], point], owner)
    limbs = seen.limbs[run]
    for heel in (0, 2):
        flat = contacts[:, heel] & contacts[:, heel + 1]
        pairs = np.unique(segment[flat, heel : heel + 2], axis=0)
        for pair in pairs:
            mine = flat & (segment[:, heel] == pair[0])
            length = np.linalg.norm(limbs[mine, heel + 1] - limbs[mine, heel], axis=1).mean()
            half = means[pair[1]] - means[pair[0]]
            half *= length / 2 / max(float(np.linalg.norm(half)), 1e-6)
            means[pair] = means[pair].mean(axis=0) + np.array([[-1.0], [1.0]]) * half
    ways.anchors[run[when], point] = means[owner]


def _solve_window(
    seen: _Seen,
    ways: _Ways,
    part: Int[np.ndarray, " T"],
    plane: Plane,
    levels: Float[np.ndarray, " L"] | None,
    clip: Clip,
) -> _Ways:
    """Reweighted least squares over the places of the pelvis and of feet that stand.

    The pelvis is where the image shows it, and about as far away as its size says; it accelerates
    as people do; feet stand still while they are in contact, at a level of the ground.
    """
    count, contacts, limbs = len(part), ways.contacts[part], seen.limbs[part, :4]
    segment = _segments(contacts)
    segments = int(segment.max(initial=-1)) + 1
    system = _Equations(3 * (count + segments))
    ray = seen.pelvis[part] - seen.centre[part]
    distance = np.maximum(np.linalg.norm(ray, axis=1), 0.2)
    ray /= distance[:, None]
    trust = np.sqrt(seen.weight[part])
    across = trust * clip.camera.focal[0] / (_MISPLACED_PX * distance)
    along = trust / (_MISJUDGED * distance * max(1.0, np.sqrt(_LASTING_S * clip.fps)))
    weights = across[:, None, None] * np.eye(3)
    weights += (along - across)[:, None, None] * ray[:, :, None] * ray[:, None, :]
    axes = np.arange(3)
    of_row = 3 * np.arange(count)[:, None] + axes
    system.add(of_row[:, None, :], weights, np.einsum("tij,tj->ti", weights, seen.pelvis[part]))
    bend = clip.fps**2 / _ACCELERATION_M_S2 * np.array([1.0, -2.0, 1.0])
    if count > 2:
        columns = np.stack([of_row[:-2], of_row[1:-1], of_row[2:]], axis=-1)
        system.add(columns, np.broadcast_to(bend, columns.shape), np.zeros(columns.shape[:2]))
    when, point = np.nonzero(contacts)
    owner = segment[when, point]
    of_anchor = 3 * (count + np.arange(segments))[:, None] + axes
    feet = ways.pelvis[part, None] + limbs
    known = np.bincount(owner, minlength=segments)
    anchors = _means(feet[when, point], owner)
    soles = _means(seen.soles[part][when, point][:, None], owner)[:, 0]
    pelvis = ways.pelvis[part]
    for _ in range(2):
        equations = system.copy()
        off = np.linalg.norm(pelvis[when] + limbs[when, point] - anchors[owner], axis=1)
        weight = 1 / _UNPLANTED_M / np.sqrt(1 + (off / (2 * _UNPLANTED_M)) ** 2)
        columns = np.stack([of_row[when], of_anchor[owner]], axis=-1)
        values = weight[:, None, None] * np.broadcast_to([1.0, -1.0], columns.shape)
        equations.add(columns, values, -weight[:, None] * limbs[when, point])
        if levels is not None:
            height = plane.height_of(anchors) - soles
            level = _nearest(height, levels)
            weight = np.sqrt(known) / _UNEVEN_M / np.sqrt(1 + ((height - level) / _NEAR_M) ** 2)
            equations.add(
                of_anchor[:, None, :],
                (weight[:, None] * plane.up)[:, None, :],
                (weight * (plane.height + level + soles))[:, None],
            )
        solution = equations.solve().reshape(-1, 3)
        pelvis, anchors = solution[:count], solution[count:]
    placed = pelvis[:, None] + limbs
    levels_under = np.zeros(contacts.shape)
    if levels is not None:
        height = plane.height_of(anchors) - soles
        level = _nearest(height, levels)
        anchors = anchors - (height - level)[:, None] * plane.up
        levels_under[when, point] = level[owner]
    placed[when, point] = anchors[owner]
    return _Ways(pelvis, contacts, placed, levels_under)


def _means(
    values: Float[np.ndarray, "C D"], owner: Int[np.ndarray, " C"]
) -> Float[np.ndarray, "S D"]:
    """Mean of the values of each owner, 0 to S - 1, all of whom have some."""
    sums = [np.bincount(owner, column) for column in values.T]
    return np.stack(sums, axis=1) / np.bincount(owner)[:, None]


class _Equations:
    """Linear equations of three unknowns or fewer each, which are solved by least squares."""

    def __init__(self, unknowns: int) -> None:
        self.unknowns = unknowns
        self.normal = csc_array((unknowns, unknowns))
        self.right = np.zeros(unknowns)

    def copy(self) -> "_Equations":
        other = _Equations(self.unknowns)
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


def _segments(contacts: Bool[np.ndarray, "T P"]) -> Int[np.ndarray, "T P"]:
    """A number for each stretch of contact of a point, counted over all points; -1 outside."""
    begins = contacts & ~np.pad(contacts, ((1, 0), (0, 0)))[:-1]
    numbers = np.cumsum(begins.T.ravel()).reshape(begins.T.shape).T - 1
    return np.where(contacts, numbers, -1)


def _write(
    rows: FinalRows,
    solved: World,
    seen: _Seen,
    ways: _Ways,
    fps: float,
    body: BodyModel,
    world: WorldRows,
) -> None:
    """World rows of all final rows, in blocks."""
    moves = np.zeros((len(rows), 2, 6), np.float32)
    pelvis_first = ways.pelvis.copy()
    for run in seen.runs:
        moves[run], drop = _leg_moves(seen, ways, run, solved.plane, fps)
        pelvis_first[run] -= drop[:, None] * solved.plane.up
    to_world = solved.from_first
    first_from_camera = np.linalg.inv(solved.motion.camera_from_first)
    for start in range(0, len(rows), BLOCK):
        part = np.arange(start, min(start + BLOCK, len(rows)))
        final = rows.take(part)
        result = np.zeros(len(part), WORLD_ROW)
        frames = final["frame_index"]
        for name in ("person", "frame_index"):
            result[name] = final[name]
        camera = to_world @ first_from_camera[frames]
        result["world_from_camera"] = camera
        result["camera_zoom"] = solved.motion.zoom[frames]
        result["camera_confidence"] = solved.motion.confidence[frames]
        result["foot_contact"] = ways.contacts[part]
        orient = Rotation.from_matrix(camera[:, :3, :3]) * Rotation.from_rotvec(
            final["global_orient"]
        )
        pelvis = pelvis_first[part] @ to_world[:3, :3].T + to_world[:3, 3]
        final["global_orient"] = orient.as_rotvec()
        joints = pose_joints(body, final)
        shift = pelvis - joints[:, PELVIS]
        for k, side in enumerate(SIDES):
            turn = Rotation.from_rotvec(moves[part, k, :3] @ to_world[:3, :3].T)
            final["body_pose"] = bend_leg(
                *(orient, final["body_pose"], joints.astype(np.float64), side),
                moves[part, k, 3:] @ to_world[:3, :3].T,
                turn,
            )
        result["world_global_orient"] = final["global_orient"]
        result["world_body_pose"] = final["body_pose"]
        result["world_transl"] = shift
        result["world_joints_3d_m"] = pose_joints(body, final) + result["world_transl"][:, None]
        world.append(result)


def _leg_moves(
    seen: _Seen, ways: _Ways, run: Int[np.ndarray, " T"], plane: Plane, fps: float
) -> tuple[Float[np.ndarray, "T 2 6"], Float[np.ndarray, " T"]]:
    """How each foot turns about its ankle, how the ankle moves, and how far the pelvis goes down.

    Feet then stand still; between contacts they move smoothly from one place to the next. The
    pelvis goes down where a leg would not reach.
    """
    result = np.zeros((len(run), 2, 6))
    missing = np.zeros((len(run), 2))
    limbs = ways.pelvis[run, None] + seen.limbs[run]
    for k in range(2):
        ends, ankle = slice(2 * k, 2 * k + 2), limbs[:, 4 + k]
        contacts, anchors = ways.contacts[run, ends], ways.anchors[run, ends]
        foot = limbs[:, ends]
        flat = contacts[:, 0] & contacts[:, 1]
        turns = _turn_between(foot[:, 1] - foot[:, 0], anchors[:, 1] - anchors[:, 0])
        turns = _between(turns, flat, fps)
        turned = Rotation.from_rotvec(turns)
        # Where one end stands, the other one may be on the ground, but not in it.
        for end in range(2):
            lever = turned.apply(foot[:, 1 - end] - foot[:, end])
            ground = ways.level[run, ends][:, end] + seen.soles[run, ends][:, 1 - end]
            sunk = ground - plane.height_of(anchors[:, end] + lever)
            sunk = np.where(contacts[:, end] & ~contacts[:, 1 - end], np.maximum(sunk, 0), 0)
            lifted = lever + sunk[:, None] * plane.up
            turned = Rotation.from_rotvec(_turn_between(lever, lifted)) * turned
        turns = turned.as_rotvec()
        foot = ankle[:, None] + np.einsum("tij,tkj->tki", turned.as_matrix(), foot - ankle[:, None])
        shares = contacts / np.maximum(contacts.sum(axis=1, keepdims=True), 1)
        shifts = ((anchors - foot) * shares[..., None]).sum(axis=1)
        stands = contacts[:, 0] | contacts[:, 1]
        shifts = _between(shifts, stands, fps)
        level = _of_nearest(ways.level[run, ends].max(axis=1), stands)
        below = (plane.height_of(foot + shifts[:, None]) - seen.soles[run, ends]).min(axis=1)
        lift = np.where(stands, 0.0, np.maximum(level - below, 0.0))
        shifts += lift[:, None] * plane.up
        result[:, k, :3], result[:, k, 3:] = turns, shifts
        knee, hip = limbs[:, 6 + k], limbs[:, 8 + k]
        length = np.linalg.norm(hip - knee, axis=1) + np.linalg.norm(knee - ankle, axis=1)
        leg = hip - ankle - shifts
        upward = leg @ plane.up
        aside = np.sqrt(np.maximum((leg**2).sum(axis=1) - upward**2, 0))
        highest = np.sqrt(np.maximum((_REACH * length) ** 2 - aside**2, 0))
        missing[:, k] = np.where(stands, np.maximum(upward - highest, 0), 0)
    reach = max(1, round(_SINKING_S * fps))
    drop = maximum_filter1d(missing.max(axis=1), 2 * reach + 1)
    drop = np.minimum(gaussian_filter1d(drop, reach / 2, mode="nearest"), _MOST_SINKING_M)
    result[:, :, 3:] += drop[:, None, None] * plane.up
    return result, drop


def _turn_between(
    start: Float[np.ndarray, "T 3"], end: Float[np.ndarray, "T 3"]
) -> Float[np.ndarray, "T 3"]:
    """The smallest rotation vectors that bring directions to others."""
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=1)
    angle = np.arctan2(sine, (start * end).sum(axis=1))
    return axis * (angle / np.maximum(sine, 1e-12))[:, None]


def _between(
    values: Float[np.ndarray, "T 3"], known: Bool[np.ndarray, " T"], fps: float
) -> Float[np.ndarray, "T 3"]:
    """Values where they are known; between them smoothly from one to the next, and over long
    gaps and at the ends to zero.
    """
    places = np.flatnonzero(known)
    if not len(places):
        return np.zeros_like(values)
    times = np.arange(len(values))
    after = np.searchsorted(places, times)
    right, left = places[np.minimum(after, len(places) - 1)], places[np.maximum(after - 1, 0)]
    left = np.where(known, times, left)
    share = np.clip((times - left) / np.maximum(right - left, 1), 0, 1)
    share = (share**2 * (3 - 2 * share))[:, None]
    filled = (1 - share) * values[left] + share * values[right]
    away = np.minimum(np.abs(times - left), np.abs(right - times)) / (_FADE_S * fps)
    long = (right - left > 2 * _FADE_S * fps) | (times < places[0]) | (times > places[-1])
    faded = np.clip(1 - away, 0, 1)
    return np.where(known, 1.0, np.where(long, faded**2 * (3 - 2 * faded), 1.0))[:, None] * filled


def _of_nearest(
    values: Float[np.ndarray, " T"], known: Bool[np.ndarray, " T"]
) -> Float[np.ndarray, " T"]:
    """The known value that is nearest in time; 0 where none is."""
    places = np.flatnonzero(known)
    if not len(places):
        return np.zeros_like(values)
    times = np.arange(len(values))
    middle = (places[1:] + places[:-1]) / 2
    return values[places[np.searchsorted(middle, times)]]


def bend_leg(
    orient: Rotation,
    body_pose: Float[np.ndarray, "T 63"],
    joints: Float[np.ndarray, "T 137 3"],
    side: str,
    shift: Float[np.ndarray, "T 3"],
    turn: Rotation,
) -> Float[np.ndarray, "T 63"]:
    """Body poses whose ankle is moved by `shift` and whose foot is turned by `turn`.

    The knee bends about its hinge until the ankle is as far from the hip as asked, the leg turns
    about the hip as little as it can, and the foot keeps its direction but for `turn`. Ankles
    that are farther than the leg is long are brought as near as it reaches.

    Args:
        orient: of the root, T rotations in the frame of `joints`, `shift` and `turn`.
    """
    hip, knee, ankle = (
        joints[:, JOINTS.index(f"{side}_{name}")] for name in ("hip", "knee", "ankle")
    )
    numbers = [BODY_JOINTS.index(f"{side}_{name}") - 1 for name in ("hip", "knee", "ankle")]
    local = body_pose.reshape(len(body_pose), 21, 3)
    chain = [Rotation.from_rotvec(local[:, number]) for number in numbers]
    thigh = orient * chain[0]
    shin = thigh * chain[1]
    foot = turn * shin * chain[2]
    upper, lower = hip - knee, ankle - knee
    long, short = np.linalg.norm(upper, axis=1), np.linalg.norm(lower, axis=1)
    wanted = ankle + shift - hip
    reach = np.linalg.norm(wanted, axis=1)
    reach = np.clip(reach, np.abs(long - short) + 0.01, (long + short) * _STRETCHED)
    # |upper - Rot(hinge, angle) lower| = reach: a cos(angle) + b sin(angle) + c is known.
    hinge = thigh.apply(_HINGE)
    level = (lower * hinge).sum(axis=1, keepdims=True) * hinge
    swung = lower - level
    a, c = (upper * swung).sum(axis=1), (upper * level).sum(axis=1)
    b = (upper * np.cross(hinge, swung)).sum(axis=1)
    rest = (long**2 + short**2 - reach**2) / 2 - c
    cosine = np.clip(rest / np.maximum(np.hypot(a, b), 1e-9), -1, 1)
    # Of the two solutions, the one in which the knee bends forward.
    angle = np.arctan2(b, a) - np.arccos(cosine)
    bent = Rotation.from_rotvec(angle[:, None] * hinge)
    swing = Rotation.from_rotvec(_turn_between(bent.apply(lower) - upper, wanted))
    new_thigh, new_shin = swing * thigh, swing * bent * shin
    result = local.copy()
    result[:, numbers[0]] = (orient.inv() * new_thigh).as_rotvec()
    result[:, numbers[1]] = (new_thigh.inv() * new_shin).as_rotvec()
    result[:, numbers[2]] = (new_shin.inv() * foot).as_rotvec()
    return result.reshape(body_pose.shape)
