"""Reads pickles, .npy and .npz files from strangers without executing them.

Body models and HumanData annotations are published as pickles, or as .npz files with pickled
objects. A pickle is a program: its author chooses which functions Python's own reader calls, and
with which bytes NumPy fills its memory. Our reader (`pickle_reader`) makes only a short list of
values (`pickle_values`); anything else is a `UserError`. Objects that are only containers for
arrays (chumpy, scipy.sparse) become inert placeholders that keep their state, from which the arrays
are taken.
"""

import math
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import scipy.sparse

from human_models.pickle_reader import unpickle
from human_models.pickle_values import (
    Budget,
    PickledDtype,
    Placeholder,
    UnknownNameError,
    check_raw_items,
    checked_shape,
    dtype_of_code,
)
from utils.errors import UserError, first_line
from utils.files import open_input

__all__ = ["Placeholder", "load_npy", "load_npz", "load_pickle", "names_in_npz"]

Source = BufferedReader | zipfile.ZipExtFile
"""A file, or a member of an archive."""

_DAMAGE: Final = (
    pickle.UnpicklingError,
    ValueError,
    TypeError,  # from NumPy and SciPy, for incompatible arguments
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    NotImplementedError,  # from zipfile, for unsupported features
)
_MOST_CHARACTERS: Final = 120
"""Most characters from a file that a message repeats."""


def load_pickle(path: Path) -> object:
    """Read a pickle of Python 2 or 3 with arrays and plain values.

    chumpy objects become NumPy arrays (those without an array remain `Placeholder`s), sparse
    matrices become `scipy.sparse.csr_matrix`, Python 2 strings are decoded as latin-1.

    Raises:
        UserError: the file is missing, damaged, or contains anything else.
    """
    with _opened(path) as file:
        return _read_content(file, _size(file))


def load_npz(path: Path, keys: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, all of them or those of `keys` that exist.

    Object arrays (dictionaries and lists that NumPy pickles) are read by the rules of
    `load_pickle` and returned as object arrays; a single dictionary has the shape ().

    Raises:
        UserError: the file is missing, damaged, or contains anything else.
    """
    arrays = {}
    with _opened(path) as file, zipfile.ZipFile(file) as archive:
        for key, member in _checked_members(archive).items():
            if keys is None or key in keys:
                with archive.open(member) as content:
                    assert isinstance(content, zipfile.ZipExtFile)
                    arrays[key] = _read_npy(content, member.file_size)
    return arrays


def names_in_npz(path: Path) -> list[str]:
    """The names of the arrays in an .npz file.

    Raises:
        UserError: the file is missing or damaged.
    """
    with _opened(path) as file, zipfile.ZipFile(file) as archive:
        return list(_checked_members(archive))


def load_npy(path: Path) -> np.ndarray:
    """Read an .npy file by the rules of `load_npz`."""
    with _opened(path) as file:
        return _read_npy(file, _size(file))


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file; all errors of reading it in the block become a `UserError`."""
    try:
        with open_input(path) as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or first_line(error)}") from error
    except UnknownNameError as error:
        raise UserError(
            f"{path}: refused to run '{_printable(str(error))}'; this is not a published body "
            "model or annotation file; get it from its official page"
        ) from error
    except _DAMAGE as error:
        reason = _printable(first_line(error))
        if isinstance(error, LookupError | struct.error) or not reason:  # something is too short
            reason = "it ends early or has a wrong reference"
        raise UserError(
            f"{path} is damaged or incomplete ({reason}); download or copy it again"
        ) from error


def _size(file: BufferedReader) -> int:
    return os.fstat(file.fileno()).st_size


def _printable(text: str) -> str:
    text = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
    return "".join(character if character.isprintable() else "?" for character in text)


# ---- archives, checked for impossible sizes

_COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Methods that NumPy uses."""
_DEFLATE_RATIO: Final = 1032
"""Largest possible ratio."""
_LOCAL_HEADER: Final = 30
_ENCRYPTED: Final = 1


def _checked_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by their names without '.npy', in the archive's order.

    Raises:
        ValueError: two members have the same name, a name does not fit on a line, members overlap,
            or their sizes are impossible.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if not name.isprintable():
            raise ValueError(f"a member with the name {name[:100]!a}")
        if name in members:
            raise ValueError(f"two members with the name '{name[:100]}'")
        if info.flag_bits & _ENCRYPTED:
            raise ValueError(f"member '{name[:100]}' is encrypted")
        if info.compress_type not in _COMPRESSIONS:
            raise ValueError(
                f"member '{name[:100]}' is compressed in a way that NumPy does not use"
            )
        ratio = 1 if info.compress_type == zipfile.ZIP_STORED else _DEFLATE_RATIO
        if info.file_size > ratio * info.compress_size:
            raise ValueError(f"member '{name[:100]}' has an impossible size")
        members[name] = info
    end = 0
    for info in sorted(members.values(), key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ValueError("members that overlap")
        end = info.header_offset + _LOCAL_HEADER + info.compress_size
    if end > archive.start_dir:
        raise ValueError("members that overlap the archive's index")
    return members


# ---- the format of NumPy: a header that is a Python literal, then bytes or a pickle

_MAGIC: Final = b"\x93NUMPY"
_LENGTH_LAYOUTS: Final = {b"\x01\x00": "<H", b"\x02\x00": "<I", b"\x03\x00": "<I"}
"""Layouts of the length of the header, by the version of the format."""
_MOST_HEADER_BYTES: Final = 1 << 16
_CHUNK: Final = 1 << 20
_ITEM: Final = re.compile(
    r"'(descr|fortran_order|shape)'\s*:\s*('[^'\\]*'|True|False|\((?:\d+L?(?:,\s*|(?=\))))*\))"
    r"\s*(?:,\s*|(?=}))"
)
"""An item of the dictionary in a header; Python 2 wrote 3 as 3L."""
_HEADER: Final = re.compile(rf"\s*{{\s*(?:{_ITEM.pattern})*}}\s*")


class _Header(NamedTuple):
    dtype: np.dtype
    fortran_order: bool
    shape: tuple[int, ...]
    size: int
    """Its length in the file, in bytes."""


def _read_npy(file: Source, size: int) -> np.ndarray:
    """The array in a file of `size` bytes. Raises the errors of `_DAMAGE`."""
    header = _read_header(file, size)
    there = size - header.size
    if header.dtype == np.dtype(object):
        array = _read_content(file, there)
        if not isinstance(array, np.ndarray) or array.shape != header.shape:
            raise ValueError("an object array differs from its header")
        return array
    needed = math.prod(header.shape) * header.dtype.itemsize
    is_member = isinstance(file, zipfile.ZipExtFile)  # these contain only the array
    if needed > there or (needed < there and is_member):
        raise EOFError("the size of an array does not fit its data")
    array = np.empty(header.shape, header.dtype, "F" if header.fortran_order else "C")
    raw = array.reshape(-1, order="A").view(np.uint8).data if needed else memoryview(b"")
    done = 0
    while done < needed:
        count = file.readinto(raw[done : done + _CHUNK])
        if not count:
            raise EOFError("it ends early")
        done += count
    check_raw_items(array)
    return array


def _read_header(file: Source, size: int) -> _Header:
    magic = file.read(8)
    layout = _LENGTH_LAYOUTS.get(magic[6:])
    if magic[:6] != _MAGIC or layout is None:
        raise ValueError("it is not an array of NumPy")
    length_bytes = struct.calcsize(layout)
    (length,) = struct.unpack(layout, file.read(length_bytes))
    if length > min(size, _MOST_HEADER_BYTES):
        raise ValueError("its header is too long")
    raw = file.read(length)
    if len(raw) != length:
        raise EOFError("it ends early")
    text = raw.decode("utf-8" if magic[6] == 3 else "latin-1")
    items = _ITEM.findall(text) if _HEADER.fullmatch(text) else []
    match sorted(items):
        case [("descr", code), ("fortran_order", "True" | "False" as order), ("shape", shape)]:
            dtype = dtype_of_code(code.strip("'"))
            lengths = [int(n.rstrip("L")) for n in shape.strip("()").split(",") if n.strip()]
            whole_shape = checked_shape(tuple(lengths), dtype.itemsize)
            return _Header(dtype, order == "True", whole_shape, 8 + length_bytes + length)
    raise ValueError("its header is not that of an array of numbers, texts or objects")


# ---- from the content of a pickle to plain values: bounded, and without placeholders

_MOST_DEPTH: Final = 100
"""Nesting of lists, into which Python and NumPy recurse."""
_CONTAINERS: Final = frozenset(
    {dict, OrderedDict, list, tuple, set, frozenset, np.ndarray, Placeholder, PickledDtype}
)
_KINDS_OF_NUMBERS: Final = "fiub"
_MOST_MATRIX_ITEMS: Final = 100_000_000
"""Rows times columns of a sparse matrix, as callers may make it dense."""


def _read_content(file: Source, size: int) -> object:
    """The content of a pickle of at most `size` bytes.

    Arrays and matrices replace the placeholders that contain them. Values with several references
    remain shared.

    Raises:
        UnknownNameError and the errors of `_DAMAGE`: see `unpickle`; or it contains itself, is
            nested too deeply, is far larger than its file if every reference is followed, or has a
            placeholder with an unknown layout.
    """
    budget = Budget(size)
    return _Walk(budget).finish(unpickle(file.read(size), budget), 0)[0]


class _Walk:
    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.known: dict[int, tuple[object, int] | None] = {}
        """By identity: finished values and their number of items, including nested ones; None while
        they are being processed."""

    def finish(self, content: object, depth: int) -> tuple[object, int]:
        """The finished value, and its number of items, including nested ones."""
        if type(content) not in _CONTAINERS:
            return content, 1
        if isinstance(content, PickledDtype):
            return content.dtype, 1
        try:
            known = self.known[id(content)]
        except KeyError:
            pass
        else:
            if known is None:
                raise ValueError("it contains itself")
            return known
        if depth > _MOST_DEPTH:
            raise ValueError("it is nested too deeply")
        self.known[id(content)] = None
        if isinstance(content, Placeholder):
            plain, size = self._array_of(content, depth + 1)
        else:
            plain, size = self._finish_items(content, depth)
        self.known[id(content)] = plain, size
        return plain, size

    def _finish_items(self, content: object, depth: int) -> tuple[object, int]:
        items = _items(content)
        size = 1 + len(items)
        if _CONTAINERS.isdisjoint(map(type, items)):
            return content, size
        changed: dict[int, object] = {}
        for place, item in enumerate(items):
            kind = type(item)
            if kind not in _CONTAINERS:
                continue
            # Most are lists and dictionaries of annotations, without nesting.
            inner = item.values() if kind is dict else item if kind is list else None
            if inner is not None and _CONTAINERS.isdisjoint(map(type, inner)):
                size += 1 + len(inner)
            else:
                finished, inside = self.finish(item, depth + 1)
                size += inside
                if finished is not item:
                    changed[place] = finished
            if size > self.budget.most_expanded:
                raise ValueError("it refers to the same values too often")
        if changed:
            content = _with_items(content, [changed.get(i, item) for i, item in enumerate(items)])
        return content, size

    def _array_of(self, placeholder: Placeholder, depth: int) -> tuple[object, int]:
        """The array of a chumpy variable, or of a selection from one; others remain unchanged."""
        fields = placeholder.fields()
        if placeholder.class_name.startswith("scipy.sparse."):
            return _sparse_matrix(placeholder.class_name, fields, self.budget), 1
        if "x" in fields:
            return self.finish(fields["x"], depth)
        if "a" not in fields or "idxs" not in fields:
            return placeholder, 1
        source = _array(self.finish(fields["a"], depth)[0], _KINDS_OF_NUMBERS)
        places = _array(fields["idxs"], "iu")
        self.budget.spend(places.size * source.itemsize)
        chosen = np.ravel(source)[places]
        if "preferred_shape" in fields:
            chosen = chosen.reshape(_dimensions(fields["preferred_shape"]))
        return chosen, 1


def _items(content: Any) -> Sequence[Any]:
    """The nested values, without keys and members of sets, which are checked when hashed."""
    if isinstance(content, dict):
        return list(content.values())
    if isinstance(content, list | tuple):
        return content
    if isinstance(content, np.ndarray):
        return list(content.flat) if content.dtype.hasobject else ()
    return ()


def _with_items(content: object, items: list[object]) -> object:
    """A container like `content` with other items."""
    if isinstance(content, dict):
        return type(content)(zip(content, items, strict=True))
    if isinstance(content, np.ndarray):
        array = np.empty(len(items), dtype=object)
        for place, item in enumerate(items):
            array[place] = item
        return array.reshape(content.shape)
    return tuple(items) if isinstance(content, tuple) else items


def _array(value: object, kinds: str) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
        raise ValueError("a matrix or chumpy expression of something other than arrays of numbers")
    return value


def _dimensions(shape: object) -> tuple[int, ...]:
    if isinstance(shape, np.ndarray):
        shape = shape.tolist()
    if isinstance(shape, list | tuple) and all(isinstance(n, int | np.integer) for n in shape):
        return tuple(map(int, shape))
    raise ValueError("a shape that is not a list of numbers")


def _sparse_matrix(
    class_name: str, fields: dict[str, Any], budget: Budget
) -> scipy.sparse.csr_matrix:
    """A sparse matrix of any layout, rebuilt so that wrong indices are found, not followed."""
    rows, columns = _dimensions(fields.get("_shape", fields.get("shape")))
    if min(rows, columns) < 0 or max(rows, 1) * max(columns, 1) > _MOST_MATRIX_ITEMS:
        raise ValueError("a sparse matrix of an impossible size")
    layout = class_name.rpartition(".")[2][:3]
    data = _array(fields["data"], _KINDS_OF_NUMBERS)
    if layout == "coo":
        indices = fields["coords"] if "coords" in fields else (fields["row"], fields["col"])
        row, column = (_array(each, "iu") for each in indices)
    else:
        starts = _array(fields["indptr"], "iu").astype(np.int64)
        minor = _array(fields["indices"], "iu")
        counts = np.diff(starts)
        if starts.ndim != 1 or (counts < 0).any() or counts.sum() != minor.size:
            raise ValueError("a sparse matrix whose rows do not fit its items")
        major = np.repeat(np.arange(len(counts)), counts)
        row, column = (major, minor) if layout == "csr" else (minor, major)
    budget.spend(data.size + rows + columns)
    return scipy.sparse.coo_matrix((data, (row, column)), shape=(rows, columns)).tocsr()
