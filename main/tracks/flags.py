"""What to know of a frame before trusting it: who covers whom, and poses that no body takes."""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float

from human_models.joints import BODY_JOINTS, JOINT_PARTS, SIDES
from main.tracks.camera import PELVIS
from main.tracks.rows import blocks, frames_of

_BODY: Final = JOINT_PARTS["body"]

# Largest angle of each joint from the rest pose (arms to the sides), degrees; generous, since
# gymnasts are people: what is beyond is wrong rather than rare.
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
# Joints that bend one way: the axis of bending in the left limb's frame, and how far they may be
# overstretched, degrees. A right limb's axis is mirrored in the plane x = 0.
_HINGES: Final = {"knee": ((1.0, 0.0, 0.0), 20.0), "elbow": ((0.0, -1.0, 0.0), 35.0)}
_JAW_ANGLE: Final = 50.0


def _limit_of(joint: str) -> float:
    for side in SIDES:
        joint = joint.removeprefix(f"{side}_")
    return float(_LARGEST_ANGLE[joint])


_LIMITS: Final = np.radians([_limit_of(joint) for joint in BODY_JOINTS[1:]])


def out_of_range(
    body_pose: Float[np.ndarray, "T 63"], jaw_pose: Float[np.ndarray, "T 3"]
) -> Bool[np.ndarray, " T"]:
    """Some joint of the body or the jaw is turned farther than joints go, or bends backwards."""
    pose = body_pose.reshape(-1, 21, 3)
    beyond = (np.linalg.norm(pose, axis=-1) > _LIMITS).any(axis=1)
    beyond |= np.linalg.norm(jaw_pose, axis=-1) > np.radians(_JAW_ANGLE)
    for name, (axis, overstretched) in _HINGES.items():
        for side, mirror in zip(SIDES, ((1, 1, 1), (1, -1, -1)), strict=True):
            bend = pose[:, BODY_JOINTS.index(f"{side}_{name}") - 1] @ np.multiply(axis, mirror)
            beyond |= bend < -np.radians(overstretched)
    return beyond


def occlusion(
    joints_px: Float[np.ndarray, "P 25 2"],
    boxes: Float[np.ndarray, "P 4"],
    depth_m: Float[np.ndarray, " P"],
) -> Float[np.ndarray, " P"]:
    """Share of each person's body joints that are inside the box of somebody nearer.

    Args:
        joints_px: of the people of one frame.
        boxes: x, y, width, height in pixels.
        depth_m: of the pelvis.
    """
    inside = (joints_px[:, None] >= boxes[:, None, :2]) & (
        joints_px[:, None] <= boxes[:, None, :2] + boxes[:, None, 2:]
    )
    nearer = depth_m[None] < depth_m[:, None]
    covered = inside.all(axis=-1) & nearer[..., None]
    return covered.any(axis=1).mean(axis=1)


def flag_rows(rows: np.ndarray) -> None:
    """Write `out_of_range` and `occlusion` of all rows from their final values."""
    for block in blocks(rows):
        rows["out_of_range"][block] = out_of_range(
            rows["body_pose"][block], rows["jaw_pose"][block]
        )
    for _, mine in frames_of(rows):
        if len(mine) > 1:
            rows["occlusion"][mine] = occlusion(
                rows["joints_2d_px"][mine, _BODY],
                rows["box_xywh"][mine],
                rows["joints_3d_m"][mine, PELVIS, 2],
            )
