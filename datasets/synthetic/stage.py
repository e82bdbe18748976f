"""The place where people stand: a camera over a floor, and pinhole views of it.

The world has y up and its origin under no one in particular; the camera is at its own height over
the floor and looks along -z, tilted. The camera frame has x right, y down, z forward.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from datasets.synthetic.figures import Figure
from datasets.synthetic.limbs import Rotation, turn
from utils.camera import Camera

FILM_HEIGHT_MM: Final = 24.0
FILM_WIDTH_MM: Final = 36.0
_FLIP: Final = np.diag([1.0, -1.0, -1.0])


class Stage(NamedTuple):
    """A camera over a floor."""

    focal_mm: float
    """As of a camera with film of 36 x 24 mm."""
    height_m: float
    """Of the camera over the floor."""
    from_world: Rotation
    """From world axes to the camera's."""

    @property
    def up(self) -> Float[np.ndarray, "3"]:
        """The world's up in the camera frame."""
        return self.from_world[:, 1]


def draw_stage(rng: np.random.Generator, distance_m: float, focal_mm: float) -> Stage:
    """A camera that looks at something as tall as people at a distance."""
    kind = rng.random()
    if kind < 0.7:
        height = float(np.clip(rng.normal(1.45, 0.3), 0.6, 2.2))
    else:
        height = rng.uniform(0.15, 0.9) if kind < 0.82 else rng.uniform(2.0, 4.5)
    aside = rng.uniform(-0.18, 0.18) * FILM_HEIGHT_MM / focal_mm
    pitch = math.degrees(math.atan2(height - 0.9, distance_m) + aside)
    roll = rng.normal(0, 12) if rng.random() < 0.1 else rng.normal(0, 2)
    return Stage(focal_mm, height, turn("z", roll) @ turn("x", pitch) @ _FLIP)


def draw_focal_mm(rng: np.random.Generator) -> float:
    """24 to 85 mm, each doubling as likely as the other."""
    return float(math.exp(rng.uniform(math.log(24), math.log(85))))


def place(
    stage: Stage,
    figure: Figure,
    right_m: float,
    away_m: float,
    lift_m: float = 0.0,
    lowest_m: float | None = None,
) -> Float32[np.ndarray, "3"]:
    """The translation that puts a person's lowest point on the floor (`lift_m` over it), the pelvis
    `right_m` and `away_m` from the camera along the floor. `figure` is turned to the camera frame.
    `lowest_m` is its lowest point along `stage.up` if that is to be another than its own.
    """
    up = stage.up
    lowest = float((figure.points @ up).min()) if lowest_m is None else lowest_m
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
    """A camera of the whole picture; the film's longer side is the picture's."""
    height, width = shape
    focal = focal_mm / FILM_WIDTH_MM * max(height, width)
    return Camera((focal, focal), ((width - 1) / 2, (height - 1) / 2))


def halved(camera: Camera) -> Camera:
    """The camera of the same picture with half as many pixels a side."""
    (fx, fy), (cx, cy) = camera
    return Camera((fx / 2, fy / 2), ((cx + 0.5) / 2 - 0.5, (cy + 0.5) / 2 - 0.5))


def project(points: Float[np.ndarray, "*N 3"], camera: Camera) -> Float[np.ndarray, "*N 2"]:
    """Points of the camera frame in metres to pixels; those behind the camera come out wrong."""
    depth = np.maximum(points[..., 2], 1e-3)
    pixels = np.empty((*points.shape[:-1], 2), points.dtype)
    for axis in range(2):
        pixels[..., axis] = points[..., axis] / depth * camera.focal[axis] + camera.princpt[axis]
    return pixels
