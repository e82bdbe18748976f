"""Datasets as columns on disk, mapped into memory: opened quickly, shared by all processes.

`read_columns` completes the columns of an annotation file, `InstanceTable` returns their rows.

The split of a dataset is read from its annotation files once and written to a folder of its own:
the bytes of each column, texts as one blob with offsets, and a manifest. The name of the folder is
a digest of everything that its content depends on, so another interval or a changed file results in
another folder. A folder appears only when it is complete; remains of killed processes are ignored.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from configs.schema import Protocol
from datasets.humandata.file import FAMILIES, subtract_mean_hand
from datasets.humandata.reader import Columns, HumanData, read_humandata
from datasets.sources import Source, Split, keep, keep_usable, use_neutral_betas
from human_models.joints import HAND_KEYPOINTS, JOINTS, POSE_JOINTS, POSE_PARTS, SIDES, joint_places
from utils.camera import have_area
from utils.errors import UserError
from utils.files import atomic_path, is_below, read_json, remove_leftovers, require_regular_file
from utils.image import natural_key

log = logging.getLogger(__name__)


class Instance(NamedTuple):
    """One person in one image: a row of a dataset after its fixes, before any augmentation.

    Pixels are those of the stored image, before it is turned according to EXIF data. Metres and
    rotations are in the camera's frame (x right, y down, z forward). Rotations are axis-angle
    vectors in radians, hands relative to the mean hand. Missing values are zero and not valid.
    """

    row: int
    """Number of the row in the dataset's files, counted over all slices."""
    image_path: str
    """Relative to the dataset's folder of images."""
    image_size: tuple[int, int]
    """Width and height in pixels; (0, 0) if they must be read from the image."""
    body_box: Float32[np.ndarray, "4"]
    """x, y, width, height; already padded by the dataset."""
    joints_2d: Float32[np.ndarray, "137 2"]
    joints_3d: Float32[np.ndarray, "137 3"]
    has_joints_3d: bool
    joints_valid: Float32[np.ndarray, "137"]
    pose: Float32[np.ndarray, "53 3"]
    """joints.POSE_JOINTS."""
    pose_valid: Bool[np.ndarray, "53"]
    betas: Float32[np.ndarray, "10"]
    expression: Float32[np.ndarray, "10"]
    expression_valid: bool
    transl: Float32[np.ndarray, "3"]
    hand_roots: Float32[np.ndarray, "2 3"]
    """Global orientation of the left and right hand; only hand-only datasets have it."""
    gender: str
    """neutral, male or female; that of the SMPL parameters if there are any."""
    smpl_pose: Float32[np.ndarray, "24 3"]
    smpl_betas: Float32[np.ndarray, "10"]
    has_smpl: bool
    vertices_path: str
    """File of ground-truth vertices, relative to the images; empty if there is none."""


NUMBER_COLUMNS: Final[dict[str, tuple[type[np.generic], tuple[int, ...]]]] = {
    "row": (np.int64, ()),
    "image_size": (np.int32, (2,)),
    "body_box": (np.float32, (4,)),
    "joints_2d": (np.float32, (len(JOINTS), 2)),
    "joints_3d": (np.float32, (len(JOINTS), 3)),
    "has_joints_3d": (np.bool_, ()),
    "joints_valid": (np.uint8, (len(JOINTS),)),
    "pose": (np.float32, (len(POSE_JOINTS), 3)),
    "pose_valid": (np.bool_, (len(POSE_JOINTS),)),
    "betas": (np.float32, (10,)),
    "expression": (np.float32, (10,)),
    "expression_valid": (np.bool_, ()),
    "transl": (np.float32, (3,)),
    "hand_roots": (np.float32, (2, 3)),
    "smpl_pose": (np.float32, (24, 3)),
    "smpl_betas": (np.float32, (10,)),
    "has_smpl": (np.bool_, ()),
}
"""Type and shape of a row of each numeric column; the columns of texts are:"""
TEXT_COLUMNS: Final = ("image_path", "gender", "vertices_path")
_GENDERS = {"m": "male", "f": "female"}


def read_columns(
    source: Source, split: Split, path: Path, *, interval: int, protocol: Protocol
) -> tuple[Columns, int]:
    """The complete columns of one file of a dataset, and the number of rows of the file.

    Raises:
        UserError: something is wrong; the message names file, entry and if possible the row.
    """
    families = source.test_families if split == "test" else FAMILIES
    needs_truth = not source.without_truth
    data = read_humandata(path, interval=interval, families=families, need_joints=needs_truth)
    if not data.family and needs_truth:
        names = " or ".join(families)
        raise UserError(f"{path}: no body parameters; expected an entry '{names}'")
    columns = complete(data, source, protocol)
    _check_paths(path, columns)
    return columns, data.length


