"""The built-in networks: a person detector, and keypoints of the body, hands and face.

Their inputs, outputs, origin and licences are in pretrained_models/people/README.md. They run in
onnxruntime on the CPU, each call in its caller's thread. Batches of two or four save only 0 to 5 %
of the time, so people are processed in parallel instead.
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

MAX_PEOPLE: Final = 6
"""Number of people that the network can find in one run."""
HALF_SURE: Final = 0.15
"""The network's score that is calibrated to 0.5: of 37 people in 14 images of five public datasets,
34 have a higher score, and so have 4 boxes without a person."""
_CHECK_RATIO: Final = 0.3
"""Fraction of the least score from which a detection is checked by a second run on its box."""
_CUT_OFF_RATIO: Final = 0.75
"""Fraction of the least score that is required of people who are cut off by a side of the image."""
_CHECK_SIZE: Final = 1.5
"""Side of the square for the second run, in units of the longer side of the box."""
_SMALL: Final = 0.3
"""Size of a person relative to the longer side, below which tiles of the image are searched."""
_MAX_SCALES: Final = 4
"""Largest number of scales: the whole image, and tiles of tiles."""
_TILE: Final = 0.6
"""Side of a tile relative to that of the part it divides; tiles overlap by a fifth of that side."""
_SMALLEST_TILE: Final = 96
"""Least side of a tile in pixels."""
_EDGE: Final = 0.02
"""Distance from an inner edge of a tile at which people may be cut off, in sides of the tile."""
_DOUBLE_DISTANCE: Final = 0.12
"""Largest median distance of the keypoints of one person who was found twice, in heights of the
smaller box."""
SURE: Final = 0.15
"""Least score of a keypoint of the body from which another part is located."""
_SAME_HAND_DISTANCE: Final = 0.25
"""Largest mean distance of the points of one hand that was found twice, in sides of its square."""
_MIN_WRIST_DISTANCE: Final = 0.2
"""Least distance of the wrists of two separate hands, in sides of the hand's square."""
_SURE_POINT: Final = 0.2
"""Least score of keypoints by which double detections are recognised."""


@cache
def _session(path: Path) -> Any:
    require_regular_file(path)
    onnxruntime = import_module("onnxruntime")  # takes long to import
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class SmallNetwork:
    """One of the networks; its input is a single square image."""

    def __init__(self, name: str) -> None:
        """Load the network from the file `name`.onnx, once per process.

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
        """Side of the input in pixels."""
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
        """The affine map from pixels of the image to those of a crop with sides of `pixels`."""
        scale = pixels / max(self.side, 1e-6)  # boxes of a file may have no size
        cosine, sine = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        turn = np.array([[cosine, sine], [-sine, cosine]])
        return np.column_stack([turn, pixels / 2 - turn @ self.center])

    def cut(self, image: UInt8[np.ndarray, "H W 3"], pixels: int) -> UInt8[np.ndarray, "S S 3"]:
        """Cut the square out of an image; it is black outside the image."""
        size = (pixels, pixels)
        return cv2.warpAffine(image, self.to_crop(pixels), size, flags=cv2.INTER_LINEAR)

    def in_image(self, points: Float[np.ndarray, "N 2"], pixels: int) -> Float[np.ndarray, "N 2"]:
        """Convert points of a crop to pixels of the image."""
        matrix = self.to_crop(pixels)
        return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T

    def rotated(self, angle: float) -> "Square":
        return self._replace(angle=self.angle + angle)

    @property
    def is_usable(self) -> bool:
        """Whether all its numbers are finite and its side is longer than a pixel."""
        return bool(np.isfinite([*self.center, self.side, self.angle]).all() and self.side > 1)


_PALM: Final = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]
_KNUCKLES: Final = [5, 9, 13]
"""Of the 21 points of a hand."""
_EYE_CORNERS: Final = (33, 263)
"""Outer corners of the right and left eye among the 468 points of the face."""
# fmt: off
FACE_OF_MESH: Final = [
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
]
# fmt: on
"""Numbers of the points of `FACE_KEYPOINTS` among the 468 points of the face."""


def angle_of(up: Float[np.ndarray, "2"]) -> float:
    """Clockwise angle in radians from the upward direction of the image to `up`."""
    return float(np.arctan2(up[0], -up[1]))


def rotated(vector: Float[np.ndarray, "2"] | Sequence[float], angle: float) -> np.ndarray:
    """A vector rotated clockwise in the image by `angle` radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine], [sine, cosine]]) @ vector


def hand_after(points: Float[np.ndarray, "21 2"]) -> Square:
    """The square of a hand in the next frame: along the hand, with twice the size of the palm."""
    angle = angle_of(points[_KNUCKLES].mean(axis=0) - points[0])
    upright = np.array([rotated(point, -angle) for point in points[_PALM]])
    low, high = upright.min(axis=0), upright.max(axis=0)
    side = 2 * float((high - low).max())
    center = rotated((low + high) / 2 - [0, 0.05 * side], angle)
    return Square((center[0], center[1]), side, angle)


