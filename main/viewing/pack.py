"""Arrays for a page: one compressed block of bytes, and references into it that JSON can hold."""

import base64
import hashlib
import zlib
from typing import Any, Final

import numpy as np
from jaxtyping import Shaped

_ALIGNMENT: Final = 4
_LARGEST_INT16: Final = 32767


class Pack:
    """Collects arrays; equal ones are kept once, so what people share costs nothing a person.

    A reference is {"$": [type, offset, length, scale]}: numpy's name of the little-endian type,
    the byte it begins at, how many numbers, and what they are multiplied with (1: as they are).
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._places: dict[str, int] = {}

    def exact(self, array: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
        """A reference to the numbers as they are; float64 becomes float32, bool and int shrink."""
        return self._add(_narrowed(array), 1.0)

    def rounded(self, array: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
        """A reference to 16-bit steps of 1/32767 of the largest magnitude."""
        scale = max(float(np.abs(array).max(initial=0)), 1e-9) / _LARGEST_INT16
        return self._add(np.round(array / scale).astype("<i2"), scale)

    def _add(self, array: Shaped[np.ndarray, "..."], scale: float) -> dict[str, Any]:
        content = np.ascontiguousarray(array).tobytes()
        key = hashlib.sha256(content).hexdigest()
        if key not in self._places:
            self._places[key] = self._size
            content += bytes(-len(content) % _ALIGNMENT)
            self._parts.append(content)
            self._size += len(content)
        return {"$": [array.dtype.str[1:], self._places[key], array.size, scale]}

    def encoded(self) -> str:
        """All bytes, deflated (zlib), as base64."""
        return encoded(b"".join(self._parts))


def encoded(content: bytes) -> str:
    """Bytes deflated (zlib) and in base64, as the page inflates them."""
    return base64.b64encode(zlib.compress(content)).decode("ascii")


def _narrowed(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """The same numbers in the smallest of the types that pages know."""
    if array.dtype.kind == "f":
        return array.astype("<f4")
    if array.dtype.kind == "b":
        return array.astype("u1")
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for name in ("u1", "u2", "i4"):
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return array.astype(f"<{name}")
    raise ValueError(f"integers up to {high} do not fit into 32 bits")
