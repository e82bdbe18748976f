"""The project's own error: a message for the user, shown as one line without a traceback."""

import logging


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

    Terminals act on escape sequences, and lines begin anew at line feeds, whoever wrote them.

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


def _without_controls(value: object) -> object:
    return value if isinstance(value, int | float) else escape_controls(str(value))
