"""Final values of people: one shape, smooth motion, a place in the clip's camera."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Int

from human_models.body import BodyModel
from human_models.joints import JOINTS_FROM_MODEL
from main.tracks.camera import ClipCamera, project, solve_translation
from main.tracks.placing import truncation
from main.tracks.rows import BLOCK, PARAMETERS, give_back, people_of, read_column, runs_of
from main.tracks.shape import CONFIDENCE, confidence, fuse_shape
from utils.errors import UserError
from utils.smoothing import reach_of, smooth, smooth_axis_angles

_INTERPOLATED_WEIGHT: Final = 0.1
"""Of a row without an estimate of its own, in smoothing."""
BODY_INPUTS: Final = tuple(name for name in PARAMETERS if name not in ("focal", "princpt"))


@dataclass(frozen=True)
class Strengths:
    """Standard deviations of the kernels in seconds, by what they smooth; 0: nothing.

    Depth comes from apparent size and is by far the noisiest; it has a kernel of its own, along
    the line of sight, where nobody sees it lag.
    """

    global_orient: float = 0.06
    body_pose: float = 0.06
    left_hand_pose: float = 0.07
    right_hand_pose: float = 0.07
    jaw_pose: float = 0.04
    expression: float = 0.06
    bearing: float = 0.05
    depth: float = 0.2

    def times(self, factor: float) -> "Strengths":
        return Strengths(**{name: value * factor for name, value in vars(self).items()})


def smoothing_factor(word: str) -> float:
    """What --smooth says, as a factor of the default strengths.

    Raises:
        UserError: neither auto, off nor a number from 0 to 20.
    """
    if word in ("auto", "off"):
        return float(word == "auto")
    try:
        factor = float(word)
    except ValueError:
        factor = -1
    if not 0 <= factor <= 20:
        raise UserError(f"--smooth {word}: say auto, off, or a number from 0 to 20 (1 is auto)")
    return factor


class Refiner:
    """Writes final values into rows that are placed, stitched and filled."""

    def __init__(
        self,
        body: BodyModel,
        camera: ClipCamera,
        image_size: tuple[int, int],
        fps: float,
        strengths: Strengths,
    ) -> None:
        self.body, self.camera, self.image_size = body, camera, image_size
        self.sigmas = {name: fps * value for name, value in vars(strengths).items()}
        self.margin = reach_of(max(self.sigmas.values()))

    def __call__(self, rows: np.ndarray) -> None:
        frames, betas = read_column(rows, "frame_index"), read_column(rows, "raw_betas")
        weights = confidence({name: read_column(rows, name) for name in CONFIDENCE})
        for mine in people_of(rows).values():
            shape = fuse_shape(betas[mine], weights[mine])
            for run in runs_of(frames[mine]):
                self._run(rows, mine[run], shape)

    def _run(
        self, rows: np.ndarray, mine: Int[np.ndarray, " T"], shape: Float[np.ndarray, "10"]
    ) -> None:
        """Consecutive frames, in blocks whose margins overlap, so that they join without a seam.

        A margin is read before the block that owns it is written, since smoothing reads what
        `place_rows` and `fill_gaps` wrote.
        """
        written: tuple[Int[np.ndarray, " B"], np.ndarray] | None = None
        for start in range(0, len(mine), BLOCK):
            first, last = max(0, start - self.margin), start + BLOCK + self.margin
            block = rows[mine[first:last]]
            block["betas"] = shape
            self._refine(block)
            if written is not None:
                rows[written[0]] = written[1]
            own = slice(start - first, start - first + BLOCK)
            written = mine[start : start + BLOCK], block[own]
            give_back(rows)
        if written is not None:
            rows[written[0]] = written[1]

    def _refine(self, rows: np.ndarray) -> None:
        estimated = ~rows["interpolated"]
        weights = np.where(estimated, 1.0, _INTERPOLATED_WEIGHT)
        for name in BODY_INPUTS:
            if name.endswith(("_orient", "_pose")):
                rows[name] = smooth_axis_angles(rows[name], self.sigmas[name], weights)
        rows["expression"] = smooth(rows["expression"], self.sigmas["expression"], weights)
        joints = pose_joints(self.body, rows)
        solved = solve_translation(joints, rows["raw_joints_2d_px"], self.camera)
        rows["transl"] = self._smooth_place(solved, estimated, weights)
        rows["joints_3d_m"] = joints + rows["transl"][:, None]
        rows["joints_2d_px"] = project(rows["joints_3d_m"], self.camera)
        rows["truncation"] = truncation(rows["joints_2d_px"], self.image_size)

    def _smooth_place(
        self,
        translation: Float[np.ndarray, "T 3"],
        estimated: np.ndarray,
        weights: Float[np.ndarray, " T"],
    ) -> Float[np.ndarray, "T 3"]:
        """Direction and logarithm of the depth; between estimates in a straight line."""
        depth = np.maximum(translation[:, 2:], 1e-3)
        bearing, far = translation[:, :2] / depth, np.log(depth)
        times, known = np.arange(len(translation)), np.flatnonzero(estimated)
        for series in (bearing, far):
            for column in series.T:
                column[:] = np.interp(times, known, column[known])
        bearing = smooth(bearing, self.sigmas["bearing"], weights)
        depth = np.exp(smooth(far, self.sigmas["depth"], weights))
        return np.concatenate([bearing * depth, depth], axis=1)


def pose_joints(body: BodyModel, rows: np.ndarray) -> Float[np.ndarray, "T 137 3"]:
    """The 137 joints in metres, without translation."""
    inputs = body_inputs(body, rows) | {"transl": None}
    with torch.inference_mode():
        joints = body(**inputs, want_vertices=False).joints[:, JOINTS_FROM_MODEL]
    return joints.cpu().numpy()


def pose_vertices(body: BodyModel, rows: np.ndarray) -> Float[np.ndarray, "T V 3"]:
    """Vertices in metres in the clip's camera."""
    with torch.inference_mode():
        vertices = body(**body_inputs(body, rows)).vertices
    assert vertices is not None
    return vertices.cpu().numpy()


def body_inputs(body: BodyModel, rows: np.ndarray) -> dict[str, torch.Tensor | None]:
    """Final parameters as the body takes them, on its device."""
    device = body.faces.device
    return {name: torch.from_numpy(rows[name].copy()).to(device) for name in BODY_INPUTS}