def _check_paths(path: Path, columns: Columns) -> None:
    """Refuse rows that name a file outside of the folder of images."""
    for key, entry in (("image_path", "image_path"), ("vertices_path", "vertices3d_path")):
        names = columns[key].astype(str)
        suspect = np.strings.find(names, "..") >= 0
        for mark in ("/", "\\", ":"):  # of absolute paths and drives
            suspect |= np.strings.find(names, mark, 0, 2) >= 0
        for place in np.flatnonzero(suspect):
            if not is_below(str(names[place])):
                raise UserError(
                    f"{path}: entry '{entry}', row {columns['row'][place]}: '{names[place]}' is "
                    "not a path within the folder of images; give it relative to that folder"
                )


def complete(data: HumanData, source: Source, protocol: Protocol) -> Columns:
    """Apply the fixes of the dataset, and make a column for every field of `Instance`.

    With the protocol "published", only the table decides whether hands are relative to the flat
    hand; with "correct", the file decides if it says so.
    """
    columns = data.columns if source.without_truth else keep_usable(data.columns)
    for fix in (use_neutral_betas, *source.fixes):
        columns = fix(columns)
    columns = {**columns, "image_size": _image_size(columns, source)}
    columns = keep(columns, have_area(columns["body_box"], columns["image_size"]))
    count = len(columns["row"])
    flat = np.full(count, source.flat_hands)
    if protocol == "correct":
        flat = columns.get("flat_hands", flat)
    columns = subtract_mean_hand(columns, flat)

    pose, pose_valid = _pose(columns)
    has_face = _has_face(columns)
    is_smpl = data.family == "smpl"
    betas = columns["betas"]
    zeros = np.zeros_like(betas)
    raw = {
        "has_joints_3d": np.full(count, "joints_3d" in columns),
        "joints_valid": _joints_valid(columns["joints_valid"], pose_valid),
        "pose": pose,
        "pose_valid": pose_valid,
        "betas": betas if data.family == "smplx" else zeros,  # betas of other models do not apply
        "expression": _optional(columns, "expression", (10,)) * has_face[:, None],
        "expression_valid": has_face,
        "hand_roots": np.stack(
            [_optional(columns, f"{side}_hand_root", (3,)) for side in SIDES], axis=1
        ),
        "smpl_pose": _smpl_pose(columns) if is_smpl else np.zeros((count, 24, 3), np.float32),
        "smpl_betas": betas if is_smpl else zeros,
        "has_smpl": np.full(count, is_smpl),
        "gender": _genders(columns),
        "vertices_path": columns.get("vertices_path", np.full(count, "")),
        "image_path": columns["image_path"],
    }
    for name, (dtype, shape) in NUMBER_COLUMNS.items():
        column = raw[name] if name in raw else _optional(columns, name, shape)
        raw[name] = np.ascontiguousarray(column, dtype)
        assert raw[name].shape == (count, *shape)
    return raw


def instance(columns: Mapping[str, np.ndarray], i: int, texts: Mapping[str, str]) -> Instance:
    """Row `i`, with copies of its arrays."""
    values: dict[str, Any] = {
        name: columns[name][i].copy() if shape else columns[name][i].item()
        for name, (_, shape) in NUMBER_COLUMNS.items()
    }
    values["image_size"] = tuple(values["image_size"].tolist())
    values["joints_valid"] = values["joints_valid"].astype(np.float32)
    return Instance(**values | dict(texts))


