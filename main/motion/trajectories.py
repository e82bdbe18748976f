"""From raw rows to final rows: one shape per person, short gaps filled, smoothed, flagged."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped

from human_models.body import BodyModel
from human_models.joints import BODY_JOINTS, JOINT_PARTS, JOINTS_FROM_MODEL, SIDES
from main.motion.camera import PELVIS, Clip, solve_translation, truncation
from main.motion.rows import (
    BLOCK,
    BODY_PARAMETERS,
    FINAL_ROW,
    KEYPOINT_COLUMNS,
    PARAMETERS,
    RAW_ROW,
    ROTATIONS,
    FinalRows,
    RawRows,
    grouped,
)
from utils.geometry import interpolate_axis_angles, reach_of, smooth, smooth_axis_angles

LONGEST_GAP_S: Final = 0.5
"""Longest absence that is filled."""
_INTERPOLATED_WEIGHT: Final = 0.1
"""Weight of a filled frame in smoothing."""
_ROTATED: Final = (*ROTATIONS, "placed_orient")
_NOT_FILLED: Final = ("track", "frame_index", "score", *KEYPOINT_COLUMNS, "keypoint_source")
"""Columns that are not interpolated in filled frames."""
_LINEAR: Final = tuple(
    name for name in RAW_ROW.names or () if name not in (*_ROTATED, *_NOT_FILLED)
)

_FULL_SIZE_PX: Final = 256
"""Height of the network's input; a larger box shows no more."""
_HUBER: Final = 1.345
"""Huber's threshold in standard deviations, for 95 % efficiency with normal errors."""
_SHAPE_PASSES: Final = 5

_BODY: Final = JOINT_PARTS["body"]
# Largest angle of each joint from the rest pose (arms to the sides) in degrees; the limits are
# generous, so that poses beyond them are wrong rather than rare.
_LARGEST_ANGLE: Final = {
    "spine1": 65,
    "spine2": 50,
    "spine3": 50,
    "neck": 65,
    "head": 65,
    "hip": 145,
    "knee": 165,
    "ankle": 75,
    "foot": 70,
    "collar": 55,
    "shoulder": 165,
    "elbow": 165,
    "wrist": 110,
}
# Joints that bend in one direction: the axis in the frame of the left limb, and the largest
# hyperextension in degrees. The axis of the right limb is mirrored in the plane x = 0.
_HINGES: Final = {"knee": ((1.0, 0.0, 0.0), 20.0), "elbow": ((0.0, -1.0, 0.0), 35.0)}
_JAW_ANGLE: Final = 50.0


_LIMITS: Final = np.radians([_LARGEST_ANGLE[joint.split("_")[-1]] for joint in BODY_JOINTS[1:]])


@dataclass(frozen=True)
class Smoothing:
    """Standard deviations of the smoothing kernels in seconds; 0 does not smooth.

    The depth follows from the size in the image and is much noisier than the direction from the
    camera (`bearing`), so they have separate kernels.
    """

    global_orient: float = 0.06
    body_pose: float = 0.06
    left_hand_pose: float = 0.07
    right_hand_pose: float = 0.07
    jaw_pose: float = 0.04
    expression: float = 0.06
    bearing: float = 0.05
    depth: float = 0.2

    def times(self, factor: float) -> "Smoothing":
        """Kernels that are wider by a factor."""
        return Smoothing(**{name: value * factor for name, value in vars(self).items()})


def build_trajectories(
    raw: RawRows,
    estimates: RawRows,
    people: Int[np.ndarray, " N"],
    clip: Clip,
    body: BodyModel,
    smoothing: Smoothing,
    final: FinalRows,
) -> None:
    """Append the final rows of all people to `final`, which is empty, person after person.

    Args:
        raw: the network's estimates, for the fields with `raw_`.
        estimates: the same rows after refinement, or `raw`, for all other fields.
        people: number of the person of each raw row.
    """
    assert not len(final)
    maker = _FinalRowMaker(raw, estimates, clip, body, smoothing)
    frames = raw.column("frame_index")
    for person, mine in grouped(people, frames):
        shape = maker.shape_of(mine)
        for run in filled_runs(frames[mine], mine, clip.fps):
            for block in maker.final_rows(run, shape):
                block["person"] = person
                final.append(block)
    final.set_column("occlusion", _occlusions(final))


