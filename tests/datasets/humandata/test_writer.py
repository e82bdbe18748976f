"""What is written is what was given, as our reader and the published format's readers see it."""

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.humandata.file import is_mask, read_entries, take_rows
from datasets.humandata.merge import Part, merge, same
from datasets.humandata.reader import read_humandata
from datasets.humandata.writer import write_humandata
from human_models.joints import HANDS_MEAN
from utils.errors import UserError

ANNOTATIONS = Path(__file__).parents[2] / "parity" / "data" / "annot"
FILES = sorted(ANNOTATIONS.glob("*.npz"))
N = 5


def people(joints: int = 190, rows: int = N, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "image_path": [f"a/{i}.jpg" for i in range(rows)],
        "bbox_xywh": rng.uniform(1, 50, (rows, 5)).astype(np.float32),
        "keypoints2d_smplx": rng.uniform(1, 99, (rows, joints, 3)).astype(np.float32),
        "keypoints3d_smplx": rng.uniform(1, 2, (rows, joints, 4)).astype(np.float32),
        "smplx": {
            "global_orient": rng.random((rows, 3), np.float32),
            "body_pose": rng.random((rows, 21, 3), np.float32),
            "left_hand_pose": rng.random((rows, 15, 3), np.float32),
            "right_hand_pose": rng.random((rows, 15, 3), np.float32),
            "betas": rng.random((rows, 10), np.float32),
            "transl": rng.random((rows, 3), np.float32),
        },
        "meta": {"height": [270] * rows, "width": [360] * rows},
        "misc": {"flat_hand_mean": False},
        "config": "a_set",
        "depth_path": None,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "set.npz"


def write(path: Path, entries: dict[str, Any]) -> Path:
    write_humandata(path, entries)
    return path


def equal_columns(one: Path, other: Path) -> None:
    first, second = read_humandata(one), read_humandata(other)
    assert (first.family, first.length) == (second.family, second.length)
    assert first.columns.keys() == second.columns.keys()
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column, second.columns[name], name)


@pytest.mark.parametrize("joints", [190, 144, 127])
def test_reader_gets_what_was_given(path: Path, joints: int) -> None:
    entries = people(joints)
    raw = path.parents[1] / "raw.npz"
    given = {key: value for key, value in entries.items() if value is not None}
    np.savez(raw, **given)
    equal_columns(write(path, entries), raw)


def test_container(path: Path) -> None:
    entries = people()
    entries["keypoints2d_smplx"][:, [3, 150], 2] = 0
    entries["keypoints3d_smplx_mask"] = np.arange(190) < 100
    write(path, entries)
    with np.load(path, allow_pickle=True) as file:  # as the published code does
        content = {key: file[key] for key in file.files}
    assert content["__data_len__"] == N
    assert content["__keypoints_compressed__"]
    assert not content["__key_strict__"]
    assert content["image_path"].dtype.kind == "U"
    assert content["config"] == "a_set"
    assert "depth_path" not in content
    assert content["smplx"].shape == ()
    np.testing.assert_array_equal(content["smplx"].item()["betas"], entries["smplx"]["betas"])
    mask = content["keypoints2d_smplx_mask"]
    assert mask.shape == (190,)
    assert np.flatnonzero(mask == 0).tolist() == [3, 150]
    expected = entries["keypoints2d_smplx"][:, mask == 1]
    np.testing.assert_array_equal(content["keypoints2d_smplx"], expected)
    assert content["keypoints3d_smplx"].shape == (N, 100, 4)


def test_dictionaries_are_read_by_numpy_of_any_age(path: Path) -> None:
    """NumPy 2 calls its modules numpy._core in pickles, which NumPy 1 has not."""
    write(path, people() | {"image_id": np.array([{"a": np.float32(1)}, None] * 2 + [3], object)})
    with zipfile.ZipFile(path) as archive:
        for key in ("smplx", "meta", "image_id"):
            content = archive.read(f"{key}.npy")
            pickled = content[content.index(b"\n") + 1 :]
            names = [arg for code, arg, _ in pickletools.genops(pickled) if code.name == "GLOBAL"]
            assert "numpy.core.multiarray _reconstruct" in names
            assert not any("_core" in str(name) for name in names)
    assert read_entries(path)["image_id"][2] == {"a": np.float32(1)}