def face_after(points: Float[np.ndarray, "468 2"]) -> Square:
    """The square of a face in the next frame: along the face, 1.5 times as large."""
    right, left = points[list(_EYE_CORNERS)]
    across = left - right
    center = (points.max(axis=0) + points.min(axis=0)) / 2
    side = 1.5 * float(np.ptp(points, axis=0).max())
    return Square((center[0], center[1]), side, float(np.arctan2(across[1], across[0])))


_MIN_SCORE: Final = 0.15
"""Least score of keypoints in comparisons of bodies."""
_MIN_KNOWN: Final = 4
"""Least number of keypoints that are known in both bodies of a comparison."""
_SAME_JOINT_DISTANCE: Final = 0.07
"""Largest distance of keypoints that are the same joint of one body, in sizes of the body."""
_SAME_POINT_DISTANCE: Final = 0.03
"""The same for a single keypoint of bodies that are different otherwise."""
_SAME_BODY_SHARE: Final = 0.6
"""Share of keypoints at the same joints above which two bodies are the same."""
_LIMB_WIDTH: Final = 0.09
_HEAD: Final = 0.08
"""Width of limbs and radius of the head where a body is painted over, in sizes of the body."""
_SIDES: Final = ([*range(17)], [0, *(k + (1 if k % 2 else -1) for k in range(1, 17))])
"""COCO's keypoints, and their mirrored counterparts."""
_TRUNK: Final = [5, 6, 12, 11]
_LIMBS: Final = (
    *((5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12)),
    *((11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
)
Body = Float[np.ndarray, "17 3"]
"""COCO's keypoints of a person: x, y, score."""


class _Detections(NamedTuple):
    """Detections in pixels of the image, with the network's uncalibrated scores."""

    boxes: Float[np.ndarray, "N 4"]
    scores: Float[np.ndarray, " N"]
    points: Float[np.ndarray, "N 17 3"]
    """COCO's keypoints: x, y, score."""

    def take(self, chosen: np.ndarray) -> "_Detections":
        return _Detections(self.boxes[chosen], self.scores[chosen], self.points[chosen])


class MoveNet:
    """The built-in person detector, MoveNet MultiPose: boxes and scores of the people of an image.

    The network finds up to six people. Where there may be more, or people are small, overlapping
    tiles of the image are searched as well, and double detections are removed.
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
        """Boxes (x, y, width, height) in pixels, and scores from 0 to 1 in descending order."""
        height, width = image.shape[:2]
        found = non_maximum_suppression(self._search(image, Box(0, 0, width, height), _MAX_SCALES))
        sure = calibrated(found.scores) >= self.least_score
        checks = [self._run(image, square_around(box, width, height)) for box in found.boxes[~sure]]
        found = concatenated([found, *checks])
        least = self.least_score * np.where(
            cut_by_a_side(found.boxes, width, height), _CUT_OFF_RATIO, 1
        )
        found = non_maximum_suppression(found.take(calibrated(found.scores) >= least))
        return found.boxes, calibrated(found.scores)

    def _search(self, image: UInt8[np.ndarray, "H W 3"], part: Box, scales: int) -> _Detections:
        """Find people in a part of the image, and in its tiles where these may show more."""
        found = self._run(image, part)
        tile = _TILE * max(part.width, part.height)
        sure = found.boxes[calibrated(found.scores) >= self.least_score]
        small = sure[:, 2:].max(axis=1, initial=0) < _SMALL * max(part.width, part.height)
        closer = len(sure) >= MAX_PEOPLE - 1 or small.any() or not len(small)
        is_whole = scales == _MAX_SCALES
        if scales == 1 or tile < _SMALLEST_TILE or not closer or not (len(small) or is_whole):
            return found
        all_found = [found]
        for tile_box in tiles(part):
            inside = self._search(image, tile_box, scales - 1)
            all_found.append(inside.take(~_cut_off(inside.boxes, tile_box, image.shape)))
        return concatenated(all_found)

    def _run(self, image: UInt8[np.ndarray, "H W 3"], part: Box) -> _Detections:
        """Run the network once, on a part scaled into the upper left corner of its input."""
        left, top, width, height = map(int, part)
        side = self.network.side
        scale = side / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = np.zeros((side, side, 3), np.uint8)
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        pixels[: size[1], : size[0]] = cv2.resize(
            image[top : top + height, left : left + width], size, interpolation=interpolation
        )
        rows = self.network(pixels)[0][0].astype(np.float64)
        scores = rows[:, 55]
        corners = rows[:, [52, 51, 54, 53]] * side / scale + [left, top, left, top]
        last = [left + width, top + height]
        start, end = np.maximum(corners[:, :2], [left, top]), np.minimum(corners[:, 2:], last)
        points = rows[:, :51].reshape(-1, 17, 3)[..., [1, 0, 2]]
        points = points * [side / scale, side / scale, 1] + [left, top, 0]
        usable = np.isfinite(rows).all(axis=1) & (end - start > 1).all(axis=1)
        usable &= calibrated(scores) >= _CHECK_RATIO * self.least_score
        return _Detections(np.concatenate([start, end - start], axis=1), scores, points).take(
            usable
        )


def calibrated(scores: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Scores from 0 to 1 with the usual threshold of 0.5, from the network's scores."""
    return scores / (scores + HALF_SURE)


def cut_by_a_side(
    boxes: Float[np.ndarray, "N 4"], width: int, height: int
) -> Bool[np.ndarray, " N"]:
    """Whether boxes are tall and at the left or right edge, as of standing people cut off there."""
    at_edge = (boxes[:, 0] <= 0) | (boxes[:, 0] + boxes[:, 2] >= width)
    tall = (boxes[:, 3] > 2 * boxes[:, 2]) & (boxes[:, 3] > _SMALL * height)
    return at_edge & tall


def concatenated(parts: list[_Detections]) -> _Detections:
    return _Detections(*map(np.concatenate, zip(*parts, strict=True)))


def square_around(box: Float[np.ndarray, "4"], width: int, height: int) -> Box:
    """A square around a box, cut at the edges of the image, in whole pixels."""
    side = _CHECK_SIZE * max(box[2:])
    center = box[:2] + box[2:] / 2
    left, top = np.floor(np.maximum(0, center - side / 2))
    right, bottom = np.ceil(np.minimum([width, height], center + side / 2))
    return Box(left, top, right - left, bottom - top)


def tiles(part: Box) -> list[Box]:
    """Overlapping tiles of a part: two by two, or only two if the part is elongated."""
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
    """Whether boxes reach an edge of the part that is not an edge of the image."""
    height, width = image_shape[:2]
    margin = _EDGE * max(part.width, part.height)
    right, bottom = part.x + part.width, part.y + part.height
    return (
        ((boxes[:, 0] < part.x + margin) & (part.x > 0))
        | ((boxes[:, 1] < part.y + margin) & (part.y > 0))
        | ((boxes[:, 0] + boxes[:, 2] > right - margin) & (right < width))
        | ((boxes[:, 1] + boxes[:, 3] > bottom - margin) & (bottom < height))
    )


def non_maximum_suppression(found: _Detections) -> _Detections:
    """Non-maximum suppression by overlap and keypoints; scores of the result are descending.

    The boxes of people in front of each other overlap as well; but a box around a part of a person
    has keypoints at the same joints as the box of the whole person.
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
            same_place = sure.sum() >= 3 and np.median(apart) < _DOUBLE_DISTANCE * height
            double |= bool(overlap[one, other] > 0.7 or (within[one, other] > 0.5 and same_place))
        if not double:
            kept.append(one)
    return found.take(np.array(kept, np.int64))


def is_same_body(one: Body, other: Body) -> bool:
    """Whether most keypoints of two bodies coincide, with or without exchanging left and right."""
    known = np.minimum(one[:, 2], other[:, 2]) > _MIN_SCORE
    if known.sum() < _MIN_KNOWN:
        return False
    size = np.ptp(other[other[:, 2] > _MIN_SCORE, :2], axis=0).max()
    apart = [np.linalg.norm(one[:, :2] - other[order, :2], axis=1) for order in _SIDES]
    return bool(
        (np.min(apart, axis=0)[known] < _SAME_JOINT_DISTANCE * size).mean() > _SAME_BODY_SHARE
    )


def is_one_hand(
    points: Float[np.ndarray, "2 21 2"], side: float, wrists: Float[np.ndarray, "2 3"]
) -> bool:
    """Whether the hands that were found from both wrists of a body are the same hand.

    Palms that are pressed together look like one hand, but have two wrists side by side.

    Args:
        side: of the hand's square, in pixels.
        wrists: x, y, score.
    """
    apart = np.linalg.norm(points[0] - points[1], axis=1).mean()
    between = np.linalg.norm(wrists[0, :2] - wrists[1, :2])
    are_two = wrists[:, 2].min() >= SURE and between > _MIN_WRIST_DISTANCE * side
    return bool(apart <= _SAME_HAND_DISTANCE * side and not are_two)


def without_shared_limbs(body: Body, others: Sequence[Body]) -> Body:
    """The body without the keypoints that coincide with joints of `others`, who are in front."""
    shared = np.zeros(len(body), bool)
    for other in others:
        known = other[:, 2] > _MIN_SCORE
        if known.sum() >= _MIN_KNOWN:
            near = _SAME_POINT_DISTANCE * np.ptp(other[known, :2], axis=0).max()
            for order in _SIDES:
                apart = np.linalg.norm(body[:, :2] - other[order, :2], axis=1)
                shared |= (apart < near) & known[order]
    return np.where(shared[:, None], 0, body)


def misfit(body: Body, square: Square, last: Body | None) -> float:
    """Distance of a body from the last one, or else from its box, in sides of the square."""
    known = body[:, 2] > _MIN_SCORE
    if last is not None and (known & (last[:, 2] > _MIN_SCORE)).sum() >= _MIN_KNOWN:
        both = known & (last[:, 2] > _MIN_SCORE)
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
    """Paint the known trunk, limbs and head of a body grey, in place."""
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
