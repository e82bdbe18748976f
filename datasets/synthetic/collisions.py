"""How deep limbs are in each other: capsules about the bones of the mean body."""

from functools import cache
from typing import Final

import numpy as np
from jaxtyping import Float, Int

from datasets.synthetic.limbs import JOINT
from human_models.joints import SIDES

# Name: joint at the start, offset at the end in the start's frame or joint at the end, radius (m).
_BONES: Final[dict[str, tuple[str, str | tuple[float, float, float], float]]] = {
    "belly": ("pelvis", "spine3", 0.115),
    "chest": ("spine3", "neck", 0.105),
    "head": ("head", (0.0, 0.08, 0.02), 0.095),
    **{
        f"{side}_{name}": (
            f"{side}_{start}",
            end if isinstance(end, tuple) else f"{side}_{end}",
            radius,
        )
        for side, sign in zip(SIDES, (1, -1), strict=True)
        for name, start, end, radius in (
            ("arm", "shoulder", "elbow", 0.045),
            ("forearm", "elbow", "wrist", 0.036),
            ("hand", "wrist", (0.11 * sign, 0.0, 0.0), 0.032),
            ("thigh", "hip", "knee", 0.07),
            ("shin", "knee", "ankle", 0.05),
            ("foot", "ankle", (0.03 * sign, -0.05, 0.13), 0.04),
        )
    },
}
_NAMES: Final = list(_BONES)
_RADII: Final = np.array([radius for _, _, radius in _BONES.values()])


@cache
def _pairs() -> Int[np.ndarray, "2 K"]:
    """Which capsules are tested against which."""
    pairs = []
    for side, other in (SIDES, SIDES[::-1]):
        fixed = ["belly", "chest", "head", f"{other}_arm", f"{other}_thigh", f"{side}_thigh"]
        for part in ("forearm", "hand"):
            pairs += [
                (f"{side}_{part}", name) for name in (*fixed, f"{side}_shin", f"{other}_shin")
            ]
    for part in ("forearm", "hand"):
        pairs += [(f"left_{part}", f"right_{other}") for other in ("forearm", "hand")]
    for part in ("thigh", "shin", "foot"):
        pairs += [(f"left_{part}", f"right_{other}") for other in ("shin", "foot")]
    return np.array([[_NAMES.index(name) for name in pair] for pair in pairs]).T


def penetration(rotations: Float[np.ndarray, "22 3 3"], places: Float[np.ndarray, "22 3"]) -> float:
    """The deepest that two limbs lie in each other, metres; negative: all are apart.

    Args:
        rotations: of the joints, in the world.
        places: of the joints, metres.
    """
    starts, ends = np.empty((len(_BONES), 3)), np.empty((len(_BONES), 3))
    for i, (start, end, _) in enumerate(_BONES.values()):
        joint = JOINT[start]
        starts[i] = places[joint]
        ends[i] = (
            places[JOINT[end]] if isinstance(end, str) else places[joint] + rotations[joint] @ end
        )
    one, other = _pairs()
    distance = _between(starts[one], ends[one], starts[other], ends[other])
    return float((_RADII[one] + _RADII[other] - distance).max())


def _between(
    a: Float[np.ndarray, "K 3"],
    b: Float[np.ndarray, "K 3"],
    c: Float[np.ndarray, "K 3"],
    d: Float[np.ndarray, "K 3"],
) -> Float[np.ndarray, " K"]:
    """Distances of segments ab and cd (Ericson, Real-Time Collision Detection, 5.1.9)."""
    ab, cd, ca = b - a, d - c, a - c
    aa, bb, ff = (ab * ab).sum(1), (ab * cd).sum(1), (cd * cd).sum(1)
    ac, fc = (ab * ca).sum(1), (cd * ca).sum(1)
    denominator = aa * ff - bb * bb
    s = np.where(denominator > 1e-12, (bb * fc - ac * ff) / np.maximum(denominator, 1e-12), 0).clip(
        0, 1
    )
    t = ((bb * s + fc) / ff).clip(0, 1)
    s = ((t * bb - ac) / aa).clip(0, 1)
    return np.linalg.norm(ca + s[:, None] * ab - t[:, None] * cd, axis=1)
