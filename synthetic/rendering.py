"""Cameras, objects and lights of a picture, and rendering: from meshes to a photograph.

The world has y up, and the floor is at y = 0. The camera is above the origin unless it moves, and
looks along -z, tilted. The camera frame has x right, y down, z forward. Pixel coordinates count
from the centre of the top left pixel.

Light is computed at vertices, and textures at pixels. Then edges are softened, and blur, exposure,
noise and JPEG compression of a camera are added.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8

from synthetic.figures import Figure, Mesh, gather
from synthetic.skeleton import Rotation, turn
from synthetic.textures import SIDE, draw_colour, draw_texture, noise_bank
from utils.camera import Camera
from utils.mesh import length, vertex_normals
from utils.render import halfway_cosines, rasterize

Rng = np.random.Generator

FILM_HEIGHT_MM: Final = 24.0
FILM_WIDTH_MM: Final = 36.0
FLIP: Final = np.diag([1.0, -1.0, -1.0])
"""From world axes (x right, y up, z back) to those of a camera that looks along -z."""
_CORNERS: Final = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (0, 1) for z in (-0.5, 0.5)])
_QUADS: Final = np.array(
    [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
)
_COLUMN_SIDES: Final = 20


class Stage(NamedTuple):
    """A camera over a floor."""

    focal_mm: float
    """Focal length for film of 36 x 24 mm."""
    height_m: float
    """Height of the camera above the floor."""
    from_world: Rotation
    """Rotation from the world's axes to the camera's."""
    ground_xz: tuple[float, float] = (0.0, 0.0)
    """World x and z of the camera, metres."""

    @property
    def up(self) -> Float[np.ndarray, "3"]:
        """The world's up in the camera frame."""
        return self.from_world[:, 1]

    @property
    def centre(self) -> Float[np.ndarray, "3"]:
        """The camera's place in the world, metres."""
        return np.array([self.ground_xz[0], self.height_m, self.ground_xz[1]])

    def to_camera(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 3"]:
        """Points of the world in the camera frame, metres."""
        return (points - self.centre) @ self.from_world.T


def draw_stage(rng: Rng, distance_m: float, focal_mm: float) -> Stage:
    """A camera for people at a distance: level in 45 % of cases, otherwise pointed at them.

    Photographers mostly hold the camera level.
    """
    kind = rng.random()
    if kind < 0.78:
        height = float(np.clip(rng.normal(1.45, 0.3), 0.6, 2.2))
    else:
        height = rng.uniform(0.15, 0.9) if kind < 0.9 else rng.uniform(2.0, 4.5)
    offset, film_deg = rng.uniform(-1, 1), math.degrees(FILM_HEIGHT_MM / focal_mm)
    to_people = math.degrees(math.atan2(height - 0.9, distance_m))
    if kind < 0.45:  # as level as possible with the middle of the people in the picture
        pitch = float(np.clip(4 * offset, to_people - film_deg / 4, to_people + film_deg / 4))
    else:
        pitch = to_people + 0.18 * offset * film_deg
    roll = rng.normal(0, 12) if rng.random() < 0.1 else rng.normal(0, 2)
    return Stage(focal_mm, height, turn("z", roll) @ turn("x", pitch) @ FLIP)


def draw_focal_mm(rng: Rng) -> float:
    """Log-uniform from 24 to 85 mm, in a fifth of cases from 85 to 300 mm (telephoto lenses)."""
    kind = rng.random()
    if kind < 0.8:
        return float(24 * (85 / 24) ** (kind / 0.8))
    return float(85 * (300 / 85) ** ((kind - 0.8) / 0.2))


def place(
    stage: Stage, figure: Figure, right_m: float, away_m: float, lift_m: float = 0.0
) -> Float32[np.ndarray, "3"]:
    """The translation that puts a person's lowest point on the floor (`lift_m` over it), the pelvis
    `right_m` and `away_m` from the camera along the floor. `figure` is turned to the camera frame.
    """
    up = stage.up
    lowest = float((figure.points @ up).min())
    pelvis = figure.joints[0] - up * (up @ figure.joints[0])
    ground = stage.from_world @ np.array([right_m, 0.0, -away_m])
    return (ground - pelvis + up * (lift_m - stage.height_m - lowest)).astype(np.float32)


def window_camera(left: float, top: float, height: float, shape: tuple[int, int]) -> Camera:
    """A camera whose picture of `shape` (height, width) shows a window of the plane z = 1.

    Pixels count from the centre of the top left one, so the window's corner is at -0.5.
    """
    focal = shape[0] / height
    return Camera((focal, focal), (-left * focal - 0.5, -top * focal - 0.5))


def full_camera(focal_mm: float, shape: tuple[int, int]) -> Camera:
    """A camera of the full picture; the film's longer side is the picture's."""
    height, width = shape
    focal = focal_mm / FILM_WIDTH_MM * max(height, width)
    return Camera((focal, focal), ((width - 1) / 2, (height - 1) / 2))


def draw_prop(
    rng: Rng,
    stage: Stage,
    right_m: float,
    away_m: float,
    size_m: tuple[float, float, float],
    base_m: float = 0.0,
    yaw_deg: float | None = None,
) -> Mesh:
    """A box or a column on the floor (`base_m` over it), turned at random; size is x, y, z. Where
    `yaw_deg` is given, it is a box that is turned so."""
    if yaw_deg is None:
        points, faces, uv = _column() if rng.random() < 0.2 else _box()
        angle = rng.uniform(-0.8, 0.8)
    else:
        (points, faces, uv), angle = _box(), math.radians(yaw_deg)
    c, s = math.cos(angle), math.sin(angle)
    world = points * size_m @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    world += (right_m, base_m - stage.height_m, -away_m)
    camera_points = (world @ stage.from_world.T).astype(np.float32)
    texture = draw_texture(rng, draw_colour(rng, 0.55), 0.5)
    return Mesh(
        points=camera_points,
        normals=vertex_normals(camera_points, faces),
        tint=np.ones((len(points), 3), np.float32),
        uv=(uv * rng.uniform(0.5, 3)).astype(np.float32),
        gloss=np.full(len(points), rng.uniform(0, 0.2), np.float32),
        faces=faces,
        two_sided=np.zeros(len(faces), bool),
        texture=np.zeros(len(points), np.int32),
        textures=(texture,),
    )


_Shape = tuple[Float[np.ndarray, "V 3"], Int32[np.ndarray, "F 3"], Float[np.ndarray, "V 2"]]


def _box() -> _Shape:
    """A unit box on the ground; each side has corners of its own, so that edges are sharp."""
    points = _CORNERS[_QUADS].reshape(-1, 3)
    first = np.arange(0, 24, 4)[:, None]
    faces = np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])])
    uv = np.tile([[0.0, 0], [1, 0], [1, 1], [0, 1]], (6, 1))
    return points, faces.astype(np.int32), uv