class Run(NamedTuple):
    """Consecutive frames of one person.

    Attributes:
        before, after: numbers of the last raw row up to each frame, and of the next one from it.
            Both are the same if the frame has a row.
    """

    frames: Int[np.ndarray, " T"]
    before: Int[np.ndarray, " T"]
    after: Int[np.ndarray, " T"]

    def part(self, start: int, stop: int) -> "Run":
        return Run(*(values[start:stop] for values in self))


def filled_runs(
    frames: Int[np.ndarray, " N"], rows: Int[np.ndarray, " N"], fps: float
) -> Iterator[Run]:
    """Split the rows of a person at absences of more than half a second.

    Args:
        frames: frames of the rows, in ascending order.
        rows: numbers of the rows.
    """
    breaks = np.flatnonzero(np.diff(frames) - 1 > LONGEST_GAP_S * fps) + 1
    for known, mine in zip(np.split(frames, breaks), np.split(rows, breaks), strict=True):
        all_frames = np.arange(known[0], known[-1] + 1)
        before = np.searchsorted(known, all_frames, side="right") - 1
        after = np.searchsorted(known, all_frames, side="left")
        yield Run(all_frames, mine[before], mine[after])


class _FinalRowMaker:
    """Makes final rows; its arguments are those of `build_trajectories`."""

    def __init__(
        self, raw: RawRows, estimates: RawRows, clip: Clip, body: BodyModel, smoothing: Smoothing
    ) -> None:
        self.raw, self.estimates, self.clip, self.body = raw, estimates, clip, body
        self.sigmas = {name: clip.fps * value for name, value in vars(smoothing).items()}
        self.margin = reach_of(max(self.sigmas.values()))
        self.betas = estimates.column("betas")
        columns = (estimates.column(name) for name in ("score", "box_xywh", "truncation"))
        self.confidence = confidence(*columns)

    def shape_of(self, rows: Int[np.ndarray, " N"]) -> Float[np.ndarray, "10"]:
        """The betas of the person with these raw rows."""
        return fuse_shape(self.betas[rows], self.confidence[rows])

    def final_rows(self, run: Run, shape: Float[np.ndarray, "10"]) -> Iterator[np.ndarray]:
        """Final rows of consecutive frames in blocks, without `person` and `occlusion`.

        A block is read with margins of the kernels' width, so that blocks join without a seam.
        """
        for start in range(0, len(run.frames), BLOCK):
            first = max(0, start - self.margin)
            part = run.part(first, start + BLOCK + self.margin)
            yield self._final(part, shape)[start - first : start - first + BLOCK]

    def _final(self, run: Run, shape: Float[np.ndarray, "10"]) -> np.ndarray:
        estimated = run.before == run.after
        raw = _read(self.raw, run)
        estimates = raw if self.estimates is self.raw else _read(self.estimates, run)
        weights = np.where(estimated, 1.0, _INTERPOLATED_WEIGHT)
        final = np.zeros(len(estimates), FINAL_ROW)
        for name in ("frame_index", "score", "box_xywh", *KEYPOINT_COLUMNS):
            final[name] = estimates[name]
        for name in PARAMETERS:
            final[f"raw_{name}"] = raw[name]
        for name in ROTATIONS:
            series = estimates["placed_orient" if name == "global_orient" else name]
            final[name] = smooth_axis_angles(series, self.sigmas[name], weights)
        final["expression"] = smooth(estimates["expression"], self.sigmas["expression"], weights)
        final["betas"] = shape
        camera = self.clip.camera
        final["focal"], final["princpt"] = camera.focal, camera.princpt
        joints = pose_joints(self.body, final)
        solved = solve_translation(joints, estimates["joints_2d_px"], camera)
        final["transl"] = self._smooth_translation(solved, estimated, weights)
        final["joints_3d_m"] = joints + final["transl"][:, None]
        final["joints_2d_px"] = camera.project(final["joints_3d_m"])
        final["truncation"] = truncation(final["joints_2d_px"], self.clip.image_size)
        final["interpolated"] = ~estimated
        final["out_of_range"] = out_of_range(final["body_pose"], final["jaw_pose"])
        return final

    def _smooth_translation(
        self,
        translation: Float[np.ndarray, "T 3"],
        estimated: Bool[np.ndarray, " T"],
        weights: Float[np.ndarray, " T"],
    ) -> Float[np.ndarray, "T 3"]:
        """Interpolate and smooth the direction (x/z, y/z) and the logarithm of the depth."""
        depth = np.maximum(translation[:, 2:], 1e-3)
        bearing, log_depth = translation[:, :2] / depth, np.log(depth)
        times, known = np.arange(len(translation)), np.flatnonzero(estimated)
        for series in (bearing, log_depth):
            for column in series.T:
                column[:] = np.interp(times, known, column[known])
        bearing = smooth(bearing, self.sigmas["bearing"], weights)
        depth = np.exp(smooth(log_depth, self.sigmas["depth"], weights))
        return np.concatenate([bearing * depth, depth], axis=1)


