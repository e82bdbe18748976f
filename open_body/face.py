"""Expression components of the face, from face units, and landmarks on its surface.

There are 51 fixed landmarks (brows, nose, eyes, mouth) and 17 of the contour, which slide over the
skin as the head turns. Those of the left half and the midline were placed by hand on the mean
neutral face; the others are mirrored.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy import sparse

from human_models.joints import SMPLX_SURFACE_VERTICES
from open_body.topology import Topology
from utils.mesh import vertex_normals

# Scale of all components, with which the usual coefficients of +-2 are not too extreme.
_STRENGTH: Final = 0.6


def _both(**units: float) -> dict[str, float]:
    """The same coefficients for the units of the left and the right side."""
    return {f"{unit}{side}": k for unit, k in units.items() for side in ("Left", "Right")}


_MIXES: Final[dict[str, dict[str, float]]] = {
    "smile(+), frown(-)": _both(mouthSmile=0.5, cheekSquint=0.2, mouthFrown=-0.4),
    "brows up(+), down(-)": {"browInnerUp": 0.5, **_both(browOuterUp=0.5, browDown=-0.5)},
    "eyes wide(+), blink(-)": _both(eyeWide=0.35, eyeBlink=-0.35),
    "pucker(+), stretch(-)": {"mouthPucker": 0.5, **_both(mouthStretch=-0.4)},
    "lips part(+), press(-)": _both(mouthUpperUp=0.4, mouthLowerDown=0.4, mouthPress=-0.3),
    "funnel(+), roll in(-)": {"mouthFunnel": 0.5, "mouthRollUpper": -0.4, "mouthRollLower": -0.4},
    "cheek puff": {"cheekPuff": 0.4},
    "nose sneer": _both(noseSneer=0.5, eyeSquint=0.2),
    "mouth left(+), right(-)": {"mouthLeft": 0.4, "mouthRight": -0.4},
    "smile left(+), right(-)": {
        "mouthSmileLeft": 0.5,
        "mouthSmileRight": -0.5,
        "browOuterUpLeft": 0.3,
        "browOuterUpRight": -0.3,
    },
}
_BLINK: Final = _both(eyeBlink=1.0)
_MOVED_M: Final = 3e-4


def expression_directions(
    selection: sparse.csr_matrix, face_units: Mapping[str, Float32[np.ndarray, "V 3"]]
) -> Float64[np.ndarray, "N 3 10"]:
    """Offsets at coefficient 1, metres; the T-pose does not rotate the head."""
    mixes = [_mixed(mix, face_units) for mix in _MIXES.values()]
    return np.stack([_STRENGTH * (selection @ mix) for mix in mixes], axis=-1)


def closed_eyes(
    selection: sparse.csr_matrix, face_units: Mapping[str, Float32[np.ndarray, "V 3"]]
) -> Float64[np.ndarray, "N 3"]:
    """Offsets that close both eyes, metres."""
    return np.asarray(selection @ _mixed(_BLINK, face_units))


def _mixed(
    mix: Mapping[str, float], face_units: Mapping[str, Float32[np.ndarray, "V 3"]]
) -> Float64[np.ndarray, "V 3"]:
    units = np.stack([face_units[unit] for unit in mix]).astype(np.float64)
    return np.tensordot(list(mix.values()), units, 1)


def moved_by_expression(directions: Float64[np.ndarray, "N 3 10"]) -> np.ndarray:
    """Mask (N,) of the vertices that any component moves by more than 0.3 mm."""
    return np.abs(directions).max(axis=(1, 2)) > _MOVED_M


# Points on the surface of a mirror-symmetric mesh.


class SurfacePoint(NamedTuple):
    """A point on a face of a mesh."""

    face: int
    barycentric: Float64[np.ndarray, "3"]


class Surface:
    """A mirror-symmetric mesh, and queries for points on it."""

    def __init__(
        self,
        vertices: Float64[np.ndarray, "N 3"],
        faces: Int64[np.ndarray, "F 3"],
        mirror: Int64[np.ndarray, " N"],
    ) -> None:
        self.vertices, self.faces, self._mirror = vertices, faces, mirror
        self.normals = vertex_normals(vertices, faces)
        self._face_ids = {frozenset(face): i for i, face in enumerate(faces.tolist())}
        # The first corner of any face at each vertex.
        corners, first = np.unique(faces, return_index=True)
        self._corner_of = dict(zip(corners.tolist(), first.tolist(), strict=True))

    def at_vertex(self, vertex: int) -> SurfacePoint:
        face, corner = divmod(self._corner_of[vertex], 3)
        return SurfacePoint(face, np.eye(3)[corner])

    def position(self, point: SurfacePoint) -> Float64[np.ndarray, "3"]:
        return point.barycentric @ self.vertices[self.faces[point.face]]

    def mirrored(self, point: SurfacePoint) -> SurfacePoint:
        corners = self._mirror[self.faces[point.face]].tolist()
        twin = self._face_ids[frozenset(corners)]
        order = [corners.index(vertex) for vertex in self.faces[twin].tolist()]
        return SurfacePoint(twin, point.barycentric[order])

    def faces_within(self, mask: Bool[np.ndarray, " N"]) -> Int64[np.ndarray, " f"]:
        """Faces with all corners in the mask."""
        return np.flatnonzero(mask[self.faces].all(axis=1))

    def nearest_vertex(
        self, xy: Float64[np.ndarray, "2"], mask: Bool[np.ndarray, " N"]
    ) -> SurfacePoint:
        """The vertex of the mask that is nearest to `xy` in x and y."""
        candidates = np.flatnonzero(mask)
        offsets = self.vertices[candidates, :2] - xy
        return self.at_vertex(int(candidates[np.argmin(np.hypot(*offsets.T))]))

    def from_front(
        self, xy: Float64[np.ndarray, "2"], faces: Int64[np.ndarray, " f"]
    ) -> SurfacePoint:
        """The foremost intersection of `faces` with the line at `xy` along z.

        If there is none, the nearest vertex of the faces in x and y.
        """
        corners = self.vertices[self.faces[faces]]
        a, b, c = np.moveaxis(corners[:, :, :2], 1, 0)
        area = _cross(b - a, c - a)
        facing = area > 1e-12
        safe = np.where(facing, area, 1.0)
        v, w = _cross(xy - a, c - a) / safe, _cross(b - a, xy - a) / safe
        barycentric = np.stack([1 - v - w, v, w], axis=1)
        hit = facing & (barycentric >= -1e-9).all(axis=1)
        if not hit.any():
            distances = ((corners[:, :, :2] - xy) ** 2).sum(axis=2)
            face, corner = np.unravel_index(np.argmin(distances), distances.shape)
            return SurfacePoint(int(faces[face]), np.eye(3)[corner])
        depth = (barycentric * corners[:, :, 2]).sum(axis=1)
        best = int(np.argmax(np.where(hit, depth, -np.inf)))
        inside = np.clip(barycentric[best], 0, 1)
        return SurfacePoint(int(faces[best]), inside / inside.sum())


def _cross(a: Float64[np.ndarray, "f 2"], b: Float64[np.ndarray, "f 2"]) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


# Landmarks.


def landmark_arrays(
    template: Float64[np.ndarray, "N 3"], topology: Topology, jaw_weight: Float64[np.ndarray, " N"]
) -> dict[str, np.ndarray]:
    """SMPL-X's arrays of landmarks, for the neutral template."""
    surface = Surface(template, topology.faces, topology.mirror)
    head = topology.regions == "head"
    faces, barycentrics = _stacked(_fixed_landmarks(surface, head, jaw_weight))
    contour_faces, contour_barycentrics = _contour_table(surface, head)
    return {
        "lmk_faces_idx": faces,
        "lmk_bary_coords": barycentrics.astype(np.float32),
        "dynamic_lmk_faces_idx": contour_faces,
        "dynamic_lmk_bary_coords": contour_barycentrics.astype(np.float32),
    }


