"""Checks of a HumanData file's numbers: finite, in the range where they mean something."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32

from datasets.columns import has_area
from datasets.humandata.finding import Finding, OpenedFile, Severity, as_numbers, on_rows
from datasets.humandata.hands import mean_hand_share, source_of, stated_flat_hands
from datasets.humandata.layout import (
    BOXES,
    FAMILIES,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    META_TEXTS,
    PART_BOXES,
    TRIPLES,
    is_list,
)
from human_models.joints import SIDES

LARGEST_ANGLE: Final = 2 * np.pi * 1.001
LARGEST_COEFFICIENT: Final = 5.0
LARGEST_TRAINED_BETA: Final = 3.0
"""Above it the published training takes all betas of the row as zero."""
FARTHEST_M: Final = 200.0

_GENDERS: Final = "mfn"


def finite(file: OpenedFile) -> Iterator[Finding]:
    """NaN and infinity, in every entry that has numbers."""
    entries = [
        *(*BOXES, *KEYPOINTS_2D, *KEYPOINTS_3D, "vertices"),
        *file.parameters(),
        *(f"meta.{name}" for name in file.dictionary("meta") if name not in META_TEXTS),
    ]
    for entry in entries:
        values = file.numbers(entry)
        if values is None:
            continue
        repaired = entry in (*PART_BOXES, *KEYPOINTS_3D)
        advice = {
            True: "taken as no box" if entry in PART_BOXES else "training leaves such rows out",
            False: "mend these rows or take them out",
        }[repaired]
        bad = np.logical_not(np.isfinite(values).reshape(len(values), -1).all(axis=1))
        yield from on_rows(
            "warning" if repaired else "error", entry, bad, "NaN or infinite", advice
        )
    for name, value in file.dictionary("misc").items():
        numbers = as_numbers(value)
        if numbers is not None and not np.isfinite(numbers).all():
            yield Finding("error", f"misc.{name}", "NaN or infinite", "mend it or leave it out")


def boxes(file: OpenedFile) -> Iterator[Finding]:
    """Boxes have an area, and some of it in the image."""
    for key in BOXES:
        values = file.boxes(key)
        if values is None:
            continue
        is_body = key == "bbox_xywh"
        meant = np.isfinite(values).all(axis=1)
        if not is_body:
            meant &= values[:, 4] > 0
        flat = meant & ((values[:, 2] <= 0) | (values[:, 3] <= 0))
        outside = meant & ~flat & _is_outside(values[:, :4], file.image_size)
        severity: Severity = "error" if is_body else "warning"
        advice = "the row cannot be cut out" if is_body else "set its confidence to 0"
        yield from on_rows(severity, key, flat, "no area", f"{advice}; are they x, y, w, h?")
        yield from on_rows(severity, key, outside, "outside the image", advice)
        odd = meant & ((values[:, 4] < 0) | (values[:, 4] > 1))
        yield from on_rows(
            "warning", key, odd, "confidence not in 0..1", "0 means that none is there"
        )


def _is_outside(
    values: Float32[np.ndarray, "N 4"], image_size: Float32[np.ndarray, "N 2"]
) -> Bool[np.ndarray, " N"]:
    """Beyond an edge of the image, or what loaders leave out (they push boxes in from the left and
    the top); an image of unknown size (0) has only these two edges."""
    last = np.where(image_size > 0, image_size, np.inf)
    beyond = (values[:, :2] >= last) | (values[:, :2] + values[:, 2:] <= 0)
    return np.logical_or.reduce(beyond, axis=1) | ~has_area(values, image_size)


def rotations(file: OpenedFile) -> Iterator[Finding]:
    """Axis-angle vectors in radians turn by less than a full circle."""
    for family in FAMILIES:
        for name in TRIPLES[family]:
            if name == "transl":
                continue
            values = file.numbers(f"{family}.{name}")
            if values is None or values[0].size % 3:
                continue
            angles = np.linalg.norm(values.reshape(len(values), -1, 3), axis=2)
            bad = (angles > LARGEST_ANGLE).any(axis=1)
            advice = "give radians, and the shorter way round"
            yield from on_rows("warning", f"{family}.{name}", bad, "turns beyond 360°", advice)


def coefficients(file: OpenedFile) -> Iterator[Finding]:
    """Shape and expression count standard deviations."""
    for family in FAMILIES:
        for name in ("betas", "betas_neutral", "expression"):
            values = file.numbers(f"{family}.{name}")
            if values is None:
                continue
            largest = np.abs(values.reshape(len(values), -1)).max(axis=1, initial=0)
            far = largest > LARGEST_COEFFICIENT
            advice = "a body beyond five standard deviations; was another model fitted?"
            yield from on_rows("warning", f"{family}.{name}", far, "beyond ±5", advice)
            if name != "expression":
                unused = (largest > LARGEST_TRAINED_BETA) & ~far
                advice = "training takes all betas of such rows as zero"
                yield from on_rows("info", f"{family}.{name}", unused, "beyond ±3", advice)


def translations(file: OpenedFile) -> Iterator[Finding]:
    """People stand before the camera; rows of zeros say that nothing is known."""
    for family in FAMILIES:
        values = file.numbers(f"{family}.transl")
        if values is None or values.shape[1:] != (3,):
            continue
        known, depth = (values != 0).any(axis=1), values[:, 2]
        entry = f"{family}.transl"
        advice = "z is the depth in the camera's frame (x right, y down), not the world's"
        yield from on_rows("error", entry, known & (depth <= 0), "behind the camera", advice)
        advice = "metres are expected, not millimetres"
        yield from on_rows("warning", entry, depth > FARTHEST_M, "farther than 200 m", advice)


def camera(file: OpenedFile) -> Iterator[Finding]:
    """Focal lengths and principal points in pixels."""
    focal = file.camera("focal_length")
    if focal is not None:
        bad = np.logical_or.reduce(~(focal > 0), axis=1)
        yield from on_rows("error", "focal_length", bad, "not positive", "give pixels of the image")
    center, size = file.camera("principal_point"), file.image_size
    if center is not None:
        known = np.logical_and.reduce(size > 0, axis=1)
        advice = "give x, y in pixels of the whole image"
        far = (center < -size) | (center > 2 * size)
        bad = known & np.logical_or.reduce(far, axis=1)
        yield from on_rows("warning", "principal_point", bad, "far outside the image", advice)


def genders(file: OpenedFile) -> Iterator[Finding]:
    values = file.find("meta.gender")
    if isinstance(values, np.ndarray | list):
        bad = np.array([str(word)[:1].lower() not in _GENDERS for word in values], bool)
        advice = "say male, female or neutral; others are taken as neutral"
        yield from on_rows("warning", "meta.gender", bad, "unknown word", advice)


def hand_convention(file: OpenedFile) -> Iterator[Finding]:
    """flat_hand_mean is stated, agrees with what is known of the dataset, and with the poses."""
    known = source_of(file.path)
    try:
        flat = _stated(file)
    except (ValueError, TypeError):
        yield Finding("error", "misc.flat_hand_mean", "is no True or False", "say which")
        return
    entry = "misc.flat_hand_mean"
    hands = [
        (f, s)
        for f in FAMILIES
        for s in SIDES
        if file.dictionary(f).get(f"{s}_hand_pose") is not None
    ]
    if flat is None:
        if hands:
            taken = known.flat_hands if known else False
            what = f"missing; taken as {taken}" + (f", as known of {known.name}" if known else "")
            yield Finding(
                "warning", entry, what, "say whether hands count from the flat hand (True)"
            )
            flat = np.full(file.length, taken)
        else:
            return
    elif known and bool(flat.all()) != known.flat_hands:
        what = f"{bool(flat.all())}, but files of {known.name} are known as {known.flat_hands}"
        advice = "what the file says is taken, but not by the published protocol"
        yield Finding("warning", entry, what, advice)
    if not (flat.all() or not flat.any()):
        return
    for family, side in hands:
        poses = file.numbers(f"{family}.{side}_hand_pose")
        if poses is not None:
            yield from _plausible(
                f"{family}.{side}_hand_pose", poses, side, is_flat=bool(flat.all())
            )


def _stated(file: OpenedFile) -> Bool[np.ndarray, " N"] | None:
    entries = {key: file.dictionary(key) for key in (*FAMILIES, "misc")}
    return stated_flat_hands({**entries, "image_path": range(file.length)})


def _plausible(
    entry: str, poses: Float32[np.ndarray, "N ..."], side: str, *, is_flat: bool
) -> Iterator[Finding]:
    """Relaxed hands are curled like the mean hand: an average hand that is flat is suspect."""
    share = mean_hand_share(poses, side)
    if share is None:
        return
    told = f"the average hand has {share:.2f} of the mean hand"
    if is_flat and share < 0.5:
        advice = "flat_hand_mean should be False, unless all hands are flat"
        yield Finding(
            "warning", entry, f"{told}; with flat_hand_mean=True about 1 is usual", advice
        )
    elif not is_flat and abs(share) > 0.5:
        advice = "flat_hand_mean should be True" if share > 0 else "are these hands unknown?"
        yield Finding(
            "warning", entry, f"{told}; with flat_hand_mean=False about 0 is usual", advice
        )


def duplicates(file: OpenedFile) -> Iterator[Finding]:
    """The same person twice: one image, one box, one place."""
    paths, values = file.get("image_path"), file.boxes("bbox_xywh")
    if values is None or not is_list(paths) or len(paths) != file.length:
        return
    columns = [np.unique(np.asarray(paths, str), return_inverse=True)[1][:, None], values[:, :4]]
    for family in FAMILIES:
        pose = file.numbers(f"{family}.body_pose")
        columns += [] if pose is None else [pose.reshape(file.length, -1)]
    rows = np.ascontiguousarray(np.concatenate(columns, axis=1, dtype=np.float64))
    _, first = np.unique(rows, axis=0, return_index=True)
    again = np.ones(file.length, bool)
    again[first] = False
    advice = "the person counts twice; take these rows out"
    yield from on_rows("warning", "image_path", again, "row that was there before", advice)
