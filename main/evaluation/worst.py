"""The samples of a benchmark with the largest errors, and pictures of them."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from configs.schema import ModelConfig
from human_models.files import BodyData, ModelFolder, read_body, read_hand_vertices
from main.evaluation.metrics import SampleErrors
from utils.camera import Camera
from utils.geometry import align_similarity
from utils.image import write_image
from utils.render import MeshRenderer, PlacedMesh, person_colour

_RANKED_BY: Final = ("mpvpe_all", "pa_mpvpe_hand")
_PELVIS: Final = 0
_ENLARGED: Final = 2
_CAPTION_PX: Final = 24
_BEHIND_THE_CAMERA: Final = (0.0, 0.0, -1.0)
"""Position of points that are not drawn."""


class WorstSample(NamedTuple):
    """A sample with its meshes; as a tuple, the sample with the larger error is larger."""

    error_mm: float
    place: int
    """Row of the dataset's table."""
    metric: str
    pixels: UInt8[np.ndarray, "h w 3"]
    """The network's input, RGB."""
    predicted_m: Float32[np.ndarray, "10475 3"]
    true_m: Float32[np.ndarray, "V 3"]
    hands_valid: tuple[bool, bool]
    """Whether the truth has a left and a right hand."""


def worst_of_batch(
    count: int,
    indices: Sequence[int],
    errors: Mapping[str, SampleErrors],
    crops: Float[Tensor, "B h w 3"],
    predicted_m: Float[Tensor, "B 10475 3"],
    true_m: Float[Tensor, "B V 3"],
    hands_valid: Bool[Tensor, "B 2"],
) -> list[WorstSample]:
    """The `count` worst samples of a batch, of those with the metric; crops are 0 to 255."""
    metric = next((name for name in _RANKED_BY if name in errors), next(iter(errors)))
    error_mm = errors[metric].error_mm.where(errors[metric].valid, -1.0)
    return [
        WorstSample(
            float(error),
            indices[int(k)],
            metric,
            crops[k].clamp(0, 255).byte().numpy(force=True),
            predicted_m[k].float().numpy(force=True),
            true_m[k].float().numpy(force=True),
            (bool(hands_valid[k, 0]), bool(hands_valid[k, 1])),
        )
        for error, k in zip(*error_mm.topk(min(count, len(indices))), strict=True)
        if error >= 0
    ]


def worst_of_all(parts: Iterable[Sequence[WorstSample]], count: int) -> list[WorstSample]:
    """The `count` worst samples of several lists, the worst first."""
    return heapq.nlargest(count, (sample for part in parts for sample in part))


def draw_worst(
    folder: Path,
    samples: Sequence[WorstSample],
    names: Sequence[str],
    model: ModelConfig,
    body_folder: ModelFolder,
    *,
    hands_alone: bool,
) -> None:
    """Draw one picture per sample: the crop, and the prediction and the truth over it.

    Cameras of datasets differ from that of the crop, so the truth is moved to the prediction: its
    pelvis to the predicted one or, in hand datasets, each hand by the alignment of the metric.

    Args:
        names: captions of the samples in the pictures.
    """
    bodies = {10475: read_body(body_folder, "smplx"), 6890: read_body(body_folder, "smpl")}
    hands = list(read_hand_vertices(body_folder).values()) if hands_alone else []
    camera = Camera(model.focal, model.princpt).scaled(_ENLARGED)
    renderers = {}
    for count, body in bodies.items():
        faces = body.faces
        if hands_alone:
            faces = faces[np.isin(faces, np.concatenate(hands)).all(axis=1)]
        renderers[count] = MeshRenderer(faces, count)
    for number, (sample, name) in enumerate(zip(samples, names, strict=True), start=1):
        crop = cv2.resize(sample.pixels, None, fx=_ENLARGED, fy=_ENLARGED)
        panels = [_captioned(name, crop)]
        for title, mesh, colour in (
            (f"prediction, {sample.metric} {sample.error_mm:.1f} mm", sample.predicted_m, 0),
            ("truth", _placed_truth(sample, bodies, hands), 2),
        ):
            placed = PlacedMesh(mesh, camera, person_colour(colour))
            panels.append(_captioned(title, renderers[len(mesh)].overlay(crop, [placed])))
        picture = np.concatenate(panels, axis=1)
        write_image(folder / f"{number:02d}_{sample.error_mm:.0f}mm.jpg", picture)


def _placed_truth(
    sample: WorstSample, bodies: Mapping[int, BodyData], hands: Sequence[np.ndarray]
) -> Float32[np.ndarray, "V 3"]:
    """The true mesh moved to the prediction; `hands` are vertex lists, empty for whole bodies."""
    placed = sample.true_m.copy()
    if hands:
        for hand, valid in zip(hands, sample.hands_valid, strict=True):
            if not valid:
                placed[hand] = _BEHIND_THE_CAMERA
                continue
            points = (torch.from_numpy(v[None, hand]) for v in (placed, sample.predicted_m))
            placed[hand] = align_similarity(*points)[0].numpy()
        return placed
    predicted, true = (
        (bodies[len(mesh)].joint_regressor[_PELVIS] @ mesh).astype(np.float32)
        for mesh in (sample.predicted_m, placed)
    )
    return placed + (predicted - true)


def _captioned(text: str, panel: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H2 W 3"]:
    strip = np.zeros((_CAPTION_PX, panel.shape[1], 3), np.uint8)
    place, white = (4, _CAPTION_PX - 8), (255, 255, 255)
    cv2.putText(strip, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, white, 1, cv2.LINE_AA)
    return np.concatenate([strip, panel])
