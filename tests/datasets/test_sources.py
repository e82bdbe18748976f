"""The table knows every dataset, its fixes do what they say, and each loads a file of its form."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.schema import DataConfig, Protocol
from datasets.cache import InstanceTable, open_dataset
from datasets.humandata.reader import read_humandata
from datasets.instances import complete
from datasets.sources import SOURCES, Split, find_source
from human_models.joints import HANDS_MEAN, JOINT_PARTS, JOINTS, POSE_PARTS
from utils.camera import Box, clip_box, have_area
from utils.errors import UserError

PARITY = Path(__file__).parents[1] / "parity"
ROWS = list(csv.DictReader((PARITY / "datasets.csv").open(encoding="utf-8")))
N = 6
MINE = {"images": "mine", "train": ("a.npz", "b_*.npz"), "flat_hands": True}
MEAN = {side: np.array(mean, np.float32) for side, mean in HANDS_MEAN.items()}


def humandata(family: str = "smplx", **changes: Any) -> dict[str, Any]:
    """A small file as converters write it; `family__key` changes one of its parameters."""
    rng = np.random.default_rng(0)
    parameters = {
        "global_orient": rng.random((N, 3), np.float32),
        "body_pose": rng.random((N, 23 if family == "smpl" else 21, 3), np.float32),
        "betas": rng.random((N, 10), np.float32),
        "transl": rng.random((N, 3), np.float32),
    }
    if family == "smplx":
        parameters |= {
            "left_hand_pose": rng.random((N, 15, 3), np.float32),
            "right_hand_pose": rng.random((N, 15, 3), np.float32),
            "jaw_pose": rng.random((N, 3), np.float32),
            "expression": rng.random((N, 10), np.float32),
        }
    entries: dict[str, Any] = {
        "image_path": np.array([f"a/{i}.jpg" for i in range(N)]),
        "bbox_xywh": np.tile(np.array([10, 20, 30, 40, 1], np.float32), (N, 1)),
        "keypoints2d_smplx": rng.uniform(1, 99, (N, 144, 3)).astype(np.float32),
        "keypoints2d_smplx_mask": np.ones(144, np.uint8),
        "keypoints3d_smplx": rng.uniform(1, 2, (N, 144, 4)).astype(np.float32),
        "keypoints3d_smplx_mask": np.ones(144, np.uint8),
        "__keypoints_compressed__": False,
        "meta": {"height": [270] * N, "width": [360] * N},
        family: parameters,
    }
    for key, value in changes.items():
        if "__" in key:
            outer, inner = key.split("__")
            entries[outer] = {**entries.get(outer, {}), inner: value}
        else:
            entries[key] = value
    return entries


def load(
    tmp_path: Path,
    name: str,
    entries: dict[str, Any],
    split: Split = "train",
    protocol: Protocol = "correct",
    interval: int = 1,
) -> InstanceTable:
    (tmp_path / "annot").mkdir(exist_ok=True)
    np.savez(tmp_path / "annot/file.npz", **entries)
    changes = {split: ("file.npz",), f"{split}_interval": interval}
    return open_dataset(SOURCES[name]._replace(**changes), split, tmp_path, protocol=protocol)


def rows(table: InstanceTable) -> list[int]:
    return [person.row for person in table]


def test_table_has_every_dataset() -> None:
    assert [*(row["name"] for row in ROWS), "OpenPeople"] == list(SOURCES)
    assert len(SOURCES) == 61


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_table_agrees_with_the_facts(row: dict[str, str]) -> None:
    source = SOURCES[row["name"]]
    assert source.flat_hands == row["flat_hand_mean_correction_SMPLestX"].startswith("YES")
    for split, fact in (("train", row["train_annotation"]), ("test", row["test_annotation"])):
        files = getattr(source, split)
        if files is not None and not any("*" in name for name in files) and ".npz" in fact:
            assert files[0].removesuffix(".npz")[:-2] in fact
        fact = row[f"{split}_interval_class_default"]
        if files is not None and fact.isdigit():
            assert source._asdict()[f"{split}_interval"] == int(fact)
    shape = row["img_shape_h_w"].removeprefix("fixed ").removeprefix("converter: ")
    if source.image_size is not None and "x" in shape[:5]:
        width, height = source.image_size
        assert shape.startswith(f"{height}x{width}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_every_dataset_loads_files_of_its_form(row: dict[str, str], tmp_path: Path) -> None:
    source = SOURCES[row["name"]]
    family = {"smpl": "smpl", "smplh": "smplh"}.get(row["smpl_family"], "smplx")
    (tmp_path / "annot").mkdir()
    for split in ("train", "test"):
        names = getattr(source, split)
        if names is None:
            continue
        for name in names:
            concrete = name.replace("*", "230828_00")
            np.savez(tmp_path / "annot" / concrete, **humandata(family))
        interval = source.interval(split)
        table = open_dataset(source, split, tmp_path)
        assert len(table) == len(names) * len(range(0, N, interval))
        assert table[0].has_smpl == (family == "smpl")
        assert rows(table) == [i for i in range(len(names) * N) if i % N % interval == 0]


def test_smallest_facts() -> None:
    with pytest.raises(UserError, match="no test split"):
        SOURCES["BEDLAM"].files("test")
    assert not any("*" in name for name in SOURCES["SynHand"].files("train"))
    assert any("*" in name for name in SOURCES["MOYO"].files("train"))


def test_rows_of_test_servers_need_no_truth_and_all_count(tmp_path: Path) -> None:
    entries = humandata(meta__annot_valid=[True, False] * 3)
    bare = {key: entries[key] for key in ("image_path", "bbox_xywh", "meta")}
    for name in ("AGORA_test", "BEDLAM_test"):
        table = load(tmp_path, name, bare, split="test")
        assert rows(table) == [*range(N)]
        assert not table[0].pose_valid.any()
        assert not table[0].joints_valid.any()
    with pytest.raises(UserError, match="no 2D keypoints"):
        load(tmp_path, "AGORA", bare)


def test_invalid_rows_are_dropped(tmp_path: Path) -> None:
    def drop(**changes: Any) -> list[int]:
        return rows(load(tmp_path, "AGORA", humandata(**changes)))

    assert drop(meta__annot_valid=[True, False] * 3) == [0, 2, 4]
    assert drop(meta__iscrowd=[0, 1, 0, 0, 0, 0], meta__num_keypoints=[0, 1, 1, 1, 1, 1]) == [
        *range(2, 6)
    ]
    assert drop(meta__valid_label=[1, 1, 0, 1, 1, 1]) == [0, 1, 3, 4, 5]
    assert drop(smplx__betas_extra=np.array([[0], [0.5], [0], [0], [0], [1]])) == [0, 2, 3, 4]


def test_interval_counts_dropped_rows(tmp_path: Path) -> None:
    entries = humandata(meta__annot_valid=[False, True, True, True, True, True])
    assert rows(load(tmp_path, "AGORA", entries, interval=2)) == [2, 4]


def test_unusable_rows_are_dropped(tmp_path: Path) -> None:
    entries = humandata()
    entries["keypoints3d_smplx"][1, 60, 2] = np.nan
    entries["bbox_xywh"][2, 2] = 0  # no width
    entries["bbox_xywh"][3, :2] = 400, 10  # beside the image
    entries["bbox_xywh"][4, 0] = np.nan
    assert rows(load(tmp_path, "BEDLAM", entries)) == [0, 5]


def test_box_rule_is_the_crops() -> None:
    rng = np.random.default_rng(0)
    boxes = rng.uniform(-60, 120, (500, 4)).astype(np.float32)
    sizes = np.tile(np.array([100, 80], np.float32), (500, 1))
    expected = [clip_box(Box(*box), 100, 80) is not None for box in boxes.tolist()]
    assert have_area(boxes, sizes).tolist() == expected
    assert 50 < sum(expected) < 450
    assert have_area(boxes[:1] * 0 + 50, sizes[:1] * 0).tolist() == [True]


@pytest.mark.parametrize(
    ("name", "stated", "protocol", "subtracted"),
    [
        ("SynHand", None, "correct", True),
        ("SynHand", False, "correct", False),
        ("SynHand", False, "published", True),
        ("BEDLAM", None, "correct", False),
        ("BEDLAM", True, "correct", True),
        ("BEDLAM", True, "published", False),
    ],
)
def test_mean_hand(
    tmp_path: Path, name: str, stated: bool | None, protocol: Protocol, subtracted: bool
) -> None:
    entries = humandata()
    entries["misc"] = {} if stated is None else {"flat_hand_mean": stated}
    person = load(tmp_path, name, entries, protocol=protocol)[2]
    for side, mean in MEAN.items():
        hand = entries["smplx"][f"{side}_hand_pose"][2] - subtracted * mean
        np.testing.assert_allclose(person.pose[POSE_PARTS[f"{side}_hand"]], hand, atol=1e-6)


def test_betas_for_the_neutral_body(tmp_path: Path) -> None:
    neutral = np.ones((N, 10), np.float32)
    entries = humandata(smplx__betas_neutral=neutral)
    np.testing.assert_array_equal(load(tmp_path, "RICH", entries)[3].betas, neutral[3])


def test_3dhp_paths(tmp_path: Path) -> None:
    entries = humandata(image_path=np.array([f"/S1/{i}.jpg" for i in range(N)]))
    assert load(tmp_path, "MPI_INF_3DHP", entries)[1].image_path == "S1/1.jpg"


def test_talkshow_keeps_its_right_hand(tmp_path: Path) -> None:
    entries = humandata()
    hand = entries["smplx"]["right_hand_pose"]
    entries["smplx"] |= {
        "right_hand_pose": hand.reshape(N, 45),
        "left_hand_pose": entries["smplx"]["left_hand_pose"].reshape(N, 45),
        "body_pose": entries["smplx"]["body_pose"].reshape(N, 63),
        "expression": np.tile(np.arange(100, dtype=np.float32), (N, 1)),
    }
    person = load(tmp_path, "Talkshow", entries)[4]
    np.testing.assert_array_equal(person.pose[POSE_PARTS["right_hand"]], hand[4])
    np.testing.assert_array_equal(person.expression, np.arange(10))


def test_arctic(tmp_path: Path) -> None:
    paths = np.array([f"v/{i}.npy" for i in range(N)])
    person = load(tmp_path, "ARCTIC", humandata(vertices3d_path=paths), "test")[2]
    assert not person.betas.any()
    assert person.vertices_path == "v/2.npy"
    assert person.pose_valid[:22].all()


def test_hand_datasets(tmp_path: Path) -> None:
    root = np.arange(N * 3, dtype=np.float32).reshape(N, 1, 3)
    entries = humandata(smplx__rhand_root=root)
    entries["smplx"]["left_hand_pose"][:] = 0
    person = load(tmp_path, "FreiHand", entries)[1]
    assert not person.pose[:22].any()
    assert not person.pose_valid[:22].any()
    assert not person.betas.any()
    assert person.pose_valid[POSE_PARTS["right_hand"]].all()
    assert not person.pose_valid[POSE_PARTS["left_hand"]].any()
    np.testing.assert_array_equal(person.hand_roots, [[0, 0, 0], root[1, 0]])


def test_smpl_parameters(tmp_path: Path) -> None:
    entries = humandata("smpl", meta__gender=["male", "f", "Female", "neutral", "", "m"])
    table = load(tmp_path, "SPEC", entries)
    smpl = entries["smpl"]
    np.testing.assert_array_equal(table[1].pose[1:22], smpl["body_pose"][1, :21])
    np.testing.assert_array_equal(table[1].smpl_pose[1:], smpl["body_pose"][1])
    np.testing.assert_array_equal(table[1].smpl_betas, smpl["betas"][1])
    assert not table[1].betas.any()
    assert not table[1].pose_valid[22:].any()
    assert [p.gender for p in table] == ["male", "female", "female", "neutral", "neutral", "male"]


def test_3dpw_is_tested_on_smpl(tmp_path: Path) -> None:
    entries = humandata() | {"smpl": humandata("smpl")["smpl"]}
    assert load(tmp_path, "PW3D", entries, "test")[0].has_smpl
    assert not load(tmp_path, "PW3D", entries, "train")[0].has_smpl


def test_hand_validity_is_each_rows_own(tmp_path: Path) -> None:
    entries = humandata()
    entries["keypoints3d_smplx_mask"][:] = 0
    entries["smplx"]["left_hand_pose"][N - 1] = 0
    table = load(tmp_path, "BEDLAM", entries)
    hand, wrist = JOINT_PARTS["left_hand"], JOINTS.index("left_wrist")
    assert table[0].joints_valid[hand].all()
    assert table[0].joints_valid[wrist] == 1
    assert table[0].joints_valid.sum() == 42  # both hands and wrists, nothing else
    assert not table[N - 1].joints_valid[hand].any()
    assert table[N - 1].joints_valid[wrist] == 0
    table[0].joints_valid[:] = 5
    assert table[0].joints_valid.max() == 1


def test_jaw_needs_expression(tmp_path: Path) -> None:
    person = load(tmp_path, "BEDLAM", humandata(smplx__expression=None))[0]
    assert not person.expression_valid
    assert not person.pose_valid[POSE_PARTS["face"]].any()
    assert not person.pose[POSE_PARTS["face"]].any()


def test_image_size(tmp_path: Path) -> None:
    without = humandata(meta={})
    assert load(tmp_path, "Hi4D", humandata())[0].image_size == (940, 1280)
    assert load(tmp_path, "PROX", humandata())[0].image_size == (360, 270)
    assert load(tmp_path, "PROX", without)[0].image_size == (1920, 1080)
    assert load(tmp_path, "BEDLAM", without)[0].image_size == (0, 0)


def test_no_parameters(tmp_path: Path) -> None:
    entries = humandata(smplx=None)
    person = load(tmp_path, "SHAPY", entries, "test")[0]
    assert not person.pose_valid.any()
    with pytest.raises(UserError, match="no body parameters"):
        load(tmp_path, "BEDLAM", entries)


def test_no_3d(tmp_path: Path) -> None:
    person = load(tmp_path, "BEDLAM", humandata(keypoints3d_smplx=None))[0]
    assert not person.has_joints_3d
    assert not person.joints_3d.any()


def test_completing_changes_no_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", **humandata(misc__flat_hand_mean=True))
    data = read_humandata(tmp_path / "file.npz")
    first = complete(data, SOURCES["SynHand"], "correct")
    second = complete(data, SOURCES["SynHand"], "correct")
    np.testing.assert_array_equal(first["pose"], second["pose"])


def test_rows_of_the_table_as_they_are() -> None:
    assert find_source("UBody", DataConfig()) == SOURCES["UBody"]


def test_config_overrides_files_and_intervals() -> None:
    config = DataConfig.model_validate(
        {"UBody_train_sample_interval": 7, "datasets": {"UBody": {"test": ("u.npz",)}}}
    )
    source = find_source("UBody", config)
    assert source.files("test") == ("u.npz",)
    assert source.files("train") == SOURCES["UBody"].files("train")
    assert (source.interval("train"), source.interval("test")) == (7, 1)
    assert source.fixes == SOURCES["UBody"].fixes


def test_set_of_ones_own() -> None:
    source = find_source("Mine", DataConfig.model_validate({"datasets": {"Mine": MINE}}))
    assert source.files("train") == ("a.npz", "b_*.npz")
    assert (source.images, source.flat_hands, source.test) == ("mine", True, None)


def test_set_like_one_of_the_table() -> None:
    inter = {"UBody_inter": {"like": "UBody", "test": ("ubody_inter.npz",)}}
    source = find_source("UBody_inter", DataConfig.model_validate({"datasets": inter}))
    assert source == SOURCES["UBody"]._replace(name="UBody_inter", test=("ubody_inter.npz",))
    unlike = DataConfig.model_validate({"datasets": {"Mine": {"like": "UBodyy"}}})
    with pytest.raises(UserError, match="'Mine' is like 'UBodyy'"):
        find_source("Mine", unlike)


def test_unknown_names_are_refused() -> None:
    config = DataConfig.model_validate({"datasets": {"Mine": MINE, "Half": {"images": "half"}}})
    with pytest.raises(UserError, match="did you mean 'SynHand'"):
        find_source("Synhand", config)
    with pytest.raises(UserError, match="did you mean 'Mine'"):
        find_source("mine", config)
    with pytest.raises(UserError, match="'Half' needs"):
        find_source("Half", config)


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.jpg", "a/../../b.jpg"])
@pytest.mark.parametrize("entry", ["image_path", "vertices3d_path"])
def test_files_outside_the_images_are_refused(entry: str, name: str, tmp_path: Path) -> None:
    entries = humandata()
    for folder in ("right", "wrong"):
        (tmp_path / folder).mkdir()
    names = [f"{i}..{i}.jpg" for i in range(len(entries["image_path"]))]
    load(tmp_path / "right", "BEDLAM", entries | {entry: np.array(names)})
    names[1] = name
    with pytest.raises(UserError, match=f"entry '{entry}', row 1: '{name}' is not a path within"):
        load(tmp_path / "wrong", "BEDLAM", entries | {entry: np.array(names)})
