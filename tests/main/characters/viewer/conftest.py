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
from main.motion.camera import Clip, ClipCamera, place_bodies, truncation
from main.motion.results import write_results
from main.pipeline.estimator import Person
from utils.video_write import VideoWriter

FRAMES, FPS, SIZE = 30, 20.0, (320, 180)
CAMERA = ClipCamera((367.0, 367.0), (159.5, 89.5), "test")
CLIP = Clip(CAMERA, SIZE, FPS)
ASIDE_M = 0.1
"""Final values stand so far beside the raw ones, so that they can be distinguished."""


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


@pytest.fixture(scope="session")
def write_result(body, final_rows_of, row_file):
    """Writes a folder: person 1 in all frames, person 2 in frames 5 to 14."""

    def write(folder: Path, frames: int) -> None:
        people = [(1, frame, 0.9, estimate(body, 1, frame)) for frame in range(frames)]
        few = range(5, min(15, frames))
        people += [(2, frame, 0.8, estimate(body, 2, frame)) for frame in few]
        rows = final_rows_of(people)
        placed = place_bodies(
            global_orient=rows["raw_global_orient"],
            transl=rows["raw_transl"],
            joints_3d_m=rows["joints_3d_m"],
            joints_2d_px=rows["joints_2d_px"],
            princpt=rows["raw_princpt"],
            camera=CAMERA,
        )
        rows["focal"], rows["princpt"] = CAMERA.focal, CAMERA.princpt
        for name in ("global_orient", "transl", "joints_3d_m"):
            rows[name] = getattr(placed, name)
        rows["joints_2d_px"] = CAMERA.project(rows["joints_3d_m"])
        rows["truncation"] = truncation(rows["joints_2d_px"], SIZE)
        rows["transl"][:, 0] += ASIDE_M
        rows["interpolated"] = (rows["frame_index"] == 8) & (rows["person"] == 1)
        rows["out_of_range"] = rows["frame_index"] == 20
        rows["occlusion"] = np.where(rows["frame_index"] > 24, 0.5, 0)
        about = {"input": "walk.mp4", "frames": frames, "body_model": STAND_IN_NAME, "model": "m"}
        folder.mkdir()
        write_results(folder, row_file(rows), CLIP, about, chosen={1, 2})

    return write


@pytest.fixture(scope="session")
def result(tmp_path_factory, write_result) -> Path:
    """A folder of results with exports, the overlay and the source beside it; read only."""
    folder = tmp_path_factory.mktemp("demo") / "result_walk"
    write_result(folder, FRAMES)
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
def photograph(tmp_path_factory, write_result) -> Path:
    folder = tmp_path_factory.mktemp("photo") / "result_photo"
    write_result(folder, 1)
    cv2.imwrite(str(folder.with_name("result_photo.jpg")), np.full((*SIZE[::-1], 3), 90, np.uint8))
    return folder
