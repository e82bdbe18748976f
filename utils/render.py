"""Drawing meshes, points and skeletons over an image on the CPU, without a graphics driver.

`rasterize` uses OpenCV's `triangleRasterize` with a general pinhole camera, and `MeshRenderer`
shades and blends with soft edges. Only the part of the image that a mesh covers is computed.

Pixel coordinates count from the centre of the top left pixel, as in `crop_person`. Large arrays of
vectors have shape (3, N), because NumPy is several times as fast on long rows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np
import scipy  # loads its modules when they are first used
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8

from utils.camera import Camera
from utils.mesh import cross, length

Colour = tuple[int, int, int]

# Distinguishable with colour vision deficiency (after Okabe and Ito, "Color Universal Design").
PERSON_COLOURS: Final[tuple[Colour, ...]] = (
    (86, 180, 233),  # sky blue
    (230, 159, 0),  # orange
    (0, 178, 130),  # green
    (240, 128, 185),  # pink
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermilion
    (70, 110, 220),  # blue
    (170, 170, 170),  # grey
)
_NEAR_M: Final = 0.05
"""Faces with a vertex nearer to the camera than this are not drawn."""
_SUPERSAMPLED_PIXELS: Final = 30_000
"""Regions up to this size are drawn at twice the resolution; larger ones get blurred edges."""
# The key light comes from the upper left; the headlight from the camera.
_KEY_LIGHT: Final = np.array([-0.45, -0.65, -0.6], np.float32) / math.sqrt(0.985)
_AMBIENT, _HEADLIGHT, _KEY, _GLOSS = 0.25, 0.45, 0.4, 0.12
_SUBPIXEL_BITS: Final = 4
_LARGEST_PX: Final = 20_000
"""Joints farther out are not drawn, because OpenCV is slow and overflows far outside the image."""


@dataclass(frozen=True, eq=False)
class PlacedMesh:
    """A person's mesh with the camera in which it was estimated.

    Attributes:
        vertices_cam_m: metres in the camera frame: x right, y down, z forward.
        camera: camera of the whole image.
        colour: RGB, 0-255.
        depth_m: depth for the order of drawing; give it for all meshes of an image or for none.
            None: meshes with the same camera share a depth buffer, others are ordered by apparent
            size (median z / fy).
    """

    vertices_cam_m: Float[np.ndarray, "V 3"]
    camera: Camera
    colour: Colour
    depth_m: float | None = None

    @property
    def drawing_depth(self) -> float:
        if self.depth_m is not None:
            return self.depth_m
        return float(np.median(self.vertices_cam_m[:, 2])) / self.camera.focal[1]


class _Region(NamedTuple):
    """A rectangle of an image, pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height

    def overlaps(self, other: "_Region") -> bool:
        in_x = self.left < other.right and other.left < self.right
        return in_x and self.top < other.bottom and other.top < self.bottom

    def joined_with(self, other: "_Region") -> "_Region":
        """The smallest region around both."""
        left, top = min(self.left, other.left), min(self.top, other.top)
        right, bottom = max(self.right, other.right), max(self.bottom, other.bottom)
        return _Region(left, top, right - left, bottom - top)


class _Surface(NamedTuple):
    """A shaded mesh: faces that face the camera, and the part of the image that it covers."""

    vertices: Float32[np.ndarray, "V 3"]
    faces: Int32[np.ndarray, "F 3"]
    colours: Float32[np.ndarray, "V 3"]
    region: _Region


