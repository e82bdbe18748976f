"""Input files are regular files; files and folders appear whole or not at all."""

import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import (
    atomic_path,
    open_input,
    path_within,
    read_input,
    read_json,
    require_output,
    require_regular_file,
    what_came_instead,
)
from utils.image import read_image
from utils.mesh import read_ply_vertices
from utils.source import open_source


def test_file_appears_at_the_end_with_its_suffix(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.bin"
    with atomic_path(target) as partial:
        partial.write_bytes(b"content")
        assert partial.suffix == ".bin"
        assert not target.exists()
    assert target.read_bytes() == b"content"
    assert list(target.parent.iterdir()) == [target]


def test_file_replaces_a_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with atomic_path(target) as partial:
        partial.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


def test_folder_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for name in ("old", "new"):
        with atomic_path(target) as partial:
            partial.mkdir()
            (partial / name).touch()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_failure_leaves_the_old_and_nothing_else(tmp_path: Path) -> None:
    old_file, old_folder = tmp_path / "a.bin", tmp_path / "folder"
    old_file.write_bytes(b"old")
    old_folder.mkdir()
    (old_folder / "kept").touch()
    for target in (old_file, old_folder, tmp_path / "never"):
        with suppress(KeyboardInterrupt), atomic_path(target) as partial:
            partial.mkdir()
            (partial / "half").touch()
            raise KeyboardInterrupt
    assert old_file.read_bytes() == b"old"
    assert [path.name for path in old_folder.iterdir()] == ["kept"]
    assert sorted(tmp_path.iterdir()) == [old_file, old_folder]


def make_special(path: Path, kind: str) -> Path:
    """What is no regular file: a named pipe that nobody writes to, a folder, a device."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    return path


READERS = {
    "open_input": open_input,
    "require_regular_file": require_regular_file,
    "read_input": lambda path: read_input(path, 10),
    "read_json": lambda path: read_json(path, "file"),
    "read_image": read_image,
    "open_source": lambda path: open_source(path.rename(path.with_name("a.mp4"))),
    "read_ply_vertices": read_ply_vertices,
}


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "socket"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_refused_at_once(reader: str, kind: str, tmp_path: Path) -> None:
    path = make_special(tmp_path / "x", kind)
    with pytest.raises(UserError) as error:
        READERS[reader](path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["absent", "a\0b", "x/y"])
def test_missing_file_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    for reader in ("open_input", "read_json", "read_image", "read_ply_vertices"):
        with pytest.raises(UserError) as error:
            READERS[reader](tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such list"):
        open_input(tmp_path / "absent", "list")


def test_links_are_followed_and_large_files_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("file")
    assert read_input(tmp_path / "link", 10) == b"0123456789"
    with pytest.raises(UserError, match="10 bytes are too many"):
        read_input(tmp_path / "file", 9)
    with (tmp_path / "sparse.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="too many"):
        read_json(tmp_path / "sparse.json", "file")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e999",
        "9" * 5000,
        "9" * 20,
        str(2**63),
        "[" * 100_000,
        '{"a":' * 100_000,
        b"\xff\xfe\x00",
        b"\0",
        '"\x01"',
    ],
    ids=range(14),
)
def test_what_is_no_json_is_one_line(text: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="not readable as JSON") as error:
        read_json(path, "file")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(path))


def test_json_is_read(tmp_path: Path) -> None:
    content = '{"a": [1, -2.5e3, true, null, "é"], "b": 9223372036854775807}'
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    assert read_json(tmp_path / "a.json", "file") == {
        "a": [1, -2500.0, True, None, "é"],
        "b": 2**63 - 1,
    }


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.png", "a/../../b.png"])
def test_paths_that_lead_out_of_a_folder_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no path within"):
        path_within(tmp_path, name)


def test_paths_within_a_folder_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    assert path_within(tmp_path, "link/a..b.png") == tmp_path / "link" / "a..b.png"


@pytest.mark.parametrize(("length", "ending"), [(256, ""), (252, ".mp4"), (90, ".mp4")])
def test_too_long_a_name_is_refused_before_anything_is_written(tmp_path, length, ending):
    name = "\u56f3" * length if length == 90 else "a" * length
    with pytest.raises(UserError, match="too long a name for a file"):
        require_output(tmp_path / "out" / name, ending=ending)
    require_output(tmp_path / "out" / name[:83], ending=ending)
    assert list((tmp_path / "out").iterdir()) == []


def test_too_little_space_is_said(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    require_output(tmp_path / "x", least_free=usage.free // 2)
    with pytest.raises(UserError, match=r"\d+ MiB are free, \d+ MiB are needed"):
        require_output(tmp_path / "x", least_free=usage.total * 2)


def test_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        require_output(tmp_path / "file" / "x")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html>", "web page"),
        (b"<HTML>", "web page"),
    ],
)
def test_what_came_instead_of_a_file(tmp_path, content, what):
    (tmp_path / "x").write_bytes(content)
    assert what in (what_came_instead(tmp_path / "x") or "")
    for other in (b"", b"PK\x03\x04", b"<xml>"):
        (tmp_path / "x").write_bytes(other)
        assert what_came_instead(tmp_path / "x") is None
    assert what_came_instead(tmp_path / "gone") is None
