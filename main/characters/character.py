"""A person's results as a character: one shape, and rotations of 55 joints over time."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation, Slerp

from human_models.body import ROTATED_JOINTS, BodyModel
from main.characters.options import Space, UpAxis
from main.motion.result_reader import read_person
from utils.errors import UserError
from utils.geometry import axis_angle_to_matrix, matrix_to_axis_angle, matrix_to_quaternion

TO_WORLD: Final[dict[UpAxis, tuple[tuple[int, int, int], ...]]] = {
    "y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
}
"""From the camera (x right, y down, z forward) to a world with the same origin and x.

y up: z towards the viewer, as in glTF. z up: y away from the viewer, as in Blender and AMASS.
"""
_POSE_SIZES: Final = {name: 3 * count for name, count in ROTATED_JOINTS["smplx"].items()}
"""Rotations of BodyModel in the order of RIG_JOINTS. Results have no rotations of the eyes."""
_ESTIMATED: Final = tuple(name for name in _POSE_SIZES if "eye" not in name)
_PARAMETERS: Final = (*_ESTIMATED, "betas", "expression", "transl")
CHARACTER_FIELDS: Final = (*_PARAMETERS, "fps", "body_model", "flat_hand_mean")
"""Fields of a file of results that a character needs."""
_IN_WORLD: Final = {name: f"world_{name}" for name in ("global_orient", "body_pose", "transl")}
WORLD_FIELDS: Final = (*_IN_WORLD.values(), "world_from_camera")
"""Further fields that a character in world coordinates needs."""
_MAX_FILLED: Final = 100_000
"""The largest number of missing frames that are filled in: an hour, if a person comes back."""


@dataclass(frozen=True, eq=False)
class Character:
    """A person in T keyframes, in a world with the vertical axis `up` (see TO_WORLD). Metres.

    Hand rotations include the mean hand, and the eyes look straight ahead.
    """

    name: str
    body_model: str
    fps: float
    up: UpAxis
    frame_index: Int[np.ndarray, " T"]
    """Ascending frame numbers of the video; some may be missing."""
    interpolated: Bool[np.ndarray, " T"]
    betas: Float[np.ndarray, "10"]
    """The person's shape: the mean over the track."""
    expression: Float[np.ndarray, "T 10"]
    rotations: Float[np.ndarray, "T 55 3 3"]
    """Of each joint relative to its parent; of the root relative to the world."""
    pelvis_m: Float[np.ndarray, "T 3"]

    @property
    def times_s(self) -> Float[np.ndarray, " T"]:
        """Times of the keyframes, from the beginning of the video."""
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
        """The arguments of BodyModel, with hands relative to the mean hand."""
        rest = body.rest_joints(torch.from_numpy(self.betas)[None].float())[0, 0].numpy()
        pose = torch.from_numpy(self.poses).unflatten(1, (55, 3))
        pose = (pose - body.mean_pose).flatten(1).float()
        parts = pose.split(list(_POSE_SIZES.values()), dim=1)
        return {
            **dict(zip(_POSE_SIZES, parts, strict=True)),
            "betas": torch.from_numpy(self.betas).float().expand(len(self.frame_index), -1),
            "expression": torch.from_numpy(self.expression).float(),
            "transl": torch.from_numpy(self.pelvis_m - rest).float(),
        }


def read_character(
    file: Path, body: BodyModel, up: UpAxis = "y", space: Space = "camera"
) -> Character:
    """Read a person_001.npz that inference wrote.

    The shape is the mean over all frames; the pelvis keeps its position in each frame.

    Raises:
        UserError: the file is unreadable or incomplete, or contains invalid values.
    """
    needed = (*CHARACTER_FIELDS, *(WORLD_FIELDS if space == "world" else ()))
    return make_character(file.stem, read_person(file, needed), body, up, space)


def make_character(
    name: str,
    content: Mapping[str, np.ndarray],
    body: BodyModel,
    up: UpAxis = "y",
    space: Space = "camera",
) -> Character:
    """Make a character from fields that `result_reader.read_person` returns.

    These are CHARACTER_FIELDS and, for world coordinates, WORLD_FIELDS.
    """
    to_up = np.array(TO_WORLD[up], np.float64)
    if space == "world":
        content = {**content, **{name: content[field] for name, field in _IN_WORLD.items()}}
        to_up = to_up @ np.array(TO_WORLD["y"]).T
    frames = content["frame_index"]
    count = len(frames)
    columns = {key: torch.from_numpy(content[key].astype(np.float64)) for key in _PARAMETERS}
    columns["leye_pose"] = columns["reye_pose"] = torch.zeros_like(columns["jaw_pose"])
    pose = torch.cat([columns[part] for part in _POSE_SIZES], dim=1).unflatten(1, (55, 3))
    if not bool(content["flat_hand_mean"]):
        pose = pose + body.mean_pose
    rotations = axis_angle_to_matrix(pose).numpy()
    rest = body.rest_joints(columns["betas"].float(), columns["expression"].float())[:, 0]
    pelvis = (rest + columns["transl"]).numpy()
    rotations[:, 0] = to_up @ rotations[:, 0]
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
        pelvis_m=pelvis @ to_up.T,
    )


def without_gaps(character: Character) -> Character:
    """Fill in missing frames, in which joints turn along the shortest arc.

    This is for formats with a fixed frame rate; the frames filled in are marked `interpolated`.

    Raises:
        UserError: too many frames are missing.
    """
    known = character.frame_index
    missing = int(known[-1] - known[0]) + 1 - len(known)
    if missing == 0:
        return character
    if missing > _MAX_FILLED:
        reason = f"{missing} frames are missing, and at most {_MAX_FILLED} can be filled in"
        raise UserError(f"{character.name}.npz: {reason}; export it as glb, which keeps gaps")
    frames = np.arange(known[0], known[-1] + 1)
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


def at_origin(character: Character, body: BodyModel) -> Character:
    """Move a character so that the pelvis starts above the origin and the feet are at height 0.

    The height of the feet is the median over the frames of the lowest joint or surface point.
    """
    height = 1 if character.up == "y" else 2
    with torch.inference_mode():
        joints = body(**character.body_parameters(body), want_vertices=False).joints.numpy()
    shift = -character.pelvis_m[0].copy()
    shift[height] = -np.median(joints[..., height].min(axis=1))
    return replace(character, pelvis_m=character.pelvis_m + shift)