class MeshRenderer:
    """Draws meshes with the same faces, such as all people of a video.

    Several threads may use one renderer; drawing releases the GIL.
    """

    def __init__(self, faces: Int[np.ndarray, "F 3"], vertex_count: int) -> None:
        """Prepare for meshes of `vertex_count` vertices.

        Args:
            faces: vertex indices, counter-clockwise seen from outside, as in SMPL-X. Back faces are
                not drawn.
            vertex_count: number of vertices of each mesh.
        """
        self._faces = np.ascontiguousarray(faces, np.int32)
        face_count = len(faces)
        rows, columns = self._faces.ravel(), np.repeat(np.arange(face_count), 3)
        self._faces_of_vertex = scipy.sparse.csr_matrix(
            (np.ones(3 * face_count, np.float32), (rows, columns)), (vertex_count, face_count)
        )

    def overlay(
        self, image: UInt8[np.ndarray, "H W 3"], meshes: Sequence[PlacedMesh], alpha: float = 0.9
    ) -> UInt8[np.ndarray, "H W 3"]:
        """Draw meshes over a copy of an RGB image.

        Meshes with the same camera share a depth buffer. If cameras differ, or `depth_m` is given,
        meshes are drawn from the farthest to the nearest. Meshes with values that are not finite,
        outside the image or behind the camera are not drawn.

        Args:
            image: RGB background.
            meshes: people, in any order.
            alpha: opacity of the meshes, 0 to 1.
        """
        result = image.copy()
        drawable = [
            mesh
            for mesh in meshes
            if np.isfinite(mesh.vertices_cam_m).all() and np.isfinite(mesh.camera).all()
        ]
        drawable.sort(key=lambda mesh: mesh.drawing_depth, reverse=True)
        cameras = {(mesh.camera, mesh.depth_m) for mesh in drawable}
        one_camera = len(cameras) == 1 and drawable[0].depth_m is None
        size = (image.shape[1], image.shape[0])
        seen = [(mesh, self._surface(mesh, size)) for mesh in drawable]
        groups = [([surface], mesh) for mesh, surface in seen if surface is not None]
        if one_camera and len(groups) > 1:
            surfaces = [surface for group, _ in groups for surface in group]
            groups = [(group, drawable[0]) for group in _overlapping(surfaces)]
        for group, mesh in groups:
            _draw(result, group, mesh.camera, alpha)
        return result

    def _surface(self, mesh: PlacedMesh, image_size: tuple[int, int]) -> _Surface | None:
        """The shaded mesh; None if no part of it is in the image."""
        vertices = np.ascontiguousarray(mesh.vertices_cam_m, np.float32)
        xyz = np.ascontiguousarray(vertices.T)
        in_front = xyz[2] > _NEAR_M
        all_in_front = bool(in_front.all())
        region = _covered_region(xyz if all_in_front else xyz[:, in_front], mesh, image_size)
        if region is None:
            return None
        corners = [xyz.take(self._faces[:, k], axis=1) for k in range(3)]
        normals = cross(corners[1] - corners[0], corners[2] - corners[0])
        drawn = (normals * corners[0]).sum(axis=0) < 0
        if not all_in_front:
            drawn &= in_front[self._faces].all(axis=1)
        faces = self._faces.compress(drawn, axis=0)
        if len(faces) == 0:
            return None
        return _Surface(
            vertices, faces, shade(xyz, self._at_vertices(normals), mesh.colour), region
        )

    def _at_vertices(self, normals: Float32[np.ndarray, "3 F"]) -> Float32[np.ndarray, "3 V"]:
        """Unit normals of the vertices: means of the adjacent faces' normals, weighted by area."""
        summed = np.stack([self._faces_of_vertex @ axis for axis in normals])
        return summed / np.maximum(length(summed), 1e-12)


def _overlapping(surfaces: Sequence[_Surface]) -> list[list[_Surface]]:
    """Groups of surfaces whose regions do not overlap those of other groups."""
    groups: list[list[_Surface]] = []
    for surface in surfaces:
        separate: list[list[_Surface]] = []
        joined = [surface]
        for group in groups:
            if any(surface.region.overlaps(other.region) for other in group):
                joined = group + joined
            else:
                separate.append(group)
        groups = [*separate, joined]
    return groups


