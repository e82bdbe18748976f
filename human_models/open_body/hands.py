"""Mean and components of the hand poses.

The mean is MANO's, so that published hand parameters mean the same here. The components are our
own: an orthonormal basis that starts with what hands do most.
"""

from typing import Final

import numpy as np
from jaxtyping import Float64

from human_models.joints import HAND_JOINTS, HANDS_MEAN, SIDES

_FINGERS: Final = ("index", "middle", "pinky", "ring")
# The left thumb bends about this axis: across its direction and towards the palm.
_THUMB_BEND: Final = np.array([0.621, 0.637, -0.457])
_SPREAD: Final = {"index": -1.0, "middle": -0.2, "pinky": 1.0, "ring": 0.4}
_NEW_DIRECTION: Final = 1e-6  # shorter residuals are combinations of what the basis has
_MIRROR_ROTATION: Final = np.tile([1.0, -1.0, -1.0], 15)


def hands_mean(side: str) -> Float64[np.ndarray, "45"]:
    """Mean hand pose, axis-angle in radians, in the order of HAND_JOINTS."""
    return np.array(HANDS_MEAN[side]).ravel()


def hands_components(side: str) -> Float64[np.ndarray, "45 45"]:
    """Rows: all fingers curl, thumb bends, fingers spread, single fingers curl, then the rest."""
    motions = [_curl(_FINGERS), _thumb(), _spread(), *(_curl((finger,)) for finger in _FINGERS)]
    basis: list[np.ndarray] = []
    for motion in [*motions, *np.eye(45)]:
        rest = motion
        for _ in range(2):  # the second pass removes what rounding left of the first
            rest = rest - sum(component * (component @ rest) for component in basis)
        if np.linalg.norm(rest) > _NEW_DIRECTION:
            basis.append(rest / np.linalg.norm(rest))
    components = np.array(basis)
    return components if side == "left" else components * _MIRROR_ROTATION


def _pose(rotations: dict[str, Float64[np.ndarray, "3"]]) -> Float64[np.ndarray, "45"]:
    """A left hand pose from the rotations of some joints ("index1")."""
    zero = np.zeros(3)
    names = (joint.removeprefix(f"{SIDES[0]}_") for joint in HAND_JOINTS[SIDES[0]])
    return np.concatenate([rotations.get(name, zero) for name in names])


def _curl(fingers: tuple[str, ...]) -> Float64[np.ndarray, "45"]:
    bend = np.array([0.0, 0.0, -1.0])
    return _pose({f"{finger}{k}": bend for finger in fingers for k in (1, 2, 3)})


def _thumb() -> Float64[np.ndarray, "45"]:
    return _pose({f"thumb{k}": _THUMB_BEND for k in (1, 2, 3)})


def _spread() -> Float64[np.ndarray, "45"]:
    return _pose({f"{finger}1": np.array([0.0, yaw, 0.0]) for finger, yaw in _SPREAD.items()})
