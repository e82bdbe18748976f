"""The open body's mesh: the vertices taken from MakeHuman's mesh, in SMPL-X's order, and the faces.

`topology.npz` beside this file is fixed, because networks and files depend on the order of
vertices. It was made from the base mesh by half-edge collapses of least quadric error (Garland and
Heckbert, 1997), always of mirrored pairs. It reduces MakeHuman's 13718 vertices to 10475 with
SMPL-X's numbers per region: 5023 for head, mouth and eyes (as in FLAME), 778 for each hand, 3896
for the rest. The skin of the face is unchanged; hidden surfaces, hands, feet and body are
simplified; the eyeballs are spheres whose vertices are combinations of MakeHuman's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from scipy import sparse

from open_body.skeleton import SIDE_SUFFIXES

_FILE: Final = Path(__file__).with_name("topology.npz")
HAND_IDS: Final = {"left_hand": range(4613, 5391), "right_hand": range(7335, 8113)}
"""SMPL-X's vertex ids of the hands."""
FLAME_REGIONS: Final = (
    *("head", "mouth_cavity", "tongue", "left_eye_socket", "right_eye_socket"),
    *("left_eye", "right_eye"),
)


@dataclass(frozen=True)
class Topology:
    """A closed, mirror-symmetric triangle mesh of N = 10475 vertices in SMPL-X's order.

    Attributes:
        selection: (N, vertices of the base mesh), rows sum to 1; rows have a single entry except
            for those of the eyeballs.
        smpl_vertices: ids of the M = 6890 vertices of the SMPL body, in SMPL's order.
        smpl_faces: faces as indices into `smpl_vertices`.
    """

    selection: sparse.csr_matrix
    faces: Int64[np.ndarray, "F 3"]
    uv: Float64[np.ndarray, "U 2"]
    uv_faces: Int64[np.ndarray, "F 3"]
    regions: Shaped[np.ndarray, " N"]
    mirror: Int64[np.ndarray, " N"]
    smpl_vertices: Int64[np.ndarray, " M"]
    smpl_faces: Int64[np.ndarray, "G 3"]

    def __len__(self) -> int:
        return len(self.regions)

    def in_regions(self, *names: str) -> Int64[np.ndarray, " n"]:
        """Ids of the vertices of the given regions, ascending."""
        return np.flatnonzero(np.isin(self.regions, names))

    def rigid_rows(self) -> dict[str, Int64[np.ndarray, " n"]]:
        """Vertices that follow a single bone (the eyeballs), by the name of the bone."""
        return {
            f"eye.{suffix}": self.in_regions(f"{side}_eye")
            for side, suffix in SIDE_SUFFIXES.items()
        }


def read_topology() -> Topology:
    """Read topology.npz."""
    with np.load(_FILE) as stored:
        selection = sparse.csr_matrix(
            (
                stored["selection_data"],
                stored["selection_indices"].astype(np.int64),
                stored["selection_indptr"].astype(np.int64),
            ),
            shape=tuple(stored["selection_shape"]),
        )
        names = ("faces", "uv_faces", "mirror", "smpl_vertices", "smpl_faces")
        return Topology(
            selection=selection,
            regions=stored["region_names"][stored["regions"]],
            uv=stored["uv"].astype(np.float64),
            **{name: stored[name].astype(np.int64) for name in names},
        )
