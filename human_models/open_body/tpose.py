"""Brings MakeHuman's rest pose (arms down) to SMPL-X's T-pose, for many subjects at once.

Every bone gets one rotation relative to its rest orientation, solved from each subject's own bone
directions so that all subjects end in the same pose; forward kinematics and linear blend skinning
with MakeHuman's own weights do the rest.
"""

from typing import Final

import numpy as np
from jaxtyping import Float, Float64

from human_models.open_body.assets import Rig
from human_models.open_body.bones import FINGER_NUMBERS, SIDE_SUFFIXES

Vectors = Float[np.ndarray, "*n 3"]
Rotations = Float64[np.ndarray, "*n 3 3"]

_UP: Final = np.array([0.0, 1.0, 0.0])
_FRONT: Final = np.array([0.0, 0.0, 1.0])

# Directions of the left side's limbs in the T-pose.
_THIGH: Final = (0.045, -1.0, 0.0)
_SHIN: Final = (0.020, -1.0, -0.05)
_UPPER_ARM: Final = (0.994, -0.048, -0.08)
_FOREARM: Final = (0.999, 0.030, -0.004)
_HAND: Final = (1.0, 0.0, 0.0)
_FINGER_DROP: Final = -0.02
_FINGER_YAWS_DEG: Final = {"index": 6.0, "middle": 0.0, "ring": -5.0, "pinky": -12.0}
_THUMB: Final = ((0.70, -0.28, 0.66), (0.76, -0.22, 0.61), (0.82, -0.18, 0.54))

_FOOT_YAW_DEG: Final = 8.0
_CLAVICLE_LIFT_DEG: Final = 8.0
_SHOULDER_LIFT_DEG: Final = 18.0
# How much of a limb's twist the bone at its near end takes.
_UPPER_ARM_TWIST_SHARE: Final = 0.5
_FOREARM_TWIST_SHARES: Final = {"lowerarm01": 0.25, "lowerarm02": 0.7}


def normalized(vectors: Vectors) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def axis_rotations(axes: Vectors, angles: Float[np.ndarray, "*n"]) -> Rotations:
    """Rodrigues' formula; axes need not have unit length."""
    x, y, z = np.moveaxis(normalized(axes), -1, 0)
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    K = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    angles = np.asarray(angles)[..., None, None]
    return np.eye(3) + np.sin(angles) * K + (1 - np.cos(angles)) * (K @ K)


def _shortest_rotations(start: Vectors, end: Vectors) -> Rotations:
    start, end = np.broadcast_arrays(normalized(start), normalized(end))
    axes = np.cross(start, end)
    sines = np.linalg.norm(axes, axis=-1)
    return axis_rotations(axes, np.arctan2(sines, (start * end).sum(-1)))


def _frames(x_axis: Vectors, near_y: Vectors) -> Rotations:
    """Orthonormal frames (columns) with the given x axis and y as near as possible to `near_y`."""
    x_axis, near_y = np.broadcast_arrays(normalized(x_axis), normalized(near_y))
    y_axis = normalized(near_y - (near_y * x_axis).sum(-1, keepdims=True) * x_axis)
    return np.stack([x_axis, y_axis, np.cross(x_axis, y_axis)], axis=-1)


def _align(start: Rotations, end: Rotations) -> Rotations:
    return end @ np.swapaxes(start, -1, -2)


def _twists(rotations: Rotations, axis: Vectors) -> Float[np.ndarray, "*n"]:
    """Signed angles of rotations about (nearly) the given axis."""
    skew = rotations - np.swapaxes(rotations, -1, -2)
    sines = 0.5 * np.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1) @ axis
    return np.arctan2(sines, 0.5 * (np.trace(rotations, axis1=-2, axis2=-1) - 1))


def _apply(rotations: Rotations, vectors: Vectors) -> Vectors:
    return (rotations @ vectors[..., None])[..., 0]


class _Side:
    """Bones of one side: their ends in the rest pose and this side's T-pose directions."""

    def __init__(
        self,
        heads: Float64[np.ndarray, "n bones 3"],
        tails: Float64[np.ndarray, "n bones 3"],
        rig: Rig,
        side: str,
    ) -> None:
        self._heads, self._tails, self._rig = heads, tails, rig
        self._suffix = SIDE_SUFFIXES[side]
        self.sign = 1.0 if side == "left" else -1.0

    def between(self, start: str, end: str) -> Vectors:
        """Vector from one bone's head to another's."""
        heads = (self._heads[:, self._rig.index(f"{bone}.{self._suffix}")] for bone in (start, end))
        first, last = heads
        return last - first

    def along(self, bone: str) -> Vectors:
        index = self._rig.index(f"{bone}.{self._suffix}")
        return self._tails[:, index] - self._heads[:, index]

    def direction(self, left_direction: tuple[float, float, float]) -> Vectors:
        return normalized(np.array(left_direction) * [self.sign, 1, 1])

    def turn(self, axis: Vectors, degrees: float) -> Rotations:
        return axis_rotations(axis, np.array(self.sign * np.radians(degrees)))


