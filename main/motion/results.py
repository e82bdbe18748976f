"""Writing of results: one .npz per person and a summary, whose formats `result_reader` defines.

Results can be converted to HumanData files, as pseudo-labels for training.

A result folder is named after its input and never replaces the result of another input. For this,
the summary contains the input's name and hashes of its path and its content; a result without
them may be replaced.
"""

import hashlib
import json
import logging
import os
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Int

from datasets.humandata.file import Entries
from datasets.humandata.writer import (
    People,
    humandata_entries,
    scatter_network_joints,
    write_humandata,
)
from main.motion.camera import Clip
from main.motion.result_reader import (
    SUMMARY_NAME,
    Summary,
    is_plain_name,
    open_result,
    read_summary,
)
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
from main.motion.world import World
from utils.errors import UserError
from utils.files import DEMO, open_input
from utils.image import (
    IMAGE_SUFFIXES,
    image_size,
    image_sizes,
    is_animated,
    is_image,
    list_images,
    write_image,
)
from utils.iteration import with_progress
from utils.source import open_source
from utils.video_read import VIDEO_SUFFIXES

FILE_COLUMNS: Final = ("frame_index", "score", *COLUMNS, *RAW_COLUMNS, *FLAGS)
"""Columns of every file, with one row per frame."""
_HASHED_BYTES: Final = 1 << 16
"""Number of bytes at the beginning and end of an input from which the hash is computed."""


