"""What HumanData files hold and what is wrong with them, for readers and as JSON."""

import json
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datasets.humandata.check import LARGEST_TRAINED_BETA, check_humandata
from datasets.humandata.check_layout import Finding, Severity
from datasets.humandata.file import OpenedFile
from datasets.humandata.layout import (
    FAMILIES,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    PART_BOXES,
)
from datasets.humandata.reader import Columns, read_humandata
from utils.box import have_area
from utils.errors import UserError, escape_controls

log = logging.getLogger(__name__)

FAULTY, UNREADABLE = 1, 2
_COLOURS: Final[dict[Severity, str]] = {"error": "red", "warning": "yellow", "info": "dim"}
_POSES: Final = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")
_SMALL_PX: Final = 64
_SIZES_SHOWN: Final = 5


def report_checks(
    files: Sequence[Path], images: Path | None, images_sample: int | None, *, as_json: bool
) -> int:
    """Write what is wrong with files to standard output.

    Returns the exit status: 0 where no file has errors, 1: errors, 2: a file cannot be read.
    """
    status = 0
    reports: list[dict[str, Any]] = []
    for path in files:
        try:
            findings = check_humandata(path, images, images_sample=images_sample)
        except UserError as error:
            log.error("error: %s", error)
            status = UNREADABLE
            reports.append({"file": str(path), "unreadable": str(error)})
            continue
        if any(finding.severity == "error" for finding in findings):
            status = max(status, FAULTY)
        reports.append({"file": str(path), "findings": [asdict(one) for one in findings]})
        if not as_json:
            _show_findings(path, findings)
    if as_json:
        _write_json(reports)
    return status


def _show_findings(path: Path, findings: Sequence[Finding]) -> None:
    console = Console()
    counts = Counter(finding.severity for finding in findings)
    summary = ", ".join(
        f"{counts[severity]} {severity}{'s' if counts[severity] > 1 and severity != 'info' else ''}"
        for severity in _COLOURS
        if counts[severity]
    )
    console.print(f"{_shown(str(path))}: {summary or 'faultless'}", soft_wrap=True)
    if not findings:
        return
    table = Table("", "entry", "rows", "what is wrong", "what to do")
    for one in findings:
        colour = _COLOURS[one.severity]
        texts = [one.severity, one.entry, _rows(one), one.what, one.advice]
        table.add_row(*map(_shown, texts), style=colour)
    console.print(table)


def _rows(finding: Finding) -> str:
    if not finding.rows:
        return ""
    shown = ", ".join(map(str, finding.first_rows))
    more = ", ..." if finding.rows > len(finding.first_rows) else ""
    return f"{finding.rows}: {shown}{more}"


def report_statistics(files: Sequence[Path], *, as_json: bool) -> None:
    """Write what is in files to standard output; raises UserError where one is wrong."""
    reports = {str(path): humandata_statistics(path) for path in files}
    if as_json:
        _write_json([{"file": path, **report} for path, report in reports.items()])
        return
    table = Table("", *(_shown(Path(path).name) for path in reports))
    for name in next(iter(reports.values())):
        cells = [_as_text(report[name]) for report in reports.values()]
        if any(cells):
            table.add_row(name.replace("_", " "), *map(_shown, cells))
    Console().print(table)


