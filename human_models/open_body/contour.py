"""The 17 landmarks of the face's contour, which wander over the skin as the head turns."""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from human_models.joints import SMPLX_SURFACE_VERTICES
from human_models.open_body.surface import Surface, SurfacePoint, stacked

CONTOUR_POINTS: Final = 17
MAX_YAW_DEG: Final = 39

# The jaw line from the left ear to beside the chin, then the chin: (x, y) in metres seen from the
# front, y from the height of the eyes' poles.
_JAW_LINE: Final = (
    (0.0720, -0.0077),
    (0.0715, -0.0237),
    (0.0690, -0.0407),
    (0.0635, -0.0577),
    (0.0560, -0.0737),
    (0.0475, -0.0902),
    (0.0340, -0.1017),
    (0.0175, -0.1082),
)
_CHIN: Final = (0.0, -0.1102)
_BESIDE_EAR: Final = 3  # that many points must not slip onto the ear

# From the eye's pole to the point inside the head about which angles are measured.
_CENTRE_FROM_EYE_M: Final = np.array([0.0, -0.0377, -0.1168])
_BEHIND_EYES_M: Final = 0.068  # farther back begins the ear
# The face that may show as silhouette: heights from the eyes, without the jaw's underside.
_LOWEST_M: Final = -0.1132
_HIGHEST_M: Final = 0.0093
_CHEEK_M: Final = -0.0627  # above this, no skin counts as the jaw's underside
_UNDERSIDE_NORMAL: Final = -0.45
_BACKWARD_NORMAL: Final = -0.3
_JAW_LINE_NORMAL: Final = -0.1
_ANGLE_PENALTY: Final = 1.5
_LEAST_GAIN_M: Final = 0.0015


def contour_table(
    surface: Surface, head: Bool[np.ndarray, " N"]
) -> tuple[Int64[np.ndarray, "79 17"], Float64[np.ndarray, "79 17 3"]]:
    """Faces and barycentric coordinates for every degree of yaw.

    Rows 0 to 39 are yaw 0 to -39 degrees, rows 40 to 78 are +1 to +39, as the smplx package
    looks them up. Points go from the right ear over the chin (8) to the left ear. On the side that
    turns away they move to the silhouette, the near side keeps the jaw line.
    """
    base, chin = _frontal(surface, head)
    turned_away = _silhouettes(surface, head, base)
    faces, barycentrics = [], []
    for row in range(2 * MAX_YAW_DEG + 1):
        yaw = -row if row <= MAX_YAW_DEG else row - MAX_YAW_DEG
        left = turned_away[max(yaw, 0)]
        right = [surface.mirrored(point) for point in turned_away[max(-yaw, 0)]]
        face, barycentric = stacked([*right, chin, *left[::-1]])
        faces.append(face)
        barycentrics.append(barycentric)
    return np.array(faces), np.array(barycentrics)


def _eye(surface: Surface) -> Float64[np.ndarray, "3"]:
    return surface.vertices[SMPLX_SURFACE_VERTICES["left_eye"]]


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


def _frontal(
    surface: Surface, head: Bool[np.ndarray, " N"]
) -> tuple[list[SurfacePoint], SurfacePoint]:
    """The left jaw line and the chin as seen from the front."""
    before_ear = surface.faces_within(_face_mask(surface, head))
    # Looser than the silhouette's mask, for the chin's round underside must be hit.
    whole = surface.faces_within(head & (surface.normals[:, 2] > _JAW_LINE_NORMAL))
    eye_height = np.array([0, _eye(surface)[1]])
    line = [
        surface.from_front(np.array(pick) + eye_height, before_ear if k < _BESIDE_EAR else whole)
        for k, pick in enumerate(_JAW_LINE)
    ]
    return line, surface.from_front(np.array(_CHIN) + eye_height, whole)


def _silhouettes(
    surface: Surface, head: Bool[np.ndarray, " N"], base: list[SurfacePoint]
) -> list[list[SurfacePoint]]:
    """The left jaw line's points for yaw 0..39 degrees, which turns the left cheek away.

    A point leaves its place for the vertex that reaches farthest from the head's centre in the
    picture, near its own polar angle, once that is clearly farther out.
    """
    centre = _eye(surface) * [0, 1, 1] + _CENTRE_FROM_EYE_M
    candidates = np.flatnonzero(_face_mask(surface, head))
    skin = surface.vertices[candidates] - centre
    places = np.array([surface.position(point) for point in base]) - centre
    own_angles = np.arctan2(places[:, 1], places[:, 0])
    rows = [base]
    for yaw in np.radians(np.arange(1, MAX_YAW_DEG + 1)):
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
