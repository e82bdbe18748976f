"""A sheet with a picture of every person of a clip, to choose from."""

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

from main.tracks.rows import people_of
from main.tracks.shape import CONFIDENCE, confidence
from utils.draw import person_colour
from utils.media import Frame

_WIDTH, _HEIGHT, _CAPTION = 200, 280, 44
_COLUMNS: Final = 6
_MOST: Final = 60
"""People on a sheet; of more, those with the most frames."""
_MARGIN: Final = 0.1
_BACKGROUND: Final = 32


class _Portrait(NamedTuple):
    identity: int
    frame: int
    box: tuple[float, float, float, float]
    caption: str


def contact_sheet(
    rows: np.ndarray, frames: Iterable[Frame], chosen: Collection[int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Each person where they are seen best, with their number and first and last frame.

    Args:
        rows: final ones.
        frames: of the clip, from the first.
    """
    portraits = _portraits(rows, chosen)
    wanted: dict[int, list[int]] = {}
    for place, one in enumerate(portraits):
        wanted.setdefault(one.frame, []).append(place)
    columns = min(_COLUMNS, len(portraits))
    lines = -(-len(portraits) // columns)
    shape = (lines * (_HEIGHT + _CAPTION), columns * _WIDTH, 3)
    sheet = np.full(shape, _BACKGROUND, np.uint8)
    last = max(wanted)
    for frame in frames:
        for place in wanted.get(frame.index, []):
            top, left = place // columns * (_HEIGHT + _CAPTION), place % columns * _WIDTH
            tile = sheet[top : top + _HEIGHT + _CAPTION, left : left + _WIDTH]
            _draw(tile, frame.image, portraits[place])
        if frame.index == last:
            break
    return sheet


def _portraits(rows: np.ndarray, chosen: Collection[int]) -> list[_Portrait]:
    people = {one: mine for one, mine in people_of(rows).items() if one in chosen}
    longest = sorted(people, key=lambda one: -len(people[one]))[:_MOST]
    portraits = []
    for one in sorted(longest):
        mine = people[one]
        light = {name: rows[name][mine] for name in CONFIDENCE}
        seen = confidence(light) * (1 - 0.9 * rows["occlusion"][mine])
        # Beyond the network's size a larger picture still is the better portrait.
        best = mine[int((seen * np.sqrt(light["box_xywh"][:, 3])).argmax())]
        frames = rows["frame_index"][mine]
        caption = f"{frames[0]}-{frames[-1]} ({len(mine)})"
        box = tuple(map(float, rows["box_xywh"][best]))
        portraits.append(_Portrait(one, int(rows["frame_index"][best]), box, caption))  # type: ignore[arg-type]
    return portraits


def _draw(
    tile: UInt8[np.ndarray, "h w 3"], image: UInt8[np.ndarray, "H W 3"], portrait: _Portrait
) -> None:
    x, y, width, height = portrait.box
    margin = _MARGIN * max(width, height)
    left, top = max(0, int(x - margin)), max(0, int(y - margin))
    right, bottom = int(x + width + margin) + 1, int(y + height + margin) + 1
    crop = np.ascontiguousarray(image[top:bottom, left:right])
    if crop.size:
        scale = min((_WIDTH - 8) / crop.shape[1], (_HEIGHT - 8) / crop.shape[0])
        size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(crop, size, interpolation=way)
        start = ((_HEIGHT - size[1]) // 2, (_WIDTH - size[0]) // 2)
        tile[start[0] : start[0] + size[1], start[1] : start[1] + size[0]] = small
    colour = person_colour(portrait.identity)
    text = np.ascontiguousarray(tile[_HEIGHT:])
    font, smooth = cv2.FONT_HERSHEY_SIMPLEX, cv2.LINE_AA
    cv2.putText(text, str(portrait.identity), (8, 30), font, 1.0, colour, 2, smooth)
    right_of = 20 + 20 * len(str(portrait.identity))
    cv2.putText(text, portrait.caption, (right_of, 27), font, 0.45, (220,) * 3, 1, smooth)
    tile[_HEIGHT:] = text
