"""The small files that code around SMPL-X reads beside the model."""

from typing import Final

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse

from human_models.joints import RIG_JOINTS, SMPLX_SURFACE_VERTICES
from human_models.open_body.order import HAND_IDS, fill_order
from human_models.open_body.regions import FLAME_REGIONS
from human_models.open_body.topology import Topology

# LSP's order; the fourteenth is the top of the head.
_J14: Final = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"),
    "neck",
)
_TOP_VERTICES: Final = 4
# MANO's vertex numbers of the fingertips.
_MANO_TIPS: Final = {"thumb": 744, "index": 320, "middle": 443, "ring": 554, "pinky": 671}


def joints14_regressor(
    regressor: Float64[np.ndarray, "55 N"],
    template: Float64[np.ndarray, "N 3"],
    mirror: Int64[np.ndarray, " N"],
) -> np.ndarray:
    """SMPLX_to_J14.pkl: (14, N) float32."""
    top = np.zeros(len(template))
    top[np.argsort(-template[:, 1], kind="stable")[:_TOP_VERTICES]] = 1 / _TOP_VERTICES
    rows = [regressor[RIG_JOINTS.index(name)] for name in _J14]
    return np.stack([*rows, 0.5 * (top + top[mirror])]).astype(np.float32)


def mano_vertex_ids() -> dict[str, Int64[np.ndarray, "778"]]:
    """MANO_SMPLX_vertex_ids.pkl: fingertips at MANO's places, the rest in SMPL-X's order."""
    ids = {}
    for hand, block in HAND_IDS.items():
        side = hand.removesuffix("_hand")
        tips = {
            place: SMPLX_SURFACE_VERTICES[f"{side}_{finger}4"] - block.start
            for finger, place in _MANO_TIPS.items()
        }
        everything = range(len(block))
        order = fill_order(len(block), tips, [(everything, everything)])
        ids[hand] = order + block.start
    return ids


def flame_vertex_ids(topology: Topology) -> Int64[np.ndarray, "5023"]:
    """SMPL-X__FLAME_vertex_ids.npy: head, neck, mouth and eyes, ascending."""
    return topology.in_regions(*FLAME_REGIONS)


def smplx_to_smpl(topology: Topology) -> dict[str, sparse.csr_matrix]:
    """smplx2smpl.pkl: SMPL's vertices are some of SMPL-X's, so the matrix only selects."""
    count = len(topology.smpl_vertices)
    entries = (np.ones(count, np.float32), (np.arange(count), topology.smpl_vertices))
    return {"matrix": sparse.csr_matrix(entries, shape=(count, len(topology)), dtype=np.float32)}
