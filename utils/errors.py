"""The project's own error: a message for the user, shown as one line without a traceback."""


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
