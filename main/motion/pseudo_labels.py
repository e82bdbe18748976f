"""Conversion of results to HumanData files, as pseudo-labels for training."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Int

from datasets.humandata.file import Entries
from datasets.humandata.writer import (
    People,
    humandata_entries,
    scatter_network_joints,
    write_humandata,
)
from main.motion.result_reader import SUMMARY_NAME, Summary, is_plain_name, open_result
from main.motion.rows import BODY_PARAMETERS, COLUMNS
from utils.errors import UserError
from utils.files import DEMO
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

log = logging.getLogger(__name__)


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
    """The summary, and the columns of all people together in the order of frames.

    Raises:
        UserError: a file is missing or invalid, or no row has the score.
    """
    result = open_result(folder)
    summary = result.require_summary()
    lacking = [name for name in ("input", "frames", "fps") if getattr(summary, name) is None]
    if lacking:
        raise UserError(f"{folder / SUMMARY_NAME} lacks '{lacking[0]}'; run the inference again")
    present = {file.name for file in result.files.values()}
    absent = {person.file for person in summary.people if person.file} - present
    if absent:
        raise UserError(f"{folder / min(absent)} is missing; run the inference again")
    names, parts = ("score", "image_size", *COLUMNS), []
    for number, file in result.files.items():
        content = result.read_person(number, names)
        if content.get("flat_hand_mean", np.array(False)).any():
            raise UserError(f"{file} has flat_hand_mean=True; run the inference again")
        count = len(content["frame_index"])
        content["image_size"] = np.tile(content["image_size"], (count, 1))
        parts.append({name: content[name] for name in ("frame_index", *names)})
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    kept = np.flatnonzero(columns["score"] >= min_score)
    if not len(kept):
        raise UserError(f"{folder}: nobody has a score of {min_score}; lower --min-score")
    if len(kept) < len(columns["score"]):
        message = "%d of %d rows have a lower score and are left out"
        log.info(message, len(columns["score"]) - len(kept), len(columns["score"]))
    order = kept[np.argsort(columns["frame_index"][kept], kind="stable")]
    return summary, {key: column[order] for key, column in columns.items()}


def result_entries(rows: dict[str, np.ndarray], image_path: list[str]) -> Entries:
    """HumanData entries of rows of `read_results`, with the image path of each row."""
    joints_2d, known = scatter_network_joints(rows["joints_2d_px"])
    joints_3d, _ = scatter_network_joints(rows["joints_3d_m"])
    score = np.clip(rows["score"], 0, 1)
    return humandata_entries(
        People(
            image_path=image_path,
            image_size=rows["image_size"],
            parameters={name: rows[name] for name in BODY_PARAMETERS},
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
    """Names of the image files of frames, relative to `images`, else to the source's folder."""
    name = summary.input or ""
    if source is None:
        if frames.tolist() == [0] and Path(name).suffix.lower() in IMAGE_SUFFIXES:
            return {0: name}  # a photograph, wherever it is
        raise UserError(f"cannot find {name}; give its place with --images DIR or --input FILE")
    files = _frame_files(source, summary)
    if frames[-1] >= len(files):
        missing = frames[frames >= len(files)][0]
        raise UserError(f"{source} has no frame {missing}; is it what the results were made of?")
    root = images or source.parent
    return {frame: _image_name(files[frame], root) for frame in frames.tolist()}


def _frame_files(source: Path, summary: Summary) -> list[Path]:
    """The image files that inference counted as frames."""
    if source.is_dir():
        files = [file for file in list_images(source) if image_size(file) is not None]
        if len(files) != summary.frames:
            was = f"the results are of {summary.frames}"
            raise UserError(f"{source} has {len(files)} images, {was}; give the folder as it was")
        return files
    if is_image(source) and not is_animated(source):
        return [source]
    raise UserError(
        f"{source} is a video: give --extract-frames DIR, and its frames are written there"
    )


def _image_name(file: Path, root: Path) -> str:
    """The path of an image relative to `root`, if annotations are in the pixels of the file."""
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
    return file.resolve().relative_to(root.resolve()).as_posix()
