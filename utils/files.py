"""The project's folders, safe reading of input files, and atomic writing of output files."""

import ctypes
import errno
import fcntl
import json
import math
import os
import platform
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Any, Final, TextIO

from utils.errors import UserError, first_line

ROOT: Final = Path(__file__).resolve().parents[1]
PRETRAINED: Final = ROOT / "pretrained_models"
OUTPUTS: Final = ROOT / "outputs"
DEMO: Final = ROOT / "demo"
CONFIG_NAME: Final = "config_base.py"
"""Name of the config beside weights and in each folder of results."""
_LARGEST_JSON: Final = 128 << 20
"""Bytes; the parsed content takes several times as much memory."""
_LARGEST_INTEGER: Final = 2**63
_NO_ROOM: Final = (errno.EFBIG, errno.ENOSPC, errno.EDQUOT)
_PREFIX: Final = ".partial_"
_LOCK: Final = ".lock"
"""File in a temporary folder, locked by the process that writes; contains its machine's name."""
_REPLACED: Final = ".replaced"
"""The old folder, moved into the temporary folder while the new one takes its name."""
_SWAP: Final = 2
"""RENAME_EXCHANGE of Linux's renameat2 and RENAME_SWAP of macOS's renamex_np."""
_AT_FDCWD: Final = -100
_tidied: Final[set[Path]] = set()
"""Folders from which this process has already removed leftovers."""


def open_input(path: Path, what: str | None = None) -> BufferedReader:
    """Open an input file for reading bytes; links are followed.

    Every file from outside is opened here, or checked with `require_regular_file` if a library
    opens it by its name: reading from a named pipe could wait forever, and reading from a device
    might not end.

    Args:
        what: what the file should be, for the message if there is none.

    Raises:
        UserError: the file is missing or cannot be read, or is a folder, pipe, socket or device.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if what is not None and isinstance(error, FileNotFoundError):
            raise UserError(f"{path}: no such {what}") from error
        raise UserError(f"cannot read {path}: {_reason(error)}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"cannot read {path}: it is {_kind(path)}, not a file")
    return os.fdopen(descriptor, "rb")


def path_within(folder: Path, name: str) -> Path:
    """The path in `folder` of a name that comes from another file; links are followed.

    Raises:
        UserError: the name is absolute or contains `..`.
    """
    if not is_below(name):
        raise UserError(f"'{name}' is not a path within {folder}; give it relative to that folder")
    return folder / name


def is_below(name: str) -> bool:
    """Whether a path is relative and has no `..`."""
    path = PurePath(name)
    return not path.anchor and ".." not in path.parts


def require_regular_file(path: Path, what: str | None = None) -> None:
    """Raise the error of `open_input` unless `path` can be opened as a regular file."""
    open_input(path, what).close()


def read_input(path: Path, most_bytes: int, what: str | None = None) -> bytes:
    """The content of an input file of at most `most_bytes`.

    Raises:
        UserError: as `open_input`; or the file is larger.
    """
    with open_input(path, what) as file:
        try:
            content = file.read(most_bytes + 1)
        except OSError as error:
            raise UserError(f"cannot read {path}: {_reason(error)}") from error
        size = os.fstat(file.fileno()).st_size
    if len(content) > most_bytes:
        raise UserError(
            f"cannot read {path}: {size} bytes are too many (at most {most_bytes >> 20} MiB)"
        )
    return content


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file.

    Args:
        what: as for `open_input`.

    Raises:
        UserError: as `open_input`; or the file is not JSON, or contains NaN, infinity, integers of
            more than 64 bits, a repeated key in an object, or nesting that is too deep for Python.
    """
    content = read_input(path, _LARGEST_JSON, what)
    try:
        return json.loads(
            content,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
            parse_int=_bounded_integer,
            object_pairs_hook=_without_repeats,
        )
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({first_line(error)})") from None
    except RecursionError:
        raise UserError(f"{path}: not readable as JSON (it is nested too deeply)") from None


def wrong_download(path: Path) -> str | None:
    """A message if a download has saved a web page or a Git LFS pointer as this file, else None."""
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
    raise ValueError(f"{text} is not a JSON number")


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


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in result if keys.count(key) > 1)
        raise ValueError(f"the key {repeated[:40]!r} appears twice")
    return result


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
    """Check that `path` can be written, before long work.

    Args:
        ending: the longest text that is appended to the name for files beside `path`.
        least_free: bytes of free space that are needed.

    Raises:
        UserError: the name is too long, or there is too little space.
        OSError: the folder cannot be created or written.
    """
    name = os.fsencode(path.name + ending)
    path.parent.mkdir(parents=True, exist_ok=True)
    longest = os.pathconf(path.parent, "PC_NAME_MAX")
    if len(name) > longest:
        raise UserError(
            f"{path.parent}: '{path.name[:20]}...{ending}' is too long for a file name "
            f"({len(name)} bytes, at most {longest}); rename the file that it is named after"
        )
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=path.parent):
        free = shutil.disk_usage(path.parent).free
    if free < least_free:
        raise UserError(
            f"{path.parent}: {free >> 20} MiB are free, {-(-least_free >> 20)} MiB are needed"
        )