def _stacked(
    points: Iterable[SurfacePoint],
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 3"]]:
    """Faces and barycentric coordinates of many points."""
    faces, barycentric = zip(*points, strict=True)
    return np.array(faces), np.array(barycentric)


_Pick = tuple[float, float]

# Points in the front view, metres: x from the midline, y from the height of the eyes' poles.
# fmt: off
_BROW: Final[tuple[_Pick, ...]] = (  # inner to outer
    (0.0125, 0.0148), (0.0215, 0.0178), (0.0315, 0.0193), (0.0410, 0.0178), (0.0490, 0.0133),
)
# fmt: on
_NOSE_BRIDGE: Final[tuple[_Pick, ...]] = ((0, 0.0008), (0, -0.0117), (0, -0.0242))  # tip follows
_NOSTRILS: Final[tuple[_Pick, ...]] = ((0, -0.0469), (0.0060, -0.0457), (0.0125, -0.0437))
# fmt: off
_EYE: Final[tuple[_Pick, ...]] = (  # inner corner, upper lid, outer corner, lower lid
    (0.0163, -0.0030), (0.0255, 0.0021), (0.0365, 0.0018),
    (0.0440, -0.0012), (0.0375, -0.0052), (0.0265, -0.0049),
)
# fmt: on
_MOUTH_CORNER: Final[_Pick] = (0.0235, -0.0702)
_UPPER_LIP: Final[tuple[_Pick, ...]] = ((0, -0.0632), (0.0050, -0.0622), (0.0135, -0.0647))
_LOWER_LIP: Final[tuple[_Pick, ...]] = ((0, -0.0792), (0.0065, -0.0785), (0.0140, -0.0757))
_INNER_CORNER: Final[_Pick] = (0.0205, -0.0697)
_INNER_UPPER: Final[tuple[_Pick, ...]] = ((0, -0.0689), (0.0085, -0.0689))
_INNER_LOWER: Final[tuple[_Pick, ...]] = ((0, -0.0695), (0.0085, -0.0695))

_FACING_FRONT: Final = 0.05
_MIDLINE_M: Final = 1e-4
_LID_DEPTH_M: Final = 0.047  # greatest depth of the lids behind the eye's pole
_LOWER_LIP_JAW_WEIGHT: Final = 0.35


def _fixed_landmarks(
    surface: Surface, head: Bool[np.ndarray, " N"], jaw_weight: Float64[np.ndarray, " N"]
) -> list[SurfacePoint]:
    """The 51 landmarks, in the order of the 68-point markup without the contour.

    `surface` is the neutral template, and `head` the mask of the head's outer skin.
    """
    skin = head & (surface.normals[:, 2] > _FACING_FRONT)
    midline = skin & (np.abs(surface.vertices[:, 0]) < _MIDLINE_M)
    lids = skin & (surface.vertices[:, 2] > _eye(surface)[2] - _LID_DEPTH_M)
    skin_faces = surface.faces_within(head)

    def vertex(pick: _Pick, mask: Bool[np.ndarray, " N"]) -> SurfacePoint:
        on_midline = mask & midline if pick[0] == 0 else mask
        return surface.nearest_vertex(_seen_from_front(surface, pick), on_midline)

    def point(pick: _Pick) -> SurfacePoint:
        if pick[0] == 0:
            return vertex(pick, skin)
        return surface.from_front(_seen_from_front(surface, pick), skin_faces)

    upper = skin & (jaw_weight < _LOWER_LIP_JAW_WEIGHT)
    lower = skin & (jaw_weight > _LOWER_LIP_JAW_WEIGHT)
    brow = [point(pick) for pick in _BROW]
    nose = [vertex(pick, skin) for pick in _NOSE_BRIDGE]
    nose.append(surface.at_vertex(SMPLX_SURFACE_VERTICES["nose"]))
    nostrils = [point(pick) for pick in _NOSTRILS]
    inner, upper_in, upper_out, outer, lower_out, lower_in = (vertex(p, lids) for p in _EYE)
    corner = point(_MOUTH_CORNER)
    upper_lip = [point(pick) for pick in _UPPER_LIP]
    lower_lip = [point(pick) for pick in _LOWER_LIP]
    inner_corner = vertex(_INNER_CORNER, skin)
    inner_upper = [vertex(pick, upper) for pick in _INNER_UPPER]
    inner_lower = [vertex(pick, lower) for pick in _INNER_LOWER]

    def across(left_to_middle: list[SurfacePoint]) -> list[SurfacePoint]:
        """Points from the right (mirrored) over the middle to the left."""
        right = [surface.mirrored(p) for p in left_to_middle[:-1]]
        return [*right, *left_to_middle[::-1]]

    right_eye = (outer, upper_out, upper_in, inner, lower_in, lower_out)
    return [
        *(surface.mirrored(p) for p in brow[::-1]),
        *brow,
        *nose,
        *across(nostrils[::-1]),
        *(surface.mirrored(p) for p in right_eye),
        *(inner, upper_in, upper_out, outer, lower_out, lower_in),
        *across([corner, *upper_lip[::-1]]),
        *across(lower_lip[::-1])[::-1],
        *across([inner_corner, *inner_upper[::-1]]),
        *across(inner_lower[::-1])[::-1],
    ]


def _seen_from_front(surface: Surface, pick: _Pick) -> Float64[np.ndarray, "2"]:
    """x and y of a point, in the coordinates of the surface."""
    return np.add(pick, [0, _eye(surface)[1]])


def _eye(surface: Surface) -> Float64[np.ndarray, "3"]:
    """The foremost point of the left eyeball."""
    return surface.vertices[SMPLX_SURFACE_VERTICES["left_eye"]]


# The contour.

_MAX_YAW_DEG: Final = 39

# The jaw line from the left ear to beside the chin, then the chin.
# fmt: off
_JAW_LINE: Final[tuple[_Pick, ...]] = (
    (0.0720, -0.0077), (0.0715, -0.0237), (0.0690, -0.0407), (0.0635, -0.0577),
    (0.0560, -0.0737), (0.0475, -0.0902), (0.0340, -0.1017), (0.0175, -0.1082),
)
# fmt: on
_CHIN: Final[_Pick] = (0.0, -0.1102)
_BESIDE_EAR: Final = 3  # this many points must not lie on the ear

# From the eye's pole to the point inside the head about which polar angles are measured.
_CENTRE_FROM_EYE_M: Final = np.array([0.0, -0.0377, -0.1168])
_BEHIND_EYES_M: Final = 0.068  # the ear begins farther back
# Heights of skin that can be the silhouette, relative to the eyes.
_LOWEST_M: Final = -0.1132
_HIGHEST_M: Final = 0.0093
_CHEEK_M: Final = -0.0627  # skin above this height is not part of the jaw's underside
_UNDERSIDE_NORMAL: Final = -0.45
_BACKWARD_NORMAL: Final = -0.3
_JAW_LINE_NORMAL: Final = -0.1
_ANGLE_PENALTY: Final = 1.5
_LEAST_GAIN_M: Final = 0.0015


def _contour_table(
    surface: Surface, head: Bool[np.ndarray, " N"]
) -> tuple[Int64[np.ndarray, "79 17"], Float64[np.ndarray, "79 17 3"]]:
    """Faces and barycentric coordinates of the contour for every degree of yaw.

    Rows 0 to 39 are for a yaw of 0 to -39 degrees, rows 40 to 78 for +1 to +39, as the package
    smplx expects. Points go from the right ear over the chin (8) to the left ear. On the side that
    turns away from the camera they follow the silhouette; on the other side they stay on the jaw.
    """
    base, chin = _frontal(surface, head)
    turned_away = _silhouettes(surface, head, base)
    faces, barycentrics = [], []
    for row in range(2 * _MAX_YAW_DEG + 1):
        yaw = -row if row <= _MAX_YAW_DEG else row - _MAX_YAW_DEG
        left = turned_away[max(yaw, 0)]
        right = [surface.mirrored(point) for point in turned_away[max(-yaw, 0)]]
        face, barycentric = _stacked([*right, chin, *left[::-1]])
        faces.append(face)
        barycentrics.append(barycentric)
    return np.array(faces), np.array(barycentrics)


def _frontal(
    surface: Surface, head: Bool[np.ndarray, " N"]
) -> tuple[list[SurfacePoint], SurfacePoint]:
    """Points of the left jaw line, and the chin, for a frontal view."""
    before_ear = surface.faces_within(_face_mask(surface, head))
    # This mask is larger than that of the silhouette, because it needs the underside of the chin.
    all_faces = surface.faces_within(head & (surface.normals[:, 2] > _JAW_LINE_NORMAL))
    line = [
        surface.from_front(
            _seen_from_front(surface, pick), before_ear if k < _BESIDE_EAR else all_faces
        )
        for k, pick in enumerate(_JAW_LINE)
    ]
    return line, surface.from_front(_seen_from_front(surface, _CHIN), all_faces)


def _silhouettes(
    surface: Surface, head: Bool[np.ndarray, " N"], base: list[SurfacePoint]
) -> list[list[SurfacePoint]]:
    """Points of the left contour for a yaw of 0 to 39 degrees, which turns the left cheek away.

    A point moves to the vertex that is farthest from the centre of the head in the picture, with a
    penalty on the difference of polar angles, if this vertex is clearly farther out than the point.
    """
    centre = _eye(surface) * [0, 1, 1] + _CENTRE_FROM_EYE_M
    candidates = np.flatnonzero(_face_mask(surface, head))
    skin = surface.vertices[candidates] - centre
    places = np.array([surface.position(point) for point in base]) - centre
    own_angles = np.arctan2(places[:, 1], places[:, 0])
    rows = [base]
    for yaw in np.radians(np.arange(1, _MAX_YAW_DEG + 1)):
        x = np.cos(yaw) * skin[:, 0] + np.sin(yaw) * skin[:, 2]
        radii, angles = np.hypot(x, skin[:, 1]), np.arctan2(skin[:, 1], x)
        turned_x = np.cos(yaw) * places[:, 0] + np.sin(yaw) * places[:, 2]
        reach = np.hypot(turned_x, places[:, 1])
        row = []
        for k, point in enumerate(base):
            score = radii - _ANGLE_PENALTY * radii * np.abs(angles - own_angles[k])
            best = int(np.argmax(score))
            farther = radii[best] >= reach[k] + _LEAST_GAIN_M
            row.append(surface.at_vertex(int(candidates[best])) if farther else point)
        rows.append(row)
    return rows


def _face_mask(surface: Surface, head: Bool[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Skin in front of the ears that can be the silhouette of a face."""
    eye = _eye(surface)
    height = surface.vertices[:, 1] - eye[1]
    normals = surface.normals
    return (
        head
        & (surface.vertices[:, 2] > eye[2] - _BEHIND_EYES_M)
        & (height > _LOWEST_M)
        & (height < _HIGHEST_M)
        & ((normals[:, 1] > _UNDERSIDE_NORMAL) | (height > _CHEEK_M))
        & (normals[:, 2] > _BACKWARD_NORMAL)
    )