def _draw(
    image: UInt8[np.ndarray, "H W 3"], surfaces: Sequence[_Surface], camera: Camera, alpha: float
) -> None:
    """Draw surfaces of one camera with a common depth buffer."""
    region = surfaces[0].region
    for surface in surfaces[1:]:
        region = region.joined_with(surface.region)
    starts = np.cumsum([0] + [len(surface.vertices) for surface in surfaces]).tolist()
    vertices = np.concatenate([surface.vertices for surface in surfaces])
    colours = np.concatenate([surface.colours for surface in surfaces])
    faces = np.concatenate(
        [surface.faces + start for start, surface in zip(starts[:-1], surfaces, strict=True)]
    )
    room = _SUPERSAMPLED_PIXELS * len(surfaces)
    scale = 2 if region.width * region.height <= room else 1
    view = camera.cropped(region.left, region.top).scaled(scale)
    shape = (scale * region.height, scale * region.width)
    raster = rasterize(vertices, faces.astype(np.int32), colours, view, shape, _NEAR_M)
    drawn = cv2.convertScaleAbs(raster.values[0], alpha=255)
    mask = raster.covered.view(np.uint8) * np.uint8(255)
    drawn, coverage = _soften(drawn, mask, scale)
    opacity = coverage.astype(np.float32) * np.float32(alpha / 255)
    background = np.ascontiguousarray(image[region.slices])
    image[region.slices] = cv2.blendLinear(background, drawn, 1 - opacity, opacity)


def _covered_region(
    xyz: Float32[np.ndarray, "3 V"], mesh: PlacedMesh, image_size: tuple[int, int]
) -> _Region | None:
    """Bounding box of the projected vertices with a margin, clipped to the image."""
    if xyz.shape[1] == 0:
        return None
    margin = 2
    edges = []
    for pixels, size in zip(mesh.camera.project(xyz.T).T, image_size, strict=True):
        first = max(math.floor(min(float(pixels.min()), size)) - margin, 0)
        last = min(math.ceil(max(float(pixels.max()), -1)) + margin, size - 1)
        edges.append((first, last - first + 1))
    (left, columns), (top, rows) = edges
    return _Region(left, top, columns, rows) if columns > 0 and rows > 0 else None


class Raster(NamedTuple):
    """The picture of triangles."""

    values: list[Float32[np.ndarray, "H W 3"]]
    """Interpolated attributes of the vertices, three per array; 0 where no triangle is visible."""
    depth_m: Float32[np.ndarray, "H W"]
    covered: Bool[np.ndarray, "H W"]
    """Where a triangle is visible; elsewhere `depth_m` is undefined."""


def rasterize(
    points_cam_m: Float32[np.ndarray, "V 3"],
    faces: Int32[np.ndarray, "F 3"],
    attributes: Float32[np.ndarray, "V A"],
    camera: Camera,
    shape: tuple[int, int],
    near_m: float,
) -> Raster:
    """Draw triangles, from both sides, with a depth buffer.

    OpenCV's camera looks along -z with y up and has only an angle of view. The matrix converts the
    points to this frame and accounts for fx != fy and the principal point. OpenCV counts pixels
    from the corner of the image.

    Args:
        attributes: interpolated with perspective correction; A is a multiple of 3.
        shape: height and width of the image.
        near_m: no vertex may have a smaller depth.
    """
    height, width = shape
    (fx, fy), (cx, cy) = camera
    to_opencv = np.array(
        [
            [fx / fy, 0, (cx + 0.5 - width / 2) / fy, 0],
            [0, -1, -(cy + 0.5 - height / 2) / fy, 0],
            [0, 0, -1, 0],
            [0, 0, 0, 1],
        ],
        np.float32,
    )
    farthest_m = float(points_cam_m[:, 2].max())
    far_m = 1.1 * farthest_m + 1
    settings = cv2.TriangleRasterizeSettings()
    settings.setShadingType(cv2.RASTERIZE_SHADING_SHADED)
    settings.setCullingMode(cv2.RASTERIZE_CULLING_NONE)
    depth, buffers = np.empty(shape, np.float32), []
    for first in range(0, attributes.shape[1], 3):
        depth.fill(far_m)
        buffers.append(np.zeros((height, width, 3), np.float32))
        values = np.ascontiguousarray(attributes[:, first : first + 3])
        cv2.triangleRasterize(
            *(points_cam_m[None], faces[None], values[None], buffers[-1], depth, to_opencv),
            *(2 * math.atan(height / 2 / fy), near_m / 2, far_m, settings),
        )
    # Drawing rounds the depth of empty pixels as well: they are near `far_m`, not at it.
    return Raster(buffers, depth, depth < (farthest_m + far_m) / 2)


