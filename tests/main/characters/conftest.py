"""A made-up result folder: someone walks towards the camera, moving fingers, jaw and face."""

import json
from pathlib import Path

import numpy as np
import pytest

from human_models.body import BodyModel
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder, read_body
from human_models.joints import BODY_JOINTS

FRAMES, FPS = 48, 24.0
GAP = (20, 21, 22)


def walk(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Parameters as inference writes them: camera frame, hands relative to the mean hand."""
    count = len(frames)
    phase = 2 * np.pi * frames / 24
    body = np.zeros((count, 21, 3))

    def joint(name: str) -> np.ndarray:
        return body[:, BODY_JOINTS.index(name) - 1]

    for side, sign in (("left", 1.0), ("right", -1.0)):
        swing = sign * np.sin(phase)
        joint(f"{side}_hip")[:, 0] = -0.5 * swing
        joint(f"{side}_knee")[:, 0] = 0.55 - 0.5 * np.cos(phase + sign)
        joint(f"{side}_ankle")[:, 0] = -0.15
        joint(f"{side}_shoulder")[:, 2] = -sign * 1.15
        joint(f"{side}_shoulder")[:, 1] = -0.45 * swing * sign
        joint(f"{side}_elbow")[:, 1] = -sign * (0.5 + 0.2 * swing)
    joint("spine2")[:, 1] = 0.12 * np.sin(phase)
    joint("head")[:, 1] = 0.5 * np.sin(phase / 2)
    # Upright before the camera (y down): half a turn about x, and on past it about y.
    heading = 0.5 * np.sin(phase / 4)
    half = np.pi * np.stack([np.cos(heading / 2), 0 * heading, -np.sin(heading / 2)], axis=1)
    fingers = np.zeros((count, 15, 3))
    fingers[:, :12, 2] = 0.6 * (np.cos(phase) - 0.3)[:, None]
    mirrored = fingers * [1, -1, -1]
    expression = np.zeros((count, 10))
    expression[:, 0] = 1.5 * np.sin(phase / 2)
    expression[:, 3] = np.cos(phase)
    betas = np.tile([1.2, -0.8, 0.5, 0, 0, 0.3, 0, 0, 0, 0], (count, 1))
    betas[:, 1] += 0.1 * np.sin(frames)
    jaw = np.zeros((count, 3))
    jaw[:, 0] = 0.18 + 0.16 * np.sin(phase)
    transl = np.stack([0.3 * np.sin(phase / 4), 0.2 + 0 * phase, 5 - 1.2 * frames / 24], axis=1)
    return {
        "global_orient": half,
        "body_pose": body.reshape(count, 63),
        "left_hand_pose": fingers.reshape(count, 45),
        "right_hand_pose": mirrored.reshape(count, 45),
        "jaw_pose": jaw,
        "betas": betas,
        "expression": expression,
        "transl": transl,
    }


def write_person(file: Path, frames: np.ndarray, **changes: np.ndarray) -> None:
    columns = {name: value.astype(np.float32) for name, value in walk(frames).items()}
    rest = {
        "frame_index": frames.astype(np.int32),
        "score": np.ones(len(frames), np.float32),
        "fps": np.float64(FPS),
        "image_size": np.array([1280, 720], np.int32),
        "body_model": np.array(STAND_IN_NAME),
        "flat_hand_mean": np.bool_(False),
    }
    np.savez(file, **(columns | rest | changes))


@pytest.fixture(scope="session")
def result(tmp_path_factory) -> Path:
    """Person 1 in all frames but a gap, person 2 in three frames; read only."""
    folder = tmp_path_factory.mktemp("result_walk")
    frames = np.setdiff1d(np.arange(FRAMES), GAP)
    write_person(folder / "person_001.npz", frames)
    write_person(folder / "person_002.npz", np.array([5, 6, 7]))
    (folder / "summary.json").write_text(json.dumps({"fps": FPS, "people": []}))
    return folder


@pytest.fixture(scope="session")
def data():
    return read_body(ModelFolder(STAND_IN, STAND_IN_NAME), "smplx")


@pytest.fixture(scope="session")
def body(data) -> BodyModel:
    return BodyModel(data).eval()