def _read(raw: RawRows, run: Run) -> Shaped[np.ndarray, " T"]:
    """Raw rows of consecutive frames; missing ones are interpolated and have the score 0."""
    rows = raw.take(run.before)
    missing = np.flatnonzero(run.before != run.after)
    for gap in np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1):
        if len(gap):
            ends = raw.take(np.array([run.before[gap[0]], run.after[gap[0]]]))
            rows[gap] = interpolate(ends, run.frames[gap])
    return rows


def interpolate(
    ends: Shaped[np.ndarray, "2"], frames: Int[np.ndarray, " T"]
) -> Shaped[np.ndarray, " T"]:
    """Raw rows for frames between two others: rotations by slerp, other columns linearly."""
    before, after = ends
    shares = (frames - before["frame_index"]) / (after["frame_index"] - before["frame_index"])
    rows = np.zeros(len(frames), RAW_ROW)
    rows["track"], rows["frame_index"] = before["track"], frames
    for name in _LINEAR:
        weight = shares.reshape(-1, *[1] * before[name].ndim)
        rows[name] = (1 - weight) * before[name] + weight * after[name]
    for name in _ROTATED:
        rows[name] = interpolate_axis_angles(before[name], after[name], shares)
    return rows


def pose_joints(body: BodyModel, rows: np.ndarray) -> Float[np.ndarray, "T 137 3"]:
    """The joints of final rows in metres, without translation."""
    inputs = body_inputs(body, rows) | {"transl": None}
    with torch.inference_mode():
        joints = body(**inputs, want_vertices=False).joints[:, JOINTS_FROM_MODEL]
    return joints.cpu().numpy()


def pose_vertices(body: BodyModel, rows: np.ndarray) -> Float[np.ndarray, "T V 3"]:
    """Vertices of final rows in metres in the clip's camera."""
    with torch.inference_mode():
        vertices = body(**body_inputs(body, rows)).vertices
    assert vertices is not None
    return vertices.cpu().numpy()


def body_inputs(body: BodyModel, rows: np.ndarray) -> dict[str, torch.Tensor | None]:
    """The parameters of final rows as arguments of the body, on its device."""
    device = body.faces.device
    return {name: torch.from_numpy(rows[name].copy()).to(device) for name in BODY_PARAMETERS}


