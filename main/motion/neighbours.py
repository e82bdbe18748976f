"""Whose keypoints somebody has, and what the frames before and after say about the estimate.

A keypoint network that looks at somebody who is covered finds whoever is in front, and sometimes
takes the left side for the right one. `own_keypoints` and `judged_frames` notice that, and who is
covered; `joined_over_time` carries bodies from the frames in which they are known well into those
in which they are not.
"""

from collections.abc import Iterator
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
from main.motion.kinematics import DEEP, ROTATING
from main.motion.rows import KeypointSource, RawRows
from main.motion.trajectories import filled_runs, occlusion

_BODY: Final = JOINT_PARTS["body"]
_SHARED: Final = 0.04
"""Distance in which two people's keypoints are one and the same, in longer sides of the box."""
_LEAST_SHARED: Final = 4
_FOUND: Final = list(joint_places(COCO_KEYPOINTS))
"""What the network of the body's keypoints finds."""
_LIMBS: Final = np.array(_FOUND[5:])
"""The same without the head, whose left and right are too near each other."""
_MIRRORED: Final = np.array(mirror_permutation(JOINTS))
_MIRRORED[JOINT_PARTS["face"]] = np.arange(len(JOINTS))[JOINT_PARTS["face"]]
_EXCHANGED: Final = 0.5
"""Distance of keypoints from the network's joints of the other side, over that from those of their
own side, up to which left and right are exchanged."""
_LEAST_APART: Final = 0.08
"""Distance from those of their own side, in longer sides of the box: below, both sides are near."""
_CONFIRMED: Final = 0.5
"""Share of the keypoints with a depth, near which BlazePose finds the same joint."""
_EXCLUSIVE: Final = 0.15
"""Distance of keypoints from the network's joints, in longer sides of the box, from which one of
both is wrong."""
_WORSE: Final = 1.2
"""Then, by how much the keypoints' edges are farther than those of the network's joints from those
of the box if the keypoints are wrong."""
_COVERED_IS_ANOTHERS: Final = 0.25
"""Logarithm of a ratio of distances by which keypoints are rather of somebody who is not covered,
times the difference of the covered shares."""
_CLEARLY: Final = 0.5
"""Logarithm of the ratio from which shared keypoints are somebody's."""
_COVERED: Final = 0.3
"""Share of the joints in somebody nearer's box from which the network's estimate is doubtful."""
_DOUBT: Final = 1000.0
"""How much larger the variance of such an estimate is."""
_TURN: Final = 0.33
"""Standard deviation of a joint's turn in one second, radians; it grows with the root of time."""
_MOVE: Final = np.array([0.11, 0.11, 0.055])
"""The same of the place: in the image, in sides of the box, and the logarithm of the depth."""
_BLOCK, MARGIN = 1024, 192
"""Rows that are joined at a time, and how many more on each side are looked at."""


class FramesJudged(NamedTuple):
    """Of each raw row.

    Attributes:
        covered: share of the body's joints that are in the box of somebody nearer.
        has_anothers: the keypoints are somebody else's, or it is not clear whose.
    """

    covered: Float[np.ndarray, " N"]
    has_anothers: Bool[np.ndarray, " N"]


