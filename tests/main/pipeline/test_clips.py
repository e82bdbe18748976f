"""Many clips by one call: resumed, never stopped by a bad one, reported at the end."""

import base64
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from main import inference
from main.characters import export
from main.motion.result_names import input_ids
from main.pipeline import clips as clips_module
from main.pipeline import pipeline
from main.pipeline.clips import (
    ClipReport,
    Job,
    is_finished,
    list_jobs,
    remove_leftovers_of,
    report_of_finished,
    table,
    write_report,
)
from main.pipeline.estimator import Estimator
from main.pipeline.options import InferenceOptions
from utils.devices import BrokenDeviceError
from utils.errors import UserError
from utils.video_write import VideoWriter

ROOT = Path(__file__).parents[3]
DONE = ["config_base.py", "person_001.npz", "summary.json"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def loads(monkeypatch, untrained, estimator):
    """How often a model was loaded; it is the same one each time."""
    calls = []
    monkeypatch.setattr(Estimator, "load", lambda *_, **__: calls.append(1) or estimator)
    return calls


@pytest.fixture(scope="module")
def estimator(untrained):
    return Estimator.load(str(untrained))


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    for name in ("a/walk.mp4", "b/walk.mp4"):
        (folder / name).parent.mkdir(parents=True)
        with VideoWriter(folder / name, fps=10) as writer:
            for _ in range(3):
                writer.write(np.zeros((120, 160, 3), np.uint8))
    return folder


@pytest.fixture
def run(untrained, clips, tmp_path, capfd):
    """Exit status, report.json, and stderr."""

    def run_command(*arguments, detector=("--detector", "whole-image")):
        places = ("--input", clips, "--output", tmp_path / "out")
        status = inference.main([str(one) for one in (untrained, *places, *detector, *arguments)])
        file = tmp_path / "out" / "report.json"
        report = json.loads(file.read_text()) if file.is_file() else None
        return status, report, capfd.readouterr().err

    return run_command


def statuses(report):
    return {clip["clip"]: clip["status"] for clip in report["clips"]}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_clip_with_one_model(run, loads, tmp_path):
    status, report, written = run()
    assert status == 0, written
    assert len(loads) == 1
    for folder in ("a", "b"):
        assert names(tmp_path / "out" / folder) == ["result_walk", "result_walk.mp4"]
        assert names(tmp_path / "out" / folder / "result_walk") == DONE
    assert names(tmp_path / "out") == ["a", "b", "report.json"]
    assert statuses(report) == {"a/walk.mp4": "done", "b/walk.mp4": "done"}
    assert [(clip["frames"], clip["people"]) for clip in report["clips"]] == [(3, 1)] * 2
    assert all(clip["seconds"] > 0 for clip in report["clips"])
    assert "2 done" in written.splitlines()


def test_finished_clips_are_passed_over_and_half_ones_done_again(run, loads, tmp_path):
    run("--no-overlay")
    result = tmp_path / "out" / "a" / "result_walk"
    before = (result / "person_001.npz").stat().st_mtime_ns
    # As if the other one had been killed before its folder got its name.
    half = tmp_path / "out" / "b"
    shutil.rmtree(half / "result_walk")
    (half / "result_walk.mp4").write_bytes(b"old")
    (half / ".partial_x" / "result_walk").mkdir(parents=True)
    status, report, written = run()
    assert status == 0, written
    assert statuses(report) == {"a/walk.mp4": "finished before", "b/walk.mp4": "done"}
    assert report["clips"][0]["frames"] == 3
    assert (result / "person_001.npz").stat().st_mtime_ns == before
    assert names(half) == ["result_walk", "result_walk.mp4"]
    assert (half / "result_walk.mp4").stat().st_size > 100

    loads.clear()
    status, report, written = run()
    assert (status, report["finished_before"], len(loads)) == (0, 2, 0), written


def test_clips_that_lack_the_world_get_it_from_their_results(run, loads, tmp_path, monkeypatch):
    run("--no-overlay")
    world, folder = InferenceOptions("model", world=True), tmp_path / "out" / "a"
    jobs = [Job("walk", Path(f"walk{suffix}"), folder, "walk") for suffix in (".mp4", ".jpg")]
    assert [is_finished(job, world) for job in jobs] == [False, True]  # photographs get no world
    summary = tmp_path / "out" / "b" / "result_walk" / "summary.json"
    summary.write_text(summary.read_text().replace('"model": "', '"model": "another '))
    runs = []
    estimate = pipeline._estimate
    monkeypatch.setattr(pipeline, "_estimate", lambda *given: runs.append(1) or estimate(*given))
    status, report, written = run("--no-overlay", "--world")
    assert status == 0, written
    assert statuses(report) == {"a/walk.mp4": "done", "b/walk.mp4": "done"}
    assert [(clip["frames"], clip["people"]) for clip in report["clips"]] == [(3, 1)] * 2
    assert len(runs) == 1  # the first one's estimates are those of its result
    assert written.count("b/walk.mp4: estimated again: --reuse: ") == 1
    for folder in ("a", "b"):
        with np.load(tmp_path / "out" / folder / "result_walk" / "person_001.npz") as file:
            assert file["world_from_camera"].shape == (3, 4, 4)
    _, report, _ = run("--no-overlay", "--world")
    assert set(statuses(report).values()) == {"finished before"}


def test_folder_of_results_comes_last(run, loads, tmp_path, monkeypatch):
    """What stops a clip in its last step leaves it unfinished."""

    def full_disk(*_):
        assert (tmp_path / "out" / "a" / "result_walk.mp4").is_file()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline, "save_config", full_disk)
    status, report, _ = run()
    assert status == 1
    assert statuses(report) == {"a/walk.mp4": "failed", "b/walk.mp4": "failed"}
    assert not (tmp_path / "out" / "a" / "result_walk").exists()
    monkeypatch.undo()
    assert run()[0] == 0
    assert names(tmp_path / "out" / "a" / "result_walk") == DONE


