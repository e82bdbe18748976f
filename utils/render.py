"""Person meshes drawn over an image on the CPU: no display, no graphics driver.

The scan conversion is OpenCV's `triangleRasterize`; what is here puts its camera in the right
place, shades, and blends with soft edges. Only the part of the image that a mesh covers is touched.

Pixel coordinates count from the centre of the top left pixel, as those of `crop_person` do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from scipy import sparse

Colour = tuple[int, int, int]

_NEAR_M: Final = 0.05
"""Faces with a corner nearer than this are left out: beyond it a projection has no meaning."""
_SUPERSAMPLED_PIXELS: Final = 120_000
"""Regions up to this size are drawn at twice the resolution; larger ones get blurred edges."""

# Light from the camera shows the form, light from the upper left the relief, as in a studio.
_KEY_LIGHT: Final = np.array([-0.45, -0.65, -0.6], np.float32) / math.sqrt(0.985)
_AMBIENT, _HEADLIGHT, _KEY, _GLOSS = 0.25, 0.45, 0.4, 0.12
_SHININESS: Final = 24


@dataclass(frozen=True, eq=False)
class PlacedMesh:
    """A person's mesh with the camera that it was estimated in.

    Attributes:
        vertices_cam_m: metres in the camera frame: x right, y down, z forward.
        focal_px: focal lengths (fx, fy) in pixels of the whole image.
        princpt_px: principal point (cx, cy) in pixels of the whole image.
        colour: RGB, 0-255.
        depth_m: how far away the person is, for the order of drawing. Cameras of different
            crops measure depth differently; None compares apparent size (median z / fy) instead.
            Give it for all meshes of an image or for none.
    """

    vertices_cam_m: Float[np.ndarray, "V 3"]
    focal_px: tuple[float, float]
    princpt_px: tuple[float, float]
    colour: Colour
    depth_m: float | None = None

    @property
    def drawing_depth(self) -> float:
        if self.depth_m is not None:
            return self.depth_m
        return float(np.median(self.vertices_cam_m[:, 2])) / self.focal_px[1]


class _Region(NamedTuple):
    """Part of an image: first column and row, columns and rows."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


