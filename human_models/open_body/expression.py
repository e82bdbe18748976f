"""Ten expression components as signed mixes of Mika Suominen's face units.

What the jaw and eye joints do (jawOpen, eyeLook*) is left out.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import Float32, Float64
from scipy import sparse

# Coefficients at +1 would be extreme at the usual +-2 without this factor.
_STRENGTH: Final = 0.6

_MIXES: Final[dict[str, dict[str, float]]] = {
    "smile(+), frown(-)": {
        "mouthSmileLeft": 0.5,
        "mouthSmileRight": 0.5,
        "cheekSquintLeft": 0.2,
        "cheekSquintRight": 0.2,
        "mouthFrownLeft": -0.4,
        "mouthFrownRight": -0.4,
    },
    "brows up(+), down(-)": {
        "browInnerUp": 0.5,
        "browOuterUpLeft": 0.5,
        "browOuterUpRight": 0.5,
        "browDownLeft": -0.5,
        "browDownRight": -0.5,
    },
    "eyes wide(+), blink(-)": {
        "eyeWideLeft": 0.35,
        "eyeWideRight": 0.35,
        "eyeBlinkLeft": -0.35,
        "eyeBlinkRight": -0.35,
    },
    "pucker(+), stretch(-)": {
        "mouthPucker": 0.5,
        "mouthStretchLeft": -0.4,
        "mouthStretchRight": -0.4,
    },
    "lips part(+), press(-)": {
        "mouthUpperUpLeft": 0.4,
        "mouthUpperUpRight": 0.4,
        "mouthLowerDownLeft": 0.4,
        "mouthLowerDownRight": 0.4,
        "mouthPressLeft": -0.3,
        "mouthPressRight": -0.3,
    },
    "funnel(+), roll in(-)": {
        "mouthFunnel": 0.5,
        "mouthRollUpper": -0.4,
        "mouthRollLower": -0.4,
    },
    "cheek puff": {"cheekPuff": 0.4},
    "nose sneer": {
        "noseSneerLeft": 0.5,
        "noseSneerRight": 0.5,
        "eyeSquintLeft": 0.2,
        "eyeSquintRight": 0.2,
    },
    "mouth left(+), right(-)": {"mouthLeft": 0.4, "mouthRight": -0.4},
    "smile left(+), right(-)": {
        "mouthSmileLeft": 0.5,
        "mouthSmileRight": -0.5,
        "browOuterUpLeft": 0.3,
        "browOuterUpRight": -0.3,
    },
}
EXPRESSION_COMPONENTS: Final = len(_MIXES)
_BLINK: Final = ("eyeBlinkLeft", "eyeBlinkRight")
_MOVED_M: Final = 3e-4


def expression_directions(
    selection: sparse.csr_matrix, face_units: Mapping[str, Float32[np.ndarray, "V 3"]]
) -> Float64[np.ndarray, "N 3 10"]:
    """Offsets in metres at coefficient 1. The T-pose leaves the head's rest orientation alone."""
    mixes = [_mixed(mix, face_units) for mix in _MIXES.values()]
    return np.stack([_STRENGTH * (selection @ mix) for mix in mixes], axis=-1)


def closed_eyes(
    selection: sparse.csr_matrix, face_units: Mapping[str, Float32[np.ndarray, "V 3"]]
) -> Float64[np.ndarray, "N 3"]:
    """Offsets that shut both eyes."""
    return np.asarray(selection @ _mixed(dict.fromkeys(_BLINK, 1.0), face_units))


def _mixed(
    mix: Mapping[str, float], face_units: Mapping[str, Float32[np.ndarray, "V 3"]]
) -> Float64[np.ndarray, "V 3"]:
    units = np.stack([face_units[unit] for unit in mix]).astype(np.float64)
    return np.tensordot(list(mix.values()), units, 1)


def moved_by_expression(directions: Float64[np.ndarray, "N 3 10"]) -> np.ndarray:
    """Vertices (N,) that any component moves noticeably."""
    return np.abs(directions).max(axis=(1, 2)) > _MOVED_M