def choose_people(
    rows: FinalRows, person: Sequence[int] | Literal["largest"] | None, keep_longest: int | None
) -> Collection[int]:
    """The numbers of the requested people.

    Args:
        person: numbers; "largest": the person whose boxes have the largest total area; None: all.
        keep_longest: number of people to keep, those with the most frames; None: all.

    Raises:
        UserError: there is no person with a requested number.
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
            raise UserError(f"--person {absent[0]}: nobody has this number; there are {there}")
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
    world: tuple[World, WorldRows] | None = None,
    with_keypoints: bool = False,
) -> None:
    """Write person_001.npz, ... and summary.json.

    Args:
        about: entries of the summary besides the people; `body_model` goes into every file.
        chosen: people to write.
        world: description for the summary, and rows for the files.
        with_keypoints: whether keypoints were searched for and are written.
    """
    constants: dict[str, np.ndarray] = {
        "fps": np.array(clip.fps, np.float64),
        "image_size": np.array(clip.image_size, np.int32),
        "body_model": np.array(about["body_model"]),
        "flat_hand_mean": np.array(False),
    }
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
    """Write one array in blocks, so that memory does not grow with the length of a video."""
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


log = logging.getLogger(__name__)

_PARAMETERS: Final = (
    *("global_orient", "body_pose", "left_hand_pose", "right_hand_pose"),
    *("jaw_pose", "betas", "expression", "transl"),
)


def from_results(
    results: Path,
    output: Path,
    *,
    min_score: float,
    images: Path | None,
    source: Path | None,
    extract_frames: Path | None,
) -> None:
    """Write the people of a result folder as one HumanData file.

    Args:
        results: a result folder of inference.
        min_score: least score; people with lower scores are left out.
        images: the folder to which image paths are relative.
        source: input of the results; None: it is searched by its name.
        extract_frames: folder into which the frames of a video are written as images.

    Raises:
        UserError: the results are incomplete, or their source is missing or a different one.
    """
    summary, rows = read_results(results, min_score)
    source = source or _find_source(results, images, summary.input or "")
    frames = np.unique(rows["frame_index"])
    if extract_frames is not None:
        # Result folders of inputs with the same stem have different names.
        subfolder = results.name.removeprefix("result_")
        if subfolder == results.name and source is not None:
            subfolder = source.stem
        paths = _extract(source, summary, frames, extract_frames, subfolder)
    else:
        paths = _image_paths(source, summary, frames, images)
    entries = result_entries(rows, [paths[frame] for frame in rows["frame_index"].tolist()])
    write_humandata(output, entries)
    log.info("%s: %d rows, %d images", output, len(entries["image_path"]), len(paths))


def read_results(folder: Path, min_score: float) -> tuple[Summary, dict[str, np.ndarray]]:
    """The summary, and the columns of all people together, frame after frame.

    Raises:
        UserError: a file is missing or not as inference writes it, or no row has the score.
    """
    result = open_result(folder)
    summary = result.require_summary()
    lacking = [name for name in ("input", "frames", "fps") if getattr(summary, name) is None]
    if lacking:
        raise UserError(f"{folder / SUMMARY_NAME} lacks '{lacking[0]}'; run the inference again")
    absent = {one.file for one in summary.people if one.file} - {
        file.name for file in result.files.values()
    }
    if absent:
        raise UserError(f"{folder / min(absent)} is missing; run the inference again")
    parts = []
    for number, file in result.files.items():
        content = result.read_person(number, ("score", "image_size", *COLUMNS))
        if content.get("flat_hand_mean", np.array(False)).any():
            raise UserError(f"{file} has flat_hand_mean=True; run the inference again")
        count = len(content["frame_index"])
        content["image_size"] = np.tile(content["image_size"], (count, 1))
        parts.append(
            {key: content[key] for key in ("frame_index", "score", "image_size", *COLUMNS)}
        )
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    if not (columns["score"] >= min_score).any():
        raise UserError(f"{folder}: nobody has a score of {min_score}; lower --min-score")
    kept = np.flatnonzero(columns["score"] >= min_score)
    if len(kept) < len(columns["score"]):
        message = "%d of %d rows have a lower score and are left out"
        log.info(message, len(columns["score"]) - len(kept), len(columns["score"]))
    order = kept[np.argsort(columns["frame_index"][kept], kind="stable")]
    return summary, {key: column[order] for key, column in columns.items()}


def result_entries(rows: dict[str, np.ndarray], image_path: list[str]) -> Entries:
    """HumanData entries of people as `main.motion.results` has them."""
    joints_2d, known = scatter_network_joints(rows["joints_2d_px"])
    joints_3d, _ = scatter_network_joints(rows["joints_3d_m"])
    score = np.clip(rows["score"], 0, 1)
    return humandata_entries(
        People(
            image_path=image_path,
            image_size=rows["image_size"],
            parameters={name: rows[name] for name in _PARAMETERS},
            joints_2d=joints_2d,
            joints_3d=joints_3d,
            joints_known=known,
            focal=rows["focal"],
            princpt=rows["princpt"],
            boxes=np.concatenate([rows["box_xywh"], score[:, None]], axis=1),
        )
    )


def _find_source(results: Path, images: Path | None, name: str) -> Path | None:
    """The input of the results, if it can be found.

    Raises:
        UserError: the summary contains a path, which is not followed for security.
    """
    if not is_plain_name(name):
        reason = f"its summary names the input '{name}', which is a path and not followed"
        raise UserError(f"{results}: {reason}; give its place with --input FILE")
    places = [] if images is None else [images / name, *([images] if images.name == name else [])]
    places += [Path(name), DEMO / name]
    return next((place for place in places if place.exists()), None)


def _extract(
    source: Path | None,
    summary: Summary,
    frames: Int[np.ndarray, " F"],
    folder: Path,
    subfolder: str,
) -> dict[int, str]:
    """Write the frames as JPEG into `subfolder` of `folder`, and give their names by number."""
    if source is None:
        raise UserError(f"cannot find {summary.input}; give its place with --input FILE")
    wanted, paths = set(frames.tolist()), {}
    with open_source(source, summary.fps) as opened:
        for frame in with_progress(opened, opened.info.frame_count_estimate, "frames"):
            if frame.index in wanted:
                name = f"{subfolder}/{frame.index:06d}.jpg"
                write_image(folder / name, frame.image)
                paths[frame.index] = name
            if len(paths) == len(wanted):
                break
    if len(paths) < len(wanted):
        missing = min(wanted - paths.keys())
        raise UserError(f"{source} has no frame {missing}; is it what the results were made of?")
    return paths


def _image_paths(
    source: Path | None,
    summary: Summary,
    frames: Int[np.ndarray, " F"],
    images: Path | None,
) -> dict[int, str]:
    """Names of the image files that the frames are."""
    name, single = summary.input or "", frames.tolist() == [0]
    if source is None and single and Path(name).suffix.lower() in IMAGE_SUFFIXES:
        return {0: name}  # a photograph, wherever it is
    if source is None:
        raise UserError(f"cannot find {name}; give its place with --images DIR or --input FILE")
    if source.is_dir():
        files = list(_readable(source))
        if len(files) != summary.frames:
            was = f"the results are of {summary.frames}"
            raise UserError(f"{source} has {len(files)} images, {was}; give the folder as it was")
    elif is_image(source) and not is_animated(source):
        files = [source]
    else:
        raise UserError(
            f"{source} is a video: give --extract-frames DIR, and its frames are written there"
        )
    root = images or source.parent
    paths = {}
    for frame in frames.tolist():
        if frame >= len(files):
            raise UserError(f"{source} has no frame {frame}; is it what the results were made of?")
        file = files[frame]
        sizes = image_sizes(file)
        if sizes is None:
            raise UserError(f"{file} is damaged or not an image; get it again")
        if sizes.is_turned or sizes.reduction > 1:
            how = "turned by its EXIF data" if sizes.is_turned else "so large that it is reduced"
            raise UserError(
                f"{file} is {how}, which annotations do not follow: give --extract-frames DIR, and "
                "it is written as the results have it"
            )
        if not file.resolve().is_relative_to(root.resolve()):
            raise UserError(f"{file} is not in {root}; give the folder of images as --images")
        paths[frame] = file.resolve().relative_to(root.resolve()).as_posix()
    return paths


def _readable(folder: Path) -> Iterator[Path]:
    """Images that inference counted as frames."""
    return (file for file in list_images(folder) if image_size(file) is not None)
