"""Which garments a person wears, and how far they stand off the body."""

import numpy as np
from jaxtyping import Float32

from datasets.synthetic.wardrobe import LEGS_M, WAIST_M, Clothing, Kind


def draw_clothing(rng: np.random.Generator) -> Clothing:
    """Which garments, and their lengths."""
    skirted = rng.random() < 0.2
    legs: int | None = int(rng.choice(4, p=(0.1, 0.15, 0.05, 0.7)))
    if skirted:
        legs = None
    shoes: int | None = int(rng.random() < 0.15)
    if rng.random() < 0.08:
        shoes = None
    return Clothing(
        sleeve=int(rng.choice(5, p=(0.12, 0.35, 0.1, 0.08, 0.35))),
        neckline=None if rng.random() < 0.08 else int(rng.choice(3, p=(0.45, 0.35, 0.2))),
        shirt_hem=1 if skirted else int(rng.choice(3, p=(0.2, 0.35, 0.45))),
        legs=legs,
        skirt=int(rng.choice(4, p=(0.25, 0.35, 0.2, 0.2))) if skirted else None,
        shoes=shoes,
        jacket=bool(rng.random() < 0.18),
    )


def thickness_of(
    kind: Kind, rest: Float32[np.ndarray, "P 3"], fit: float, tucked: bool
) -> Float32[np.ndarray, " P"]:
    """Metres off the suit; `fit` is 0 for tight and 1 for wide."""
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    at_hem = np.clip((-0.2 - y) / 0.06, 0, 1)
    if kind == "shirt":
        belly = np.clip((0.05 - y) / 0.35, 0, 1) * (x < 0.25)
        sleeve = np.clip((x - 0.2) / 0.2, 0, 1)
        thickness = 0.006 + 0.03 * fit * (belly + 0.5 * sleeve)
        thickness = (
            thickness * (1 - at_hem) + 0.004 * at_hem if tucked else thickness + 0.014 * at_hem
        )
    elif kind == "jacket":
        thickness = 0.022 + 0.025 * fit * (x > 0.2) + (0.03 + 0.02 * fit) * at_hem
    elif kind == "bottoms":
        down = np.clip((WAIST_M - 0.15 - y) / (WAIST_M - LEGS_M[-1]), 0, 1)
        thickness = 0.006 + 0.035 * fit * down**0.6
        if tucked:
            thickness = thickness + np.clip((y + 0.48) / 0.05, 0, 1) * 0.008
    elif kind == "skirt":
        down = np.clip((WAIST_M - y) / 0.5, 0, 1)
        thickness = 0.012 + (0.02 + 0.06 * fit) * down
    else:
        thickness = 0.006 + 0.006 * (y < -1.315)
    return np.broadcast_to(thickness, len(rest)).astype(np.float32)
