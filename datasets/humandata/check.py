"""Checks of HumanData files.

This module checks values (numbers, hands, keypoints, images); `check_layout` checks entries, their
rows and shapes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from datasets.humandata import check_layout as layout
from datasets.humandata.check_layout import Finding, Severity, on_rows
from datasets.humandata.file import (
    BOXES,
    FAMILIES,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    LARGEST_TRAINED_BETA,
    META_TEXTS,
    PART_BOXES,
    TRIPLES,
    as_numbers,
)
from datasets.humandata.lenient import LenientFile
from datasets.sources import assumed_flat_hands, source_of_file
from human_models.joints import HANDS_MEAN, SIDES
from utils.camera import have_area, project
from utils.files import is_below
from utils.image import image_sizes
from utils.iteration import with_progress

_ORDER: Final = ("error", "warning", "info")
_LARGEST_ANGLE: Final = 2 * np.pi * 1.001
_LARGEST_COEFFICIENT: Final = 5.0
_FARTHEST_M: Final = 200.0
_LARGEST_BODY_M: Final = 5.0
_LARGEST_ERROR: Final = 0.03
"""Largest reprojection error, as a share of the longer side of a person's box."""
_FEWEST_HANDS: Final = 10
"""Number of hands from which their mean shows the convention."""
_GENDERS: Final = "mfn"
_SEED: Final = 0


def check_humandata(
    path: Path, images_folder: Path | None = None, *, images_sample: int | None = None
) -> list[Finding]:
    """Everything that is wrong or suspicious in a file, the worst first.

    Args:
        images_folder: root of image_path; None: images are not checked.
        images_sample: number of images to check, drawn with a fixed seed; None: all.

    Raises:
        UserError: the container itself cannot be read.
    """
    file = LenientFile(path)
    findings = [finding for check in _CHECKS for finding in check(file)]
    if images_folder is not None:
        findings += images(file, images_folder, images_sample)
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))


def finite(file: LenientFile) -> Iterator[Finding]:
    """NaN and infinity, in every entry that has numbers."""
    entries = [
        *(*BOXES, *KEYPOINTS_2D, *KEYPOINTS_3D, "vertices"),
        *file.parameters(),
        *(f"meta.{name}" for name in file.dictionary("meta") if name not in META_TEXTS),
    ]
    for entry, values in file.known_numbers(entries):
        severity: Severity = "warning"
        if entry in PART_BOXES:
            advice = "taken as no box"
        elif entry in KEYPOINTS_3D:
            advice = "training leaves such rows out"
        else:
            severity, advice = "error", "correct these rows or take them out"
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        yield from on_rows(severity, entry, bad, "NaN or infinite", advice)
    for name, value in file.dictionary("misc").items():
        numbers = as_numbers(value)
        if numbers is not None and not np.isfinite(numbers).all():
            yield Finding("error", f"misc.{name}", "NaN or infinite", "correct it or leave it out")


def boxes(file: LenientFile) -> Iterator[Finding]:
    """Boxes have an area, which is at least partly in the image."""
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
        advice = "the person cannot be cropped" if is_body else "set its confidence to 0"
        yield from on_rows(severity, key, flat, "no area", f"{advice}; are they x, y, w, h?")
        yield from on_rows(severity, key, outside, "outside the image", advice)
        odd = meant & ((values[:, 4] < 0) | (values[:, 4] > 1))
        yield from on_rows(
            "warning", key, odd, "confidence not in 0..1", "0 means that none is there"
        )


def _is_outside(
    values: Float32[np.ndarray, "N 4"], image_size: Float32[np.ndarray, "N 2"]
) -> Bool[np.ndarray, " N"]:
    """Boxes beyond an edge of the image, which loaders leave out. Images of unknown size (0) have
    only a left and an upper edge, into which loaders shift boxes."""
    last = np.where(image_size > 0, image_size, np.inf)
    beyond = (values[:, :2] >= last) | (values[:, :2] + values[:, 2:] <= 0)
    return np.logical_or.reduce(beyond, axis=1) | ~have_area(values, image_size)


def rotations(file: LenientFile) -> Iterator[Finding]:
    """Angles of axis-angle vectors are below a full turn (in radians)."""
    names = [f"{f}.{name}" for f in FAMILIES for name in TRIPLES[f] if name != "transl"]
    for entry, values in file.known_numbers(names):
        if values[0].size % 3 == 0:
            angles = np.linalg.norm(values.reshape(len(values), -1, 3), axis=2)
            bad = (angles > _LARGEST_ANGLE).any(axis=1)
            advice = "give radians, and the shorter way round"
            yield from on_rows("warning", entry, bad, "turns beyond 360°", advice)


