"""Names of results: those of the inputs as they were given, and no result replaces another's.

A result folder says of which input it is: by the input's name, and by numbers for its place and its
content. One that says neither may be replaced.
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

_LOOKED_AT: Final = 1 << 16
"""Bytes at either end of a file."""


def as_given(path: Path) -> Path:
    """The absolute path of an input under the name that was given: of a link, not its target."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` follows links


def input_ids(source: Path) -> tuple[str, str]:
    """Numbers for the place and for the content of an input; neither can be read back.

    An input is the same one if it lies where it lay, or holds what it held.
    """
    return _place_id(source), _content_id(source)


def _place_id(source: Path) -> str:
    return _digest(os.fsencode(as_given(source)))


def _content_id(source: Path) -> str:
    """Of a folder: its files' names and sizes. Of a file: its size, beginning and end."""
    if source.is_dir():
        files = sorted((os.fsencode(path.name), path.stat().st_size) for path in source.iterdir())
        return _digest(repr(files).encode())
    size = source.stat().st_size
    with open_input(source) as file:
        beginning = file.read(_LOOKED_AT)
        file.seek(max(0, size - _LOOKED_AT))
        return _digest(str(size).encode() + beginning + file.read(_LOOKED_AT))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def result_names(sources: Sequence[Path], output: Path, *, preview: bool = False) -> Iterator[str]:
    """A NAME for the `result_NAME` of each source in the folder `output`, no two alike.

    It is the source's name without its suffix, or if another source or another input's result has
    that, with it; and if that is taken too, with a number. A sheet of people does not say of
    which input it is: for a `preview`, the files beside the sources take part.
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
    """Whether a folder of results is not there, or one of this source."""
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
