"""Reading pickles, .npy and .npz files of others without running what they say.

Body models and HumanData annotations are published as pickles, or as .npz files that hold
pickled objects. A pickle is a program: whoever made the file chooses which functions Python's
own reader calls, and with which bytes NumPy fills its memory. Here a reader of our own
(`pickle_reader`) knows a short list of values (`pickle_values`) and makes them itself; anything
else ends the reading with a `UserError`. Objects that are only containers for arrays (chumpy,
scipy.sparse) become inert placeholders that keep their state, and the arrays are taken from it.
"""

import json
import math
import os
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

from human_models.pickle_reader import Source, read_pickle
from human_models.pickle_values import (
    Budget,
    Field,
    Placeholder,
    UnknownNameError,
    check_raw_items,
    checked_integer,
    checked_shape,
    dtype_of_code,
    dtype_of_fields,
    dtype_of_subarray,
)
from utils.errors import UserError, first_line
from utils.files import open_input

__all__ = ["Placeholder", "load_npy", "load_npz", "load_pickle", "names_in_npz"]

_DAMAGE: Final = (
    ValueError,
    TypeError,  # NumPy and SciPy, of arguments that do not fit together
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    NotImplementedError,  # zipfile, of features that it lacks
)
_MOST_CHARACTERS: Final = 120
"""Of what a message repeats from a file."""


def load_pickle(path: Path) -> object:
    """Read a pickle of Python 2 or 3 that holds arrays and plain values.

    chumpy objects become numpy arrays (those that hold no array stay `Placeholder`s), sparse
    matrices become `scipy.sparse.csr_matrix`, Python 2 strings are decoded as latin-1.

    Raises UserError where the file is missing, damaged, or asks for anything else to be loaded.
    """
    with _opened(path) as file:
        return _read_content(file, _size(file))


