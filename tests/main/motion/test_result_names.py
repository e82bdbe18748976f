"""Names of results: the given ones, and no result replaces another input's."""

import json
from pathlib import Path

import pytest

from main.motion.result_names import input_ids, result_names


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def finish(source, output, name):
    """A result as inference leaves it."""
    folder = output / f"result_{name}"
    folder.mkdir(parents=True, exist_ok=True)
    summary = {"input": source.name, "input_ids": list(input_ids(source)), "people": []}
    (folder / "summary.json").write_text(json.dumps(summary))


def name_of(source, output, **options):
    (name,) = result_names([source], output, **options)
    return name


def test_inputs_of_one_stem_keep_their_results(tmp_path):
    video, photo = write(tmp_path / "IMG_1.MOV"), write(tmp_path / "IMG_1.JPG", b"y")
    out = tmp_path / "out"
    for source, name in ((video, "IMG_1"), (photo, "IMG_1_JPG")) * 2:
        assert name_of(source, out) == name
        finish(source, out, name)


def test_a_link_gives_its_own_name(tmp_path):
    target = write(tmp_path / "a" / "video.mp4")
    for name in ("cam1", "cam2"):
        link = tmp_path / f"{name}.mp4"
        link.symlink_to(target)
        assert name_of(link, tmp_path / "out") == name
    (tmp_path / "folder").symlink_to(tmp_path / "a")
    assert name_of(tmp_path / "folder", tmp_path / "out") == "folder"


def test_inputs_of_one_name_in_two_folders_keep_their_results(tmp_path):
    one, two = write(tmp_path / "a" / "v.mp4", b"1"), write(tmp_path / "b" / "v.mp4", b"2")
    out = tmp_path / "out"
    for source, name in ((one, "v"), (two, "v_mp4")) * 2:
        assert name_of(source, out) == name
        finish(source, out, name)
    three = write(tmp_path / "c" / "v.mp4", b"3")
    assert name_of(three, out) == "v_mp4_2"


def test_an_input_that_moved_or_changed_replaces_its_result(tmp_path):
    source, out = write(tmp_path / "a" / "v.mp4"), tmp_path / "out"
    finish(source, out, "v")
    moved = source.rename(write(tmp_path / "b" / "v.mp4"))
    assert name_of(moved, out) == "v"
    assert name_of(write(source, b"cut"), out) == "v"


def test_results_that_do_not_say_of_what_are_replaced(tmp_path):
    source, folder = write(tmp_path / "v.mp4"), tmp_path / "result_v"
    folder.mkdir()
    assert name_of(source, tmp_path) == "v"
    (folder / "summary.json").write_text('{"people": [], "input": "v.mp4"}')
    assert name_of(source, tmp_path) == "v"
    (folder / "summary.json").write_text('{"people": [], "input": "v.mov"}')
    assert name_of(source, tmp_path) == "v_mp4"


def test_a_video_does_not_replace_results_of_photographs(tmp_path):
    (tmp_path / "result_trip" / "result_1").mkdir(parents=True)
    assert name_of(write(tmp_path / "trip.mp4"), tmp_path) == "trip_mp4"
    (tmp_path / "trip").mkdir()
    assert name_of(tmp_path / "trip", tmp_path) == "trip"


def test_previews_look_beside_the_input(tmp_path):
    video, photo = write(tmp_path / "IMG_1.MOV"), write(tmp_path / "IMG_1.JPG")
    names = {name_of(one, tmp_path / "out", preview=True) for one in (video, photo)}
    assert names == {"IMG_1_MOV", "IMG_1_JPG"}
    write(tmp_path / "IMG_2.MOV"), write(tmp_path / "IMG_2.boxes.json")
    assert name_of(tmp_path / "IMG_2.MOV", tmp_path / "out", preview=True) == "IMG_2"


@pytest.mark.parametrize("given", [".", "../here", "./"])
def test_names_that_are_no_names(given, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert name_of(Path(given), tmp_path / "out") == "here"


def test_folder_with_links_to_nowhere_is_an_input(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"picture")
    (tmp_path / "gone.jpg").symlink_to("gone")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    before = input_ids(tmp_path)
    (tmp_path / "1.jpg").write_bytes(b"another")
    assert input_ids(tmp_path) == before  # by sizes
    (tmp_path / "1.jpg").write_bytes(b"a larger picture")
    assert input_ids(tmp_path)[1] != before[1]
