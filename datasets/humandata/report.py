"""Errors and content of HumanData files: as text, as JSON, and drawn on images."""

import json
import logging
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datasets.humandata.check import check_humandata
from datasets.humandata.check_layout import Finding, Severity
from datasets.humandata.file import (
    FAMILIES,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    LARGEST_TRAINED_BETA,
    PART_BOXES,
    subtract_mean_hand,
)
from datasets.humandata.lenient import LenientFile
from datasets.humandata.parameters import pose_smplx
from datasets.humandata.reader import Columns, read_humandata
from datasets.sample import read_pixels
from datasets.sources import assumed_flat_hands
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from human_models.joints import JOINT_PARTS, JOINTS, PART_ROOTS, edges
from utils.camera import Camera, have_area
from utils.errors import UserError, escape_controls
from utils.files import path_within
from utils.image import write_image
from utils.iteration import with_progress
from utils.render import PERSON_COLOURS, Colour, MeshRenderer, PlacedMesh, draw_skeleton

log = logging.getLogger(__name__)

FAULTY, UNREADABLE = 1, 2
_COLOURS: Final[dict[Severity, str]] = {"error": "red", "warning": "yellow", "info": "dim"}
_POSES: Final = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")
_SMALL_PX: Final = 64
_SIZES_SHOWN: Final = 5


