"""Converts files of SMPL-X parameters, one per image, to HumanData.

A .json file contains one person or a list of people, each a dictionary of numbers; an .npz has
arrays of one person, or of several with one row each. Names, and numbers per person:

    global_orient 3, body_pose 63, betas 10, transl 3, focal 1 or 2, princpt 2: always
    left_hand_pose 45, right_hand_pose 45, jaw_pose 3, expression 10, bbox_xywh 4: if known
    flat_hand_mean (default: false), image (relative to the images; default: that of the same name)
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32

from datasets.humandata.file import JOINTS, Entries, as_numbers, expanded, subtract_mean_hand
from datasets.humandata.writer import People, humandata_entries
from human_models.body import BodyLibrary, BodyModel, BodyOutput
from human_models.files import find_model_folder
from human_models.joints import MODEL_JOINTS
from human_models.safe_pickle import load_npz
from utils.camera import project
from utils.errors import UserError
from utils.files import is_below, read_json
from utils.image import image_sizes, list_images

log = logging.getLogger(__name__)

_HANDS: Final = {"left_hand_pose": 45, "right_hand_pose": 45}
_FACE: Final = {"jaw_pose": 3, "expression": 10}
_SMPLX: Final = {"global_orient": 3, "body_pose": 63, **_HANDS, **_FACE, "betas": 10, "transl": 3}
"""Parameters of SMPL-X by the names of the format, and their numbers per person."""
_NUMBERS: Final = _SMPLX | {"princpt": 2, "focal": 2, "bbox_xywh": 4}
_OPTIONAL: Final = {*_HANDS, *_FACE, "bbox_xywh"}
_KNOWN: Final = {*_NUMBERS, "flat_hand_mean", "image"}
_BATCH: Final = 64


class ParameterRow(NamedTuple):
    """One person of one file."""

    file: Path
    image: Path
    numbers: dict[str, np.ndarray]
    """The known values, flat, by the names above."""
    flat_hands: bool


def entries_of_parameters(
    paths: Sequence[Path], images: Path, body_folder: Path
) -> tuple[Entries, int]:
    """Entries for `write_humandata`, and the number of files that they come from.

    Args:
        paths: files of parameters, and folders of such files.
        images: folder of the images.
        body_folder: folder of the SMPL-X files.

    Raises:
        UserError: a file or its image is missing or damaged, or nobody is inside an image.
    """
    files = list(_files(paths))
    stems = _images_by_stem(images)
    rows = [row for file in files for row in read_parameters(file, images, stems)]
    _check_faces(rows)
    bodies = BodyLibrary(find_model_folder(body_folder))
    return humandata_entries(_people(rows, images, bodies)), len(files)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in (".json", ".npz"))
            if not found:
                raise UserError(f"{path} has no .json or .npz file; give files of parameters")
            yield from found
        else:
            yield path


def _images_by_stem(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder of images as --images")
    stems: dict[str, list[Path]] = {}
    for image in list_images(folder):
        stems.setdefault(image.stem, []).append(image)
    return stems


def read_parameters(
    file: Path, images: Path, stems: Mapping[str, Sequence[Path]]
) -> Iterator[ParameterRow]:
    """Read the people of one file.

    Args:
        images: folder of the images.
        stems: the images by their names without suffixes.

    Raises:
        UserError: the file cannot be read, is incomplete, or has no image.
    """
    for number, person in enumerate(_persons(file)):
        where = f"{file}, person {number}"
        unknown = sorted(person.keys() - _KNOWN)
        if unknown and number == 0:
            log.warning("%s: '%s' is unknown and ignored", file, "', '".join(unknown))
        numbers = {}
        for name, size in _NUMBERS.items():
            if person.get(name) is not None:
                numbers[name] = _numbers(where, name, person[name], size)
            elif name not in _OPTIONAL:
                raise UserError(f"{where}: '{name}' is missing; give {size} numbers")
        if person.get("image"):
            image = _named_image(where, images, str(person["image"]))
        else:
            image = _image_of_stem(file, images, stems)
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
        raise UserError(f"{file}: 'global_orient' is missing; give 3 numbers per person")
    count = max(1, orient.size // 3)
    for i in range(count):
        person = {}
        for name, array in arrays.items():
            is_camera_of_all = name in ("focal", "princpt") and array.ndim == 1
            if orient.ndim == 1 or array.ndim == 0 or name == "image" or is_camera_of_all:
                person[name] = array
            elif len(array) == count:
                person[name] = array[i]
            else:
                raise UserError(f"{file}: '{name}' has {len(array)} rows, global_orient {count}")
        yield person


def _numbers(where: str, name: str, value: Any, size: int) -> np.ndarray:
    numbers = as_numbers(value)
    if numbers is None:
        raise UserError(f"{where}: '{name}' is not made of numbers, expected {size}")
    array = numbers.ravel()
    if name == "focal" and array.size == 1:
        array = np.repeat(array, 2)
    if name in ("betas", "expression"):
        array = array[:size]
    if array.size != size:
        raise UserError(f"{where}: '{name}' has {array.size} numbers, expected {size}")
    if not np.isfinite(array).all():
        raise UserError(f"{where}: '{name}' is not finite; correct it or leave the person out")
    return array


def _named_image(where: str, images: Path, name: str) -> Path:
    if not is_below(name):
        raise UserError(f"{where}: 'image' is '{name}'; give a path within {images}")
    return images / name


def _image_of_stem(file: Path, images: Path, stems: Mapping[str, Sequence[Path]]) -> Path:
    found = stems.get(file.stem, ())
    if len(found) != 1:
        many = "no image" if not found else f"{len(found)} images"
        raise UserError(f'{file}: {images} has {many} of its name; give the name as "image" in it')
    return found[0]


def _check_faces(rows: Sequence[ParameterRow]) -> None:
    """The format can have jaw and expression only for all rows or for none."""
    having = [row for row in rows if set(_FACE) <= row.numbers.keys()]
    without = [row for row in rows if not set(_FACE) <= row.numbers.keys()]
    if having and without:
        raise UserError(
            f"{without[0].file} lacks jaw_pose or expression, but {having[0].file} has them; in a "
            "HumanData file, all people have faces or none; convert them separately"
        )


def _people(rows: Sequence[ParameterRow], images: Path, bodies: BodyLibrary) -> People:
    names = {name for row in rows for name in row.numbers}
    if not set(_FACE) <= names:
        names -= set(_FACE)

    def column(name: str, absent: float = 0) -> Float32[np.ndarray, "N K"]:
        unknown = np.full(_NUMBERS[name], absent)
        return np.stack([row.numbers.get(name, unknown) for row in rows]).astype(np.float32)

    parameters = subtract_mean_hand(
        {name: column(name) for name in _SMPLX if name in names},
        np.array([row.flat_hands for row in rows]),
    )
    for name in names & set(_HANDS):  # the mean hand was also subtracted from unknown hands
        parameters[name][[name not in row.numbers for row in rows]] = 0
    focal, princpt = column("focal"), column("princpt")
    joints = expanded(joints_of_smplx(bodies, parameters), np.arange(len(MODEL_JOINTS)), JOINTS)
    boxes = column("bbox_xywh", absent=np.nan)
    return People(
        image_path=[row.image.relative_to(images).as_posix() for row in rows],
        image_size=np.array([_size(row) for row in rows]),
        parameters=parameters,
        joints_2d=project(joints, focal[:, None], princpt[:, None]),
        joints_3d=joints,
        joints_known=np.arange(JOINTS) < len(MODEL_JOINTS),
        focal=focal,
        princpt=princpt,
        boxes=np.pad(boxes, [(0, 0), (0, 1)], constant_values=1),
    )


def _size(row: ParameterRow) -> tuple[int, int]:
    sizes = image_sizes(row.image)
    if sizes is None:
        raise UserError(f"{row.file}: its image {row.image} is missing or not an image")
    if sizes.is_turned:
        log.warning(
            "%s is turned by its EXIF data; boxes and camera must be in pixels of the stored image",
            row.image,
        )
    return sizes.stored


def joints_of_smplx(
    bodies: BodyLibrary, parameters: Mapping[str, np.ndarray]
) -> Float32[np.ndarray, "N 144 3"]:
    """Joints of the neutral body in metres (MODEL_JOINTS, the first 144 of HumanData)."""
    body, count = bodies.smplx(), len(parameters["global_orient"])
    batches = [slice(start, start + _BATCH) for start in range(0, count, _BATCH)]
    posed = [pose_smplx(body, parameters, rows, want_vertices=False) for rows in batches]
    return np.concatenate([output.joints.numpy(force=True) for output in posed])


def pose_smplx(
    body: BodyModel,
    parameters: Mapping[str, np.ndarray],
    rows: slice,
    *,
    want_vertices: bool = True,
) -> BodyOutput:
    """The posed bodies of rows, in metres in the camera's frame.

    Parameters are columns by the names of the format; unknown columns are ignored, and missing ones
    are zero.
    """
    count = len(parameters["global_orient"][rows])
    inputs = {
        name: torch.from_numpy(
            np.ascontiguousarray(parameters[name][rows], np.float32).reshape(count, size)
            if name in parameters
            else np.zeros((count, size), np.float32)
        )
        for name, size in _SMPLX.items()
    }
    with torch.inference_mode():
        return body(**inputs, want_vertices=want_vertices)
