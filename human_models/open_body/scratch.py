"""Builds the topology from the base mesh: 13718 vertices of MakeHuman's -> SMPL-X's 10475.

SMPL-X's own split is met exactly: 5023 vertices of head, mouth and eyes (FLAME's), 778 for each
hand, 3896 for the rest. All skin of the face is kept; hidden surfaces, hands, feet and body are
decimated; the eyeballs are made anew.
"""

import logging
from typing import Final

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from scipy import sparse

from human_models.joints import SMPLX_SURFACE_VERTICES
from human_models.open_body import assets, eyeballs
from human_models.open_body.adults import AdultModel
from human_models.open_body.anatomy import left_ear, surface_vertices
from human_models.open_body.decimate import CollapseRules, CollapsibleMesh, decimate
from human_models.open_body.order import inverse, smplx_order
from human_models.open_body.phenotypes import average_adult, target_weights
from human_models.open_body.quads import split_quads, texture_charts, uv_of_vertices
from human_models.open_body.regions import EYE_GROUPS, body_quads, vertex_regions
from human_models.open_body.smpl_topology import with_smpl_subset
from human_models.open_body.topology import ClosedMesh, Topology

log = logging.getLogger(__name__)

_ALL: Final = 10475
_FLAME: Final = 5023
_HAND: Final = 778
_FOOT: Final = 420
_TONGUE: Final = 110
_EYE_SOCKET: Final = 150
# The nipples' vertices in MakeHuman's numbering; they go first.
_NIPPLES: Final = (*range(1778, 1794), *range(8450, 8466))
_NIPPLE_VALENCE: Final = 14


def build_topology() -> Topology:
    """The whole way from the assets; takes about a minute."""
    mesh = assets.read_base_mesh()
    rig = assets.read_rig(mesh)
    macro = assets.read_macro_targets(len(mesh.vertices))
    adult = average_adult()
    weights = target_weights(adult, macro.levels, np.array([0.5]))[0]
    raw = decimated_body(mesh, mesh.vertices + np.tensordot(weights, macro.offsets, 1))

    model = AdultModel(raw.selection, len(raw), mesh, rig, macro, raw.rigid_rows())
    posed = model.posed(adult)[0][0]
    ear = raw.selection @ left_ear(len(mesh.vertices)).astype(float) > 0
    named = surface_vertices(posed, raw.regions, model.bone_weights, raw.mirror, ear, rig)
    order = smplx_order(raw.regions, named, SMPLX_SURFACE_VERTICES)
    places = inverse(order)
    ordered = ClosedMesh(
        selection=raw.selection[order],
        faces=places[raw.faces],
        uv=raw.uv,
        uv_faces=raw.uv_faces,
        regions=raw.regions[order],
        mirror=places[raw.mirror[order]],
    )
    return with_smpl_subset(ordered, posed[order], len(mesh.vertices))


def decimated_body(mesh: assets.BaseMesh, vertices: Float64[np.ndarray, "V 3"]) -> ClosedMesh:
    """10475 vertices in the base mesh's order, eyeballs last; `vertices` steer the decimation."""
    quads, uv_quads = body_quads(mesh)
    region = vertex_regions(mesh)
    charts = texture_charts(mesh, uv_quads)
    uv_corners = uv_of_vertices(quads, uv_quads, charts)
    triangles, quad_of = split_quads(vertices, quads, mesh.mirror)
    chart_of = charts[uv_quads[quad_of, 0]]
    of_eyes = np.isin(region[triangles[:, 0]], list(EYE_GROUPS))
    chart_of, skin_triangles = chart_of[~of_eyes], triangles[~of_eyes]

    skin = CollapsibleMesh(vertices, skin_triangles)
    _remove_nipples(skin, vertices)
    rules = CollapseRules(
        mirror=mesh.mirror.tolist(),
        region=region.tolist(),
        targets=_targets(head=int((region == "head").sum())),
        charts={vertex: set(corners) for vertex, corners in uv_corners.items()},
    )
    count = decimate(skin, rules)
    log.info("decimated: %s", dict(count))
    assert all(count[name] == target for name, target in rules.targets.items())

    kept = np.array(sorted(skin.vertices))
    place = np.full(len(vertices), -1)
    place[kept] = np.arange(len(kept))
    remaining = sorted(skin.triangles.items())
    faces = np.array([triangle for _, triangle in remaining])
    uv_faces = np.array(
        [[uv_corners[v][chart_of[i]] for v in triangle] for i, triangle in remaining]
    )
    eyes = _eyeballs(mesh, vertices, triangles[of_eyes])
    return _joined(mesh, region, kept, place[faces], uv_faces, eyes)