def own_keypoints(rows: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Raw rows with the keypoints that are the person's, as a copy.

    Left and right are exchanged where the keypoint network took one for the other. No keypoint is
    known where they are of somebody else or of nobody. Keypoints of a file are taken as they are.
    """
    rows = rows.copy()
    found = rows["keypoint_source"][:, _FOUND] == KeypointSource.BODY
    found &= rows["keypoint_score"][:, _FOUND] > 0
    mine = np.flatnonzero(found[:, -len(_LIMBS) :].any(axis=1))
    if not len(mine):
        return rows
    found, some = found[mine], rows[mine]
    apart, mirrored = (
        _distance(some, found[:, -len(_LIMBS) :], places) for places in (_LIMBS, _MIRRORED[_LIMBS])
    )
    known = some["keypoint_score"][:, DEEP] > 0
    confirmed = known & (some["keypoint_depth_m"][:, DEEP] != 0)
    is_exchanged = (
        (mirrored < _EXCHANGED * apart)
        & (apart > _LEAST_APART)
        & (confirmed.sum(axis=1) < _CONFIRMED * known.sum(axis=1))
    )
    everything = np.ones_like(found)
    ours, theirs = (
        _misfit(some["box_xywh"], some[name][:, _FOUND], which, image_size)
        for name, which in (("keypoints_px", found), ("joints_2d_px", everything))
    )
    apart = np.where(is_exchanged, mirrored, apart)
    is_wrong = (apart > _EXCLUSIVE) & (ours > _WORSE * theirs)
    for name in ("keypoints_px", "keypoint_score", "keypoint_source", "keypoint_depth_m"):
        rows[name][mine[is_exchanged]] = some[name][is_exchanged][:, _MIRRORED]
    for name in ("keypoint_score", "keypoint_depth_m"):
        rows[name][mine[is_wrong]] = 0
    return rows


def _distance(
    rows: np.ndarray, known: Bool[np.ndarray, "N L"], places: Int[np.ndarray, " L"]
) -> Float[np.ndarray, " N"]:
    """Median distance of the limbs' keypoints from some joints, in longer sides of the box."""
    off = np.linalg.norm(rows["keypoints_px"][:, _LIMBS] - rows["joints_2d_px"][:, places], axis=-1)
    size = rows["box_xywh"][:, 2:].max(axis=1)
    return np.nanmedian(np.where(known, off, np.nan), axis=1) / size


def _misfit(
    box: Float[np.ndarray, "N 4"],
    points: Float[np.ndarray, "N P 2"],
    known: Bool[np.ndarray, "N P"],
    image_size: tuple[int, int],
) -> Float[np.ndarray, " N"]:
    """Pixels from the edges of points to those of the box, inside the image, in all."""
    end = np.array(image_size) - 1
    points = points.clip(0, end)
    low, high = (np.where(known[..., None], points, far).clip(0, end) for far in (np.inf, -np.inf))
    first, last = box[:, :2].clip(0, end), (box[:, :2] + box[:, 2:]).clip(0, end)
    edges = np.abs(low.min(axis=1) - first) + np.abs(high.max(axis=1) - last)
    return np.asarray(edges.sum(axis=1))


def judged_frames(raw: RawRows) -> FramesJudged:
    """Who is covered, and whose keypoints are those that two people have in common.

    They are of the one from whose joints, as the network sees them, they are less far, and rather
    of the one in front.
    """
    covered, anothers = np.zeros(len(raw)), np.zeros(len(raw), bool)
    for _, mine in raw.by_frame():
        if len(mine) < 2:
            continue
        rows = raw.take(mine)
        joints, points = rows["joints_2d_px"][:, _BODY], rows["keypoints_px"][:, _BODY]
        depth = rows["placed_pelvis_m"][:, 2]
        covered[mine] = occlusion(joints, rows["box_xywh"], depth)
        known = rows["keypoint_score"][:, _BODY] > 0
        off = np.linalg.norm(points - joints, axis=-1)
        size = rows["box_xywh"][:, 2:].max(axis=1)
        for one in range(len(mine)):
            for other in range(one):
                apart = np.linalg.norm(points[one] - points[other], axis=-1)
                near = apart < _SHARED * min(size[one], size[other])
                shared = known[one] & known[other] & near
                if shared.sum() < _LEAST_SHARED:
                    continue
                distances = np.median(off[:, shared], axis=1) + 1e-6
                against = np.log(distances[one] / distances[other]) + _COVERED_IS_ANOTHERS * (
                    covered[mine[one]] - covered[mine[other]]
                )
                anothers[mine[one]] |= against > -_CLEARLY
                anothers[mine[other]] |= against < _CLEARLY
    return FramesJudged(covered, anothers)


def doubted(
    variances: Float[np.ndarray, "N C"], covered: Float[np.ndarray, " N"]
) -> Float[np.ndarray, "N C"]:
    """Variances of estimates, larger where people are covered."""
    return variances * np.where(covered > _COVERED, _DOUBT, 1.0)[:, None].astype(variances.dtype)


def joined_over_time(
    refined: RawRows,
    rows: Int[np.ndarray, " T"],
    variances: Float[np.ndarray, "N C"],
    fps: float,
) -> Iterator[tuple[Int[np.ndarray, " B"], np.ndarray]]:
    """The rows of one person after their neighbours in time were heard, some at a time.

    With y_t the estimate of a frame, v_t its variance and q that of the change in a frame, it
    minimises the sum of |x_t - y_t|² / v_t + |x_t+1 - x_t|² / (q (t+1 - t)) for each joint's
    rotation, as unit quaternions, and for the place. Columns that depend on the pose, such as
    the joints' pixels, are left to the caller, who may write the rows back.

    Args:
        rows: numbers of the person's rows.
        variances: of the estimates, of each turned joint and the three entries of the place.
    """
    frames = refined.column("frame_index")
    rows = rows[np.argsort(frames[rows], kind="stable")]
    change = np.concatenate([np.full(variances.shape[1] - 3, _TURN), _MOVE]) ** 2 / fps
    for run in filled_runs(frames[rows], rows, fps):
        mine = run.before[run.before == run.after]
        unheard = refined.take(mine[:0])
        for start in range(0, len(mine), _BLOCK):
            first, stop = max(0, start - MARGIN), min(start + _BLOCK, len(mine))
            ahead = refined.take(mine[start : stop + MARGIN])
            part = np.concatenate([unheard[len(unheard) - (start - first) :], ahead])
            unheard = part[: stop - first][-MARGIN:].copy()
            numbers = mine[first : stop + MARGIN]
            gaps = np.maximum(np.diff(part["frame_index"]), 1)[:, None]
            _join(part, 1 / variances[numbers], 1 / (change * gaps))
            yield mine[start:stop], part[start - first : stop - first]


def _join(
    rows: np.ndarray, trust: Float[np.ndarray, "T C"], links: Float[np.ndarray, "T-1 C"]
) -> None:
    """Consecutive rows of a person, in place.

    Args:
        trust: one over the variance of each joint and entry of the place.
        links: one over the variance of what changes from each row to the next.
    """
    count = len(rows)
    vectors = np.concatenate([rows[name] for name in ROTATING], axis=1).reshape(-1, 3)
    turns = Rotation.from_rotvec(vectors).as_quat().reshape(count, -1, 4)
    signs = np.sign((turns[1:] * turns[:-1]).sum(axis=-1, keepdims=True) + 1e-12)
    turns[1:] *= np.cumprod(signs, axis=0)
    turns = _solved(turns, trust[:, :-3], links[:, :-3])
    vectors = Rotation.from_quat(turns.reshape(-1, 4)).as_rotvec().reshape(count, -1)
    first = 0
    for name, joints in ROTATING.items():
        rows[name] = vectors[:, first : first + 3 * len(joints)]
        first += 3 * len(joints)
    pelvis = rows["placed_pelvis_m"].astype(np.float64)
    depth = np.maximum(pelvis[:, 2:], 1e-3)
    place = np.concatenate([pelvis[:, :2] / depth, np.log(depth)], axis=1)
    place = _solved(place[..., None], trust[:, -3:], links[:, -3:])[..., 0]
    depth = np.exp(place[:, 2:])
    rows["placed_pelvis_m"] = np.concatenate([place[:, :2] * depth, depth], axis=1)


def _solved(
    values: Float[np.ndarray, "T C K"],
    trust: Float[np.ndarray, "T C"],
    links: Float[np.ndarray, "T-1 C"],
) -> Float[np.ndarray, "T C K"]:
    """The minimum, by elimination forwards and substitution backwards (tridiagonal)."""
    result = np.empty_like(values)
    passed = np.zeros_like(trust)
    for t in range(len(values)):
        before = links[t - 1] * (1 - passed[t - 1]) if t else np.zeros_like(trust[0])
        after = links[t] if t + 1 < len(values) else np.zeros_like(trust[0])
        total = trust[t] + before + after
        passed[t] = after / total
        heard = trust[t][:, None] * values[t]
        if t:
            heard = heard + links[t - 1][:, None] * result[t - 1]
        result[t] = heard / total[:, None]
    for t in range(len(values) - 2, -1, -1):
        result[t] += passed[t][:, None] * result[t + 1]
    return result
