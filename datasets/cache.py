"""Datasets as columns on disk, mapped into memory: opened quickly, shared by all processes.

The split of a dataset is read from its annotation files once and written to a folder of its own:
the bytes of each column, texts as one blob with offsets, and a manifest. The name of the folder is
a digest of everything that its content depends on, so another interval or a changed file results in
another folder. A folder appears only when it is complete; remains of killed processes are ignored.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from configs.schema import Protocol
from datasets.humandata.reader import Columns
from datasets.instances import (
    NUMBER_COLUMNS,
    TEXT_COLUMNS,
    VERSION,
    Instance,
    instance,
    read_columns,
)
from datasets.sources import Source, Split
from utils.errors import UserError
from utils.files import atomic_path, read_json, remove_leftovers, require_regular_file
from utils.image import natural_key

log = logging.getLogger(__name__)


class InstanceTable:
    """The people of a dataset's split. Pickling stores only the path of the folder."""

    def __init__(self, folder: Path) -> None:
        """Map a folder that `open_dataset` or `write_table` made.

        Raises:
            UserError: the folder is incomplete or has another version.
        """
        self.folder = folder
        try:
            manifest = read_json(folder / "manifest.json", "manifest")
            if manifest["version"] != VERSION:
                raise ValueError(f"version {manifest['version']}, expected {VERSION}")
            self._length = int(manifest["rows"])
            self.columns: Mapping[str, np.ndarray] = {
                name: _map(folder / name, dtype, (self._length, *shape))
                for name, (dtype, shape) in NUMBER_COLUMNS.items()
            }
            self._texts = {name: _Texts(folder, name, self._length) for name in TEXT_COLUMNS}
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} is not a complete cache ({error}); delete it") from error

    def __reduce__(self) -> tuple[type["InstanceTable"], tuple[Path]]:
        return InstanceTable, (self.folder,)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Instance]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Instance:
        """A person; negative indices count from the end.

        Raises:
            IndexError: the index is out of range.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        i = int(index) % len(self)
        return instance(self.columns, i, {name: text[i] for name, text in self._texts.items()})


def open_dataset(
    source: Source, split: Split, data_dir: Path, *, protocol: Protocol = "correct"
) -> InstanceTable:
    """The people of a dataset, from its cache, which the first call writes.

    Args:
        data_dir: has the folders annot (annotations) and cache.
        protocol: decides whether hands are relative to the flat hand; see `instances.complete`.

    Raises:
        UserError: files are missing or damaged, or the cache cannot be written.
    """
    paths = annotation_files(source, split, data_dir / "annot")
    key = _key(source, split, paths, protocol)
    parent = data_dir / "cache" / re.sub(r"\W+", "_", f"{source.name}_{split}")
    folder = parent / hashlib.sha256(key.encode()).hexdigest()[:16]
    table = _existing(folder)
    if table is not None:
        return table
    try:
        with _locked(parent) as is_locked:
            table = _existing(folder)  # another process may have made it while we waited
            if table is not None:
                return table
            if is_locked:
                remove_leftovers(parent, None)
            log.info("%s, %s: writing the cache %s", source.name, split, folder)
            parts = _read_all(source, split, paths, protocol)
            rows = write_table(folder, parts, key)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write the cache {folder}: {reason}; make room there") from error
    log.info("%s, %s: %d people", source.name, split, rows)
    return InstanceTable(folder)


def annotation_files(source: Source, split: Split, folder: Path) -> list[Path]:
    """The files of a split in `folder`, slices in the order of their numbers.

    Raises:
        UserError: the dataset has no such split or a file is missing.
    """
    paths = []
    for name in source.files(split):
        path = folder / name  # `name` itself if it is absolute
        pattern = "*" in path.name
        found = sorted(path.parent.glob(path.name), key=natural_key) if pattern else [path]
        if not found or not found[0].is_file():
            like = "a file named like " if pattern else ""
            raise UserError(f"{source.name} needs {like}{path}; put its HumanData file there")
        paths += found
    return paths


def write_table(folder: Path, parts: Iterator[Columns], key: str = "") -> int:
    """Write complete columns, given part by part, as a table; returns the number of rows."""
    rows = 0
    with atomic_path(folder) as partial, contextlib.ExitStack() as stack:
        partial.mkdir()
        names = (*NUMBER_COLUMNS, *TEXT_COLUMNS, *map(_ends_file, TEXT_COLUMNS))
        files = {name: stack.enter_context((partial / name).open("wb")) for name in names}
        for columns in parts:
            rows += len(columns["row"])
            for name in NUMBER_COLUMNS:
                files[name].write(np.ascontiguousarray(columns[name]).data)
            for name in TEXT_COLUMNS:
                texts = [text.encode() for text in columns[name].tolist()]
                ends = files[name].tell() + np.cumsum([len(text) for text in texts], dtype=np.int64)
                files[_ends_file(name)].write(ends.data)
                files[name].write(b"".join(texts))
        manifest = {"version": VERSION, "rows": rows, "key": key}
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return rows


def _ends_file(name: str) -> str:
    """The name of the file with the ends of the texts of a column."""
    return f"{name}_ends"


def _read_all(
    source: Source, split: Split, paths: Sequence[Path], protocol: Protocol
) -> Iterator[Columns]:
    """Complete columns, file by file, so that only one is in memory."""
    before, interval = 0, source.interval(split)
    for path in paths:
        columns, length = read_columns(source, split, path, interval=interval, protocol=protocol)
        columns["row"] += before
        before += length
        yield columns


def _key(source: Source, split: Split, paths: Sequence[Path], protocol: Protocol) -> str:
    """A key of everything that the content of the cache depends on."""
    facts = source._asdict() | {"fixes": [fix.__name__ for fix in source.fixes]}
    for name in ("train", "test", "train_interval", "test_interval"):
        del facts[name]  # `stats` has the relevant part of them
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return json.dumps([VERSION, facts, split, stats, source.interval(split), protocol])


def _existing(folder: Path) -> InstanceTable | None:
    if not folder.is_dir():
        return None
    try:
        return InstanceTable(folder)
    except UserError as error:
        log.warning("%s: a cache that is not complete (%s) is replaced", folder, error.__cause__)
        return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Wait until no other process writes `folder`; False if the file system has no locks.

    Without locks, two processes do the same work, and the second finds the folder of the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


def _map(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    """A column as a plain array, whose rows are read faster than those of a memmap."""
    require_regular_file(path)
    size, expected = path.stat().st_size, math.prod(shape) * np.dtype(dtype).itemsize
    if size != expected:
        raise ValueError(f"{path.name} has {size} bytes, expected {expected}")
    column = np.memmap(path, dtype, "r", shape=shape) if size else np.zeros(shape, dtype)
    return column.view(np.ndarray)


class _Texts:
    """Strings, stored as the bytes of all of them and the offset of the end of each."""

    def __init__(self, folder: Path, name: str, length: int) -> None:
        self._ends = _map(folder / _ends_file(name), np.int64, (length,))
        self._bytes = _map(folder / name, np.uint8, (int(self._ends[-1]) if length else 0,))

    def __getitem__(self, i: int) -> str:
        start = self._ends[i - 1] if i else 0
        return self._bytes[start : self._ends[i]].tobytes().decode("utf-8")
