"""Where on the open body the features of a face are: weights over its vertices, 0 to 1."""

from itertools import pairwise
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int

from human_models.files import BodyData
from human_models.joints import MODEL_JOINTS, SMPLX_SURFACE_VERTICES
from human_models.safe_pickle import load_npz

FEATURES: Final = ("lips", "mouth", "cheeks", "beard", "brows", "sclera", "iris", "pupil", "scalp")
_FIRST_LANDMARK: Final = MODEL_JOINTS.index("face5")
_IRIS_DEG, _PUPIL_DEG = 32.0, 12.0


def face_features(body: BodyData) -> dict[str, Float32[np.ndarray, " V"]]:
    """Each of FEATURES; "scalp" is where hair grows, 0 at the hairline."""
    region = load_npz(body.source)["region"]
    vertices = body.template.astype(np.float64)
    assert body.landmarks is not None
    corners = vertices[body.landmarks.corners]
    landmarks = np.einsum("lkc,lk->lc", corners, body.landmarks.barycentrics)
    head = region == "head"
    front = head & (vertices[:, 2] > 0.08)
    outer, inner = landmarks[31:43], landmarks[43:51]
    inside = _inside(vertices, outer, 0.0015)
    weights = {
        "lips": inside * (1 - _inside(vertices, inner, 0.001)) * front,
        "mouth": np.isin(region, ("mouth_cavity", "tongue")).astype(float),
        "cheeks": _cheeks(vertices, landmarks) * front,
        "beard": _beard(vertices, landmarks) * head,
        "brows": _brows(vertices, landmarks) * head,
        "scalp": _scalp(vertices, landmarks, head),
        **_eyes(vertices, region),
    }
    return {name: weights[name].astype(np.float32) for name in FEATURES}


def _inside(
    vertices: Float[np.ndarray, "V 3"], outline: Float[np.ndarray, "K 3"], soft_m: float
) -> Float[np.ndarray, " V"]:
    """1 inside an outline seen from the front, fading over `soft_m`."""
    polygon = (outline[:, :2] * 1e4).astype(np.float32)
    near = np.abs(vertices[:, :2] - outline[:, :2].mean(axis=0)).max(axis=1) < 0.06
    distance = np.full(len(vertices), -1.0)
    for i in np.flatnonzero(near):
        x, y = (vertices[i, :2] * 1e4).tolist()
        distance[i] = cv2.pointPolygonTest(polygon, (x, y), measureDist=True) / 1e4
    return np.clip(0.5 + distance / soft_m, 0, 1)


def _cheeks(
    vertices: Float[np.ndarray, "V 3"], landmarks: Float[np.ndarray, "51 3"]
) -> Float[np.ndarray, " V"]:
    eyes_y, mouth_y = landmarks[19:31, 1].mean(), landmarks[31:43, 1].mean()
    center = np.array([0.038, 0.6 * mouth_y + 0.4 * eyes_y])
    distance = np.linalg.norm(
        (np.abs(vertices[:, :2] * [1, 0]) + vertices[:, :2] * [0, 1]) - center, axis=1
    )
    return np.exp(-((distance / 0.018) ** 2))


def _beard(
    vertices: Float[np.ndarray, "V 3"], landmarks: Float[np.ndarray, "51 3"]
) -> Float[np.ndarray, " V"]:
    """Upper lip, chin and jaw, up to the ears."""
    nose_y, mouth = landmarks[14:19, 1].min(), landmarks[31:43].mean(axis=0)
    ear = vertices[SMPLX_SURFACE_VERTICES["left_ear"]]
    depths = [ear[2] - 0.03, ear[2] + 0.01, mouth[2] - 0.03, mouth[2]]
    top = np.interp(
        vertices[:, 2], depths, [ear[1] - 0.03, ear[1] - 0.005, mouth[1], nose_y - 0.004]
    )
    bottom = mouth[1] - 0.085
    height = np.clip((top - vertices[:, 1]) / 0.008, 0, 1)
    return (
        height * np.clip((vertices[:, 1] - bottom) / 0.012, 0, 1) * (vertices[:, 2] > ear[2] - 0.03)
    )


def _brows(
    vertices: Float[np.ndarray, "V 3"], landmarks: Float[np.ndarray, "51 3"]
) -> Float[np.ndarray, " V"]:
    distance = np.full(len(vertices), np.inf)
    for brow in (landmarks[:5], landmarks[5:10]):
        for start, end in pairwise(brow):
            along = np.clip(
                (vertices - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1
            )
            to_line = vertices - (start + along[:, None] * (end - start))
            distance = np.minimum(distance, np.linalg.norm(to_line, axis=1))
    return np.clip(1 - (distance - 0.0015) / 0.0035, 0, 1)


def _scalp(
    vertices: Float[np.ndarray, "V 3"], landmarks: Float[np.ndarray, "51 3"], head: np.ndarray
) -> Float[np.ndarray, " V"]:
    """Above a hairline that drops from the forehead over the temples to the nape; not the ears."""
    ear = vertices[SMPLX_SURFACE_VERTICES["left_ear"]]
    nose = vertices[SMPLX_SURFACE_VERTICES["nose"]]
    depths = [ear[2] - 0.05, ear[2] - 0.01, ear[2] + 0.025, nose[2] - 0.035]
    heights = [ear[1] - 0.035, ear[1] + 0.015, ear[1] + 0.035, landmarks[:10, 1].max() + 0.04]
    above = vertices[:, 1] - np.interp(vertices[:, 2], depths, heights)
    around_ear = np.linalg.norm(vertices[:, 1:] - ear[1:], axis=1) < 0.036
    is_ear = around_ear & (np.abs(vertices[:, 0]) > 0.055)
    return np.clip(above / 0.02, 0, 1) * head * ~is_ear


def _eyes(
    vertices: Float[np.ndarray, "V 3"], region: np.ndarray
) -> dict[str, Float[np.ndarray, " V"]]:
    weights = {name: np.zeros(len(vertices)) for name in ("sclera", "iris", "pupil")}
    for side in ("left", "right"):
        ball: Int[np.ndarray, " E"] = np.flatnonzero(region == f"{side}_eye")
        rays = vertices[ball] - vertices[ball].mean(axis=0)
        axis = vertices[SMPLX_SURFACE_VERTICES[f"{side}_eye"]] - vertices[ball].mean(axis=0)
        cosine = rays @ axis / np.linalg.norm(rays, axis=1) / np.linalg.norm(axis)
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        weights["sclera"][ball] = 1
        weights["iris"][ball] = angle < _IRIS_DEG
        weights["pupil"][ball] = angle < _PUPIL_DEG
    return weights
