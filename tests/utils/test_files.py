"""Files and folders that appear whole or not at all."""

from contextlib import suppress
from pathlib import Path

from utils.files import atomic_path


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