def out_of_range(
    body_pose: Float[np.ndarray, "T 63"], jaw_pose: Float[np.ndarray, "T 3"]
) -> Bool[np.ndarray, " T"]:
    """Whether a joint of the body or the jaw is rotated beyond its limits, or bends backwards."""
    pose = body_pose.reshape(-1, 21, 3)
    beyond = (np.linalg.norm(pose, axis=-1) > _LIMITS).any(axis=1)
    beyond |= np.linalg.norm(jaw_pose, axis=-1) > np.radians(_JAW_ANGLE)
    for name, (axis, hyperextension) in _HINGES.items():
        for side, mirror in zip(SIDES, ((1, 1, 1), (1, -1, -1)), strict=True):
            bend = pose[:, BODY_JOINTS.index(f"{side}_{name}") - 1] @ np.multiply(axis, mirror)
            beyond |= bend < -np.radians(hyperextension)
    return beyond


def occlusion(
    joints_px: Float[np.ndarray, "P 25 2"],
    boxes: Float[np.ndarray, "P 4"],
    depth_m: Float[np.ndarray, " P"],
) -> Float[np.ndarray, " P"]:
    """Share of the body joints of each person in a frame that are in the box of a nearer person.

    Args:
        boxes: x, y, width, height in pixels.
        depth_m: depth of the pelvis.
    """
    inside = (joints_px[:, None] >= boxes[:, None, :2]) & (
        joints_px[:, None] <= boxes[:, None, :2] + boxes[:, None, 2:]
    )
    nearer = depth_m[None] < depth_m[:, None]
    covered = inside.all(axis=-1) & nearer[..., None]
    return covered.any(axis=1).mean(axis=1)


def _occlusions(rows: FinalRows) -> Float[np.ndarray, " N"]:
    """`occlusion` of all rows."""
    result = np.zeros(len(rows), np.float32)
    for _, mine in rows.by_frame():
        if len(mine) > 1:
            seen = rows.take(mine)
            result[mine] = occlusion(
                seen["joints_2d_px"][:, _BODY],
                seen["box_xywh"],
                seen["joints_3d_m"][:, PELVIS, 2],
            )
    return result


def confidence(
    score: Float[np.ndarray, " T"],
    box_xywh: Float[np.ndarray, "T 4"],
    truncation: Float[np.ndarray, " T"],
) -> Float[np.ndarray, " T"]:
    """Reliability of the shape in a frame: score x size x share of the body in the image.

    It is 0 in interpolated frames, which have the score 0.
    """
    size = np.clip(box_xywh[:, 3] / _FULL_SIZE_PX, 0.05, 1)
    return np.asarray(score * size * (1 - 0.95 * truncation), np.float64)


def fuse_shape(
    betas: Float[np.ndarray, "T C"], weights: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " C"]:
    """Robust weighted mean of each component: Huber's estimator, started at the median."""
    weights = np.maximum(weights, 1e-9).astype(np.float64)
    values = betas.astype(np.float64)
    centre = _weighted_median(values, weights)
    scale = 1.4826 * _weighted_median(np.abs(values - centre), weights)
    for _ in range(_SHAPE_PASSES):
        distance = np.abs(values - centre) / np.maximum(scale, 1e-9)
        trust = weights[:, None] * np.minimum(1, _HUBER / np.maximum(distance, 1e-9))
        centre = (trust * values).sum(axis=0) / trust.sum(axis=0)
    return centre.astype(betas.dtype)


def _weighted_median(
    values: Float[np.ndarray, "T C"], weights: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " C"]:
    """The weighted median of each column."""
    order = np.argsort(values, axis=0)
    cumulated = np.cumsum(weights[order], axis=0)
    middle = (cumulated >= cumulated[-1] / 2).argmax(axis=0)
    columns = np.arange(values.shape[1])
    return values[order[middle, columns], columns]
