"""Pose correctives that let the twist of wrist, shoulder and hip run along the limb.

Plain linear blend skinning wrings a twisted limb out like a candy wrapper. A skinning whose twist
grows along the limb does not; what separates the two is fitted by least squares onto SMPL's
corrective features, the elements of (R_joint - I) (Loper et al., SMPL, 2015, eq. 9).
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from human_models.joints import RIG_JOINTS, RIG_PARENTS
from human_models.open_body.tpose import axis_rotations, normalized

POSE_FEATURES: Final = 9 * (len(RIG_JOINTS) - 1)
_ROTATIONS: Final = 300
_RIDGE: Final = 0.05 * _ROTATIONS / 100
_TWIST_EXPONENT: Final = 1.1
_LEAST_WEIGHT: Final = 1e-3
_LIMB_WEIGHT: Final = 0.3
_SMALLEST_CORRECTIVE_M: Final = 1e-5
_MIRROR: Final = np.array([-1.0, 1.0, 1.0])


class _Limb(NamedTuple):
    """A joint and the limb along which its twist spreads.

    start, end: joints at the limb's ends; start_share: the part of the twist at its start (all
    of it at the end); twist_deg, swing_deg: range of the rotations fitted; before: whether
    the limb lies before the joint (forearm and wrist) or behind it (upper arm and shoulder).
    """

    joint: str
    start: str
    end: str
    start_share: float
    twist_deg: float
    swing_deg: float
    before: bool


_LIMBS: Final = (
    _Limb("wrist", "elbow", "wrist", 0.0, 80, 55, before=True),
    _Limb("shoulder", "shoulder", "elbow", 0.35, 75, 80, before=False),
    _Limb("hip", "hip", "knee", 0.35, 50, 90, before=False),
)


def fit_correctives(
    vertices: Float64[np.ndarray, "N 3"],
    joints: Float64[np.ndarray, "55 3"],
    weights: Float64[np.ndarray, "N 55"],
    mirror: Int64[np.ndarray, " N"],
) -> Float64[np.ndarray, "N 3 486"]:
    """SMPL-X's posedirs, metres per unit of (R - I), row-major, joints 1 to 54."""
    correctives = np.zeros((len(vertices), 3, POSE_FEATURES))
    rng = np.random.default_rng(0)
    for limb in _LIMBS:
        moved, left = _fit_limb(limb, vertices, joints, weights, rng)
        correctives[moved, :, _features(f"left_{limb.joint}")] = left
        # A mirrored rotation is M R M, so its feature (a, b) changes sign with M_a M_b.
        signs = _MIRROR[:, None] * np.outer(_MIRROR, _MIRROR).ravel()
        correctives[mirror[moved], :, _features(f"right_{limb.joint}")] = left * signs
    correctives[np.abs(correctives) < _SMALLEST_CORRECTIVE_M] = 0
    return correctives


def _features(joint: str) -> slice:
    first = 9 * (RIG_JOINTS.index(joint) - 1)
    return slice(first, first + 9)


def _descendants(joint: int) -> list[int]:
    """The joint and everything that hangs on it; parents come before children in the rig."""
    found = [joint]
    for child, parent in enumerate(RIG_PARENTS):
        if parent in found:
            found.append(child)
    return found


def _fit_limb(
    limb: _Limb,
    vertices: Float64[np.ndarray, "N 3"],
    joints: Float64[np.ndarray, "55 3"],
    weights: Float64[np.ndarray, "N 55"],
    rng: np.random.Generator,
) -> tuple[Int64[np.ndarray, " m"], Float64[np.ndarray, "m 3 9"]]:
    """Vertices of the left limb that need correcting, and their correctives."""
    index, first, last = (
        RIG_JOINTS.index(f"left_{name}") for name in (limb.joint, limb.start, limb.end)
    )
    axis = normalized(joints[last] - joints[first])
    length = np.linalg.norm(joints[last] - joints[first])
    weight = weights[:, _descendants(index)].sum(axis=1)
    place = np.clip((vertices - joints[first]) @ axis / length, 0, 1)
    share = limb.start_share + (1 - limb.start_share) * place**_TWIST_EXPONENT
    near = weight > _LEAST_WEIGHT
    if limb.before:
        near |= weights[:, first] > _LIMB_WEIGHT
        blended = (weight > _LEAST_WEIGHT) & (weight < 1 - _LEAST_WEIGHT)
        wanting = (share < 1 - 1e-6) | blended
    else:
        wanting = np.abs(share - 1) > 1e-6
    moved = np.flatnonzero(near & wanting)

    features, offsets = [], []
    for _ in range(_ROTATIONS):
        twist = np.radians(rng.uniform(-limb.twist_deg, limb.twist_deg))
        swing_axis = rng.normal(size=3)
        swing_axis -= swing_axis @ axis * axis
        swing = axis_rotations(swing_axis, np.radians(rng.uniform(0, limb.swing_deg)))
        rotation = swing @ axis_rotations(axis, np.array(twist))
        local = vertices[moved] - joints[index]
        wrung = _turned(local, axis, share[moved] * twist)
        offset = _offsets(local, wrung, weight[moved, None], swing, rotation, limb.before)
        features.append((rotation - np.eye(3)).ravel())
        offsets.append(offset.ravel())
    A, b = np.array(features), np.array(offsets)
    solution = np.linalg.solve(A.T @ A + _RIDGE * np.eye(9), A.T @ b)
    return moved, np.moveaxis(solution.reshape(9, -1, 3), 0, -1)


def _turned(
    points: Float64[np.ndarray, "m 3"],
    axis: Float64[np.ndarray, "3"],
    angles: Float64[np.ndarray, " m"],
) -> Float64[np.ndarray, "m 3"]:
    """Points turned about an axis through the origin, each by its own angle."""
    along = (points @ axis)[:, None] * axis
    across = points - along
    cosines, sines = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return along + cosines * across + sines * np.cross(axis, across)


def _offsets(
    local: Float64[np.ndarray, "m 3"],
    wrung: Float64[np.ndarray, "m 3"],
    weight: Float64[np.ndarray, "m 1"],
    swing: Float64[np.ndarray, "3 3"],
    rotation: Float64[np.ndarray, "3 3"],
    before: bool,
) -> Float[np.ndarray, "m 3"]:
    """Rest-pose offsets with which plain skinning gives the well-twisted limb (joint at 0)."""
    still = wrung if before else local
    wanted = (1 - weight) * still + weight * (wrung @ swing.T)
    skinned = (1 - weight) * local + weight * (local @ rotation.T)
    blended = (1 - weight)[..., None] * np.eye(3) + weight[..., None] * rotation
    return np.linalg.solve(blended, (wanted - skinned)[..., None])[..., 0]
