"""A picture from people and things on a stage: background, shadows, meshes, camera."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from datasets.synthetic.backgrounds import Background, cast_shadow
from datasets.synthetic.finish import soften_edges, take
from datasets.synthetic.meshes import Mesh
from datasets.synthetic.shading import Lights, Picture
from datasets.synthetic.stage import Stage
from utils.camera import Camera

_SHADOW_POINTS: Final = 5
"""Every so many-th point casts shadow."""
_LEAST_RISE: Final = 0.25
"""Light lower than this throws shadows too long for a sample of points."""


def compose(
    rng: np.random.Generator,
    background: Background,
    picture: Picture,
    meshes: Sequence[Mesh],
    lights: Lights,
    stage: Stage,
    camera: Camera,
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay what is seen of the meshes over the background and take the picture.

    The background may be smaller than the picture; `camera` is the background's.
    """
    add_shadows(background, meshes, lights, stage, camera)
    image: Float32[np.ndarray, "H W 3"] = background.image
    if image.shape[:2] != picture.owner.shape:
        image = cv2.resize(image, picture.owner.shape[::-1], interpolation=cv2.INTER_LINEAR)
    image.reshape(-1, 3)[picture.pixels] = picture.colours
    return take(rng, soften_edges(image, picture.owner))


def add_shadows(
    background: Background,
    meshes: Sequence[Mesh],
    lights: Lights,
    stage: Stage,
    camera: Camera,
) -> None:
    """The first light's shadow, and the dark where things touch the floor."""
    if background.floor is None:
        return
    points = np.concatenate([_spread(mesh) for mesh in meshes])
    key, ambient = float(lights.colours[0].mean()), float(lights.sky.mean())
    if float(lights.directions[0] @ lights.up) > _LEAST_RISE:
        strength, soft = 0.85 * key / (key + ambient), 0.02 + 0.12 * float(lights.softness[0])
        cast_shadow(background, points, stage, camera, lights.directions[0], strength, soft)
    low = points[points @ stage.up + stage.height_m < 0.25]
    if len(low):
        cast_shadow(background, low, stage, camera, lights.up, 0.45, 0.06)


def _spread(mesh: Mesh) -> Float32[np.ndarray, "P 3"]:
    """Points on the surface, some centimetres apart."""
    if len(mesh.points) > 1000:
        return mesh.points[::_SHADOW_POINTS]
    corners = mesh.points[mesh.faces]
    u, v = np.meshgrid(np.linspace(0, 1, 14), np.linspace(0, 1, 14))
    inside = u + v <= 1
    u, v = u[inside][:, None, None], v[inside][:, None, None]
    a, b, c = corners.transpose(1, 0, 2)
    return ((1 - u - v) * a + u * b + v * c).reshape(-1, 3).astype(np.float32)
