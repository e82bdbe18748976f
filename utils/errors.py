"""The project's own error: a message for the user, shown as one line without a traceback."""

import errno
from typing import Final

_REMEDIES: Final = {
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


def refusal(error: OSError, place: str = "") -> str:
    """What the system refused, where, and what to do about it, as one line.

    Args:
        place: where, if the error names no file.
    """
    where = error.filename or place
    reason = error.strerror or first_line(error)
    remedy = _REMEDIES.get(error.errno or 0, "check the place's free space and permissions")
    return f"{where}: {reason}; {remedy}" if where else f"{reason}; {remedy}"
