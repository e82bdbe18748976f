"""People and the contacts of their feet with the ground, as `main.motion.world` uses them."""

import logging
import math
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import binary_closing, binary_opening

from human_models.body import BodyModel
from human_models.joints import JOINTS, SIDES
from main.motion.camera import JOINT_WEIGHTS, PELVIS, CameraMotion, as_dolly
from main.motion.ground import Ground, nearest_level
from main.motion.rows import FINAL_ROW, FinalRows
from main.motion.trajectories import pose_joints, pose_vertices
from utils.geometry import smooth

log = logging.getLogger(__name__)

FOOT_JOINTS: Final = ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
"""The joints of the four columns of `foot_contact`."""
_FEET: Final = [JOINTS.index(name) for name in FOOT_JOINTS]
_ANKLES, _KNEES, _HIPS = (
    [JOINTS.index(f"{side}_{name}") for side in SIDES] for name in ("ankle", "knee", "hip")
)
_LIMBS: Final = [*_FEET, *_ANKLES, *_KNEES, *_HIPS]
FEET: Final = slice(0, 4)
ANKLES, KNEES, HIPS = slice(4, 6), slice(6, 8), slice(8, 10)
"""Parts of `Observations.limbs`; all but `FEET` are left, right."""
_NECK: Final = JOINTS.index("neck")
_STANDING_M_S: Final = 0.4
"""Speed of a foot that stands, in the cost of a scale of the camera's motion."""
MAX_SAMPLES: Final = 5_000
"""Number of rows or contacts from which directions and the ground are estimated."""
_UPRIGHT_COSINE: Final = math.cos(math.radians(35))
"""Cosine of the angle between trunk and legs up to which somebody stands."""
_UPRIGHT_SHARE: Final = 0.1
"""Share of rows with people who stand from which they alone determine the up direction."""
NEAR_M: Final = 0.10
"""Height above or below the ground up to which a slow foot touches it."""
_FIRST_SPEED_M_S, _SPEED_M_S = 0.6, 0.6
"""Speed up to which a foot may touch the ground, at first and when distances are known better."""
_FIRST_HEIGHT_M: Final = 0.12
"""Height over a person's lowest foot up to which a foot may touch the ground at first."""
_STEADY_S: Final = 0.06
"""Standard deviation of the kernel with which feet are smoothed before their speed is judged."""
_MIN_CONTACT_S: Final = 0.1
"""Least duration of contacts, and of gaps between them."""
_MIN_LOG_ZOOM: Final = 0.03
"""Logarithm of the zoom from which it may be a motion of the camera instead."""
_MAX_DOLLY_RATIO: Final = 0.88
"""Ratio of the motion of feet without and with a zoom below which the camera moves instead."""
_MIN_SCORE: Final = 0.4
"""Score of a keypoint below which the image may not show the joint."""


class Observations(NamedTuple):
    """N final rows in the first camera's frame, in metres.

    Attributes:
        runs: numbers of the rows of consecutive frames of one person.
        person: number of each row's person.
        pelvis: position.
        centre: position of the camera.
        ray: unit vector from the camera to the weighted mean of the joints.
        weight: 1, or less where nobody was detected.
        limbs: `FOOT_JOINTS`, ankles, knees and hips, relative to the pelvis.
        soles: heights of `FOOT_JOINTS` over the soles of a person who stands.
        hidden: whether keypoints are known, but none of an ankle.
    """

    runs: list[Int[np.ndarray, " _"]]
    person: Int[np.ndarray, " N"]
    pelvis: Float[np.ndarray, "N 3"]
    centre: Float[np.ndarray, "N 3"]
    ray: Float[np.ndarray, "N 3"]
    weight: Float[np.ndarray, " N"]
    limbs: Float[np.ndarray, "N 10 3"]
    soles: Float[np.ndarray, "N 4"]
    hidden: Bool[np.ndarray, " N"]


class Solution(NamedTuple):
    """Positions and contacts of N rows in the first camera's frame, in metres.

    Attributes:
        contacts: whether each of `FOOT_JOINTS` touches the ground.
        anchors: positions of `FOOT_JOINTS`, which are constant during a contact.
        levels: height over the plane of the ground below each of `FOOT_JOINTS`; 0 if no contact.
    """

    pelvis: Float[np.ndarray, "N 3"]
    contacts: Bool[np.ndarray, "N 4"]
    anchors: Float[np.ndarray, "N 4 3"]
    levels: Float[np.ndarray, "N 4"]


