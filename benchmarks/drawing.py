"""Time a frame's way without the network: decode, draw a person, encode. Full HD, on the CPU.

    python -m benchmarks.drawing [--frames 90] [--vertices 10400]

The person is an ellipsoid with about as many faces as SMPL-X that covers about 8 % of the image.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from utils.render import PERSON_COLOURS, MeshRenderer, PlacedMesh
from utils.source import open_source
from utils.video_write import VideoWriter

WIDTH, HEIGHT, FPS = 1920, 1080, 30
FOCAL, PRINCPT = (1500.0, 1500.0), (WIDTH / 2, HEIGHT / 2)


def ellipsoid(vertex_count: int) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """A body-sized ellipsoid at the origin (metres), faces counter-clockwise from outside."""
    rings = round(vertex_count**0.5)
    polar = np.linspace(0, np.pi, rings + 1)[:, None]
    around = np.linspace(0, 2 * np.pi, rings, endpoint=False)
    x, y = np.sin(polar) * np.cos(around), np.broadcast_to(np.cos(polar), (rings + 1, rings))
    vertices = np.stack([x * 0.37, y * 1.0, np.sin(polar) * np.sin(around) * 0.3], -1)
    ring, column = np.mgrid[:rings, :rings]
    a, b = ring * rings + column, ring * rings + (column + 1) % rings
    c, d = a + rings, b + rings
    faces = [np.stack(corners, -1).reshape(-1, 3) for corners in ((a, b, c), (b, d, c))]
    return vertices.reshape(-1, 3).astype(np.float32), np.concatenate(faces)


def moving_scene(count: int) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Frames that cost a codec about what a film does: soft shapes with a little grain, moving."""
    generator = np.random.default_rng(0)
    shapes = generator.integers(0, 256, (HEIGHT + 2 * count, WIDTH + 2 * count, 3), np.uint8)
    shapes = cv2.GaussianBlur(shapes, (0, 0), 12)
    shapes = cv2.normalize(shapes, np.empty_like(shapes), 30, 220, cv2.NORM_MINMAX)
    grain = generator.integers(0, 6, (HEIGHT, WIDTH, 3), np.uint8)
    return [shapes[2 * k : 2 * k + HEIGHT, k : k + WIDTH] + grain for k in range(count)]


def report(step: str, seconds: list[float]) -> None:
    milliseconds = np.array(seconds) * 1e3
    print(
        f"{step:34} {np.median(milliseconds):7.1f} ms/frame median, "
        f"{milliseconds.min():6.1f} best, {len(seconds) / sum(seconds):6.1f} frames/s"
    )


def time_drawing(frames: list[UInt8[np.ndarray, "H W 3"]], vertex_count: int) -> None:
    vertices, faces = ellipsoid(vertex_count)
    renderer = MeshRenderer(faces, len(vertices))
    for people in (1, 4):
        seconds = []
        for k, frame in enumerate(frames):
            meshes = [
                PlacedMesh(
                    vertices
                    + np.array([0.6 * (person - people / 2) + 0.003 * k, 0, 4], np.float32),
                    *(FOCAL, PRINCPT, PERSON_COLOURS[person]),
                )
                for person in range(people)
            ]
            start = time.perf_counter()
            drawn = renderer.overlay(frame, meshes)
            seconds.append(time.perf_counter() - start)
        share = (drawn != frames[-1]).any(axis=-1).mean()
        report(f"draw {people} x {len(vertices)} vertices ({share:.0%})", seconds)


def time_encoding(path: Path, frames: list[UInt8[np.ndarray, "H W 3"]]) -> None:
    start = time.perf_counter()
    with VideoWriter(path, FPS) as writer:
        for frame in frames:
            writer.write(frame)
    report("encode", [(time.perf_counter() - start) / len(frames)] * len(frames))


def time_decoding(path: Path) -> None:
    start = time.perf_counter()
    source = open_source(path)
    opened = time.perf_counter()
    count = sum(1 for _ in source)
    print(f"{'open (all time stamps, one frame)':34} {(opened - start) * 1e3:7.1f} ms")
    report("decode to RGB", [(time.perf_counter() - opened) / count] * count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=90)
    parser.add_argument("--vertices", type=int, default=10_400)
    arguments = parser.parse_args()

    # One thread, since the other cores belong to the network and the codec.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    frames = moving_scene(arguments.frames)
    time_drawing(frames, arguments.vertices)
    cv2.setNumThreads(threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.mp4"
        time_encoding(path, frames)
        time_decoding(path)


if __name__ == "__main__":
    main()
