"""SMPL-X's 55 joints from MakeHuman's 163 bones, and SMPL-X's T-pose from MakeHuman's rest pose.

Positions and skinning weights of the joints come from the bones. The T-pose is computed for many
subjects at once: the rotation of each bone follows from the subject's own bone directions, so that
all subjects end in the same pose. Forward kinematics and linear blend skinning with MakeHuman's
weights then pose the vertices.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import Float, Float64

from human_models.joints import RIG_JOINTS, mirror_permutation
from open_body.assets import Rig

SIDE_SUFFIXES: Final = {"left": "L", "right": "R"}
FINGER_NUMBERS: Final = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}
MIRRORED_JOINTS: Final = mirror_permutation(RIG_JOINTS)

# Joints that get the skinning weight of a bone, and their shares; "{}" stands for the side. Bones
# that are not listed (face, tongue) count as their nearest listed ancestor.
_MIDDLE_BONES: Final = {
    "root": {"pelvis": 1.0},
    "spine05": {"pelvis": 1.0},
    "spine04": {"pelvis": 0.5, "spine1": 0.5},
    "spine03": {"spine1": 1.0},
    "spine02": {"spine2": 1.0},
    "spine01": {"spine3": 1.0},
    "neck01": {"neck": 1.0},
    "neck02": {"neck": 1.0},
    "neck03": {"neck": 0.5, "head": 0.5},
    "head": {"head": 1.0},
    "jaw": {"jaw": 1.0},
}
_SIDE_BONES: Final = {
    "pelvis": {"pelvis": 1.0},
    "breast": {"spine2": 1.0},
    "upperleg01": {"{}_hip": 1.0},
    "upperleg02": {"{}_hip": 1.0},
    "lowerleg01": {"{}_knee": 1.0},
    "lowerleg02": {"{}_knee": 1.0},
    "foot": {"{}_ankle": 1.0},
    "clavicle": {"{}_collar": 1.0},
    "shoulder01": {"{}_collar": 0.5, "{}_shoulder": 0.5},
    "upperarm01": {"{}_shoulder": 1.0},
    "upperarm02": {"{}_shoulder": 1.0},
    "lowerarm01": {"{}_elbow": 1.0},
    "lowerarm02": {"{}_elbow": 1.0},
    "wrist": {"{}_wrist": 1.0},
    "eye": {"{}_eye_smplhf": 1.0},
    **{f"metacarpal{k}": {"{}_wrist": 1.0} for k in (1, 2, 3, 4)},
    **{f"toe{toe}-{k}": {"{}_foot": 1.0} for toe in range(1, 6) for k in (1, 2, 3)},
    **{
        f"finger{number}-{k}": {f"{{}}_{finger}{k}": 1.0}
        for finger, number in FINGER_NUMBERS.items()
        for k in (1, 2, 3)
    },
}

# Joints at the head of one bone.
_MIDDLE_JOINTS: Final = {
    "spine1": "spine03",
    "spine2": "spine02",
    "spine3": "spine01",
    "neck": "neck01",
    "head": "head",
    "jaw": "jaw",
}
_SIDE_JOINTS: Final = {
    "knee": "lowerleg01",
    "ankle": "foot",
    "collar": "clavicle",
    "shoulder": "upperarm01",
    "elbow": "lowerarm01",
    "wrist": "wrist",
    "eye_smplhf": "eye",
    **{
        f"{finger}{k}": f"finger{number}-{k}"
        for finger, number in FINGER_NUMBERS.items()
        for k in (1, 2, 3)
    },
}
_HIP_INWARDS: Final = 0.15  # MakeHuman's hips are farther apart than SMPL-X's
_INFLUENCES: Final = 6  # joints per vertex; six keep over 99.8 % of every vertex's weight
_SMALLEST_WEIGHT: Final = 1e-3


def _bone_to_joint_weights(rig: Rig) -> Float64[np.ndarray, "bones 55"]:
    """Share of each bone's skinning weight that each joint gets; rows sum to 1."""
    joints_of: dict[str, Mapping[str, float]] = dict(_MIDDLE_BONES)
    for side, suffix in SIDE_SUFFIXES.items():
        for bone, joints in _SIDE_BONES.items():
            joints_of[f"{bone}.{suffix}"] = {j.format(side): w for j, w in joints.items()}
    table = np.zeros((len(rig.names), len(RIG_JOINTS)))
    for row in range(len(rig.names)):
        listed = row
        while rig.names[listed] not in joints_of:
            listed = rig.parents[listed]
        for joint, weight in joints_of[rig.names[listed]].items():
            table[row, RIG_JOINTS.index(joint)] += weight
    return table