def observe(rows: FinalRows, motion: CameraMotion, soles: Float[np.ndarray, "N 4"]) -> Observations:
    """Place final rows in the first camera's frame.

    Args:
        motion: the camera's motion in metres.
        soles: as in `Observations`.
    """
    frames = rows.column("frame_index")
    rotation = motion.camera_from_first[frames, :3, :3].transpose(0, 2, 1)
    centre = -np.einsum("nij,nj->ni", rotation, motion.camera_from_first[frames, :3, 3])
    pelvis = rows.column("joints_3d_m", PELVIS).astype(np.float64)
    limbs = rows.column("joints_3d_m", _LIMBS) - pelvis[:, None]
    middle = np.empty_like(pelvis)
    for block, part in rows.blocks():
        middle[block] = JOINT_WEIGHTS @ part["joints_3d_m"] / JOINT_WEIGHTS.sum()
    middle -= pelvis
    # With a longer focal length, a person of the same size in the image is farther away.
    pelvis[:, 2] *= motion.zoom[frames]
    ray = pelvis + middle
    ray /= np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), 1e-6)
    is_known: Bool[np.ndarray, "N 137"] = rows.column("keypoint_score") >= _MIN_SCORE
    return Observations(
        runs=[
            run
            for mine in rows.by_identity().values()
            for run in np.split(mine, np.flatnonzero(np.diff(frames[mine]) > 1) + 1)
        ],
        person=rows.column("person"),
        pelvis=np.einsum("nij,nj->ni", rotation, pelvis) + centre,
        centre=centre,
        ray=np.einsum("nij,nj->ni", rotation, ray),
        weight=np.where(rows.column("interpolated"), 0.1, 1.0),
        limbs=np.einsum("nij,nkj->nki", rotation, limbs),
        soles=soles,
        hidden=np.asarray(is_known.any(axis=1) & ~is_known[:, _ANKLES].any(axis=1)),
    )


def soles_of(rows: FinalRows, body: BodyModel) -> Float[np.ndarray, "N 4"]:
    """Heights of `FOOT_JOINTS` over the lowest vertex of each row's person in the rest pose."""
    soles = np.zeros((len(rows), 4))
    for mine in rows.by_identity().values():
        standing = np.zeros(1, FINAL_ROW)
        standing["betas"] = rows.take(mine[:1], "betas")
        heights = pose_joints(body, standing)[0, _FEET, 1]
        soles[mine] = heights - pose_vertices(body, standing)[0, :, 1].min()
    return soles


