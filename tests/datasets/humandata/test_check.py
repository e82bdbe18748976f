"""Every fault is found, by its entry and its rows; a file without faults has none."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets.humandata.check import check_humandata
from datasets.humandata.check_layout import Finding
from datasets.humandata.report import humandata_statistics
from datasets.humandata.writer import write_humandata
from human_models.joints import HANDS_MEAN
from utils.errors import UserError

PARITY = Path(__file__).parents[2] / "parity" / "data"
IMAGES = PARITY / "img"
N = 12
FOCAL, CENTER = 500.0, (180.0, 135.0)

Entries = dict[str, Any]


def faultless() -> Entries:
    """People of 144 joints in the images of the parity values, 360 x 270."""
    rng = np.random.default_rng(0)
    solid = np.concatenate(
        [rng.uniform(-0.5, 0.5, (N, 144, 2)), rng.uniform(3, 4, (N, 144, 1)), np.ones((N, 144, 1))],
        axis=2,
    )
    pixels = solid[..., :2] / solid[..., 2:3] * FOCAL + CENTER
    sizes = {"left_hand_pose": (15, 3), "right_hand_pose": (15, 3), "body_pose": (21, 3)}
    sizes |= {"global_orient": (3,), "jaw_pose": (3,), "betas": (10,), "expression": (10,)}
    return {
        "image_path": np.array([f"set/{i % 6:06d}.png" for i in range(N)]),
        "bbox_xywh": np.array([[90.0 + i, 50, 150, 160, 1] for i in range(N)], np.float32),
        "lhand_bbox_xywh": np.array([[90.0, 50, 15, 16, 1]] * N, np.float32),
        "keypoints2d_smplx": np.concatenate([pixels, np.ones((N, 144, 1))], axis=2),
        "keypoints2d_smplx_mask": np.ones(144, np.uint8),
        "keypoints3d_smplx": solid,
        "keypoints3d_smplx_mask": np.ones(144, np.uint8),
        "smplx": {
            **{name: rng.normal(0, 0.2, (N, *shape)) for name, shape in sizes.items()},
            "transl": rng.uniform(2, 3, (N, 3)),
        },
        "meta": {
            "height": [270] * N,
            "width": [360] * N,
            "gender": ["female"] * N,
            "focal_length": np.full((N, 2), FOCAL),
            "principal_point": np.tile(CENTER, (N, 1)),
        },
        "misc": {"flat_hand_mean": False},
        "__keypoints_compressed__": False,
        "__data_len__": N,
        "__key_strict__": False,
    }


Check = Callable[..., list[Finding]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def check_entries(entries: Entries, name: str = "a.npz", **flags: Any) -> list[Finding]:
        path = tmp_path / name
        np.savez(path, **{key: value for key, value in entries.items() if value is not None})
        return check_humandata(path, **flags)

    return check_entries


def test_faultless(check: Check) -> None:
    findings = check(faultless(), images_folder=IMAGES)
    assert [finding.severity for finding in findings] == ["info"]
    assert "median of 0.0 px" in findings[0].what


def test_faultless_as_written_by_the_project(tmp_path: Path) -> None:
    write_humandata(tmp_path / "a.npz", faultless())
    findings = check_humandata(tmp_path / "a.npz", IMAGES)
    assert [finding.severity for finding in findings] == ["info"]


def set_rows(entry: str, value: Any, rows: Any = slice(1, 3)) -> Callable[[Entries], None]:
    """Put a value into rows of an entry; by default two, from row 1."""

    def change(entries: Entries) -> None:
        key, _, name = entry.partition(".")
        holder = entries[key] if name else entries
        column = np.array(holder[name or key], copy=True)
        column = column.astype(float) if column.dtype.kind in "iu" else column
        column[rows] = value
        holder[name or key] = column

    return change


def put(entry: str, value: Any) -> Callable[[Entries], None]:
    def change(entries: Entries) -> None:
        key, _, name = entry.partition(".")
        if name:
            entries[key][name] = value
        else:
            entries[key] = value

    return change


def drop(*names: str) -> Callable[[Entries], None]:
    def change(entries: Entries) -> None:
        for entry in names:
            key, _, name = entry.partition(".")
            (entries[key] if name else entries).pop(name or key)

    return change


def duplicate(entries: Entries) -> None:
    for value in (*entries["smplx"].values(), entries["bbox_xywh"], entries["image_path"]):
        value[[1, 2]] = value[0]


def scale_points(factor: float) -> Callable[[Entries], None]:
    def change(entries: Entries) -> None:
        entries["keypoints3d_smplx"][1:3, :, :3] *= factor

    return change


FAULTS = [
    # what is changed; severity, entry and what of the finding; whether it is of rows 1 and 2
    (drop("image_path"), "error", "image_path", "missing", False),
    (drop("bbox_xywh"), "error", "bbox_xywh", "missing", False),
    (drop("keypoints2d_smplx"), "error", "keypoints2d", "no 2D keypoints", False),
    (drop("keypoints3d_smplx"), "info", "keypoints3d", "no 3D keypoints", False),
    (drop("smplx"), "error", "smplx", "no body parameters", False),
    (put("smplx", np.ones(N)), "error", "smplx", "is a ndarray, not a dictionary", False),
    (drop("__keypoints_compressed__"), "warning", "__keypoints_compressed__", "missing", False),
    (put("__data_len__", 5), "error", "__data_len__", "says 5 rows, image_path has 12", False),
    (put("odd", np.zeros(3)), "info", "odd", "not an entry of the format", False),
    (set_rows("image_path", ""), "error", "image_path", "no text", True),
    (set_rows("image_path", "/a.png"), "warning", "image_path", "absolute path", True),
    (put("meta.gender", ["male"] * 3), "error", "meta.gender", "has 3 rows", False),
    (put("depth_path", ["a"] * 3), "error", "depth_path", "has 3 rows", False),
    (put("image_id", np.arange(3)), "error", "image_id", "has 3 rows", False),
    (put("bbox_xywh", np.ones((3, 5))), "error", "bbox_xywh", "has 3 rows", False),
    (put("bbox_xywh", np.ones((N, 3))), "error", "bbox_xywh", "has shape (12, 3)", False),
    (put("face_bbox_xywh", np.ones((N, 4))), "warning", "face_bbox_xywh", "no confidence", False),
    (put("smplx.betas", np.zeros((3, 10))), "error", "smplx.betas", "has 3 rows", False),
    (put("smplx.betas", np.zeros((N, 2, 5))), "error", "smplx.betas", "has shape", False),
    (put("smplx.betas", [[1], [1, 2]]), "error", "smplx.betas", "not an array of numbers", False),
    (put("smplx.body_pose", np.zeros((N, 60))), "error", "smplx.body_pose", "has shape", False),
    (put("smplx.unknown", np.zeros(3)), "error", "smplx.unknown", "has 3 rows", False),
    (put("meta.width", [360] * 3), "error", "meta.width", "has 3 rows", False),
    (put("meta.focal_length", np.ones((N, 3))), "error", "meta.focal_length", "shape", False),
    (
        put("keypoints2d_smplx", np.ones((N, 144, 5))),
        *("error", "keypoints2d_smplx", "has shape (12, 144, 5)", False),
    ),
    (
        put("keypoints2d_smpl", np.ones((N, 100, 3))),
        *("error", "keypoints2d_smpl", "100 joints", False),
    ),
    (drop("keypoints2d_smplx_mask"), "warning", "keypoints2d_smplx_mask", "missing", False),
    (
        set_rows("keypoints2d_smplx_mask", 2, 0),
        *("error", "keypoints2d_smplx_mask", "not a list of 0 and 1", False),
    ),
    (
        put("keypoints2d_smplx_mask", np.ones(150, np.uint8)),
        *("error", "keypoints2d_smplx_mask", "is of 150 joints", False),
    ),
    (
        put("keypoints2d_smplx_mask", np.r_[np.ones(100), np.zeros(90)]),
        *("error", "keypoints2d_smplx_mask", "has 100 of 190 joints", False),
    ),
    (
        put("keypoints2d_smplx_mask", np.zeros(144)),
        *("warning", "keypoints2d_smplx_mask", "no joint exists", False),
    ),
    (set_rows("smplx.betas", np.nan), "error", "smplx.betas", "NaN", True),
    (set_rows("smplx.transl", np.inf), "error", "smplx.transl", "NaN", True),
    (set_rows("bbox_xywh", np.nan), "error", "bbox_xywh", "NaN", True),
    (set_rows("lhand_bbox_xywh", np.nan), "warning", "lhand_bbox_xywh", "NaN", True),
    (set_rows("keypoints3d_smplx", np.nan), "warning", "keypoints3d_smplx", "NaN", True),
    (set_rows("meta.focal_length", np.nan), "error", "meta.focal_length", "NaN", True),
    (put("misc.focal_length", [np.nan]), "error", "misc.focal_length", "NaN", False),
    (set_rows("bbox_xywh", [5, 5, 0, 9, 1]), "error", "bbox_xywh", "no area", True),
    (set_rows("bbox_xywh", [500, 5, 9, 9, 1]), "error", "bbox_xywh", "outside the image", True),
    (
        set_rows("lhand_bbox_xywh", [5, 5, -4, 9, 1]),
        *("warning", "lhand_bbox_xywh", "no area", True),
    ),
    (
        set_rows("lhand_bbox_xywh", [5, -50, 9, 9, 1]),
        *("warning", "lhand_bbox_xywh", "outside the image", True),
    ),
    (set_rows("bbox_xywh", [5, 5, 90, 90, 7]), "warning", "bbox_xywh", "not in 0..1", True),
    (set_rows("smplx.body_pose", 4.0), "warning", "smplx.body_pose", "beyond 360°", True),
    (set_rows("smplx.betas", 5.5), "warning", "smplx.betas", "beyond ±5", True),
    (set_rows("smplx.betas", -3.5), "info", "smplx.betas", "beyond ±3", True),
    (set_rows("smplx.expression", 6), "warning", "smplx.expression", "beyond ±5", True),
    (set_rows("smplx.transl", [1, 1, -1]), "error", "smplx.transl", "behind the camera", True),
    (set_rows("smplx.transl", [1, 1, 3000]), "warning", "smplx.transl", "farther than", True),
    (set_rows("meta.focal_length", 0), "error", "focal_length", "not positive", True),
    (set_rows("meta.principal_point", 9999), "warning", "principal_point", "outside", True),
    (set_rows("meta.gender", "thing"), "warning", "meta.gender", "unknown word", True),
    (drop("misc.flat_hand_mean"), "warning", "misc.flat_hand_mean", "missing", False),
    (put("misc.flat_hand_mean", True), "warning", "smplx.left_hand_pose", "=True about 1", False),
    (
        lambda entries: entries["smplx"].update(
            right_hand_pose=entries["smplx"]["right_hand_pose"] + HANDS_MEAN["right"]
        ),
        *("warning", "smplx.right_hand_pose", "=False about 0", False),
    ),
    (duplicate, "warning", "image_path", "repeats an earlier row", True),
    (
        set_rows("keypoints2d_smplx", 2, np.s_[1:3, :, 2]),
        *("warning", "keypoints2d_smplx", "confidence not in 0..1", True),
    ),
    (
        set_rows("keypoints2d_smplx", -999, np.s_[1:3, 7, 0]),
        *("warning", "keypoints2d_smplx", "far outside the image", True),
    ),
    (
        set_rows("keypoints3d_smplx", -1, np.s_[1:3, :, 2]),
        *("warning", "keypoints3d_smplx", "points behind the camera", True),
    ),
    (scale_points(1000), "error", "keypoints3d_smplx", "a person over 5 m", True),
    (
        set_rows("keypoints2d_smplx", 20, np.s_[1:3, :, 0]),
        *("warning", "keypoints3d_smplx", "off the 2D keypoints", True),
    ),
    (drop("meta.width"), "warning", "meta.height", "size of the image unknown", False),
    (set_rows("meta.width", 0), "warning", "meta.height", "size of the image unknown", True),
]


@pytest.mark.parametrize(
    ("change", "severity", "entry", "what", "on_two_rows"),
    FAULTS,
    ids=[f"{fault[2]}: {fault[3]}" for fault in FAULTS],
)
def test_fault_is_found(
    check: Check,
    change: Callable[[Entries], None],
    severity: str,
    entry: str,
    what: str,
    on_two_rows: bool,
) -> None:
    entries = faultless()
    change(entries)
    findings = check(entries)
    mine = [one for one in findings if (one.severity, one.entry) == (severity, entry)]
    mine = [one for one in mine if what in one.what]
    assert mine, findings
    if on_two_rows:
        assert (mine[0].rows, mine[0].first_rows) == (2, (1, 2))


def test_all_faults_are_told_at_once(check: Check) -> None:
    entries = faultless()
    for change in (drop("bbox_xywh"), set_rows("smplx.betas", np.nan), put("__data_len__", 1)):
        change(entries)
    found = [finding.entry for finding in check(entries) if finding.severity == "error"]
    assert sorted(found) == ["__data_len__", "bbox_xywh", "smplx.betas"]


def test_only_the_first_rows_are_named(check: Check) -> None:
    entries = faultless()
    set_rows("smplx.betas", np.nan, slice(None))(entries)
    (finding,) = (one for one in check(entries) if one.severity == "error")
    assert (finding.rows, finding.first_rows) == (N, (0, 1, 2, 3, 4))


def test_compressed_keypoints_need_their_mask(check: Check) -> None:
    entries = faultless()
    entries["keypoints2d_smplx"] = entries["keypoints2d_smplx"][:, :50]
    entries["keypoints2d_smplx_mask"] = (np.arange(144) < 50).astype(np.uint8)
    entries["__keypoints_compressed__"] = True
    assert not [one for one in check(entries) if one.severity == "error"]
    del entries["keypoints2d_smplx_mask"]
    errors = {one.entry: one.what for one in check(entries) if one.severity == "error"}
    assert errors["keypoints2d_smplx_mask"] == "missing, but keypoints are compressed"


def test_whole_keypoints_that_are_flagged_as_compressed(check: Check) -> None:
    entries = faultless() | {"__keypoints_compressed__": True}
    entries["keypoints3d_smplx_mask"][3] = 0
    found = [one for one in check(entries) if "flagged as compressed" in one.what]
    assert [one.entry for one in found] == ["keypoints3d_smplx"]


def test_strict_keys(check: Check) -> None:
    entries = faultless() | {"__key_strict__": True}
    assert not [one for one in check(entries) if one.entry == "__key_strict__"]
    assert [one for one in check(entries | {"odd": 1}) if one.entry == "__key_strict__"]


def test_root_aligned_keypoints_are_not_behind_the_camera(check: Check) -> None:
    entries = faultless()
    entries["keypoints3d_smplx"][..., 2] -= 3.5
    entries["misc"]["kps3d_root_aligned"] = True
    found = [one for one in check(entries) if one.entry.startswith("keypoints3d")]
    assert [one.severity for one in found] == ["info"]


def test_known_datasets(check: Check) -> None:
    entries = faultless()
    name = "gta_human2multiple_230406_04000_0.npz"  # whose hands count from the flat hand
    contrary = [one for one in check(entries, name) if one.entry == "misc.flat_hand_mean"]
    assert "GTA_Human2 are known as True" in contrary[0].what
    del entries["misc"]["flat_hand_mean"]
    missing = [one for one in check(entries, name) if one.entry == "misc.flat_hand_mean"]
    assert "taken as True" in missing[0].what
    del entries["smplx"]
    assert [one for one in check(entries) if one.what == "no body parameters"]
    name = "shapy_test_230512_1631.npz"  # has none
    assert not [one for one in check(entries, name) if one.what == "no body parameters"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return shutil.copytree(IMAGES, tmp_path / "img")


def of_images(findings: list[Finding]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [
        (one.severity, one.what, one.first_rows)
        for one in findings
        if one.entry in ("image_path", "meta.height")
    ]


def test_images(check: Check, images: Path) -> None:
    (images / "set" / "000001.png").unlink()
    (images / "set" / "000002.png").write_bytes(b"no image")
    Image.new("RGB", (270, 360)).save(images / "set" / "000003.png")
    Image.new("RGB", (100, 100)).save(images / "set" / "000004.png")
    assert of_images(check(faultless(), images_folder=images)) == [
        ("error", "no such image", (1, 7)),
        ("error", "no image, or damaged", (2, 8)),
        ("error", "width and height exchanged", (3, 9)),
        ("error", "not the image's size", (4, 10)),
    ]


def test_sample_of_images(check: Check, images: Path) -> None:
    shutil.rmtree(images / "set")
    found = of_images(check(faultless(), images_folder=images, images_sample=2))
    assert found[0][:2] == ("error", "no such image")
    assert len(found[0][2]) == 4  # two images of two rows each
    assert found[1][:2] == ("info", "2 of 6 images were checked")


def test_turned_image_is_measured_as_it_is_stored(check: Check, images: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (360, 270)).save(images / "set" / "000000.png", exif=exif)
    assert of_images(check(faultless(), images_folder=images)) == [
        ("warning", "is turned by its EXIF data", (0, 6))
    ]


def test_damaged_entry_is_one_finding(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    entries = faultless() | {"mano": np.zeros(1000)}
    np.savez(path, **entries)
    content = bytearray(path.read_bytes())
    content[content.index(b"mano.npy") + 600] ^= 255
    path.write_bytes(content)
    errors = [one for one in check_humandata(path) if one.severity == "error"]
    assert [one.entry for one in errors] == ["mano"]
    assert "damaged" in errors[0].what


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive"])
def test_unreadable_container_is_one_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        check_humandata(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_of_nobody_has_one_error(tmp_path: Path) -> None:
    entries = faultless()
    for key, value in entries.items():
        if isinstance(value, np.ndarray) and len(value) == N:
            entries[key] = value[:0]
    entries["smplx"] = {name: value[:0] for name, value in entries["smplx"].items()}
    entries["meta"] = {name: value[:0] for name, value in entries["meta"].items()}
    entries["__data_len__"] = 0
    np.savez(tmp_path / "a.npz", **{key: np.array(value) for key, value in entries.items()})
    errors = [one for one in check_humandata(tmp_path / "a.npz") if one.severity == "error"]
    assert [(one.entry, one.what) for one in errors] == [("image_path", "has no rows")]
    with pytest.raises(UserError, match="has no rows"):
        humandata_statistics(tmp_path / "a.npz")


@pytest.mark.parametrize("as_list", [False, True])
def test_image_paths_in_two_dimensions(tmp_path: Path, as_list: bool) -> None:
    entries = faultless()
    paths = entries["image_path"][:, None]
    if as_list:
        (file := tmp_path / "a.pkl").write_bytes(
            pickle.dumps({**entries, "image_path": paths.tolist()})
        )
    else:
        file = tmp_path / "a.npz"
        np.savez(file, **{k: np.array(v) for k, v in {**entries, "image_path": paths}.items()})
    errors = [one for one in check_humandata(file, IMAGES) if one.severity == "error"]
    assert {one.entry for one in errors} == {"image_path"}
    with pytest.raises(UserError, match="'image_path'"):
        humandata_statistics(file)


def test_labels_of_bedlam_itself_get_their_hint(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez(
        file, imgname=np.array(["a.png"]), pose_cam=np.zeros((1, 165)), shape=np.zeros((1, 11))
    )
    (lacking,) = [one for one in check_humandata(file) if "BEDLAM's own labels" in one.advice]
    assert lacking.entry == "image_path"
    with pytest.raises(UserError, match="BEDLAM's own labels"):
        humandata_statistics(file)


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_images_that_exif_turns_or_mirrors(tmp_path: Path, orientation: int) -> None:
    shutil.copytree(IMAGES / "set", tmp_path / "set")
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = tmp_path / "set" / "000000.png"
    Image.new("RGB", (360, 270)).save(picture, exif=exif)
    write_humandata(tmp_path / "a.npz", faultless())
    turned = [one for one in check_humandata(tmp_path / "a.npz", tmp_path) if "EXIF" in one.what]
    assert [one.first_rows for one in turned] == [(0, 6)]


def test_statistics(tmp_path: Path) -> None:
    entries = faultless()
    entries["smplx"]["left_hand_pose"][:3] = 0
    entries["smplx"]["betas"][0, 0] = 4
    entries["lhand_bbox_xywh"][:6, 4] = 0
    entries["meta"]["width"] = [360] * 9 + [200] * 3
    write_humandata(tmp_path / "a.npz", entries)
    found = humandata_statistics(tmp_path / "a.npz")
    assert (found["rows"], found["images"]) == (N, 6)
    assert found["people_per_image"] == {"mean": 2, "max": 2}
    assert found["keypoints"] == {"keypoints2d_smplx": 144, "keypoints3d_smplx": 144}
    assert found["image_sizes"] == {"360x270": 9, "200x270": 3}
    assert found["box_longer_side_px"]["median"] == 160
    assert found["part_boxes"] == {"lhand": 0.5, "rhand": 0, "face": 0}
    assert found["known"]["left_hand"] == 0.75
    assert found["known"]["face"] == 1
    assert found["hands_from_flat_hand"] == "no"
    assert found["betas"]["largest"] == 4
    assert found["betas"]["rows_beyond_3"] == round(1 / N, 3)
    depth = entries["smplx"]["transl"][:, 2]
    assert found["depth_m"]["median"] == pytest.approx(np.median(depth), abs=1e-3)
    angles = np.degrees(np.linalg.norm(entries["smplx"]["body_pose"], axis=2))
    assert found["pose_degrees"]["body_pose"]["mean_angle"] == pytest.approx(
        angles.mean(), abs=0.01
    )
