"""Raw estimates of single frames, moved from the cameras of their crops into the clip's."""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from human_models.joints import JOINT_PARTS
from main.tracks.camera import PELVIS, ClipCamera, project, solve_translation, turn_into_view
from main.tracks.rows import blocks

_BODY = JOINT_PARTS["body"]


def place_rows(rows: np.ndarray, camera: ClipCamera, image_size: tuple[int, int]) -> None:
    """Write final orientation, translation, camera and joints into rows whose joints are raw.

    Args:
        image_size: width and height in pixels.
    """
    for block in blocks(rows):
        _place(rows[block], camera, image_size)


def _place(rows: np.ndarray, camera: ClipCamera, image_size: tuple[int, int]) -> None:
    turn = turn_into_view(np.array(rows["raw_princpt"], np.float64), camera)
    rows["global_orient"] = turned(rows["raw_global_orient"], turn)
    joints = np.array(rows["joints_3d_m"])
    pelvis = joints[:, PELVIS, None]
    # SMPL-X turns about the pelvis, which rests where the shape puts it, whatever the pose.
    rest = pelvis - rows["raw_transl"][:, None]
    joints = np.einsum("tij,tkj->tki", turn, joints - pelvis) + rest
    translation = solve_translation(joints, rows["raw_joints_2d_px"], camera)
    rows["transl"] = translation
    rows["focal"], rows["princpt"] = camera.focal, camera.princpt
    rows["joints_3d_m"] = joints + translation[:, None]
    rows["joints_2d_px"] = project(rows["joints_3d_m"], camera)
    rows["truncation"] = truncation(rows["joints_2d_px"], image_size)


def turned(
    orient: Float[np.ndarray, "T 3"], turn: Float[np.ndarray, "T 3 3"]
) -> Float[np.ndarray, "T 3"]:
    """Orientations (axis-angle) after a further turn of the whole."""
    return (Rotation.from_matrix(turn) * Rotation.from_rotvec(orient)).as_rotvec()


def truncation(
    joints_px: Float[np.ndarray, "T 137 2"], image_size: tuple[int, int]
) -> Float[np.ndarray, " T"]:
    """Share of the body's 25 joints that are outside the image."""
    body = joints_px[:, _BODY]
    inside = ((body >= -0.5) & (body < np.array(image_size) - 0.5)).all(axis=-1)
    return 1 - inside.mean(axis=1)
