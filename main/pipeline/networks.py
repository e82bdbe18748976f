"""The small networks that ship with the project: a person detector, and keypoints of parts.

What each takes and gives, where it comes from and its licence: pretrained_models/people/README.md.
They run in onnxruntime on the CPU, each call in the thread of its caller. Batches gain nothing:
hands, feet and faces take 0 to 5 % less each in batches of two or four, so people are taken in
parallel instead.
"""

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from utils.camera import Box, intersection_over_union, share_of_smaller
from utils.errors import UserError, first_line
from utils.files import ROOT, require_regular_file

FOLDER: Final = ROOT / "pretrained_models" / "people"

PLACES: Final = 6
"""People whom the network can find in one look."""
HALF_SURE: Final = 0.15
"""The network's score from which a detection is taken at a threshold of 0.5: of 37 people in 14
images of five public sets, 34 have more, and so have 4 boxes without a person."""
_DOUBTFUL: Final = 0.3
"""Share of the least score from which somebody is looked at again, and counts if surer then."""
_CUT: Final = 0.75
"""Share of the least score from which somebody counts whom a side of the image cuts off."""
_AROUND: Final = 1.5
"""Side of that look, in longer sides of the box."""
_SMALL: Final = 0.3
"""Share of the longer side that a person takes up, below which a closer look finds more."""
_LOOKS: Final = 4
"""How often an image is divided at most, less one."""
_TILE: Final = 0.6
"""Share of a part's sides that the parts of it have; they overlap by a fifth of the side."""
_SMALLEST_TILE: Final = 96
"""Pixels."""
_EDGE: Final = 0.02
"""Of a part's side: who reaches so near to an edge within the image may be cut off there."""
_SAME_PLACE: Final = 0.12
"""Mean distance of the keypoints of one person, found twice, in heights of the smaller box."""
SURE: Final = 0.15
"""Score from which a keypoint of the body says where another part is."""
_ONE_HAND: Final = 0.25
"""Mean distance of two hands that are one, in sides of their squares."""
_TWO_WRISTS: Final = 0.2
"""Distance of wrists that are two, in sides of the hand's square, which is twice the hand."""
_SURE_POINT: Final = 0.2


@cache
def _session(path: Path) -> Any:
    require_regular_file(path)
    onnxruntime = import_module("onnxruntime")  # takes long to import
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class SmallNetwork:
    """One of the networks, by the name of its file; its input is a batch of one square image."""

    def __init__(self, name: str) -> None:
        """Load it, once per process.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = FOLDER / f"{name}.onnx"
        try:
            self._session = _session(path)
        except Exception as error:  # onnxruntime's errors have no common class
            reason = first_line(error)
            message = f"{path} cannot be used ({reason}); restore it from the repository"
            raise UserError(message) from None
        (given,) = self._session.get_inputs()
        self._input = given.name
        self._type = np.int32 if "int32" in given.type else np.float32
        self.side: int = given.shape[1]
        """Pixels of the input."""
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, pixels: UInt8[np.ndarray, "S S 3"]) -> list[Float[np.ndarray, "..."]]:
        """The outputs in the file's order, for an RGB image."""
        batch: np.ndarray = pixels[None].astype(self._type)
        if self._type is np.float32:
            batch = batch / np.float32(255)
        outputs: list[np.ndarray] = self._session.run(self._outputs, {self._input: batch})
        return outputs


class Square(NamedTuple):
    """A square that is cut out of an image, turned clockwise by `angle` radians."""

    center: tuple[float, float]
    side: float
    angle: float = 0.0

    def to_crop(self, pixels: int) -> Float[np.ndarray, "2 3"]:
        """The affine map from pixels of the image to those of a crop with that many a side."""
        scale = pixels / max(self.side, 1e-6)  # boxes of a file may have no size
        cosine, sine = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        turn = np.array([[cosine, sine], [-sine, cosine]])
        return np.column_stack([turn, pixels / 2 - turn @ self.center])

    def cut(self, image: UInt8[np.ndarray, "H W 3"], pixels: int) -> UInt8[np.ndarray, "S S 3"]:
        """The square of an image, black outside."""
        size = (pixels, pixels)
        return cv2.warpAffine(image, self.to_crop(pixels), size, flags=cv2.INTER_LINEAR)

    def in_image(self, points: Float[np.ndarray, "N 2"], pixels: int) -> Float[np.ndarray, "N 2"]:
        """Points of a crop in pixels of the image."""
        matrix = self.to_crop(pixels)
        return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T

    def turned(self, angle: float) -> "Square":
        return self._replace(angle=self.angle + angle)

    @property
    def is_usable(self) -> bool:
        """All its numbers are finite, and it has an area."""
        return bool(np.isfinite([*self.center, self.side, self.angle]).all() and self.side > 1)


