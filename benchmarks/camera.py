"""Accuracy and cost of the estimated camera motion.

    python -m benchmarks.camera [--frames 300] [--video FILE] [--seed 0] [--find-focal]

Cameras with known motion film a hall with textured walls, floor, ceiling and boards, in which
people are boxes of noise. With --video, a video of a static camera is used instead: the video
itself, and windows that pan and zoom inside its frames. The built-in detector then finds people.

    kind     estimated kind of motion, and the true one if it differs
    deg      mean error of the orientation, relative to the first frame
    deg/s    drift: magnitude of the slope of a line that is fitted to the error
    way      for moving cameras: error of the position with the best scale, in percent of the length
             of the path
    ms       CPU time per frame

With --find-focal, the focal length is assumed to be the image's diagonal, and the estimated focal
length is compared with the true one.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation

from configs.reader import load_config
from main.motion.camera import CameraMotion, Clip, choose_camera
from main.motion.camera_motion import CameraTracker
from main.pipeline.detection import Detectors
from synthetic.rendering import FLIP
from synthetic.shots import CAMERAS, Shot, make_shot
from utils.files import ROOT
from utils.source import open_source

WAYS: Final = CAMERAS | {"pan round": lambda t, _: make_shot("rotating", t, yaw=36 * t, pitch=3)}
"""Functions from times in seconds to a shot; x is right, y up, z back, and the floor at y = 0."""
FPS: Final = 30
WIDTH, HEIGHT, FOCAL = 1280, 720, 1100.0
WINDOW, WINDOW_FOCAL = (480, 270), 700.0
"""Size and focal length of cameras that turn inside a video's frames, pixels."""
_TEXTURE_PX: Final = 1024
_NEAR_M: Final = 0.1


class Board(NamedTuple):
    """A textured rectangle: a corner and two sides, metres."""

    corner: Float[np.ndarray, "3"]
    right: Float[np.ndarray, "3"]
    down: Float[np.ndarray, "3"]
    texture: UInt8[np.ndarray, "H W 3"]


def hall(rng: np.random.Generator) -> list[Board]:
    """Walls, floor and ceiling, then boards in front of them."""
    x, z, y = 9.0, 11.0, 4.0
    boards = [
        ((-x, 0, -z), (2 * x, 0, 0), (0, 0, 2 * z)),
        ((-x, y, z), (2 * x, 0, 0), (0, 0, -2 * z)),
        ((-x, y, -z), (2 * x, 0, 0), (0, -y, 0)),
        ((x, y, z), (-2 * x, 0, 0), (0, -y, 0)),
        ((-x, y, z), (0, 0, -2 * z), (0, -y, 0)),
        ((x, y, -z), (0, 0, 2 * z), (0, -y, 0)),
    ]
    free = []
    for _ in range(14):
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(4.5, 8)
        wide, high = rng.uniform(0.5, 1.6), rng.uniform(0.5, 2.2)
        place = np.array([distance * np.sin(angle), high, -distance * np.cos(angle)])
        side = wide * np.array([np.cos(angle), 0, np.sin(angle)])
        free.append((tuple(place - side / 2), tuple(side), (0, -high, 0)))
    return [
        Board(*(np.array(part, float) for part in parts), _texture(rng, parts))
        for parts in [*boards, *free]
    ]


def _texture(rng: np.random.Generator, parts: tuple) -> UInt8[np.ndarray, "H W 3"]:
    """Random spots of several sizes, which are the same in metres on all boards."""
    sides = [np.linalg.norm(part) for part in parts[1:]]
    per_m = min(_TEXTURE_PX / max(sides), 150)
    width, height = (max(int(side * per_m), 16) for side in sides)
    image = np.full((height, width, 3), rng.uniform(60, 180, 3), np.float32)
    for grain_m in (0.08, 0.2, 0.6):
        grain = max(int(grain_m * per_m), 2)
        spots = rng.standard_normal((height // grain + 2, width // grain + 2, 1), np.float32)
        large = cv2.resize(spots, (width, height), interpolation=cv2.INTER_CUBIC)
        image += 22 * large[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def see(boards: list[Board], shot: Shot, number: int) -> UInt8[np.ndarray, "H W 3"]:
    """The hall seen by a camera; boards are drawn from the farthest to the nearest."""
    centre, rotation = shot.centre[number], shot.rotation[number]
    focal = FOCAL * shot.zoom[number]
    matrix = np.array([[focal, 0, (WIDTH - 1) / 2], [0, focal, (HEIGHT - 1) / 2], [0, 0, 1]])
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    def distance(board: Board) -> float:
        return float(np.linalg.norm(board.corner + (board.right + board.down) / 2 - centre))

    order = [*boards[:6], *sorted(boards[6:], key=distance, reverse=True)]
    for board in order:
        height, width = board.texture.shape[:2]
        axes = np.stack([board.right / width, board.down / height, board.corner - centre], axis=1)
        to_camera = rotation @ axes
        corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1.0]])
        outline = _in_front(corners @ to_camera.T) @ matrix.T
        if len(outline) < 3:
            continue
        polygon = outline[:, :2] / outline[:, 2:]
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        polygon = np.clip(polygon, -20000, 20000)
        cv2.fillConvexPoly(mask, np.rint(polygon * 16).astype(np.int32), 255, shift=4)
        if not mask.any():
            continue
        drawn = cv2.warpPerspective(
            board.texture, matrix @ to_camera, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE
        )
        cv2.copyTo(drawn, mask, image)
    return image


