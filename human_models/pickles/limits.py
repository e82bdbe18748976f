"""What a file may make its reader do: work and memory in proportion to its own size."""

import math
from typing import Final

MOST_BITS: Final = 1000
"""Of a whole number: all of them can become floats."""
MOST_DEPTH: Final = 100
"""Of lists in lists: Python and NumPy recurse into them."""
_BUILDS_PER_BYTE: Final = 4
_ALWAYS_ALLOWED: Final = 1 << 20
_EXPANDED_ALWAYS_ALLOWED: Final = 20_000_000
_MOST_DIMENSIONS: Final = 32
_MOST_BYTES: Final = 2**62


class Budget:
    """Counts what is built from the values of a file, which may name the same value repeatedly."""

    def __init__(self, file_bytes: int) -> None:
        self.left = _BUILDS_PER_BYTE * file_bytes + _ALWAYS_ALLOWED
        self.most_expanded = file_bytes + _EXPANDED_ALWAYS_ALLOWED
        """Items of the content where each reference to a shared list counts as a list."""

    def spend(self, amount: int) -> None:
        """Raises ValueError where more is built than an honest file of this size holds."""
        self.left -= amount
        if self.left < 0:
            raise ValueError("it builds more than a file of its size holds")


def checked_integer(text: bytes, base: int = 10) -> int:
    """Raises ValueError where the text is no whole number, or too long a one."""
    if len(text) > MOST_BITS // 3:
        raise ValueError("a number of too many digits")
    value = int(text, base)
    if value.bit_length() > MOST_BITS:
        raise ValueError("a number of too many digits")
    return value


def checked_shape(shape: object, itemsize: int) -> tuple[int, ...]:
    """The shape of an array whose items have so many bytes.

    Raises ValueError where no array can have it.
    """
    if not (
        isinstance(shape, tuple)
        and len(shape) <= _MOST_DIMENSIONS
        and all(type(length) is int and 0 <= length < _MOST_BYTES for length in shape)
    ):
        raise ValueError("an array of an impossible shape")
    # NumPy multiplies the lengths other than zero, for empty arrays as well.
    if math.prod(filter(None, shape)) * max(itemsize, 1) >= _MOST_BYTES:
        raise ValueError("an array of an impossible size")
    if itemsize == 0 and 0 not in shape:
        raise ValueError("an array of items without bytes")
    return shape
