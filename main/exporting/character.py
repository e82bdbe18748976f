"""A person's file of results as a character: one shape, and rotations of 55 joints over time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation, Slerp

from human_models.body import BodyModel
from human_models.safe_pickle import load_npz
from main.exporting.options import UpAxis
from main.motion.results import FILE_COLUMNS
from utils.errors import UserError
from utils.rotation import axis_angle_to_matrix, matrix_to_axis_angle, matrix_to_quaternion

TO_WORLD: Final[dict[UpAxis, tuple[tuple[int, int, int], ...]]] = {
    "y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
}
"""From the camera (x right, y down, z forward) to a world with the same origin and x.

y up: z towards the viewer, as in glTF. z up: y away from the viewer, as in Blender and AMASS.
"""
POSE_FIELDS: Final = {
    "global_orient": 3,
    "body_pose": 63,
    "jaw_pose": 3,
    "left_hand_pose": 45,
    "right_hand_pose": 45,
}
_RIG_ORDER: Final = (
    *("global_orient", "body_pose", "jaw_pose", "eyes", "left_hand_pose", "right_hand_pose"),
)
_SHAPES: Final = {**POSE_FIELDS, "betas": 10, "expression": 10, "transl": 3}


@dataclass(frozen=True, eq=False)
class Character:
    """A person through T keyframes, in a world that is `up` up (see TO_WORLD). Metres.

    Rotations are absolute: the mean hand is in them, and the eyes look straight ahead.
    """

    name: str
    body_model: str
    fps: float
    up: UpAxis
    frame_index: Int[np.ndarray, " T"]
    """Frames of the video, rising; some may be missing."""
    interpolated: Bool[np.ndarray, " T"]
    betas: Float[np.ndarray, "10"]
    """The person's shape: the mean over the track."""
    expression: Float[np.ndarray, "T 10"]
    rotations: Float[np.ndarray, "T 55 3 3"]
    """Of each joint relative to its parent; the root's to the world."""
    pelvis_m: Float[np.ndarray, "T 3"]

    @property
    def times_s(self) -> Float[np.ndarray, " T"]:
        """Of the keyframes, from the beginning of the video."""
        return self.frame_index / self.fps

    @property
    def quaternions(self) -> Float[np.ndarray, "T 55 4"]:
        """The rotations as (w, x, y, z)."""
        return matrix_to_quaternion(torch.from_numpy(self.rotations)).numpy()

    @property
    def poses(self) -> Float[np.ndarray, "T 165"]:
        """The rotations as axis-angle vectors in radians, in the order of RIG_JOINTS."""
        vectors = matrix_to_axis_angle(torch.from_numpy(self.rotations))
        return vectors.flatten(1).numpy()

    def body_parameters(self, body: BodyModel) -> dict[str, torch.Tensor]:
        """What BodyModel takes; its hands are relative to the mean hand, as ever."""
        rest = body.rest_joints(torch.from_numpy(self.betas)[None].float())[0, 0].numpy()
        pose = torch.from_numpy(self.poses).unflatten(1, (55, 3))
        pose = (pose - body.mean_pose).flatten(1).float()
        sizes = {"global_orient": 3, "body_pose": 63, "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3}
        sizes |= {"left_hand_pose": 45, "right_hand_pose": 45}
        count = len(self.frame_index)
        return {
            **dict(zip(sizes, pose.split(list(sizes.values()), dim=1), strict=True)),
            "betas": torch.from_numpy(self.betas).float().expand(count, -1),
            "expression": torch.from_numpy(self.expression).float(),
            "transl": torch.from_numpy(self.pelvis_m - rest).float(),
        }


def read_character(file: Path, body: BodyModel, up: UpAxis = "y") -> Character:
    """Read a person_001.npz as main.motion.results writes it.

    The pelvis stays where the estimate of each frame has it; the one shape is the mean.

    Raises:
        UserError: the file is unreadable, lacks something or holds numbers that are none.
    """
    return make_character(file.stem, read_columns(file), body, up)


def make_character(
    name: str, content: Mapping[str, np.ndarray], body: BodyModel, up: UpAxis = "y"
) -> Character:
    """A character out of what `read_columns` gives."""
    frames = content["frame_index"].astype(np.int64)
    columns = {key: torch.from_numpy(content[key].astype(np.float64)) for key in _SHAPES}

    count = len(frames)
    columns["eyes"] = columns["jaw_pose"].new_zeros(count, 6)
    pose = torch.cat([columns[part] for part in _RIG_ORDER], dim=1).unflatten(1, (55, 3))
    if not bool(content["flat_hand_mean"]):
        pose = pose + body.mean_pose
    rotations = axis_angle_to_matrix(pose).numpy()
    rest = body.rest_joints(columns["betas"].float(), columns["expression"].float())[:, 0]
    pelvis = (rest + columns["transl"]).numpy()
    to_world = np.array(TO_WORLD[up], np.float64)
    rotations[:, 0] = to_world @ rotations[:, 0]
    return Character(
        name=name,
        body_model=str(content["body_model"]),
        fps=float(content["fps"]),
        up=up,
        frame_index=frames,
        interpolated=np.zeros(count, bool),
        betas=columns["betas"].mean(dim=0).numpy(),
        expression=columns["expression"].numpy(),
        rotations=rotations,
        pelvis_m=pelvis @ to_world.T,
    )


def read_body_name(file: Path) -> str:
    """The body that a file of results was made with, by its name in `human_models.files`."""
    return str(read_columns(file)["body_model"])


def read_columns(file: Path) -> dict[str, np.ndarray]:
    """What a file of results has, checked as far as characters need it, in the order of frames.

    Raises:
        UserError: the file is unreadable, lacks something or holds numbers that are none.
    """
    content = load_npz(file)
    lacking = {"frame_index", "fps", "body_model", "flat_hand_mean", *_SHAPES} - content.keys()
    if lacking:
        raise UserError(f"{file} lacks '{min(lacking)}'; run the inference again")
    count = content["frame_index"].size
    for name, size in _SHAPES.items():
        if content[name].shape != (count, size) or not np.isfinite(content[name]).all():
            raise UserError(f"{file}: '{name}' is not ({count}, {size}) numbers; mend that file")
    if not count or not np.isfinite(content["fps"]) or content["fps"] <= 0:
        raise UserError(f"{file} has no frames or no frame rate; run the inference again")
    order = np.argsort(content["frame_index"], kind="stable")
    frames = content["frame_index"][order]
    if len(np.unique(frames)) < count:
        raise UserError(f"{file} has a frame twice; run the inference again")
    rows = {*FILE_COLUMNS, "foot_contact"}
    return {name: values[order] if name in rows else values for name, values in content.items()}


def without_gaps(character: Character) -> Character:
    """Every frame from the first to the last; missing ones turn along the shortest arc.

    For formats with a fixed frame rate; the frames that were filled in are `interpolated`.
    """
    known = character.frame_index
    frames = np.arange(known[0], known[-1] + 1)
    if len(frames) == len(known):
        return character
    joints = [
        Slerp(known, Rotation.from_matrix(character.rotations[:, joint]))(frames).as_matrix()
        for joint in range(character.rotations.shape[1])
    ]

    def line(columns: Float[np.ndarray, "T C"]) -> Float[np.ndarray, "F C"]:
        return np.stack([np.interp(frames, known, column) for column in columns.T], axis=1)

    return replace(
        character,
        frame_index=frames,
        interpolated=~np.isin(frames, known),
        expression=line(character.expression),
        rotations=np.stack(joints, axis=1),
        pelvis_m=line(character.pelvis_m),
    )


def on_the_spot(character: Character, body: BodyModel) -> Character:
    """Moved so that the pelvis starts above the origin and the feet are at height 0.

    The height of the feet is the median over the frames of the lowest joint or surface point.
    """
    height = 1 if character.up == "y" else 2
    with torch.inference_mode():
        joints = body(**character.body_parameters(body), want_vertices=False).joints.numpy()
    shift = -character.pelvis_m[0].copy()
    shift[height] = -np.median(joints[..., height].min(axis=1))
    return replace(character, pelvis_m=character.pelvis_m + shift)
