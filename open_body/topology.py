"""The open body's mesh: which vertices of MakeHuman's it keeps, in SMPL-X's order, and its faces.

`topology.npz` beside this file holds the result of `build_topology`, so that a normal build skips
the simplification. It takes 13718 vertices of MakeHuman's to SMPL-X's 10475 and meets SMPL-X's own
split exactly: 5023 vertices of head, mouth and eyes (FLAME's), 778 for each hand, 3896 for the
rest. All skin of the face is kept; hidden surfaces, hands, feet and body are simplified; the
eyeballs are replaced by new ones.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy import sparse

from human_models.joints import SMPL_SURFACE_VERTICES, SMPLX_SURFACE_VERTICES
from open_body import assets
from open_body.adults import AdultModel, average_adult, target_weights
from open_body.assets import EYE_GROUPS, FLAME_INNER_REGIONS
from open_body.simplification import CollapseRules, CollapsibleMesh, decimate, split_quads
from open_body.skeleton import FINGER_NUMBERS, SIDE_SUFFIXES, normalized

log = logging.getLogger(__name__)
TOPOLOGY_FILE: Final = Path(__file__).with_name("topology.npz")
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
    """N = 10475 vertices in SMPL-X's order, and the M = 6890 of them that make SMPL.

    smpl_vertices: ids in this mesh, in SMPL's order; smpl_faces index those.
    """

    smpl_vertices: Int64[np.ndarray, " M"]
    smpl_faces: Int64[np.ndarray, "G 3"]


def read_topology() -> Topology:
    """The stored topology, see `topology_arrays`."""
    with np.load(TOPOLOGY_FILE) as stored:
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


def topology_arrays(topology: Topology) -> dict[str, np.ndarray]:
    """Content of topology.npz."""
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
    return arrays | indices


def build_topology() -> Topology:
    """Everything, from the assets; takes about a minute."""
    mesh = assets.read_base_mesh()
    rig = assets.read_rig(mesh)
    macro = assets.read_macro_targets(len(mesh.vertices))
    adult = average_adult()
    weights = target_weights(adult, macro.levels, np.array([0.5]))[0]
    raw = _simplified_body(mesh, mesh.vertices + np.tensordot(weights, macro.offsets, 1))

    model = AdultModel(raw.selection, len(raw), mesh, rig, macro, raw.rigid_rows())
    posed = model.posed(adult)[0][0]
    ear_moves = np.abs(assets.read_named_target(_EAR_TARGET, len(mesh.vertices))).max(axis=1)
    ear = raw.selection @ (ear_moves > _EAR_MOVED_M).astype(float) > 0
    named = _surface_vertices(posed, raw.regions, model.bone_weights, raw.mirror, ear, rig)
    order = _smplx_order(raw.regions, named)
    places = np.argsort(order)  # where each present vertex goes
    ordered = ClosedMesh(
        selection=raw.selection[order],
        faces=places[raw.faces],
        uv=raw.uv,
        uv_faces=raw.uv_faces,
        regions=raw.regions[order],
        mirror=places[raw.mirror[order]],
    )
    return _with_smpl_subset(ordered, posed[order], len(mesh.vertices))


# From MakeHuman's mesh to a coarser one.

# Numbers of vertices to leave.
_ALL: Final = 10475
_FLAME: Final = 5023
_HAND: Final = 778
_FOOT: Final = 420
_TONGUE: Final = 110
_EYE_SOCKET: Final = 150
# The nipples' vertices in MakeHuman's numbering; they go first.
_NIPPLES: Final = (*range(1778, 1794), *range(8450, 8466))
_NIPPLE_VALENCE: Final = 14


def _simplified_body(mesh: assets.BaseMesh, vertices: Float64[np.ndarray, "V 3"]) -> ClosedMesh:
    """10475 vertices in the base mesh's order, eyeballs last; `vertices` steer their choice."""
    quads, uv_quads = assets.body_quads(mesh)
    region = assets.vertex_regions(mesh)
    charts = assets.texture_charts(mesh, uv_quads)
    uv_corners = assets.uv_of_vertices(quads, uv_quads, charts)
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
    remaining = sorted(skin.triangles.items())
    faces = np.searchsorted(kept, np.array([triangle for _, triangle in remaining]))
    uv_faces = np.array(
        [[uv_corners[v][chart_of[i]] for v in triangle] for i, triangle in remaining]
    )
    eyes = _eyeballs(mesh, vertices, triangles[of_eyes])
    return _joined(mesh, region, kept, faces, uv_faces, eyes)


def _targets(head: int) -> dict[str, int]:
    """How many vertices to leave where; the mouth takes what the untouched face leaves over."""
    inner = {"tongue": _TONGUE, "left_eye_socket": _EYE_SOCKET, "right_eye_socket": _EYE_SOCKET}
    mouth = _FLAME - 2 * _EYEBALL_VERTICES - head - sum(inner.values())
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