class MeshRenderer:
    """Draws meshes that share one set of faces, such as all people of a video.

    Methods keep no state, so several threads may use one renderer; drawing releases the GIL.
    """

    def __init__(self, faces: Int[np.ndarray, "F 3"], vertex_count: int) -> None:
        """Prepare for meshes of `vertex_count` vertices.

        Args:
            faces: vertex numbers, counter-clockwise seen from outside, as in SMPL-X. Faces seen
                from behind are not drawn.
            vertex_count: vertices of each mesh.
        """
        self._faces = np.ascontiguousarray(faces, np.int32)
        face_count = len(faces)
        rows, columns = self._faces.ravel(), np.repeat(np.arange(face_count), 3)
        self._faces_of_vertex: sparse.csr_matrix = sparse.csr_matrix(
            (np.ones(3 * face_count, np.float32), (rows, columns)), (vertex_count, face_count)
        )

    def overlay(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        meshes: Sequence[PlacedMesh],
        alpha: float = 0.9,
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Draw meshes over a copy of an RGB image, the farthest first.

        Each mesh hides what is behind it in its own depth; between meshes the order decides,
        since cameras may differ. Meshes with values that are not finite, outside the image or
        behind the camera leave it as it is.

        Args:
            image: RGB background.
            meshes: people, in any order.
            alpha: opacity of the meshes, 0 to 1.
        """
        result = image.copy()
        drawable = [mesh for mesh in meshes if _is_finite(mesh)]
        for mesh in sorted(drawable, key=lambda mesh: mesh.drawing_depth, reverse=True):
            self._draw(result, mesh, alpha)
        return result

    def _draw(self, image: UInt8[np.ndarray, "H W 3"], mesh: PlacedMesh, alpha: float) -> None:
        vertices = np.ascontiguousarray(mesh.vertices_cam_m, np.float32)
        in_front = vertices[:, 2] > _NEAR_M
        faces = self._faces
        if not in_front.all():
            faces = faces[in_front[faces].all(axis=1)]
        region = _covered_region(vertices[in_front], mesh, image.shape[1], image.shape[0])
        if region is None or len(faces) == 0:
            return
        colours = _shade(vertices, self._normals(vertices), mesh.colour)
        scale = 2 if region.width * region.height <= _SUPERSAMPLED_PIXELS else 1
        drawn, mask = _rasterize(vertices, faces, colours, mesh, region, scale)
        drawn, coverage = _soften(drawn, mask, scale)
        opacity = coverage.astype(np.float32) * np.float32(alpha / 255)
        background = np.ascontiguousarray(image[region.slices])
        image[region.slices] = cv2.blendLinear(background, drawn, 1 - opacity, opacity)

    def _normals(self, vertices: Float32[np.ndarray, "V 3"]) -> Float32[np.ndarray, "V 3"]:
        """Unit normals, outward: mean of the adjoining faces weighted by area."""
        corners = vertices[self._faces]
        face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = self._faces_of_vertex @ face_normals
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _is_finite(mesh: PlacedMesh) -> bool:
    camera = (*mesh.focal_px, *mesh.princpt_px)
    return bool(np.isfinite(mesh.vertices_cam_m).all()) and all(map(math.isfinite, camera))


def _covered_region(
    vertices: Float32[np.ndarray, "V 3"], mesh: PlacedMesh, width: int, height: int
) -> _Region | None:
    """Pixels that the vertices' bounding box and a margin for soft edges cover, in the image."""
    if len(vertices) == 0:
        return None
    pixels = vertices[:, :2] / vertices[:, 2:] * np.array(mesh.focal_px) + mesh.princpt_px
    margin = 2
    first = np.clip(np.floor(pixels.min(axis=0)) - margin, 0, (width, height)).astype(int)
    last = np.clip(np.ceil(pixels.max(axis=0)) + margin, -1, (width - 1, height - 1)).astype(int)
    (left, top), (columns, rows) = first.tolist(), (last - first + 1).tolist()
    return _Region(left, top, columns, rows) if columns > 0 and rows > 0 else None


def _shade(
    vertices: Float32[np.ndarray, "V 3"], normals: Float32[np.ndarray, "V 3"], colour: Colour
) -> Float32[np.ndarray, "V 3"]:
    """Colours of the vertices, 0 to 1: Blinn-Phong with a light at the camera and a key light."""
    to_camera = -vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    facing = np.einsum("vi,vi->v", normals, to_camera).clip(0, 1)
    key = (normals @ _KEY_LIGHT).clip(0, 1)
    halfway = to_camera + _KEY_LIGHT
    halfway /= np.maximum(np.linalg.norm(halfway, axis=1, keepdims=True), 1e-6)
    gloss = np.einsum("vi,vi->v", normals, halfway).clip(0, 1) ** _SHININESS
    diffuse = _AMBIENT + _HEADLIGHT * facing + _KEY * key
    shaded = diffuse[:, None] * np.array(colour, np.float32) / 255 + _GLOSS * gloss[:, None]
    return shaded.clip(0, 1).astype(np.float32)


def _rasterize(
    vertices: Float32[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    colours: Float32[np.ndarray, "V 3"],
    mesh: PlacedMesh,
    region: _Region,
    scale: int,
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Colours and mask (0 or 255) of a region, drawn `scale` times as large.

    OpenCV looks along -z with y up and knows one angle of view only; the matrix brings the
    vertices there and holds what the angle cannot: fx != fy and a principal point off the middle.
    Its pixels are sampled half a pixel from their corner.
    """
    width, height = region.width * scale, region.height * scale
    fx, fy = (scale * focal for focal in mesh.focal_px)
    cx = scale * (mesh.princpt_px[0] + 0.5 - region.left)
    cy = scale * (mesh.princpt_px[1] + 0.5 - region.top)
    to_opencv = np.array(
        [
            [fx / fy, 0, (cx - width / 2) / fy, 0],
            [0, -1, -(cy - height / 2) / fy, 0],
            [0, 0, -1, 0],
            [0, 0, 0, 1],
        ],
        np.float32,
    )
    farthest_m = float(vertices[:, 2].max())
    far_m = 1.1 * farthest_m + 1
    settings = cv2.TriangleRasterizeSettings()
    settings.setShadingType(cv2.RASTERIZE_SHADING_SHADED)
    settings.setCullingMode(cv2.RASTERIZE_CULLING_CW)
    colour_buffer = np.zeros((height, width, 3), np.float32)
    depth_buffer = np.full((height, width), far_m, np.float32)
    cv2.triangleRasterize(
        *(vertices[None], faces[None], colours[None], colour_buffer, depth_buffer, to_opencv),
        *(2 * math.atan(height / 2 / fy), _NEAR_M / 2, far_m, settings),
    )
    # Drawing rounds the depth of empty pixels as well: they are near `far_m`, not at it.
    mask = (depth_buffer < (farthest_m + far_m) / 2).astype(np.uint8) * 255
    return cv2.convertScaleAbs(colour_buffer, alpha=255), mask


def _soften(
    drawn: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"], scale: int
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """Colours at the image's resolution, and how much of each pixel is covered (0 to 255).

    Colours are zero off the mesh, so an averaged colour over the averaged mask is a colour of
    the mesh alone, even in pixels that the mesh only grazes.
    """
    if scale > 1:
        size = (drawn.shape[1] // scale, drawn.shape[0] // scale)
        coverage = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        averaged = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
        colours, edge = averaged, (coverage > 0) & (coverage < 255)
    else:
        coverage = cv2.blur(mask, (3, 3), borderType=cv2.BORDER_REPLICATE)
        averaged = cv2.blur(drawn, (3, 3), borderType=cv2.BORDER_REPLICATE)
        colours, edge = drawn, (coverage > 0) & (mask == 0)
    share = coverage[edge].astype(np.float32)[:, None] / 255
    colours[edge] = np.minimum(averaged[edge] / share, 255)
    return colours, coverage