def coefficients(file: LenientFile) -> Iterator[Finding]:
    """Coefficients of shape and expression are plausible numbers of standard deviations."""
    names = [f"{f}.{name}" for f in FAMILIES for name in ("betas", "betas_neutral", "expression")]
    for entry, values in file.known_numbers(names):
        largest = np.abs(values.reshape(len(values), -1)).max(axis=1, initial=0)
        far = largest > _LARGEST_COEFFICIENT
        advice = "a body beyond five standard deviations; was another model fitted?"
        yield from on_rows("warning", entry, far, "beyond ±5", advice)
        if not entry.endswith("expression"):
            unused = (largest > LARGEST_TRAINED_BETA) & ~far
            advice = "training takes all betas of such rows as zero"
            yield from on_rows("info", entry, unused, "beyond ±3", advice)


def translations(file: LenientFile) -> Iterator[Finding]:
    """People are in front of the camera; rows of zeros are unknown."""
    for entry, values in file.known_numbers([f"{family}.transl" for family in FAMILIES]):
        if values.shape[1:] != (3,):
            continue
        known, depth = (values != 0).any(axis=1), values[:, 2]
        advice = "z is the depth in the camera's frame (x right, y down), not the world's"
        yield from on_rows("error", entry, known & (depth <= 0), "behind the camera", advice)
        advice = "metres are expected, not millimetres"
        yield from on_rows("warning", entry, depth > _FARTHEST_M, "farther than 200 m", advice)


def camera(file: LenientFile) -> Iterator[Finding]:
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


def genders(file: LenientFile) -> Iterator[Finding]:
    """Genders begin with m, f or n."""
    values = file.find("meta.gender")
    if isinstance(values, np.ndarray | list):
        bad = np.array([str(word)[:1].lower() not in _GENDERS for word in values], bool)
        advice = "use male, female or neutral; others count as neutral"
        yield from on_rows("warning", "meta.gender", bad, "unknown word", advice)


def hand_convention(file: LenientFile) -> Iterator[Finding]:
    """flat_hand_mean is present, and agrees with the table of datasets and with the poses."""
    known = source_of_file(file.path)
    try:
        flat = file.flat_hands()
    except (ValueError, TypeError):
        yield Finding("error", "misc.flat_hand_mean", "is neither True nor False", "set one")
        return
    entry = "misc.flat_hand_mean"
    hands = {f"{family}.{side}_hand_pose": side for family in FAMILIES for side in SIDES}
    hands = {hand: side for hand, side in hands.items() if file.find(hand) is not None}
    if flat is None and not hands:
        return
    if flat is None:
        taken = assumed_flat_hands(file.path)
        what = f"missing; taken as {taken}" + (f", as known of {known.name}" if known else "")
        yield Finding("warning", entry, what, "set it; True: hands are relative to the flat hand")
        flat = np.full(file.length, taken)
    elif known and bool(flat.all()) != known.flat_hands:
        what = f"{bool(flat.all())}, but files of {known.name} are known as {known.flat_hands}"
        advice = "the file's value is used, except by the published protocol"
        yield Finding("warning", entry, what, advice)
    if flat.all() or not flat.any():
        for hand, poses in file.known_numbers(hands):
            yield from _plausible(hand, poses, hands[hand], is_flat=bool(flat.all()))


def _plausible(
    entry: str, poses: Float32[np.ndarray, "N ..."], side: str, *, is_flat: bool
) -> Iterator[Finding]:
    """Relaxed hands are curled like the mean hand, so a flat average is suspicious."""
    share = mean_hand_share(poses, side)
    if share is None:
        return
    usual = f"with flat_hand_mean={is_flat} about {int(is_flat)} is usual"
    what = f"the average hand has {share:.2f} of the mean hand; {usual}"
    if is_flat and share < 0.5:
        advice = "flat_hand_mean should be False, unless all hands are flat"
        yield Finding("warning", entry, what, advice)
    elif not is_flat and abs(share) > 0.5:
        advice = "flat_hand_mean should be True" if share > 0 else "are these hands unknown?"
        yield Finding("warning", entry, what, advice)


def mean_hand_share(poses: Float[np.ndarray, "N ..."], side: str) -> float | None:
    """The share of the mean hand in the average of hand poses (15 rotations per row).

    It is about 0 for poses relative to the mean hand, 1 for poses relative to the flat hand, and -1
    for flat hands relative to the mean hand. Rows that are zero or not finite are ignored; None if
    too few remain.
    """
    flat = np.asarray(poses, np.float64).reshape(len(poses), -1)
    known = flat[np.isfinite(flat).all(axis=1) & (flat != 0).any(axis=1)]
    if len(known) < _FEWEST_HANDS or flat.shape[1] != 45:
        return None
    mean = np.array(HANDS_MEAN[side]).ravel()
    return float(known.mean(axis=0) @ mean / (mean @ mean))


