"""The files of body models: their places, names and content.

There are two sets of files: the licensed ones of SMPL-X and SMPL, which users provide, and the open
body in `human_models/stand_in`, which replaces them if they are missing. Both have

    smplx/SMPLX_{NEUTRAL,MALE,FEMALE}.npz or .pkl        smpl/SMPL_{...}.pkl or .npz
    smplx/SMPLX_to_J14.pkl                               smplx/MANO_SMPLX_vertex_ids.pkl
    smplx/SMPL-X__FLAME_vertex_ids.npy                   smplx/smplx2smpl.pkl

Files elsewhere in the folder, where archives unpack them (models/smplx/, ...), are found as well,
and so are names in other cases; those above have priority.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import scipy  # loads its parts on first use; most files need none
from jaxtyping import Float, Int

from human_models.joints import RIG_PARENTS, SMPL_PARENTS
from human_models.safe_pickle import load_npy, load_npz, load_pickle
from utils.errors import UserError

Rig = Literal["smplx", "smpl"]
Gender = Literal["neutral", "male", "female"]

log = logging.getLogger(__name__)

GENDERS: Final[tuple[Gender, ...]] = ("neutral", "male", "female")
STAND_IN: Final = Path(__file__).parent / "stand_in"
STAND_IN_NAME: Final = "open body (stand-in)"

_PARENTS: Final = {"smplx": RIG_PARENTS, "smpl": SMPL_PARENTS}
_VERTICES: Final = {"smplx": 10475, "smpl": 6890}
_PAGES: Final = {"smplx": "https://smpl-x.is.tue.mpg.de", "smpl": "https://smpl.is.tue.mpg.de"}
_NAMES: Final = {"smplx": "SMPL-X", "smpl": "SMPL"}
_COMPONENTS: Final = 10
"""Of shape, and of expression: as many as networks estimate."""
_DEEPEST: Final = 4
_MOST_FOLDERS: Final = 1000
"""Largest number of folders to search for files of body models."""


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Points inside triangles of the mesh: their three vertices and barycentric weights."""

    corners: Int[np.ndarray, "*L 3"]
    barycentrics: Float[np.ndarray, "*L 3"]


@dataclass(frozen=True, eq=False)
class BodyData:
    """The content of a body model file; float32, metres, y up, facing +z.

    V vertices, J joints, S shape and E expression components, P = (J - 1) * 9 pose features.
    Parts that only SMPL-X has (expressions, mean hands, landmarks) are empty or None for SMPL.
    """

    rig: Rig
    gender: Gender
    name: str
    source: Path
    template: Float[np.ndarray, "V 3"]
    shape_directions: Float[np.ndarray, "V 3 S"]
    expression_directions: Float[np.ndarray, "V 3 E"]
    pose_directions: Float[np.ndarray, "V 3 P"]
    joint_regressor: Float[np.ndarray, "J V"]
    weights: Float[np.ndarray, "V J"]
    faces: Int[np.ndarray, "F 3"]
    parents: tuple[int, ...]
    hands_mean: dict[str, Float[np.ndarray, "45"]]
    landmarks: Landmarks | None
    contour: Landmarks | None


@dataclass(frozen=True)
class ModelFolder:
    """A folder of body models, and the name of the body model in results."""

    path: Path
    name: str


def find_model_folder(path: Path) -> ModelFolder:
    """The folder of the licensed files if it has them, else (with a warning) that of the open body.

    Files in smplx/ or models/ beside the folder, where archives unpack them, are found as well.

    Raises:
        UserError: both are missing, or an archive of the licensed files is not unpacked.
    """
    chose_stand_in = path.resolve() == STAND_IN.resolve()
    beside = () if chose_stand_in else (path.parent / "smplx", path.parent / "models")
    for place in (path, *beside):
        found = _find_smplx(place)
        if found is not None:
            if found.parent != path / "smplx":
                log.info("SMPL-X: files of %s", found.parent)
            return ModelFolder(place, STAND_IN_NAME if chose_stand_in else _NAMES["smplx"])
    if chose_stand_in or _find_smplx(STAND_IN) is None:
        raise _missing(path / "smplx" / "SMPLX_NEUTRAL.npz", "smplx")
    archive = next((file for file in _files_below(path) if _is_archive(file.name)), None)
    if archive is not None:
        raise UserError(f"{archive} is not unpacked; unpack it where it is")
    log.warning(
        "no SMPL-X files in %s: using the %s in %s. For results with SMPL-X itself, put its files "
        "(from %s) there",
        *(path, STAND_IN_NAME, STAND_IN, _PAGES["smplx"]),
    )
    return ModelFolder(STAND_IN, STAND_IN_NAME)


