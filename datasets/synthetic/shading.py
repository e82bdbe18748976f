"""Light on meshes: soft lights of several colours, computed at vertices, textured at pixels."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from datasets.synthetic.meshes import Mesh, gather
from datasets.synthetic.raster import draw
from datasets.synthetic.textures import SIDE
from utils.camera import Camera

_SHININESS: Final = 16


class Lights(NamedTuple):
    """Lights of a scene in the camera frame. Colours are RGB irradiances of about 1 in all."""

    up: Float32[np.ndarray, "3"]
    sky: Float32[np.ndarray, "3"]
    """Light from above that comes from everywhere, and that from below."""
    ground: Float32[np.ndarray, "3"]
    directions: Float32[np.ndarray, "L 3"]
    """Unit vectors to the lights; the first one casts the shadow."""
    colours: Float32[np.ndarray, "L 3"]
    softness: Float32[np.ndarray, " L"]
    """0: a point of light; 1: as wide as half the sky."""


def draw_lights(rng: np.random.Generator, up: Float[np.ndarray, "3"]) -> Lights:
    """One to three lights over a general one; `up` is the world's in the camera frame."""
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
    return Lights(
        up.astype(np.float32),
        (ambient * np.clip(white + rng.normal(0, 0.05, 3), 0.4, 1.6)).astype(np.float32),
        (ambient * rng.uniform(0.3, 0.8) * np.clip(1 + rng.normal(0, 0.08, 3), 0.4, 1.6)).astype(
            np.float32
        ),
        np.array(directions, np.float32),
        np.array(colours, np.float32),
        rng.uniform(0.05, 0.7, count).astype(np.float32),
    )


class Picture(NamedTuple):
    """Meshes as a camera sees them; P pixels show one."""

    colours: Float32[np.ndarray, "P 3"]
    """RGB, 0 to about 1."""
    pixels: Int[np.ndarray, " P"]
    """Positions in the flattened picture."""
    owner: Int32[np.ndarray, "H W"]
    """Number of the mesh that a pixel shows, -1: none."""
    depth_m: Float32[np.ndarray, "H W"]


def render(
    meshes: Sequence[Mesh], lights: Lights, camera: Camera, shape: tuple[int, int]
) -> Picture:
    """Draw meshes (one at least) in a picture of `shape` (height, width)."""
    mesh = gather(meshes)
    attributes = np.empty((len(mesh.points), 6), np.float32)
    attributes[:, :3] = _lit(mesh, lights)
    attributes[:, 3:5] = mesh.uv
    attributes[:, 5] = mesh.texture
    seen = draw(mesh.points, mesh.faces, mesh.two_sided, attributes, camera, shape)
    number = np.rint(seen.values[:, 5]).astype(np.int32)
    place = (seen.values[:, 3:5] * SIDE).astype(np.int32) & (SIDE - 1)
    texels = np.concatenate(mesh.textures).reshape(-1, 3)
    colours = seen.values[:, :3] * texels[(number * SIDE + place[:, 1]) * SIDE + place[:, 0]]
    of_texture = np.repeat(np.arange(len(meshes)), [len(one.textures) for one in meshes])
    owner = np.full(shape, -1, np.int32)
    owner.ravel()[seen.pixels] = of_texture[number]
    return Picture(colours, seen.pixels, owner, seen.depth_m)


def _lit(mesh: Mesh, lights: Lights) -> Float32[np.ndarray, "V 3"]:
    """Light that the vertices send back, with the Blinn-Phong gloss of the first light.

    Normals that point away from the camera belong to what is seen from its inside.
    """
    normals = mesh.normals
    rise = 0.5 + 0.5 * (normals @ lights.up)[:, None]
    light = lights.ground + rise * (lights.sky - lights.ground)
    cosines = normals @ lights.directions.T
    facing = np.maximum((cosines + lights.softness) / (1 + lights.softness), 0)
    light = light + facing @ lights.colours
    to_camera = -mesh.points / np.linalg.norm(mesh.points, axis=1, keepdims=True)
    halfway = to_camera + lights.directions[0]
    halfway /= np.maximum(np.linalg.norm(halfway, axis=1, keepdims=True), 1e-6)
    shine = np.maximum(np.einsum("vc,vc->v", normals, halfway), 0)
    for _ in range(int(math.log2(_SHININESS))):
        shine = shine * shine
    gloss = (mesh.gloss * shine)[:, None] * lights.colours[0]
    return (light * mesh.tint + gloss).astype(np.float32)
