"""A made-up result: two people in 30 small frames whose brightness shows their number."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from human_models.body import BodyModel
from human_models.files import STAND_IN_NAME
from human_models.joints import BODY_JOINTS, JOINTS_FROM_MODEL
from main.characters.export import export_result
from main.estimator import Person
from main.results import open_results
from main.tracks.camera import ClipCamera
from main.tracks.placing import place_rows
from utils.video_write import VideoWriter

FRAMES, FPS, SIZE = 30, 20.0, (320, 180)
CAMERA = ClipCamera((367.0, 367.0), (159.5, 89.5), "test")
ASIDE_M = 0.1
"""Final values stand so far beside the raw ones, to tell them apart."""


def grey(frame: int) -> int:
    return 20 + 7 * frame


def estimate(body: BodyModel, person: int, frame: int) -> Person:
    """As the network gives it: far away, in the camera of a crop."""
    pose = np.zeros((21, 3), np.float32)
    pose[BODY_JOINTS.index("right_elbow") - 1, 1] = 0.5 + 0.04 * frame
    pose[BODY_JOINTS.index("left_knee") - 1, 0] = 0.3
    values = {
        "global_orient": np.array([np.pi, 0.2 * person, 0.1], np.float32),
        "body_pose": pose.ravel(),
        "left_hand_pose": np.full(45, 0.05, np.float32),
        "right_hand_pose": np.zeros(45, np.float32),
        "jaw_pose": np.array([0.02 * (frame % 10), 0, 0], np.float32),
        "betas": np.linspace(-0.5, 0.5 + person, 10).astype(np.float32),
        "expression": np.sin(np.arange(10) + 0.3 * frame).astype(np.float32),
        "transl": np.array([0.3 * person - 0.4 + 0.01 * frame, 0.2, 34.0], np.float32),
    }
    given = {name: torch.from_numpy(value)[None] for name, value in values.items()}
    with torch.inference_mode():
        joints = body(**given, want_vertices=False).joints[0, list(JOINTS_FROM_MODEL)].numpy()
    focal, princpt = np.array([5000, 5000], np.float32), np.array([150, 90], np.float32)
    return Person(
        box_xywh=np.array([100, 20, 80, 140], np.float32),
        **values,
        focal=focal,
        princpt=princpt,
        joints_3d_m=joints,
        joints_2d_px=joints[:, :2] / (joints[:, 2:] + 1e-4) * focal + princpt,
        vertices_m=None,
    )


def write_result(folder: Path, body: BodyModel, frames: int) -> None:
    """Person 1 in all frames, person 2 in frames 5 to 14."""
    with open_results(folder) as results:
        for frame in range(frames):
            results.add(1, frame, 0.9, estimate(body, 1, frame))
            if 5 <= frame < 15:
                results.add(2, frame, 0.8, estimate(body, 2, frame))
        rows = results.rows.view()
        place_rows(rows, CAMERA, SIZE)
        rows["transl"][:, 0] += ASIDE_M
        rows["interpolated"] = (rows["frame_index"] == 8) & (rows["person"] == 1)
        rows["out_of_range"] = rows["frame_index"] == 20
        rows["occlusion"] = np.where(rows["frame_index"] > 24, 0.5, 0)
        about = {"input": "walk.mp4", "frames": frames, "body_model": STAND_IN_NAME, "model": "m"}
        results.finish(about, SIZE, FPS)


@pytest.fixture(scope="session")
def result(tmp_path_factory, body) -> Path:
    """A folder of results with exports, the overlay and the source beside it; read only."""
    folder = tmp_path_factory.mktemp("demo") / "result_walk"
    write_result(folder, body, FRAMES)
    export_result(folder, ["glb", "bvh"], persons=[2])
    with VideoWriter(folder.with_name("result_walk.mp4"), FPS) as video:
        for frame in range(FRAMES):
            video.write(np.full((*SIZE[::-1], 3), grey(frame), np.uint8))
    shutil.copy(folder.with_name("result_walk.mp4"), folder.with_name("walk.mp4"))
    return folder


@pytest.fixture(scope="session")
def page(result) -> Path:
    """The page of `result`, everything in it; read only."""
    (written,) = export_result(result, ["viewer"])
    return written


@pytest.fixture(scope="session")
def photograph(tmp_path_factory, body) -> Path:
    folder = tmp_path_factory.mktemp("photo") / "result_photo"
    write_result(folder, body, 1)
    cv2.imwrite(str(folder.with_name("result_photo.jpg")), np.full((*SIZE[::-1], 3), 90, np.uint8))
    return folder