def _optional(columns: Columns, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name in columns:
        return columns[name]
    return np.zeros((len(columns["row"]), *shape), np.float32)


def _image_size(columns: Columns, source: Source) -> Float32[np.ndarray, "N 2"]:
    """Sizes from the file, else from the table; zero if they must be read from the image."""
    sizes = np.nan_to_num(_optional(columns, "image_size", (2,)))
    stated = (sizes > 0).all(axis=1, keepdims=True)
    return np.where(stated, sizes, np.array(source.image_size or (0, 0), np.float32))


def _pose(columns: Columns) -> tuple[Float32[np.ndarray, "N 53 3"], Bool[np.ndarray, "N 53"]]:
    """Rotations, and which of them are known: bodies and hands that are all zero are not."""
    count = len(columns["row"])
    pose = np.zeros((count, len(POSE_JOINTS), 3), np.float32)
    valid = np.zeros((count, len(POSE_JOINTS)), bool)
    body = _optional(columns, "body_pose", (21, 3))[:, :21]  # SMPL's last two are its hands
    valid[:, POSE_PARTS["body"]] = (body != 0).any(axis=(1, 2))[:, None]
    pose[:, 0] = _optional(columns, "global_orient", (3,))
    valid[:, 0] &= "global_orient" in columns
    pose[:, 1:22] = body
    for side in SIDES:
        part = POSE_PARTS[f"{side}_hand"]
        pose[:, part] = _optional(columns, f"{side}_hand_pose", (15, 3))
        valid[:, part] = (pose[:, part] != 0).any(axis=(1, 2))[:, None]
    has_face = _has_face(columns)[:, None]
    pose[:, POSE_PARTS["face"]] = (_optional(columns, "jaw_pose", (3,)) * has_face)[:, None]
    valid[:, POSE_PARTS["face"]] = has_face
    return pose, valid


def _has_face(columns: Columns) -> Bool[np.ndarray, " N"]:
    """Rows with a known face: jaw and expression are only known together."""
    return np.full(len(columns["row"]), {"jaw_pose", "expression"} <= columns.keys())


def _joints_valid(
    mask: UInt8[np.ndarray, "N 137"], pose_valid: Bool[np.ndarray, "N 53"]
) -> UInt8[np.ndarray, "N 137"]:
    """The mask of the file; a hand and its wrist are also known if its rotations are known."""
    valid = mask.copy()
    for side in SIDES:
        known = pose_valid[:, POSE_PARTS[f"{side}_hand"].start]
        valid[:, joint_places(HAND_KEYPOINTS[side])] = known[:, None]
    return valid


def _smpl_pose(columns: Columns) -> Float32[np.ndarray, "N 24 3"]:
    root = _optional(columns, "global_orient", (3,))
    return np.concatenate([root[:, None], _optional(columns, "body_pose", (23, 3))], axis=1)


def _genders(columns: Columns) -> np.ndarray:
    stated = columns.get("gender", np.full(len(columns["row"]), ""))
    words, which = np.unique(stated, return_inverse=True)
    full = np.array([_GENDERS.get(word[:1].lower(), "neutral") for word in words], dtype=str)
    return full[which]


VERSION: Final = 3
"""Version of the columns and of the rules that fill them; a change invalidates all caches."""


class InstanceTable:
    """The people of a dataset's split. Pickling stores only the path of the folder."""

    def __init__(self, folder: Path) -> None:
        """Map a folder that `open_dataset` or `write_table` made.

        Raises:
            UserError: the folder is incomplete or has another version.
        """
        self.folder = folder
        try:
            manifest = read_json(folder / "manifest.json", "manifest")
            if manifest["version"] != VERSION:
                raise ValueError(f"version {manifest['version']}, expected {VERSION}")
            self._length = int(manifest["rows"])
            self.columns: Mapping[str, np.ndarray] = {
                name: _map(folder / name, dtype, (self._length, *shape))
                for name, (dtype, shape) in NUMBER_COLUMNS.items()
            }
            self._texts = {name: _Texts(folder, name, self._length) for name in TEXT_COLUMNS}
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} is not a complete cache ({error}); delete it") from error

    def __reduce__(self) -> tuple[type["InstanceTable"], tuple[Path]]:
        return InstanceTable, (self.folder,)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Instance]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Instance:
        """A person; negative indices count from the end.

        Raises:
            IndexError: the index is out of range.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        i = int(index) % len(self)
        return instance(self.columns, i, {name: text[i] for name, text in self._texts.items()})


def open_dataset(
    source: Source,
    split: Split,
    data_dir: Path,
    *,
    protocol: Protocol = "correct",
) -> InstanceTable:
    """The people of a dataset, from its cache, which the first call writes.

    Args:
        data_dir: has the folders annot (annotations) and cache.
        protocol: who decides whether hands are relative to the flat hand; see `complete`.

    Raises:
        UserError: files are missing or damaged, or the cache cannot be written.
    """
    paths = annotation_files(source, split, data_dir / "annot")
    key = _key(source, split, paths, protocol)
    parent = data_dir / "cache" / re.sub(r"\W+", "_", f"{source.name}_{split}")
    folder = parent / hashlib.sha256(key.encode()).hexdigest()[:16]
    table = _existing(folder)
    if table is not None:
        return table
    try:
        with _locked(parent) as is_locked:
            table = _existing(folder)  # another process may have made it while we waited
            if table is not None:
                return table
            if is_locked:
                remove_leftovers(parent, None)
            log.info("%s, %s: writing the cache %s", source.name, split, folder)
            parts = _read_all(source, split, paths, protocol)
            rows = write_table(folder, parts, key)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write the cache {folder}: {reason}; make room there") from error
    log.info("%s, %s: %d people", source.name, split, rows)
    return InstanceTable(folder)


def annotation_files(source: Source, split: Split, folder: Path) -> list[Path]:
    """The files of a split in `folder`, slices in the order of their numbers.

    Raises:
        UserError: the dataset has no such split or a file is missing.
    """
    paths = []
    for name in source.files(split):
        path = folder / name  # `name` itself if it is absolute
        pattern = "*" in path.name
        found = sorted(path.parent.glob(path.name), key=natural_key) if pattern else [path]
        if not found or not found[0].is_file():
            like = "a file named like " if pattern else ""
            raise UserError(f"{source.name} needs {like}{path}; put its HumanData file there")
        paths += found
    return paths


def write_table(folder: Path, parts: Iterator[Columns], key: str = "") -> int:
    """Write complete columns, given part by part, as a table; returns the number of rows."""
    rows = 0
    with atomic_path(folder) as partial, contextlib.ExitStack() as stack:
        partial.mkdir()
        names = (*NUMBER_COLUMNS, *TEXT_COLUMNS, *map(_ends_file, TEXT_COLUMNS))
        files = {name: stack.enter_context((partial / name).open("wb")) for name in names}
        for columns in parts:
            rows += len(columns["row"])
            for name in NUMBER_COLUMNS:
                files[name].write(np.ascontiguousarray(columns[name]).data)
            for name in TEXT_COLUMNS:
                texts = [text.encode() for text in columns[name].tolist()]
                ends = files[name].tell() + np.cumsum([len(text) for text in texts], dtype=np.int64)
                files[_ends_file(name)].write(ends.data)
                files[name].write(b"".join(texts))
        manifest = {"version": VERSION, "rows": rows, "key": key}
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return rows


def _ends_file(name: str) -> str:
    """The name of the file with the ends of the texts of a column."""
    return f"{name}_ends"


def _read_all(
    source: Source, split: Split, paths: Sequence[Path], protocol: Protocol
) -> Iterator[Columns]:
    """Complete columns, file by file, so that only one is in memory."""
    before, interval = 0, source.interval(split)
    for path in paths:
        columns, length = read_columns(source, split, path, interval=interval, protocol=protocol)
        columns["row"] += before
        before += length
        yield columns


def _key(source: Source, split: Split, paths: Sequence[Path], protocol: Protocol) -> str:
    """A key of everything that the content of the cache depends on."""
    facts = source._asdict() | {"fixes": [fix.__name__ for fix in source.fixes]}
    for name in ("train", "test", "train_interval", "test_interval"):
        del facts[name]  # `stats` has the relevant part of them
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return json.dumps([VERSION, facts, split, stats, source.interval(split), protocol])


def _existing(folder: Path) -> InstanceTable | None:
    if not folder.is_dir():
        return None
    try:
        return InstanceTable(folder)
    except UserError as error:
        log.warning("%s: a cache that is not complete (%s) is replaced", folder, error.__cause__)
        return None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Wait until no other process writes `folder`; False if the file system has no locks.

    Without locks, two processes do the same work, and the second finds the folder of the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


def _map(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    """A column as a plain array, whose rows are read faster than those of a memmap."""
    require_regular_file(path)
    size, expected = path.stat().st_size, math.prod(shape) * np.dtype(dtype).itemsize
    if size != expected:
        raise ValueError(f"{path.name} has {size} bytes, expected {expected}")
    column = np.memmap(path, dtype, "r", shape=shape) if size else np.zeros(shape, dtype)
    return column.view(np.ndarray)


class _Texts:
    """Strings, stored as the bytes of all of them and the offset of the end of each."""

    def __init__(self, folder: Path, name: str, length: int) -> None:
        self._ends = _map(folder / _ends_file(name), np.int64, (length,))
        self._bytes = _map(folder / name, np.uint8, (int(self._ends[-1]) if length else 0,))

    def __getitem__(self, i: int) -> str:
        start = self._ends[i - 1] if i else 0
        return self._bytes[start : self._ends[i]].tobytes().decode("utf-8")
