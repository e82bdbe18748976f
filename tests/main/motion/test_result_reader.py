"""Result folders of strangers: each fault is one line, whoever reads the folder."""

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from human_models.files import STAND_IN_NAME
from main import export, humandata, score
from main.motion.result_reader import (
    find_input,
    is_plain_name,
    open_result,
    person_files,
    read_person,
)
from main.motion.results import FILE_COLUMNS
from main.motion.rows import FINAL_ROW
from main.pipeline.clips import Job, report_of_finished
from utils.errors import UserError

COUNT = 3
TRUTH = Path(__file__).parents[3] / "demo" / "test_video_truth.npz"
SUMMARY = {
    "input": "walk.mp4",
    "frames": 10,
    "model": "m",
    "precision": "fp32",
    "body_model": STAND_IN_NAME,
    "flat_hand_mean": False,
    "camera": {"focal": [300.0, 300.0], "princpt": [80, 60], "origin": "--focal"},
    "smoothing_s": {"transl": 0.1},
    "fps": 10.0,
    "image_size": [160, 120],
    "people": [{"person": 1, "file": "person_001.npz", "rows": COUNT, "mean_score": 0.9}],
}


_MIRRORED = np.tile(np.diag([-1.0, 1, 1, 1]), (COUNT, 1, 1))


def arrays() -> dict[str, np.ndarray]:
    """A person's file as inference writes it."""
    rows = np.zeros(COUNT, FINAL_ROW)
    rows["frame_index"] = [0, 1, 4]
    rows["focal"] = rows["raw_focal"] = 300
    rows["transl"][:, 2] = rows["raw_transl"][:, 2] = rows["joints_3d_m"][..., 2] = 4
    return {
        **{name: rows[name] for name in FILE_COLUMNS},
        "foot_contact": np.zeros((COUNT, 4), bool),
        "fps": np.array(10.0),
        "image_size": np.array([160, 120], np.int32),
        "body_model": np.array(STAND_IN_NAME),
        "flat_hand_mean": np.array(False),
        "world_from_camera": np.tile(np.eye(4), (COUNT, 1, 1)),
    }


@pytest.fixture(scope="module", autouse=True)
def commands_loaded() -> None:
    """Import what the commands import when they run, so that no test counts its memory."""
    for name in ("characters.export", "evaluation.scoring", "motion.pseudo_labels"):
        import_module(f"main.{name}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "results" / "result_walk"
    path.mkdir(parents=True)
    np.savez(path / "person_001.npz", **arrays())
    (path / "summary.json").write_text(json.dumps(SUMMARY))
    return path


Fault = Callable[[Path], object]


def summary(**changes: Any) -> Fault:
    return lambda folder: (folder / "summary.json").write_text(json.dumps(SUMMARY | changes))


def text(content: str) -> Fault:
    return lambda folder: (folder / "summary.json").write_text(content)


def inserted(field: str) -> Fault:
    """One more field as JSON text, which json.dumps would not write."""
    return text(json.dumps(SUMMARY)[:-1] + f", {field}}}")


def person(**changes: Any) -> Fault:
    return lambda folder: np.savez(folder / "person_001.npz", **(arrays() | changes))


def without(name: str) -> Fault:
    def write(folder: Path) -> None:
        kept = {key: value for key, value in arrays().items() if key != name}
        np.savez(folder / "person_001.npz", **kept)

    return write


def spoilt(name: str, value: float) -> Fault:
    """One number of an array is another."""

    def write(folder: Path) -> None:
        content = arrays()
        content[name] = content[name].astype(np.float64)
        content[name][(-1,) * content[name].ndim] = value
        np.savez(folder / "person_001.npz", **content)

    return write


def header(name: str, shape: tuple[int, ...], kind: str = "<f4") -> Fault:
    """An array says that it has a shape, and has a few bytes."""

    def write(folder: Path) -> None:
        kept = {key: value for key, value in arrays().items() if key != name}
        np.savez(folder / "person_001.npz", **kept)
        stream = io.BytesIO()
        about = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, about)
        with zipfile.ZipFile(folder / "person_001.npz", "a") as archive:
            archive.writestr(f"{name}.npy", stream.getvalue() + bytes(12))

    return write


def bomb(folder: Path) -> None:
    content = arrays() | {"frame_index": np.arange(40_000)}
    content["joints_3d_m"] = np.zeros((40_000, 137, 3), np.float32)
    np.savez_compressed(folder / "person_001.npz", **content)


