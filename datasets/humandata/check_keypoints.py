"""Checks of a HumanData file's keypoints: confidence, place, depth, and 2D against 3D."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from datasets.humandata.finding import Finding, OpenedFile, on_rows
from datasets.humandata.layout import KEYPOINTS_2D, KEYPOINTS_3D
from utils.camera import DEPTH_EPSILON

_LARGEST_ERROR: Final = 0.03
"""Of reprojection, as a share of the longer side of a person's box."""
_LARGEST_BODY_M: Final = 5.0


def confidences(file: OpenedFile) -> Iterator[Finding]:
    for dimensions, keys in ((2, KEYPOINTS_2D), (3, KEYPOINTS_3D)):
        for key in keys:
            points = file.numbers(key)
            if points is not None and points.ndim == 3 and points.shape[2] == dimensions + 1:
                confidence = points[..., -1]
                odd = (confidence < 0) | (confidence > 1)
                bad = np.logical_or.reduce(odd, axis=1)
                advice = "loaders that weigh by it expect shares"
                yield from on_rows("warning", key, bad, "confidence not in 0..1", advice)


def places(file: OpenedFile) -> Iterator[Finding]:
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


def depths(file: OpenedFile) -> Iterator[Finding]:
    """3D keypoints are metres before the camera."""
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
            advice = "give the camera's frame (z forward), or say misc.kps3d_root_aligned"
            yield from on_rows("warning", key, behind, "points behind the camera", advice)
        advice = "metres are expected, not millimetres"
        yield from on_rows("error", key, length > _LARGEST_BODY_M, "a person over 5 m", advice)


def reprojection(file: OpenedFile) -> Iterator[Finding]:
    """3D keypoints, seen by the camera that the file states, lie on its 2D keypoints."""
    focal, center = file.camera("focal_length"), file.camera("principal_point")
    boxes = file.boxes("bbox_xywh")
    if focal is None or center is None or boxes is None:
        return
    if file.dictionary("misc").get("kps3d_root_aligned"):
        yield Finding("info", "keypoints3d", "root aligned: not compared with the 2D keypoints")
        return
    for key_2d, key_3d in _pairs(file):
        flat, solid = file.keypoints(key_2d), file.keypoints(key_3d)
        if flat is None or solid is None:
            continue
        (points_2d, exists_2d), (points_3d, exists_3d) = flat, solid
        seen = _confident(points_2d, 2) & _confident(points_3d, 3) & exists_2d & exists_3d
        depth = points_3d[..., 2:3]
        seen &= depth[..., 0] > 0
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            pixels = points_3d[..., :2] / (depth + DEPTH_EPSILON) * focal[:, None] + center[:, None]
            errors = np.linalg.norm(pixels - points_2d[..., :2], axis=2)
        seen &= np.isfinite(errors)
        rows = np.flatnonzero(seen.any(axis=1))
        if not len(rows):
            continue
        of_rows = np.full(file.length, np.nan)
        of_rows[rows] = np.nanmedian(np.where(seen, errors, np.nan)[rows], axis=1)
        median = float(np.median(of_rows[rows]))
        told = f"median of {median:.1f} px from '{key_2d}' when seen by the stated camera"
        yield Finding("info", key_3d, told)
        with np.errstate(invalid="ignore"):
            bad = of_rows > np.maximum(_LARGEST_ERROR * boxes[:, 2:4].max(axis=1), 2)
        advice = "camera, 3D or 2D keypoints do not belong together"
        yield from on_rows("warning", key_3d, bad, f"off the 2D keypoints; {told}", advice)


def _pairs(file: OpenedFile) -> Iterator[tuple[str, str]]:
    """2D and 3D arrays of the same source."""
    for key_3d in KEYPOINTS_3D:
        key_2d = key_3d.removesuffix("_cam").replace("3d", "2d")
        if file.get(key_2d) is not None and file.get(key_3d) is not None:
            yield key_2d, key_3d


def _confident(points: np.ndarray, dimensions: int) -> np.ndarray:
    """Which joints a row knows: those of positive confidence, if it has any, and finite."""
    finite = np.isfinite(points).all(axis=2)
    if points.shape[2] == dimensions:
        return finite & (points != 0).any(axis=2)
    return finite & (points[..., dimensions] > 0)
