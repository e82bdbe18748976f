"""The camera's motion, from drawn backgrounds that are warped as cameras would see them."""

import logging
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from main.motion.camera import CameraMotion, Clip, choose_camera, scaled
from main.motion.camera_motion import CameraTracker
from main.motion.odometry import Observation, find_path
from main.motion.turns import Turn, fit_turn

WIDTH, HEIGHT, FPS = 640, 360, 30.0
CAMERA = choose_camera(WIDTH, HEIGHT, focal_px=600, fov_deg=None, image=None)
CLIP = Clip(CAMERA, (WIDTH, HEIGHT), FPS)
MATRIX = np.array([[600, 0, CAMERA.princpt[0]], [0, 600, CAMERA.princpt[1]], [0, 0, 1.0]])
NOBODY = np.zeros((0, 4))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A large textured picture."""
    rng, side = np.random.default_rng(0), 1500
    image = np.zeros((side, side, 3), np.float32)
    for grain in (5, 15, 50):
        noise = rng.random((side // grain, side // grain, 3), np.float32)
        image += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(image * 85, 0, 255).astype(np.uint8)


def turning(
    picture: np.ndarray, vectors: np.ndarray, zooms: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """What a camera sees of the picture, far away, while it turns."""
    rng, middle = np.random.default_rng(1), picture.shape[0] / 2
    far = np.array([[600, 0, middle], [0, 600, middle], [0, 0, 1.0]])
    for number, rotation in enumerate(Rotation.from_rotvec(vectors).as_matrix()):
        zoom = 1.0 if zooms is None else zooms[number]
        lens = MATRIX @ np.diag([zoom, zoom, 1])
        warp = lens @ rotation @ np.linalg.inv(far)
        image = cv2.warpPerspective(picture, warp, (WIDTH, HEIGHT))
        yield np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def follow(images: Iterator[np.ndarray], boxes: np.ndarray = NOBODY) -> CameraMotion:
    tracker = CameraTracker(CLIP)
    for number, image in enumerate(images):
        tracker.add(number, image, boxes)
    return tracker.finish()


def error_deg(motion: CameraMotion, vectors: np.ndarray) -> np.ndarray:
    truth = Rotation.from_rotvec(vectors)
    ours = Rotation.from_matrix(motion.camera_from_first[:, :3, :3])
    return np.degrees((ours.inv() * truth * truth[0].inv()).magnitude())


def pan(frames: int) -> np.ndarray:
    """To the side and back, with some tilt and roll, radians."""
    time = np.linspace(0, 2 * np.pi, frames)
    return np.stack([0.05 * np.sin(2 * time), 0.5 * np.sin(time), 0.08 * np.sin(time)], axis=1)


def test_a_camera_that_turns_is_followed_and_looks_back_without_drift(
    picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    vectors = pan(60)
    motion = follow(turning(picture, vectors))
    error = error_deg(motion, vectors)
    assert motion.kind == "rotating"
    assert motion.scale_known
    assert error.max() < 0.1
    assert error[-1] < 0.02
    assert (motion.zoom == 1).all()
    assert (motion.confidence > 0.5).all()
    assert not motion.camera_from_first[:, :3, 3].any()
    assert "camera: turns by up to 29 degrees" in caplog.text


def test_zoom(picture: np.ndarray) -> None:
    zooms = np.exp(0.3 * np.sin(np.linspace(0, np.pi, 30)))
    vectors = 0.2 * pan(30)
    motion = follow(turning(picture, vectors, zooms))
    np.testing.assert_allclose(motion.zoom, zooms, rtol=3e-3)
    assert error_deg(motion, vectors).max() < 0.1


def focal_of(images: Iterator[np.ndarray]) -> float | None:
    """Of images that are as if from a camera of which nothing is known."""
    camera = choose_camera(WIDTH, HEIGHT, focal_px=None, fov_deg=None, image=None)
    tracker = CameraTracker(Clip(camera, (WIDTH, HEIGHT), FPS))
    for number, image in enumerate(images):
        tracker.add(number, image, NOBODY)
    return tracker.find_focal()


def test_turns_show_the_focal_length(picture: np.ndarray) -> None:
    vectors, zooms = pan(60), np.exp(0.2 * np.sin(np.linspace(0, np.pi, 60)))
    assert focal_of(turning(picture, vectors)) == pytest.approx(600, rel=0.01)
    assert focal_of(turning(picture, 0.5 * vectors, zooms)) == pytest.approx(600, rel=0.01)
    # Those of a camera that turns by less than a degree, or only zooms, do not.
    assert focal_of(turning(picture, 0.02 * vectors)) is None
    assert focal_of(turning(picture, 0 * vectors, zooms)) is None


def test_noise_is_no_motion_and_neither_is_a_person(
    picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    images = list(turning(picture, np.zeros((15, 3))))
    for number, image in enumerate(images):  # crosses most of the picture
        image[20:340, 10 * number : 10 * number + 400] = picture[:320, :400]
    tracker = CameraTracker(CLIP)
    for number, image in enumerate(images):
        tracker.add(number, image, np.array([[10.0 * number, 20, 400, 320]]))
    motion = tracker.finish()
    assert motion.kind == "static"
    assert motion.confidence.min() > 0.5
    assert (motion.camera_from_first == np.eye(4)).all()
    assert "camera: stands still; the background moves by at most 0." in caplog.text


def test_sudden_turns_are_found(picture: np.ndarray) -> None:
    vectors = np.zeros((12, 3))
    vectors[5:, 1] = 0.2  # 120 pixels
    motion = follow(turning(picture, vectors))
    assert error_deg(motion, vectors).max() < 0.1


def test_nothing_to_see_is_said_and_taken_for_a_camera_that_stands(
    picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    grey = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    motion = follow(iter([grey] * 5))
    assert motion.kind == "static"
    assert not motion.confidence.any()
    assert "nothing behind the people can be followed in 5 of 5 frames" in caplog.text
    everywhere = np.array([[0.0, 0, WIDTH, HEIGHT]])
    assert follow(turning(picture, pan(5)), everywhere).kind == "static"


def test_a_cut_leaves_the_camera_where_it_was(picture: np.ndarray) -> None:
    before = list(turning(picture, 0.3 * pan(10)))
    after = [cv2.flip(image[::-1], 1) for image in before]
    motion = follow(iter(before + after))
    assert motion.confidence[10] == 0
    step = motion.camera_from_first[10] @ np.linalg.inv(motion.camera_from_first[9])
    np.testing.assert_allclose(step, np.eye(4), atol=0.02)


def test_a_fit_withstands_outliers() -> None:
    rng = np.random.default_rng(2)
    before = rng.uniform((-320, -180), (320, 180), (100, 2))
    truth = Turn(Rotation.from_rotvec([0.05, -0.1, 0.2]).as_matrix(), 1.2)
    after = truth.of(before, 600) + rng.normal(0, 0.1, (100, 2))
    after[:45] += rng.uniform(-60, 60, (45, 2))
    start = Turn(np.eye(3), 1.0)
    fit = fit_turn(before, after, 600, start, rng)
    assert fit.turn.zoom == pytest.approx(1.2, rel=1e-3)
    between = Rotation.from_matrix(fit.turn.rotation @ truth.rotation.T).magnitude()
    assert np.degrees(between) < 0.02
    assert fit.inliers[45:].all()
    assert fit.inliers[:45].mean() < 0.1
    # What begins with rounding errors does not keep them: the next fit begins with this one.
    fit = fit_turn(before, after, 600, fit.turn._replace(rotation=1.0001 * fit.turn.rotation), rng)
    np.testing.assert_allclose(fit.turn.rotation @ fit.turn.rotation.T, np.eye(3), atol=1e-9)


def walk(frames: int, speed_m: float) -> np.ndarray:
    """Poses from the world of a camera that walks to the right and looks about."""
    time = np.arange(frames)
    vectors = np.stack([0.03 * np.sin(time / 9), 0.1 * np.sin(time / 13), 0 * time], axis=1)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(vectors).as_matrix()
    centres = np.stack([speed_m * time, 0.05 * np.sin(time / 4), speed_m * time / 3], axis=1)
    poses[:, :3, 3] = -np.einsum("tij,tj->ti", poses[:, :3, :3], centres)
    return poses


def observations_of(poses: np.ndarray) -> list[Observation]:
    """Points of a room as they are seen, with noise of a fifth of a pixel; some are wrong."""
    rng = np.random.default_rng(3)
    points = rng.uniform((-4, -2, 3), (9, 2, 9), (900, 3))
    seen = []
    for pose in poses:
        local = points @ pose[:3, :3].T + pose[:3, 3]
        places = local[:, :2] / local[:, 2:] + rng.normal(0, 0.2 / 600, (len(points), 2))
        inside = (local[:, 2] > 0.5) & (np.abs(places) < (0.53, 0.3)).all(axis=1)
        ids = np.flatnonzero(inside)[:90].astype(np.int32)
        wrong = rng.random(len(ids)) < 0.03
        places[ids[wrong]] += rng.uniform(-0.1, 0.1, (wrong.sum(), 2))
        seen.append(Observation(ids, places[ids]))
    return seen


def test_the_way_of_a_camera_that_walks() -> None:
    poses = walk(80, 0.03)
    poses = poses @ np.linalg.inv(poses[0])
    path = find_path(observations_of(poses), poses[:, :3, :3], 0.7 / 600)
    assert path is not None
    assert path.confidence.min() > 0.5
    ours, truth = path.camera_from_first, poses
    centres = [-np.einsum("tji,tj->ti", one[:, :3, :3], one[:, :3, 3]) for one in (ours, truth)]
    scale = (centres[0] * centres[1]).sum() / (centres[0] ** 2).sum()
    assert np.linalg.norm(scale * centres[0] - centres[1], axis=1).max() < 0.03  # of 2.5 metres
    between = ours[:, :3, :3] @ truth[:, :3, :3].transpose(0, 2, 1)
    assert np.degrees(Rotation.from_matrix(between).magnitude()).max() < 0.3


@pytest.mark.parametrize("black", [slice(0, 3), slice(40, 43), slice(77, 80)])
def test_black_frames_do_not_end_the_way(black: slice) -> None:
    poses = walk(80, 0.03)
    observations = observations_of(poses)
    for number in range(80)[black]:
        observations[number] = Observation(np.zeros(0, np.int32), np.zeros((0, 2)))
    path = find_path(observations, poses[:, :3, :3], 0.7 / 600)
    assert path is not None
    assert not path.confidence[black].any()
    assert np.delete(path.confidence, black).min() > 0.5


def test_a_camera_that_only_turns_has_no_way() -> None:
    poses = walk(40, 0.0)
    poses[:, :3, 3] = 0
    assert find_path(observations_of(poses), poses[:, :3, :3], 0.7 / 600) is None


def parallax(picture: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    """A near and a far wall, beside each other, from a camera that moves to the right."""
    middle, side = picture.shape[0] / 2, WIDTH // 2
    for number in range(frames):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for part, depth_m, rows in ((0, 3.0, slice(180, HEIGHT)), (1, 9.0, slice(0, 180))):
            shift = 600 * 0.02 * number / depth_m
            matrix = np.array([[1, 0, side - middle + 100 * part - shift], [0, 1, 180 - middle]])
            image[rows] = cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT))[rows]
        yield image


def test_parallax_says_that_a_camera_moves(
    picture: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    motion = follow(parallax(picture, 75))
    assert motion.kind == "moving"
    assert focal_of(parallax(picture, 75)) is None
    assert not motion.scale_known
    assert "camera: moves, and turns" in caplog.text
    shift = motion.camera_from_first[:, :3, 3]
    # The unit is unknown; the path is straight and even, to the right.
    even = np.linspace(0, 1, 75)
    np.testing.assert_allclose(shift[:, 0] / shift[-1, 0], even, atol=0.03)
    assert shift[-1, 0] < 0
    assert np.abs(shift[:, 1:]).max() < 0.05 * abs(shift[-1, 0])
    metres = scaled(motion, 1.48 / abs(shift[-1, 0]))
    assert metres.scale_known
    assert metres.camera_from_first[-1, 0, 3] == pytest.approx(-1.48)