def _leg(side: _Side) -> dict[str, Rotations]:
    thigh = _shortest_rotations(side.between("upperleg01", "lowerleg01"), side.direction(_THIGH))
    shin_now = _apply(thigh, side.between("lowerleg01", "foot"))
    shin = _shortest_rotations(shin_now, side.direction(_SHIN)) @ thigh
    foot = side.turn(_UP, _FOOT_YAW_DEG)
    return {
        **dict.fromkeys(("upperleg01", "upperleg02"), thigh),
        **dict.fromkeys(("lowerleg01", "lowerleg02"), shin),
        "foot": np.broadcast_to(foot, thigh.shape),
    }


def _arm(side: _Side) -> dict[str, Rotations]:
    """Twist comes from the elbow's hinge (it bends towards the front) and from the palm (down)."""
    upper_arm = side.between("upperarm01", "lowerarm01")
    forearm = side.between("lowerarm01", "wrist")
    upper_arm_end, forearm_end = side.direction(_UPPER_ARM), side.direction(_FOREARM)
    clavicle = side.turn(_FRONT, _CLAVICLE_LIFT_DEG)
    shoulder = side.turn(_FRONT, _SHOULDER_LIFT_DEG)

    lower = _align(_frames(upper_arm, forearm), _frames(upper_arm_end, _FRONT))
    untwisted = _shortest_rotations(_apply(shoulder, upper_arm), upper_arm_end) @ shoulder
    twist = _twists(_align(untwisted, lower), upper_arm_end)
    upper = axis_rotations(
        np.broadcast_to(upper_arm_end, upper_arm.shape), _UPPER_ARM_TWIST_SHARE * twist
    )

    hinge = np.cross(upper_arm, forearm)
    hinge_end = _apply(lower, normalized(hinge))
    elbow = _align(_frames(forearm, hinge), _frames(forearm_end, hinge_end))
    across_palm = side.between("finger5-1", "finger2-1")
    hand = _align(
        _frames(side.between("wrist", "finger3-1"), across_palm),
        _frames(side.direction(_HAND), _FRONT),
    )
    twist = _twists(_align(elbow, hand), forearm_end)
    axes = np.broadcast_to(forearm_end, forearm.shape)
    return {
        "clavicle": np.broadcast_to(clavicle, lower.shape),
        "shoulder01": np.broadcast_to(shoulder, lower.shape),
        "upperarm01": upper @ untwisted,
        "upperarm02": lower,
        **{
            bone: axis_rotations(axes, share * twist) @ elbow
            for bone, share in _FOREARM_TWIST_SHARES.items()
        },
        "wrist": hand,
    }


def _fingers(side: _Side, hand: Rotations) -> dict[str, Rotations]:
    rotations = {}
    for finger, number in FINGER_NUMBERS.items():
        for k in (1, 2, 3):
            bone = f"finger{number}-{k}"
            phalanx = side.between(bone, f"finger{number}-{k + 1}") if k < 3 else side.along(bone)
            if finger == "thumb":
                end = side.direction(_THUMB[k - 1])
            else:
                yaw = np.radians(_FINGER_YAWS_DEG[finger])
                end = side.direction((np.cos(yaw), _FINGER_DROP, np.sin(yaw)))
            rotations[bone] = _shortest_rotations(_apply(hand, phalanx), end) @ hand
    return rotations


def tpose_rotations(
    heads: Float64[np.ndarray, "n bones 3"], tails: Float64[np.ndarray, "n bones 3"], rig: Rig
) -> Float64[np.ndarray, "n bones 3 3"]:
    """Rotation of every bone from rest to T-pose, in the world's frame.

    Spine, neck, head and face stay as they are, so that offsets of the face stay valid.
    """
    solved: dict[str, Rotations] = {}
    for name, suffix in SIDE_SUFFIXES.items():
        side = _Side(heads, tails, rig, name)
        limbs = _leg(side) | _arm(side)
        limbs |= _fingers(side, limbs["wrist"])
        solved |= {f"{bone}.{suffix}": rotation for bone, rotation in limbs.items()}
    rotations = np.empty((*heads.shape, 3))
    for bone, (name, parent) in enumerate(zip(rig.names, rig.parents, strict=True)):
        inherited = np.eye(3) if parent < 0 else rotations[:, parent]
        rotations[:, bone] = solved.get(name, inherited)
    return rotations


def posed_heads(
    heads: Float64[np.ndarray, "n bones 3"], rotations: Float64[np.ndarray, "n bones 3 3"], rig: Rig
) -> Float64[np.ndarray, "n bones 3"]:
    """Forward kinematics of the bones' heads."""
    posed = heads.copy()
    for bone, parent in enumerate(rig.parents):
        if parent >= 0:
            offset = heads[:, bone] - heads[:, parent]
            posed[:, bone] = posed[:, parent] + _apply(rotations[:, parent], offset)
    return posed


def skin(
    vertices: Float64[np.ndarray, "N 3"],
    weights: Float64[np.ndarray, "N bones"],
    heads: Float64[np.ndarray, "bones 3"],
    rotations: Float64[np.ndarray, "bones 3 3"],
    new_heads: Float64[np.ndarray, "bones 3"],
) -> Float64[np.ndarray, "N 3"]:
    """Linear blend skinning of one subject."""
    translations = new_heads - _apply(rotations, heads)
    blended = weights @ np.concatenate([rotations.reshape(-1, 9), translations], axis=1)
    return _apply(blended[:, :9].reshape(-1, 3, 3), vertices) + blended[:, 9:]
