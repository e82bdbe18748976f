"""Rows on the disk, result files, and gaps between rows."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from main.motion import results as results_module
from main.motion.camera import Clip, ClipCamera, static_camera
from main.motion.ground import Plane, world_from_camera
from main.motion.results import FILE_COLUMNS, write_results
from main.motion.rows import (
    COLUMNS,
    FINAL_ROW,
    PARAMETERS,
    RAW_ROW,
    WORLD_ROW,
    FinalRows,
    WorldRows,
)
from main.motion.trajectories import LONGEST_GAP_S, filled_runs, interpolate
from main.motion.world import World
from main.pipeline.estimator import Person

SIZE = (160, 120)
CLIP = Clip(ClipCamera((200.0, 200.0), (79.5, 59.5), "test"), SIZE, 30.0)


def person(seed):
    rng = np.random.default_rng(seed)
    columns = {
        name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in COLUMNS.items()
    }
    return Person(**columns, vertices_m=None)


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def result(tmp_path, monkeypatch, final_rows_of, row_file):
    """Two people, rows of frames in disorder, written in blocks of three rows."""
    monkeypatch.setattr(results_module, "BLOCK", 3)

    def write(chosen=(1, 7), **options):
        people = []
        for frame in (2, 0, 1, 4, 3):
            people += [(1, frame, 0.9, person(frame)), (7, frame, 0.5, person(10 + frame))]
        folder = tmp_path / "result"
        folder.mkdir()
        about = {"input": "a.mp4", "body_model": "x"}
        rows = row_file(final_rows_of(people))
        write_results(folder, rows, CLIP, about, chosen=chosen, **options)
        return folder

    return write


def resident_mb():
    """Of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    return sum(int(sizes[name].split()[0]) for name in ("RssFile", "RssShmem")) / 1024


@pytest.mark.skipif(
    not Path("/proc/self/status").is_file(),
    reason="memory is read from /proc, which only Linux has",
)
def test_memory_does_not_grow_with_the_rows(tmp_path):
    with closing(FinalRows(tmp_path)) as rows:
        part = np.zeros(1000, FINAL_ROW)
        for k in range(24):
            part["frame_index"] = np.arange(1000 * k, 1000 * (k + 1))
            part["score"] = 0.5
            rows.append(part)
        before = resident_mb()
        rows.by_identity()
        after = [resident_mb()]
        for frame, mine in rows.by_frame():
            assert rows.take(mine, "score") == 0.5
            if frame % 100 == 0:
                after.append(resident_mb())
        rows.set_column("occlusion", np.ones(len(rows)))
        after.append(resident_mb())
        for _, block in rows.blocks():
            assert (block["occlusion"] == 1).all()
            after.append(resident_mb())
        assert max(after) - before < 12 < len(rows) * FINAL_ROW.itemsize / 2**20 / 8


def test_files_hold_every_row_in_the_order_of_frames(result):
    folder = result()
    two = load(folder / "person_007.npz")
    assert two["frame_index"].tolist() == [0, 1, 2, 3, 4]
    assert set(FILE_COLUMNS) <= two.keys()
    for frame in range(5):
        for name in COLUMNS:
            np.testing.assert_array_equal(two[name][frame], getattr(person(10 + frame), name))
        for name in PARAMETERS:
            np.testing.assert_array_equal(two[f"raw_{name}"][frame], two[name][frame])
    assert two["interpolated"].dtype == bool
    assert two["fps"] == 30
    assert "foot_contact" not in two
    summary = json.loads((folder / "summary.json").read_text())
    assert [one["person"] for one in summary["people"]] == [1, 7]


def test_chosen_people_and_the_world(result, tmp_path):
    world = World(static_camera(5), Plane(np.array([0.0, -1.0, 0.0]), -1.5), np.array([0.3]))
    with closing(WorldRows(tmp_path)) as rows:
        inside = np.zeros(10, WORLD_ROW)
        inside["foot_contact"] = np.arange(10)[:, None] % 2  # of person 7
        inside["world_from_camera"] = to_world = world_from_camera(world.plane)
        rows.append(inside)
        folder = result(chosen={7}, world=(world, rows))
    assert sorted(path.name for path in folder.iterdir()) == ["person_007.npz", "summary.json"]
    two = load(folder / "person_007.npz")
    assert two["foot_contact"].shape == (5, 4)
    assert two["foot_contact"].all()
    np.testing.assert_array_equal(two["world_from_camera"], np.float32([to_world] * 5))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["world"] == {"camera": "static", "levels_m": [0.3]}


def test_rows_grow_and_leave_nothing(tmp_path):
    rows = FinalRows(tmp_path)
    assert len(rows) == len(rows.column("score")) == 0
    rows.append(np.zeros(2, FINAL_ROW))
    rows.set_column("score", np.full(2, 0.5))
    rows.append(np.ones(1, FINAL_ROW))
    assert rows.column("score").tolist() == [0.5, 0.5, 1]
    assert rows.column("joints_3d_m", [3, 5]).shape == (3, 2, 3)
    assert rows.column("joints_3d_m", 3).shape == (3, 3)
    assert rows.take(np.array([2, 0]), "score").tolist() == [1, 0.5]
    assert list(tmp_path.iterdir()) == []  # nothing is left of it, whatever happens


def test_groups(row_file):
    rows = np.zeros(5, FINAL_ROW)
    rows["person"], rows["frame_index"] = [2, 1, 2, 1, 2], [3, 0, 1, 3, 2]
    file = row_file(rows)
    assert {k: v.tolist() for k, v in file.by_identity().items()} == {1: [1, 3], 2: [2, 4, 0]}
    assert [(f, m.tolist()) for f, m in file.by_frame()] == [
        (0, [1]),
        (1, [2]),
        (2, [4]),
        (3, [3, 0]),
    ]


def test_runs_end_where_an_absence_is_long():
    """At 4 frames per second an absence of two frames is half a second."""
    frames, rows = np.array([0, 1, 2, 5, 9, 10]), np.array([7, 3, 4, 9, 1, 2])
    first, second = filled_runs(frames, rows, 4.0)
    assert first.frames.tolist() == [0, 1, 2, 3, 4, 5]
    assert first.before.tolist() == [7, 3, 4, 4, 4, 9]
    assert first.after.tolist() == [7, 3, 4, 9, 9, 9]
    assert second.frames.tolist() == [9, 10]


def test_only_short_gaps_are_filled():
    frames = np.array([0, 16, 33])
    first, second = filled_runs(frames, np.arange(3), 30.0)
    # 15 frames are half a second, 16 are longer
    assert LONGEST_GAP_S == 0.5
    assert first.frames.tolist() == list(range(17))
    assert second.frames.tolist() == [33]
    ends = np.zeros(2, RAW_ROW)
    ends["track"], ends["frame_index"], ends["score"] = 1, [0, 16], 0.9
    ends["box_xywh"][:, 0] = [0, 160]
    ends["global_orient"][:, 2] = [3.0, -3.0]  # across half a turn
    filled = interpolate(ends, first.frames[1:-1])
    assert filled["frame_index"].tolist() == list(range(1, 16))
    assert (filled["score"] == 0).all()
    np.testing.assert_allclose(filled["box_xywh"][:, 0], 10 * np.arange(1, 16), rtol=1e-5)
    assert (np.abs(filled["global_orient"][:, 2]) > 2.99).all()
