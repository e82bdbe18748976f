"""Backgrounds (floors and walls in perspective, photographs, plain colours) and shadows on them."""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from synthetic.figures import Mesh
from synthetic.rendering import Image, Lights, Picture, Stage, soften_edges
from synthetic.textures import draw_colour, draw_noise, draw_texture
from utils.camera import Camera
from utils.errors import UserError

# Photographs in the public domain or under CC0 that these packages contain; none shows people.
_BUNDLED: Final = {
    "skimage": (
        "data",
        ("coffee.png", "chelsea.png", "rocket.jpg", "brick.png", "grass.png", "gravel.png",
         "hubble_deep_field.jpg", "motorcycle_left.png", "coins.png", "moon.png"),
    ),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}  # fmt: skip
_LONGEST_SIDE: Final = 720
_WALL_MARGIN_M: Final = 0.6
_SHADOW_POINTS: Final = 5
"""Every fifth point of a person casts a shadow."""
_LEAST_RISE: Final = 0.25
"""Vertical component of the direction to a light below which shadows are too long for points."""
_INVERSE: Final = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
Rng = np.random.Generator
Shape = tuple[int, int]
"""Height and width, pixels."""
Photographs = list[UInt8[np.ndarray, "_ _ 3"]]


def bundled_photographs() -> list[Path]:
    """Paths of the photographs in the installed scikit-image and scikit-learn.

    Raises:
        UserError: one is missing, so that a seed would give different pictures.
    """
    found = []
    for package, (folder, names) in _BUNDLED.items():
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            found += [path for name in names if (path := Path(place) / folder / name).is_file()]
    if len(found) < sum(len(names) for _, names in _BUNDLED.values()):
        raise UserError(
            "photographs of scikit-image and scikit-learn are missing, which are backgrounds of "
            "synthetic people; install them: sh scripts/install.sh"
        )
    return found


