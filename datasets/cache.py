"""Datasets as columns on disk, mapped into memory: opened at once, shared by all processes.

A dataset's split is read from its annotation files once and written into a folder of its own, one
.npy per column, texts as one blob of bytes with offsets, and a manifest. The folder's name is a
digest of all that its content depends on, so another interval or a changed file gets another
folder. A folder appears whole or not at all; what a killed process leaves is never looked at.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from datasets.columns import (
    NUMBER_COLUMNS,
    TEXT_COLUMNS,
    Instance,
    ReadingProtocol,
    instance,
    read_columns,
)
from datasets.humandata.reader import Columns
from datasets.sources import Source, Split
from utils.errors import UserError
from utils.files import atomic_path, read_json, remove_leftovers, require_regular_file

log = logging.getLogger(__name__)

VERSION: Final = 2
"""Of the columns and of the rules that fill them; a change makes all caches anew."""


class InstanceTable:
    """The people of a dataset's split. Goes to other processes as no more than its folder."""

    def __init__(self, folder: Path) -> None:
        """Map a folder that `open_dataset` or `write_table` made.

        Raises UserError where it is incomplete or of another version.
        """
        self.folder = folder
        try:
            manifest = read_json(folder / "manifest.json", "manifest")
            if manifest["version"] != VERSION:
                raise ValueError(f"version {manifest['version']}, expected {VERSION}")
            self._length = int(manifest["rows"])
            self.columns: Mapping[str, np.ndarray] = {
                name: _map(folder / f"{name}.npy", (self._length, *shape), dtype)
                for name, (dtype, shape) in NUMBER_COLUMNS.items()
            }
            self._texts = {name: _Texts(folder, name, self._length) for name in TEXT_COLUMNS}
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} is no complete cache ({error}); delete it.") from error

    def __reduce__(self) -> tuple[type["InstanceTable"], tuple[Path]]:
        return InstanceTable, (self.folder,)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Instance]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Instance:
        """A person; negative indices count from the end. Raises IndexError beyond the rows."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        i = int(index) % len(self)
        return instance(self.columns, i, {name: text[i] for name, text in self._texts.items()})


def open_dataset(
    source: Source,
    split: Split,
    data_dir: Path,
    *,
    protocol: ReadingProtocol = "correct",
    cache_dir: Path | None = None,
) -> InstanceTable:
    """The people of a dataset, from its cache; the first call of all makes that.

    `data_dir` has the folders annot and img; the cache is in `cache_dir`, else in data_dir/cache.

    Raises UserError where files are missing or wrong, or the cache cannot be written.
    """
    paths = annotation_files(source, split, data_dir / "annot")
    key = _key(source, split, paths, protocol)
    parent = (cache_dir or data_dir / "cache") / re.sub(r"\W+", "_", f"{source.name}_{split}")
    folder = parent / hashlib.sha256(key.encode()).hexdigest()[:16]
    table = _existing(folder)
    if table is not None:
        return table
    try:
        with _alone(parent) as alone:
            table = _existing(folder)  # another process may have made it while we waited
            if table is not None:
                return table
            if alone:
                remove_leftovers(parent, None)
            log.info("%s, %s: making the cache in %s", source.name, split, folder)
            parts = _read_all(source, split, paths, protocol)
            rows = write_table(folder, parts, key)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Cannot write the cache {folder}: {reason}; make room there.") from error
    log.info("%s, %s: %d people", source.name, split, rows)
    return InstanceTable(folder)


def annotation_files(source: Source, split: Split, folder: Path) -> list[Path]:
    """The split's files in `folder`, slices in the order of their numbers.

    Raises UserError where the dataset has no such split or a file is missing.
    """
    paths = []
    for name in source.files(split):
        path = folder / name  # `name` itself where it is absolute
        pattern = "*" in path.name
        found = sorted(path.parent.glob(path.name), key=_natural) if pattern else [path]
        if not found or not found[0].is_file():
            like = "a file named like " if pattern else ""
            raise UserError(f"{source.name} needs {like}{path}; put its HumanData there.")
        paths += found
    return paths


def write_table(folder: Path, parts: Iterator[Columns], key: str = "") -> int:
    """Write complete columns, given part by part, as a table; gives the number of rows."""
    with atomic_path(folder) as partial:
        partial.mkdir()
        with contextlib.ExitStack() as stack:
            numbers = {
                name: stack.enter_context(_Writer(partial / f"{name}.npy", dtype, shape))
                for name, (dtype, shape) in NUMBER_COLUMNS.items()
            }
            texts = {name: stack.enter_context(_TextWriter(partial, name)) for name in TEXT_COLUMNS}
            for columns in parts:
                for name, writer in (numbers | texts).items():
                    writer.append(columns[name])
            rows = numbers["row"].rows
        manifest = {"version": VERSION, "rows": rows, "key": key}
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return rows


def _read_all(
    source: Source, split: Split, paths: Sequence[Path], protocol: ReadingProtocol
) -> Iterator[Columns]:
    """Complete columns, file by file, so that no more than one is in memory."""
    before, interval = 0, source.interval(split)
    for path in paths:
        columns, length = read_columns(source, split, path, interval=interval, protocol=protocol)
        columns["row"] += before
        before += length
        yield columns


def _key(source: Source, split: Split, paths: Sequence[Path], protocol: ReadingProtocol) -> str:
    """Everything that decides the cache's content."""
    facts = source._asdict() | {"fixes": [fix.__name__ for fix in source.fixes]}
    for name in ("train", "test", "train_interval", "test_interval"):
        del facts[name]  # what of them matters is in `stats` and here
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return json.dumps([VERSION, facts, split, stats, source.interval(split), protocol])