def _soften(
    drawn: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"], scale: int
) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """Colours at the resolution of the image, and coverage of each pixel (0 to 255).

    Colours are zero outside the mesh, so the averaged colour over the averaged mask is a colour of
    the mesh alone, also in pixels at its edge.
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
    pixels = np.flatnonzero(edge)  # flat indices are several times as fast as pairs
    share = coverage.ravel()[pixels].astype(np.float32)[:, None] / 255
    colours.reshape(-1, 3)[pixels] = np.minimum(averaged.reshape(-1, 3)[pixels] / share, 255)
    return colours, coverage


def halfway_cosines(
    to_camera: Float32[np.ndarray, "3 V"],
    normals: Float32[np.ndarray, "3 V"],
    to_light: Float32[np.ndarray, "3"],
) -> Float32[np.ndarray, " V"]:
    """Cosines between normals and the halfway vectors of the Blinn-Phong model."""
    halfway = to_camera + to_light[:, None]
    halfway /= np.maximum(length(halfway), 1e-6)
    return (normals * halfway).sum(axis=0)


def shade(
    xyz: Float32[np.ndarray, "3 V"], normals: Float32[np.ndarray, "3 V"], colour: Colour
) -> Float32[np.ndarray, "V 3"]:
    """Colours of the vertices, 0 to 1: Blinn-Phong with a light at the camera and a key light."""
    to_camera = -xyz / length(xyz)
    facing = (normals * to_camera).sum(axis=0).clip(0, 1)
    key = (_KEY_LIGHT @ normals).clip(0, 1)
    gloss = halfway_cosines(to_camera, normals, _KEY_LIGHT).clip(0, 1) ** 3
    gloss = ((gloss**2) ** 2) ** 2  # power of 24, by products
    diffuse = _AMBIENT + _HEADLIGHT * facing + _KEY * key
    shaded = diffuse[:, None] * np.array(colour, np.float32) / 255 + _GLOSS * gloss[:, None]
    return shaded.clip(0, 1).astype(np.float32)


def person_colour(person_id: int) -> Colour:
    """The colour of a person, the same in every frame."""
    return PERSON_COLOURS[person_id % len(PERSON_COLOURS)]


# ---- points and skeletons; values that are not finite are not drawn


def draw_vertices(
    image: UInt8[np.ndarray, "H W 3"], vertices_px: Float[np.ndarray, "V 2"], colour: Colour
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw points such as projected vertices over a copy of an image.

    A point is one pixel, or a larger square on images of 1000 pixels or more.
    """
    result = image.copy()
    height, width = image.shape[:2]
    inside = ((vertices_px >= -0.5) & (vertices_px < (width - 0.5, height - 0.5))).all(axis=1)
    columns, rows = np.rint(vertices_px[inside]).astype(int).T
    for right in range(_thickness(image)):
        for down in range(_thickness(image)):
            result[np.minimum(rows + down, height - 1), np.minimum(columns + right, width - 1)] = (
                colour
            )
    return result


def draw_skeleton(
    image: UInt8[np.ndarray, "H W 3"],
    joints_px: Float[np.ndarray, "J 2"],
    edges: Sequence[tuple[int, int]],
    colour: Colour,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw bones, given as pairs of joint indices, and joints over a copy of an image."""
    result = image.copy()
    drawable = (np.abs(joints_px) < _LARGEST_PX).all(axis=1)
    centres = np.rint(np.where(drawable[:, None], joints_px, 0) * 2**_SUBPIXEL_BITS).astype(int)
    points: list[list[int]] = centres.tolist()
    thickness = _thickness(image)
    for start, end in edges:
        if drawable[start] and drawable[end]:
            cv2.line(
                *(result, points[start], points[end], colour, thickness),
                *(cv2.LINE_AA, _SUBPIXEL_BITS),
            )
    dot = tuple(round(channel + (255 - channel) * 0.6) for channel in colour)
    for joint in np.flatnonzero(drawable).tolist():
        radius = thickness * 2**_SUBPIXEL_BITS
        cv2.circle(result, points[joint], radius, dot, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)
    return result


def _thickness(image: UInt8[np.ndarray, "H W 3"]) -> int:
    """Width of lines in pixels: 1, plus 1 per 1000 pixels of the longer side."""
    return 1 + max(image.shape[:2]) // 1000
