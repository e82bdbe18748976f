"""Corrections of keypoints and estimates by the other people in a frame, and by other frames.

Where a person is covered, a keypoint network finds the person in front, and it sometimes takes
the left side for the right one. `correct_keypoints` and `find_overlaps` detect this, and
`combine_frames` weights the estimates of a person's frames by their variances, so that well-seen
frames determine the pose in the others. docs/refinement.md has the rules and how they were chosen.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from human_models.joints import (
    COCO_KEYPOINTS,
    JOINT_PARTS,
    JOINTS,
    joint_places,
    mirror_permutation,
)
from main.motion.kinematics import DEPTH_JOINTS, read_rotations, write_rotations
from main.motion.rows import KeypointSource, RawRows
from main.motion.trajectories import filled_runs, occlusion
from utils.geometry import align_signs

_BODY: Final = JOINT_PARTS["body"]
_COCO: Final = list(joint_places(COCO_KEYPOINTS))
"""The joints that the body keypoint network finds."""
_LIMBS: Final = np.array(_COCO[5:])
"""The same without the head, whose left and right keypoints are too close together."""
_MIRRORED: Final = np.array(mirror_permutation(JOINTS))
_MIRRORED[JOINT_PARTS["face"]] = np.arange(len(JOINTS))[JOINT_PARTS["face"]]

# Distances are in units of the longer side of the box.
_MAX_SHARED_DISTANCE: Final = 0.04
"""Largest distance between the keypoints of two people that are taken to be the same point."""
_MIN_KEYPOINTS: Final = 4
"""Least number of such keypoints for which two people are compared."""
_MAX_SWAPPED_RATIO: Final = 0.5
"""Left and right are exchanged if the keypoints' distance from the joints of the other side is less
than this share of that from their own side."""
_MIN_SWAPPED_DISTANCE: Final = 0.08
"""Sides are only exchanged if keypoints are farther than this from the joints of their own side."""
_MAX_CONFIRMED_SHARE: Final = 0.5
"""Share of the keypoints with a depth, that is, near BlazePose's joint of the same side, from which
the sides are taken to be right."""
_MAX_DISTANCE: Final = 0.15
"""Distance between keypoints and the network's joints above which one of them is wrong."""
_MAX_BOX_ERROR_RATIO: Final = 1.2
"""Ratio of the keypoints' distance from the edges of the box to that of the network's joints above
which the keypoints are the wrong ones."""
_COVERED_EVIDENCE: Final = 0.25
"""Weight of the difference in covered shares, compared with a logarithm of a distance ratio."""
_MIN_EVIDENCE: Final = 0.5
"""Evidence (logarithm of a ratio) from which shared keypoints are assigned to one person."""
_MAX_COVERED: Final = 0.3
"""Share of joints in the box of a nearer person above which the estimate is unreliable."""
_COVERED_VARIANCE: Final = 1000.0
"""Factor for the variance of such an estimate."""
_ROTATION_SIGMA: Final = 0.33
"""Standard deviation of a joint's change of rotation in one second, in radians; the variance of
the random walk is proportional to the time."""
_POSITION_SIGMA: Final = np.array([0.11, 0.11, 0.055])
"""The same for the position: x and y in sides of the box, and the logarithm of the depth."""
_BLOCK, MARGIN = 1024, 192
"""Rows that are combined at a time, and further rows on each side that are taken into account."""


class Overlaps(NamedTuple):
    """What people who overlap in the image do to each raw row.

    Attributes:
        covered: share of the body's joints that lie in the box of a nearer person.
        has_foreign_keypoints: whether the keypoints belong to another person, or may do so.
    """

    covered: Float[np.ndarray, " N"]
    has_foreign_keypoints: Bool[np.ndarray, " N"]