_PALM: Final = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]
_KNUCKLES: Final = [5, 9, 13]
"""Of the 21 points of a hand."""
_EYE_CORNERS: Final = (33, 263)
"""Outer ones of the right and the left eye, of the 468 points of the face."""
# fmt: off
FACE_OF_MESH: Final = [
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
]
# fmt: on
"""Which of the 468 points are the 68 of `FACE_KEYPOINTS`."""


def angle_of(up: Float[np.ndarray, "2"]) -> float:
    """How far an upward direction of a part is turned from the image's, clockwise."""
    return float(np.arctan2(up[0], -up[1]))


def turned(vector: Float[np.ndarray, "2"] | Sequence[float], angle: float) -> np.ndarray:
    """A vector of an upright part, turned clockwise in the image."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]]) @ vector


def hand_after(points: Float[np.ndarray, "21 2"]) -> Square:
    """The square of a hand by its points: upright, about the palm, twice as large."""
    angle = angle_of(points[_KNUCKLES].mean(axis=0) - points[0])
    upright = np.array([turned(point, -angle) for point in points[_PALM]])
    low, high = upright.min(axis=0), upright.max(axis=0)
    side = 2 * float((high - low).max())
    center = turned((low + high) / 2 - [0, 0.05 * side], angle)
    return Square((center[0], center[1]), side, angle)


def face_after(points: Float[np.ndarray, "468 2"]) -> Square:
    right, left = points[list(_EYE_CORNERS)]
    across = left - right
    center = (points.max(axis=0) + points.min(axis=0)) / 2
    side = 1.5 * float(np.ptp(points, axis=0).max())
    return Square((center[0], center[1]), side, float(np.arctan2(across[1], across[0])))


_KNOWN: Final = 0.15
"""Score from which a keypoint takes part where bodies are compared."""
_LEAST_KNOWN: Final = 4
"""Keypoints that two bodies have in common, at least, to be compared."""
_SAME_JOINT: Final = 0.07
"""Distance of one keypoint found twice, in heights of the body."""
_SAME_LIMB: Final = 0.03
"""The same, of a single keypoint where the rest is not the same."""
_MOST: Final = 0.6
"""Share of keypoints in the same place from which two bodies are one."""
_LIMB_WIDTH: Final = 0.09
_HEAD: Final = 0.08
"""Width of limbs and radius of the head that are painted over, in heights of the body."""
_SIDES: Final = ([*range(17)], [0, *(k + (1 if k % 2 else -1) for k in range(1, 17))])
"""COCO's keypoints, and those of the other side."""
_TRUNK: Final = [5, 6, 12, 11]
_LIMBS: Final = (
    *((5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12)),
    *((11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
)
Body = Float[np.ndarray, "17 3"]
"""COCO's keypoints of a person: x, y, score."""


class _Found(NamedTuple):
    """People in pixels of the image, with the network's own scores."""

    boxes: Float[np.ndarray, "N 4"]
    scores: Float[np.ndarray, " N"]
    points: Float[np.ndarray, "N 17 3"]
    """COCO's keypoints: x, y, score."""

    def take(self, chosen: np.ndarray) -> "_Found":
        return _Found(self.boxes[chosen], self.scores[chosen], self.points[chosen])


class MoveNet:
    """The built-in person detector, MoveNet MultiPose: boxes and scores of the people of an image.

    The network finds up to six people. Where its places are filled, or people are small, it looks
    again at overlapping parts of the image, and what was found twice is taken once.
    """

    def __init__(self, least_score: float) -> None:
        """Load the network.

        Args:
            least_score: calibrated score from which a detection counts, 0 to 1.

        Raises:
            UserError: the network's file is missing or damaged.
        """
        self.network = SmallNetwork("movenet_multipose")
        self.least_score = least_score

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"]
    ) -> tuple[Float[np.ndarray, "N 4"], Float[np.ndarray, " N"]]:
        """Boxes (x, y, width, height) in pixels, and scores 0..1, the surest first."""
        height, width = image.shape[:2]
        found = without_doubles(self._search(image, Box(0, 0, width, height), _LOOKS))
        sure = calibrated(found.scores) >= self.least_score
        looks = [self._look(image, around(box, width, height)) for box in found.boxes[~sure]]
        found = joined([found, *looks])
        least = self.least_score * np.where(cut_by_a_side(found.boxes, width, height), _CUT, 1)
        found = without_doubles(found.take(calibrated(found.scores) >= least))
        return found.boxes, calibrated(found.scores)

    def _search(self, image: UInt8[np.ndarray, "H W 3"], part: Box, looks: int) -> _Found:
        """People in a part of the image, and in parts of it where that may find more."""
        found = self._look(image, part)
        tile = _TILE * max(part.width, part.height)
        sure = found.boxes[calibrated(found.scores) >= self.least_score]
        small = sure[:, 2:].max(axis=1, initial=0) < _SMALL * max(part.width, part.height)
        closer = len(sure) >= PLACES - 1 or small.any() or not len(small)
        first_look = looks == _LOOKS
        if looks == 1 or tile < _SMALLEST_TILE or not closer or not (len(small) or first_look):
            return found
        all_found = [found]
        for tile_box in tiles(part):
            inside = self._search(image, tile_box, looks - 1)
            all_found.append(inside.take(~_cut_off(inside.boxes, tile_box, image.shape)))
        return joined(all_found)

    def _look(self, image: UInt8[np.ndarray, "H W 3"], part: Box) -> _Found:
        """Run the network once, on a part that is shrunk into the upper left of its input."""
        left, top, width, height = map(int, part)
        side = self.network.side
        scale = side / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.zeros((side, side, 3), np.uint8)
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        pixels[: size[1], : size[0]] = cv2.resize(
            image[top : top + height, left : left + width], size, interpolation=way
        )
        rows = self.network(pixels)[0][0].astype(np.float64)
        scores = rows[:, 55]
        corners = rows[:, [52, 51, 54, 53]] * side / scale + [left, top, left, top]
        last = [left + width, top + height]
        start, end = np.maximum(corners[:, :2], [left, top]), np.minimum(corners[:, 2:], last)
        points = rows[:, :51].reshape(-1, 17, 3)[..., [1, 0, 2]]
        points = points * [side / scale, side / scale, 1] + [left, top, 0]
        usable = np.isfinite(rows).all(axis=1) & (end - start > 1).all(axis=1)
        usable &= calibrated(scores) >= _DOUBTFUL * self.least_score
        return _Found(np.concatenate([start, end - start], axis=1), scores, points).take(usable)


def calibrated(scores: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """The network's scores so that 0.5 is where people begin, as of other detectors."""
    return scores / (scores + HALF_SURE)


def cut_by_a_side(
    boxes: Float[np.ndarray, "N 4"], width: int, height: int
) -> Bool[np.ndarray, " N"]:
    """Tall boxes at the left or right edge of an image: of standing people who are partly in it."""
    at_edge = (boxes[:, 0] <= 0) | (boxes[:, 0] + boxes[:, 2] >= width)
    tall = (boxes[:, 3] > 2 * boxes[:, 2]) & (boxes[:, 3] > _SMALL * height)
    return at_edge & tall


def joined(parts: list[_Found]) -> _Found:
    return _Found(*map(np.concatenate, zip(*parts, strict=True)))


def around(box: Float[np.ndarray, "4"], width: int, height: int) -> Box:
    """A square about a box, or what of it lies within an image of this size, in whole pixels."""
    side = _AROUND * max(box[2:])
    center = box[:2] + box[2:] / 2
    left, top = np.floor(np.maximum(0, center - side / 2))
    right, bottom = np.ceil(np.minimum([width, height], center + side / 2))
    return Box(left, top, right - left, bottom - top)


def tiles(part: Box) -> list[Box]:
    """Overlapping parts of a part: two by two, or two where one side is much the longer."""
    longer = max(part.width, part.height)
    side = round(_TILE * longer)
    return [
        Box(x, y, min(side, part.width), min(side, part.height))
        for y in _starts(part.y, part.height, side)
        for x in _starts(part.x, part.width, side)
    ]


def _starts(start: float, length: float, side: int) -> list[float]:
    return [start] if length <= side else [start, start + length - side]


def _cut_off(
    boxes: Float[np.ndarray, "N 4"], part: Box, image_shape: tuple[int, ...]
) -> Bool[np.ndarray, " N"]:
    """Who reaches to an edge of the part that is no edge of the image."""
    height, width = image_shape[:2]
    margin = _EDGE * max(part.width, part.height)
    right, bottom = part.x + part.width, part.y + part.height
    return (
        ((boxes[:, 0] < part.x + margin) & (part.x > 0))
        | ((boxes[:, 1] < part.y + margin) & (part.y > 0))
        | ((boxes[:, 0] + boxes[:, 2] > right - margin) & (right < width))
        | ((boxes[:, 1] + boxes[:, 3] > bottom - margin) & (bottom < height))
    )


def without_doubles(found: _Found) -> _Found:
    """Everyone once, the surest first: non-maximum suppression by overlap and by keypoints.

    People who stand before each other have boxes that overlap; part of a person in a box within
    the box of the whole person has keypoints in the same places.
    """
    found = found.take(np.argsort(-found.scores, kind="stable"))
    overlap = intersection_over_union(found.boxes, found.boxes)
    within = share_of_smaller(found.boxes, found.boxes)
    heights = found.boxes[:, 3]
    kept: list[int] = []
    for one in range(len(found.boxes)):
        double = False
        for other in kept:
            height = min(heights[one], heights[other])
            sure = np.minimum(found.points[one, :, 2], found.points[other, :, 2]) > _SURE_POINT
            apart = np.linalg.norm(found.points[one] - found.points[other], axis=1)[sure]
            same_place = sure.sum() >= 3 and np.median(apart) < _SAME_PLACE * height
            double |= bool(overlap[one, other] > 0.7 or (within[one, other] > 0.5 and same_place))
        if not double:
            kept.append(one)
    return found.take(np.array(kept, np.int64))


def is_same_body(one: Body, other: Body) -> bool:
    """Most of what is known of two bodies is in the same places, their sides exchanged or not."""
    known = np.minimum(one[:, 2], other[:, 2]) > _KNOWN
    if known.sum() < _LEAST_KNOWN:
        return False
    size = np.ptp(other[other[:, 2] > _KNOWN, :2], axis=0).max()
    apart = [np.linalg.norm(one[:, :2] - other[order, :2], axis=1) for order in _SIDES]
    return bool((np.min(apart, axis=0)[known] < _SAME_JOINT * size).mean() > _MOST)


def is_one_hand(
    points: Float[np.ndarray, "2 21 2"], side: float, wrists: Float[np.ndarray, "2 3"]
) -> bool:
    """Whether the hands that were found from both wrists of a body are one and the same.

    Hands pressed together look like one, but the wrists are beside each other. `side` is that of
    the hand's square; wrists are x, y, score.
    """
    apart = np.linalg.norm(points[0] - points[1], axis=1).mean()
    between = np.linalg.norm(wrists[0, :2] - wrists[1, :2])
    are_two = wrists[:, 2].min() >= SURE and between > _TWO_WRISTS * side
    return bool(apart <= _ONE_HAND * side and not are_two)


def without_shared_limbs(body: Body, others: Sequence[Body]) -> Body:
    """A body of which keypoints are unknown that lie on the same joints of bodies in front."""
    shared = np.zeros(len(body), bool)
    for other in others:
        known = other[:, 2] > _KNOWN
        if known.sum() >= _LEAST_KNOWN:
            near = _SAME_LIMB * np.ptp(other[known, :2], axis=0).max()
            for order in _SIDES:
                apart = np.linalg.norm(body[:, :2] - other[order, :2], axis=1)
                shared |= (apart < near) & known[order]
    return np.where(shared[:, None], 0, body)


def misfit(body: Body, square: Square, last: Body | None) -> float:
    """How far a body is from where its person was, or else from its box, in sides of the square."""
    known = body[:, 2] > _KNOWN
    if last is not None and (known & (last[:, 2] > _KNOWN)).sum() >= _LEAST_KNOWN:
        both = known & (last[:, 2] > _KNOWN)
        return float(np.median(np.linalg.norm((body - last)[both, :2], axis=1)) / square.side)
    if not known.any():
        return np.inf
    low, high = body[known, :2].min(axis=0), body[known, :2].max(axis=0)
    shift = np.linalg.norm((low + high) / 2 - square.center) / square.side
    return float(shift + max(0.0, 0.6 - (high - low).max() / square.side))


def paint_over(
    pixels: UInt8[np.ndarray, "S S 3"],
    points: Float[np.ndarray, "17 2"],
    known: Bool[np.ndarray, "17"],
) -> None:
    """Make a body grey: trunk, limbs and head, as far as they are known."""
    size = float(np.ptp(points[known], axis=0).max())
    width = max(1, round(_LIMB_WIDTH * size))
    grey = (128, 128, 128)
    corners = points.round().astype(int)
    if known[_TRUNK].all():
        cv2.fillConvexPoly(pixels, corners[_TRUNK], grey)
    for start, end in _LIMBS:
        if known[start] and known[end]:
            cv2.line(pixels, corners[start].tolist(), corners[end].tolist(), grey, width)
    if known[:5].any():
        head = points[:5][known[:5]].mean(axis=0).round().astype(int)
        cv2.circle(pixels, head.tolist(), round(_HEAD * size), grey, -1)