def _is_archive(name: str) -> bool:
    return "smplx" in name.lower() and name.lower().endswith((".zip", ".rar", ".7z", ".tar.gz"))


def _find_smplx(folder: Path) -> Path | None:
    return _find(folder, "smplx", [name for gender in GENDERS for name in _names("smplx", gender)])


def _find(folder: Path, subfolder: str, names: Sequence[str]) -> Path | None:
    """The first of these names in the subfolder, else the nearest file elsewhere."""
    for name in names:
        if (folder / subfolder / name).is_file():
            return folder / subfolder / name
    ranks = {name.lower(): rank for rank, name in reversed(list(enumerate(names)))}
    found = [
        (ranks[file.name.lower()], len(file.parts), file)
        for file in _files_below(folder)
        if file.name.lower() in ranks
    ]
    return min(found)[-1] if found else None


def _files_below(folder: Path) -> Iterator[Path]:
    """Files in a folder and its subfolders, up to the depth and number that archives have."""
    for count, (place, folders, files) in enumerate(os.walk(folder)):
        if count >= _MOST_FOLDERS:
            return
        if len(Path(place).parts) - len(folder.parts) >= _DEEPEST:
            folders.clear()
        folders.sort()
        yield from (Path(place, name) for name in sorted(files))


def _names(rig: Rig, gender: Gender) -> tuple[str, ...]:
    """Possible names of a model file: first ours, then those of downloads."""
    if rig == "smplx":
        usual = [f"SMPLX_{gender.upper()}.{suffix}" for suffix in ("npz", "pkl")]
        return (*usual, f"SMPLX_{gender.upper()}_2020.npz")
    letter = "neutral" if gender == "neutral" else gender[0]
    return (
        *(f"SMPL_{gender.upper()}.{suffix}" for suffix in ("pkl", "npz")),
        *(
            f"basic{model}_{letter}_lbs_10_207_0_v{version}.pkl"
            for version in ("1.1.0", "1.0.0")
            for model in ("model", "Model")
        ),
    )


def _missing(file: Path, rig: Rig) -> UserError:
    return UserError(
        f"{file.name} is missing; get it from {_PAGES[rig]} (registration, licence) and put it "
        f"at {file}"
    )


def read_body(folder: ModelFolder, rig: Rig, gender: Gender = "neutral") -> BodyData:
    """Read a body model with its first ten components of shape and (SMPL-X) of expression.

    Raises:
        UserError: the file is missing, damaged, of another model, or has too few components.
    """
    names = _names(rig, gender)
    source = _find(folder.path, rig, names)
    if source is None:
        raise _missing(folder.path / rig / names[0], rig)
    if "_2020" in source.name:
        log.warning("%s: a later model with other shapes; %s is missing", source, names[0])
    content = _read_arrays(source)
    shapes, expressions = _components(content, rig, source)
    arrays = {
        "template": _array(content, "v_template", source),
        "shape_directions": shapes,
        "expression_directions": expressions,
        "pose_directions": _array(content, "posedirs", source),
        "joint_regressor": _array(content, "J_regressor", source),
        "weights": _array(content, "weights", source),
        "faces": _indices(content, "f", source),
    }
    parents = [int(p) for p in _indices(content, "kintree_table", source)[0]]
    parents[0] = -1  # stored as -1 or, in unsigned numbers, as 4294967295
    hands_mean = {
        side: _array(content, f"hands_mean{side[0]}", source)
        for side in ("left", "right")
        if rig == "smplx"
    }
    _check(rig, source, arrays, parents, hands_mean)
    faces = arrays["faces"]
    return BodyData(
        rig=rig,
        gender=gender,
        name=folder.name if folder.name == STAND_IN_NAME else _NAMES[rig],
        source=source,
        **arrays,
        parents=tuple(parents),
        hands_mean=hands_mean,
        landmarks=_landmarks(content, "lmk", faces, source) if rig == "smplx" else None,
        contour=_landmarks(content, "dynamic_lmk", faces, source) if rig == "smplx" else None,
    )


def _components(
    content: dict[str, object], rig: Rig, source: Path
) -> tuple[np.ndarray, np.ndarray]:
    """The first directions of shape and expression."""
    directions = _array(content, "shapedirs", source)
    parts = {"shape": directions[..., :_COMPONENTS]}
    if rig == "smplx":
        first = 300 if directions.shape[-1] >= 400 else 10  # large files have 300 + 100
        parts["expression"] = directions[..., first : first + _COMPONENTS]
    for kind, part in parts.items():
        if part.shape[-1] < _COMPONENTS:
            found = f"{part.shape[-1]} {kind} components"
            raise UserError(f"{source} has {found}, but {_COMPONENTS} are needed")
    return parts["shape"], parts.get("expression", directions[..., :0])