def _column() -> _Shape:
    """A unit cylinder on the ground with a lid."""
    angle = np.linspace(0, 2 * np.pi, _COLUMN_SIDES + 1)
    ring = np.stack([np.cos(angle) / 2, np.zeros_like(angle), np.sin(angle) / 2], axis=1)
    points = np.concatenate([ring, ring + np.eye(3)[1], ring + np.eye(3)[1]])
    k, n = np.arange(_COLUMN_SIDES), _COLUMN_SIDES + 1
    walls = [np.stack([k, k + n, k + 1], axis=1), np.stack([k + 1, k + n, k + n + 1], axis=1)]
    k = k[1:]
    lid = np.stack([np.full_like(k, 2 * n), 2 * n + k + 1, 2 * n + k], axis=1)
    uv = np.stack([np.tile(angle, 3) / np.pi, points[:, 1] * 2], axis=1)
    return points, np.concatenate([*walls, lid]).astype(np.int32), uv


def seat_under(rng: Rng, stage: Stage, pelvis: Float[np.ndarray, "3"]) -> list[Mesh]:
    """A box from the floor to under a sitting person; none where there is no room for one.

    `pelvis` is the joint's place in the camera frame, metres.
    """
    right, height, back = (stage.from_world.T @ pelvis).tolist()
    top = height + stage.height_m - 0.115
    if top < 0.12:
        return []
    size = (rng.uniform(0.35, 0.7), top, rng.uniform(0.3, 0.45))
    return [draw_prop(rng, stage, right, -back, size)]


