"""The values that a pickle may contain, made from checked descriptions.

A pickle names classes and functions for its reader to call. These names are only looked up in the
table at the end of this module; each of its entries makes one kind of value.

NumPy trusts the state of a pickled dtype: with it, a file could read and write memory. Here only
its code and the order of its bytes are taken from the file. Arrays contain numbers, texts or
objects; those with fields and those of dates, which no file of ours has, are refused.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

_MOST_BITS: Final = 1000
"""Most bits of an integer, so that it can be converted to a float."""
_BUILDS_PER_BYTE: Final = 4
_ALWAYS_ALLOWED: Final = 1 << 20
_EXPANDED_ALWAYS_ALLOWED: Final = 20_000_000
_MOST_DIMENSIONS: Final = 32
_MOST_BYTES: Final = 2**62
_MOST_CODE_POINT: Final = 0x10FFFF
_OBJECT_ARRAYS_IN_EACH_OTHER: Final = 16
_MOST_INT_KEY: Final = 2**60
"""Integers up to this one have different hashes."""
_MOST_NUMBER_KEYS: Final = 4096
"""A limit, because collisions of numbers are easy to construct; a count from 0 or 1 has none."""
_MOST_TUPLE_KEYS: Final = 256
"""A limit, because collisions of tuple hashes are easy to construct."""
_OBJECT: Final = np.dtype(object)
_CODE: Final = re.compile(r"[<>|=]?(?:[biufcSU][0-9]{0,9}|O[48]?|\?)")

Arguments = tuple[Any, ...]


class UnknownNameError(Exception):
    """A pickle contains a name that is not on the list; the message is the name."""


class Budget:
    """Limits what is built from a file, which may refer to the same value repeatedly.

    Work and memory remain proportional to the size of the file.
    """

    def __init__(self, file_bytes: int) -> None:
        self.left = _BUILDS_PER_BYTE * file_bytes + _ALWAYS_ALLOWED
        self.most_expanded = file_bytes + _EXPANDED_ALWAYS_ALLOWED
        """Most items of the content, if each reference to a shared list counts as a list."""

    def spend(self, amount: int) -> None:
        """
        Raises:
            ValueError: more is built than a file of this size can need.
        """
        self.left -= amount
        if self.left < 0:
            raise ValueError("it builds more than a file of its size can need")


def checked_integer(value: int) -> int:
    """The integer.

    Raises:
        ValueError: the integer has too many digits.
    """
    if value.bit_length() > _MOST_BITS:
        raise ValueError("a number of too many digits")
    return value


def checked_shape(shape: object, itemsize: int) -> tuple[int, ...]:
    """The shape of an array whose items have `itemsize` bytes.

    Raises:
        ValueError: the shape is impossible.
    """
    if not (
        isinstance(shape, tuple)
        and len(shape) <= _MOST_DIMENSIONS
        and all(type(length) is int and 0 <= length < _MOST_BYTES for length in shape)
    ):
        raise ValueError("an array of an impossible shape")
    # NumPy multiplies all lengths that are not zero, also for empty arrays.
    if math.prod(filter(None, shape)) * max(itemsize, 1) >= _MOST_BYTES:
        raise ValueError("an array of an impossible size")
    if itemsize == 0 and 0 not in shape:
        raise ValueError("an array of items without bytes")
    return shape


def dtype_of_code(code: object) -> np.dtype:
    """The dtype of a code such as '<f4'.

    Raises:
        ValueError: the code is unknown (or TypeError, by NumPy).
    """
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise ValueError("an array of an unknown kind")
    return _OBJECT if "O" in code else np.dtype(code)


def check_raw_items(array: np.ndarray) -> None:
    """Raise ValueError if bytes from a file are not valid booleans or characters.

    NumPy counts True by adding bytes, and Python assumes that characters are valid Unicode.
    """
    if array.size and array.dtype.itemsize and array.dtype.kind in "bU":
        code, most = ("u1", 1) if array.dtype.kind == "b" else ("u4", _MOST_CODE_POINT)
        raw = np.ascontiguousarray(array).reshape(-1).view(f"{array.dtype.byteorder}{code}")
        if raw.max() > most:
            raise ValueError("an array of impossible booleans or characters")


# ---- names and objects


@dataclass(frozen=True, eq=False, slots=True)
class Name:
    """A name in a pickle that is on the list; it does nothing by itself."""

    text: str
    make: "Callable[[Builder, Arguments], object] | None"
    """None: objects of this class are placeholders."""


@dataclass(eq=False, slots=True, repr=False)
class Placeholder:
    """Stands for an object of a class that is not loaded; `state` is its pickled state."""

    class_name: str
    state: object = None

    def fields(self) -> dict[str, Any]:
        return self.state if isinstance(self.state, dict) else {}


@dataclass(eq=False, slots=True, repr=False)
class PickledDtype:
    """A dtype, which pickles describe by a code and then by a state with the order of its bytes."""

    dtype: np.dtype
    has_state: bool = False

    def set_state(self, state: object) -> None:
        match state:
            case (3, "<" | ">" | "|" | "=" as order, None, None, None, int(itemsize), _, _) if (
                itemsize in (-1, self.dtype.itemsize) and not self.has_state
            ):
                self.has_state = True
                if order in "<>":
                    self.dtype = self.dtype.newbyteorder(order)
            case _:
                raise ValueError("an array of an unknown kind")


_FREE_KEYS: Final = frozenset({str, bytes, bool, type(None), Placeholder})
"""Types for which collisions of hashes are hard or impossible to construct."""


class Builder:
    """Makes the values of one pickle. All methods raise ValueError if it is invalid.

    An array is made in two steps: by a name, and then by a state, which can be set once. `unbuilt`
    has those without a state.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.unbuilt: dict[int, np.ndarray] = {}
        self._object_depths: dict[int, tuple[np.ndarray, int]] = {}

    def call(self, name: object, arguments: object) -> object:
        """The value that a call of `name` makes."""
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is not a name")
        if name.make is not None:
            return name.make(self, arguments)
        return Placeholder(name.text)

    def set_state(self, value: object, state: object) -> None:
        """Set the state of a value."""
        if isinstance(value, Placeholder):
            value.state = state
        elif isinstance(value, PickledDtype):
            value.set_state(state)
        elif (array := self.unbuilt.pop(id(value), None)) is not None:
            self._fill(array, state)
        else:
            raise ValueError("a state for something that has none, or has one already")

    def _fill(self, array: np.ndarray, state: object) -> None:
        match state:
            case (1, shape, PickledDtype(dtype=dtype), (0 | 1) as fortran_order, items):
                shape = checked_shape(shape, dtype.itemsize)
            case _:
                raise ValueError("an array of an unknown layout")
        if isinstance(items, list):
            self._check_objects(array, dtype, items, math.prod(shape))
        elif isinstance(items, str | bytes):
            self._check_raw(items, dtype, math.prod(shape))
            items = items.encode("latin-1") if isinstance(items, str) else items  # from Python 2
        else:
            raise ValueError("an array of an unknown layout")
        # Everything that NumPy uses is checked: it copies the items of the list into the array, or
        # uses the bytes, whose number fits shape and dtype, as the memory of the array.
        array.__setstate__((1, shape, dtype, bool(fortran_order), items))  # type: ignore[arg-type]
        check_raw_items(array)

    def _check_objects(
        self, array: np.ndarray, dtype: np.dtype, items: list[object], count: int
    ) -> None:
        if dtype != _OBJECT or len(items) != count:
            raise ValueError("an object array that differs from its list")
        self.budget.spend(count)
        depth = 0
        if np.ndarray in set(map(type, items)):
            # NumPy frees nested arrays by recursion.
            for item in items:
                if id(item) in self.unbuilt or item is array:
                    raise ValueError("an array that contains itself")
                depth = max(depth, self._object_depths.get(id(item), (None, 0))[1])
        if depth >= _OBJECT_ARRAYS_IN_EACH_OTHER:
            raise ValueError("arrays nested too deeply")
        self._object_depths[id(array)] = (array, depth + 1)

    def _check_raw(self, raw: str | bytes | bytearray, dtype: np.dtype, count: int) -> None:
        if dtype.hasobject:
            raise ValueError("objects made of bytes")
        if len(raw) != count * dtype.itemsize:
            raise ValueError("an array whose size differs from its bytes")
        self.budget.spend(len(raw))

    def check_keys(self, keys: Collection[object], existing: int) -> None:
        """Check that hashing these values is quick; `existing`: keys already in the dict or set."""
        if _FREE_KEYS.issuperset(map(type, keys)):
            return
        for key in keys:
            if type(key) is tuple:
                if len(key) > _MOST_TUPLE_KEYS or existing + len(keys) > _MOST_TUPLE_KEYS:
                    raise ValueError("too many keys that are tuples")
                if tuple in set(map(type, key)):
                    raise ValueError("a key that is a nested tuple")
                self.check_keys(key, 0)
            elif type(key) in (int, float) or (
                # Hashes of larger floats than Python's own collide.
                isinstance(key, np.generic)
                and (key.dtype.kind in "biu" or (key.dtype.kind == "f" and key.itemsize <= 8))
            ):
                if type(key) is int and not -_MOST_INT_KEY < key < _MOST_INT_KEY:
                    raise ValueError("a key that is a huge number")
                count = existing + len(keys)
                if count > _MOST_NUMBER_KEYS and not (
                    isinstance(key, int | np.integer) and 0 <= key <= count
                ):
                    raise ValueError("too many keys that are numbers")
            elif type(key) not in _FREE_KEYS and not (
                isinstance(key, np.generic) and key.dtype.kind in "SU"
            ):
                raise ValueError("a key of an unexpected type")

    # ---- functions and classes by name

    def new_array(self, arguments: Arguments) -> np.ndarray:
        match arguments:
            case (Name(text="numpy.ndarray"), (0,), b"b" | "b"):
                array = np.empty(0, np.int8)
                self.unbuilt[id(array)] = array
                return array
        raise ValueError("an array of an unknown kind")

    def new_dtype(self, arguments: Arguments) -> PickledDtype:
        code, _, _ = arguments
        return PickledDtype(dtype_of_code(code))

    def scalar(self, arguments: Arguments) -> object:
        match arguments:
            case (PickledDtype(dtype=dtype), str() | bytes() as raw):
                self._check_raw(raw, dtype, 1)
                if dtype.itemsize == 0:
                    return dtype.type()
                raw = raw.encode("latin-1") if isinstance(raw, str) else raw
                array: np.ndarray = np.ndarray((1,), dtype, raw)
                check_raw_items(array)
                return array[0]
        raise ValueError("a number of an unknown layout")

    def array_of_buffer(self, arguments: Arguments) -> np.ndarray:
        match arguments:
            case (
                bytes() | bytearray() as raw,
                PickledDtype(dtype=dtype),
                shape,
                "C" | "F" as order,
            ):
                axes = None
            case (
                bytes() | bytearray() as raw,
                PickledDtype(dtype=dtype),
                shape,
                "K",
                tuple() as axes,
            ):
                order = "C"
            case _:
                raise ValueError("an array of an unknown layout")
        shape = checked_shape(shape, dtype.itemsize)
        self._check_raw(raw, dtype, math.prod(shape))
        array: np.ndarray = np.ndarray(shape, dtype, raw, order=order)
        check_raw_items(array)
        return array if axes is None else array.transpose(axes)

    def latin1_bytes(self, arguments: Arguments) -> bytes:
        """Bytes, which Python 3 writes in old protocols as a call of `_codecs.encode`."""
        match arguments:
            case (str() as text, "latin1" | "latin-1") | (str() as text,):
                self.budget.spend(len(text))
                return text.encode("latin-1")
        raise ValueError("bytes written in an unknown way")

    def ordered(self, arguments: Arguments) -> OrderedDict[object, object]:
        (pairs,) = arguments or ([],)
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
        ):
            raise ValueError("a dictionary of an unknown layout")
        self.budget.spend(len(pairs))
        self.check_keys([key for key, _ in pairs], 0)
        return OrderedDict(pairs)

    def items(self, arguments: Arguments) -> list[object] | tuple[object, ...]:
        (items,) = arguments or ([],)
        if not isinstance(items, list | tuple):
            raise ValueError("a set of an unknown layout")
        self.budget.spend(len(items))
        self.check_keys(items, 0)
        return items

    def object_of_class(self, arguments: Arguments) -> object:
        """An object made by the oldest pickle protocol, without calling its class."""
        match arguments:
            case (Name(make=None) as name, Name(text="builtins.object"), state):
                return Placeholder(name.text, state)
        raise ValueError("an object of an unexpected class")


