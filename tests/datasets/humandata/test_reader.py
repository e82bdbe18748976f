"""Every variant of annotation files is read; what is wrong is named by file, key and row."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.humandata.file import FAMILIES, read_entries
from datasets.humandata.reader import read_humandata
from human_models.joints import JOINTS, JOINTS_FROM_HUMANDATA
from utils.errors import UserError

N = 4
INDICES = list(JOINTS_FROM_HUMANDATA)
BODY_JOINTS = {"smplx": 21, "smpl": 23, "smplh": 21}


def parameters(family: str) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    values = {
        "global_orient": rng.random((N, 3), np.float32),
        "body_pose": rng.random((N, BODY_JOINTS[family], 3), np.float32),
        "betas": rng.random((N, 10), np.float32),
        "transl": rng.random((N, 3), np.float32),
    }
    if family == "smplx":
        values |= {
            "left_hand_pose": rng.random((N, 15, 3), np.float32),
            "right_hand_pose": rng.random((N, 15, 3), np.float32),
            "jaw_pose": rng.random((N, 3), np.float32),
            "expression": rng.random((N, 10), np.float32),
        }
    return values


def content(joints: int = 144, family: str = "smplx") -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image_path": np.array([f"a/{i}.jpg" for i in range(N)]),
        "bbox_xywh": rng.uniform(1, 50, (N, 5)).astype(np.float32),
        "keypoints2d_smplx": rng.uniform(1, 99, (N, joints, 3)).astype(np.float32),
        "keypoints2d_smplx_mask": np.ones(joints, np.uint8),
        "keypoints3d_smplx": rng.uniform(1, 2, (N, joints, 4)).astype(np.float32),
        "keypoints3d_smplx_mask": rng.integers(0, 2, joints).astype(np.uint8),
        "__keypoints_compressed__": False,
        "meta": {"height": [270] * N, "width": [360] * N},
        "misc": {"flat_hand_mean": True},
        family: parameters(family),
    }


@pytest.fixture
def save(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def write(entries: dict[str, Any]) -> Path:
        path = tmp_path / "file.npz"
        np.savez_compressed(path, **entries)
        return path

    return write


Save = Callable[[dict[str, Any]], Path]


@pytest.mark.parametrize("joints", [144, 190])
def test_plain(save: Save, joints: int) -> None:
    entries = content(joints)
    family, length, columns = read_humandata(save(entries))
    assert (family, length) == ("smplx", N)
    np.testing.assert_array_equal(columns["image_path"], entries["image_path"])
    np.testing.assert_array_equal(columns["body_box"], entries["bbox_xywh"][:, :4])
    np.testing.assert_array_equal(
        columns["joints_2d"], entries["keypoints2d_smplx"][:, INDICES, :2]
    )
    np.testing.assert_array_equal(
        columns["joints_3d"], entries["keypoints3d_smplx"][:, INDICES, :3]
    )
    np.testing.assert_array_equal(
        columns["joints_valid"][2], entries["keypoints3d_smplx_mask"][INDICES]
    )
    np.testing.assert_array_equal(columns["image_size"], [[360, 270]] * N)
    np.testing.assert_array_equal(columns["body_pose"], entries["smplx"]["body_pose"])
    assert columns["flat_hands"].all()
    assert not columns["part_boxes"].any()


def compressed(entries: dict[str, Any]) -> dict[str, Any]:
    smaller = dict(entries)
    for key in ("keypoints2d_smplx", "keypoints3d_smplx"):
        smaller[key] = entries[key][:, entries[f"{key}_mask"] == 1]
    return smaller


@pytest.mark.parametrize("flag", [True, None])
def test_compressed_keypoints(save: Save, flag: bool | None) -> None:
    entries = content() | {"__keypoints_compressed__": flag}
    columns = read_humandata(save(compressed(entries))).columns
    present = entries["keypoints3d_smplx_mask"][INDICES] == 1
    expected = entries["keypoints3d_smplx"][:, INDICES, :3] * present[:, None]
    np.testing.assert_array_equal(columns["joints_3d"], expected)
    np.testing.assert_array_equal(columns["joints_valid"][0], present)


def test_decompressed_though_flagged(save: Save) -> None:
    entries = content() | {"__keypoints_compressed__": True}
    columns = read_humandata(save(entries)).columns
    np.testing.assert_array_equal(
        columns["joints_3d"], entries["keypoints3d_smplx"][:, INDICES, :3]
    )


def test_missing_flag_and_unknown_entries(save: Save) -> None:
    entries = content() | {"surprise": np.zeros(7), "mano": np.array([{"a": 1}, None])}
    del entries["__keypoints_compressed__"]
    assert len(read_humandata(save(entries)).columns["row"]) == N


def test_masks_fall_back(save: Save) -> None:
    entries = content()
    mask = entries.pop("keypoints3d_smplx_mask")
    common = 1 - mask
    named = read_humandata(save(entries | {"keypoints3d_mask": common})).columns
    np.testing.assert_array_equal(named["joints_valid"][0], common[INDICES])
    by_2d = read_humandata(save(entries | {"keypoints2d_smplx_mask": mask})).columns
    np.testing.assert_array_equal(by_2d["joints_valid"][0], mask[INDICES])
    del entries["keypoints2d_smplx_mask"]
    entries["keypoints3d_smplx"][:, 5, 3] = 0
    by_confidence = read_humandata(save(entries)).columns["joints_valid"][0]
    assert by_confidence.sum() == len(JOINTS) - 1
    assert by_confidence[INDICES.index(5)] == 0


def test_key_priority(save: Save) -> None:
    entries = content()
    preferred = entries["keypoints2d_smplx"] + 1
    entries |= {"keypoints2d": preferred, "keypoints2d_mask": np.ones(144)}
    columns = read_humandata(save(entries)).columns
    np.testing.assert_array_equal(columns["joints_2d"], preferred[:, INDICES, :2])


def test_2d_only_and_127_joints(save: Save) -> None:
    entries = content(127)
    del entries["keypoints3d_smplx"]
    columns = read_humandata(save(entries)).columns
    assert "joints_3d" not in columns
    absent = np.array(INDICES) >= 127
    assert not columns["joints_valid"][:, absent].any()
    assert columns["joints_valid"][:, ~absent].all()


def test_boxes_of_four_numbers(save: Save) -> None:
    entries = content()
    entries["lhand_bbox_xywh"] = np.full((N, 4), 7.0)
    entries["face_bbox_xywh"] = np.array([[1, 2, 3, 4, 0]] * N)
    columns = read_humandata(save(entries)).columns
    np.testing.assert_array_equal(columns["part_boxes"][1, 0], [7, 7, 7, 7, 1])
    np.testing.assert_array_equal(columns["part_boxes"][1, 2], [1, 2, 3, 4, 0])


@pytest.mark.parametrize("family", FAMILIES)
def test_families(save: Save, family: str) -> None:
    entries = content(family=family)
    entries[family]["body_pose"] = entries[family]["body_pose"].reshape(N, -1)  # as Hi4D has it
    found, _, columns = read_humandata(save(entries))
    assert found == family
    assert columns["body_pose"].shape == (N, BODY_JOINTS[family], 3)


def test_chosen_family(save: Save) -> None:
    entries = content() | {"smpl": parameters("smpl")}
    assert read_humandata(save(entries)).family == "smplx"
    assert read_humandata(save(entries), families=("smpl",)).family == "smpl"


def test_coefficients_become_ten(save: Save) -> None:
    entries = content()
    entries["smplx"] |= {
        "betas": np.arange(N * 11).reshape(N, 11),
        "expression": np.ones((N, 100)),
        "left_hand_pose": np.ones((N, 45)),
        "betas_neutral": np.ones((N, 8)),
    }
    columns = read_humandata(save(entries)).columns
    np.testing.assert_array_equal(columns["betas"][1], np.arange(11, 21))
    assert columns["expression"].shape == (N, 10)
    assert columns["left_hand_pose"].shape == (N, 15, 3)
    np.testing.assert_array_equal(columns["betas_neutral"][0], [1] * 8 + [0] * 2)


def test_flat_hands_of_each_row_come_first(save: Save) -> None:
    entries = content()
    entries["smplx"]["flat_hand_mean"] = np.array([True, False, True, False])
    columns = read_humandata(save(entries)).columns
    np.testing.assert_array_equal(columns["flat_hands"], [True, False, True, False])


def test_interval_counts_from_the_first_row(save: Save) -> None:
    whole = read_humandata(save(content())).columns
    third = read_humandata(save(content()), interval=3)
    assert third.length == N
    for name, column in third.columns.items():
        np.testing.assert_array_equal(column, whole[name][[0, 3]])


def test_lists_of_objects_and_pickles(tmp_path: Path, save: Save) -> None:
    entries = content()
    entries["image_path"] = np.array(list(entries["image_path"]), dtype=object)
    from_npz = read_humandata(save(entries)).columns
    path = tmp_path / "file.pkl"
    path.write_bytes(pickle.dumps(entries | {"smpl": None}))
    from_pickle = read_humandata(path).columns
    assert from_npz.keys() == from_pickle.keys()
    for name, column in from_npz.items():
        np.testing.assert_array_equal(column, from_pickle[name])


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


def test_malicious_file_is_refused(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(content() | {"misc": {"a": Malicious()}})
    with pytest.raises(UserError, match="refused to run"):
        read_humandata(path)
    assert capsys.readouterr().out == ""


def broken(**changes: Any) -> dict[str, Any]:
    return content() | changes


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (broken(image_path=np.array(["a", 3, "b", "c"], dtype=object)), "'image_path', row 1"),
        (broken(image_path=np.zeros(0, dtype=str)), "'image_path': has no rows"),
        (broken(bbox_xywh=np.zeros((3, 5))), "'bbox_xywh', row 3"),
        (broken(bbox_xywh=np.zeros((N, 3))), "'bbox_xywh': has shape"),
        (broken(meta={"height": [1, 2, "x", 3], "width": [1] * N}), "'meta.height', row 2"),
        (broken(smplx={"betas": [[1.0], [1.0], [1.0, 2.0], [1.0]]}), "'smplx.betas', row 2"),
        (broken(smplx={"body_pose": np.zeros((N, 20, 3))}), "'smplx.body_pose': has 60"),
        (broken(smplx=[1]), "'smplx'"),
        (broken(keypoints2d_smplx=np.zeros((N, 100, 3))), "'keypoints2d_smplx': 100 joints; the"),
        (broken(keypoints2d_smplx=np.zeros((N, 144))), "'keypoints2d_smplx': has shape"),
        (broken(keypoints2d_smplx=None), "no 2D keypoints"),
        (broken(bbox_xywh=None), "'bbox_xywh': missing"),
    ],
)
def test_wrong_entries_are_named(save: Save, entries: dict[str, Any], message: str) -> None:
    path = save(entries)
    with pytest.raises(UserError) as raised:
        read_humandata(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_mask_of_two_axes_is_refused_by_all_readers(save: Save) -> None:
    path = save(content() | {"keypoints2d_smplx_mask": np.ones((1, 144), np.uint8)})
    for read in (read_humandata, read_entries):
        with pytest.raises(UserError, match=r"'keypoints2d_smplx_mask': has shape \(1, 144\)"):
            read(path)


def test_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UserError, match="damaged"):
        read_humandata(path)
