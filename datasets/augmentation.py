"""How a training sample differs from its image: drawn once, as a value, before anything is read."""

from typing import Final, NamedTuple

import numpy as np

from utils.box import CropAugmentation

_SCALE_SPREAD: Final = 0.25
_ROTATION_SPREAD_DEG: Final = 30.0
_ROTATION_PROBABILITY: Final = 0.6
_COLOUR_RANGE: Final = (0.8, 1.2)
_FLIP_PROBABILITY: Final = 0.5


class Augmentation(NamedTuple):
    """Scale of the person's box, rotation of the image in degrees, mirroring, factors of R, G, B.

    Seen in the crop, a positive rotation turns the person counter-clockwise.
    """

    scale: float = 1.0
    rotation_deg: float = 0.0
    flip: bool = False
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def crop(self) -> CropAugmentation:
        """The part of it that moves pixels."""
        return CropAugmentation(self.scale, self.rotation_deg, self.flip)


NO_AUGMENTATION: Final = Augmentation()


def draw_augmentation(
    seed: int, epoch: int, index: int, *, strength: float = 1.0, off: bool = False
) -> Augmentation:
    """The augmentation of sample `index` in `epoch`.

    It depends on these numbers alone, so it is the same in whatever process a sample is made and
    however often training was stopped. `strength` (`data.aug_strength`) weakens turns and changes
    of size; `off` (`data.no_aug`) gives the plain crop.
    """
    if off:
        return NO_AUGMENTATION
    generator = np.random.default_rng((seed, epoch, index))
    normal_scale, normal_rotation = generator.standard_normal(2)
    turned, flipped = generator.random(2)
    red, green, blue = generator.uniform(*_COLOUR_RANGE, size=3)
    rotation = strength * _ROTATION_SPREAD_DEG * float(np.clip(normal_rotation, -2, 2))
    return Augmentation(
        scale=1 + strength * _SCALE_SPREAD * float(np.clip(normal_scale, -1, 1)),
        rotation_deg=rotation if turned < _ROTATION_PROBABILITY else 0.0,
        flip=bool(flipped < _FLIP_PROBABILITY),
        colour=(float(red), float(green), float(blue)),
    )
