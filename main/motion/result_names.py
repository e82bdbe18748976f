"""Names of result folders: a folder is named after its input.

It never replaces the result of another input. For this, the summary contains the input's name and
hashes of its path and its content; a result without them may be replaced.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Final

from main.motion.result_reader import read_summary
from utils.errors import UserError
from utils.files import open_input
from utils.image import IMAGE_SUFFIXES
from utils.video_read import VIDEO_SUFFIXES

_HASHED_BYTES: Final = 1 << 16
"""Number of bytes at the beginning and end of an input from which the hash is computed."""


def as_given(path: Path) -> Path:
    """The absolute path of an input as given: that of a link, not of its target."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` follows links


def input_ids(source: Path) -> tuple[str, str]:
    """Hashes of the path and of the content of an input.

    Inputs are the same if either hash is equal.
    """
    return _place_id(source), _content_id(source)


def _place_id(source: Path) -> str:
    return _digest(os.fsencode(as_given(source)))


def _content_id(source: Path) -> str:
    """Hash of the names and sizes of a folder's files, or of a file's size, beginning and end."""
    if source.is_dir():
        files = sorted(
            # A link may have no target.
            (os.fsencode(path.name), path.stat().st_size if path.exists() else 0)
            for path in source.iterdir()
        )
        return _digest(repr(files).encode())
    size = source.stat().st_size
    with open_input(source) as file:
        beginning = file.read(_HASHED_BYTES)
        file.seek(max(0, size - _HASHED_BYTES))
        return _digest(str(size).encode() + beginning + file.read(_HASHED_BYTES))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def result_names(sources: Sequence[Path], output: Path, *, preview: bool = False) -> Iterator[str]:
    """A distinct NAME for the `result_NAME` of each source in the folder `output`.

    It is the source's name without its suffix; with it if that is taken by another source or by the
    result of another input; and with a number if this is taken, too. A sheet of people contains no
    hash of its input: for a `preview`, all videos and images beside the sources are considered.
    """
    known = {as_given(source) for source in sources}
    if preview:
        known |= {path for folder in {one.parent for one in known} for path in _sources_in(folder)}
    # Some systems do not distinguish a.mp4 and A.mp4.
    alike = Counter(_stem(source).casefold() for source in known)
    taken: set[str] = set()
    for source in sources:
        stem, full = _stem(source), as_given(source).name.replace(".", "_")
        names = chain([stem] if alike[stem.casefold()] == 1 else [], _numbered(full))
        name = next(
            one
            for one in names
            if one.casefold() not in taken and _is_free(output / f"result_{one}", source)
        )
        taken.add(name.casefold())
        yield name


def _sources_in(folder: Path) -> Iterator[Path]:
    suffixes = IMAGE_SUFFIXES + VIDEO_SUFFIXES
    return (path for path in folder.iterdir() if path.suffix.lower() in suffixes)


def _is_free(folder: Path, source: Path) -> bool:
    """Whether a result folder does not exist or belongs to this source."""
    if not folder.exists():
        return True
    if not source.is_dir() and any(folder.glob("result_*/")):
        return False  # it holds the results of a folder of photographs
    try:
        summary = read_summary(folder)
    except UserError:
        return True
    if summary.input not in (None, as_given(source).name):
        return False
    ids = summary.input_ids
    return not ids or _place_id(source) in ids or (source.exists() and _content_id(source) in ids)


def _stem(source: Path) -> str:
    source = as_given(source)
    return source.name if source.is_dir() else source.stem


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{number}" for number in count(2))