@contextmanager
def atomic_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` if the block succeeds.

    The temporary path has the same file name, because encoders choose their format by the suffix.
    It may become a file or a folder; a folder replaces an existing folder. If the block raises,
    the temporary path is removed and `path` is unchanged. Leftovers of killed processes beside
    `path` are removed, once per folder and process.

    Args:
        durable: flush the content to the disk before the renaming, and then the name, so that both
            survive a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent.resolve()
    if folder not in _tidied:
        _tidied.add(folder)
        remove_leftovers(folder, [path.name])
    with _partial_folder(path.parent) as holder:
        partial = holder / path.name
        try:
            yield partial
            if durable:
                _sync(partial)
        except OSError as error:
            if error.filename is None and error.errno in _NO_ROOM:  # a write failed, not an open
                error.filename = str(path)
            raise
        if partial.is_dir() and path.is_dir():
            _replace_folder(partial, path, holder)
        else:
            partial.replace(path)
        if durable:
            _sync_one(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder if it exists. It is renamed first, so that its name is free at once."""
    with _partial_folder(path.parent) as holder, suppress(FileNotFoundError):
        path.rename(holder / path.name)


def remove_leftovers(folder: Path, names: Collection[str] | None) -> None:
    """Remove temporary folders of `atomic_path` that killed processes have left in a folder.

    Temporary folders of running processes are locked and are kept. Some file systems have no locks,
    or locks that only one machine sees, so leftovers of other machines are only removed if they
    contain nothing but `names`.

    Args:
        names: files and folders that no other process is writing now; None: any.
    """
    for holder in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # locked, already removed, or without permission
            _remove_leftover(holder, names)


def _remove_leftover(holder: Path, names: Collection[str] | None) -> None:
    content = {path.name for path in holder.iterdir()} - {_LOCK, _REPLACED}
    is_named = names is None or content <= set(names)
    if not is_named and not (holder / _LOCK).is_file():
        return
    with (holder / _LOCK).open("a+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.seek(0)
        if is_named or lock.read() == platform.node():
            _finish_replacing(holder)
            shutil.rmtree(holder, ignore_errors=True)


@contextmanager
def exclusive(path: Path, busy: str, patience_s: float = 0) -> Iterator[None]:
    """Hold the lock file `path` while the block runs, and remove it at the end.

    On file systems without locks, the block runs without one.

    Args:
        busy: message of the error if another process holds the lock.
        patience_s: how long to wait for that process, seconds.

    Raises:
        UserError: another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience_s
    while (lock := _take_lock(path)) is None:
        if time.monotonic() > end:
            raise UserError(busy)
        time.sleep(0.1)
    with lock:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _take_lock(path: Path) -> TextIO | None:
    """The open lock file; None if another process holds it or has just removed it."""
    try:
        lock = path.open("a+", encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(path.stat(), os.fstat(lock.fileno())):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        return lock  # the file system has no locks
    lock.close()
    return None


@contextmanager
def _partial_folder(folder: Path) -> Iterator[Path]:
    """A locked temporary folder, which is removed at the end."""
    lock = None
    while lock is None:  # another process may have taken the new folder for a leftover
        holder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
        lock = _take_lock(holder / _LOCK)
    with lock:
        try:
            lock.write(platform.node())
            lock.flush()
            yield holder
        finally:
            _finish_replacing(holder)
            shutil.rmtree(holder, ignore_errors=True)


def _replace_folder(partial: Path, path: Path, holder: Path) -> None:
    """Replace a folder in one step, or in two of which a later process can complete the second."""
    if not _exchange(partial, path):
        path.rename(holder / _REPLACED)
        try:
            partial.rename(path)
        except OSError:
            (holder / _REPLACED).rename(path)
            raise


def _finish_replacing(holder: Path) -> None:
    """Complete an interrupted replacement: the new folder gets its name."""
    if not (holder / _REPLACED).exists():
        return
    for partial in holder.iterdir():
        if partial.name not in (_LOCK, _REPLACED) and not (holder.parent / partial.name).exists():
            partial.rename(holder.parent / partial.name)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step; False if the system or the file system cannot."""
    paths = os.fsencode(one), os.fsencode(other)
    library = ctypes.CDLL(None)
    try:
        if sys.platform == "darwin":
            status = library.renamex_np(*paths, _SWAP)
        else:
            status = library.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _SWAP)
    except AttributeError:  # the C library is too old
        return False
    return int(status) == 0


def _sync(path: Path) -> None:
    """Flush a file, or a folder with its content, to the disk."""
    if path.is_dir():
        for inner in path.iterdir():
            _sync(inner)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
