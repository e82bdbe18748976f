"""From what a pickle holds to what its reader wants: bounded, and with arrays for placeholders."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import scipy.sparse

from human_models.pickles.limits import MOST_DEPTH, Budget
from human_models.pickles.values import Placeholder

_CONTAINERS: Final = frozenset(
    {dict, OrderedDict, list, tuple, set, frozenset, np.ndarray, Placeholder}
)
_NUMBERS: Final = "fiub"
_MOST_MATRIX_ITEMS: Final = 100_000_000
"""Rows times columns of a sparse matrix: its users may want it dense."""


def finished(content: object, budget: Budget) -> object:
    """The same content with arrays and matrices in place of the placeholders that hold them.

    Values that are referred to more than once stay shared.

    Raises:
        ValueError, TypeError, LookupError: it contains itself, is nested deeper than its users
            can follow, is far larger than its file where they follow every reference, or a
            placeholder is not as its class writes it.
    """
    return _Walk(budget).finish(content, 0)[0]


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
        if depth > MOST_DEPTH:
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
        source = _array(self.finish(fields["a"], depth)[0], _NUMBERS)
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
    if not isinstance(shape, list | tuple):
        raise ValueError("a shape that is no list of numbers")
    return tuple(_length(length) for length in shape)


def _length(length: object) -> int:
    if not isinstance(length, int | np.integer):
        raise ValueError("a shape that is no list of numbers")
    return int(length)


def _sparse_matrix(
    class_name: str, fields: dict[str, Any], budget: Budget
) -> scipy.sparse.csr_matrix:
    """A sparse matrix of any layout, built anew so that wrong indices are found, not followed."""
    rows, columns = _dimensions(fields.get("_shape", fields.get("shape")))
    if min(rows, columns) < 0 or max(rows, 1) * max(columns, 1) > _MOST_MATRIX_ITEMS:
        raise ValueError("a sparse matrix of an impossible size")
    layout = class_name.rpartition(".")[2][:3]
    data = _array(fields["data"], _NUMBERS)
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