def entry_twice(folder: Path) -> None:
    path = folder / "person_001.npz"
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("fps.npy", archive.read("fps.npy"))


def link(name: str) -> Fault:
    def write(folder: Path) -> None:
        (folder / name).rename(folder.parent.parent / name)
        (folder / name).symlink_to(folder.parent.parent / name)

    return write


def cut_off(folder: Path) -> None:
    content = (folder / "person_001.npz").read_bytes()
    (folder / "person_001.npz").write_bytes(content[: len(content) // 2])


def second_number(folder: Path) -> None:
    (folder / "person_1.npz").write_bytes((folder / "person_001.npz").read_bytes())


FAULTS: dict[str, tuple[Fault, str]] = {
    "not a summary of a result": (text("[]"), "not a summary"),
    "no JSON": (text('{"people": ['), "not JSON"),
    "no UTF-8": (
        lambda folder: (folder / "summary.json").write_bytes(b'{"input": "\xff"}'),
        "not JSON",
    ),
    "deep nesting": (text("[" * 200_000), "nested too deeply"),
    "deep nesting of a field": (inserted('"x": ' + "[" * 200_000 + "]" * 200_000), "too deeply"),
    "an integer of 5000 digits": (inserted('"x": ' + "1" * 5000), "not JSON"),
    "a key twice": (inserted('"fps": 10.0'), "'fps' stands there twice"),
    "huge summary": (inserted('"x": "' + "x" * 16_000_000 + '"'), "larger than"),
    "camera a list": (summary(camera=[1, 2]), "'camera'"),
    "camera's focal NaN": (summary(camera={"focal": [float("nan"), 1.0]}), "'camera.focal.0'"),
    "camera's focal empty": (summary(camera={"focal": []}), "'camera.focal'"),
    "camera's focal zero": (summary(camera={"focal": [1.0, 0.0]}), "'camera.focal.1'"),
    "camera's origin a number": (summary(camera={"origin": 5}), "'camera.origin'"),
    "people not a list": (summary(people={"a": 1}), "'people'"),
    "people absent": (text('{"frames": 10}'), "'people'"),
    "people of numbers": (summary(people=[1]), "'people.0'"),
    "a file name that leads out": (
        summary(people=[{"file": "../../../secret.npz"}]),
        "'people.0.file'",
    ),
    "a file name that is absolute": (summary(people=[{"file": "/etc/passwd"}]), "'people.0.file'"),
    "rows of a person text": (summary(people=[{"rows": "many"}]), "'people.0.rows'"),
    "summary's frames huge": (summary(frames=10**12), "'frames'"),
    "summary's frames text": (summary(frames="ten"), "'frames'"),
    "summary's frames negative": (summary(frames=-1), "'frames'"),
    "summary's frames fewer than the person's": (summary(frames=4), "no frame 4 in a clip of 4"),
    "summary's fps text": (summary(fps="10"), "'fps'"),
    "summary's fps NaN": (summary(fps=float("nan")), "'fps'"),
    "summary's fps infinite": (text(json.dumps(SUMMARY).replace("10.0", "1e999")), "'fps'"),
    "summary's image_size zero": (summary(image_size=[0, 120]), "'image_size.0'"),
    "summary's image_size huge": (summary(image_size=[10**9, 10**9]), "'image_size.0'"),
    "input a number": (summary(input=7), "'input'"),
    "model of half a character": (summary(model="\ud800"), "'model'"),
    "input of two lines": (summary(input="a\nerror: b"), "'input'"),
    "smoothing a list": (summary(smoothing_s=[]), "'smoothing_s'"),
    "smoothing with an odd key": (summary(smoothing_s={"a\nb": 1}), "'smoothing_s."),
    "frame_index huge": (person(frame_index=np.array([0, 1, 10**12])), "'frame_index'"),
    "frame_index negative": (person(frame_index=np.array([-1, 0, 1])), "'frame_index'"),
    "frame_index text": (person(frame_index=np.array(["a", "b", "c"])), "'frame_index'"),
    "frame_index of floats": (person(frame_index=np.array([0.0, 1, 2])), "'frame_index'"),
    "frame_index repeated": (person(frame_index=np.array([0, 1, 1])), "a frame twice"),
    "frame_index unsorted": (person(frame_index=np.array([4, 1, 2])), "do not rise"),
    "frame_index a single number": (person(frame_index=np.array(3)), "'frame_index'"),
    "frame_index empty": (person(frame_index=np.zeros(0, np.int64)), "'frame_index'"),
    "fps text": (person(fps=np.array("ten")), "'fps'"),
    "fps complex": (person(fps=np.array(10 + 1j)), "'fps'"),
    "fps NaN": (person(fps=np.array(np.nan)), "'fps' is not a frame rate"),
    "fps zero": (person(fps=np.array(0.0)), "'fps' is not a frame rate"),
    "fps tiny": (person(fps=np.array(1e-320)), "'fps' is not a frame rate"),
    "fps a list": (person(fps=np.array([10.0, 10])), "'fps'"),
    "focal NaN": (spoilt("focal", np.nan), "'focal'"),
    "focal zero": (spoilt("focal", 0), "'focal'"),
    "focal empty": (person(focal=np.zeros((0, 2))), "'focal'"),
    "poses of text": (person(body_pose=np.full((COUNT, 63), "x")), "'body_pose'"),
    "poses of objects": (
        person(body_pose=np.full((COUNT, 63), None, dtype=object)),
        "'body_pose'",
    ),
    "poses too few": (person(body_pose=np.zeros((COUNT - 1, 63))), "'body_pose'"),
    "poses of another shape": (person(body_pose=np.zeros((COUNT, 21, 3))), "'body_pose'"),
    "poses huge": (spoilt("body_pose", 1e38), "'body_pose'"),
    "poses of structures": (
        person(jaw_pose=np.zeros(COUNT, [("x", "f4"), ("y", "f4"), ("z", "f4")])),
        "'jaw_pose'",
    ),
    "betas of another length": (person(betas=np.zeros((COUNT, 300), np.float32)), "'betas'"),
    "transl NaN": (spoilt("transl", np.nan), "'transl'"),
    "transl infinite": (spoilt("transl", np.inf), "'transl'"),
    "raw transl NaN": (spoilt("raw_transl", np.nan), "'raw_transl'"),
    "joints of another count": (person(joints_3d_m=np.zeros((COUNT, 25, 3))), "'joints_3d_m'"),
    "boxes NaN": (spoilt("box_xywh", np.nan), "'box_xywh'"),
    "scores above one": (spoilt("score", 7), "'score'"),
    "flags of numbers": (person(interpolated=np.zeros(COUNT)), "'interpolated'"),
    "flags too few": (person(out_of_range=np.zeros(1, bool)), "'out_of_range'"),
    "contacts of one foot": (person(foot_contact=np.zeros((COUNT, 1), bool)), "'foot_contact'"),
    "world of three rows": (person(world_from_camera=np.eye(3)), "'world_from_camera'"),
    "world without extent": (
        person(world_from_camera=np.zeros((COUNT, 4, 4))),
        "more than a rot",
    ),
    "world as in a mirror": (person(world_from_camera=_MIRRORED), "more than a rotation"),
    "image_size zero": (person(image_size=np.array([160, 0])), "'image_size'"),
    "image_size huge": (person(image_size=np.array([10**12, 120])), "'image_size'"),
    "image_size NaN": (person(image_size=np.array([np.nan, 120])), "'image_size'"),
    "body_model a number": (person(body_model=np.array(3)), "'body_model'"),
    "body_model of two lines": (person(body_model=np.array("a\nb")), "'body_model'"),
    "body_model endless": (person(body_model=np.array("x" * 1000)), "'body_model'"),
    "flat_hand_mean text": (person(flat_hand_mean=np.array("no")), "'flat_hand_mean'"),
    "betas missing": (without("betas"), "lacks 'betas'"),
    "frame_index missing": (without("frame_index"), "lacks 'frame_index'"),
    "7 TB of frames": (header("frame_index", (10**12,), "<i8"), "'frame_index'"),
    "7 TB of poses": (header("body_pose", (10**12, 63)), "'body_pose'"),
    "poses of which few are there": (header("body_pose", (COUNT, 63)), "'body_pose' is cut off"),
    "a wide text": (header("body_model", (), "<U500000000"), "'body_model'"),
    "compressed zeros": (bomb, "compressed"),
    "an entry twice": (entry_twice, "'fps' twice"),
    "no archive": (lambda f: (f / "person_001.npz").write_bytes(b"PK\x03\x04"), "damaged"),
    "half an archive": (cut_off, "damaged"),
    "a person twice": (second_number, "of one person"),
    "a person's file a link": (link("person_001.npz"), "link that leads out"),
    "the summary a link": (link("summary.json"), "link that leads out"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_for_every_reader(
    fault: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, message = FAULTS[fault]
    make(folder)
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"
    commands = (
        (export, [str(folder), "--format", "glb"]),
        (export, [str(folder), "--format", "bvh,viewer", "--output", str(out)]),
        (score, [str(folder), str(TRUTH)]),
        (humandata, ["convert", "from-results", str(folder), "--output", f"{out}/a.npz"]),
    )
    tracemalloc.start()
    for module, arguments in commands:
        assert module.main(arguments) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert message in line
        assert "person_" in line or "summary.json" in line
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()
    assert sorted(tmp_path.rglob("*")) == before


def test_honest_results_are_read_as_they_are(folder: Path) -> None:
    result = open_result(folder)
    read = result.read_person(1, arrays())
    for name, values in arrays().items():
        np.testing.assert_array_equal(read[name], values)
        if name != "frame_index":
            assert read[name].dtype == values.dtype
    assert result.summary is not None
    assert result.summary.model_dump(exclude_none=True)["camera"] == SUMMARY["camera"]


def test_results_of_earlier_versions_are_read(folder: Path) -> None:
    """The first version had neither raw values and flags nor a camera."""
    kept = {k: v for k, v in arrays().items() if not k.startswith("raw_")}
    for name in ("interpolated", "out_of_range", "truncation", "occlusion", "foot_contact"):
        del kept[name]
    del kept["world_from_camera"]
    np.savez(folder / "person_001.npz", **kept)
    early = {k: v for k, v in SUMMARY.items() if k not in ("camera", "smoothing_s")}
    (folder / "summary.json").write_text(json.dumps(early))
    assert export.main([str(folder), "--format", "glb,viewer"]) == 0
    assert (folder / "viewer.html").is_file()


def test_a_folder_without_a_summary_has_people(folder: Path) -> None:
    (folder / "summary.json").unlink()
    assert open_result(folder).summary is None
    with pytest.raises(UserError, match=r"summary\.json cannot be read"):
        open_result(folder).require_summary()


def test_what_is_not_known_is_not_read(folder: Path) -> None:
    person(secret=np.full(3, None, dtype=object))(folder)
    assert "secret" not in read_person(folder / "person_001.npz")
    (folder / "person_one.npz").write_text("mine")
    assert list(person_files(folder)) == [1]


def test_numbers_of_other_machines(folder: Path) -> None:
    content = arrays()
    person(transl=content["transl"].astype(">f8"), betas=content["betas"].astype(np.float16))(
        folder
    )
    read = read_person(folder / "person_001.npz")
    assert read["transl"].dtype == np.float64
    assert read["betas"].dtype == np.float32
    np.testing.assert_array_equal(read["transl"], content["transl"])


def test_gaps_that_nobody_can_fill(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    person(frame_index=np.array([0, 1, 9_000_000]))(folder)
    summary(frames=9_000_001)(folder)
    assert export.main([str(folder), "--format", "bvh"]) == 2
    assert "8999998 frames are missing, and at most 100000" in capfd.readouterr().err


def test_what_a_batch_found_before(folder: Path) -> None:
    job = Job("walk", folder.parent / "walk.mp4", folder.parent, "walk")
    assert report_of_finished(job)[2:4] == (10, 1)
    summary(frames="ten")(folder)
    assert report_of_finished(job)[2:4] == (None, None)


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/passwd", "../a.mp4", "a/b", "a\\b", "C:a"])
def test_paths_are_no_names(name: str, folder: Path) -> None:
    assert not is_plain_name(name)
    assert find_input(folder, name) is None


def test_the_input_is_found_beside_the_folder(folder: Path, tmp_path: Path) -> None:
    assert find_input(folder, "walk.mp4") is None
    video = folder.parent / "walk.mp4"
    video.write_bytes(b"video")
    assert find_input(folder, "walk.mp4") == video
    assert find_input(folder, "test_video.mp4") is not None  # of demo/
    video.unlink()
    (tmp_path / "private.mp4").touch()
    video.symlink_to(tmp_path / "private.mp4")
    assert find_input(folder, "walk.mp4") is None