def _check(
    rig: Rig,
    source: Path,
    arrays: dict[str, np.ndarray],
    parents: list[int],
    hands_mean: dict[str, np.ndarray],
) -> None:
    vertices, joints = _VERTICES[rig], len(_PARENTS[rig])
    consistent = (
        arrays["template"].shape == (vertices, 3)
        and tuple(parents) == _PARENTS[rig]
        and arrays["shape_directions"].shape[:2] == (vertices, 3)
        and arrays["pose_directions"].shape == (vertices, 3, (joints - 1) * 9)
        and arrays["joint_regressor"].shape == (joints, vertices)
        and arrays["weights"].shape == (vertices, joints)
        and arrays["faces"].ndim == 2
        and arrays["faces"].max() < vertices
        and all(mean.shape == (45,) for mean in hands_mean.values())
    )
    if not consistent:
        raise UserError(
            f"{source} is not an {_NAMES[rig]} model of {vertices} vertices and {joints} "
            f"joints (it has {len(arrays['template'])} and {len(parents)}); get it from "
            f"{_PAGES[rig]}"
        )


def _read_arrays(source: Path) -> dict[str, object]:
    if source.suffix == ".npz":
        return dict(load_npz(source))
    content = load_pickle(source)
    if not isinstance(content, dict):
        raise UserError(f"{source} contains no dictionary of arrays; it is not a body model")
    return content


def _array(content: dict[str, object], key: str, source: Path) -> Float[np.ndarray, "..."]:
    return np.ascontiguousarray(_numbers(content, key, source), dtype=np.float32)


def _indices(content: dict[str, object], key: str, source: Path) -> Int[np.ndarray, "..."]:
    return np.ascontiguousarray(_numbers(content, key, source)).astype(np.int64)


def _numbers(content: dict[str, object], key: str, source: Path) -> np.ndarray:
    value = content.get(key)
    if not isinstance(value, np.ndarray) and isinstance(value, scipy.sparse.csr_matrix):
        value = value.toarray()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        problem = "lacks the array" if value is None else "has no numbers in"
        raise UserError(f"{source} {problem} '{key}'; it is not a body model, or an old one")
    return value


def _landmarks(
    content: dict[str, object], prefix: str, faces: Int[np.ndarray, "F 3"], source: Path
) -> Landmarks:
    triangles = _indices(content, f"{prefix}_faces_idx", source)
    if triangles.max() >= len(faces):
        raise UserError(f"{source} has landmarks on missing faces; download it again")
    return Landmarks(faces[triangles], _array(content, f"{prefix}_bary_coords", source))


def read_j14_regressor(folder: ModelFolder) -> Float[np.ndarray, "14 10475"]:
    """The 14 joints of LSP as weighted means of SMPL-X vertices (SMPLX_to_J14.pkl)."""
    file = _auxiliary_file(folder, "SMPLX_to_J14.pkl")
    return _array({"matrix": load_pickle(file)}, "matrix", file)


def read_hand_vertices(folder: ModelFolder) -> dict[str, Int[np.ndarray, "778"]]:
    """SMPL-X vertices of the "left" and "right" hand, in MANO's order."""
    file = _auxiliary_file(folder, "MANO_SMPLX_vertex_ids.pkl")
    content = _read_arrays(file)
    return {side: _indices(content, f"{side}_hand", file) for side in ("left", "right")}


def read_head_vertices(folder: ModelFolder) -> Int[np.ndarray, "5023"]:
    """SMPL-X vertices of the head, in FLAME's order."""
    file = _auxiliary_file(folder, "SMPL-X__FLAME_vertex_ids.npy")
    return _indices({"indices": load_npy(file)}, "indices", file)


def read_smplx_to_smpl(folder: ModelFolder) -> "scipy.sparse.csr_matrix":
    """The matrix (6890, 10475), float32, that maps SMPL-X vertices to SMPL vertices."""
    file = _auxiliary_file(folder, "smplx2smpl.pkl")
    matrix = _read_arrays(file).get("matrix")
    if not isinstance(matrix, scipy.sparse.csr_matrix):
        matrix = _array({"matrix": matrix}, "matrix", file)
    return scipy.sparse.csr_matrix(matrix, dtype=np.float32)


def _auxiliary_file(folder: ModelFolder, name: str) -> Path:
    file = _find(folder.path, "smplx", [name])
    if file is None:
        raise _missing(folder.path / "smplx" / name, "smplx")
    return file