NEAR_M: Final = 0.15
_SHININESS: Final = 16
_WHITE: Final = 180
"""The byte for light of 1; the values above it are left for brighter light."""
Image = Float32[np.ndarray, "H W 3"]
Bytes = UInt8[np.ndarray, "H W 3"]


class Lights(NamedTuple):
    """Lights of a scene in the camera frame. Colours are RGB irradiances of about 1 in all."""

    up: Float32[np.ndarray, "3"]
    sky: Float32[np.ndarray, "3"]
    """Ambient light from above, and that from below."""
    ground: Float32[np.ndarray, "3"]
    directions: Float32[np.ndarray, "L 3"]
    """Unit vectors to the lights; the first one casts the shadow."""
    colours: Float32[np.ndarray, "L 3"]
    softness: Float32[np.ndarray, " L"]
    """0: a point of light; 1: as wide as half the sky."""


def draw_lights(rng: Rng, up: Float[np.ndarray, "3"]) -> Lights:
    """One to three lights and ambient light; `up` is the world's in the camera frame."""
    count = int(rng.integers(1, 4))
    ambient = rng.uniform(0.25, 0.75)
    warmth = rng.normal(0, 0.07)
    white = np.array([1 + warmth, 1.0, 1 - warmth])
    directions, colours = [], []
    for k in range(count):
        direction = rng.normal(size=3) * (1, 1, 0.6)
        direction += (0, 0, -0.5)  # rather from the side of the camera
        direction -= up * (direction @ up)
        direction /= np.linalg.norm(direction)
        height = math.radians(rng.uniform(20, 80) if k == 0 else rng.uniform(-10, 60))
        directions.append(math.cos(height) * direction + math.sin(height) * up)
        strength = (1.05 - ambient) if k == 0 else rng.uniform(0.05, 0.3)
        tinge = rng.normal(0, 0.05 if k == 0 else 0.12, 3)
        colours.append(strength * np.clip(white + tinge, 0.3, 1.7))
    sky = ambient * np.clip(white + rng.normal(0, 0.05, 3), 0.4, 1.6)
    ground = ambient * rng.uniform(0.3, 0.8) * np.clip(1 + rng.normal(0, 0.08, 3), 0.4, 1.6)
    softness = rng.uniform(0.05, 0.7, count)
    values = (up, sky, ground, directions, colours, softness)
    return Lights(*(np.asarray(value, np.float32) for value in values))


class Picture(NamedTuple):
    """Meshes as a camera sees them; P pixels show one."""

    camera: Camera
    colours: Float32[np.ndarray, "P 3"]
    """RGB, 0 to about 1."""
    pixels: Int[np.ndarray, " P"]
    """Positions in the flattened picture."""
    owner: Int32[np.ndarray, "H W"]
    """Number of the mesh that a pixel shows, -1: none."""
    depth_m: Float32[np.ndarray, "H W"]
    """Infinite where no mesh is seen."""


def render(
    meshes: Sequence[Mesh], lights: Lights, camera: Camera, shape: tuple[int, int]
) -> Picture:
    """Draw meshes (one at least) in a picture of `shape` (height, width)."""
    mesh = gather(meshes)
    return draw_lit(meshes, mesh, _lit(mesh, lights), camera, shape)


