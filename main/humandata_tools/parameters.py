"""Plain files of SMPL-X parameters, one an image -> HumanData.

A .json file holds one person or a list of them, each a dictionary of numbers; an .npz has arrays of
one person, or of several with a row each. Names, and how many numbers a person has:

    global_orient 3, body_pose 63, betas 10, transl 3, focal 1 or 2, princpt 2: always
    left_hand_pose 45, right_hand_pose 45, jaw_pose 3, expression 10, bbox_xywh 4: where known
    flat_hand_mean (false), image (relative to the images; else the image of the file's name)
"""

import argparse
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from datasets.humandata.check_images import image_sizes
from datasets.humandata.finding import as_numbers
from datasets.humandata.hands import from_mean_hand
from datasets.humandata.layout import JOINTS
from datasets.humandata.people import People, humandata_entries
from datasets.humandata.writer import write_humandata
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from human_models.joints import MODEL_JOINTS
from human_models.safe_pickle import load_npz
from main.humandata_tools.bodies import joints_of_smplx
from utils.camera import DEPTH_EPSILON
from utils.errors import UserError
from utils.files import is_below, read_json
from utils.image import list_images

log = logging.getLogger(__name__)

_REQUIRED: Final = {"global_orient": 3, "body_pose": 63, "betas": 10, "transl": 3, "princpt": 2}
_HANDS: Final = {"left_hand_pose": 45, "right_hand_pose": 45}
_FACE: Final = {"jaw_pose": 3, "expression": 10}
_NUMBERS: Final = _REQUIRED | _HANDS | _FACE | {"bbox_xywh": 4, "focal": 2}
_KNOWN: Final = {*_NUMBERS, "flat_hand_mean", "image"}


class ParameterRow(NamedTuple):
    """One person of one file."""

    file: Path
    image: Path
    numbers: dict[str, np.ndarray]
    """By the names above, flat; those that the person has."""
    flat_hands: bool


def from_parameters(arguments: argparse.Namespace) -> None:
    files = list(_files(arguments.parameters))
    stems = _images_by_stem(arguments.images)
    rows = [row for file in files for row in read_parameters(file, arguments.images, stems)]
    _check_faces(rows)
    bodies = BodyLibrary(find_model_folder(arguments.body_folder))
    entries = humandata_entries(_people(rows, arguments.images, bodies))
    write_humandata(arguments.output, entries)
    log.info("%s: %d rows of %d files", arguments.output, len(entries["image_path"]), len(files))