def correct_keypoints(rows: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """A copy of raw rows with exchanged sides corrected and wrong keypoints marked as unknown.

    Keypoints are wrong where they show another person or none. Keypoints of a file are not changed.

    Args:
        rows: of type `RAW_ROW`.
        image_size: width and height in pixels.
    """
    rows = rows.copy()
    known = rows["keypoint_source"][:, _COCO] == KeypointSource.BODY
    known &= rows["keypoint_score"][:, _COCO] > 0
    chosen = np.flatnonzero(known[:, -len(_LIMBS) :].sum(axis=1) >= _MIN_KEYPOINTS)
    if not len(chosen):
        return rows
    known, old = known[chosen], rows[chosen]
    distance, mirrored_distance = (
        _limb_distance(old, known[:, -len(_LIMBS) :], joints)
        for joints in (_LIMBS, _MIRRORED[_LIMBS])
    )
    has_score = old["keypoint_score"][:, DEPTH_JOINTS] > 0
    is_confirmed = has_score & (old["keypoint_depth_m"][:, DEPTH_JOINTS] != 0)
    is_swapped = (
        (mirrored_distance < _MAX_SWAPPED_RATIO * distance)
        & (distance > _MIN_SWAPPED_DISTANCE)
        & (is_confirmed.sum(axis=1) < _MAX_CONFIRMED_SHARE * has_score.sum(axis=1))
    )
    keypoint_error, joint_error = (
        _box_error(old["box_xywh"], old[name][:, _COCO], known, image_size)
        for name in ("keypoints_px", "joints_2d_px")
    )
    distance = np.where(is_swapped, mirrored_distance, distance)
    is_wrong = (distance > _MAX_DISTANCE) & (keypoint_error > _MAX_BOX_ERROR_RATIO * joint_error)
    for name in ("keypoints_px", "keypoint_score", "keypoint_source", "keypoint_depth_m"):
        rows[name][chosen[is_swapped]] = old[name][is_swapped][:, _MIRRORED]
    for name in ("keypoint_score", "keypoint_depth_m"):
        rows[name][chosen[is_wrong]] = 0
    return rows


def _limb_distance(
    rows: np.ndarray, known: Bool[np.ndarray, "N L"], joints: Int[np.ndarray, " L"]
) -> Float[np.ndarray, " N"]:
    """Median distance of the known keypoints of `_LIMBS` from `joints`, in sides of the box."""
    offsets = rows["keypoints_px"][:, _LIMBS] - rows["joints_2d_px"][:, joints]
    distances = np.where(known, np.linalg.norm(offsets, axis=-1), np.nan)
    return np.nanmedian(distances, axis=1) / rows["box_xywh"][:, 2:].max(axis=1)


def _box_error(
    box: Float[np.ndarray, "N 4"],
    points: Float[np.ndarray, "N P 2"],
    known: Bool[np.ndarray, "N P"],
    image_size: tuple[int, int],
) -> Float[np.ndarray, " N"]:
    """Distance of the bounding box of the known points from `box`, both cut at the image's edges.

    It is the sum over the four edges, in pixels.
    """
    end = np.array(image_size) - 1
    points = points.clip(0, end)
    low, high = (np.where(known[..., None], points, far).clip(0, end) for far in (np.inf, -np.inf))
    first, last = box[:, :2].clip(0, end), (box[:, :2] + box[:, 2:]).clip(0, end)
    edges = np.abs(low.min(axis=1) - first) + np.abs(high.max(axis=1) - last)
    return np.asarray(edges.sum(axis=1))


def find_overlaps(raw: RawRows) -> Overlaps:
    """Find people who are covered, and those who have the keypoints of another person.

    Keypoints that two people share belong to the person whose joints, as the network estimates
    them, are nearer to them; the person in front is preferred.
    """
    covered, is_foreign = np.zeros(len(raw)), np.zeros(len(raw), bool)
    for _, numbers in raw.by_frame():
        if len(numbers) < 2:
            continue
        rows = raw.take(numbers)
        joints, points = rows["joints_2d_px"][:, _BODY], rows["keypoints_px"][:, _BODY]
        depth = rows["placed_pelvis_m"][:, 2]
        covered[numbers] = occlusion(joints, rows["box_xywh"], depth)
        known = rows["keypoint_score"][:, _BODY] > 0
        errors = np.linalg.norm(points - joints, axis=-1)
        size = rows["box_xywh"][:, 2:].max(axis=1)
        for b, a in combinations(range(len(numbers)), 2):
            distance = np.linalg.norm(points[a] - points[b], axis=-1)
            is_near = distance < _MAX_SHARED_DISTANCE * min(size[a], size[b])
            is_shared = known[a] & known[b] & is_near
            if is_shared.sum() < _MIN_KEYPOINTS:
                continue
            medians = np.median(errors[:, is_shared], axis=1) + 1e-6
            evidence = np.log(medians[a] / medians[b])
            evidence += _COVERED_EVIDENCE * (covered[numbers[a]] - covered[numbers[b]])
            is_foreign[numbers[a]] |= evidence > -_MIN_EVIDENCE
            is_foreign[numbers[b]] |= evidence < _MIN_EVIDENCE
    return Overlaps(covered, is_foreign)


def inflate_variances(
    variances: Float[np.ndarray, "N C"], covered: Float[np.ndarray, " N"]
) -> Float[np.ndarray, "N C"]:
    """Variances of estimates, increased where people are covered (above `_MAX_COVERED`)."""
    factors = np.where(covered > _MAX_COVERED, _COVERED_VARIANCE, 1.0)
    return variances * factors[:, None].astype(variances.dtype)


def combine_frames(
    refined: RawRows,
    rows: Int[np.ndarray, " T"],
    variances: Float[np.ndarray, "N C"],
    fps: float,
) -> Iterator[tuple[Int[np.ndarray, " B"], np.ndarray]]:
    """Combine the estimates of one person's frames: numbers of rows and the new rows, in blocks.

    With y_t the estimate of a frame, v_t its variance and q the variance of the change from one
    frame to the next, the result x minimises the sum of |x_t - y_t|² / v_t and
    |x_t+1 - x_t|² / (q (t+1 - t)) over the frames: for the unit quaternion of each joint's
    rotation, and for the position. Columns that depend on the pose, such as the joints' pixels,
    must be computed again by the caller, who may write the rows back during the iteration.

    Args:
        rows: numbers of the person's rows, in the order of frames.
        variances: of the estimates of all rows; first those of the rotated joints, then those of
            the three coordinates of the position.
    """
    frames = refined.column("frame_index")
    sigmas = np.concatenate([np.full(variances.shape[1] - 3, _ROTATION_SIGMA), _POSITION_SIGMA])
    change = sigmas**2 / fps
    for run in filled_runs(frames[rows], rows, fps):
        numbers = run.before[run.before == run.after]
        # The caller may have replaced earlier rows, so the margin before a block is kept here.
        original = refined.take(numbers[:0])
        for start in range(0, len(numbers), _BLOCK):
            first, stop = max(0, start - MARGIN), min(start + _BLOCK, len(numbers))
            following = refined.take(numbers[start : stop + MARGIN])
            part = np.concatenate([original[len(original) - (start - first) :], following])
            original = part[: stop - first][-MARGIN:].copy()
            gaps = np.maximum(np.diff(part["frame_index"]), 1)[:, None]
            _combine(part, 1 / variances[numbers[first : stop + MARGIN]], 1 / (change * gaps))
            yield numbers[start:stop], part[start - first : stop - first]


def _combine(
    rows: np.ndarray, precision: Float[np.ndarray, "T C"], coupling: Float[np.ndarray, "T-1 C"]
) -> None:
    """Combine consecutive rows of a person, in place.

    Args:
        precision: one over the variance of each rotated joint and coordinate of the position.
        coupling: one over the variance of the change from each row to the next.
    """
    vectors = read_rotations(rows).reshape(-1, 3).astype(np.float64)
    quaternions = Rotation.from_rotvec(vectors).as_quat().reshape(len(rows), -1, 4)
    rotations = _solve(align_signs(quaternions), precision[:, :-3], coupling[:, :-3])
    vectors = Rotation.from_quat(rotations.reshape(-1, 4)).as_rotvec()
    write_rotations(rows, vectors.reshape(len(rows), -1, 3))
    pelvis = rows["placed_pelvis_m"].astype(np.float64)
    depth = np.maximum(pelvis[:, 2:], 1e-3)
    position = np.concatenate([pelvis[:, :2] / depth, np.log(depth)], axis=1)
    position = _solve(position[..., None], precision[:, -3:], coupling[:, -3:])[..., 0]
    depth = np.exp(position[:, 2:])
    rows["placed_pelvis_m"] = np.concatenate([position[:, :2] * depth, depth], axis=1)


def _solve(
    values: Float[np.ndarray, "T C K"],
    precision: Float[np.ndarray, "T C"],
    coupling: Float[np.ndarray, "T-1 C"],
) -> Float[np.ndarray, "T C K"]:
    """Solve the tridiagonal normal equations by elimination and back substitution."""
    result, ratio = np.zeros_like(values), np.zeros_like(precision)
    none = np.zeros((1, coupling.shape[1]))
    before, after = np.concatenate([none, coupling]), np.concatenate([coupling, none])
    for t in range(len(values)):
        diagonal = precision[t] + before[t] * (1 - ratio[t - 1]) + after[t]
        ratio[t] = after[t] / diagonal
        right_side = precision[t][:, None] * values[t] + before[t][:, None] * result[t - 1]
        result[t] = right_side / diagonal[:, None]
    for t in range(len(values) - 2, -1, -1):
        result[t] += ratio[t][:, None] * result[t + 1]
    return result
