"""Body poses: an activity, arms from `arms`, a look of the head and some noise.

Limbs that would lie in each other are drawn again.
"""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from datasets.synthetic.activities import ACTIVITIES, Draft
from datasets.synthetic.arms import Arm, draw_arms, hanging, place_arm
from datasets.synthetic.collisions import penetration
from datasets.synthetic.gait import Rotations
from datasets.synthetic.limbs import JOINT, Rotation, Skeleton, axis_angle, pick, turn
from human_models.joints import SIDES

Rng = np.random.Generator
_TRIES: Final = 6
_TOLERATED_M: Final = 0.02


class Pose(NamedTuple):
    """A body at rest in the world: y up, facing z before it is turned about y."""

    root: Rotation
    body: Float32[np.ndarray, "21 3"]
    """Axis-angle, radians."""
    hands: tuple[str | None, str | None]
    """Shapes that the arms' doing asks for, left and right."""
    seated: bool = False
    lift_m: float = 0.0
    """Of the lowest point over the floor."""


def _look(rng: Rng, rotations: Rotations, wide: float = 1.0) -> None:
    yaw, pitch, roll = rng.normal(0, (24, 13, 8)) * wide
    half = turn("y", yaw / 2) @ turn("x", pitch / 2) @ turn("z", roll / 2)
    rotations[JOINT["neck"]] = rotations[JOINT["head"]] = half


# Standard deviations of the noise in degrees about x, y, z; joints that are not listed: 3.
_NOISE_DEG: Final = {
    "collar": (2, 4, 4),
    "shoulder": (7, 7, 7),
    "elbow": (2, 7, 2),
    "wrist": (7, 5, 8),
    "hip": (4, 4, 3),
    "knee": (4, 2, 1),
    "ankle": (6, 5, 5),
    "foot": (7, 2, 2),
    "neck": (4, 4, 3),
    "head": (4, 4, 3),
}
_SPREADS: Final = np.array(
    [_NOISE_DEG.get(name.split("_")[-1], (3, 3, 3)) for name in JOINT], np.float64
)


class Poser:
    """Draws body poses for the mean body's skeleton."""

    def __init__(self, rest_joints: Float32[np.ndarray, "55 3"]) -> None:
        self.skeleton = Skeleton(rest_joints)

    def draw(self, rng: Rng) -> Pose:
        """A pose in which no limb is deep in another, or the least bad of some."""
        best: tuple[float, Pose] | None = None
        for _ in range(_TRIES):
            draft, arms = self._draft(rng)
            depth = penetration(*self.skeleton.world(draft.rotations))
            if best is None or depth < best[0]:
                best = (
                    depth,
                    as_pose(draft.rotations, arms)._replace(
                        seated=draft.seated, lift_m=draft.lift_m
                    ),
                )
            if depth < _TOLERATED_M:
                break
        assert best is not None
        return best[1]

    def _draft(self, rng: Rng) -> tuple[Draft, tuple[Arm, Arm]]:
        draft = pick(rng, ACTIVITIES)(rng)
        rotations, arms = draft.rotations, draft.arms
        if arms is None:
            arms = draw_arms(rng) if rng.random() < 0.9 else (hanging(rng), hanging(rng))
        for side, arm in zip(SIDES, arms, strict=True):
            place_arm(self.skeleton, rotations, side, arm)
        _look(rng, rotations)
        noise = np.deg2rad(rng.normal(0, _SPREADS) * rng.uniform(0, 1.3))
        if rng.random() < 0.5:
            rotations, arms = mirrored(rotations), arms[::-1]
        return draft._replace(rotations=add_noise(rotations, noise)), arms


def add_noise(rotations: Rotations, noise: Float[np.ndarray, "22 3"]) -> Rotations:
    """Each joint but the root turned by a small axis-angle vector; knees do not overstretch."""
    x, y, z = noise.T
    o = np.zeros_like(x)
    small = np.stack([o, -z, y, z, o, -x, -y, x, o], axis=1).reshape(-1, 3, 3)
    small = np.eye(3) + small + 0.5 * small @ small
    for side in SIDES:
        small[JOINT[f"{side}_knee"]] = turn("x", abs(float(np.degrees(x[JOINT[f"{side}_knee"]]))))
    small[0] = np.eye(3)
    return rotations @ small


def mirrored(rotations: Rotations) -> Rotations:
    """Left and right exchanged."""
    order = [
        JOINT[name.replace("left", "?").replace("right", "left").replace("?", "right")]
        for name in JOINT
    ]
    flip = np.array([-1.0, 1, 1])
    return rotations[order] * flip[:, None] * flip


def as_pose(rotations: Rotations, arms: tuple[Arm, Arm]) -> Pose:
    body = np.array([axis_angle(rotation) for rotation in rotations[1:]], np.float32)
    return Pose(rotations[0], body, (arms[0].hand, arms[1].hand))
