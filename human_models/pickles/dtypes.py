"""dtypes made from their descriptions in files.

NumPy trusts the state of a pickled dtype: offsets outside of the item, or objects that are not
marked as such, let a file read and write memory. Here only codes, names, types and offsets of
fields are taken from the file; NumPy computes everything else anew. A dtype that holds objects is
either plain `object` or refused.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from human_models.pickles.limits import Budget, checked_shape

OBJECT: Final = np.dtype(object)
_CODE: Final = re.compile(
    r"[<>|=]?(?:[biufcSUV][0-9]{0,9}|[mM]8(?:\[[0-9]{0,9}[a-zA-Z]+\])?|(?P<object>O[48]?)|\?)"
)
_DATE_UNIT: Final = re.compile("generic|Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as")
_MOST_FIELDS: Final = 1000
_MOST_CODE_POINT: Final = 0x10FFFF

Field = tuple[str, np.dtype, int]
"""Name, type and offset."""


def dtype_of_code(code: object) -> np.dtype:
    """The dtype that a code such as '<f4' names, as an object of its own.

    Raises ValueError (or TypeError, by NumPy) where it is no such code.
    """
    found = _CODE.fullmatch(_text(code))
    if found is None:
        raise ValueError("an unknown dtype")
    return np.dtype(OBJECT if found["object"] else found[0], copy=True)


def dtype_of_fields(fields: Sequence[Field], itemsize: int, budget: Budget) -> np.dtype:
    """A structured dtype; its fields lie behind each other and may have fields themselves, once.

    Raises ValueError where they do not fit, overlap, nest deeper or hold objects.
    """
    if len(fields) > _MOST_FIELDS or len({name for name, _, _ in fields}) < len(fields):
        raise ValueError("a dtype of too many or equal fields")
    end = 0
    for _, field, offset in sorted(fields, key=lambda field: field[2]):
        if not end <= offset <= itemsize - field.itemsize:
            raise ValueError("a dtype of fields that overlap or lie outside")
        end = offset + field.itemsize
        inner = list((field.base.fields or {}).values())
        budget.spend(len(inner))
        if field.hasobject or any(deepest[0].base.fields for deepest in inner):
            raise ValueError("a dtype of objects, or nested too deeply")
    names, formats, offsets = zip(*fields, strict=True) if fields else ((), (), ())
    return np.dtype(
        {
            "names": list(names),
            "formats": list(formats),
            "offsets": list(offsets),
            "itemsize": itemsize,
        }
    )


def dtype_of_subarray(base: object, shape: object) -> np.dtype:
    """The dtype of a field that is an array itself. Raises ValueError where there is none."""
    if not isinstance(base, np.dtype) or base.hasobject or base.subdtype is not None:
        raise ValueError("a dtype of arrays of something unknown")
    return np.dtype((base, checked_shape(shape, base.itemsize)))


def dtype_of_state(dtype: np.dtype, state: object, budget: Budget) -> np.dtype:
    """The dtype which pickle describes in two steps: by its code, then by a state.

    Raises ValueError where the state is not as NumPy writes it.
    """
    if not isinstance(state, tuple) or (state[:1], len(state)) not in (((3,), 8), ((4,), 9)):
        raise ValueError("a dtype of an unknown layout")
    _, order, subarray, names, fields, itemsize, _, _, *metadata = state
    if _text(order) not in ("<", ">", "|", "="):
        raise ValueError("a dtype of an unknown byte order")
    if dtype.kind in "mM":
        return np.dtype(f"{_text(order)}{dtype.kind}8[{_date_unit(metadata)}]")
    if any(part is not None for part in metadata):
        raise ValueError("a dtype with metadata")
    if itemsize not in (-1, dtype.itemsize):
        raise ValueError("a dtype whose size differs from its code")
    if subarray is None and names is None and fields is None:
        return dtype.newbyteorder(order) if _text(order) in "<>" else dtype
    if dtype.kind != "V":
        raise ValueError("a dtype of numbers that has fields")
    if subarray is not None:
        match subarray, names, fields:
            case (base, shape), None, None:
                built = dtype_of_subarray(base, shape)
            case _:
                raise ValueError("a dtype of an unknown layout")
    else:
        built = dtype_of_fields(_fields(names, fields), dtype.itemsize, budget)
    if built.itemsize != dtype.itemsize:
        raise ValueError("a dtype whose size differs from its code")
    return built


def _fields(names: object, fields: object) -> list[Field]:
    if not isinstance(names, tuple) or not isinstance(fields, Mapping) or len(names) != len(fields):
        raise ValueError("a dtype of an unknown layout")
    described: list[Field] = []
    for name in names:
        match name, fields.get(name):
            case str(), (np.dtype() as dtype, int(offset)):  # a third one would be a title
                described.append((name, dtype, offset))
            case _:
                raise ValueError("a dtype of fields of an unknown layout")
    return described


def _date_unit(metadata: Sequence[object]) -> str:
    match metadata:
        case [[None | {}, [unit, int(count), 1, 1]]] if _DATE_UNIT.fullmatch(_text(unit)):
            if 0 < count < 2**31:
                return f"{count}{_text(unit)}" if _text(unit) != "generic" else "generic"
    raise ValueError("a dtype of dates in an unknown unit")


def _text(value: object) -> str:
    """Codes are bytes in pickles of Python 3 that Python 2 can read."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise ValueError("a dtype described by something other than text")
    return value


def check_raw_items(array: np.ndarray) -> None:
    """Raise ValueError where bytes from a file are no booleans, or no characters.

    NumPy counts True by adding bytes, and Python relies on characters being in Unicode's range.
    """
    if array.dtype.fields is not None:
        for name in array.dtype.fields:
            check_raw_items(array[name])
    elif array.size and array.dtype.itemsize and array.dtype.kind in "bU":
        native = np.ascontiguousarray(array).reshape(-1)
        raw = native.view(np.uint8 if array.dtype.kind == "b" else _code_points(array.dtype))
        if raw.max() > (1 if array.dtype.kind == "b" else _MOST_CODE_POINT):
            raise ValueError("an array of impossible booleans or characters")


def _code_points(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.uint32) if dtype.isnative else np.dtype(np.uint32).newbyteorder()