def draw_lit(
    meshes: Sequence[Mesh],
    mesh: Mesh,
    lit: Float32[np.ndarray, "V 3"],
    camera: Camera,
    shape: tuple[int, int],
) -> Picture:
    """Draw meshes that have been gathered in one, given the light that its vertices reflect."""
    attributes = np.empty((len(mesh.points), 6), np.float32)
    attributes[:, :3] = lit
    attributes[:, 3:5] = mesh.uv
    attributes[:, 5] = mesh.texture
    seen = visible_surface(mesh.points, mesh.faces, mesh.two_sided, attributes, camera, shape)
    number = np.rint(seen.values[:, 5]).astype(np.int32)
    place = (seen.values[:, 3:5] * SIDE).astype(np.int32) & (SIDE - 1)
    texels = np.concatenate(mesh.textures).reshape(-1, 3)
    colours = seen.values[:, :3] * texels[(number * SIDE + place[:, 1]) * SIDE + place[:, 0]]
    of_texture = np.repeat(np.arange(len(meshes)), [len(one.textures) for one in meshes])
    owner = np.full(shape, -1, np.int32)
    owner.ravel()[seen.pixels] = of_texture[number]
    return Picture(camera, colours, seen.pixels, owner, seen.depth_m)


def _lit(mesh: Mesh, lights: Lights) -> Float32[np.ndarray, "V 3"]:
    """Light that the vertices reflect, with the gloss of the first light.

    Normals that point away from the camera belong to what is seen from its inside.
    """
    normals, columns = mesh.normals, np.ascontiguousarray(mesh.points.T)
    rise = 0.5 + 0.5 * (normals @ lights.up)[:, None]
    light = lights.ground + rise * (lights.sky - lights.ground)
    cosines = normals @ lights.directions.T
    facing = np.maximum((cosines + lights.softness) / (1 + lights.softness), 0)
    light = light + facing @ lights.colours
    shine = halfway_cosines(
        -columns / length(columns), np.ascontiguousarray(normals.T), lights.directions[0]
    )
    shine = np.maximum(shine, 0)
    for _ in range(int(math.log2(_SHININESS))):
        shine = shine * shine
    gloss = (mesh.gloss * shine)[:, None] * lights.colours[0]
    return (light * mesh.tint + gloss).astype(np.float32)


class VisibleSurface(NamedTuple):
    """What is seen in a picture of (H, W) pixels, of which P show a triangle."""

    depth_m: Float32[np.ndarray, "H W"]
    """Infinite where nothing is."""
    pixels: Int[np.ndarray, " P"]
    """Positions in the flattened picture."""
    values: Float32[np.ndarray, "P A"]


def visible_surface(
    points_cam_m: Float32[np.ndarray, "V 3"],
    faces: Int32[np.ndarray, "F 3"],
    two_sided: Bool[np.ndarray, " F"],
    attributes: Float32[np.ndarray, "V A"],
    camera: Camera,
    shape: tuple[int, int],
) -> VisibleSurface:
    """Triangles (corners counter-clockwise from outside) as a pinhole camera sees them.

    Attributes are interpolated in space, not in the picture; A is a multiple of 3. Triangles with
    a corner nearer than NEAR_M, off the picture, or turned away (unless they are `two_sided`) are
    left out.
    """
    in_front = points_cam_m[:, 2] >= NEAR_M
    x, y = camera.project(points_cam_m).T
    kept = faces[_facing(x, y, in_front, faces, two_sided, shape)]
    depth = np.full(shape, np.inf, np.float32)
    if not len(kept):
        return VisibleSurface(
            depth, np.zeros(0, np.int64), np.zeros((0, attributes.shape[1]), np.float32)
        )
    # Only the part of the picture is touched that the triangles cover.
    left, right = _range(x[kept], shape[1])
    top, bottom = _range(y[kept], shape[0])
    part, part_shape = camera.cropped(left, top), (bottom - top, right - left)
    raster = rasterize(points_cam_m, kept, attributes, part, part_shape, NEAR_M)
    here = np.flatnonzero(raster.covered)
    depth[top:bottom, left:right] = np.where(raster.covered, raster.depth_m, np.inf)
    rows, columns = np.divmod(here, right - left)
    values = [buffer.reshape(-1, 3)[here] for buffer in raster.values]
    return VisibleSurface(
        depth, (rows + top) * shape[1] + columns + left, np.concatenate(values, axis=1)
    )


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


