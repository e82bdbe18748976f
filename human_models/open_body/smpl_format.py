"""The arrays of a SMPL_*.npz file: the same body and hands, a plain head, 24 joints."""

from typing import Final

import numpy as np
from jaxtyping import Float64
from scipy.spatial import cKDTree

from human_models.joints import BODY_JOINTS, HAND_JOINTS, RIG_JOINTS, SMPL_JOINTS, SMPL_PARENTS
from human_models.open_body.shape_space import ShapeSpace
from human_models.open_body.smplx_format import FACE_TYPE, LICENSE, kintree_table
from human_models.open_body.storage import rounded_lengths
from human_models.open_body.topology import Topology

# SMPL keeps its pelvis here, another place than SMPL-X.
_PELVIS_ORIGIN_M: Final = np.array([0.0, -0.223, 0.028])
_POSE_FEATURES: Final = 9 * (len(SMPL_JOINTS) - 1)
_HEAD_JOINTS: Final = ("jaw", "left_eye_smplhf", "right_eye_smplhf")
_KNUCKLES: Final = ("middle1", "ring1")  # the hand's joint lies between these


def _columns(names: tuple[str, ...]) -> list[int]:
    return [RIG_JOINTS.index(name) for name in names]


def smpl_arrays(
    topology: Topology,
    shape: ShapeSpace,
    weights: Float64[np.ndarray, "N 55"],
    regressor: Float64[np.ndarray, "55 N"],
    closed_eyes: Float64[np.ndarray, "N 3"],
) -> dict[str, np.ndarray]:
    """Content of SMPL_*.npz. The eyes are closed, for their sockets are empty."""
    kept = topology.smpl_vertices
    template = (shape.mean + closed_eyes)[kept]
    joints = _smpl_regressor(regressor, shape.mean, kept)
    template = template + _PELVIS_ORIGIN_M - (joints @ template)[0]
    return {
        "v_template": rounded_lengths(template),
        "f": topology.smpl_faces.astype(FACE_TYPE),
        "shapedirs": rounded_lengths(shape.directions[kept]),
        "posedirs": np.zeros((len(kept), 3, _POSE_FEATURES), np.float32),
        "J_regressor": joints.astype(np.float32),
        "weights": _smpl_weights(weights)[kept].astype(np.float32),
        "kintree_table": kintree_table(SMPL_PARENTS),
        "license": np.array(LICENSE),
    }


def _smpl_weights(weights: Float64[np.ndarray, "N 55"]) -> Float64[np.ndarray, "N 24"]:
    """Jaw and eyes go to the head, all of a hand's fingers to its one joint."""
    body = weights[:, _columns(BODY_JOINTS)].copy()
    body[:, BODY_JOINTS.index("head")] += weights[:, _columns(_HEAD_JOINTS)].sum(axis=1)
    hands = [weights[:, _columns(HAND_JOINTS[side])].sum(axis=1) for side in ("left", "right")]
    return np.column_stack([body, *hands])


def _smpl_regressor(
    regressor: Float64[np.ndarray, "55 N"],
    vertices: Float64[np.ndarray, "N 3"],
    kept: np.ndarray,
) -> Float64[np.ndarray, "24 M"]:
    """SMPL-X's rows, with the shares of dropped vertices given to their nearest kept ones."""
    hands = [
        regressor[_columns(tuple(f"{side}_{knuckle}" for knuckle in _KNUCKLES))].mean(axis=0)
        for side in ("left", "right")
    ]
    rows = np.stack([*regressor[_columns(BODY_JOINTS)], *hands])
    nearest = cKDTree(vertices[kept]).query(vertices)[1]
    moved = np.zeros((len(rows), len(kept)))
    for row, shares in enumerate(rows):
        np.add.at(moved[row], nearest, shares)
    return moved