def test_keypoints_without_confidence_are_confident(path: Path) -> None:
    entries = people()
    entries["keypoints2d_smplx"] = entries["keypoints2d_smplx"][..., :2]
    entries["keypoints2d_mask"] = np.arange(190) < 60
    written = read_entries(write(path, entries))
    assert (written["keypoints2d_smplx"][:, :60, 2] == 1).all()
    assert written["keypoints2d_smplx_mask"].sum() == 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_path": None}, "'image_path' is missing"),
        ({"keypoints2d_smplx": np.ones((N - 1, 190, 3))}, f"has {N - 1} rows"),
        ({"keypoints2d_smplx": np.ones((N, 100, 3)), "keypoints2d_mask": np.ones(190)}, "its mask"),
        ({"keypoints2d_smplx_mask": np.full(190, 2)}, "not a list of 0 and 1"),
    ],
)
def test_wrong_entries_leave_nothing(path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_humandata(path, people() | changes)
    assert not path.exists()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_slices_merge_to_the_whole(file: Path, tmp_path: Path) -> None:
    entries = read_entries(file)
    ranges = (np.arange(0, 2), np.arange(2, 3), np.arange(3, 6))
    slices = [
        write(tmp_path / f"{i}.npz", take_rows(entries, rows)) for i, rows in enumerate(ranges)
    ]
    whole = write(tmp_path / "whole.npz", entries)
    merged = merge([Part(part, read_entries(part)) for part in slices])
    assert same(merged, read_entries(whole))
    equal_columns(write(tmp_path / "merged.npz", merged), whole)


def test_take_rows_follows_the_given_order(path: Path) -> None:
    entries = people() | {"unknown": np.arange(N), "frame_range": np.arange(4).reshape(2, 2)}
    entries["meta"]["height"] = [1, 2, 3, 4, 5]
    taken = take_rows(read_entries(write(path, entries)), np.array([3, 0]))
    assert taken["image_path"].tolist() == ["a/3.jpg", "a/0.jpg"]
    assert taken["unknown"].tolist() == [3, 0]
    assert taken["meta"]["height"] == [4, 1]
    assert "frame_range" not in taken
    np.testing.assert_array_equal(taken["smplx"]["betas"], entries["smplx"]["betas"][[3, 0]])
    assert taken["keypoints2d_smplx_mask"].shape == (190,)


def parts(*files: dict[str, Any]) -> list[Part]:
    given = []
    for i, entries in enumerate(files):
        kept = {key: value for key, value in entries.items() if value is not None}
        given.append(Part(Path(f"{i}.npz"), kept | {"image_path": np.array(kept["image_path"])}))
    return given


def test_merged_masks_keep_what_all_files_have(caplog: pytest.LogCaptureFixture) -> None:
    one = people(144) | {"keypoints2d_smplx_mask": np.arange(144) >= 10}
    other = people(190) | {"keypoints2d_smplx_mask": np.arange(190) >= 20}
    merged = merge(parts(one, other))
    expected = (np.arange(190) >= 20) & (np.arange(190) < 144)
    np.testing.assert_array_equal(merged["keypoints2d_smplx_mask"], expected)
    assert merged["keypoints2d_smplx"].shape == (2 * N, 190, 3)
    assert "56 joints are left out" in caplog.text

    merged = merge(parts(one, other), "all")
    np.testing.assert_array_equal(merged["keypoints2d_smplx_mask"], np.arange(190) >= 10)
    assert not merged["keypoints2d_smplx"][:N, 144:, 2].any()
    assert "absent from some files and have confidence 0" in caplog.text


def test_merged_entries_that_some_files_lack(caplog: pytest.LogCaptureFixture) -> None:
    one, other = people(), people()
    one["lhand_bbox_xywh"] = np.ones((N, 4))
    del other["keypoints3d_smplx"], other["smplx"]["left_hand_pose"]
    one["smplx"]["expression"] = np.ones((N, 10))
    one["smplx"]["betas_neutral"] = np.full((N, 10), 7.0)
    one["meta"]["gender"] = ["male"] * N
    merged = merge(parts(one, other))
    assert "keypoints3d_smplx" not in merged
    assert "expression" not in merged["smplx"]
    assert not any(is_mask(key) and key.startswith("keypoints3d") for key in merged)
    assert not merged["smplx"]["left_hand_pose"][N:].any()
    np.testing.assert_array_equal(merged["smplx"]["betas_neutral"][N:], other["smplx"]["betas"])
    assert merged["meta"]["gender"][N:].tolist() == ["neutral"] * N
    np.testing.assert_array_equal(merged["lhand_bbox_xywh"][:, 4], [1] * N + [0] * N)
    for entry in ("keypoints3d_smplx", "smplx.expression", "smplx.left_hand_pose"):
        assert f"entry '{entry}'" in caplog.text
    assert "expression" in merge(parts(one, other), "all")["smplx"]


def test_merged_hands_have_one_convention(caplog: pytest.LogCaptureFixture) -> None:
    flat, relative = people(), people(seed=1)
    flat["misc"] = {"flat_hand_mean": True}
    merged = merge(parts(flat, relative))
    assert merged["misc"]["flat_hand_mean"] is False
    for side in ("left", "right"):
        hands = merged["smplx"][f"{side}_hand_pose"]
        expected = flat["smplx"][f"{side}_hand_pose"] - np.array(HANDS_MEAN[side], np.float32)
        np.testing.assert_allclose(hands[:N], expected, atol=1e-6)
        np.testing.assert_array_equal(hands[N:], relative["smplx"][f"{side}_hand_pose"])
    assert "0.npz: hand poses become relative to the mean hand" in caplog.text

    both_flat = merge(parts(flat, flat))
    assert both_flat["misc"]["flat_hand_mean"] is True
    np.testing.assert_array_equal(
        both_flat["smplx"]["left_hand_pose"][:N], flat["smplx"]["left_hand_pose"]
    )


def test_merged_cameras_become_cameras_of_rows() -> None:
    one, other = people(), people()
    one["misc"] = {"focal_length": [500, 500], "principal_point": [[9, 9]]}
    other["misc"] = {"principal_point": [[9, 9]]}
    other["meta"]["focal_length"] = np.full((N, 2), 700)
    merged = merge(parts(one, other))
    assert merged["meta"]["focal_length"][:, 0].tolist() == [500] * N + [700] * N
    assert merged["misc"]["principal_point"] == [[9, 9]]


def test_files_that_do_not_go_together() -> None:
    smpl = people()
    smpl["smpl"] = smpl.pop("smplx")
    with pytest.raises(UserError, match=r"1\.npz has parameters of smpl, 0\.npz of smplx"):
        merge(parts(people(), smpl))
    aligned = people() | {"misc": {"kps3d_root_aligned": True}}
    with pytest.raises(UserError, match="kps3d_root_aligned"):
        merge(parts(people(), aligned))
    renamed = people()
    renamed["keypoints2d"] = renamed.pop("keypoints2d_smplx")
    with pytest.raises(UserError, match="no 2D keypoints that all"):
        merge(parts(people(), renamed))