def soften_edges(image: Image, owner: Int32[np.ndarray, "H W"]) -> Image:
    """Blur over a pixel where one mesh ends and another begins."""
    labels = (owner + 1).astype(np.uint8)
    edge = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    left, top, width, height = cv2.boundingRect(edge)
    if width and height:
        part = slice(top, top + height), slice(left, left + width)
        smooth = cv2.GaussianBlur(image[part], (3, 3), 0.7)
        np.copyto(image[part], smooth, where=edge[part][..., None] > 0)
    return image


def photograph(rng: Rng, image: Image) -> Bytes:
    """RGB bytes of an RGB image of 0 to 1, with blur, exposure and noise of a camera."""
    if rng.random() < 0.35:
        sigma = rng.uniform(0.35, 0.0045 * min(image.shape[0], 400) + 0.35)
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    if rng.random() < 0.06:
        image = _motion_blur(rng, image)
    taken = develop(image, draw_response(rng))
    strength = rng.gamma(1.2, 0.009)
    return taken if strength < 0.004 else add_sensor_noise(rng, taken, 255 * strength)


def develop(image: Image, response: UInt8[np.ndarray, "256 1 3"]) -> Bytes:
    """Bytes of an image in the range 0 to about 1, by the response of a camera."""
    return cv2.LUT(cv2.convertScaleAbs(np.maximum(image, 0), alpha=_WHITE), response)


def draw_response(rng: Rng) -> UInt8[np.ndarray, "256 1 3"]:
    """A camera's table from light to bytes: exposure, white balance, highlights, contrast."""
    light = np.arange(256)[:, None, None] / _WHITE
    light = light * np.clip(rng.normal(1, 0.045, 3), 0.8, 1.2) * np.exp(rng.normal(0.02, 0.22))
    if rng.random() < 0.7:
        light = np.minimum(light, 0.8 + (light - 0.8) * 0.35)
    if rng.random() < 0.5:
        light = (light - 0.45) * rng.uniform(0.75, 1.2) + 0.45
    return np.clip(255 * light, 0, 255).astype(np.uint8)


def add_sensor_noise(rng: Rng, image: Bytes, spread: float) -> Bytes:
    """Add fine noise from the bank, shifted so that no two pictures have the same."""
    height, width = image.shape[:2]
    coloured = rng.random() < 0.6
    channels = []
    for _ in range(3 if coloured else 1):
        tile = np.roll(noise_bank()[rng.integers(6, 8)], rng.integers(0, SIDE, 2), axis=(0, 1))
        channels.append(np.clip(128 + spread * tile, 0, 255).astype(np.uint8))
    tile = np.stack(channels if coloured else channels * 3, axis=2)
    noise = np.tile(tile, (height // SIDE + 1, width // SIDE + 1, 1))[:height, :width]
    return cv2.addWeighted(image, 1, np.ascontiguousarray(noise), 1, -128)


def _motion_blur(rng: Rng, image: Image) -> Image:
    length_px, angle = rng.uniform(2, 0.02 * image.shape[0] + 3), rng.uniform(0, np.pi)
    side = int(length_px) | 1
    kernel = np.zeros((side + 2, side + 2), np.float32)
    middle, reach = side // 2 + 1, length_px / 2 * np.array([np.cos(angle), np.sin(angle)])
    start, end = ([round(middle + sign * step) for step in reach] for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def encode(rng: Rng, image: Bytes) -> bytes:
    """A JPEG of drawn quality."""
    quality = int(rng.integers(72, 97)) if rng.random() < 0.85 else int(rng.integers(35, 72))
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    assert done
    return data.tobytes()