def duplicates(file: LenientFile) -> Iterator[Finding]:
    """No person occurs twice: in the same image, with the same box and position."""
    paths, values = file.image_paths(), file.boxes("bbox_xywh")
    if values is None or paths is None:
        return
    columns = [np.unique(paths, return_inverse=True)[1][:, None], values[:, :4]]
    for _, pose in file.known_numbers([f"{family}.body_pose" for family in FAMILIES]):
        columns.append(pose.reshape(file.length, -1))
    rows = np.ascontiguousarray(np.concatenate(columns, axis=1, dtype=np.float64))
    _, first = np.unique(rows, axis=0, return_index=True)
    again = np.ones(file.length, bool)
    again[first] = False
    advice = "the person counts twice; take these rows out"
    yield from on_rows("warning", "image_path", again, "repeats an earlier row", advice)


def confidences(file: LenientFile) -> Iterator[Finding]:
    """Confidences of keypoints are between 0 and 1."""
    for dimensions, keys in ((2, KEYPOINTS_2D), (3, KEYPOINTS_3D)):
        for key, points in file.known_numbers(keys):
            if points.ndim == 3 and points.shape[2] == dimensions + 1:
                confidence = points[..., -1]
                bad = np.logical_or.reduce((confidence < 0) | (confidence > 1), axis=1)
                advice = "loaders that weigh by it expect shares"
                yield from on_rows("warning", key, bad, "confidence not in 0..1", advice)


def keypoint_positions(file: LenientFile) -> Iterator[Finding]:
    """2D keypoints are in the image or near it."""
    size = file.image_size
    known = (size > 0).all(axis=1)
    for key in KEYPOINTS_2D:
        found = file.keypoints(key)
        if found is None or found[0].shape[2] < 2:
            continue
        points, exists = found
        seen = _confident(points, 2) & exists
        near = ((points[..., :2] >= -size[:, None]) & (points[..., :2] <= 2 * size[:, None])).all(2)
        bad = known & (seen & ~near).any(axis=1)
        advice = "more than an image away; are they pixels of the whole image?"
        yield from on_rows("warning", key, bad, "keypoints far outside the image", advice)


def depths(file: LenientFile) -> Iterator[Finding]:
    """3D keypoints are in metres, in front of the camera."""
    root_aligned = bool(file.dictionary("misc").get("kps3d_root_aligned"))
    for key in KEYPOINTS_3D:
        found = file.keypoints(key)
        if found is None or found[0].shape[2] < 3:
            continue
        points, exists = found
        seen = (_confident(points, 3) & exists)[..., None]
        nearest = np.where(seen, points[..., :3], np.inf).min(axis=1)
        farthest = np.where(seen, points[..., :3], -np.inf).max(axis=1)
        behind, length = nearest[:, 2] <= 0, (farthest - nearest).max(axis=1)
        if not root_aligned:
            advice = "give the camera's frame (z forward), or set misc.kps3d_root_aligned"
            yield from on_rows("warning", key, behind, "points behind the camera", advice)
        advice = "metres are expected, not millimetres"
        yield from on_rows("error", key, length > _LARGEST_BODY_M, "a person over 5 m", advice)


def reprojection(file: LenientFile) -> Iterator[Finding]:
    """3D keypoints, projected by the camera of the file, match its 2D keypoints."""
    focal, center = file.camera("focal_length"), file.camera("principal_point")
    boxes = file.boxes("bbox_xywh")
    if focal is None or center is None or boxes is None:
        return
    if file.dictionary("misc").get("kps3d_root_aligned"):
        yield Finding("info", "keypoints3d", "root aligned: not compared with the 2D keypoints")
        return
    for key_2d, key_3d in _pairs(file):
        found_2d, found_3d = file.keypoints(key_2d), file.keypoints(key_3d)
        if found_2d is None or found_3d is None:
            continue
        (points_2d, exists_2d), (points_3d, exists_3d) = found_2d, found_3d
        seen = _confident(points_2d, 2) & _confident(points_3d, 3) & exists_2d & exists_3d
        seen &= points_3d[..., 2] > 0
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            pixels = project(points_3d[..., :3], focal[:, None], center[:, None])
            errors = np.linalg.norm(pixels - points_2d[..., :2], axis=2)
        seen &= np.isfinite(errors)
        rows = np.flatnonzero(seen.any(axis=1))
        if not len(rows):
            continue
        of_rows = np.full(file.length, np.nan)
        of_rows[rows] = np.nanmedian(np.where(seen, errors, np.nan)[rows], axis=1)
        median = float(np.median(of_rows[rows]))
        what = f"median of {median:.1f} px from '{key_2d}' when seen by the stated camera"
        yield Finding("info", key_3d, what)
        with np.errstate(invalid="ignore"):
            bad = of_rows > np.maximum(_LARGEST_ERROR * boxes[:, 2:4].max(axis=1), 2)
        advice = "camera, 3D or 2D keypoints do not belong together"
        yield from on_rows("warning", key_3d, bad, f"off the 2D keypoints; {what}", advice)


