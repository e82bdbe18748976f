"""Triangles drawn with one depth buffer: what their corners know, interpolated at pixels."""

import math
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from datasets.synthetic.stage import project
from utils.camera import Camera

NEAR_M: Final = 0.15
_CHANNELS: Final = 3
"""Numbers that OpenCV interpolates in one go."""


class Seen(NamedTuple):
    """What is seen in a picture of (H, W) pixels. The P pixels that show a triangle are listed.

    Pixel coordinates count from the centre of the top left pixel.
    """

    depth_m: Float32[np.ndarray, "H W"]
    """Infinite where nothing is."""
    pixels: Int[np.ndarray, " P"]
    """Position in the flattened picture."""
    values: Float32[np.ndarray, "P A"]


def draw(
    points_cam_m: Float32[np.ndarray, "V 3"],
    faces: Int32[np.ndarray, "F 3"],
    two_sided: Bool[np.ndarray, " F"],
    attributes: Float32[np.ndarray, "V A"],
    camera: Camera,
    shape: tuple[int, int],
) -> Seen:
    """See triangles (corners counter-clockwise from outside) through a pinhole camera.

    Attributes are interpolated in space, not in the picture; A is a multiple of 3. Triangles with
    a corner nearer than NEAR_M, off the picture, or turned away (unless they are `two_sided`) are
    left out.
    """
    in_front = points_cam_m[:, 2] >= NEAR_M
    x, y = project(points_cam_m, camera).T
    kept = faces[_facing(x, y, in_front, faces, two_sided, shape)]
    depth = np.full(shape, np.inf, np.float32)
    if not len(kept):
        nothing = np.zeros((0, attributes.shape[1]), np.float32)
        return Seen(depth, np.zeros(0, np.int64), nothing)
    # Only the part of the picture is touched that the triangles cover.
    left, right = _range(x[kept], shape[1])
    top, bottom = _range(y[kept], shape[0])
    part = (slice(top, bottom), slice(left, right))
    part_camera = Camera(camera.focal, (camera.princpt[0] - left, camera.princpt[1] - top))
    far_m = 1.1 * float(points_cam_m[:, 2].max()) + 1
    part_depth = np.empty((bottom - top, right - left), np.float32)
    drawn = []
    for first in range(0, attributes.shape[1], _CHANNELS):
        part_depth.fill(far_m)
        buffer = np.zeros((*part_depth.shape, _CHANNELS), np.float32)
        colours = np.ascontiguousarray(attributes[:, first : first + _CHANNELS])
        _rasterize(points_cam_m, kept, colours, buffer, part_depth, part_camera, far_m)
        drawn.append(buffer.reshape(-1, _CHANNELS))
    # Drawing rounds the depth of empty pixels as well: they are near `far_m`, not at it.
    empty = part_depth > far_m - 0.5
    here = np.flatnonzero(~empty)
    part_depth[empty] = np.inf
    depth[part] = part_depth
    rows, columns = np.divmod(here, right - left)
    pixels = (rows + top) * shape[1] + columns + left
    return Seen(depth, pixels, np.concatenate([buffer[here] for buffer in drawn], axis=1))


def _range(places: Float32[np.ndarray, "F 3"], size: int) -> tuple[int, int]:
    """First pixel and the one past the last that triangles can cover, within a picture's side."""
    first = int(min(max(np.floor(places.min()), 0), size - 1))
    last = int(min(max(np.ceil(places.max()), first), size - 1))
    return first, last + 1


def _facing(
    x: Float32[np.ndarray, " V"],
    y: Float32[np.ndarray, " V"],
    in_front: Bool[np.ndarray, " V"],
    faces: Int32[np.ndarray, "F 3"],
    two_sided: Bool[np.ndarray, " F"],
    shape: tuple[int, int],
) -> Bool[np.ndarray, " F"]:
    """Which triangles can be seen; x and y are pixels."""
    code = (x < -1) + 2 * (x > shape[1]) + 4 * (y < -1) + 8 * (y > shape[0])
    a, b, c = faces.T
    area = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a])
    kept = (area < 0) | two_sided
    if code.any():
        kept &= (code[a] & code[b] & code[c]) == 0
    if not in_front.all():
        kept &= in_front[a] & in_front[b] & in_front[c]
    return kept


def _rasterize(
    points: Float32[np.ndarray, "V 3"],
    faces: Int32[np.ndarray, "F 3"],
    colours: Float32[np.ndarray, "V 3"],
    buffer: Float32[np.ndarray, "H W 3"],
    depth: Float32[np.ndarray, "H W"],
    camera: Camera,
    far_m: float,
) -> None:
    """OpenCV looks along -z with y up and has one angle of view; the matrix brings the points there
    and holds what the angle cannot: fx != fy and a principal point off the middle. Its pixels are
    sampled half a pixel from their corner."""
    height, width = depth.shape
    (fx, fy), (cx, cy) = camera.focal, camera.princpt
    to_opencv: Float[np.ndarray, "4 4"] = np.array(
        [
            [fx / fy, 0, (cx + 0.5 - width / 2) / fy, 0],
            [0, -1, -(cy + 0.5 - height / 2) / fy, 0],
            [0, 0, -1, 0],
            [0, 0, 0, 1],
        ],
        np.float32,
    )
    settings = cv2.TriangleRasterizeSettings()
    settings.setShadingType(cv2.RASTERIZE_SHADING_SHADED)
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    cv2.triangleRasterize(
        *(points[None], faces[None], colours[None], buffer, depth, to_opencv),
        *(2 * math.atan(height / 2 / fy), NEAR_M / 2, far_m, settings),
    )
