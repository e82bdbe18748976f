"""From a box in an image to the network's input: one affine warp, with or without augmentation."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from utils.box import Box


class CropAugmentation(NamedTuple):
    """How a crop differs from the plain one: scale of the box, rotation in degrees, mirroring."""

    scale: float = 1.0
    rotation_deg: float = 0.0
    flip: bool = False


PLAIN = CropAugmentation()


def image_to_crop(
    box: Box,
    crop_shape: tuple[int, int],
    image_width: int,
    augmentation: CropAugmentation = PLAIN,
) -> Float[np.ndarray, "2 3"]:
    """Affine map from image pixels to pixels of a crop of shape (height, width).

    Three points define it: the centre of the box, the point half its height below and the point
    half its width to the right go to the crop's centre, bottom middle and right middle.
    A flip mirrors the image (x -> image_width - 1 - x) before anything else.
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
    """Cut the network's input (height, width) for one person out of an image.

    Values are 0..255 in float32, not rounded, as the published model saw them; black outside.

    The published model makes a crop of 512x384 and shrinks it to 256x192 by nearest neighbour,
    which keeps pixels 0, 2, 4, ... Those are the points that the map straight to 256x192 samples,
    so one warp gives the same values for a quarter of the work.
    """
    return warp_crop(
        image, image_to_crop(box, input_shape, image.shape[1], augmentation), input_shape
    )


def warp_crop(
    image: UInt8[np.ndarray, "H W 3"],
    to_crop: Float[np.ndarray, "2 3"],
    input_shape: tuple[int, int],
) -> Float[np.ndarray, "h w 3"]:
    """`crop_person` by an affine map that is known already (`image_to_crop`)."""
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
    """The part of the image that a crop can show, and its left and top: less to make floats of."""
    height, width = input_shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    seen = corners @ cv2.invertAffineTransform(matrix).T
    margin = 2  # bilinear sampling looks one pixel further
    left, top = np.maximum(np.floor(seen.min(axis=0)).astype(int) - margin, 0)
    right, bottom = np.maximum(np.ceil(seen.max(axis=0)).astype(int) + margin, 0)
    return image[top:bottom, left:right], (int(left), int(top))