def _pairs(file: LenientFile) -> Iterator[tuple[str, str]]:
    """Names of 2D and 3D arrays of the same joints."""
    for key_3d in KEYPOINTS_3D:
        key_2d = key_3d.removesuffix("_cam").replace("3d", "2d")
        if file.get(key_2d) is not None and file.get(key_3d) is not None:
            yield key_2d, key_3d


def _confident(points: np.ndarray, dimensions: int) -> np.ndarray:
    """Which joints of a row are known: finite ones, with positive confidence if there is one."""
    finite = np.isfinite(points).all(axis=2)
    if points.shape[2] == dimensions:
        return finite & (points != 0).any(axis=2)
    return finite & (points[..., dimensions] > 0)


def images(file: LenientFile, folder: Path, sample: int | None) -> Iterator[Finding]:
    """Images exist, can be opened, and have the stated size; `sample`: number of images to check.

    Only their headers are read.
    """
    names = file.image_paths()
    if names is None:
        return
    different, image_of_row = np.unique(names, return_inverse=True)
    chosen = np.arange(len(different))
    if sample is not None and sample < len(different):
        generator = np.random.default_rng(_SEED)
        chosen = np.sort(generator.choice(len(different), sample, replace=False))
        yield Finding("info", "image_path", f"{sample} of {len(different)} images were checked")
    outside, missing, damaged, turned = (np.zeros(len(different), bool) for _ in range(4))
    sizes = np.zeros((len(different), 2))
    for i in with_progress(chosen.tolist(), len(chosen), "images"):
        path = folder / different[i]
        if not is_below(different[i]):
            outside[i] = True
        elif not path.is_file():
            missing[i] = True
        elif (found := image_sizes(path)) is None:
            damaged[i] = True
        else:
            turned[i], sizes[i] = found.is_turned, found.stored
    for marked, what, advice in (
        (outside, "not within the images", "strip what these paths begin with"),
        (missing, "no such image", f"looked for in {folder}; choose another --images, or take out"),
        (damaged, "no image, or damaged", "get the files again, or take these rows out"),
    ):
        yield from on_rows("error", "image_path", marked[image_of_row], what, advice)
    advice = "boxes and keypoints must be in pixels of the stored image, before it is turned"
    what = "is turned by its EXIF data"
    yield from on_rows("warning", "image_path", turned[image_of_row], what, advice)
    yield from _sizes(file, sizes[image_of_row].astype(int))


def _sizes(file: LenientFile, real: Int[np.ndarray, "N 2"]) -> Iterator[Finding]:
    """Sizes in meta are those of the images."""
    stated = file.image_size
    known = (stated > 0).all(axis=1) & (real > 0).all(axis=1)
    wrong = known & (stated != real).any(axis=1)
    swapped = wrong & (stated == real[:, ::-1]).all(axis=1)
    advice = "exchange meta.width and meta.height"
    yield from on_rows("error", "meta.height", swapped, "width and height exchanged", advice)
    advice = "boxes and keypoints may belong to images of another size"
    yield from on_rows("error", "meta.height", wrong & ~swapped, "not the image's size", advice)


def stated_sizes(file: LenientFile) -> Iterator[Finding]:
    """Sizes of images are present."""
    unknown = np.logical_or.reduce(file.image_size <= 0, axis=1)
    advice = "the published code needs it, unless its class knows the size of all images"
    yield from on_rows("warning", "meta.height", unknown, "size of the image unknown", advice)


_CHECKS: Final = (
    layout.readable,
    layout.required_entries,
    layout.container_flags,
    layout.texts,
    layout.row_counts_and_shapes,
    layout.masks,
    finite,
    boxes,
    rotations,
    coefficients,
    translations,
    camera,
    genders,
    hand_convention,
    duplicates,
    confidences,
    keypoint_positions,
    depths,
    reprojection,
    stated_sizes,
)
