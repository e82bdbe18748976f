"""Reading and validation of the result folders that `main.motion.results` writes.

The contents of a result folder are not trusted: every value is checked against the schema below
before memory is allocated for it, only plain arrays are read, and no file outside the folder is
opened because of its contents.
"""

import json
import math
import re
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any, BinaryIO, Final, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from main.motion.rows import (
    COLUMNS,
    FLAGS,
    KEYPOINT_COLUMNS,
    PARAMETERS,
    RAW_COLUMNS,
    ROTATIONS,
    WORLD_COLUMNS,
)
from utils.errors import UserError, first_line
from utils.files import DEMO, open_input

SUMMARY_NAME: Final = "summary.json"
_MAX_SUMMARY_BYTES: Final = 16_000_000
_MAX_EXPANSION: Final = 100
"""Largest ratio of the arrays' size to that of their file; inference does not compress."""
_MAX_NAME_BYTES: Final = 4 * 256
_AGAIN: Final = "run the inference again"
MAX_FRAMES: Final = 10_000_000
"""Largest number of frames of a clip: 92 hours at 30 frames per second."""
_MAX_SIDE_PX: Final = 1 << 20
"""The largest width or height of an image that OpenCV opens."""
_METRES: Final = 1e12
_PIXELS: Final = 1e15
"""Bounds beyond all valid values, but small enough for computation in float32."""
PERSON_FILE: Final = re.compile(r"person_([0-9]{1,9})\.npz")
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _printable(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("has control characters")
    return text


_Text = Annotated[str, Field(max_length=4096), AfterValidator(_printable)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Focal = Annotated[float, Field(ge=1e-6, le=_PIXELS)]
_Frames = Annotated[int, Field(ge=0, le=MAX_FRAMES)]
_Pair = Annotated[list[_Finite], Field(min_length=2, max_length=2)]


class _Checked(BaseModel):
    """Unknown keys, which later versions may write, are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class CameraSummary(_Checked):
    """Focal length and principal point in pixels."""

    focal: Annotated[list[_Focal], Field(min_length=2, max_length=2)] | None = None
    princpt: _Pair | None = None
    origin: _Text | None = None


class WorldSummary(_Checked):
    """Motion of the camera in the world, and heights of further ground levels above the floor."""

    camera: _Text | None = None
    levels_m: list[_Finite] = []


class PersonSummary(_Checked):
    """Entries of the summary for one person, which follow from the person's file."""

    person: Annotated[int, Field(ge=0, lt=10**9)] | None = None
    file: Annotated[str, Field(pattern=rf"^{PERSON_FILE.pattern}$")] | None = None
    rows: _Frames | None = None
    interpolated: _Frames | None = None
    first_frame: _Frames | None = None
    last_frame: _Frames | None = None


class Summary(_Checked):
    """summary.json. Early versions of inference wrote no `camera` and `smoothing_s`."""

    people: list[PersonSummary]
    input: _Text | None = None
    """Name of the video or image without its folder; never used as a path, see `find_input`."""
    input_ids: list[_Text] = []
    """Hashes of the input's path and content; see main/motion/result_names.py."""
    frames: _Frames | None = None
    fps: Annotated[float, Field(ge=1e-6, le=1e6)] | None = None
    image_size: (
        Annotated[
            list[Annotated[int, Field(ge=1, le=_MAX_SIDE_PX)]], Field(min_length=2, max_length=2)
        ]
        | None
    ) = None
    body_model: _Text | None = None
    flat_hand_mean: bool | None = None
    model: _Text | None = None
    precision: _Text | None = None
    keypoints: _Text | None = None
    """Either "built-in" or "file" if there are keypoints; early versions did not write this."""
    camera: CameraSummary | None = None
    smoothing_s: dict[_Text, _Finite] | None = None
    world: WorldSummary | None = None
    """None: the result has no world."""


class ArraySchema(NamedTuple):
    """Schema of an array in a person's file.

    Attributes:
        kinds: NumPy's codes of the kinds of types that are allowed.
        shape: of one frame's values, or of the whole array if it is `constant`.
        low, high: inclusive bounds of all numbers.
        constant: whether the array has one value for all frames.
    """

    kinds: str
    shape: tuple[int, ...]
    low: float
    high: float
    constant: bool = False


_SHARE: Final = (-0.001, 1.001)
_LIMITS: Final = {
    **dict.fromkeys((*ROTATIONS, "betas", "expression"), (-1000.0, 1000.0)),
    **dict.fromkeys(("transl", "joints_3d_m", "keypoint_depth_m"), (-_METRES, _METRES)),
    **dict.fromkeys(("princpt", "joints_2d_px", "box_xywh", "keypoints_px"), (-_PIXELS, _PIXELS)),
    "focal": (1e-6, _PIXELS),
    "keypoint_score": _SHARE,
    **dict.fromkeys(("world_global_orient", "world_body_pose"), (-1000.0, 1000.0)),
    **dict.fromkeys(
        ("world_transl", "world_joints_3d_m", "world_from_camera"), (-_METRES, _METRES)
    ),
    "camera_zoom": (1e-6, 1e6),
    "camera_confidence": _SHARE,
}
ARRAYS: Final = {
    "frame_index": ArraySchema("iu", (), 0, MAX_FRAMES - 1),
    "score": ArraySchema("fiu", (), *_SHARE),
    **{
        name: ArraySchema("fiu", shape, *_LIMITS[name])
        for name, shape in (COLUMNS | KEYPOINT_COLUMNS).items()
    },
    **{
        f"raw_{name}": ArraySchema("fiu", RAW_COLUMNS[f"raw_{name}"], *_LIMITS[name])
        for name in PARAMETERS
    },
    **{
        name: ArraySchema("b", (), 0, 1) if kind == "?" else ArraySchema("fiu", (), *_SHARE)
        for name, kind in FLAGS.items()
    },
    **{name: ArraySchema("f", shape, *_LIMITS[name]) for name, shape in WORLD_COLUMNS.items()},
    "foot_contact": ArraySchema("b", (4,), 0, 1),
    "fps": ArraySchema("fiu", (), 1e-6, 1e6, constant=True),
    "image_size": ArraySchema("iu", (2,), 1, _MAX_SIDE_PX, constant=True),
    "body_model": ArraySchema("U", (), 0, 0, constant=True),
    "flat_hand_mean": ArraySchema("b", (), 0, 1, constant=True),
}
"""All arrays of a person's file; other entries are not read."""


@dataclass(frozen=True, eq=False)
class Result:
    """A result folder: its summary, if there is one, and the files of people by their numbers."""

    folder: Path
    summary: Summary | None
    files: dict[int, Path]

    def require_summary(self) -> Summary:
        """The summary; raises UserError if there is none."""
        return read_summary(self.folder) if self.summary is None else self.summary

    def read_person(self, number: int, needed: Collection[str]) -> dict[str, np.ndarray]:
        """Like the function `read_person`, but frames beyond the end of the clip are an error, too.

        Raises:
            UserError: the file is invalid, or lacks an array of `needed`.
        """
        content = read_person(self.files[number], needed)
        frames = None if self.summary is None else self.summary.frames
        last = int(content["frame_index"][-1])
        if frames is not None and last >= frames:
            reason = (
                f"there is no frame {last} in a clip of {frames} frames ('frames' in the summary)"
            )
            raise UserError(f"{self.files[number]}: 'frame_index': {reason}; {_AGAIN}")
        return content


def open_result(folder: Path) -> Result:
    """Open a result folder; its summary is read if it exists, else it is None.

    Raises:
        UserError: the folder has no file of a person, or the summary is invalid.
    """
    files = person_files(folder)
    if not files:
        wanted = "give a folder of results of inference, with person_001.npz and summary.json"
        raise UserError(f"{folder} has no person_001.npz; {wanted}")
    there = (folder / SUMMARY_NAME).is_symlink() or (folder / SUMMARY_NAME).exists()
    return Result(folder, read_summary(folder) if there else None, files)


def person_files(folder: Path) -> dict[int, Path]:
    """The files person_NNN.npz of a folder by their numbers, in ascending order.

    Raises:
        UserError: two files have the same number, or one is a link to outside the folder.
    """
    files: dict[int, Path] = {}
    for path in sorted(folder.glob("person_*.npz")):
        match = PERSON_FILE.fullmatch(path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in files:
            raise UserError(
                f"{files[number]} and {path.name} are of one person; remove one of them"
            )
        _require_inside(path, folder)
        files[number] = path
    return dict(sorted(files.items()))


def read_summary(folder: Path) -> Summary:
    """Read the summary of a result folder.

    Raises:
        UserError: it is missing or invalid; the message names the field.
    """
    path = folder / SUMMARY_NAME
    _require_inside(path, folder)
    try:
        with open_input(path) as file:
            text = file.read(_MAX_SUMMARY_BYTES + 1)
    except UserError as error:
        raise UserError(f"{path} cannot be read; {_AGAIN} ({error})") from error
    if len(text) > _MAX_SUMMARY_BYTES:
        raise UserError(f"{path} is larger than {_MAX_SUMMARY_BYTES:,} bytes; {_AGAIN}")
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply; {_AGAIN}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({_one_line(first_line(error))}); {_AGAIN}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a summary of a result; {_AGAIN}")
    try:
        return Summary.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = _one_line(".".join(map(str, first["loc"])))
        raise UserError(f"{path}: '{field}': {_one_line(first['msg'])}; {_AGAIN}") from error


def read_person(path: Path, needed: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Read and check the arrays of a person's file, with one row per frame in ascending order.

    Numbers are float32 or float64 in native byte order, frames int64.

    Raises:
        UserError: the file is damaged or invalid, or lacks `frame_index` or an array of `needed`;
            the message names the array.
    """
    with open_input(path) as file:
        try:
            return _read_arrays(file, path, {"frame_index", *needed})
        except UserError:
            raise
        # Errors that zipfile, zlib and NumPy raise for damaged or manipulated archives.
        except (
            *(zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError),
            *(RuntimeError, ValueError, TypeError, LookupError, OverflowError, MemoryError),
            *(SyntaxError, AssertionError),
        ) as error:
            reason = _one_line(first_line(error))
            raise UserError(f"{path} is damaged or incomplete ({reason}); {_AGAIN}") from error


def find_input(folder: Path, name: str | None) -> Path | None:
    """The file with the input's name beside the result folder or in demo/, else None.

    Names that are paths, and links to outside these folders, are not followed.
    """
    if name is None or not is_plain_name(name):
        return None
    for place in (folder.resolve().parent, DEMO):
        path = place / name
        if path.exists() and path.resolve().is_relative_to(place.resolve()):
            return path
    return None


def is_plain_name(name: str) -> bool:
    """Whether a name is that of a file in its folder, on every operating system."""
    return name not in ("", ".", "..") and "/" not in name and PureWindowsPath(name).name == name


def _require_inside(path: Path, folder: Path) -> None:
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a link to itself
        inside = False
    if not inside:
        raise UserError(f"{path} is a link that leads out of its folder; put the file itself there")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"'{next(key for key in keys if keys.count(key) > 1)}' stands there twice")
    return content


def _read_arrays(file: BinaryIO, path: Path, needed: Collection[str]) -> dict[str, np.ndarray]:
    """Check the headers of all known arrays, then read them."""
    with zipfile.ZipFile(file) as archive:
        members = [
            info
            for info in archive.infolist()
            if info.filename.endswith(".npy") and _entry(info) in ARRAYS
        ]
        names = [_entry(info) for info in members]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UserError(f"{path} has '{min(twice)}' twice; {_AGAIN}")
        if lacking := set(needed) - set(names):
            raise UserError(f"{path} lacks '{min(lacking)}'; {_AGAIN}")
        if sum(info.file_size for info in members) > _MAX_EXPANSION * path.stat().st_size:
            raise UserError(f"{path} is compressed more than any result; {_AGAIN}")
        shapes = {name: _read_header(archive, name, path) for name in names}
        count = shapes["frame_index"][0] if len(shapes["frame_index"]) == 1 else 0
        if not 0 < count <= MAX_FRAMES:
            raise UserError(f"{path}: 'frame_index' has no frames or too many; {_AGAIN}")
        for name, shape in shapes.items():
            schema = ARRAYS[name]
            wanted = schema.shape if schema.constant else (count, *schema.shape)
            if shape != wanted:
                raise UserError(f"{path}: '{name}' is not {wanted} numbers, but {shape}; {_AGAIN}")
        return {name: _read_array(archive, name, path) for name in names}


def _entry(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(".npy")


def _read_header(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[int, ...]:
    """The shape in the header of an array; its type and size in bytes are checked here."""
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    largest = _MAX_NAME_BYTES if dtype.kind == "U" else 8
    if dtype.kind not in ARRAYS[name].kinds or dtype.itemsize > largest:
        raise UserError(f"{path}: '{name}' has values of a wrong type ({dtype.kind}); {_AGAIN}")
    if math.prod(shape) * dtype.itemsize > archive.getinfo(f"{name}.npy").file_size:
        raise UserError(f"{path}: '{name}' is cut off; {_AGAIN}")
    return tuple(shape)


def _read_array(archive: zipfile.ZipFile, name: str, path: Path) -> np.ndarray:
    schema = ARRAYS[name]
    with archive.open(f"{name}.npy") as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
    if schema.kinds == "U":
        if not str(values) or CONTROL.search(str(values)):
            raise UserError(f"{path}: '{name}' is not a name; {_AGAIN}")
        return values
    # NaN is outside every range.
    inside = (values >= schema.low) & (values <= schema.high)
    if not inside.all():
        wrong = values[~inside].flat[0]
        if name == "fps":
            raise UserError(f"{path}: 'fps' is not a frame rate ({wrong}); {_AGAIN}")
        span = f"{schema.low:g} to {schema.high:g}"
        raise UserError(f"{path}: '{name}' is not all numbers from {span} ({wrong}); {_AGAIN}")
    if name == "world_from_camera" and not _are_rigid_transforms(values):
        raise UserError(f"{path}: '{name}' is more than a rotation and a shift; {_AGAIN}")
    if name == "frame_index":
        values = values.astype(np.int64)
        steps = np.diff(values)
        if (steps <= 0).any():
            what = "a frame twice" if (steps == 0).any() else "frames that do not rise"
            raise UserError(f"{path} has {what} in 'frame_index'; {_AGAIN}")
        return values
    if schema.kinds in ("b", "iu"):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    is_wide = values.dtype.kind != "f" or values.dtype.itemsize == 8
    return values.astype(np.float64 if is_wide else np.float32, copy=False)


def _are_rigid_transforms(poses: np.ndarray) -> bool:
    turns, last = poses[..., :3, :3].astype(np.float64), np.array([0, 0, 0, 1])
    squares = turns @ turns.swapaxes(-1, -2)
    is_turn = np.allclose(squares, np.eye(3), atol=1e-3) and bool((np.linalg.det(turns) > 0).all())
    return is_turn and bool((poses[..., 3, :] == last).all())


def _one_line(text: str) -> str:
    """Text from a file, made safe for a message."""
    return CONTROL.sub("?", text)[:200]
