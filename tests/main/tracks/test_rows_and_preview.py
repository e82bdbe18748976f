"""Rows on the disk, result files, and the sheet of people."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from main.pipeline.estimator import Person
from main.motion.results import FILE_COLUMNS, open_results
from main.tracks import rows as rows_module
from main.tracks.gaps import fill_gaps
from main.tracks.preview import contact_sheet
from main.tracks.rows import (
    COLUMNS,
    PARAMETERS,
    ROW,
    RowFile,
    blocks,
    frames_of,
    people_of,
    runs_of,
)
from utils.media import Frame

SIZE = (160, 120)


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
def result(tmp_path, monkeypatch):
    """Two people, rows of frames in disorder, written in blocks of three rows."""
    monkeypatch.setattr(rows_module, "BLOCK", 3)

    def write(**words):
        with open_results(tmp_path / "result") as writer:
            for frame in (2, 0, 1, 4, 3):
                writer.add(1, frame, 0.9, person(frame))
                writer.add(7, frame, 0.5, person(10 + frame))
            writer.finish({"input": "a.mp4", "body_model": "x"}, SIZE, 30.0, **words)
        return tmp_path / "result"

    return write


def resident_mb():
    """Of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = dict(line.split(":", 1) for line in lines)
    return sum(int(sizes[name].split()[0]) for name in ("RssFile", "RssShmem")) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells it there")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    with closing(RowFile(tmp_path)) as file:
        row = np.zeros(1000, ROW)
        for k in range(20):
            row["frame_index"] = np.arange(1000 * k, 1000 * (k + 1))
            file.append(row)
        rows = file.view()
        before = resident_mb()
        people_of(rows)
        after = [resident_mb()]
        for frame, mine in frames_of(rows):
            rows["score"][mine] = 0.5
            if frame % 100 == 0:
                after.append(resident_mb())
        for block in blocks(rows):
            rows["transl"][block] = 1
            after.append(resident_mb())
        assert max(after) - before < 12 < rows.nbytes / 2**20 / 8
        assert (rows["transl"] == 1).all()
        assert (rows["score"] == 0.5).all()
        assert resident_mb() - before > 50


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


def test_chosen_people_and_the_floor(result):
    folder = result(chosen={7}, extra={"world_from_camera": np.eye(4)})
    assert sorted(path.name for path in folder.iterdir()) == ["person_007.npz", "summary.json"]
    two = load(folder / "person_007.npz")
    assert two["foot_contact"].shape == (5, 4)
    np.testing.assert_array_equal(two["world_from_camera"], np.eye(4))


def test_rows_are_mapped_and_grow(tmp_path):
    file = RowFile(tmp_path)
    assert len(file.view()) == 0
    file.append(np.zeros(2, ROW))
    file.view()["score"] = 0.5
    file.append(np.ones(1, ROW))
    assert file.view()["score"].tolist() == [0.5, 0.5, 1]
    assert list(tmp_path.iterdir()) == []  # nothing is left of it, whatever happens


def test_groups():
    rows = np.zeros(5, ROW)
    rows["person"], rows["frame_index"] = [2, 1, 2, 1, 2], [3, 0, 1, 3, 2]
    assert {k: v.tolist() for k, v in people_of(rows).items()} == {1: [1, 3], 2: [2, 4, 0]}
    assert [(f, m.tolist()) for f, m in frames_of(rows)] == [
        (0, [1]),
        (1, [2]),
        (2, [4]),
        (3, [3, 0]),
    ]
    assert [(r.start, r.stop) for r in runs_of(np.array([0, 1, 2, 5, 7, 8]))] == [
        (0, 3),
        (3, 4),
        (4, 6),
    ]


def test_only_short_gaps_are_filled(tmp_path):
    file = RowFile(tmp_path)
    rows = np.zeros(3, ROW)
    rows["person"], rows["frame_index"], rows["score"] = 1, [0, 16, 33], 0.9
    rows["box_xywh"][:, 0] = [0, 160, 400]
    rows["global_orient"][:, 2] = [3.0, -3.0, 0]  # across half a turn
    file.append(rows)
    fill_gaps(file, 30.0)  # 15 frames are half a second, 16 are longer
    filled = file.view()[3:]
    assert filled["frame_index"].tolist() == list(range(1, 16))
    assert filled["interpolated"].all()
    np.testing.assert_allclose(filled["box_xywh"][:, 0], 10 * np.arange(1, 16), rtol=1e-5)
    assert (np.abs(filled["global_orient"][:, 2]) > 2.99).all()


def test_sheet_shows_each_person_where_they_are_seen_best():
    rows = np.zeros(20, ROW)
    rows["person"], rows["frame_index"] = np.repeat([1, 2], 10), np.tile(np.arange(10), 2)
    rows["score"], rows["box_xywh"] = 0.9, [20, 20, 40, 80]
    rows["score"][13] = 1.0
    rows["truncation"][:5] = 0.9
    rows["occlusion"][6:10] = 1.0  # person 1 is best in frame 5, person 2 in frame 3
    frames = [Frame(k, k / 30, np.full((SIZE[1], SIZE[0], 3), 20 * k, np.uint8)) for k in range(10)]
    sheet = contact_sheet(rows, frames, {1, 2})
    middle = sheet[140]
    assert middle[100].tolist() == [100] * 3
    assert middle[300].tolist() == [60] * 3
    assert contact_sheet(rows, frames, {2}).shape[1] == sheet.shape[1] // 2
