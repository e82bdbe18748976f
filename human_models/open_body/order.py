"""SMPL-X's vertex numbering: named vertices on their published ids, parts in their id ranges."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from jaxtyping import Int64, Shaped

from human_models.open_body.regions import FLAME_INNER_REGIONS

HAND_IDS: Final = {"left_hand": range(4613, 5391), "right_hand": range(7335, 8113)}
EYE_IDS: Final = {"left_eye": range(9383, 9929), "right_eye": range(9929, 10475)}
_NOSE_ID: Final = 9120  # lies in the body's range, yet belongs to the head
_HEAD_IDS: Final = (*range(3930), _NOSE_ID)
_BODY_IDS: Final = (
    *range(3930, 4613),
    *range(5391, 7335),
    *range(8113, _NOSE_ID),
    *range(_NOSE_ID + 1, 9383),
)
# Regions that fill a range of ids together.
SMPLX_BLOCKS: Final[tuple[tuple[Sequence[int], tuple[str, ...]], ...]] = (
    *((EYE_IDS[eye], (eye,)) for eye in EYE_IDS),
    (_HEAD_IDS, ("head", *FLAME_INNER_REGIONS)),
    *((HAND_IDS[hand], (hand,)) for hand in HAND_IDS),
    (_BODY_IDS, ("body", "left_foot", "right_foot")),
)


def smplx_order(
    regions: Shaped[np.ndarray, " N"], named: Mapping[str, int], ids: Mapping[str, int]
) -> Int64[np.ndarray, " N"]:
    """The present vertex for every SMPL-X id; `named` vertices come to lie on their `ids`."""
    blocks = [
        (block, np.flatnonzero(np.isin(regions, parts)).tolist()) for block, parts in SMPLX_BLOCKS
    ]
    return fill_order(len(regions), {ids[name]: named[name] for name in named}, blocks)


def fill_order(
    count: int,
    fixed: Mapping[int, int],
    blocks: Iterable[tuple[Sequence[int], Sequence[int]]],
) -> Int64[np.ndarray, " N"]:
    """A permutation: `fixed` {id: vertex}, then each block's (ids, vertices) in order."""
    order = np.full(count, -1)
    for new, vertex in fixed.items():
        order[new] = vertex
    taken = set(fixed.values())
    for ids, vertices in blocks:
        free = [new for new in ids if order[new] < 0]
        order[free] = [vertex for vertex in vertices if vertex not in taken]
    assert (np.sort(order) == np.arange(count)).all()
    return order


def inverse(order: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Where each present vertex goes."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    return places