@pytest.mark.parametrize("error", [RuntimeError, KeyError, ZeroDivisionError, AssertionError])
def test_bad_clips_do_not_stop_the_rest(run, loads, clips, tmp_path, monkeypatch, error):
    (clips / "0.mp4").write_text("no video")
    draw = pipeline.draw_overlay

    def strange(source, *rest):
        if source.path.parent.name == "a":
            raise error("strange\nindeed")
        draw(source, *rest)

    monkeypatch.setattr(pipeline, "draw_overlay", strange)
    status, report, written = run()
    assert status == 1
    assert statuses(report) == {"0.mp4": "failed", "a/walk.mp4": "failed", "b/walk.mp4": "done"}
    assert "no readable video" in report["clips"][0]["reason"]
    assert report["clips"][1]["reason"].startswith(f"{error.__name__}: ")
    assert "\n" not in report["clips"][1]["reason"]
    assert names(tmp_path / "out" / "a") == []
    assert "Traceback" not in written


def test_interrupted_run_tells_what_it_has(run, loads, tmp_path, monkeypatch):
    draw = pipeline.draw_overlay

    def interrupted(source, *rest):
        if source.path.parent.name == "b":
            raise KeyboardInterrupt
        draw(source, *rest)

    monkeypatch.setattr(pipeline, "draw_overlay", interrupted)
    status, report, _ = run()
    assert status == 130
    assert statuses(report) == {"a/walk.mp4": "done"}
    assert names(tmp_path / "out" / "b") == []


def test_clips_use_boxes_beside_them(run, loads, clips):
    (clips / "a" / "walk.boxes.json").write_text('{"0": [[10, 10, 50, 90], [90, 10, 50, 90]]}')
    (clips / "b" / "walk.boxes.json").write_text('{"0": []}')
    status, report, _ = run("--no-overlay", detector=())
    assert status == 1
    assert [clip["people"] for clip in report["clips"]] == [2, None]
    assert "no box in it" in report["clips"][1]["reason"]


def test_characters_that_lack_are_made(run, loads, tmp_path):
    run("--no-overlay")
    status, report, written = run("--no-overlay", "--export", "bvh")
    assert status == 0, written
    assert report["finished_before"] == 2
    assert names(tmp_path / "out" / "a" / "result_walk" / "export") == ["person_001.bvh"]


def test_the_viewer_has_the_clip_wherever_it_lies(run, loads, clips, tmp_path):
    """Both when a clip is inferred, and when only the page lacks."""
    folder = tmp_path / "out" / "a" / "result_walk"
    video = base64.b64encode((clips / "a" / "walk.mp4").read_bytes()).decode()
    for _ in range(2):
        status, _, written = run("--no-overlay", "--export", "viewer")
        assert status == 0, written
        assert "--input" not in written
        assert video in (folder / "viewer.html").read_text(encoding="utf-8")
        (folder / "viewer.html").unlink()


def test_previews(run, loads, tmp_path):
    for expected in ("done", "finished before"):
        status, report, written = run("--preview")
        assert status == 0, written
        assert set(statuses(report).values()) == {expected}
    assert names(tmp_path / "out" / "a") == ["result_walk_preview.jpg"]


