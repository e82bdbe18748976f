"""Results of inference -> HumanData: pseudo-labels to train on."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final

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
from main.motion.rows import COLUMNS
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
    """Write the people of a folder of results as one HumanData file.

    Args:
        results: a folder of results of inference.
        min_score: people whose detection has a lower score are left out.
        images: the folder that image paths count from.
        source: what the results are of; None: it is looked for by its name.
        extract_frames: a folder in which the frames of a video are written as images.

    Raises:
        UserError: the results are not whole, or their source is not found or another one.
    """
    summary, rows = read_results(results, min_score)
    source = source or _find_source(results, images, summary.input or "")
    frames = np.unique(rows["frame_index"])
    if extract_frames is not None:
        # Of two inputs of one stem, the folders of results have different names.
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
    """What the results are of, if it can be found.

    Raises:
        UserError: the summary names a path, which is not followed: it may be a stranger's.
    """
    if not is_plain_name(name):
        reason = f"its summary names the input '{name}', which is a path and not followed"
        raise UserError(f"{results}: {reason}; say where it is with --input FILE")
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
        raise UserError(f"cannot find {summary.input}; say where it is with --input FILE")
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
        raise UserError(f"cannot find {name}; say where it is with --images DIR or --input FILE")
    if source.is_dir():
        files = list(_readable(source))
        if len(files) != summary.frames:
            was = f"the results are of {summary.frames}"
            raise UserError(f"{source} has {len(files)} images, {was}; give the folder as it was")
    elif is_image(source) and not is_animated(source):
        files = [source]
    else:
        raise UserError(
            f"{source} is a video: say --extract-frames DIR, and its frames are written there"
        )
    root = images or source.parent
    paths = {}
    for frame in frames.tolist():
        if frame >= len(files):
            raise UserError(f"{source} has no frame {frame}; is it what the results were made of?")
        file = files[frame]
        sizes = image_sizes(file)
        if sizes is None:
            raise UserError(f"{file} is no image, or damaged; get it again")
        if sizes.is_turned or sizes.reduction > 1:
            how = "turned by its EXIF data" if sizes.is_turned else "so large that it is reduced"
            raise UserError(
                f"{file} is {how}, which annotations do not follow: say --extract-frames DIR, and "
                "it is written as the results have it"
            )
        if not file.resolve().is_relative_to(root.resolve()):
            raise UserError(f"{file} is not in {root}; give the folder of images as --images")
        paths[frame] = file.resolve().relative_to(root.resolve()).as_posix()
    return paths


def _readable(folder: Path) -> Iterator[Path]:
    """Images that inference counted as frames."""
    return (file for file in list_images(folder) if image_size(file) is not None)
