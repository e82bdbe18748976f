"""Joints as non-negative mixtures of vertices, fitted over many adults."""

import re
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import nnls

from human_models.joints import RIG_JOINTS, RIG_PARENTS
from human_models.open_body.bones import MIRRORED_JOINTS

# How far from a joint its vertices may lie, in metres. MakeHuman's joints of the trunk wander
# against the skin, so they need a wide choice; names not listed are those of fingers.
_RADII_M: Final = {
    "pelvis": 0.30,
    "spine": 0.30,
    "hip": 0.25,
    "neck": 0.16,
    "head": 0.16,
    "jaw": 0.16,
    "collar": 0.16,
    "shoulder": 0.16,
    "knee": 0.14,
    "ankle": 0.10,
    "foot": 0.10,
    "elbow": 0.10,
    "wrist": 0.06,
}
_FINGER_RADIUS_M: Final = 0.035
_CANDIDATES: Final = 240
_LEAST_WEIGHT: Final = 0.05  # of the joint and its parent together, in a candidate's skinning
_PELVIS_NEIGHBOURS: Final = ("left_hip", "right_hip", "spine1")
_SUM_WEIGHT: Final = 10.0  # how hard the sum is drawn to 1 inside the least squares
_RIDGE: Final = 0.1 * np.sqrt(0.03)
_SMALLEST_SHARE: Final = 1e-4


def fit_joint_regressor(
    vertices: Float64[np.ndarray, "n N 3"],
    joints: Float64[np.ndarray, "n 55 3"],
    weights: Float64[np.ndarray, "N 55"],
    mirror: Int64[np.ndarray, " N"],
    forbidden: Bool[np.ndarray, " N"],
) -> Float64[np.ndarray, "55 N"]:
    """Rows sum to 1; left joints are fitted, right ones mirrored.

    forbidden: vertices that expressions move, and that joints must not depend on.
    """
    regressor = np.zeros((len(RIG_JOINTS), vertices.shape[1]))
    for joint, name in enumerate(RIG_JOINTS):
        twin = MIRRORED_JOINTS[joint]
        if name.startswith("right_"):
            continue
        if "eye" in name:
            eyeball = np.flatnonzero((weights[:, joint] > 0.99) & ~forbidden)
            regressor[joint, eyeball] = 1 / len(eyeball)
        else:
            chosen = _candidates(joint, vertices.mean(0), joints.mean(0), weights, forbidden)
            if twin == joint:
                chosen = np.unique(np.concatenate([chosen, mirror[chosen]]))
            regressor[joint, chosen] = _shares(vertices[:, chosen], joints[:, joint])
        if twin == joint:
            regressor[joint] = 0.5 * (regressor[joint] + regressor[joint][mirror])
        else:
            regressor[twin] = regressor[joint][mirror]
    return regressor


def _candidates(
    joint: int,
    vertices: Float64[np.ndarray, "N 3"],
    joints: Float64[np.ndarray, "55 3"],
    weights: Float64[np.ndarray, "N 55"],
    forbidden: Bool[np.ndarray, " N"],
) -> Int64[np.ndarray, " c"]:
    """Well-spread vertices near a joint that move with it or with its parent."""
    name = RIG_JOINTS[joint]
    family = [joint, max(RIG_PARENTS[joint], 0)]
    if name == "pelvis":
        family = [joint, *(RIG_JOINTS.index(neighbour) for neighbour in _PELVIS_NEIGHBOURS)]
    follows = weights[:, np.unique(family)].sum(axis=1) >= _LEAST_WEIGHT
    kind = re.sub(r"(left|right)_|\d", "", name)
    distances = np.linalg.norm(vertices - joints[joint], axis=1)
    near = distances < _RADII_M.get(kind, _FINGER_RADIUS_M)
    usable = np.flatnonzero(follows & near & ~forbidden)
    usable = usable[np.argsort(distances[usable], kind="stable")]
    return usable[_farthest_points(vertices[usable], min(_CANDIDATES, len(usable)))]


def _farthest_points(points: Float64[np.ndarray, "c 3"], count: int) -> list[int]:
    """Start with the first point and always add the one farthest from all chosen."""
    chosen = [0]
    distances = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(distances)))
        distances = np.minimum(distances, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def _shares(
    vertices: Float64[np.ndarray, "n c 3"], joint: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, " c"]:
    """Non-negative least squares with a soft sum of 1 and a little ridge; exact sum at the end."""
    count = vertices.shape[1]
    scale = 1 / np.sqrt(joint.size)
    design = np.swapaxes(vertices, 1, 2).reshape(-1, count) * scale
    design = np.concatenate([design, np.full((1, count), _SUM_WEIGHT), _RIDGE * np.eye(count)])
    wanted = np.concatenate([joint.ravel() * scale, [_SUM_WEIGHT], np.zeros(count)])
    shares, _ = nnls(design, wanted, maxiter=5000)
    shares[shares < _SMALLEST_SHARE] = 0
    return shares / shares.sum()
