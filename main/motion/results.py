"""Result files: one .npz per person and a summary; `result_reader` says what stands in them.

They have the names of the inputs as they were given, and no result replaces another's: a result
folder says of which input it is, by the input's name, and by numbers for its place and its content.
One that says neither may be replaced.
"""

import hashlib
import json
import os
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Int

from main.motion.camera import Clip
from main.motion.result_reader import read_summary
from main.motion.rows import (
    BLOCK,
    COLUMNS,
    FLAGS,
    KEYPOINT_COLUMNS,
    RAW_COLUMNS,
    WORLD_COLUMNS,
    FinalRows,
    WorldRows,
)
from main.motion.standing import Floor, world_from_camera
from main.motion.world import World
from utils.errors import UserError
from utils.files import open_input
from utils.image import IMAGE_SUFFIXES
from utils.video_read import VIDEO_SUFFIXES

FILE_COLUMNS: Final = ("frame_index", "score", *COLUMNS, *RAW_COLUMNS, *FLAGS)
"""What every file has a row of for each frame."""
_LOOKED_AT: Final = 1 << 16
"""Bytes at either end of an input, of which a number for its content is made."""


def choose_people(
    rows: FinalRows, person: Sequence[int] | Literal["largest"] | None, keep_longest: int | None
) -> Collection[int]:
    """The people that are asked for.

    Args:
        person: their numbers; "largest": whoever's boxes cover the most in all frames together;
            None: everyone.
        keep_longest: of those, how many with the most frames; None: all.

    Raises:
        UserError: nobody has a number that is asked for.
    """
    people = rows.by_identity()
    if person == "largest":
        sides = rows.column("box_xywh", slice(2, 4))
        area = {
            one: float(np.prod(sides[mine], axis=1, dtype=np.float64).sum())
            for one, mine in people.items()
        }
        people = {(one := max(area, key=lambda key: area[key])): people[one]}
    elif person is not None:
        absent = sorted(set(person) - people.keys())
        if absent:
            there = ", ".join(map(str, list(people)[:20]))
            raise UserError(f"--person {absent[0]}: nobody found by that number; there are {there}")
        people = {one: people[one] for one in person}
    longest = sorted(people, key=lambda one: (-len(people[one]), one))
    return set(longest[:keep_longest])


def write_results(
    folder: Path,
    rows: FinalRows,
    clip: Clip,
    about: Mapping[str, Any],
    *,
    chosen: Collection[int],
    floor: Floor | None = None,
    world: tuple[World, WorldRows] | None = None,
    with_keypoints: bool = False,
) -> None:
    """Write person_001.npz, ... and summary.json.

    Args:
        about: what the summary says beside the people; `body_model` goes into every file.
        chosen: people to write.
        floor: goes into the summary, and with the contacts of the feet into every file.
        world: the same, with everybody's motion in it; then there is no `floor`.
        with_keypoints: keypoints were looked for; they go into every file.
    """
    constants: dict[str, np.ndarray] = {
        "fps": np.array(clip.fps, np.float64),
        "image_size": np.array(clip.image_size, np.int32),
        "body_model": np.array(about["body_model"]),
        "flat_hand_mean": np.array(False),
    }
    if floor is not None:
        transform = world_from_camera(floor.plane)
        constants["world_from_camera"] = transform
        about = {**about, "floor": {"world_from_camera": transform.tolist()}}
    if world is not None:
        about = {**about, "world": world[0].describe()}
    people = []
    for identity, mine in rows.by_identity().items():
        if identity not in chosen:
            continue
        name = f"person_{identity:03d}.npz"
        with zipfile.ZipFile(folder / name, "w") as archive:
            for column in (*FILE_COLUMNS, *(KEYPOINT_COLUMNS if with_keypoints else ())):
                _write_column(archive, column, rows, mine)
            if floor is not None:
                _write_array(archive, "foot_contact", floor.contacts[mine])
            if world is not None:
                for column in (*WORLD_COLUMNS, "foot_contact"):
                    _write_column(archive, column, world[1], mine)
            for entry, value in constants.items():
                _write_array(archive, entry, value)
        people.append(_about_person(identity, name, rows, mine))
    summary = {**about, "fps": clip.fps, "image_size": list(clip.image_size), "people": people}
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    (folder / "summary.json").write_text(text, encoding="utf-8")


def _write_column(
    archive: zipfile.ZipFile,
    column: str,
    rows: FinalRows | WorldRows,
    mine: Int[np.ndarray, " T"],
) -> None:
    """One array, block after block: a person of a long video is never in memory as a whole."""
    kind = rows.row_type[column]
    header = {
        "descr": np.lib.format.dtype_to_descr(kind.base),
        "fortran_order": False,
        "shape": (len(mine), *kind.shape),
    }
    with archive.open(f"{column}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(mine), BLOCK):
            file.write(rows.take(mine[start : start + BLOCK], column).tobytes())


def _write_array(archive: zipfile.ZipFile, name: str, values: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w") as file:
        np.lib.format.write_array(file, values, allow_pickle=False)


def _about_person(
    identity: int, name: str, rows: FinalRows, mine: Int[np.ndarray, " T"]
) -> dict[str, Any]:
    frames, estimated = rows.take(mine, "frame_index"), ~rows.take(mine, "interpolated")
    return {
        "person": identity,
        "file": name,
        "rows": len(mine),
        "interpolated": int((~estimated).sum()),
        "first_frame": int(frames[0]),
        "last_frame": int(frames[-1]),
        "mean_score": round(float(rows.take(mine, "score")[estimated].mean()), 4),
    }


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
