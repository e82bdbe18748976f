"""Input files are opened only if they are regular; output files appear whole or not at all."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from utils.errors import UserError


def open_input(path: Path) -> BinaryIO:
    """Open a file that a user named, for reading bytes; links are followed.

    Every file that comes from outside is opened here, or checked with `require_regular_file`
    where a library opens it by its name: reading from a named pipe would wait forever, and from
    a device without end.

    Raises:
        UserError: the file is missing or cannot be read, or is a folder, pipe, socket or device.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe waits for a writer. O_BINARY exists on Windows.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UserError(f"Cannot read {path}: {_reason(error)}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"Cannot read {path}: it is {_kind(path)}, not a file.")
    return os.fdopen(descriptor, "rb")


def require_regular_file(path: Path) -> None:
    """Raise the error of `open_input` unless `path` can be opened as a regular file."""
    open_input(path).close()


def _reason(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error)


def _kind(path: Path) -> str:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a device or socket"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well.

    The temporary name keeps the suffix (encoders choose their format by it) and may become a
    file or a folder; a folder replaces an existing folder. If the block raises, nothing of it
    is left and what stood at `path` before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=".partial_", dir=path.parent))
    try:
        partial = holder / path.name
        yield partial
        if partial.is_dir() and path.is_dir():
            path.rename(holder / "replaced")
        partial.replace(path)
    finally:
        shutil.rmtree(holder, ignore_errors=True)
