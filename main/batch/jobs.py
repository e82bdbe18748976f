"""Which clips there are, where the results of each go, and which are finished.

A clip is finished when its folder of results is there: that comes last, under its name at once.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from main.result_files import read_summary
from main.session import Found, preview_of
from utils.errors import UserError
from utils.files import read_input
from utils.video_read import VIDEO_SUFFIXES

_LARGEST_LIST: Final = 64 << 20
"""Bytes of a list of clips."""


class Job(NamedTuple):
    """One clip.

    Attributes:
        label: how reports call it: its path as listed, or from the folder on.
        source: absolute.
        output: folder for result_NAME and what comes beside it.
    """

    label: str
    source: Path
    output: Path
    name: str

    @property
    def result(self) -> Path:
        return self.output / f"result_{self.name}"


def list_jobs(clips: Path, output: Path) -> list[Job]:
    """The clips of a folder (all videos in it, at any depth) or of a list (a path a line).

    Paths in a list count from the list's folder. Results lie in `output` as clips lie in the
    folder, or as from the list's folder; those of clips outside it, as from the system's root.

    Raises:
        UserError: there is no clip.
    """
    clips, output = clips.resolve(), output.resolve()
    if clips.is_dir():
        if clips == output:
            raise UserError(f"--output {output}: choose another folder than that of the clips")
        sources = list(_videos_under(clips, output))
        start = clips
    else:
        sources = _listed(clips)
        start = clips.parent
    if not sources:
        raise UserError(f"{clips}: there is no video in it")
    by_folder: dict[Path, list[Path]] = {}
    for source in sources:
        by_folder.setdefault(source.parent, []).append(source)
    return [
        Job(
            str(source.relative_to(start)) if source.is_relative_to(start) else str(source),
            source,
            output / _below(folder, start),
            name,
        )
        for folder, mine in by_folder.items()
        for source, name in zip(mine, _names(mine), strict=True)
    ]


def _videos_under(folder: Path, left_out: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and Path(place, name) != left_out
        )
        for name in sorted(files):
            if name[0] != "." and name.lower().endswith(VIDEO_SUFFIXES):
                yield Path(place, name)


def _listed(file: Path) -> list[Path]:
    lines = read_input(file, _LARGEST_LIST).splitlines()
    names = [os.fsdecode(line.strip()) for line in lines]
    if any("\0" in name for name in names):
        raise UserError(f"--input {file}: this is no list of paths, a line each")
    return list(dict.fromkeys(Path(os.path.normpath(file.parent / n)) for n in names if n))


def _below(folder: Path, start: Path) -> Path:
    """Where results of clips in `folder` lie below the folder for all results."""
    return folder.relative_to(start if folder.is_relative_to(start) else folder.anchor)


def _names(sources: Sequence[Path]) -> Iterator[str]:
    """Names for results of the clips of one folder, no two alike."""
    stems = [source.name if source.is_dir() else source.stem for source in sources]
    count = Counter(stems)
    taken: set[str] = set()
    for source, stem in zip(sources, stems, strict=True):
        name = stem if count[stem] == 1 else source.name.replace(".", "_")
        while name in taken:
            name += "_"
        taken.add(name)
        yield name


def found_before(job: Job) -> Found:
    """What an earlier run found in a clip that is finished, as far as its summary tells."""
    try:
        summary = read_summary(job.result)
    except UserError:
        return Found(None, None)
    return Found(summary.frames, len(summary.people))


def remove_leftovers(jobs: Iterable[Job]) -> None:
    """Delete what killed runs left under temporary names of these clips; none may be under way."""
    ours: dict[Path, set[str]] = {}
    for job in jobs:
        result = job.result
        files = {result.name, f"{result.name}.mp4", preview_of(result).name}
        ours.setdefault(job.output, set()).update(files)
    for folder, files in ours.items():
        for partial in folder.glob(".partial_*"):
            inside = {path.name for path in partial.iterdir()}
            if inside and inside <= files:
                shutil.rmtree(partial, ignore_errors=True)