def _in_front(corners: Float[np.ndarray, "4 3"]) -> Float[np.ndarray, "N 3"]:
    """The part of a polygon that is in front of the camera."""
    kept = []
    for one, other in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if one[2] > _NEAR_M:
            kept.append(one)
        if (one[2] > _NEAR_M) != (other[2] > _NEAR_M):
            share = (_NEAR_M - one[2]) / (other[2] - one[2])
            kept.append(one + share * (other - one))
    return np.array(kept).reshape(-1, 3)


Filmed = Iterator[tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "P 4"]]]


def film(shot: Shot, rng: np.random.Generator, people: int = 2) -> Filmed:
    """Frames of the hall with people who cross them, and the people's boxes."""
    boards = hall(rng)
    starts = rng.uniform(0, WIDTH, people)
    for number in range(len(shot.zoom)):
        image = see(boards, shot, number)
        boxes = []
        for one in range(people):
            x = int(starts[one] + 5 * (-1) ** one * number) % WIDTH
            box = (x, 190 + 30 * one, min(150, WIDTH - x), 430)
            spots = rng.integers(0, 255, (43, 15, 3), np.uint8)
            spots = cv2.resize(spots, (150, 430), interpolation=cv2.INTER_NEAREST)
            image[box[1] : box[1] + box[3], x : x + box[2]] = spots[:, : box[2]]
            boxes.append(box)
        noisy = image + rng.normal(0, 3, image.shape[:2])[..., None]
        yield np.clip(noisy, 0, 255).astype(np.uint8), np.array(boxes, float)


class Case(NamedTuple):
    """A camera with known motion, and its frames; the focal length is in pixels."""

    name: str
    shot: Shot
    filmed: Filmed
    size: tuple[int, int]
    focal: float
    fps: float

    def follow(self, focal: float | None) -> tuple[CameraTracker, float]:
        """A tracker that has read all frames, and CPU milliseconds per frame.

        Args:
            focal: focal length in pixels; None is the image's diagonal.
        """
        camera = choose_camera(*self.size, focal_px=focal, fov_deg=None, image=None)
        tracker, spent = CameraTracker(Clip(camera, self.size, self.fps)), 0.0
        for number, (image, boxes) in enumerate(self.filmed):
            start = time.process_time()
            tracker.add(number, image, boxes)
            spent += time.process_time() - start
        return tracker, 1000 * spent / len(self.shot.zoom)


def turn_errors(
    found: Float[np.ndarray, "T 3 3"],
    true: Float[np.ndarray, "T 3 3"],
    seconds: Float[np.ndarray, " T"],
) -> tuple[float, float]:
    """Mean error of rotations in degrees, and its drift in degrees per second."""
    off = found @ true.transpose(0, 2, 1)
    vectors = np.degrees(Rotation.from_matrix(off).as_rotvec())
    drift = float(np.linalg.norm(np.polyfit(seconds, vectors, 1)[0]))
    return float(np.linalg.norm(vectors, axis=1).mean()), drift


def errors_of(motion: CameraMotion, shot: Shot, fps: float) -> tuple[float, float, float | None]:
    """Degrees, degrees per second, and error of the path in percent of its length."""
    truth = shot.rotation @ shot.rotation[0].T
    seconds = np.arange(len(truth)) / fps
    degrees, drift = turn_errors(motion.camera_from_first[:, :3, :3], truth, seconds)
    way = None
    if shot.kind == "moving":
        poses = motion.camera_from_first
        centres = -np.einsum("tji,tj->ti", poses[:, :3, :3], poses[:, :3, 3])
        truth_centres = (shot.centre - shot.centre[0]) @ shot.rotation[0].T
        length = np.linalg.norm(np.diff(truth_centres, axis=0), axis=1).sum()
        scale = (centres * truth_centres).sum() / max((centres**2).sum(), 1e-12)
        gap = np.linalg.norm(scale * centres - truth_centres, axis=1)
        way = float(100 * np.sqrt(np.mean(gap**2)) / length)
    return degrees, drift, way


def boxes_in(video: Path, frame_count: int) -> list[Float[np.ndarray, "P 4"]]:
    """Boxes of people in each frame, from the built-in detector."""
    config = load_config(ROOT / "configs" / "config_smplest_x_demo.py").inference.detection
    detector = Detectors(None, "movenet", config, torch.device("cpu")).for_source(video)
    found = []
    with open_source(video) as source:
        for frame in source:
            if frame.index == frame_count:
                break
            boxes = [one.box for one in detector(frame.index, frame.image)]
            xywh = [(box.x, box.y, box.width, box.height) for box in boxes]
            found.append(np.array(xywh, float).reshape(-1, 4))
    return found


