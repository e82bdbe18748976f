"""Chooses the 6890 vertices that stand in for SMPL: no eyeballs, no tongue, a coarser head."""

from dataclasses import fields
from typing import Final

import numpy as np
from jaxtyping import Float64

from human_models.joints import SMPL_SURFACE_VERTICES, SMPLX_SURFACE_VERTICES
from human_models.open_body.anatomy import closed_eyelid
from human_models.open_body.assets import read_face_units
from human_models.open_body.decimate import CollapseRules, CollapsibleMesh, decimate
from human_models.open_body.order import fill_order, inverse
from human_models.open_body.topology import ClosedMesh, Topology

_DROPPED: Final = ("left_eye", "right_eye", "tongue")
_TARGETS: Final = {
    "left_eye_socket": 40,
    "right_eye_socket": 40,
    "mouth_cavity": 58,
    "head": 1300,
}
_COUNT: Final = 6890


def with_smpl_subset(
    mesh: ClosedMesh, vertices: Float64[np.ndarray, "N 3"], base_count: int
) -> Topology:
    """Add SMPL's subset to a mesh in SMPL-X's order; `vertices` (average adult) steer it."""
    dropped = np.isin(mesh.regions, _DROPPED)
    skin = CollapsibleMesh(vertices, mesh.faces[~dropped[mesh.faces].any(axis=1)])
    named = _named_vertices(mesh, vertices, base_count)
    rules = CollapseRules(
        mirror=mesh.mirror.tolist(),
        region=mesh.regions.tolist(),
        targets=_TARGETS,
        protected=set(named.values()),
    )
    decimate(skin, rules)
    kept = np.array(sorted(skin.vertices))
    assert len(kept) == _COUNT

    fixed = {
        SMPL_SURFACE_VERTICES[name]: int(np.searchsorted(kept, vertex))
        for name, vertex in named.items()
    }
    order = fill_order(_COUNT, fixed, [(range(_COUNT), range(_COUNT))])
    triangles = np.array([triangle for _, triangle in sorted(skin.triangles.items())])
    return Topology(
        **{field.name: getattr(mesh, field.name) for field in fields(mesh)},
        smpl_vertices=kept[order],
        smpl_faces=inverse(order)[np.searchsorted(kept, triangles)],
    )


def _named_vertices(
    mesh: ClosedMesh, vertices: Float64[np.ndarray, "N 3"], base_count: int
) -> dict[str, int]:
    """SMPL-X's surface points, the eyes replaced by the lids that close over them."""
    blink = mesh.selection @ read_face_units(base_count)["eyeBlinkLeft"].astype(np.float64)
    eye = vertices[SMPLX_SURFACE_VERTICES["left_eye"]]
    lid = closed_eyelid(mesh.regions == "head", vertices + blink, eye)
    return SMPLX_SURFACE_VERTICES | {"left_eye": lid, "right_eye": int(mesh.mirror[lid])}