@cache
def read_photograph(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """An RGB image whose longer side is 720 pixels.

    Raises:
        UserError: the file is damaged.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise UserError(f"cannot read the image '{path}': damaged; reinstall its package")
    scale = _LONGEST_SIDE / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


class Background(NamedTuple):
    """An image over which people are drawn, RGB from 0 to 1, and its camera."""

    image: Image
    floor: Bool[np.ndarray, "H W"] | None
    """Pixels that show the floor; None if no floor is visible."""
    stage: Stage
    camera: Camera


def draw_background(
    rng: Rng,
    stage: Stage,
    camera: Camera,
    shape: Shape,
    farthest_m: float | None,
    photographs: Photographs,
) -> Background:
    """A random background.

    `farthest_m` is the largest depth of a mesh, metres: the wall is behind it. None draws a
    photograph or colours without a floor.
    """
    floor = None
    if farthest_m is not None:
        image, floor = _room(rng, stage, camera, shape, farthest_m, photographs)
    elif rng.random() < 0.75:
        image = _photograph(rng, shape, photographs)
    else:
        image = _abstract(rng, shape)
    return Background(image, floor, stage, camera)


def _photograph(rng: Rng, shape: Shape, photographs: Photographs) -> Image:
    """A random crop of a photograph, sometimes mirrored, recoloured, desaturated or blurred."""
    photograph = photographs[rng.integers(len(photographs))]
    height, width = photograph.shape[:2]
    scale = min(height / shape[0], width / shape[1]) * rng.uniform(0.35, 1.0)
    size = (max(int(shape[0] * scale), 8), max(int(shape[1] * scale), 8))
    top, left = rng.integers(0, height - size[0] + 1), rng.integers(0, width - size[1] + 1)
    cut = photograph[top : top + size[0], left : left + size[1]]
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    resized = cv2.resize(np.ascontiguousarray(cut), shape[::-1], interpolation=cv2.INTER_LINEAR)
    image: np.ndarray = resized.astype(np.float32) / 255
    if rng.random() < 0.12:
        image = image[..., rng.permutation(3)]
    if rng.random() < 0.3:
        grey = image.mean(axis=2, keepdims=True)
        image = grey + (image - grey) * np.float32(rng.uniform(0, 0.8))
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, max(0.02 * shape[0], 0.5)))
    return image


def _abstract(rng: Rng, shape: Shape) -> Image:
    """A coarse grid of colours, interpolated or in blocks."""
    grid = rng.integers(2, 9, 2)
    colours = rng.random((*grid, 3)).astype(np.float32)
    colours = draw_colour(rng).astype(np.float32) + rng.uniform(0.1, 1) * (colours - 0.5)
    method = (cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_NEAREST)[rng.integers(3)]
    return np.clip(cv2.resize(colours, shape[::-1], interpolation=method), 0, 1)


def _surface(rng: Rng, photographs: Photographs) -> Float32[np.ndarray, "h w 3"]:
    """A texture that repeats without visible seams: cloth, or a part of a photograph."""
    if rng.random() < 0.3:
        piece = _photograph(rng, (64, 64), photographs)
        return np.concatenate([np.concatenate([piece, piece[:, ::-1]], axis=1)] * 2)
    texture = draw_texture(rng, draw_colour(rng, 0.8), 0.45)
    large = cv2.resize(draw_noise(rng, 0, 5), (128, 128), interpolation=cv2.INTER_LINEAR)
    return np.tile(texture, (2, 2, 1)) * (1 + np.float32(rng.uniform(0, 0.12)) * large)[..., None]


def _room(
    rng: Rng,
    stage: Stage,
    camera: Camera,
    shape: Shape,
    farthest_m: float,
    photographs: Photographs,
) -> tuple[Image, Bool[np.ndarray, "H W"]]:
    """A floor in perspective and a wall or a sky behind it, and the pixels of the floor."""
    height, width = shape
    (fx, fy), (cx, cy) = camera
    inverse = np.array([[1 / fx, 0, -cx / fx], [0, 1 / fy, -cy / fy], [0, 0, 1]])
    # A ray r meets the floor at -height r / (up r), so `rows` is the homography from pixels to the
    # floor: (right, back, 1) up to scale.
    right, up, back = stage.from_world.T
    rows = np.stack([-stage.height_m * right, -stage.height_m * back, up]) @ inverse
    wall_m = farthest_m + _WALL_MARGIN_M + rng.exponential(4.0)
    downward = _affine_map(rows[2], shape)
    floor = (downward < -1e-6) & (_affine_map(rows[1] + wall_m * rows[2], shape) < 0)
    texture = _surface(rng, photographs)
    texels_per_m = 64 / rng.uniform(0.4, 4.0)
    angle = rng.uniform(0, np.pi)
    c, s = np.cos(angle), np.sin(angle)
    spin = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    to_texture = np.diag([texels_per_m, texels_per_m, 1.0]) @ spin @ rows
    ground = cv2.warpPerspective(
        texture, to_texture, (width, height), flags=_INVERSE, borderMode=cv2.BORDER_WRAP
    )
    image = _wall(rng, shape, photographs)
    if rng.random() < 0.4:  # the floor fades into the wall with distance
        far_m = np.float32(wall_m * rng.uniform(1.0, 3.0))
        scale = np.minimum(-far_m * downward, -1e-6)
        fading = np.clip(_affine_map(rows[1], shape) / scale, 0, 1) * floor
        ground = cv2.blendLinear(ground, image, 1 - fading, fading)
    np.copyto(image, ground, where=floor[..., None])
    if rng.random() < 0.35:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, max(0.012 * height, 0.4)))
    return image, floor


def _affine_map(row: Float[np.ndarray, "3"], shape: Shape) -> Float32[np.ndarray, "H W"]:
    """a x + b y + c at every pixel (x, y), for the row (a, b, c)."""
    a, b, c = row.tolist()
    of_column = (a * np.arange(shape[1])).astype(np.float32)
    of_row = (b * np.arange(shape[0]) + c).astype(np.float32)
    return of_column + of_row[:, None]


def _wall(rng: Rng, shape: Shape, photographs: Photographs) -> Image:
    """A photograph, or a plain or patterned wall, often with rectangles on it."""
    height, width = shape
    kind = rng.random()
    if kind < 0.25:
        return _photograph(rng, shape, photographs)
    slope = np.linspace(rng.uniform(0.6, 1.1), rng.uniform(0.6, 1.1), height, dtype=np.float32)
    if kind < 0.65:
        surface = _surface(rng, photographs)
        scale = rng.uniform(0.5, 3)
        matrix = np.array([[scale, 0, 0], [0, scale, 0]]) * 128 / max(shape)
        image = cv2.warpAffine(
            surface, matrix, (width, height), flags=_INVERSE, borderMode=cv2.BORDER_WRAP
        )
    else:
        image = np.empty((height, width, 3), np.float32)
        image[:] = draw_colour(rng, 0.75)
    image = image * slope[:, None, None]
    rectangles = int(rng.integers(0, 6)) if rng.random() < 0.6 else 0  # windows, pictures
    for _ in range(rectangles):
        colour = tuple(draw_colour(rng).tolist())
        x, y = int(rng.integers(-width // 4, width)), int(rng.integers(-height // 4, height))
        size = (rng.uniform(0.04, 0.6, 2) * (width, height)).astype(int)
        corners = (x, y), (x + int(size[0]), y + int(size[1]))
        cv2.rectangle(image, *corners, colour, -1)
        if rng.random() < 0.5:
            edge = tuple(draw_colour(rng).tolist())
            cv2.rectangle(image, *corners, edge, max(1, height // 80))
    return image


def compose(
    background: Background, picture: Picture, meshes: Sequence[Mesh], lights: Lights
) -> Image:
    """The picture of the meshes over the background, on which they cast shadows.

    The background may be smaller than the picture; its image is changed.
    """
    _add_shadows(background, meshes, lights)
    image = background.image
    if image.shape[:2] != picture.owner.shape:
        image = cv2.resize(image, picture.owner.shape[::-1], interpolation=cv2.INTER_LINEAR)
    image.reshape(-1, 3)[picture.pixels] = picture.colours
    return soften_edges(image, picture.owner)


def _add_shadows(background: Background, meshes: Sequence[Mesh], lights: Lights) -> None:
    """Darken the floor in the shadow of the first light, and where meshes touch the floor."""
    if background.floor is None:
        return
    points, stage = np.concatenate([_surface_points(mesh) for mesh in meshes]), background.stage
    key, ambient = float(lights.colours[0].mean()), float(lights.sky.mean())
    if float(lights.directions[0] @ lights.up) > _LEAST_RISE:
        strength, soft_m = 0.85 * key / (key + ambient), 0.02 + 0.12 * float(lights.softness[0])
        cast_shadow(background, points, lights.directions[0], strength, soft_m)
    low = points[points @ stage.up + stage.height_m < 0.25]
    if len(low):
        cast_shadow(background, low, lights.up, 0.45, 0.06)


def _surface_points(mesh: Mesh) -> Float32[np.ndarray, "P 3"]:
    """Points on the surface, a few centimetres apart, metres in the camera frame."""
    if len(mesh.points) > 1000:
        return mesh.points[::_SHADOW_POINTS]
    corners = mesh.points[mesh.faces]
    u, v = np.meshgrid(np.linspace(0, 1, 14), np.linspace(0, 1, 14))
    inside = u + v <= 1
    u, v = u[inside][:, None, None], v[inside][:, None, None]
    a, b, c = corners.transpose(1, 0, 2)
    return ((1 - u - v) * a + u * b + v * c).reshape(-1, 3).astype(np.float32)


def cast_shadow(
    background: Background,
    points: Float32[np.ndarray, "V 3"],
    to_light: Float[np.ndarray, "3"],
    strength: float,
    soft_m: float,
) -> None:
    """Darken the floor where `points` block the light.

    Args:
        points: a dense sample of surfaces, metres in the camera frame.
        to_light: direction to the light.
        strength: share of the light that is removed in full shadow.
        soft_m: standard deviation of the blur of the shadow's edge, metres.
    """
    (height, width), camera = background.image.shape[:2], background.camera
    up = background.stage.up
    above = points @ up + background.stage.height_m
    on_floor = points - (above / float(up @ to_light))[:, None] * to_light
    on_floor = on_floor[on_floor[:, 2] > 0.2]
    step = max(1, height // 120)
    small = (height // step + 1, width // step + 1)
    column, row = np.rint(camera.project(on_floor).T / step).astype(int)
    inside = (column >= 0) & (column < small[1]) & (row >= 0) & (row < small[0])
    if not inside.any():
        return
    mask = np.zeros(small, np.float32)
    mask[row[inside], column[inside]] = 1
    pixels_per_m = camera.focal[0] / step / float(np.median(on_floor[:, 2]))
    side = int(np.clip(0.05 * pixels_per_m, 1, 15)) | 1
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((2 * side + 1, 2 * side + 1)))
    mask = cv2.GaussianBlur(mask, (0, 0), max(soft_m * pixels_per_m, 0.7))
    shade = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR) * np.float32(strength)
    if background.floor is not None:
        shade *= background.floor
    np.multiply(background.image, (1 - shade)[..., None], out=background.image)