def _existing(folder: Path) -> InstanceTable | None:
    if not folder.is_dir():
        return None
    try:
        return InstanceTable(folder)
    except UserError as error:
        log.warning("%s It is made anew.", error)
        return None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Wait until no other process builds in `folder`; False where its disk knows no locks.

    Without locks two processes do the same work, and the same folder appears twice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key by which slice 10 comes behind slice 9."""
    return [(int(word or 0), text) for text, word in re.findall(r"(\D*)(\d*)", path.name)]


def _map(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """A column as a plain array, whose rows are taken faster than a memmap's."""
    require_regular_file(path)
    column = np.load(path, mmap_mode="r" if shape[0] else None, allow_pickle=False)
    if column.shape != shape or column.dtype != dtype:
        raise ValueError(f"{path.name} has {column.dtype} {column.shape}, expected {shape}")
    return column.view(np.ndarray)


class _Texts:
    """Strings as the bytes of all and the offset behind each."""

    def __init__(self, folder: Path, name: str, length: int) -> None:
        self._ends = _map(folder / f"{name}_ends.npy", (length,), np.int64)
        size = int(self._ends[-1]) if length else 0
        self._bytes = _map(folder / f"{name}.npy", (size,), np.uint8)

    def __getitem__(self, i: int) -> str:
        start = self._ends[i - 1] if i else 0
        return self._bytes[start : self._ends[i]].tobytes().decode("utf-8")


class _Writer:
    """An .npy file that grows; its header is written again, in place, at the end."""

    def __init__(self, path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        self.rows = 0
        self._dtype, self._shape = np.dtype(dtype), shape
        self._file = path.open("wb")
        self._write_header()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def append(self, column: np.ndarray) -> None:
        assert column.dtype == self._dtype
        assert column.shape[1:] == self._shape
        self._file.write(np.ascontiguousarray(column).data)
        self.rows += len(column)

    def _write_header(self) -> None:
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self.rows, *self._shape)}
        np.lib.format.write_array_header_1_0(self._file, header)  # leaves room for more rows


class _TextWriter:
    def __init__(self, folder: Path, name: str) -> None:
        self._bytes = _Writer(folder / f"{name}.npy", np.uint8, ())
        self._ends = _Writer(folder / f"{name}_ends.npy", np.int64, ())

    def __enter__(self) -> "_TextWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._bytes.__exit__()
        self._ends.__exit__()

    def append(self, column: np.ndarray) -> None:
        encoded = np.strings.encode(column.astype(str), "utf-8")
        lengths = np.strings.str_len(encoded)
        self._ends.append(self._bytes.rows + np.cumsum(lengths, dtype=np.int64))
        self._bytes.append(np.frombuffer(b"".join(encoded.tolist()), np.uint8))
