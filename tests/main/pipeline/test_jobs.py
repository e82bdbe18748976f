"""Which clips there are and where their results go."""

import json
import os

import pytest

from main.motion.results import input_ids
from main.pipeline.clips import earlier_result, list_jobs, remove_leftovers_of
from utils.errors import UserError


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
    assert earlier_result(job) == (None, None)
    job.result.mkdir(parents=True)
    (job.result / "summary.json").write_text(json.dumps({"frames": 7, "people": [{}, {}]}))
    assert earlier_result(job) == (7, 2)


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
    assert record.message.endswith("left out, as no videos: 2 .jpg, 1 .txt")
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