def _joined(
    mesh: assets.BaseMesh,
    region: Shaped[np.ndarray, " V"],
    kept: Int64[np.ndarray, " K"],
    faces: Int64[np.ndarray, "F 3"],
    uv_faces: Int64[np.ndarray, "F 3"],
    eyes: sparse.csr_matrix,
) -> ClosedMesh:
    """Skin and eyeballs as one mesh; both eyeballs share one piece of the texture's plane."""
    skin = sparse.identity(len(mesh.vertices), format="csr")[kept]
    directions, left = sphere()
    right = left[:, ::-1]  # mirrored, hence turned over to face outwards again
    starts = len(kept) + _EYEBALL_VERTICES * np.arange(3)
    left_ids, right_ids = np.arange(*starts[:2]), np.arange(*starts[1:])
    return ClosedMesh(
        selection=sparse.vstack([skin, eyes]).tocsr(),
        faces=np.concatenate([faces, left + starts[0], right + starts[1]]),
        uv=np.concatenate([mesh.uv, _sphere_uv(directions)]),
        uv_faces=np.concatenate([uv_faces, left + len(mesh.uv), right + len(mesh.uv)]),
        regions=np.concatenate([region[kept], np.repeat(list(EYE_GROUPS), _EYEBALL_VERTICES)]),
        mirror=np.concatenate([np.searchsorted(kept, mesh.mirror[kept]), right_ids, left_ids]),
    )


# SMPL-X's eyeballs of 546 vertices, made from MakeHuman's of 72.

_EYE_RINGS: Final = 17
_EYE_SEGMENTS: Final = 32
_EYEBALL_VERTICES: Final = _EYE_RINGS * _EYE_SEGMENTS + 2
# Weights are multiples of this, so that rows sum to exactly 1 and the stored file stays small.
_WEIGHT_STEP: Final = 2.0**-20


def _eyeballs(
    mesh: assets.BaseMesh, vertices: Float64[np.ndarray, "V 3"], triangles: Int64[np.ndarray, "t 3"]
) -> sparse.csr_matrix:
    """Rows of both eyeballs over the base mesh; the right one is the left one mirrored."""
    old = mesh.groups[EYE_GROUPS["left_eye"]].vertices
    left = triangles[np.isin(triangles, old).all(axis=1)]
    weights = sphere_weights(vertices[old], np.searchsorted(old, left))
    rows = np.zeros((2, len(weights), len(vertices)))
    rows[0][:, old] = weights
    rows[1][:, mesh.mirror[old]] = weights
    return sparse.csr_matrix(rows.reshape(-1, len(vertices)))


def sphere_weights(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]
) -> Float64[np.ndarray, "546 v"]:
    """Rows (sum 1) that place the sphere's vertices as mixtures of a coarse eyeball's.

    Each direction from the centroid meets one coarse triangle; the point there is pushed outwards
    to the radius interpolated between its corners, which rounds the facets off.
    """
    centre = vertices.mean(axis=0)
    corners = vertices[faces] - centre
    radii = np.linalg.norm(vertices - centre, axis=1)
    inverses = np.linalg.inv(np.swapaxes(corners, 1, 2))
    directions, _ = sphere()
    weights = np.empty((len(directions), len(vertices)))
    for row, direction in enumerate(directions):
        coordinates = inverses @ direction
        hit = np.flatnonzero((coordinates > -1e-7).all(axis=1))[0]
        barycentric = coordinates[hit] / coordinates[hit].sum()
        radius = barycentric @ radii[faces[hit]]
        scale = radius / np.linalg.norm(barycentric @ corners[hit])
        weights[row] = (1 - scale) / len(vertices)
        weights[row, faces[hit]] += barycentric * scale
    weights = np.round(weights / _WEIGHT_STEP) * _WEIGHT_STEP
    largest = np.argmax(weights, axis=1)
    weights[np.arange(len(weights)), largest] += 1 - weights.sum(axis=1)
    return weights