def over_video(video: Path, people: list[Float[np.ndarray, "P 4"]], shot: Shot | None) -> Filmed:
    """Frames of a video, or of a camera that turns and zooms inside its frames, and boxes."""
    with open_source(video) as source:
        own = choose_camera(
            source.info.width, source.info.height, focal_px=None, fov_deg=None, image=None
        )
        for frame, xywh in zip(source, people, strict=False):
            if shot is None:
                yield frame.image, xywh
                continue
            focal = WINDOW_FOCAL * shot.zoom[frame.index]
            width, height = WINDOW
            inner = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
            outer = np.diag([*own.focal, 1.0])
            outer[:2, 2] = own.princpt
            warp = inner @ shot.rotation[frame.index] @ FLIP @ np.linalg.inv(outer)
            corners = xywh[:, None, :2] + xywh[:, None, 2:] * np.array(
                [[0, 0], [0, 1], [1, 0], [1, 1]]
            )
            rays = np.concatenate([corners, np.ones((len(xywh), 4, 1))], axis=2) @ warp.T
            moved = rays[..., :2] / rays[..., 2:]
            low = moved.min(axis=1)
            seen = np.concatenate([low, moved.max(axis=1) - low], axis=1)
            yield cv2.warpPerspective(frame.image, warp, WINDOW, flags=cv2.INTER_LINEAR), seen


def cases_of_video(video: Path, frame_count: int) -> Iterator[Case]:
    """The video itself, a pan over it, and a pan with zoom."""
    with open_source(video) as source:
        info = source.info
    people = boxes_in(video, frame_count)
    fps, count = float(info.fps), len(people)
    size, diagonal = (info.width, info.height), math.hypot(info.width, info.height)
    t = np.arange(count) / fps
    yield Case(
        "video", make_shot("static", t), over_video(video, people, None), size, diagonal, fps
    )
    yaw, roll = 3.5 * np.sin(2 * np.pi * t / 6), 2 * np.sin(2 * np.pi * t / 4)
    for name, zoom in (("pan of it", 1.0), ("pan, zoom", np.exp(0.15 * (1 - np.cos(t))))):
        shot = make_shot("rotating", t, yaw=yaw, pitch=np.sin(t), roll=roll, zoom=zoom)
        yield Case(name, shot, over_video(video, people, shot), WINDOW, WINDOW_FOCAL, fps)


def cases_of_hall(frame_count: int, seed: int, only: str | None) -> Iterator[Case]:
    time_s = np.arange(frame_count) / FPS
    for name, way in WAYS.items():
        if only in (None, name):
            rng = np.random.default_rng(seed)
            shot = way(time_s, rng)
            yield Case(name, shot, film(shot, rng), (WIDTH, HEIGHT), FOCAL, FPS)


def motion_row(case: Case) -> list[str]:
    tracker, ms = case.follow(case.focal)
    start = time.process_time()
    motion = tracker.finish()
    ms += 1000 * (time.process_time() - start) / len(case.shot.zoom)
    degrees, drift, off = errors_of(motion, case.shot, case.fps)
    zoom = 100 * float(np.abs(motion.zoom / (case.shot.zoom / case.shot.zoom[0]) - 1).max())
    kind = motion.kind if motion.kind == case.shot.kind else f"{motion.kind} (is {case.shot.kind})"
    way = "" if off is None else f"{off:.1f}"
    return [case.name, kind, f"{degrees:.3f}", f"{drift:.4f}", way, f"{zoom:.2f}", f"{ms:.1f}"]


def focal_row(case: Case) -> list[str]:
    tracker, _ = case.follow(None)
    start = time.process_time()
    focal = tracker.find_focal()
    seconds = f"{time.process_time() - start:.2f}"
    true = f"{case.focal * case.shot.zoom[0]:.0f}"
    assumed = f"{math.hypot(*case.size):.0f}"
    return [case.name, true, assumed, "none" if focal is None else f"{focal:.0f}", seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--video", type=Path, help="a video of a static camera")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=WAYS, help="one of the cameras in the hall")
    parser.add_argument("--find-focal", action="store_true", help="estimate the focal length")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.video is None:
        cases = cases_of_hall(arguments.frames, arguments.seed, arguments.only)
    else:
        cases = cases_of_video(arguments.video, arguments.frames)
    if arguments.find_focal:
        table, row = Table("camera", "true", "assumed", "found", "seconds"), focal_row
    else:
        table, row = Table("camera", "kind", "deg", "deg/s", "way %", "zoom %", "ms"), motion_row
    for case in cases:
        table.add_row(*row(case))
    Console().print(table)


if __name__ == "__main__":
    main()
