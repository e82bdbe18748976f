"""A character's parameters as AMASS has them (SMPL-X with N frames a file, stageii).

The SMPL-X add-on for Blender reads the file as it is. What other readers take from it, and how,
stands in docs/animation.md.
"""

from pathlib import Path

import numpy as np

from human_models.files import BodyData
from main.exporting.character import Character, without_gaps
from main.exporting.surfaces import make_skeleton
from utils.files import atomic_path


def write_amass(path: Path, character: Character, body: BodyData) -> None:
    """Write every frame from the first to the last that shows the person.

    Poses are absolute, as in AMASS: they contain the mean hand, so they are for a model with
    flat_hand_mean=True. `trans` is what moves the model, as `transl` of the smplx package.
    """
    character = without_gaps(character)
    pelvis = make_skeleton(body, character.betas).positions_m[0]
    poses = character.poses
    count = len(poses)
    arrays = {
        "trans": character.pelvis_m - pelvis,
        "poses": poses,
        "root_orient": poses[:, :3],
        "pose_body": poses[:, 3:66],
        "pose_jaw": poses[:, 66:69],
        "pose_eye": poses[:, 69:75],
        "pose_hand": poses[:, 75:],
        "betas": character.betas,
        "num_betas": np.int64(len(character.betas)),
        "expression": character.expression,
        "gender": np.array(body.gender),
        "surface_model_type": np.array("smplx"),
        "mocap_frame_rate": np.float64(character.fps),
        "mocap_framerate": np.float64(character.fps),  # the older name, which some readers want
        "mocap_time_length": np.float64(count / character.fps),
        # Beyond AMASS.
        "frame_index": character.frame_index,
        "interpolated": character.interpolated,
        "up_axis": np.array(character.up),
        "flat_hand_mean": np.bool_(True),
        "body_model": np.array(character.body_model),
    }
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