def up_direction(rows: FinalRows, motion: CameraMotion) -> Float[np.ndarray, "3"]:
    """The unit vector in the first camera's frame that points away from gravity.

    It is the median direction from between the ankles to the neck of people who stand or walk:
    somebody who walks leans forward, but stays above the feet. If hardly anybody stands, it is the
    median direction from pelvis to neck.
    """
    step = max(1, len(rows) // MAX_SAMPLES)
    points = rows.column("joints_3d_m", [PELVIS, _NECK, *_ANKLES])[::step]
    pelvis, neck, ankles = points[:, 0], points[:, 1], points[:, 2:].mean(axis=1)
    rotations = motion.camera_from_first[rows.column("frame_index")[::step], :3, :3]
    trunk, legs = (
        np.einsum("nji,nj->ni", rotations, vectors) for vectors in (neck - pelvis, pelvis - ankles)
    )
    lengths = np.linalg.norm(trunk, axis=1) * np.linalg.norm(legs, axis=1)
    stands = (trunk * legs).sum(axis=1) > _UPRIGHT_COSINE * lengths
    directions = (trunk + legs)[stands] if stands.mean() > _UPRIGHT_SHARE else trunk
    median = np.median(directions, axis=0)
    length = float(np.linalg.norm(median))
    return median / length if length > 0.2 else np.array([0.0, -1.0, 0.0])


def first_solution(seen: Observations, up: Float[np.ndarray, "3"], fps: float) -> Solution:
    """People as they are observed; their slow feet near their lowest foot are in contact."""
    feet = seen.pelvis[:, None] + seen.limbs[:, FEET]
    contacts = np.zeros(feet.shape[:2], bool)
    for run in seen.runs:
        contacts[run] = _slow_points(smooth(feet[run], 0.25 * fps), fps, _FIRST_SPEED_M_S)
    height = (feet @ -up).max(axis=1, keepdims=True) + feet @ up
    return Solution(
        seen.pelvis, contacts & (height < _FIRST_HEIGHT_M), feet, np.zeros(height.shape)
    )


def find_contacts(
    seen: Observations, solution: Solution, ground: Ground, fps: float
) -> Bool[np.ndarray, "N 4"]:
    """Whether each of `FOOT_JOINTS` is slow and near a level of the ground."""
    feet = solution.pelvis[:, None] + seen.limbs[:, FEET]
    height = ground.plane.height_of(feet) - seen.soles
    near = np.abs(height - nearest_level(height, ground.levels)) < NEAR_M
    contacts = np.zeros(near.shape, bool)
    for run in seen.runs:
        slow = _slow_points(feet[run], fps, _SPEED_M_S)
        contacts[run] = _without_short(slow & near[run], fps)
    return contacts


def _slow_points(
    points: Float[np.ndarray, "T P 3"], fps: float, limit_m_s: float
) -> Bool[np.ndarray, "T P"]:
    """Whether points are slower than a limit, without short changes."""
    if len(points) < 2:
        return np.zeros(points.shape[:2], bool)
    steady = smooth(points, _STEADY_S * fps)
    slow = np.linalg.norm(np.gradient(steady, axis=0), axis=-1) * fps < limit_m_s
    return _without_short(slow, fps)


def _without_short(contacts: Bool[np.ndarray, "T P"], fps: float) -> Bool[np.ndarray, "T P"]:
    """Contacts with short gaps closed and short contacts removed."""
    length = np.ones((max(1, round(_MIN_CONTACT_S * fps)), 1), bool)
    margin = len(length)
    padded = np.pad(contacts, ((margin, margin), (0, 0)), mode="edge")
    padded = binary_opening(binary_closing(padded, length), length)
    return padded[margin:-margin]


def segments_of(contacts: Bool[np.ndarray, "T P"]) -> Int[np.ndarray, "T P"]:
    """A number for each uninterrupted contact of a point, from 0; -1 where there is no contact."""
    begins = contacts & ~np.pad(contacts, ((1, 0), (0, 0)))[:-1]
    numbers = np.cumsum(begins.T.ravel()).reshape(begins.T.shape).T - 1
    return np.where(contacts, numbers, -1)


class FootScale(NamedTuple):
    """Scale of the camera's motion with which feet move least.

    Attributes:
        scale: metres per unit of the motion.
        cost: how much feet move with it; infinite if nobody is seen for three frames.
    """

    scale: float
    cost: float


def find_scale(seen: Observations, fps: float) -> FootScale:
    """Find the scale of the camera's motion with which some foot hardly moves most of the time.

    The velocity of a foot is that in the camera's frame plus the scale times the camera's velocity.
    The cost of a person is the mean of log(1 + (v / 0.4 m/s)²) over frames, where v is the speed
    of the slowest foot. The total cost is the geometric mean over people, because the arithmetic
    mean would be determined by badly estimated people, whose feet never rest.

    Args:
        seen: observations for a motion with the scale 1.
    """
    relative, moving, owners = [], [], []
    for run in seen.runs:
        if len(run) > 2:
            feet = (seen.pelvis - seen.centre)[run, None] + seen.limbs[run, FEET]
            # More smoothing would mix steps with contacts, and the scale would be too small.
            relative.append(np.gradient(smooth(feet, _STEADY_S / 2 * fps), axis=0) * fps)
            moving.append(np.gradient(seen.centre[run], axis=0) * fps)
            owners.append(seen.person[run])
    if not relative:
        return FootScale(1.0, math.inf)
    of_feet, of_camera = np.concatenate(relative), np.concatenate(moving)[:, None]
    _, owner, frames = np.unique(np.concatenate(owners), return_inverse=True, return_counts=True)
    squared = (of_camera**2).sum(axis=-1)
    moves = squared[:, 0] > 0.1 * squared.mean()
    tried = (-(of_feet * of_camera).sum(axis=-1)[moves] / squared[moves]).ravel()
    tried = np.quantile(tried[tried > 0], np.linspace(0, 1, 200)) if (tried > 0).any() else [1.0]
    costs: list[float] = []
    for scale in tried:
        slowest = np.linalg.norm(of_feet + scale * of_camera, axis=-1).min(axis=1)
        means = np.bincount(owner, np.log1p((slowest / _STANDING_M_S) ** 2)) / frames
        costs.append(math.exp(np.average(np.log(np.maximum(means, 1e-9)), weights=frames)))
    best = int(np.argmin(costs))
    return FootScale(float(tried[best]), float(costs[best]))


def zoom_or_dolly(
    rows: FinalRows, motion: CameraMotion, soles: Float[np.ndarray, "N 4"], fps: float
) -> CameraMotion:
    """The motion itself, or one ahead or back instead of its zoom if feet move much less with it.

    Where all of the background is far away, both look the same; people, who are nearer, do not.
    """
    if np.abs(np.log(motion.zoom)).max(initial=0) < _MIN_LOG_ZOOM:
        return motion
    dolly = as_dolly(motion)
    with_zoom, with_dolly = (
        find_scale(observe(rows, each, soles), fps).cost for each in (motion, dolly)
    )
    if not with_dolly < _MAX_DOLLY_RATIO * with_zoom:  # both may be infinite
        return motion
    log.warning("camera: by people's feet, it moves ahead or back instead of zooming")
    return dolly
