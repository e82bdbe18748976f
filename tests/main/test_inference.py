"""Inference as a user runs it.

In processes of their own where that matters; else in this one, with models that stay loaded.
"""

import functools
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from configs.reader import load_config
from main import inference
from main.pipeline.estimator import Estimator
from utils.files import remove_leftovers
from utils.video_write import VideoWriter

ROOT = Path(__file__).parents[2]
PARITY_MODEL = ROOT / "tests" / "parity" / "snapshot_fp16.pth.tar"
SIZE = (160, 120)
BOX = [40, 10, 50, 100]


@pytest.fixture(scope="module", autouse=True)
def loaded_once(one_thread):
    """A model and its body are loaded at its first use."""
    loaded = functools.cache(Estimator.load)

    def load(model_dir, *, overrides=(), **settings):
        return loaded(model_dir, overrides=tuple(overrides), **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Estimator, "load", load)
        yield


@pytest.fixture(scope="module")
def model(untrained):
    return untrained


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "a 'walk' \"home\".mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(path, fps=10) as writer:
        for _ in range(12):
            writer.write(rng.integers(0, 60, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
    return path


def write_boxes(path, boxes):
    path.write_text(json.dumps({str(frame): rows for frame, rows in boxes.items()}))
    return path


def run_script(*arguments):
    """The command of the README, in a process of its own."""
    command = ["sh", "scripts/inference.sh", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def run(capfd):
    """The same command in this process, which has no PyTorch to import any more."""

    def run_command(*arguments):
        status = inference.main([str(argument) for argument in arguments])
        written = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, status, written.out, written.err)

    return run_command


def everything_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_video(tmp_path, model, video):
    boxes = {frame: [BOX, [100 + frame, 20, 40, 90]] for frame in range(12)}
    boxes[5] = []
    boxes[6] = [[100 + 6, 20, 40, 90]]
    file = write_boxes(tmp_path / "my boxes.json", boxes)
    out = tmp_path / "out put"
    done = run_script(model, video, "--boxes", file, "--output", out, "--batch-size", 3)
    assert done.returncode == 0, done.stderr
    assert "open body (stand-in)" in done.stderr

    name = f"result_{video.stem}"
    assert everything_under(out) == sorted(
        [f"{name}.mp4", name]
        + [
            f"{name}/{file}"
            for file in ("config_base.py", "person_001.npz", "person_002.npz", "summary.json")
        ]
    )
    with av.open(str(out / f"{name}.mp4")) as container:
        (stream,) = container.streams.video
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 10
        assert (stream.width, stream.height) == SIZE
        assert sum(1 for _ in container.decode(stream)) == 12

    one, two = (load(out / name / f"person_00{k}.npz") for k in (1, 2))
    for person, absent in ((one, [5, 6]), (two, [5])):
        assert person["frame_index"].tolist() == list(range(12))
        assert np.flatnonzero(person["interpolated"]).tolist() == absent
        assert (np.flatnonzero(person["score"] == 0)).tolist() == absent
    rows = len(two["frame_index"])
    shapes = {
        "global_orient": (3,),
        "body_pose": (63,),
        "left_hand_pose": (45,),
        "right_hand_pose": (45,),
        "jaw_pose": (3,),
        "betas": (10,),
        "expression": (10,),
        "transl": (3,),
        "focal": (2,),
        "princpt": (2,),
        "box_xywh": (4,),
        "score": (),
        "joints_3d_m": (137, 3),
        "joints_2d_px": (137, 2),
    }
    parameters = list(shapes)[:10]
    shapes |= {f"raw_{key}": shapes[key] for key in parameters}
    shapes |= dict.fromkeys(("truncation", "occlusion", "interpolated", "out_of_range"), ())
    for key, shape in shapes.items():
        assert two[key].shape == (rows, *shape), key
        assert np.isfinite(two[key]).all(), key
    np.testing.assert_allclose(two["box_xywh"][0], [100, 20, 40, 90])
    np.testing.assert_allclose(two["box_xywh"][5], [105, 20, 40, 90])  # halfway
    np.testing.assert_allclose(two["box_xywh"][6], [106, 20, 40, 90])
    assert two["fps"] == 10
    assert two["image_size"].tolist() == list(SIZE)
    assert str(two["body_model"]) == "open body (stand-in)"
    assert not two["flat_hand_mean"]

    assert load_config(out / name / "config_base.py") == load_config(model / "config_base.py")
    assert (one["betas"] == one["betas"][0]).all()
    for key in ("focal", "princpt"):  # one camera for everyone, always
        assert len(np.unique(np.concatenate([one[key], two[key]]), axis=0)) == 1

    assert len(np.unique(two["raw_princpt"], axis=0)) > 1

    summary = json.loads((out / name / "summary.json").read_text())
    assert summary["frames"] == 12
    assert summary["camera"]["focal"] == pytest.approx([200, 200])  # the diagonal of 160 x 120
    assert summary["smoothing_s"]["body_pose"] == 0.06
    assert [person["rows"] for person in summary["people"]] == [12, 12]
    assert [person["interpolated"] for person in summary["people"]] == [2, 1]


def test_boxes_beside_the_input_are_used_before_yolo(run, tmp_path, model):
    video = tmp_path / "walk.mp4"
    with VideoWriter(video, fps=10) as writer:
        for _ in range(6):
            writer.write(np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    boxes = {frame: [[20 + 10 * frame, 10, 40, 90]] for frame in range(6)}
    file = write_boxes(tmp_path / "walk.boxes.json", boxes)
    done = run(model, video, 5, "--output", tmp_path / "out", "--no-overlay")
    assert done.returncode == 0, done.stderr
    assert f"people: boxes of {file}" in done.stderr.splitlines()
    one = load(tmp_path / "out" / "result_walk" / "person_001.npz")
    assert one["box_xywh"][:, 0].tolist() == [20, 40, 60]  # every other frame of the file

    weights = f"inference.detection.model_path={tmp_path / 'no_such_detector.pt'}"
    done = run(model, video, "--detector", "yolo", "--set", weights, "--output", tmp_path)
    assert done.returncode == 2
    assert "NAME.boxes.json beside the input" in done.stderr.splitlines()[-1]


def test_rows_do_not_depend_on_the_batch_size(run, tmp_path, model, video):
    file = write_boxes(tmp_path / "b.json", {frame: [BOX] for frame in range(12)})
    rows = []
    for size in (1, 5):
        out = tmp_path / str(size)
        done = run(
            model, video, "--boxes", file, "--output", out, "--batch-size", size, "--no-overlay"
        )
        assert done.returncode == 0, done.stderr
        assert not list(out.glob("*.mp4"))
        rows.append(load(out / f"result_{video.stem}" / "person_001.npz"))
    np.testing.assert_allclose(rows[0]["joints_2d_px"], rows[1]["joints_2d_px"], atol=1e-2)


def test_body_stands_in_its_box_and_is_drawn_there(run, tmp_path, model):
    Image.new("RGB", (320, 240), (0, 0, 0)).save(tmp_path / "photo.png")
    box = [180, 30, 80, 180]
    file = write_boxes(tmp_path / "b.json", {0: [box]})
    for overlay in ("mesh", "vertices", "skeleton"):
        out = tmp_path / overlay
        done = run(
            model, tmp_path / "photo.png", "--boxes", file, "--output", out, "--overlay", overlay
        )
        assert done.returncode == 0, done.stderr
        drawn = np.asarray(Image.open(out / "result_photo.png")).max(axis=2) > 30
        rows, columns = np.nonzero(drawn)
        assert rows.min() == pytest.approx(30, abs=15)
        assert rows.max() == pytest.approx(210, abs=15)
        assert (columns.min() + columns.max()) / 2 == pytest.approx(220, abs=8)
        joints = load(out / "result_photo" / "person_001.npz")["joints_2d_px"][0]
        assert joints[:, 1].min() > 30
        assert joints[:, 1].max() < 211


def test_frame_rate_is_resampled(run, tmp_path, model, video):
    file = write_boxes(tmp_path / "b.json", {0: [BOX]})
    done = run(model, video, 5, "--boxes", file, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    with av.open(str(tmp_path / f"result_{video.stem}.mp4")) as container:
        assert container.streams.video[0].average_rate == 5
        assert sum(1 for _ in container.decode(video=0)) == 6


def test_one_person_can_be_chosen(run, tmp_path, model, video):
    boxes = {frame: [[5, 10, 30, 60], [80, 5, 60, 110]] for frame in range(12)}
    file = write_boxes(tmp_path / "b.json", boxes)
    for person, expected in (("largest", "person_002.npz"), ("1", "person_001.npz")):
        out = tmp_path / person
        done = run(
            model, video, "--boxes", file, "--output", out, "--person", person, "--no-overlay"
        )
        assert done.returncode == 0, done.stderr
        assert [path.name for path in sorted(out.rglob("*.npz"))] == [expected]


def test_people_with_the_most_frames(run, tmp_path, model, video):
    boxes = {frame: [[5, 10, 30, 60], [80, 5, 60, 110]][frame < 3 :] for frame in range(12)}
    file = write_boxes(tmp_path / "b.json", boxes)
    arguments = ("--boxes", file, "--output", tmp_path, "--keep-longest", 1, "--no-overlay")
    done = run(model, video, *arguments)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("person_*.npz")
    assert len(load(path)["frame_index"]) == 12


def test_preview_is_a_sheet_and_nothing_else(run, tmp_path, model, video):
    boxes = {frame: [[5, 10, 30, 60], [80, 5, 60, 110]] for frame in range(12)}
    file = write_boxes(tmp_path / "b.json", boxes)
    done = run(model, video, "--boxes", file, "--output", tmp_path / "out", "--preview")
    assert done.returncode == 0, done.stderr
    (name,) = everything_under(tmp_path / "out")
    assert name == f"result_{video.stem}_preview.jpg"
    assert Image.open(tmp_path / "out" / name).size == (400, 324)


def test_still_image_keeps_raw_values_but_for_the_camera(run, tmp_path, model):
    Image.new("RGB", (320, 240)).save(tmp_path / "photo.png")
    file = write_boxes(tmp_path / "b.json", {0: [[180, 30, 80, 180]]})
    arguments = ("--boxes", file, "--output", tmp_path, "--no-overlay", "--fov", 60, "--floor")
    done = run(model, tmp_path / "photo.png", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("a photograph shows no motion, so --world is left out") == 1
    one = load(tmp_path / "result_photo" / "person_001.npz")
    for key in (
        "body_pose",
        "left_hand_pose",
        "right_hand_pose",
        "jaw_pose",
        "betas",
        "expression",
    ):
        np.testing.assert_array_equal(one[key], one[f"raw_{key}"])
    assert one["focal"][0] == pytest.approx([160 / np.tan(np.radians(30))] * 2)
    joints = one["joints_3d_m"][0]
    seen = joints[:, :2] / joints[:, 2:] * one["focal"] + one["princpt"]
    np.testing.assert_allclose(one["joints_2d_px"][0], seen, atol=0.05)


def test_smoothing_can_be_off(run, tmp_path, model, video):
    done = run(
        *(model, video, "--detector", "whole-image", "--output", tmp_path, "--no-overlay"),
        *("--smooth", "off"),
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / f"result_{video.stem}"
    one = load(folder / "person_001.npz")
    np.testing.assert_array_equal(one["body_pose"], one["raw_body_pose"])
    assert json.loads((folder / "summary.json").read_text())["smoothing_s"] is None


def test_estimates_of_a_result_are_used_again(run, tmp_path, model, video):
    boxes = write_boxes(
        tmp_path / "b.json", {n: [[40 + n, 10, 50, 100], [100, 20, 40, 90 + n]] for n in range(12)}
    )
    once, again = tmp_path / "once", tmp_path / "again"
    flags = ("--no-overlay", "--smooth", 3, "--focal", 300, "--refine")
    found = ("--boxes", boxes, "--keypoints", "built-in", "--no-overlay")
    assert run(model, video, "--output", once, "--boxes", boxes, *flags).returncode == 0
    assert run(model, video, "--output", again, *found).returncode == 0
    done = run(model, video, "--output", again, *flags, "--reuse")
    assert done.returncode == 0, done.stderr
    name = f"result_{video.stem}"
    for person in ("person_001.npz", "person_002.npz"):
        expected, values = load(once / name / person), load(again / name / person)
        assert expected.keys() == values.keys()
        for key in expected.keys() - {"body_model"}:
            np.testing.assert_allclose(values[key], expected[key], atol=2e-3, err_msg=key)
    summaries = [json.loads((one / name / "summary.json").read_text()) for one in (once, again)]
    assert summaries[0] == summaries[1]
    for given, reason in (
        (("--fps", 5), "was made with frame rate 10.0, not 5.0"),
        (("--boxes", boxes), "--reuse takes boxes and keypoints from the result"),
        (("--output", tmp_path / "none"), "--reuse: there is no result"),
    ):
        refused = run(model, video, "--output", again, "--reuse", *given)
        assert refused.returncode == 2
        assert reason in refused.stderr
    earlier = load(again / name / "person_001.npz")
    del earlier["keypoint_depth_m"]  # as a former version wrote it
    np.savez(again / name / "person_001.npz", **earlier)
    done = run(model, video, "--output", again, *flags, "--reuse")
    assert done.returncode == 0, done.stderr
    assert not load(again / name / "person_001.npz")["keypoint_depth_m"].any()


def test_a_damaged_or_outdated_result_is_not_used_again(run, tmp_path, model, video):
    clip = Path(shutil.copy(video, tmp_path / "clip.mp4"))
    flags = ("--detector", "whole-image", "--no-overlay", "--world", "--output", tmp_path)
    assert run(model, clip, *flags).returncode == 0
    person = tmp_path / "result_clip" / "person_001.npz"
    content = load(person)
    for name, changed, reason in (
        ("interpolated", np.ones(12, bool), "all is 'interpolated'"),
        ("box_xywh", 0 * content["box_xywh"], "boxes without size"),
        ("raw_transl", -content["raw_transl"], "'raw_transl' is in no camera's view"),
        ("raw_transl", 1e9 * content["raw_transl"], "'raw_transl' is in no camera's view"),
        ("score", content["score"], "has no keypoints, which --refine and --keypoints need"),
    ):
        np.savez(person, **(content | {name: changed}))
        more = ("--keypoints", "built-in") if name == "score" else ()
        refused = run(model, clip, *flags, "--reuse", *more)
        assert (refused.returncode, reason in refused.stderr) == (2, True), refused.stderr
    assert run(model, clip, *flags, "--reuse").returncode == 0
    with clip.open("ab") as file:
        file.write(bytes(8))
    refused = run(model, clip, *flags, "--reuse")
    assert refused.returncode == 2
    assert "clip.mp4 has changed since" in refused.stderr


def test_folder_of_frames_is_a_video(run, tmp_path, model):
    frames = tmp_path / "frames"
    frames.mkdir()
    for k in (1, 2, 10):
        Image.new("RGB", SIZE, (k, k, k)).save(frames / f"frame{k}.jpg")
    file = write_boxes(tmp_path / "b.json", {k: [BOX] for k in range(3)})
    done = run(model, frames, "--boxes", file, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "out" / "result_frames" / "person_001.npz")["frame_index"].tolist() == [
        0,
        1,
        2,
    ]
    assert (tmp_path / "out" / "result_frames.mp4").is_file()


def test_folder_of_photographs_is_taken_one_by_one(run, tmp_path, model):
    photographs = tmp_path / "photos"
    photographs.mkdir()
    Image.new("RGB", (160, 120)).save(photographs / "a.jpg")
    Image.new("RGB", (120, 160)).save(photographs / "b.png")
    done = run(model, photographs, "--detector", "whole-image", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert everything_under(tmp_path / "out") == [
        "result_photos",
        "result_photos/result_a",
        "result_photos/result_a.jpg",
        "result_photos/result_a/config_base.py",
        "result_photos/result_a/person_001.npz",
        "result_photos/result_a/summary.json",
        "result_photos/result_b",
        "result_photos/result_b.png",
        "result_photos/result_b/config_base.py",
        "result_photos/result_b/person_001.npz",
        "result_photos/result_b/summary.json",
    ]


def test_photographs_that_fail_are_left_out_and_names_do_not_clash(run, tmp_path, model):
    photographs = tmp_path / "photos"
    photographs.mkdir()
    Image.new("RGB", (160, 120)).save(photographs / "a.jpg")
    Image.new("RGB", (120, 160)).save(photographs / "a.png")
    (photographs / "b.jpg").write_bytes(b"no image")
    done = run(model, photographs, "--detector", "whole-image", "--output", tmp_path / "out")
    assert done.returncode == 1, done.stderr
    assert "left out: " in done.stderr
    found = sorted(path.name for path in (tmp_path / "out" / "result_photos").iterdir())
    assert found == ["result_a_jpg", "result_a_jpg.jpg", "result_a_png", "result_a_png.png"]

    boxes = write_boxes(tmp_path / "b.json", {77: [BOX]})
    done = run(model, photographs, "--boxes", boxes, "--output", tmp_path / "none")
    assert done.returncode == 2, done.stderr
    assert "none of the 3 images" in done.stderr


def test_checkpoint_in_the_published_form_is_a_model_dir(run, tmp_path, video):
    done = run(
        PARITY_MODEL,
        video,
        "--detector",
        "whole-image",
        "--output",
        tmp_path,
        "--precision",
        "bf16",
    )
    assert done.returncode == 0, done.stderr
    assert len(load(tmp_path / f"result_{video.stem}" / "person_001.npz")["transl"]) == 12


def test_result_replaces_an_older_one_whole(run, tmp_path, model, video):
    result = tmp_path / f"result_{video.stem}"
    result.mkdir()
    (result / "person_009.npz").write_text("old")
    done = run(model, video, "--detector", "whole-image", "--output", tmp_path, "--no-overlay")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in result.iterdir()) == [
        "config_base.py",
        "person_001.npz",
        "summary.json",
    ]


BAD_INPUT = {
    "missing file": ("{model} gone.mp4 --boxes {boxes}", "no such file or folder"),
    "not a video": ("{model} {tmp}/text.mp4 --boxes {boxes}", "text.mp4"),
    "zero bytes": ("{model} {tmp}/empty.mp4 --boxes {boxes}", "empty"),
    "zero bytes, image": ("{model} {tmp}/empty.jpg --boxes {boxes}", "empty"),
    "empty folder": ("{model} {tmp}/nothing --boxes {boxes}", "no image"),
    "no such model": ("no_such_model {video} --boxes {boxes}", "no such model folder"),
    "published model absent": ("smplest_x_h {video} --boxes {boxes}", "huggingface.co/waanqii"),
    "corrupt checkpoint": ("{tmp}/corrupt.pth.tar {video} --boxes {boxes}", "corrupt.pth.tar"),
    "wrong config key": (
        "{model} {video} --boxes {boxes} --set model.focall=1",
        "did you mean 'focal'",
    ),
    "no boxes file": ("{model} {video} --boxes {tmp}/gone.json", "no such file of boxes"),
    "no boxes at all": ("{model} {video} --boxes {tmp}/none.json", "no box in it"),
    "nobody": ("{model} {video} --boxes {tmp}/later.json", "nobody found"),
    "nobody by that number": ("{model} {video} --boxes {boxes} --person 7", "nobody has this"),
    "wrong person": ("{model} {video} --boxes {boxes} --person tallest", "--person tallest"),
    "wrong smoothing": ("{model} {video} --boxes {boxes} --smooth much", "--smooth much"),
    "wrong focal length": ("{model} {video} --boxes {boxes} --focal -3", "--focal -3"),
    "wrong angle of view": ("{model} {video} --boxes {boxes} --fov 200", "--fov 200"),
    "two cameras": ("{model} {video} --boxes {boxes} --fov 60 --focal 900", "one of them"),
    "wrong format": ("{model} {video} --boxes {boxes} --export fbx", "fbx"),
    "wrong batch size": ("{model} {video} --boxes {boxes} --batch-size 0", "1 or more"),
    "output is not a folder": (
        "{model} {video} --boxes {boxes} --output {tmp}/text.mp4/out",
        "text.mp4",
    ),
    "neither file nor list": ("{model}", "FILE_NAME is missing"),
    "file and list": ("{model} {video} --input {tmp}", "give only one of them"),
    "list without output": ("{model} --input {tmp}", "needs --output"),
    "no such list": ("{model} --input {tmp}/gone.txt --output {tmp}/out", "gone.txt"),
    "list that is none": ("{model} --input {tmp}/list.txt --output {tmp}/out", "no list of paths"),
    "folder without videos": ("{model} --input {tmp}/nothing --output {tmp}/out", "no video in it"),
    "boxes for many": (
        "{model} --input {tmp} --output {tmp}/out --boxes {boxes}",
        "beside each clip",
    ),
    "wrong rate": ("{model} {video} 0 --boxes {boxes}", "--fps 0: give a rate from"),
    "rate is not a number": ("{model} {video} fast --boxes {boxes}", "FPS"),
    "wrong device": ("{model} {video} --boxes {boxes} --device tpu", "--device tpu"),
    "wrong flag": ("{model} {video} --no-such-flag", "no-such-flag"),
    "no detector": (
        "{model} {video} --detector yolo"
        " --set inference.detection.model_path={tmp}/no_such_detector.pt",
        "person detector",
    ),
    "no keypoints": ("{model} {video} --keypoints {tmp}/gone.json", "no such file of keypoints"),
    "name with spaces and quotes": ('{model} "it\'s not here.mp4"', "it's not here.mp4"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, model, video, case):
    command, message = BAD_INPUT[case]
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "nothing").mkdir()
    (tmp_path / "list.txt").write_bytes(b"\0\1\2")
    (tmp_path / "corrupt.pth.tar").write_bytes(PARITY_MODEL.read_bytes()[:5000])
    (tmp_path / "config_base.py").write_text((PARITY_MODEL.parent / "config_base.py").read_text())
    files = {
        "model": shlex.quote(str(model)),
        "video": shlex.quote(str(video)),
        "tmp": str(tmp_path),
        "boxes": str(write_boxes(tmp_path / "boxes.json", {0: [BOX]})),
    }
    write_boxes(tmp_path / "none.json", {})
    write_boxes(tmp_path / "later.json", {500: [BOX]})
    before = everything_under(tmp_path)
    arguments = shlex.split(command.format(**files))
    has_output = "--output" in arguments or "--input" in arguments
    done = run(*arguments, *([] if has_output else ["--output", tmp_path / "out"]))
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    left = [name for name in everything_under(tmp_path) if name not in before]
    assert left in ([], ["out"])


def test_detector_that_cannot_be_fetched_is_one_line(tmp_path, model, video):
    """In a process of its own, where nothing has imported ultralytics yet."""
    path = f"inference.detection.model_path={tmp_path / 'no_such_detector.pt'}"
    done = run_script(
        model, video, "--detector", "yolo", "--set", path, "--output", tmp_path / "out"
    )
    assert done.returncode == 2, done.stderr
    assert "person detector" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert everything_under(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_run_that_is_ended_leaves_nothing(tmp_path, model, number):
    """At once, or where nothing could be done any more, when the next run begins."""
    long = tmp_path / "long.mp4"
    with VideoWriter(long, fps=30) as writer:
        for _ in range(2000):
            writer.write(np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    out = tmp_path / "out"
    command = ["-m", "main.inference", model, long, "--detector", "whole-image", "--output", out]
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # as without nohup
    )
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob(".partial_*/result_long")):
            assert process.poll() is None, "ended before it wrote anything"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        status = -number if number == signal.SIGKILL else 128 + number
        assert process.wait(30) == status
    finally:
        process.kill()
    if number == signal.SIGKILL:
        assert list(out.glob(".partial_*/result_long"))
        remove_leftovers(out, [])
    assert everything_under(out) == []


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, model, video):
    """A limit on the size of files refuses to write like a full disk does."""
    command = [sys.executable, "-B", "-m", "main.inference", model, video]
    done = subprocess.run(
        [*map(str, command), "--detector", "whole-image", "--output", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "free space" in done.stderr
    assert "Traceback" not in done.stderr
    assert everything_under(tmp_path / "out") == []


def test_help(tmp_path):
    done = run_script("--help")
    assert done.returncode == 0
    assert "MODEL_DIR" in done.stdout
    assert "--boxes" in done.stdout


@pytest.mark.parametrize(
    ("name", "shown"),
    [(os.fsdecode(b"g\xd6\xd0"), "g\ufffd\ufffd"), ("a\x1b[31mb\nc", "a\ufffd[31mb\ufffdc")],
)
def test_any_name_of_a_file_is_good(run, tmp_path, model, video, name, shown):
    """Bytes of another encoding, and what terminals act on."""
    clip = tmp_path / f"{name}.mp4"
    shutil.copy(video, clip)
    out = tmp_path / "out"
    formats = "glb,bvh,amass,ply,viewer"
    done = run(
        *(model, clip, "--detector", "whole-image", "--output", out, "--fps", "5"),
        *("--export", formats),
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr
    (result,) = [path for path in out.iterdir() if path.is_dir()]
    summary = json.loads((result / "summary.json").read_text(encoding="utf-8"))
    assert summary["input"] == f"{shown}.mp4"
    assert (result / "viewer.html").is_file()
    assert (out / f"{result.name}.mp4").is_file()


def test_too_long_a_name_is_refused_before_the_first_frame(run, tmp_path, model, video):
    clip = tmp_path / f"{'a' * 249}.mp4"
    shutil.copy(video, clip)
    done = run(model, clip, "--detector", "whole-image", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "too long for a file name" in done.stderr.splitlines()[-1]
    assert "free space" not in done.stderr
    assert everything_under(tmp_path / "out") == []
