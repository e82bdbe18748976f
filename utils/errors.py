"""The project's own error, shown as one line without a traceback, and what is logged."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Number
from typing import Final

_REMEDIES: Final = {
    errno.EEXIST: "something of that name is in the way; give another path",
    errno.ENOTDIR: "a part of this path is a file, not a folder; give another path",
    errno.EFBIG: "check the free space and the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n 4096)",
    errno.ENFILE: "the whole machine has too many open files; close other programs",
    errno.ENOMEM: "close other programs, or raise this process' limit (ulimit -v)",
}


class UserError(Exception):
    """Something the user gave or lacks is wrong.

    The message is one line that says what is wrong, where, and what to do about it.

    Attributes:
        setting: what the user set to the value with which the message begins, such as "device".
            A command puts its flag before the message.
    """

    def __init__(self, message: str, *, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting


def first_line(error: BaseException) -> str:
    """What an exception says, as one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def escape_controls(text: str, keep: str = "") -> str:
    """The text with everything that is not printable as a backslash sequence.

    Terminals act on escape sequences, and a line feed begins a new line, whoever wrote them.

    Args:
        keep: characters that stay what they are.
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
    """The text with U+FFFD in place of what is not printable, or not Unicode."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


class OneLineFormatter(logging.Formatter):
    """Escapes control characters in what is logged: names from outside may hold anything.

    What a message is made of stays in its line: line feeds in values are escaped, too.
    """

    def format(self, record: logging.LogRecord) -> str:
        if isinstance(record.args, tuple):
            record = logging.makeLogRecord(vars(record))
            record.args = tuple(map(_without_controls, record.args or ()))
        return escape_controls(super().format(record), keep="\n\t")


@contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    """Everything that is logged while the block runs goes to the handler as well."""
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _without_controls(value: object) -> object:
    return value if isinstance(value, Number) else escape_controls(str(value))  # NumPy's, too


def refusal(error: OSError, place: str = "") -> str:
    """What the system refused, where, and what to do about it, as one line.

    Args:
        place: where, if the error names no file.
    """
    where = error.filename or place
    reason = error.strerror or first_line(error)
    remedy = _REMEDIES.get(error.errno or 0, "check the place's free space and permissions")
    return f"{where}: {reason}; {remedy}" if where else f"{reason}; {remedy}"
