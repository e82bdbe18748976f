"""The measures of the world, of a solution that is known to be right."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.walkers import CAMERA
from benchmarks.world import Solution, measure, simulate
from human_models.body import BodyLibrary
from human_models.files import find_model_folder


@pytest.fixture(scope="module")
def truth():
    body = BodyLibrary(find_model_folder(Path("absent"))).smplx()
    return simulate(body, np.random.default_rng(3), "pan", count=2, frames=120)


def found(truth, number):
    """A person as a result would have them, without any error; bodies of one size in all zooms."""
    poses, zoom = truth.camera_from_world, truth.zoom
    seen = np.einsum("tij,tkj->tki", poses[:, :3, :3], truth.joints[number])
    seen += poses[:, None, :3, 3]
    pixels = seen[..., :2] / seen[..., 2:] * zoom[:, None, None] * CAMERA.focal + CAMERA.princpt
    local = seen.copy()
    local[..., 2] += seen[:, :1, 2] * (1 / zoom - 1)[:, None]
    return {
        "frame_index": np.arange(len(poses)),
        "joints_3d_m": local,
        "joints_2d_px": pixels,
        "world_joints_3d_m": truth.joints[number],
        "world_from_camera": np.linalg.inv(poses),
        "camera_zoom": zoom,
        "foot_contact": np.zeros((len(poses), 4), bool),
    }


@pytest.mark.parametrize("zoom", [1.0, 1.5])
def test_a_solution_without_errors_measures_none(truth, zoom):
    truth = truth._replace(zoom=np.linspace(1, zoom, 120))
    truth = truth._replace(
        walkers=[one._replace(joints=one.joints / [1, 1, zoom]) for one in truth.walkers]
    )
    people = [found(truth, 1), found(truth, 0)]
    results = measure(truth, Solution(people, "rotating", []))
    assert len(results) == 2
    for one in results:
        for way in ("placed", "solved"):
            assert one.ways[way]["wa_mpjpe"] < 1e-3
            assert one.ways[way]["camera"] < 1e-6
            assert one.ways[way]["drift"] < 1e-6
        assert one.ways["static"]["wa_mpjpe"] > 100
        assert one.ways["static"]["camera"] > 1
        assert max(one.pose_mm, one.moved_px, one.tilt_deg, one.height_mm) < 1e-3


def test_errors_are_measured(truth):
    person = found(truth, 0)
    person["world_joints_3d_m"] = person["world_joints_3d_m"] + (0, 0.05, 0)
    person["world_from_camera"] = person["world_from_camera"].copy()
    turns = np.radians(0.5) * np.arange(120) / 30  # half a degree a second about the view
    c, s = np.cos(turns), np.sin(turns)
    roll = np.zeros((120, 3, 3))
    roll[:, 0, 0] = roll[:, 1, 1] = c
    roll[:, 1, 0], roll[:, 0, 1], roll[:, 2, 2] = s, -s, 1
    person["world_from_camera"][:, :3, :3] @= roll
    person["foot_contact"][:] = True
    (one,) = measure(truth, Solution([person], "rotating", []))
    assert one.height_mm == pytest.approx(50)
    assert one.ways["solved"]["drift"] == pytest.approx(0.5, abs=0.01)
    assert one.ways["solved"]["camera"] == pytest.approx(1.0, abs=0.02)
    assert one.sliding > 10  # feet that swing are said to stand
    few = {name: values[:30] for name, values in person.items()}
    assert measure(truth, Solution([few], "rotating", [])) == []
