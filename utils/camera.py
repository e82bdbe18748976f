"""Pinhole cameras, x right, y down, z forward; focal lengths and principal points in pixels."""

from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from utils.box import Box

DEPTH_EPSILON = 1e-4
"""Added to the depth before dividing, as in the published projection."""

Array = TypeVar("Array", np.ndarray, Tensor)


class Camera(NamedTuple):
    """Focal lengths (fx, fy) and principal point (cx, cy), in pixels."""

    focal: tuple[float, float]
    princpt: tuple[float, float]

    def in_image(self, box: Box, input_shape: tuple[int, int]) -> "Camera":
        """This camera of a crop of `input_shape` (height, width), as a camera of the image that
        the crop was cut from along `box`."""
        scale_x, scale_y = box.width / input_shape[1], box.height / input_shape[0]
        return Camera(
            (self.focal[0] * scale_x, self.focal[1] * scale_y),
            (self.princpt[0] * scale_x + box.x, self.princpt[1] * scale_y + box.y),
        )

    def cropped(self, left: float, top: float) -> "Camera":
        """The camera of the image from column `left` and row `top` on."""
        return Camera(self.focal, (self.princpt[0] - left, self.princpt[1] - top))

    def scaled(self, factor: float) -> "Camera":
        """The camera of the same image with `factor` times as many pixels a side.

        Pixel coordinates count from the centre of the top left pixel.
        """
        (fx, fy), (cx, cy) = self
        return Camera(
            (fx * factor, fy * factor),
            ((cx + 0.5) * factor - 0.5, (cy + 0.5) * factor - 0.5),
        )

    def project(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 2"]:
        """Points (metres, camera frame) to pixels; those behind the camera as if just before it."""
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
    """Points (metres, camera frame) to pixels.

    Args:
        depth_epsilon: added to the depth before dividing; 0 is the exact pinhole camera.
        nearest_m: points nearer than this, or behind the camera, are projected as if they were
            this far away. None leaves all depths as they are.
    """
    depth = points[..., 2:] + depth_epsilon
    if nearest_m is not None:
        depth = depth.clip(nearest_m)
    return points[..., :2] / depth * focal + princpt