def load_npz(path: Path, keys: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, all or those of `keys` that it has.

    Object arrays (dictionaries and lists that numpy pickles) are read by the same rules as
    `load_pickle` and come as object arrays, a single dictionary as one of shape ().

    Raises UserError where the file is missing, damaged, or asks for anything else to be loaded.
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
    """What `load_npz` would read. Raises UserError where the file is missing or damaged."""
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
        if isinstance(
            error, LookupError | struct.error
        ):  # stack, memo or text is too short
            reason = "it ends early or has a wrong reference"
        raise UserError(
            f"{path} is damaged or incomplete ({reason}); download or copy it again"
        ) from error


def _size(file: BufferedReader) -> int:
    return os.fstat(file.fileno()).st_size


def _printable(text: str) -> str:
    text = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
    return "".join(character if character.isprintable() else "?" for character in text)


# ---- archives, checked against what they can hold

_COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those that NumPy writes."""
_DEFLATE_RATIO: Final = 1032
"""No deflated byte becomes more bytes than this."""
_LOCAL_HEADER: Final = 30
_ENCRYPTED: Final = 1


def _checked_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by their names without '.npy', in the archive's order.

    Raises:
        ValueError: two have the same name, a name does not fit on a line, or the archive cannot
            hold what it says: its members overlap, or inflate to more than is possible.
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
            raise ValueError(f"member '{name[:100]}' is said to be larger than it can be")
        members[name] = info
    end = 0
    for info in sorted(members.values(), key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise ValueError("members that overlap")
        end = info.header_offset + _LOCAL_HEADER + info.compress_size
    if end > archive.start_dir:
        raise ValueError("members that overlap the archive's index")
    return members


# ---- arrays in NumPy's format: a header in Python's notation, then bytes or a pickle

_MAGIC: Final = b"\x93NUMPY"
_LENGTH_LAYOUTS: Final = {b"\x01\x00": "<H", b"\x02\x00": "<I", b"\x03\x00": "<I"}
"""Of the header's length, by the version of the format."""
_MOST_HEADER_BYTES: Final = 1 << 16
_CHUNK: Final = 1 << 20
_TOKEN: Final = re.compile(
    r"""(?P<number>[0-9]+)L?|(?P<text>'[^'\\]*'|"[^"\\]*")|(?P<last>,\s*(?=[])}]))"""
    r"""|(?P<mark>True|False|[][(){},:]|\s+)|(?P<other>.)""",
    re.DOTALL,
)
"""Python 2 wrote numbers as 3L."""
_JSON_MARKS: Final = {"(": "[", ")": "]", "True": "true", "False": "false"}


class _Header(NamedTuple):
    dtype: np.dtype
    fortran_order: bool
    shape: tuple[int, ...]
    size: int
    """Bytes of the file that it takes."""


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
    is_member = isinstance(file, zipfile.ZipExtFile)  # these hold no more than the array
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
    match _literal(raw.decode("utf-8" if magic[6] == 3 else "latin-1")):
        case {"descr": descr, "fortran_order": bool(fortran_order), "shape": list(shape), **rest}:
            dtype = _described_dtype(descr, Budget(size))
            if not rest and dtype.subdtype is None:
                whole_shape = checked_shape(tuple(shape), dtype.itemsize)
                return _Header(dtype, fortran_order, whole_shape, 8 + length_bytes + length)
    raise ValueError("its header is not as NumPy writes it")


def _described_dtype(descr: object, budget: Budget) -> np.dtype:
    """The dtype that a header describes: a code, or a list of fields."""
    if not isinstance(descr, list):
        return dtype_of_code(descr)
    fields: list[Field] = []
    offset = 0
    for field in descr:
        match field:
            case [str(name), inner]:
                dtype = _described_dtype(inner, budget)
            case [str(name), inner, list(shape)]:
                dtype = dtype_of_subarray(_described_dtype(inner, budget), tuple(shape))
            case _:
                raise ValueError("its header has fields of an unknown layout")
        if name or dtype.kind != "V" or dtype.names is not None:  # else it is padding
            fields.append((name, dtype, offset))
        offset += dtype.itemsize
    return dtype_of_fields(fields, offset, budget)


def _literal(text: str) -> object:
    """The value of a literal of dictionaries, lists, tuples, strings, numbers and booleans.

    It is rewritten as JSON, whose reader knows nothing else. Tuples become lists.
    """
    try:
        return json.loads(
            _TOKEN.sub(_json_token, text.strip()),
            parse_int=lambda digits: checked_integer(int(digits)),
            object_pairs_hook=_dictionary,
        )
    except json.JSONDecodeError:
        raise ValueError("its header is not as NumPy writes it") from None


def _json_token(found: re.Match[str]) -> str:
    token = found[found.lastgroup or 0]
    match found.lastgroup:
        case "number":
            return token
        case "text":
            return json.dumps(token[1:-1])
        case "last":  # a comma that Python allows behind the last item
            return ""
        case "mark":
            return _JSON_MARKS.get(token, token)
    raise ValueError("its header is not as NumPy writes it")


def _dictionary(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("its header is not as NumPy writes it")
    return dict(pairs)


# ---- from what a pickle holds to what its reader wants: bounded, and without placeholders

_MOST_DEPTH: Final = 100
"""Of lists in lists: Python and NumPy recurse into them."""
_CONTAINERS: Final = frozenset(
    {dict, OrderedDict, list, tuple, set, frozenset, np.ndarray, Placeholder}
)
_KINDS_OF_NUMBERS: Final = "fiub"
_MOST_MATRIX_ITEMS: Final = 100_000_000
"""Rows times columns of a sparse matrix: its users may want it dense."""


def _read_content(file: Source, size: int) -> object:
    """What is in a pickle of at most `size` bytes, as its users want it.

    Arrays and matrices take the place of the placeholders that hold them. Values that are
    referred to more than once stay shared.

    Raises:
        UnknownNameError and the errors of `_DAMAGE`: see `read_pickle`; or it contains itself, is
            nested deeper than its users can follow, is far larger than its file where they
            follow every reference, or a placeholder is not as its class writes it.
    """
    budget = Budget(size)
    return _Walk(budget).finish(read_pickle(file, size, budget), 0)[0]


class _Walk:
    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.known: dict[int, tuple[object, int] | None] = {}
        """By identity, the finished values and how many items they hold with those inside; None
        while their insides are looked at."""

    def finish(self, content: object, depth: int) -> tuple[object, int]:
        """The finished value, and how many items it holds with those inside."""
        if type(content) not in _CONTAINERS:
            return content, 1
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
            # Most are lists and dictionaries of annotations, without others inside.
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
        """The array of a chumpy variable, or of a selection from one; other expressions stay."""
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
    """The values inside; keys and members of sets are checked when they are hashed."""
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
    """A sparse matrix of any layout, built again so that wrong indices are found, not followed."""
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