def report_checks(
    files: Sequence[Path], images: Path | None, images_sample: int | None, *, as_json: bool
) -> int:
    """Write the findings about files to standard output.

    Returns the exit status: 0: no errors, 1: errors, 2: a file cannot be read.
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
        reports.append({"file": str(path), "findings": [asdict(finding) for finding in findings]})
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
    for finding in findings:
        colour = _COLOURS[finding.severity]
        texts = [finding.severity, finding.entry, _rows(finding), finding.what, finding.advice]
        table.add_row(*map(_shown, texts), style=colour)
    console.print(table)


def _rows(finding: Finding) -> str:
    if not finding.rows:
        return ""
    shown = ", ".join(map(str, finding.first_rows))
    more = ", ..." if finding.rows > len(finding.first_rows) else ""
    return f"{finding.rows}: {shown}{more}"


def report_statistics(files: Sequence[Path], *, as_json: bool) -> None:
    """Write statistics of files to standard output.

    Raises:
        UserError: a file is damaged.
    """
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
    """A text made safe for a console: names may contain control characters or markup."""
    return escape(escape_controls(text, keep="\n"))


def _write_json(content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    shown = (c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    sys.stdout.write("".join(shown) + "\n")


def humandata_statistics(path: Path) -> dict[str, Any]:
    """Statistics of a file, for JSON. Lengths in pixels and metres, rotations in degrees.

    Raises:
        UserError: the file is damaged.
    """
    file = LenientFile(path)
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
    """The number of rows with each image size, the most frequent first."""
    if "image_size" not in columns:
        return {}
    sizes, counts = np.unique(columns["image_size"].astype(int), axis=0, return_counts=True)
    order = np.argsort(-counts)[:_SIZES_SHOWN].tolist()
    return {f"{sizes[i, 0]}x{sizes[i, 1]}": int(counts[i]) for i in order}


def _known(columns: Columns) -> dict[str, float]:
    """The share of rows with each known part; hands that are all zero are unknown."""
    known = {
        name.removesuffix("_pose"): _share((columns[name] != 0).any(axis=(1, 2)))
        for name in ("body_pose", "left_hand_pose", "right_hand_pose")
        if name in columns
    }
    return known | {"face": float({"jaw_pose", "expression"} <= columns.keys())}


def _hand_convention(file: LenientFile) -> str:
    flat = file.flat_hands()
    if flat is None:
        return "not stated"
    return "yes" if flat.all() else "of some rows" if flat.any() else "no"


def _rotation(pose: Float[np.ndarray, "N ..."]) -> dict[str, float]:
    """Statistics of the angles of joints, and of their variation over the rows."""
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


_BONES: Final = edges(JOINTS)
_PART_COLOURS: Final[dict[str, Colour]] = dict(
    zip(("body", "left_hand", "right_hand", "face"), PERSON_COLOURS[:4], strict=True)
)
_MESH_COLOUR: Final[Colour] = (200, 205, 215)
_MESH_OPACITY: Final = 0.7
_TILE: Final = 480
"""Longer side of a picture in the contact sheet, in pixels."""
_FEW_ROWS: Final = 8


def draw_rows(
    file: Path, images: Path, output: Path, rows: Sequence[int], body_folder: Path
) -> None:
    """Write one picture for each row, and all of them on a contact sheet if there are several.

    Raises:
        UserError: the file is damaged, an image cannot be read, or the body model is missing.
    """
    pictures = Pictures(file, images, body_folder)
    drawn = []
    for row in with_progress(rows, len(rows), "rows"):
        picture = pictures.draw(row)
        write_image(output / f"row_{row:06d}.jpg", picture)
        drawn.append(_tile(picture, f"row {row}"))
    if len(drawn) > 1:
        write_image(output / "contact_sheet.jpg", _contact_sheet(drawn))


def choose_rows(text: str | None, count: int | None, seed: int, length: int) -> list[int]:
    """The rows of a list such as "0,5,10-20" (ends included), or `count` of them at random.

    Raises:
        UserError: the text is not such a list, or the file does not have these rows.
    """
    if text is None:
        count = min(_FEW_ROWS if count is None else count, length)
        drawn = np.random.default_rng(seed).choice(length, count, replace=False)
        return sorted(drawn.tolist())
    rows: list[int] = []
    for piece in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", piece.strip())
        if found is None:
            raise UserError(f"--rows {text}: '{piece}' is not a row; give for example 0,5,10-20")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < length:
            raise UserError(f"--rows {text}: '{piece}', but the file has rows 0 to {length - 1}")
        rows += range(first, last + 1)
    return rows


class Pictures:
    """Draws the rows of one file."""

    def __init__(self, path: Path, images: Path, body_folder: Path) -> None:
        """
        Raises:
            UserError: the file is damaged or the body model is missing.
        """
        self.images = images
        self.family, _, columns = read_humandata(path)
        assumed = np.full(len(columns["row"]), assumed_flat_hands(path))
        self.columns: Columns = subtract_mean_hand(columns, columns.get("flat_hands", assumed))
        file = LenientFile(path)
        self.focal, self.center = file.camera("focal_length"), file.camera("principal_point")
        self.bodies: BodyLibrary | None = None
        if self.family != "smplx" or "global_orient" not in columns:
            log.info("no parameters of SMPL-X: only boxes and keypoints are drawn")
        elif self.focal is None or self.center is None:
            log.info("no focal_length and principal_point: the body is not drawn")
        else:
            self.bodies = BodyLibrary(find_model_folder(body_folder))
            body = self.bodies.smplx()
            self.renderer = MeshRenderer(body.faces.numpy(), body.vertex_count)

    def draw(self, row: int) -> UInt8[np.ndarray, "H W 3"]:
        """The picture of a row.

        Raises:
            UserError: the image cannot be read.
        """
        picture = read_pixels(path_within(self.images, str(self.columns["image_path"][row])))
        picture = self._with_body(picture, row)
        joints = np.full((len(JOINTS), 2), np.nan)
        stated = self.columns["joints_2d"][row]
        seen = (self.columns["joints_valid"][row] > 0) & (stated != 0).any(axis=1)
        joints[seen] = stated[seen]
        for part, colour in _PART_COLOURS.items():
            of_part = np.full_like(joints, np.nan)
            shown = [*range(len(JOINTS))[JOINT_PARTS[part]], PART_ROOTS[part]]
            of_part[shown] = joints[shown]
            picture = draw_skeleton(picture, of_part, _BONES, colour)
        boxes = [self.columns["body_box"][row], *self.columns["part_boxes"][row]]
        for box, colour in zip(boxes, _PART_COLOURS.values(), strict=True):
            if len(box) == 4 or box[4] > 0:
                _draw_box(picture, box, colour)
        return picture

    def _with_body(
        self, picture: UInt8[np.ndarray, "H W 3"], row: int
    ) -> UInt8[np.ndarray, "H W 3"]:
        if self.bodies is None or self.focal is None or self.center is None:
            return picture
        parameters = dict(self.columns)
        if "betas_neutral" in parameters:
            parameters["betas"] = parameters["betas_neutral"]
        vertices = pose_smplx(self.bodies.smplx(), parameters, slice(row, row + 1)).vertices
        assert vertices is not None
        mesh = PlacedMesh(
            vertices_cam_m=vertices[0].numpy(force=True),
            camera=Camera(
                (float(self.focal[row, 0]), float(self.focal[row, 1])),
                (float(self.center[row, 0]), float(self.center[row, 1])),
            ),
            colour=_MESH_COLOUR,
        )
        return self.renderer.overlay(picture, [mesh], _MESH_OPACITY)


def _draw_box(picture: UInt8[np.ndarray, "H W 3"], box: np.ndarray, colour: Colour) -> None:
    if np.isfinite(box).all() and np.abs(box).max() < 1e5:
        left, top, width, height = np.rint(box[:4]).astype(int).tolist()
        thickness = 1 + max(picture.shape) // 1000
        cv2.rectangle(picture, (left, top), (left + width, top + height), colour, thickness)


def _tile(picture: UInt8[np.ndarray, "H W 3"], label: str) -> UInt8[np.ndarray, "T T 3"]:
    scale = _TILE / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    tile = np.full((_TILE, _TILE, 3), 24, np.uint8)
    tile[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        place = (8, _TILE - 10)
        cv2.putText(
            tile, label, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, thickness, cv2.LINE_AA
        )
    return tile


def _contact_sheet(tiles: Sequence[UInt8[np.ndarray, "T T 3"]]) -> UInt8[np.ndarray, "H W 3"]:
    columns = math.ceil(math.sqrt(len(tiles)))
    blanks = [np.full_like(tiles[0], 24)] * (-len(tiles) % columns)
    cells = [*tiles, *blanks]
    lines = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    return np.vstack(lines)
