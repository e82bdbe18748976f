"""Bytes of a file, or of a member of an archive, that are read once and in order."""

from typing import IO, Final

_CHUNK: Final = 1 << 20
_MARGIN: Final = 300
"""More than an operation of a pickle takes, other than those with long texts."""


class Stream:
    """A window on a file, moved by its user; nothing is allocated that the file cannot fill.

    Positions are indices into `window`. Up to `low` (inclusive) at least _MARGIN bytes lie ahead.
    """

    def __init__(self, file: IO[bytes], size: int, *, seekable: bool) -> None:
        self._file = file
        self._left = size
        """Bytes of the file behind the window, as far as it is said to go on."""
        self._seekable = seekable
        self.window = b""
        self.low = -1

    def refill(self, at: int) -> int:
        """Move the window on so that it starts at position `at`; the new position."""
        self._read_on(self.window[at:], _CHUNK)
        return 0

    def _read_on(self, rest: bytes, count: int) -> None:
        chunk = self._read(min(count, self._left))
        self.window = rest + chunk if rest else chunk
        self.low = len(self.window) - _MARGIN if self._left else len(self.window)

    def _read(self, count: int) -> bytes:
        chunk = self._file.read(count) if count else b""
        self._left = self._left - len(chunk) if len(chunk) == count else 0
        return chunk

    def take(self, at: int, count: int) -> tuple[bytes, int]:
        """`count` bytes from position `at`, and the position behind them.

        Raises:
            EOFError: there are not so many.
        """
        rest = self.window[at : at + count]
        if len(rest) == count:
            return rest, at + count
        if at > len(self.window) or count - len(rest) > self._left:
            raise EOFError("it ends early")
        if self._seekable:  # one read of everything copies less
            self._file.seek(-len(rest), 1)
            self._left += len(rest)
            content = self._read(count)
        else:
            content = rest + self._read(count - len(rest))
        if len(content) != count:
            raise EOFError("it ends early")
        self._read_on(b"", _CHUNK)
        return content, 0

    def take_changeable(self, at: int, count: int) -> tuple[bytearray, int]:
        """`take` into a bytearray."""
        rest = len(self.window) - at
        if rest >= count or not self._seekable:
            content, at = self.take(at, count)
            return bytearray(content), at
        if rest < 0 or count - rest > self._left:
            raise EOFError("it ends early")
        self._file.seek(-rest, 1)
        changeable = bytearray(count)
        if self._file.readinto(changeable) != count:  # type: ignore[attr-defined]
            raise EOFError("it ends early")
        self._left -= count - rest
        self._read_on(b"", _CHUNK)
        return changeable, 0

    def line(self, at: int) -> tuple[bytes, int]:
        """The bytes up to the next line feed, and the position behind it.

        Raises:
            EOFError: there is none.
        """
        end = self.window.find(b"\n", at)
        if end >= 0:
            return self.window[at:end], end + 1
        pieces = [self.window[at:]]
        while self._left:
            self._read_on(b"", _CHUNK)
            end = self.window.find(b"\n")
            if end >= 0:
                return b"".join((*pieces, self.window[:end])), end + 1
            pieces.append(self.window)
        raise EOFError("it ends early")
