"""The open body's mesh: which vertices of MakeHuman's it keeps, in SMPL-X's order, and its faces.

`topology.npz` beside this file holds the result of `scratch.build_topology`, so that a normal build
skips the decimation.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from scipy import sparse

from human_models.open_body.bones import SIDE_SUFFIXES
from human_models.open_body.storage import write_npz

FROZEN: Final = Path(__file__).with_name("topology.npz")
_INDEX_FIELDS: Final = ("faces", "uv_faces", "mirror", "smpl_vertices", "smpl_faces")


@dataclass(frozen=True)
class ClosedMesh:
    """A closed, mirror-symmetric triangle mesh made of vertices of the base mesh.

    selection: (N, base mesh) sparse, rows sum to 1; one entry a row but for the eyeballs.
    """

    selection: sparse.csr_matrix
    faces: Int64[np.ndarray, "F 3"]
    uv: Float64[np.ndarray, "U 2"]
    uv_faces: Int64[np.ndarray, "F 3"]
    regions: Shaped[np.ndarray, " N"]
    mirror: Int64[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.regions)

    def in_regions(self, *names: str) -> Int64[np.ndarray, " n"]:
        """Ids of the vertices of some regions, ascending."""
        return np.flatnonzero(np.isin(self.regions, names))

    def rigid_rows(self) -> dict[str, Int64[np.ndarray, " n"]]:
        """Vertices that follow one bone alone: the eyeballs."""
        return {
            f"eye.{suffix}": self.in_regions(f"{side}_eye")
            for side, suffix in SIDE_SUFFIXES.items()
        }


@dataclass(frozen=True)
class Topology(ClosedMesh):
    """The whole: N = 10475 vertices in SMPL-X's order, and which M = 6890 of them make SMPL.

    smpl_vertices: ids in this mesh, in SMPL's order; smpl_faces index those.
    """

    smpl_vertices: Int64[np.ndarray, " M"]
    smpl_faces: Int64[np.ndarray, "G 3"]


def read_topology(path: Path = FROZEN) -> Topology:
    """A topology that `write_topology` froze."""
    with np.load(path) as stored:
        selection = sparse.csr_matrix(
            (
                stored["selection_data"],
                stored["selection_indices"].astype(np.int64),
                stored["selection_indptr"].astype(np.int64),
            ),
            shape=tuple(stored["selection_shape"]),
        )
        return Topology(
            selection=selection,
            regions=stored["region_names"][stored["regions"]],
            uv=stored["uv"].astype(np.float64),
            **{name: stored[name].astype(np.int64) for name in _INDEX_FIELDS},
        )


def write_topology(path: Path, topology: Topology) -> None:
    names, numbers = np.unique(topology.regions, return_inverse=True)
    selection = topology.selection.sorted_indices()
    arrays = {
        "selection_data": selection.data,
        "selection_indices": selection.indices.astype(np.uint16),
        "selection_indptr": selection.indptr.astype(np.uint32),
        "selection_shape": np.array(selection.shape),
        "region_names": names,
        "regions": numbers.astype(np.uint8),
        "uv": topology.uv.astype(np.float32),
    }
    indices = {name: getattr(topology, name).astype(np.uint16) for name in _INDEX_FIELDS}
    write_npz(path, arrays | indices)
