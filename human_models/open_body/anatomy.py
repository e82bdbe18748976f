"""Finds the vertices behind SMPL-X's surface points (nose, eyes, ears, fingertips, toes, heels)."""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from human_models.joints import SMPLX_SURFACE_VERTICES
from human_models.open_body.assets import Rig, read_named_target
from human_models.open_body.bones import FINGER_NUMBERS
from human_models.open_body.tpose import normalized

_MIDLINE_M: Final = 1e-4
_NOSE_BELOW_EYES_M: Final = (0.015, 0.060)
_EAR_TARGET: Final = "l-ear-scale-incr"  # moves the left ear and nothing else
_EAR_MOVED_M: Final = 5e-4
_EAR_CENTRE_RADIUS_M: Final = 0.012
_HEEL_HEIGHT_M: Final = 0.03
_SMALL_TOE_SLANT: Final = 0.5  # its tip points outwards too


def surface_vertices(
    vertices: Float64[np.ndarray, "N 3"],
    regions: Shaped[np.ndarray, " N"],
    bone_weights: Float64[np.ndarray, "N bones"],
    mirror: Int64[np.ndarray, " N"],
    ear: Bool[np.ndarray, " N"],
    rig: Rig,
) -> dict[str, int]:
    """Vertex of every name of SMPLX_SURFACE_VERTICES: the left half is found, the right mirrored.

    vertices: an average adult in the T-pose; ear: see `left_ear`.
    """
    x, y, z = vertices.T

    def foremost(where: Bool[np.ndarray, " N"], score: Float64[np.ndarray, " N"]) -> int:
        candidates = np.flatnonzero(where)
        return int(candidates[np.argmax(score[candidates])])

    def follows(bone: str, share: float = 0.5) -> Bool[np.ndarray, " N"]:
        return bone_weights[:, rig.index(f"{bone}.L")] > share

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


def left_ear(vertex_count: int) -> Bool[np.ndarray, " V"]:
    """Vertices of the base mesh that belong to the left ear."""
    return np.abs(read_named_target(_EAR_TARGET, vertex_count)).max(axis=1) > _EAR_MOVED_M


def closed_eyelid(
    head: Bool[np.ndarray, " N"],
    blinking: Float64[np.ndarray, "N 3"],
    eye: Float64[np.ndarray, "3"],
) -> int:
    """Vertex of the lids that covers the eye's front when they close; depth counts little."""
    distances = np.linalg.norm((blinking - eye) * [1, 1, 0.3], axis=1)
    return int(np.argmin(np.where(head, distances, np.inf)))
