"""Which of MakeHuman's 163 bones makes which of the 55 joints: skinning weights and positions."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from jaxtyping import Float64

from human_models.joints import RIG_JOINTS, mirror_permutation
from human_models.open_body.assets import Rig

SIDE_SUFFIXES: Final = MappingProxyType({"left": "L", "right": "R"})
FINGER_NUMBERS: Final = MappingProxyType(
    {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}
)
MIRRORED_JOINTS: Final = mirror_permutation(RIG_JOINTS)

# Bones whose skin follows a joint, each with the share of its weight; "{}" stands for the side.
# Bones not named here (face, tongue) follow their nearest named ancestor.
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

# Joints that lie at the head of one bone.
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
_HIP_INWARDS: Final = 0.15  # MakeHuman's hips sit too far out for SMPL-X's
_INFLUENCES: Final = 6  # joints a vertex may follow; six keep over 99.8 % of every vertex's weight
_SMALLEST_WEIGHT: Final = 1e-3


def joint_shares(rig: Rig) -> Float64[np.ndarray, "bones 55"]:
    """Share of every bone's skinning weight that goes to each joint; rows sum to 1."""
    shares_of: dict[str, Mapping[str, float]] = dict(_MIDDLE_BONES)
    for side, suffix in SIDE_SUFFIXES.items():
        for bone, shares in _SIDE_BONES.items():
            shares_of[f"{bone}.{suffix}"] = {j.format(side): w for j, w in shares.items()}
    table = np.zeros((len(rig.names), len(RIG_JOINTS)))
    for row in range(len(rig.names)):
        named = row
        while rig.names[named] not in shares_of:
            named = rig.parents[named]
        for joint, share in shares_of[rig.names[named]].items():
            table[row, RIG_JOINTS.index(joint)] += share
    return table


def joint_weights(
    bone_weights: Float64[np.ndarray, "N bones"], rig: Rig, mirror: np.ndarray
) -> Float64[np.ndarray, "N 55"]:
    """Skinning weights over the joints: few influences, mirror-symmetric, rows sum to 1."""
    weights = bone_weights @ joint_shares(rig)
    smallest_kept = np.sort(weights, axis=1)[:, [-_INFLUENCES]]
    weights[weights < np.maximum(smallest_kept, _SMALLEST_WEIGHT)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return 0.5 * (weights + weights[mirror][:, MIRRORED_JOINTS])


def joint_positions(
    heads: Float64[np.ndarray, "n bones 3"], rig: Rig
) -> Float64[np.ndarray, "n 55 3"]:
    """Joints from the heads of the posed bones."""

    def head(bone: str) -> Float64[np.ndarray, "n 3"]:
        return heads[:, rig.index(bone)]

    hips_middle = 0.5 * (head("upperleg01.L") + head("upperleg01.R"))
    # Straight above the hips: MakeHuman's own bone lies two centimetres behind them.
    joints = {"pelvis": head("spine04") * [1, 1, 0] + hips_middle * [0, 0, 1]}
    joints |= {joint: head(bone) for joint, bone in _MIDDLE_JOINTS.items()}
    for side, suffix in SIDE_SUFFIXES.items():
        outer_hip = head(f"upperleg01.{suffix}")
        joints[f"{side}_hip"] = outer_hip + _HIP_INWARDS * (hips_middle - outer_hip)
        joints[f"{side}_foot"] = np.mean([head(f"toe{k}-1.{suffix}") for k in range(1, 6)], axis=0)
        joints |= {f"{side}_{j}": head(f"{bone}.{suffix}") for j, bone in _SIDE_JOINTS.items()}
    return np.stack([joints[name] for name in RIG_JOINTS], axis=1)
