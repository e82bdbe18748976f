"""Boxes of people, crops of images, and pinhole cameras.

Boxes are (x, y, width, height) in image pixels. A crop is one affine warp of the image, with or
without augmentation. In the camera frame, x points right, y down and z forward; focal lengths and
principal points are in pixels.
"""

import math
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor


class Box(NamedTuple):
    """Left, top, width and height in pixels."""

    x: float
    y: float
    width: float
    height: float

    @property
    def center(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


def scaled_boxes(boxes: Float[np.ndarray, "N 4"], scale: float) -> Float[np.ndarray, "N 4"]:
    """Boxes with sides multiplied by `scale` about their centres."""
    size = boxes[:, 2:] * scale
    return np.concatenate([boxes[:, :2] + (boxes[:, 2:] - size) / 2, size], axis=1)


def clip_box(box: Box, image_width: int, image_height: int) -> Box | None:
    """The part of `box` inside the image; None if it has no area.

    As in the published code, the result reaches from the first to the last pixel, so a box of the
    whole image becomes one pixel smaller; the crops of published models depend on this.
    """
    if not all(map(math.isfinite, box)):
        return None
    left, top = max(0.0, box.x), max(0.0, box.y)
    right = min(image_width - 1.0, left + max(0.0, box.width - 1))
    bottom = min(image_height - 1.0, top + max(0.0, box.height - 1))
    if box.width * box.height <= 0 or right <= left or bottom <= top:
        return None
    return Box(left, top, right - left, bottom - top)


def have_area(
    boxes: Float32[np.ndarray, "N 4"], image_size: Float32[np.ndarray, "N 2"]
) -> Bool[np.ndarray, " N"]:
    """Which boxes have an area inside their image, by the rule of `clip_box`.

    `image_size` is (width, height); 0 is unknown and does not limit the box.
    """
    last = np.where(image_size > 0, image_size - 1, np.inf)
    with np.errstate(invalid="ignore"):
        start = np.maximum(0, boxes[:, :2])
        end = np.minimum(last, start + np.maximum(0, boxes[:, 2:] - 1))
        positive = boxes[:, 2] * boxes[:, 3] > 0
    return np.isfinite(boxes).all(axis=1) & positive & (end > start).all(axis=1)


def person_box(
    box: Box, image_width: int, image_height: int, *, aspect: float = 384 / 512, ratio: float = 1.25
) -> Box | None:
    """Box of a person's crop; None if `box` has no area inside the image.

    The box is clipped to the image, one side is enlarged about the centre until
    width / height = `aspect`, and both sides are multiplied by `ratio`.
    """
    clipped = clip_box(box, image_width, image_height)
    if clipped is None:
        return None
    center_x, center_y = clipped.center
    width = max(clipped.width, clipped.height * aspect) * ratio
    height = max(clipped.height, clipped.width / aspect) * ratio
    return Box(center_x - width / 2, center_y - height / 2, width, height)


def shared_areas(
    first: Float[np.ndarray, "A 4"], second: Float[np.ndarray, "B 4"]
) -> Float[np.ndarray, "A B"]:
    """Area of the intersection of each pair of boxes, square pixels."""
    start = np.maximum(first[:, None, :2], second[None, :, :2])
    end = np.minimum(
        first[:, None, :2] + first[:, None, 2:], second[None, :, :2] + second[None, :, 2:]
    )
    return np.clip(end - start, 0, None).prod(axis=-1)


def intersection_over_union(
    first: Float[np.ndarray, "A 4"], second: Float[np.ndarray, "B 4"]
) -> Float[np.ndarray, "A B"]:
    """Intersection over union of each pair of boxes, 0 (disjoint) to 1 (equal)."""
    shared = shared_areas(first, second)
    union = first[:, 2:].prod(axis=-1)[:, None] + second[:, 2:].prod(axis=-1)[None] - shared
    return shared / np.maximum(union, 1e-9)


def share_of_smaller(
    first: Float[np.ndarray, "A 4"], second: Float[np.ndarray, "B 4"]
) -> Float[np.ndarray, "A B"]:
    """Area of the intersection over that of the smaller box, for each pair of boxes, 0 to 1."""
    areas = np.minimum(first[:, 2:].prod(axis=-1)[:, None], second[:, 2:].prod(axis=-1)[None])
    return shared_areas(first, second) / np.maximum(areas, 1e-9)


class CropAugmentation(NamedTuple):
    """Augmentation of a crop: scale of the box, rotation in degrees, horizontal flip."""

    scale: float = 1.0
    rotation_deg: float = 0.0
    flip: bool = False


PLAIN = CropAugmentation()


def image_to_crop(
    box: Box, crop_shape: tuple[int, int], image_width: int, augmentation: CropAugmentation = PLAIN
) -> Float[np.ndarray, "2 3"]:
    """Affine map from image pixels to pixels of a crop of shape (height, width).

    Three points define it: the centre of the box, and the points half a height below and half a
    width to the right of it, map to the centre of the crop and the middles of its lower and right
    edges. A flip first mirrors the image (x -> image_width - 1 - x).
    """
    scale, rotation_deg, flip = augmentation
    center = np.array(box.center)
    if flip:
        center[0] = image_width - center[0] - 1
    sine, cosine = np.sin(np.deg2rad(rotation_deg)), np.cos(np.deg2rad(rotation_deg))
    down = np.array([-sine, cosine]) * (box.height * scale / 2)
    right = np.array([cosine, sine]) * (box.width * scale / 2)
    height, width = crop_shape
    target_center = np.array([width / 2, height / 2])
    source = np.stack([center, center + down, center + right])
    target = np.stack([target_center, [width / 2, height], [width, height / 2]])
    matrix = cv2.getAffineTransform(source.astype(np.float32), target.astype(np.float32))
    if flip:
        mirror = np.array([[-1, 0, image_width - 1], [0, 1, 0], [0, 0, 1]])
        return matrix @ mirror
    return matrix


def crop_person(
    image: UInt8[np.ndarray, "H W 3"],
    box: Box,
    input_shape: tuple[int, int],
    augmentation: CropAugmentation = PLAIN,
) -> Float[np.ndarray, "h w 3"]:
    """The network's input of size (height, width) for one person.

    Values are float32 from 0 to 255, not rounded, as in the published code; pixels outside the
    image are black.

    The published code makes a crop of 512x384 and reduces it to 256x192 by nearest neighbour, which
    keeps pixels 0, 2, 4, ... A direct warp to 256x192 samples the image at the same points and
    gives the same values for a quarter of the work.
    """
    return warp_crop(
        image, image_to_crop(box, input_shape, image.shape[1], augmentation), input_shape
    )


def warp_crop(
    image: UInt8[np.ndarray, "H W 3"],
    to_crop: Float[np.ndarray, "2 3"],
    input_shape: tuple[int, int],
) -> Float[np.ndarray, "h w 3"]:
    """`crop_person` with a given affine map (`image_to_crop`)."""
    height, width = input_shape
    region, (left, top) = _seen_region(image, to_crop, input_shape)
    if not region.size:
        return np.zeros((height, width, 3), np.float32)
    from_region = to_crop.copy()
    from_region[:, 2] = to_crop @ (left, top, 1)
    return cv2.warpAffine(
        region.astype(np.float32), from_region, (width, height), flags=cv2.INTER_LINEAR
    )


def _seen_region(
    image: UInt8[np.ndarray, "H W 3"],
    matrix: Float[np.ndarray, "2 3"],
    input_shape: tuple[int, int],
) -> tuple[UInt8[np.ndarray, "h w 3"], tuple[int, int]]:
    """The part of the image that a crop can show, and its left and top.

    Only this part needs to be converted to floats.
    """
    height, width = input_shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    seen = corners @ cv2.invertAffineTransform(matrix).T
    margin = 2  # bilinear interpolation needs one more pixel
    left, top = np.maximum(np.floor(seen.min(axis=0)).astype(int) - margin, 0)
    right, bottom = np.maximum(np.ceil(seen.max(axis=0)).astype(int) + margin, 0)
    return image[top:bottom, left:right], (int(left), int(top))


DEPTH_EPSILON = 1e-4
"""Added to the depth before dividing, as in the published projection."""

Array = TypeVar("Array", np.ndarray, Tensor)


class Camera(NamedTuple):
    """Focal lengths (fx, fy) and principal point (cx, cy), in pixels."""

    focal: tuple[float, float]
    princpt: tuple[float, float]

    def in_image(self, box: Box, input_shape: tuple[int, int]) -> "Camera":
        """The camera of the image, if this is the camera of a crop of `input_shape` (height, width)
        that was cut from the image along `box`."""
        scale_x, scale_y = box.width / input_shape[1], box.height / input_shape[0]
        return Camera(
            (self.focal[0] * scale_x, self.focal[1] * scale_y),
            (self.princpt[0] * scale_x + box.x, self.princpt[1] * scale_y + box.y),
        )

    def cropped(self, left: float, top: float) -> "Camera":
        """The camera of the part of the image that begins at column `left` and row `top`."""
        return Camera(self.focal, (self.princpt[0] - left, self.princpt[1] - top))

    def scaled(self, factor: float) -> "Camera":
        """The camera of the same image resized by `factor`.

        Pixel coordinates count from the centre of the top left pixel.
        """
        (fx, fy), (cx, cy) = self
        return Camera(
            (fx * factor, fy * factor), ((cx + 0.5) * factor - 0.5, (cy + 0.5) * factor - 0.5)
        )

    def project(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 2"]:
        """Project points (metres, camera frame) to pixels; depths below 1 mm count as 1 mm."""
        focal, princpt = (np.asarray(pair, points.dtype) for pair in self)
        return project(points, focal, princpt, depth_epsilon=0, nearest_m=1e-3)


def project(
    points: Float[Array, "*B 3"],
    focal: Float[Array, "*#B 2"],
    princpt: Float[Array, "*#B 2"],
    *,
    depth_epsilon: float = DEPTH_EPSILON,
    nearest_m: float | None = None,
) -> Float[Array, "*B 2"]:
    """Project points (metres, camera frame) to pixels.

    Args:
        depth_epsilon: added to the depth before dividing; 0 is the exact pinhole camera.
        nearest_m: smaller depths count as this one; None keeps all depths.
    """
    depth = points[..., 2:] + depth_epsilon
    if nearest_m is not None:
        depth = depth.clip(nearest_m)
    return points[..., :2] / depth * focal + princpt
