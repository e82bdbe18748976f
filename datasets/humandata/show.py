"""Rows of a HumanData file drawn on their images."""

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8

from datasets.humandata.file import OpenedFile
from datasets.humandata.layout import subtract_mean_hand
from datasets.humandata.parameters import pose_smplx
from datasets.humandata.reader import Columns, read_humandata
from datasets.sample import read_pixels
from datasets.sources import source_of_file
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from human_models.joints import JOINT_PARTS, JOINTS, PART_ROOTS, edges
from utils.errors import UserError
from utils.files import path_within
from utils.image import write_image
from utils.iteration import with_progress
from utils.render import PERSON_COLOURS, Colour, MeshRenderer, PlacedMesh, draw_skeleton

log = logging.getLogger(__name__)

_BONES: Final = edges(JOINTS)
_COLOURS: Final[dict[str, Colour]] = dict(
    zip(("body", "left_hand", "right_hand", "face"), PERSON_COLOURS[:4], strict=True)
)
_MESH_COLOUR: Final[Colour] = (200, 205, 215)
_MESH_OPACITY: Final = 0.7
_TILE: Final = 480
"""Pixels of the longer side of a picture in the contact sheet."""
_FEW_ROWS: Final = 8


def draw_rows(
    file: Path, images: Path, output: Path, rows: Sequence[int], body_folder: Path
) -> None:
    """Write one picture for each row, and all of them on a contact sheet if there are several.

    Raises:
        UserError: the file is wrong, an image cannot be read, or the body model is missing.
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
    """Rows that "0,5,10-20" names (both ends included), or `count` of them drawn by the seed.

    Raises UserError for what is no such list, or rows that the file has not.
    """
    if text is None:
        count = min(_FEW_ROWS if count is None else count, length)
        drawn = np.random.default_rng(seed).choice(length, count, replace=False)
        return sorted(drawn.tolist())
    rows: list[int] = []
    for piece in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", piece.strip())
        if found is None:
            raise UserError(f"--rows {text}: '{piece}' is no row; say for example 0,5,10-20")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < length:
            raise UserError(f"--rows {text}: '{piece}', but the file has rows 0 to {length - 1}")
        rows += range(first, last + 1)
    return rows


class Pictures:
    """Draws rows of one file."""

    def __init__(self, path: Path, images: Path, body_folder: Path) -> None:
        """Raises UserError where the file is wrong or the body model is missing."""
        self.images = images
        self.family, _, columns = read_humandata(path)
        known = source_of_file(path)
        stated = np.full(len(columns["row"]), known.flat_hands if known else False)
        self.columns: Columns = subtract_mean_hand(columns, columns.get("flat_hands", stated))
        file = OpenedFile(path)
        self.focal, self.center = file.camera("focal_length"), file.camera("principal_point")
        self.bodies: BodyLibrary | None = None
        if self.family != "smplx" or "global_orient" not in columns:
            log.info("no parameters of SMPL-X: boxes and keypoints alone are drawn")
        elif self.focal is None or self.center is None:
            log.info("no focal_length and principal_point: the body is not drawn")
        else:
            self.bodies = BodyLibrary(find_model_folder(body_folder))
            body = self.bodies.smplx()
            self.renderer = MeshRenderer(body.faces.numpy(), body.vertex_count)

    def draw(self, row: int) -> UInt8[np.ndarray, "H W 3"]:
        """Raises UserError where the image cannot be read."""
        picture = read_pixels(path_within(self.images, str(self.columns["image_path"][row])))
        picture = self._with_body(picture, row)
        joints = np.full((len(JOINTS), 2), np.nan)
        stated = self.columns["joints_2d"][row]
        seen = (self.columns["joints_valid"][row] > 0) & (stated != 0).any(axis=1)
        joints[seen] = stated[seen]
        for part, colour in _COLOURS.items():
            of_part = np.full_like(joints, np.nan)
            shown = [*range(len(JOINTS))[JOINT_PARTS[part]], PART_ROOTS[part]]
            of_part[shown] = joints[shown]
            picture = draw_skeleton(picture, of_part, _BONES, colour)
        boxes = [self.columns["body_box"][row], *self.columns["part_boxes"][row]]
        for box, colour in zip(boxes, _COLOURS.values(), strict=True):
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
            focal_px=(float(self.focal[row, 0]), float(self.focal[row, 1])),
            princpt_px=(float(self.center[row, 0]), float(self.center[row, 1])),
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
    whole = [*tiles, *blanks]
    lines = [np.hstack(whole[i : i + columns]) for i in range(0, len(whole), columns)]
    return np.vstack(lines)
