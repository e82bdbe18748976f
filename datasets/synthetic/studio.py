"""Everything that drawing needs and that does not change: bodies, clothes, poses, photographs."""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import UInt8

from datasets.sources import Split
from datasets.synthetic.backgrounds import bundled_photographs, read_photograph
from datasets.synthetic.figures import BodyParameters, Figures
from datasets.synthetic.hands import draw_hand
from datasets.synthetic.limbs import axis_angle, turn
from datasets.synthetic.people import Look, Stylist
from datasets.synthetic.poses import Pose, Poser
from datasets.synthetic.stage import Stage

_MOST_BETA: Final = 2.5
_SPLITS: Final[tuple[Split, ...]] = ("train", "test")
_HELD_OUT: Final = 4
"""Every so many-th photograph is kept for the test split."""


class Person(NamedTuple):
    """Who stands where: everything drawn about a person, before posing."""

    pose: Pose
    parameters: BodyParameters
    look: Look


class Studio:
    """Made once a process. All that is drawn comes from the generators that are handed in."""

    def __init__(self, split: Split) -> None:
        self.figures = Figures()
        self.stylist = Stylist(self.figures.data, self.figures.wardrobe, self.figures.features)
        self.poser = Poser(self.figures.rest_joints)
        images = [read_photograph(path) for path in bundled_photographs()]
        kept = [image for image in images if image is not None]
        wanted = [(i % _HELD_OUT == 0) == (split == "test") for i in range(len(kept))]
        self.photographs: list[UInt8[np.ndarray, "_ _ 3"]] = [
            image for image, ours in zip(kept, wanted, strict=True) if ours
        ]

    def draw_person(self, rng: np.random.Generator, stage: Stage, *, fine: bool) -> Person:
        """Somebody in some pose, turned to the camera's frame; `fine`: to be seen from near."""
        pose = self.poser.draw(rng)
        yaw = rng.normal(0, 45) if rng.random() < 0.55 else rng.uniform(-180, 180)
        look = self.stylist.draw(rng, fine=fine)
        return Person(pose, self.parameters(rng, stage, pose, yaw), look)

    def parameters(
        self, rng: np.random.Generator, stage: Stage, pose: Pose, yaw_deg: float
    ) -> BodyParameters:
        """Parameters of a body of drawn shape, face and hands; at 0 degrees it faces the camera."""
        turned = stage.from_world @ turn("y", yaw_deg) @ pose.root
        left, right = (
            draw_hand(rng, side, shape)
            for side, shape in zip(("left", "right"), pose.hands, strict=True)
        )
        jaw = np.array([np.clip(rng.normal(0.02, 0.1), 0, 0.4), rng.normal(0, 0.02), 0], np.float32)
        betas = np.clip(rng.standard_normal(10), -_MOST_BETA, _MOST_BETA)
        expression = rng.standard_normal(10) * rng.uniform(0, 1.3)
        return BodyParameters(
            *(axis_angle(turned).astype(np.float32), pose.body, left, right, jaw),
            *(betas.astype(np.float32), expression.astype(np.float32)),
        )


def generator(seed: int, split: Split, index: int) -> np.random.Generator:
    """The randomness of one picture: the same whatever else is drawn, and by whom."""
    return np.random.default_rng((seed, _SPLITS.index(split), index))