def _targets(head: int) -> dict[str, int]:
    """How many vertices to leave where; the mouth takes what the untouched face leaves over."""
    inner = {"tongue": _TONGUE, "left_eye_socket": _EYE_SOCKET, "right_eye_socket": _EYE_SOCKET}
    mouth = _FLAME - 2 * eyeballs.EYEBALL_VERTICES - head - sum(inner.values())
    return {
        **inner,
        "mouth_cavity": mouth,
        **dict.fromkeys(("left_hand", "right_hand"), _HAND),
        **dict.fromkeys(("left_foot", "right_foot"), _FOOT),
        "body": _ALL - _FLAME - 2 * (_HAND + _FOOT),
    }


def _remove_nipples(skin: CollapsibleMesh, vertices: Float64[np.ndarray, "V 3"]) -> None:
    """Merge them into their cheapest neighbours, the foremost first."""
    for vertex in sorted(_NIPPLES, key=lambda v: -vertices[v, 2]):
        neighbours = skin.neighbours(vertex)
        sound = [n for n in neighbours if skin.can_collapse(vertex, n, _NIPPLE_VALENCE)]
        choices = sound or [n for n in neighbours if skin.joins_cleanly(vertex, n)]
        skin.collapse(vertex, min(choices, key=lambda n: (skin.cost(vertex, n), n)))


def _eyeballs(
    mesh: assets.BaseMesh,
    vertices: Float64[np.ndarray, "V 3"],
    triangles: Int64[np.ndarray, "t 3"],
) -> sparse.csr_matrix:
    """Rows of both eyeballs over the base mesh; the right one is the left one mirrored."""
    old = mesh.groups[EYE_GROUPS["left_eye"]].vertices
    left = triangles[np.isin(triangles, old).all(axis=1)]
    shares = eyeballs.sphere_shares(vertices[old], np.searchsorted(old, left))
    rows = np.zeros((2, len(shares), len(vertices)))
    rows[0][:, old] = shares
    rows[1][:, mesh.mirror[old]] = shares
    return sparse.csr_matrix(rows.reshape(-1, len(vertices)))


def _joined(
    mesh: assets.BaseMesh,
    region: Shaped[np.ndarray, " V"],
    kept: Int64[np.ndarray, " K"],
    faces: Int64[np.ndarray, "F 3"],
    uv_faces: Int64[np.ndarray, "F 3"],
    eyes: sparse.csr_matrix,
) -> ClosedMesh:
    """Skin and eyeballs as one mesh; both eyeballs share one piece of the texture's plane."""
    ones = (np.ones(len(kept)), (np.arange(len(kept)), kept))
    skin = sparse.csr_matrix(ones, shape=(len(kept), len(mesh.vertices)))
    directions, left = eyeballs.sphere()
    right = left[:, ::-1]  # mirrored, hence turned over to face outwards again
    starts = len(kept) + eyeballs.EYEBALL_VERTICES * np.arange(3)
    place = np.full(len(mesh.vertices), -1)
    place[kept] = np.arange(len(kept))
    left_ids, right_ids = np.arange(*starts[:2]), np.arange(*starts[1:])
    return ClosedMesh(
        selection=sparse.vstack([skin, eyes]).tocsr(),
        faces=np.concatenate([faces, left + starts[0], right + starts[1]]),
        uv=np.concatenate([mesh.uv, eyeballs.sphere_uv(directions)]),
        uv_faces=np.concatenate([uv_faces, left + len(mesh.uv), right + len(mesh.uv)]),
        regions=np.concatenate(
            [region[kept], np.repeat(list(EYE_GROUPS), eyeballs.EYEBALL_VERTICES)]
        ),
        mirror=np.concatenate([place[mesh.mirror[kept]], right_ids, left_ids]),
    )
