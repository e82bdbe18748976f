"""Reads arrays in NumPy's format: a header in Python's notation, then bytes or a pickle."""

import math
import re
import struct
from typing import IO, Final, NamedTuple

import numpy as np

from human_models.pickles.content import finished
from human_models.pickles.dtypes import (
    OBJECT,
    Field,
    check_raw_items,
    dtype_of_code,
    dtype_of_fields,
    dtype_of_subarray,
)
from human_models.pickles.limits import Budget, checked_integer, checked_shape
from human_models.pickles.reader import read_pickle
from human_models.pickles.stream import Stream

_MAGIC: Final = b"\x93NUMPY"
_LENGTH_BYTES: Final = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
_MOST_HEADER_BYTES: Final = 1 << 16
_MOST_NESTED: Final = 8
_CHUNK: Final = 1 << 20
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<number>[0-9]+)L?|(?P<text>'[^'\\]*'|"[^"\\]*")|(?P<word>True|False)"""
    r"""|(?P<mark>[][(){},:]))"""
)
"""Python 2 wrote numbers as 3L."""
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}


class _Header(NamedTuple):
    dtype: np.dtype
    fortran_order: bool
    shape: tuple[int, ...]
    size: int
    """Bytes of the file that it takes."""


def read_content(file: IO[bytes], size: int, *, seekable: bool) -> object:
    """What is in a pickle of at most `size` bytes.

    Raises what `read_pickle` and `finished` raise.
    """
    budget = Budget(size)
    return finished(read_pickle(Stream(file, size, seekable=seekable), budget), budget)


def read_npy(file: IO[bytes], size: int, *, seekable: bool) -> np.ndarray:
    """The array in a file of `size` bytes.

    Raises:
        ValueError, TypeError, EOFError, struct.error: it is damaged, or no array of this size.
    """
    header = _read_header(file, size)
    if header.dtype == OBJECT:
        array = read_content(file, size - header.size, seekable=seekable)
        if not isinstance(array, np.ndarray) or array.shape != header.shape:
            raise ValueError("an object array differs from its header")
        return array
    needed, there = math.prod(header.shape) * header.dtype.itemsize, size - header.size
    if needed > there or (needed < there and not seekable):  # members of archives hold no more
        raise EOFError("its array differs in size from what there is of it")
    array = np.empty(header.shape, header.dtype, "F" if header.fortran_order else "C")
    _read_items(file, array, seekable=seekable)
    check_raw_items(array)
    return array


def _read_items(file: IO[bytes], array: np.ndarray, *, seekable: bool) -> None:
    if not array.nbytes:
        return
    raw = array.reshape(-1, order="A").view(np.uint8).data
    done = 0
    while done < len(raw):
        if seekable:
            count = file.readinto(raw[done:])  # type: ignore[attr-defined]
        else:
            chunk = file.read(min(_CHUNK, len(raw) - done))
            count = len(chunk)
            raw[done : done + count] = chunk
        if not count:
            raise EOFError("it ends early")
        done += count


def _read_header(file: IO[bytes], size: int) -> _Header:
    magic = file.read(8)
    length_bytes = _LENGTH_BYTES.get((magic[6], magic[7])) if len(magic) == 8 else None
    if magic[:6] != _MAGIC or length_bytes is None:
        raise ValueError("it is no array of NumPy")
    (length,) = struct.unpack("<H" if length_bytes == 2 else "<I", file.read(length_bytes))
    if length > min(size, _MOST_HEADER_BYTES):
        raise ValueError("its header is too long")
    raw = file.read(length)
    if len(raw) != length:
        raise EOFError("it ends early")
    content = _literal(raw.decode("utf-8" if magic[6] == 3 else "latin-1"))
    match content:
        case {"descr": descr, "fortran_order": bool(fortran_order), "shape": shape, **rest}:
            dtype = _dtype(descr, Budget(size))
            if not rest and dtype.subdtype is None:
                shape = checked_shape(shape, dtype.itemsize)
                return _Header(dtype, fortran_order, shape, 8 + length_bytes + length)
    raise ValueError("its header is not as NumPy writes it")


def _dtype(descr: object, budget: Budget) -> np.dtype:
    """The dtype that a header describes: a code, or a list of fields."""
    if not isinstance(descr, list):
        return dtype_of_code(descr)
    fields: list[Field] = []
    offset = 0
    for field in descr:
        match field:
            case (str() as name, inner):
                dtype = _dtype(inner, budget)
            case (str() as name, inner, shape):
                dtype = dtype_of_subarray(_dtype(inner, budget), shape)
            case _:
                raise ValueError("its header has fields of an unknown layout")
        if name or dtype.kind != "V" or dtype.names is not None:  # else it is padding
            fields.append((name, dtype, offset))
        offset += dtype.itemsize
    return dtype_of_fields(fields, offset, budget)


def _literal(text: str) -> object:
    """The value of a literal of dictionaries, lists, tuples, strings, numbers and booleans."""
    tokens = []
    at = 0
    text = text.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError("its header is not as NumPy writes it")
        tokens.append((found.lastgroup, found[found.lastgroup or 0]))
        at = found.end()
    tokens.append(("end", ""))
    tokens.reverse()
    value = _value(tokens, 0)
    if tokens != [("end", "")]:
        raise ValueError("its header is not as NumPy writes it")
    return value


def _value(tokens: list[tuple[str | None, str]], depth: int) -> object:
    """The value at the end of the reversed `tokens`, which are taken off."""
    kind, text = tokens.pop()
    if kind == "number":
        return checked_integer(text.encode())
    if kind == "text":
        return text[1:-1]
    if kind == "word":
        return text == "True"
    if text not in _CLOSING or depth > _MOST_NESTED:
        raise ValueError("its header is not as NumPy writes it")
    return _collection(text, tokens, depth)


def _collection(opening: str, tokens: list[tuple[str | None, str]], depth: int) -> object:
    keys: list[object] = []
    items: list[object] = []
    ends_with_comma = False
    while tokens[-1][1] != _CLOSING[opening]:
        if items and not ends_with_comma:
            raise ValueError("its header is not as NumPy writes it")
        if opening == "{":
            keys.append(_value(tokens, depth + 1))
            _expect(":", tokens)
        items.append(_value(tokens, depth + 1))
        ends_with_comma = tokens[-1][1] == ","
        if ends_with_comma:
            tokens.pop()
    tokens.pop()
    if opening == "{":
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
            raise ValueError("its header is not as NumPy writes it")
        return dict(zip(keys, items, strict=True))
    if opening == "[":
        return items
    return items[0] if len(items) == 1 and not ends_with_comma else tuple(items)


def _expect(mark: str, tokens: list[tuple[str | None, str]]) -> None:
    if tokens.pop() != ("mark", mark):
        raise ValueError("its header is not as NumPy writes it")