def _no_arguments(arguments: Arguments, value: object) -> object:
    if arguments:
        raise ValueError("an object of an unknown layout")
    return value


def _refused(_: Builder, __: Arguments) -> object:
    raise ValueError("an array of an unknown layout")


_BUILTINS: Final[dict[str, Callable[[Builder, Arguments], object]]] = {
    "object": lambda _, arguments: _no_arguments(arguments, object()),
    "set": lambda builder, arguments: set(builder.items(arguments)),
    "frozenset": lambda builder, arguments: frozenset(builder.items(arguments)),
    "bytes": lambda _, arguments: _no_arguments(arguments, b""),
}
_NAMES: Final[dict[tuple[str, str], Name]] = {
    ("numpy", "ndarray"): Name("numpy.ndarray", _refused),
    ("numpy", "dtype"): Name("numpy.dtype", Builder.new_dtype),
    **{
        (f"numpy.{core}.{module}", name): Name(f"numpy.{name}", make)
        for core in ("core", "_core")  # numpy 1 and 2
        for module, name, make in (
            ("multiarray", "_reconstruct", Builder.new_array),
            ("multiarray", "scalar", Builder.scalar),
            ("numeric", "_frombuffer", Builder.array_of_buffer),
        )
    },
    ("_codecs", "encode"): Name("_codecs.encode", Builder.latin1_bytes),
    ("collections", "OrderedDict"): Name("collections.OrderedDict", Builder.ordered),
    **{
        (module, name): Name(f"builtins.{name}", make)
        for module in ("__builtin__", "builtins")
        for name, make in _BUILTINS.items()
    },
    **{
        (module, "_reconstructor"): Name("copyreg._reconstructor", Builder.object_of_class)
        for module in ("copy_reg", "copyreg")
    },
    **{
        (module, name): Name(f"{module}.{name}", None)
        for layout in ("csc", "csr", "coo")
        for module in (f"scipy.sparse.{layout}", f"scipy.sparse._{layout}")
        for name in (f"{layout}_matrix", f"{layout}_array")
    },
}


def find_name(module: object, name: object) -> Name:
    """The entry of a name on the list.

    Raises:
        UnknownNameError: the list has no such name.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError("a name that is not text")
    if (module, name) in _NAMES:
        return _NAMES[module, name]
    if module.split(".")[0] == "chumpy" and name.isidentifier():
        return Name(f"{module}.{name}", None)
    raise UnknownNameError(f"{module}.{name}")