def sphere() -> tuple[Float64[np.ndarray, "546 3"], Int64[np.ndarray, "1088 3"]]:
    """Directions and outward faces of a sphere whose first vertex is the pole at +z (the gaze)."""
    polar = np.pi * np.arange(1, _EYE_RINGS + 1)[:, None] / (_EYE_RINGS + 1)
    azimuth = 2 * np.pi * np.arange(_EYE_SEGMENTS) / _EYE_SEGMENTS
    x, y = np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth)
    z = np.broadcast_to(np.cos(polar), x.shape)
    rings = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    directions = np.concatenate([[[0, 0, 1]], rings, [[0, 0, -1]]])

    here = np.arange(_EYE_SEGMENTS)
    after = (here + 1) % _EYE_SEGMENTS
    front = np.stack([np.zeros_like(here), 1 + here, 1 + after], axis=1)
    last_ring = 1 + (_EYE_RINGS - 1) * _EYE_SEGMENTS
    back_pole = np.full_like(here, _EYEBALL_VERTICES - 1)
    back = np.stack([last_ring + after, last_ring + here, back_pole], axis=1)
    starts = 1 + _EYE_SEGMENTS * np.arange(_EYE_RINGS - 1)[:, None]
    a, b = (starts + here).ravel(), (starts + after).ravel()
    next_a, next_b = a + _EYE_SEGMENTS, b + _EYE_SEGMENTS
    bands = [np.stack([a, next_a, next_b], axis=1), np.stack([a, next_b, b], axis=1)]
    return directions, np.concatenate([front, *bands, back])


