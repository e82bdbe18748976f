"""Input files are opened only if they are regular; output files appear whole or not at all."""

import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Any, Final

from utils.errors import UserError, first_line

_LARGEST_JSON: Final = 128 << 20
"""Bytes; what is read of them takes several times as much memory."""
_LARGEST_INTEGER: Final = 2**63


def open_input(path: Path, what: str | None = None) -> BufferedReader:
    """Open a file that a user named, for reading bytes; links are followed.

    Every file that comes from outside is opened here, or checked with `require_regular_file`
    where a library opens it by its name: reading from a named pipe would wait forever, and from
    a device without end.

    Args:
        what: what the file is, for the message that there is no such one.

    Raises:
        UserError: the file is missing or cannot be read, or is a folder, pipe, socket or device.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe waits for a writer. O_BINARY exists on Windows.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if what is not None and isinstance(error, FileNotFoundError):
            raise UserError(f"{path}: no such {what}") from error
        raise UserError(f"Cannot read {path}: {_reason(error)}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"Cannot read {path}: it is {_kind(path)}, not a file.")
    return os.fdopen(descriptor, "rb")


def path_within(folder: Path, name: str) -> Path:
    """A file that another file names, below a folder; links in the folder are followed.

    Raises:
        UserError: the name is absolute or has `..` in it, so that it could be anywhere.
    """
    if not is_below(name):
        raise UserError(f"'{name}' is no path within {folder}; strip what it begins with")
    return folder / name


def is_below(name: str) -> bool:
    """Whether a path is relative and never leads upwards."""
    path = PurePath(name)
    return not path.anchor and ".." not in path.parts


def require_regular_file(path: Path, what: str | None = None) -> None:
    """Raise the error of `open_input` unless `path` can be opened as a regular file."""
    open_input(path, what).close()


def read_input(path: Path, most_bytes: int, what: str | None = None) -> bytes:
    """The content of a file that a user named, which should have at most `most_bytes`.

    Raises:
        UserError: see `open_input`; or the file is larger.
    """
    with open_input(path, what) as file:
        try:
            content = file.read(most_bytes + 1)
        except OSError as error:
            raise UserError(f"Cannot read {path}: {_reason(error)}.") from error
        size = os.fstat(file.fileno()).st_size
    if len(content) > most_bytes:
        raise UserError(
            f"Cannot read {path}: {size} bytes are too many for such a file "
            f"(at most {most_bytes >> 20} MiB)."
        )
    return content


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file that a user named.

    Args:
        what: see `open_input`.

    Raises:
        UserError: see `open_input`; or it is no JSON, or holds NaN, infinity, integers that need
            over 64 bits, or deeper nesting than Python reads.
    """
    content = read_input(path, _LARGEST_JSON, what)
    try:
        return json.loads(
            content,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_bounded_integer,
        )
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({first_line(error)})") from None
    except RecursionError:
        raise UserError(f"{path}: not readable as JSON (it is nested too deeply)") from None


def what_came_instead(path: Path) -> str | None:
    """Why a file is not what its name says, where a download left something else; else None."""
    try:
        with open_input(path) as file:
            beginning = file.read(512)
    except (UserError, OSError):
        return None
    if beginning.startswith(b"version https://git-lfs"):
        return "this is a pointer of Git LFS, not the file itself; fetch that with git lfs pull"
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n")[:9].lower().startswith((b"<!doctype", b"<html")):
        return "this is a web page, not the file itself; open the address in a browser"
    return None


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _finite_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _bounded_integer(text: str) -> int:
    digits = len(text)
    if digits > len(str(_LARGEST_INTEGER)) or abs(int(text)) >= _LARGEST_INTEGER:
        raise ValueError(f"an integer of {digits} digits is too large")
    return int(text)


def _reason(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error)


def _kind(path: Path) -> str:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a device or socket"


def require_output(path: Path, *, ending: str = "", least_free: int = 0) -> None:
    """Raise unless `path`, with an ending or without, can be written: before the long work.

    Args:
        ending: the longest one that files beside `path` have more than its own name.
        least_free: bytes of space that are needed.

    Raises:
        UserError: the name is too long or holds a NUL, or there is too little space.
        OSError: the folder cannot be made or written.
    """
    name = os.fsencode(path.name + ending)
    path.parent.mkdir(parents=True, exist_ok=True)
    longest = os.pathconf(path.parent, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    if len(name) > longest:
        raise UserError(
            f"{path.parent}: '{path.name[:20]}...{ending}' is too long a name for a file "
            f"({len(name)} bytes, at most {longest}); rename what it is called after"
        )
    with tempfile.TemporaryDirectory(prefix=".partial_", dir=path.parent):
        free = shutil.disk_usage(path.parent).free
    if free < least_free:
        raise UserError(
            f"{path.parent}: {free >> 20} MiB are free, {-(-least_free >> 20)} MiB are needed"
        )


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
