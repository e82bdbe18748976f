"""The error that commands show as one line without a traceback, and logging without control
characters."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Number
from typing import Final

_REMEDIES: Final = {
    errno.EEXIST: "another file or folder has that name; give another path",
    errno.ENOTDIR: "a part of this path is a file, not a folder; give another path",
    errno.EFBIG: "check the free space and the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n 4096)",
    errno.ENFILE: "the whole machine has too many open files; close other programs",
    errno.ENOMEM: "close other programs, or raise the limit of this process (ulimit -v)",
}


class UserError(Exception):
    """An error that the user can correct, such as a wrong argument or a missing file.

    The message is one line that says what is wrong, where, and what to do about it.

    Attributes:
        setting: name of the setting whose value is wrong, such as "device". Commands put the flag
            of this setting before the message, which begins with the value.
    """

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its type if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def escape_controls(text: str, keep: str = "") -> str:
    """The text with characters that are not printable replaced by backslash sequences.

    Escape sequences in names from outside could otherwise control the terminal, and line feeds
    could imitate log lines.

    Args:
        keep: characters that are not replaced.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape").decode()
        for character in text
    )


def printable(text: str) -> str:
    """The text with U+FFFD in place of characters that are not printable or not Unicode."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


class OneLineFormatter(logging.Formatter):
    """Escapes control characters in messages, and also line feeds in their arguments."""

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.args, tuple):
            record = logging.makeLogRecord(vars(record))
            record.args = tuple(map(_without_controls, record.args or ()))
        return escape_controls(super().format(record), keep="\n\t")


@contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    """Also send everything that is logged in the block to a handler, and close it at the end."""
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _without_controls(value: object) -> object:
    return value if isinstance(value, Number) else escape_controls(str(value))


def refusal(error: OSError, place: str = "") -> str:
    """One line that says what the operating system refused, where, and what to do about it.

    Args:
        place: the place to name if the error has no file name.
    """
    where = error.filename or place
    reason = error.strerror or first_line(error)
    remedy = _REMEDIES.get(error.errno or 0, "check free space and permissions")
    return f"{where}: {reason}; {remedy}" if where else f"{reason}; {remedy}"
