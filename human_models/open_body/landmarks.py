"""The 51 fixed face landmarks (brows, nose, eyes, mouth) as points on the open body's face.

Picked by eye on the mean neutral face, the left half and the midline; the rest is mirrored.
"""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float64

from human_models.joints import SMPLX_SURFACE_VERTICES
from human_models.open_body.surface import Surface, SurfacePoint

Pick = tuple[float, float]

# (x, y) in metres seen from the front: x from the midline, y from the height of the eyes' poles.
_BROW: Final[tuple[Pick, ...]] = (  # inner to outer
    (0.0125, 0.0148),
    (0.0215, 0.0178),
    (0.0315, 0.0193),
    (0.0410, 0.0178),
    (0.0490, 0.0133),
)
_NOSE_BRIDGE: Final[tuple[Pick, ...]] = ((0, 0.0008), (0, -0.0117), (0, -0.0242))  # tip follows
_NOSTRILS: Final[tuple[Pick, ...]] = ((0, -0.0469), (0.0060, -0.0457), (0.0125, -0.0437))
_EYE: Final[tuple[Pick, ...]] = (  # inner corner, upper lid, outer corner, lower lid
    (0.0163, -0.0030),
    (0.0255, 0.0021),
    (0.0365, 0.0018),
    (0.0440, -0.0012),
    (0.0375, -0.0052),
    (0.0265, -0.0049),
)
_MOUTH_CORNER: Final[Pick] = (0.0235, -0.0702)
_UPPER_LIP: Final[tuple[Pick, ...]] = ((0, -0.0632), (0.0050, -0.0622), (0.0135, -0.0647))
_LOWER_LIP: Final[tuple[Pick, ...]] = ((0, -0.0792), (0.0065, -0.0785), (0.0140, -0.0757))
_INNER_CORNER: Final[Pick] = (0.0205, -0.0697)
_INNER_UPPER: Final[tuple[Pick, ...]] = ((0, -0.0689), (0.0085, -0.0689))
_INNER_LOWER: Final[tuple[Pick, ...]] = ((0, -0.0695), (0.0085, -0.0695))

_FACING_FRONT: Final = 0.05
_MIDLINE_M: Final = 1e-4
_LID_DEPTH_M: Final = 0.047  # behind the eye's pole: further back lies the socket, not the lid
_LOWER_LIP_JAW_WEIGHT: Final = 0.35


def fixed_landmarks(
    surface: Surface,
    head: Bool[np.ndarray, " N"],
    jaw_weight: Float64[np.ndarray, " N"],
) -> list[SurfacePoint]:
    """51 points in the order of the 68-point markup without its contour.

    surface: the neutral template in SMPL-X's vertex order; head: vertices of the outer skin.
    """
    eye = surface.vertices[SMPLX_SURFACE_VERTICES["left_eye"]]
    skin = head & (surface.normals[:, 2] > _FACING_FRONT)
    midline = skin & (np.abs(surface.vertices[:, 0]) < _MIDLINE_M)
    lids = skin & (surface.vertices[:, 2] > eye[2] - _LID_DEPTH_M)
    skin_faces = surface.faces_within(head)

    def vertex(pick: Pick, mask: Bool[np.ndarray, " N"]) -> SurfacePoint:
        on_midline = mask & midline if pick[0] == 0 else mask
        return surface.nearest_vertex(np.add(pick, [0, eye[1]]), on_midline)

    def point(pick: Pick) -> SurfacePoint:
        if pick[0] == 0:
            return vertex(pick, skin)
        return surface.from_front(np.add(pick, [0, eye[1]]), skin_faces)

    upper, lower = (
        skin & (jaw_weight < _LOWER_LIP_JAW_WEIGHT),
        skin & (jaw_weight > _LOWER_LIP_JAW_WEIGHT),
    )
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
        """From a point's mirror image on the right over the middle back to the left."""
        middle = left_to_middle[-1]
        right = [surface.mirrored(p) for p in left_to_middle[:-1]]
        return [*right, middle, *left_to_middle[-2::-1]]

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
