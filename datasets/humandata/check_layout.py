"""Findings, and checks of the entries of a file: their presence, rows and shapes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Bool

from datasets.humandata.file import (
    BOXES,
    COEFFICIENTS,
    DICTIONARIES,
    FAMILIES,
    JOINT_COUNTS,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    META_PAIRS,
    META_TEXTS,
    ROW_OTHERS,
    ROW_TEXTS,
    TRIPLES,
    as_numbers,
    is_known,
    is_list,
    mask_names,
)
from datasets.humandata.lenient import LenientFile
from datasets.sources import source_of_file

Severity = Literal["error", "warning", "info"]
"""error: a loader fails or reads wrong values; warning: rows are lost, or values look wrong."""

_SHOWN_ROWS: Final = 5


@dataclass(frozen=True)
class Finding:
    """Something that is wrong or suspicious in a file, and what to do about it."""

    severity: Severity
    entry: str
    what: str
    advice: str = ""
    rows: int = 0
    """Number of rows concerned; 0 if it concerns the file."""
    first_rows: tuple[int, ...] = ()


def on_rows(
    severity: Severity, entry: str, bad: Bool[np.ndarray, " N"], what: str, advice: str
) -> Iterator[Finding]:
    """A finding if any row is marked."""
    rows = np.flatnonzero(bad)
    if len(rows):
        first = tuple(rows[:_SHOWN_ROWS].tolist())
        yield Finding(severity, entry, what, advice, len(rows), first)


def required_entries(file: LenientFile) -> Iterator[Finding]:
    """Entries that loaders need are present."""
    for key in ("image_path", "bbox_xywh"):
        if file.get(key) is None:
            advice = file.advice_on_format() if key == "image_path" else "every row needs one"
            yield Finding("error", key, "missing", advice)
    if not file.length:
        yield Finding("error", "image_path", "has no rows", "the file describes nobody")
    if all(file.get(key) is None for key in KEYPOINTS_2D):
        names = " or ".join(KEYPOINTS_2D)
        yield Finding("error", "keypoints2d", "no 2D keypoints", f"give an entry {names}")
    if all(file.get(key) is None for key in KEYPOINTS_3D):
        yield Finding("info", "keypoints3d", "no 3D keypoints", "losses in 3D come from parameters")
    source = source_of_file(file.path)
    if not any(file.dictionary(f) for f in FAMILIES) and not (source and source.without_truth):
        names = " or ".join(FAMILIES)
        yield Finding("error", "smplx", "no body parameters", f"give an entry {names}")


def container_flags(file: LenientFile) -> Iterator[Finding]:
    """Flags and counts of the container are right."""
    if file.get("__keypoints_compressed__") is None:
        key = "__keypoints_compressed__"
        yield Finding("warning", key, "missing", "the published code stops; write the file again")
    stated = file.get("__data_len__")
    if stated is not None and stated not in (-1, file.length):
        what = f"says {stated} rows, image_path has {file.length}"
        yield Finding("error", "__data_len__", what, "write the file again with all its rows")
    unknown = [name for name in file.names if not is_known(name)]
    for name in unknown:
        yield Finding("info", name, "not an entry of the format", "it is ignored")
    if unknown and file.get("__key_strict__"):
        what = f"is set, but the file has '{unknown[0]}'"
        yield Finding("warning", "__key_strict__", what, "mmhuman3d refuses it; write it again")


def readable(file: LenientFile) -> Iterator[Finding]:
    """All entries of the container are readable."""
    for name in file.names:
        file.get(name)
        if name in file.unreadable:
            yield Finding("error", name, file.unreadable[name], "download or write the file again")
    for key in DICTIONARIES:
        value = file.get(key)
        if value is not None and not isinstance(value, Mapping):
            what = f"is a {type(value).__name__}, not a dictionary"
            yield Finding("error", key, what, "save it as one: np.array({...}, dtype=object)")


def texts(file: LenientFile) -> Iterator[Finding]:
    """Paths and other texts have one string per row."""
    for entry in (*ROW_TEXTS, *(f"meta.{name}" for name in META_TEXTS)):
        value = file.find(entry)
        if value is None:
            continue
        if not is_list(value) or (isinstance(value, np.ndarray) and value.ndim != 1):
            yield Finding("error", entry, "is not a list of strings", "give one per row")
            continue
        bad = np.array([not isinstance(text, str) or not text for text in value], bool)
        yield from on_rows("error", entry, bad, "no text", "give every row its own")
        yield from _count(file, entry, len(value))
    paths = file.image_paths()
    if paths is not None:
        absolute = np.array([str(path).startswith(("/", "\\")) for path in paths], bool)
        advice = "give paths relative to the folder of images"
        yield from on_rows("warning", "image_path", absolute, "absolute path", advice)


def row_counts_and_shapes(file: LenientFile) -> Iterator[Finding]:
    """Every numeric entry has N rows of the right shape."""
    for key in BOXES:
        yield from _shape(file, key, ((5,), (4,)), "x, y, width, height, confidence per row")
        boxes = as_numbers(file.get(key))
        if boxes is not None and boxes.shape[1:] == (4,):
            advice = "write five numbers, the last one 1"
            yield Finding("warning", key, "has no confidence (an old form)", advice)
    for dimensions, keys in ((3, KEYPOINTS_2D), (4, KEYPOINTS_3D)):
        for key in keys:
            yield from _keypoint_shape(file, key, dimensions)
    for family in FAMILIES:
        for name, value in file.dictionary(family).items():
            entry = f"{family}.{name}"
            if name in TRIPLES[family]:
                count = TRIPLES[family][name]
                shapes = ((count, 3), (count * 3,))
                yield from _shape(file, entry, shapes, f"{count * 3} numbers per row")
            elif name in COEFFICIENTS:
                numbers = as_numbers(value)
                width = numbers.shape[-1] if numbers is not None and numbers.ndim else 0
                yield from _shape(file, entry, ((width,),), "one list of numbers per row")
            elif is_list(value):
                yield from _count(file, entry, len(value))
    for name, value in file.dictionary("meta").items():
        if is_list(value) and name not in META_TEXTS:
            yield from _count(file, f"meta.{name}", len(value))
    for name in META_PAIRS:
        if name in file.dictionary("meta"):
            yield from _shape(file, f"meta.{name}", ((2,), (1,)), "x, y in pixels per row")
    for key in ROW_OTHERS:
        value = file.get(key)
        if is_list(value):
            yield from _count(file, key, len(value))


def masks(file: LenientFile) -> Iterator[Finding]:
    """Masks of joints contain 0 and 1, and fit the stored joints."""
    for key in (*KEYPOINTS_2D, *KEYPOINTS_3D):
        points, mask = file.numbers(key), file.mask(key)
        if points is None or points.ndim != 3:
            continue
        name = next((n for n in mask_names(key) if n in file.names), f"{key}_mask")
        compressed = bool(file.get("__keypoints_compressed__"))
        if mask is None:
            if compressed:
                advice = "without it nobody knows which joints are stored"
                yield Finding("error", name, "missing, but keypoints are compressed", advice)
            else:
                advice = "the published code needs it; write the file again to have it made"
                yield Finding("warning", name, "missing", advice)
            continue
        if mask.ndim != 1 or not np.isin(mask, (0, 1)).all():
            yield Finding(
                "error", name, "is not a list of 0 and 1", "one number per joint, 1 = exists"
            )
            continue
        if len(mask) not in JOINT_COUNTS:
            what = f"is of {len(mask)} joints"
            yield Finding("error", name, what, "HumanData has 190, 144 or 127")
        stored, present = points.shape[1], int(mask.sum())
        if stored not in (len(mask), present):
            what = f"has {present} of {len(mask)} joints, '{key}' has {stored}"
            yield Finding("error", name, what, "the mask belongs to other keypoints")
        elif compressed and stored != present:
            advice = "mmhuman3d cannot read it; write the file again"
            yield Finding("warning", key, "flagged as compressed, but it has all joints", advice)
        if not present:
            yield Finding("warning", name, "no joint exists", "drop the entry, or correct its mask")


def _keypoint_shape(file: LenientFile, key: str, dimensions: int) -> Iterator[Finding]:
    points = as_numbers(file.get(key))
    joints = points.shape[1] if points is not None and points.ndim == 3 else 0
    shapes = ((joints, dimensions), (joints, dimensions - 1))
    yield from _shape(file, key, shapes, f"(joints, {dimensions}) per row")
    if joints and file.mask(key) is None and joints not in JOINT_COUNTS:
        advice = "HumanData has 190, 144 or 127, or a mask that says which"
        yield Finding("error", key, f"{joints} joints", advice)


def _shape(
    file: LenientFile, entry: str, shapes: tuple[tuple[int, ...], ...], expected: str
) -> Iterator[Finding]:
    value: Any = file.find(entry)
    if value is None:
        return
    array = as_numbers(value)
    if array is None or array.ndim == 0:
        yield Finding("error", entry, "is not an array of numbers", f"expected {expected}")
        return
    yield from _count(file, entry, len(array))
    if array.shape[1:] not in shapes:
        yield Finding("error", entry, f"has shape {array.shape}", f"expected {expected}")


def _count(file: LenientFile, entry: str, rows: int) -> Iterator[Finding]:
    if rows != file.length:
        what = f"has {rows} rows, image_path has {file.length}"
        yield Finding("error", entry, what, "every row needs one, in the same order")