def _files(places: Sequence[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            found = sorted(p for p in place.iterdir() if p.suffix.lower() in (".json", ".npz"))
            if not found:
                raise UserError(f"{place} has no .json or .npz file; give files of parameters")
            yield from found
        else:
            yield place


def _images_by_stem(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder of images as --images")
    stems: dict[str, list[Path]] = {}
    for image in list_images(folder):
        stems.setdefault(image.stem, []).append(image)
    return stems


def read_parameters(
    file: Path, images: Path, stems: Mapping[str, Sequence[Path]]
) -> Iterator[ParameterRow]:
    """People of one file.

    Args:
        images: folder from which the files' "image" counts.
        stems: its images by their names without endings.

    Raises:
        UserError: the file cannot be read, lacks something, or has no image.
    """
    for number, person in enumerate(_persons(file)):
        where = f"{file}, person {number}"
        unknown = sorted(person.keys() - _KNOWN)
        if unknown and number == 0:
            log.warning("%s: '%s' is not known and ignored", file, "', '".join(unknown))
        numbers = {}
        for name, size in _NUMBERS.items():
            if person.get(name) is not None:
                numbers[name] = _numbers(where, name, person[name], size)
            elif name in (*_REQUIRED, "focal"):
                raise UserError(f"{where}: '{name}' is missing; it takes {size} numbers")
        image = (
            _named_image(where, images, str(person["image"]))
            if person.get("image")
            else (_image_of_stem(file, images, stems))
        )
        flat = bool(np.any(person.get("flat_hand_mean", False)))
        yield ParameterRow(file, image, numbers, flat)


def _persons(file: Path) -> Iterator[Mapping[str, Any]]:
    if file.suffix.lower() == ".npz":
        yield from _persons_of_arrays(file, load_npz(file))
        return
    content = read_json(file, "file of parameters")
    people = content if isinstance(content, list) else [content]
    if not people or not all(isinstance(person, dict) for person in people):
        raise UserError(f"{file}: expected a dictionary of parameters, or a list of them")
    yield from people


def _persons_of_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> Iterator[Mapping[str, Any]]:
    orient = arrays.get("global_orient")
    if orient is None or orient.ndim == 0:
        raise UserError(f"{file}: 'global_orient' is missing; it takes 3 numbers a person")
    count = max(1, orient.size // 3)
    several = orient.ndim > 1
    for i in range(count):
        person = {}
        for name, array in arrays.items():
            of_rows = several and array.ndim > 0 and name != "image"
            if (
                of_rows
                and len(array) != count
                and not (name in ("focal", "princpt") and array.ndim == 1)
            ):
                raise UserError(f"{file}: '{name}' has {len(array)} rows, global_orient {count}")
            shared = not of_rows or (name in ("focal", "princpt") and array.ndim == 1)
            person[name] = array if shared else array[i]
        yield person


def _numbers(where: str, name: str, value: Any, size: int) -> np.ndarray:
    array = as_numbers(value)
    if array is not None and name == "focal" and array.size == 1:
        array = np.repeat(array.ravel(), 2)
    if array is not None and name in ("betas", "expression") and array.size > size:
        array = array.ravel()[:size]
    if array is None or array.size != size:
        found = "is no numbers" if array is None else f"has {array.size} numbers"
        raise UserError(f"{where}: '{name}' {found}, expected {size}")
    if not np.isfinite(array).all():
        raise UserError(f"{where}: '{name}' is not finite; mend it or leave the person out")
    return array.ravel()


def _named_image(where: str, images: Path, name: str) -> Path:
    if not is_below(name):
        raise UserError(f"{where}: 'image' is '{name}', give a path within {images}")
    return images / name


def _image_of_stem(file: Path, images: Path, stems: Mapping[str, Sequence[Path]]) -> Path:
    found = stems.get(file.stem, ())
    if len(found) != 1:
        many = "no image" if not found else f"{len(found)} images"
        raise UserError(f'{file}: {images} has {many} of its name; say which with "image"')
    return found[0]


def _check_faces(rows: Sequence[ParameterRow]) -> None:
    """The format knows jaw and expression of all rows or of none."""
    having = [row for row in rows if set(_FACE) <= row.numbers.keys()]
    without = [row for row in rows if not set(_FACE) <= row.numbers.keys()]
    if having and without:
        raise UserError(
            f"{without[0].file} lacks jaw_pose or expression, which {having[0].file} has: a file "
            "of HumanData has faces for all or for none; convert them apart"
        )


def _people(rows: Sequence[ParameterRow], images: Path, bodies: BodyLibrary) -> People:
    count = len(rows)
    sizes = np.array([_size(row) for row in rows])
    given = {name for row in rows for name in row.numbers}
    if not set(_FACE) <= given:
        given -= set(_FACE)
    parameters = {
        name: np.stack([row.numbers.get(name, np.zeros(_NUMBERS[name])) for row in rows]).astype(
            np.float32
        )
        for name in ("global_orient", "body_pose", *_HANDS, *_FACE, "betas", "transl")
        if name in given
    }
    flat = np.array([row.flat_hands for row in rows])
    known = {name: np.array([name in row.numbers for row in rows]) for name in _HANDS}
    parameters = from_mean_hand(parameters, flat)
    for name in _HANDS:
        if name in parameters:
            parameters[name] = parameters[name].reshape(count, -1) * known[name][:, None]
    focal, princpt = (
        np.stack([row.numbers[name] for row in rows]) for name in ("focal", "princpt")
    )
    joints = np.zeros((count, JOINTS, 3), np.float32)
    joints[:, : len(MODEL_JOINTS)] = joints_of_smplx(bodies, parameters)
    pixels = joints[..., :2] / (joints[..., 2:] + DEPTH_EPSILON) * focal[:, None] + princpt[:, None]
    boxes = np.full((count, 5), np.nan)
    for i, row in enumerate(rows):
        if "bbox_xywh" in row.numbers:
            boxes[i] = [*row.numbers["bbox_xywh"], 1]
    return People(
        image_path=[row.image.relative_to(images).as_posix() for row in rows],
        image_size=sizes,
        parameters=parameters,
        joints_2d=pixels,
        joints_3d=joints,
        joints_known=np.arange(JOINTS) < len(MODEL_JOINTS),
        focal=focal,
        princpt=princpt,
        boxes=boxes,
    )


def _size(row: ParameterRow) -> tuple[int, int]:
    sizes = image_sizes(row.image)
    if sizes is None:
        raise UserError(f"{row.file}: its image {row.image} is missing or no image")
    if sizes.upright != sizes.stored:
        told = "%s is turned by its EXIF data: boxes and camera are to count its stored pixels"
        log.warning(told, row.image)
    return sizes.stored