def test_device_that_has_failed_ends_the_run(run, loads, tmp_path, monkeypatch):
    """Else every later clip would be reported as the one that failed."""

    def illegal(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def broken(device, error):
        raise BrokenDeviceError(f"the device {device} has failed") from error

    monkeypatch.setattr(pipeline, "draw_overlay", illegal)
    monkeypatch.setattr(clips_module, "require_working", broken)
    status, report, written = run()
    assert status == 2
    assert report["clips"] == []
    assert "error: the device cpu has failed" in written
    assert names(tmp_path / "out" / "a") == []


def test_clip_with_other_exports_than_those_asked_for_is_not_finished(run, loads, tmp_path):
    folder = tmp_path / "out" / "a" / "result_walk"
    run("--no-overlay", "--export", "bvh,amass")
    assert names(folder / "export") == ["person_001.bvh", "person_001_amass.npz"]
    (folder / "export" / "person_001.bvh").unlink()
    (folder / "export" / "person_009.bvh").touch()  # of no one here
    status, _, written = run("--no-overlay", "--export", "bvh,amass")
    assert status == 0, written
    assert (folder / "export" / "person_001.bvh").is_file()


def test_exports_of_an_earlier_result_last_until_they_are_written_anew(
    untrained, loads, clips, tmp_path, monkeypatch, capfd
):
    """A run that is ended while it exports; what it does not write anew is named."""

    def infer(*flags):
        arguments = [untrained, clips / "a/walk.mp4", "--detector", "whole-image", "--no-overlay"]
        return inference.main([*map(str, [*arguments, "--output", tmp_path / "out"]), *flags])

    folder = tmp_path / "out" / "result_walk"
    assert infer("--export", "bvh,viewer") == 0
    (folder / "viewer.html").write_text("old")
    (folder / "export" / "person_001.bvh").write_text("old")

    def ended(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "export_result", ended)
    assert infer("--export", "viewer") == 130
    assert (folder / "viewer.html").read_text() == "old"
    assert not (folder / "export").exists()
    assert "removed with the earlier results: export/person_001.bvh" in capfd.readouterr().err
    monkeypatch.undo()
    job = Job("walk", clips / "a/walk.mp4", tmp_path / "out", "walk")
    options = InferenceOptions(str(untrained), export=("viewer",))
    assert not is_finished(job, options)


REPORTS = [
    ClipReport("a/walk.mp4", "done", 30, 2, 1.25),
    ClipReport("b.mp4", "finished before", 10, 1),
    ClipReport("preview.mp4", "finished before"),
    ClipReport("bad.mp4", "failed", seconds=0.1, reason="no video"),
]


def test_table():
    assert table(REPORTS) == [
        "clip         frames  people  seconds",
        "a/walk.mp4       30       2      1.2",
        "b.mp4            10       1  finished before",
        "preview.mp4       -       -  finished before",
        "bad.mp4      failed: no video",
        "1 done, 1 failed, 2 finished before",
    ]


def test_long_table_shows_failures():
    lines = table([REPORTS[0]] * 500 + [REPORTS[3]])
    assert lines[1:] == ["bad.mp4  failed: no video", "500 done, 1 failed"]


def test_report_file(tmp_path):
    path = tmp_path / "new" / "report.json"
    write_report(path, {"model": "m"}, REPORTS, 9.87654)
    content = json.loads(path.read_text())
    assert (content["done"], content["finished_before"], content["failed"]) == (1, 2, 1)
    assert (content["model"], content["seconds"]) == ("m", 9.877)
    assert content["clips"][3] == {
        "clip": "bad.mp4",
        "status": "failed",
        "frames": None,
        "people": None,
        "seconds": 0.1,
        "reason": "no video",
    }
    assert [path.name for path in path.parent.iterdir()] == ["report.json"]


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def results(jobs, output):
    return {job.label: str(job.result.relative_to(output)) for job in jobs}


def test_folder_is_mirrored_and_equal_names_stay_apart(tmp_path):
    for name in ("a/walk.mp4", "b/walk.MOV", "b/deep er/walk.mp4", "walk.mov", "walk.mp4"):
        touch(tmp_path / name)
    for name in (".hidden/x.mp4", ".y.mp4", "photo.jpg", "walk.boxes.json", "out/result_walk.mp4"):
        touch(tmp_path / name)
    assert results(list_jobs(tmp_path, tmp_path / "out"), tmp_path / "out") == {
        "walk.mov": "result_walk_mov",
        "walk.mp4": "result_walk_mp4",
        "a/walk.mp4": "a/result_walk",
        "b/walk.MOV": "b/result_walk",
        "b/deep er/walk.mp4": "b/deep er/result_walk",
    }


def test_list_counts_from_its_folder_and_need_not_exist(tmp_path):
    lists = tmp_path / "lists"
    touch(lists / "frames.1" / "0.jpg")
    other = tmp_path / "other" / "c.mp4"
    lines = ["x/a.mp4", "", "gone b.mp4 ", str(other), "../other/c.mp4", "frames.1"]
    file = lists / "list.txt"
    file.write_text("\n".join(lines) + "\r\n")
    out = tmp_path / "out"
    assert results(list_jobs(file, out), out) == {
        "x/a.mp4": "x/result_a",
        "gone b.mp4": "result_gone b",
        str(other): f"{other.parent.relative_to('/')}/result_c",
        "frames.1": "result_frames.1",
    }


def test_names_that_would_still_clash_stay_apart(tmp_path):
    for name in ("a.mp4", "a.mov", "a_mp4.avi"):
        touch(tmp_path / name)
    names = [job.name for job in list_jobs(tmp_path, tmp_path / "out")]
    assert sorted(names) == ["a_mov", "a_mp4", "a_mp4_avi"]


def test_names_in_any_bytes(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/na\xefve.mp4")
    try:
        open(path, "w").close()  # noqa: PTH123
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    file = tmp_path / "list.txt"
    file.write_bytes(b"na\xefve.mp4\n")
    (job,) = list_jobs(file, tmp_path / "out")
    assert job.source.exists()


def test_clips_and_results_do_not_share_a_folder(tmp_path):
    touch(tmp_path / "a.mp4")
    with pytest.raises(UserError, match="another folder"):
        list_jobs(tmp_path, tmp_path)


def test_what_was_found_before(tmp_path):
    touch(tmp_path / "a.mp4")
    (job,) = list_jobs(tmp_path, tmp_path / "out")
    assert report_of_finished(job)[2:4] == (None, None)
    job.result.mkdir(parents=True)
    (job.result / "summary.json").write_text(json.dumps({"frames": 7, "people": [{}, {}]}))
    assert report_of_finished(job)[2:4] == (7, 2)


def test_only_leftovers_of_these_clips_are_removed(tmp_path):
    touch(tmp_path / "a.mp4")
    out = tmp_path / "out"
    touch(out / ".partial_1" / "result_a" / "person_001.npz")
    touch(out / ".partial_2" / "result_a.mp4")
    touch(out / ".partial_3" / "result_b.mp4")
    touch(out / ".partial_4" / "result_a.mp4" / "x").parent.parent.joinpath("other").touch()
    remove_leftovers_of(list_jobs(tmp_path, out))
    assert sorted(path.name for path in out.iterdir()) == [".partial_3", ".partial_4"]


def test_lists_of_other_systems(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        touch(tmp_path / name)
    file = tmp_path / "list.txt"
    file.write_text("\ufeffa.mp4\r\nb.mp4\r\n", encoding="utf-8")
    assert [job.label for job in list_jobs(file, tmp_path / "out")] == ["a.mp4", "b.mp4"]
    file.write_text("a.mp4", encoding="utf-16")
    with pytest.raises(UserError, match="UTF-16; save it as UTF-8"):
        list_jobs(file, tmp_path / "out")


def test_what_a_folder_holds_besides_is_named_once(tmp_path, caplog):
    for name in ("a.mp4", "a.boxes.json", "x/1.jpg", "x/2.jpg", "notes.txt", "out/result_a.jpg"):
        touch(tmp_path / name)
    assert len(list_jobs(tmp_path, tmp_path / "out")) == 1
    (record,) = caplog.records
    assert record.message.endswith("skipped, because they are not videos: 2 .jpg, 1 .txt")
    with pytest.raises(UserError, match=r"no video in it; it holds 2 \.jpg"):
        list_jobs(tmp_path / "x", tmp_path / "out")


def test_another_inputs_result_does_not_finish_a_clip(tmp_path):
    out = tmp_path / "out"
    for name in ("a", "b"):
        touch(tmp_path / name / "v.mp4").write_text(name)
        (job,) = list_jobs(tmp_path / name, out)
        assert not job.result.exists()
        job.result.mkdir(parents=True)
        about = {"input": "v.mp4", "input_ids": list(input_ids(job.source)), "people": []}
        (job.result / "summary.json").write_text(json.dumps(about))
    assert sorted(path.name for path in out.iterdir()) == ["result_v", "result_v_mp4"]
