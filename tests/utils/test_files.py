"""Input files are regular files; files and folders appear whole or not at all."""

import errno
import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from utils import files
from utils.errors import UserError
from utils.files import (
    atomic_path,
    exclusive,
    open_input,
    path_within,
    read_input,
    read_json,
    remove_folder,
    remove_leftovers,
    require_output,
    require_regular_file,
    wrong_download,
)
from utils.image import read_image
from utils.mesh import read_ply_vertices
from utils.source import open_source

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize(("owner", "name"), [(Path, "touch"), (os, "fsync")])
def test_full_disk_is_an_error_of_the_file_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(owner, name, refuse)
    path = tmp_path / "a.npz"
    with pytest.raises(OSError, match="No space") as refused, atomic_path(path, durable=True) as p:
        p.touch()
    assert refused.value.filename == str(path)
    assert not list(tmp_path.iterdir())


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
    with pytest.raises(UserError, match="is not a path within"):
        path_within(tmp_path, name)


def test_paths_within_a_folder_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    assert path_within(tmp_path, "link/a..b.png") == tmp_path / "link" / "a..b.png"


@pytest.mark.parametrize(("length", "ending"), [(256, ""), (252, ".mp4"), (90, ".mp4")])
def test_too_long_a_name_is_refused_before_anything_is_written(tmp_path, length, ending):
    name = "\u56f3" * length if length == 90 else "a" * length
    with pytest.raises(UserError, match="too long for a file name"):
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
def test_failed_download(tmp_path, content, what):
    (tmp_path / "x").write_bytes(content)
    assert what in (wrong_download(tmp_path / "x") or "")
    for other in (b"", b"PK\x03\x04", b"<xml>"):
        (tmp_path / "x").write_bytes(other)
        assert wrong_download(tmp_path / "x") is None
    assert wrong_download(tmp_path / "gone") is None


def refuse(*_: object) -> bool:
    return False


@pytest.mark.parametrize("exchanges", [True, False])
def test_older_folder_has_its_name_until_the_new_one_is_whole(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the system's exchange of names, and as if it had none."""
    exchanged = []
    real = files._exchange

    def exchange(one: Path, other: Path) -> bool:
        exchanged.append(exchanges and real(one, other))
        return exchanged[-1]

    monkeypatch.setattr(files, "_exchange", exchange)
    target = tmp_path / "folder"
    for name in ("old", "new"):
        with atomic_path(target) as partial:
            partial.mkdir()
            (partial / name).touch()
            assert not target.exists() or [path.name for path in target.iterdir()] == ["old"]
    assert exchanged == [exchanges]
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_failed_exchange_gives_the_old_folder_its_name_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder"
    (target / "old").mkdir(parents=True)
    rename = Path.rename

    def full(path: Path, to: Path) -> Path:
        if to == target and path.name == "folder":
            raise OSError(28, "No space left on device")
        return rename(path, to)

    monkeypatch.setattr(files, "_exchange", refuse)
    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space"), atomic_path(target) as partial:
        (partial / "new").mkdir(parents=True)
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


KILLED = """
import os, sys
from pathlib import Path
from utils import files
target, point = Path(sys.argv[1]), sys.argv[2]
rename = Path.rename
def killed(path, to):
    done = rename(path, to)
    if point == "between the renames" and to.name == ".replaced":
        os._exit(9)
    return done
files._exchange = lambda *_: False
Path.rename = killed
with files.atomic_path(target) as partial:
    partial.mkdir()
    (partial / "new").touch()
    if point == "while writing":
        os._exit(9)
"""


@pytest.mark.parametrize("point", ["while writing", "between the renames"])
def test_what_a_killed_process_left_is_finished_or_removed(point: str, tmp_path: Path) -> None:
    target = tmp_path / "folder"
    (target / "old").mkdir(parents=True)
    command = [sys.executable, "-c", KILLED, str(target), point]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    assert len(list(tmp_path.glob(".partial_*"))) == 1
    with atomic_path(tmp_path / "another") as partial:
        partial.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "folder"]
    kept = "old" if point == "while writing" else "new"
    assert [path.name for path in target.iterdir()] == [kept]


def test_what_another_process_still_writes_stays(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as partial:
        partial.touch()
        for names in (["a"], ["b"], None):
            remove_leftovers(tmp_path, names)
        assert partial.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_leftovers_of_another_machine_go_by_their_names(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        holder = tmp_path / f".partial_{number}"
        holder.mkdir()
        (holder / name).touch()
        (holder / ".lock").write_text("another machine")
    remove_leftovers(tmp_path, ["a"])
    assert [path.name for path in tmp_path.iterdir()] == [".partial_1"]


def test_folder_is_removed_under_its_name_first(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    remove_folder(tmp_path / "folder")
    remove_folder(tmp_path / "absent")
    assert not list(tmp_path.iterdir())


def test_lock_is_held_by_one_and_free_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive(path, "busy"):
        with pytest.raises(UserError, match="busy"), exclusive(path, "busy"):
            pass
        assert path.exists()
    assert not path.exists()
    code = (
        "import os, sys; from pathlib import Path; from utils.files import exclusive\n"
        "with exclusive(Path(sys.argv[1]), 'busy'): os._exit(9)"
    )
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    with exclusive(path, "busy"):
        assert path.exists()


def test_durable_files_are_on_the_disk_before_their_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content first, then the name, then the folder that holds the name."""
    steps = []
    replace = Path.replace

    def renamed(path: Path, to: Path) -> Path:
        steps.append("renamed")
        return replace(path, to)

    def synced(descriptor: int) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    with atomic_path(tmp_path / "a.bin", durable=True) as partial:
        partial.write_bytes(b"content")
    assert steps == ["a.bin", "renamed", tmp_path.name]