def _as_text(value: Any, separator: str = "\n") -> str:
    if isinstance(value, dict):
        return separator.join(f"{key} {_as_text(part, ', ')}" for key, part in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def _shown(text: str) -> str:
    """The text for a console: names from outside may hold control characters, or markup."""
    return escape(escape_controls(text, keep="\n"))


def _write_json(content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    shown = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    sys.stdout.write("".join(shown) + "\n")


def humandata_statistics(path: Path) -> dict[str, Any]:
    """Numbers of a file, as JSON takes them. Lengths in pixels and metres, rotations in degrees.

    Raises UserError where the file is wrong.
    """
    file = OpenedFile(path)
    _, length, columns = read_humandata(path)
    images, people = np.unique(columns["image_path"], return_counts=True)
    boxes = columns["body_box"]
    longer = np.nan_to_num(boxes[:, 2:].max(axis=1))
    return {
        "rows": length,
        "images": len(images),
        "people_per_image": {"mean": round(length / len(images), 2), "max": int(people.max())},
        "parameters": {
            name: sorted(file.dictionary(name)) for name in FAMILIES if name in file.names
        },
        "keypoints": {
            key: int(found[1].sum())
            for key in (*KEYPOINTS_2D, *KEYPOINTS_3D)
            if (found := file.keypoints(key)) is not None
        },
        "image_sizes": _image_sizes(columns),
        "box_longer_side_px": _spread(longer),
        "boxes_below_64_px": _share(longer < _SMALL_PX),
        "part_boxes": {
            key.removesuffix("_bbox_xywh"): _share(
                (columns["part_boxes"][:, i, 4] > 0)
                & have_area(columns["part_boxes"][:, i, :4], file.image_size)
            )
            for i, key in enumerate(PART_BOXES)
        },
        "known": _known(columns),
        "hands_from_flat_hand": _hand_convention(file),
        "pose_degrees": {name: _rotation(columns[name]) for name in _POSES if name in columns},
        "betas": _coefficients(columns, "betas"),
        "expression": _coefficients(columns, "expression"),
        "depth_m": _depth(columns),
    }


def _image_sizes(columns: Columns) -> dict[str, int]:
    """How many rows have images of a size, the most frequent sizes first."""
    if "image_size" not in columns:
        return {}
    sizes, counts = np.unique(columns["image_size"].astype(int), axis=0, return_counts=True)
    order = np.argsort(-counts)[:_SIZES_SHOWN].tolist()
    return {f"{sizes[i, 0]}x{sizes[i, 1]}": int(counts[i]) for i in order}


def _known(columns: Columns) -> dict[str, float]:
    """Share of rows that know a part: hands that are all zero are unknown."""
    known = {
        name.removesuffix("_pose"): _share((columns[name] != 0).any(axis=(1, 2)))
        for name in ("body_pose", "left_hand_pose", "right_hand_pose")
        if name in columns
    }
    return known | {"face": float({"jaw_pose", "expression"} <= columns.keys())}


def _hand_convention(file: OpenedFile) -> str:
    flat = file.flat_hands()
    if flat is None:
        return "not stated"
    return "yes" if flat.all() else "of some rows" if flat.any() else "no"


def _rotation(pose: Float[np.ndarray, "N ..."]) -> dict[str, float]:
    """How far joints are turned, and how much that differs over the rows."""
    angles = np.degrees(np.linalg.norm(pose.reshape(len(pose), -1, 3), axis=2))
    spread = pose.reshape(len(pose), -1, 3).std(axis=0)
    return {
        "mean_angle": _round(np.nanmean(angles)),
        "largest_angle": _round(np.nanmax(angles)),
        "standard_deviation": _round(np.degrees(np.linalg.norm(spread, axis=1)).mean()),
    }


def _coefficients(columns: Columns, name: str) -> Mapping[str, Any]:
    if name not in columns:
        return {}
    values = columns[name]
    return {
        "mean": [_round(value) for value in values.mean(axis=0)],
        "standard_deviation": [_round(value) for value in values.std(axis=0)],
        "largest": _round(np.abs(values).max()),
        "rows_beyond_3": _share((np.abs(values) > LARGEST_TRAINED_BETA).any(axis=1)),
        "rows_zero": _share(np.logical_and.reduce(values == 0, axis=1)),
    }


def _depth(columns: Columns) -> Mapping[str, float]:
    if "transl" not in columns:
        return {}
    known = (columns["transl"] != 0).any(axis=1)
    return _spread(columns["transl"][known, 2])


def _spread(values: Float[np.ndarray, " N"]) -> dict[str, float]:
    if not len(values):
        return {}
    quantiles = np.nanquantile(values, (0, 0.05, 0.5, 0.95, 1)).tolist()
    return dict(zip(("least", "5%", "median", "95%", "most"), map(_round, quantiles), strict=True))


def _share(marked: Any) -> float:
    return _round(np.mean(marked))


def _round(value: float | np.floating) -> float:
    return round(float(value), 3)