def joint_weights(
    bone_weights: Float64[np.ndarray, "N bones"], rig: Rig, mirror: np.ndarray
) -> Float64[np.ndarray, "N 55"]:
    """Mirror-symmetric skinning weights with at most six joints per vertex; rows sum to 1."""
    weights = bone_weights @ _bone_to_joint_weights(rig)
    smallest_kept = np.sort(weights, axis=1)[:, [-_INFLUENCES]]
    weights[weights < np.maximum(smallest_kept, _SMALLEST_WEIGHT)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return 0.5 * (weights + weights[mirror][:, MIRRORED_JOINTS])


def clothes_weights(
    bone_weights: Float64[np.ndarray, "E bones"], rig: Rig
) -> Float64[np.ndarray, "E 55"]:
    """Skinning weights of the clothes over the joints; rows sum to 1."""
    weights = bone_weights @ _bone_to_joint_weights(rig)
    weights[weights < _SMALLEST_WEIGHT] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def joint_positions(
    heads: Float64[np.ndarray, "n bones 3"], rig: Rig
) -> Float64[np.ndarray, "n 55 3"]:
    """Joints from the heads of the posed bones, metres."""

    def head(bone: str) -> Float64[np.ndarray, "n 3"]:
        return heads[:, rig.index(bone)]

    hips_middle = 0.5 * (head("upperleg01.L") + head("upperleg01.R"))
    # The pelvis is placed above the hips, because MakeHuman's bone lies 2 cm behind them.
    joints = {"pelvis": head("spine04") * [1, 1, 0] + hips_middle * [0, 0, 1]}
    joints |= {joint: head(bone) for joint, bone in _MIDDLE_JOINTS.items()}
    for side, suffix in SIDE_SUFFIXES.items():
        outer_hip = head(f"upperleg01.{suffix}")
        joints[f"{side}_hip"] = outer_hip + _HIP_INWARDS * (hips_middle - outer_hip)
        joints[f"{side}_foot"] = np.mean([head(f"toe{k}-1.{suffix}") for k in range(1, 6)], axis=0)
        joints |= {f"{side}_{j}": head(f"{bone}.{suffix}") for j, bone in _SIDE_JOINTS.items()}
    return np.stack([joints[name] for name in RIG_JOINTS], axis=1)


# The T-pose.

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
# Fraction of a limb's twist that each bone gets.
_UPPER_ARM_TWIST_FRACTION: Final = 0.5
_FOREARM_TWIST_FRACTIONS: Final = {"lowerarm01": 0.25, "lowerarm02": 0.7}


def tpose_rotations(
    heads: Float64[np.ndarray, "n bones 3"], tails: Float64[np.ndarray, "n bones 3"], rig: Rig
) -> Float64[np.ndarray, "n bones 3 3"]:
    """Global rotation of every bone from the rest pose to the T-pose.

    Spine, neck, head and face are not rotated, so that offsets of the face stay valid.
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


class _Side:
    """The bones of one side in the rest pose, and this side's directions in the T-pose."""

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
        first, last = (self._rig.index(f"{bone}.{self._suffix}") for bone in (start, end))
        return self._heads[:, last] - self._heads[:, first]

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
    """Rotations of the arm's bones; the elbow bends forward and the palm faces down."""
    upper_arm = side.between("upperarm01", "lowerarm01")
    forearm = side.between("lowerarm01", "wrist")
    upper_arm_end, forearm_end = side.direction(_UPPER_ARM), side.direction(_FOREARM)
    clavicle = side.turn(_FRONT, _CLAVICLE_LIFT_DEG)
    shoulder = side.turn(_FRONT, _SHOULDER_LIFT_DEG)

    lower = _align(_frames(upper_arm, forearm), _frames(upper_arm_end, _FRONT))
    untwisted = _shortest_rotations(_apply(shoulder, upper_arm), upper_arm_end) @ shoulder
    twist = _twists(_align(untwisted, lower), upper_arm_end)
    upper = axis_rotations(
        np.broadcast_to(upper_arm_end, upper_arm.shape), _UPPER_ARM_TWIST_FRACTION * twist
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
            bone: axis_rotations(axes, fraction * twist) @ elbow
            for bone, fraction in _FOREARM_TWIST_FRACTIONS.items()
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


# Vectors and rotations.


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