def _sphere_uv(directions: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 2"]:
    """Texture coordinates on a disc around the pole, distance = angle."""
    radius = np.hypot(directions[:, 0], directions[:, 1])
    angle = np.arccos(np.clip(directions[:, 2], -1, 1)) / np.pi
    return 0.5 + 0.5 * directions[:, :2] * (angle / np.maximum(radius, 1e-9))[:, None]


# The vertices behind SMPL-X's surface points: nose, eyes, ears, fingertips, toes, heels.

_MIDLINE_M: Final = 1e-4
_NOSE_BELOW_EYES_M: Final = (0.015, 0.060)
_EAR_TARGET: Final = "l-ear-scale-incr"  # moves the left ear and nothing else
_EAR_MOVED_M: Final = 5e-4
_EAR_CENTRE_RADIUS_M: Final = 0.012
_HEEL_HEIGHT_M: Final = 0.03
_SMALL_TOE_SLANT: Final = 0.5  # its tip points outwards too


def _surface_vertices(
    vertices: Float64[np.ndarray, "N 3"],
    regions: Shaped[np.ndarray, " N"],
    bone_weights: Float64[np.ndarray, "N bones"],
    mirror: Int64[np.ndarray, " N"],
    ear: Bool[np.ndarray, " N"],
    rig: assets.Rig,
) -> dict[str, int]:
    """Vertex of every name of SMPLX_SURFACE_VERTICES: the left half is found, the right mirrored.

    vertices: an average adult in the T-pose; ear: the left one.
    """
    x, y, z = vertices.T

    def foremost(where: Bool[np.ndarray, " N"], score: Float64[np.ndarray, " N"]) -> int:
        candidates = np.flatnonzero(where)
        return int(candidates[np.argmax(score[candidates])])

    def follows(bone: str, least: float = 0.5) -> Bool[np.ndarray, " N"]:
        return bone_weights[:, rig.index(f"{bone}.L")] > least

    eye = foremost(regions == "left_eye", z)
    drop = y[eye] - y
    nose_height = (drop > _NOSE_BELOW_EYES_M[0]) & (drop < _NOSE_BELOW_EYES_M[1])
    ear_offset = vertices[:, 1:] - vertices[ear][:, 1:].mean(axis=0)
    ear_centre = ear & (np.linalg.norm(ear_offset, axis=1) < _EAR_CENTRE_RADIUS_M)
    left_foot = regions == "left_foot"
    left = {
        "nose": foremost((regions == "head") & (np.abs(x) < _MIDLINE_M) & nose_height, z),
        "left_eye": eye,
        "left_ear": foremost(ear_centre, x),
        "left_big_toe": foremost(follows("toe1-2"), z),
        "left_small_toe": foremost(follows("toe5-3"), z + _SMALL_TOE_SLANT * x),
        "left_heel": foremost(left_foot & (y < y.min() + _HEEL_HEIGHT_M), -z),
    }
    for finger, number in FINGER_NUMBERS.items():
        tip, middle = follows(f"finger{number}-3", 0.9), follows(f"finger{number}-2", 0.8)
        direction = normalized(vertices[tip].mean(axis=0) - vertices[middle].mean(axis=0))
        left[f"left_{finger}4"] = foremost(follows(f"finger{number}-3"), vertices @ direction)
    right = {
        name.replace("left_", "right_"): int(mirror[vertex])
        for name, vertex in left.items()
        if name.startswith("left_")
    }
    found = left | right
    assert found.keys() == SMPLX_SURFACE_VERTICES.keys()
    return found


# SMPL-X's vertex numbering: named vertices on their published ids, parts in their id ranges.

HAND_IDS: Final = {"left_hand": range(4613, 5391), "right_hand": range(7335, 8113)}
_EYE_IDS: Final = {"left_eye": range(9383, 9929), "right_eye": range(9929, 10475)}
_NOSE_ID: Final = 9120  # lies in the body's range, yet belongs to the head
_HEAD_IDS: Final = (*range(3930), _NOSE_ID)
_BODY_IDS: Final = (
    *range(3930, 4613),
    *range(5391, 7335),
    *range(8113, _NOSE_ID),
    *range(_NOSE_ID + 1, 9383),
)
# Regions that fill a range of ids together.
_BLOCKS: Final[tuple[tuple[Sequence[int], tuple[str, ...]], ...]] = (
    *((_EYE_IDS[eye], (eye,)) for eye in _EYE_IDS),
    (_HEAD_IDS, ("head", *FLAME_INNER_REGIONS)),
    *((HAND_IDS[hand], (hand,)) for hand in HAND_IDS),
    (_BODY_IDS, ("body", "left_foot", "right_foot")),
)


def _smplx_order(
    regions: Shaped[np.ndarray, " N"], named: Mapping[str, int]
) -> Int64[np.ndarray, " N"]:
    """The present vertex for every SMPL-X id; `named` vertices get their published ids."""
    blocks = [(ids, np.flatnonzero(np.isin(regions, parts)).tolist()) for ids, parts in _BLOCKS]
    fixed = {SMPLX_SURFACE_VERTICES[name]: vertex for name, vertex in named.items()}
    return fill_order(len(regions), fixed, blocks)


def fill_order(
    count: int, fixed: Mapping[int, int], blocks: Iterable[tuple[Sequence[int], Sequence[int]]]
) -> Int64[np.ndarray, " N"]:
    """A permutation: `fixed` {id: vertex}, then each block's (ids, vertices) in order."""
    order = np.full(count, -1)
    for new, vertex in fixed.items():
        order[new] = vertex
    taken = set(fixed.values())
    for ids, vertices in blocks:
        free = [new for new in ids if order[new] < 0]
        order[free] = [vertex for vertex in vertices if vertex not in taken]
    assert (np.sort(order) == np.arange(count)).all()
    return order


# The vertices that stand in for SMPL: no eyeballs, no tongue, a coarser head.

_NOT_IN_SMPL: Final = ("left_eye", "right_eye", "tongue")
_SMPL_TARGETS: Final = {
    "left_eye_socket": 40,
    "right_eye_socket": 40,
    "mouth_cavity": 58,
    "head": 1300,
}
_SMPL_VERTICES: Final = 6890


def _with_smpl_subset(
    mesh: ClosedMesh, vertices: Float64[np.ndarray, "N 3"], base_count: int
) -> Topology:
    """Add SMPL's subset to a mesh in SMPL-X's order; `vertices` (average adult) steer it."""
    dropped = np.isin(mesh.regions, _NOT_IN_SMPL)
    skin = CollapsibleMesh(vertices, mesh.faces[~dropped[mesh.faces].any(axis=1)])
    named = _named_vertices(mesh, vertices, base_count)
    rules = CollapseRules(
        mirror=mesh.mirror.tolist(),
        region=mesh.regions.tolist(),
        targets=_SMPL_TARGETS,
        protected=set(named.values()),
    )
    decimate(skin, rules)
    kept = np.array(sorted(skin.vertices))
    assert len(kept) == _SMPL_VERTICES

    fixed = {
        SMPL_SURFACE_VERTICES[name]: int(np.searchsorted(kept, vertex))
        for name, vertex in named.items()
    }
    order = fill_order(_SMPL_VERTICES, fixed, [(range(_SMPL_VERTICES), range(_SMPL_VERTICES))])
    triangles = np.array([triangle for _, triangle in sorted(skin.triangles.items())])
    return Topology(
        **{field.name: getattr(mesh, field.name) for field in fields(mesh)},
        smpl_vertices=kept[order],
        smpl_faces=np.argsort(order)[np.searchsorted(kept, triangles)],
    )


def _named_vertices(
    mesh: ClosedMesh, vertices: Float64[np.ndarray, "N 3"], base_count: int
) -> dict[str, int]:
    """SMPL-X's surface points, the eyes replaced by the lids that close over them."""
    blink = mesh.selection @ assets.read_face_units(base_count)["eyeBlinkLeft"].astype(np.float64)
    eye = vertices[SMPLX_SURFACE_VERTICES["left_eye"]]
    lid = _closed_eyelid(mesh.regions == "head", vertices + blink, eye)
    return SMPLX_SURFACE_VERTICES | {"left_eye": lid, "right_eye": int(mesh.mirror[lid])}


def _closed_eyelid(
    head: Bool[np.ndarray, " N"],
    blinking: Float64[np.ndarray, "N 3"],
    eye: Float64[np.ndarray, "3"],
) -> int:
    """Vertex of the lids that covers the eye's front when they close; depth counts little."""
    distances = np.linalg.norm((blinking - eye) * [1, 1, 0.3], axis=1)
    return int(np.argmin(np.where(head, distances, np.inf)))
