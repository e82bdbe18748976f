"""The samples with the largest errors: kept while a benchmark runs, drawn when it has ended."""

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
from human_models.files import ModelFolder, read_body, read_hand_vertices
from main.evaluation.metrics import SampleErrors
from utils.camera import Camera
from utils.geometry import align_similarity
from utils.image import write_image
from utils.render import Colour, MeshRenderer, PlacedMesh, person_colour

_RANKED_BY: Final = ("mpvpe_all", "pa_mpvpe_hand")
_PELVIS: Final = 0
_ENLARGED: Final = 2
_CAPTION_PX: Final = 24
_BEHIND_THE_CAMERA: Final = (0.0, 0.0, -1.0)
"""Where nothing is drawn."""


class WorstSample(NamedTuple):
    """What the picture of a sample needs; compared as tuples, the larger is the worse."""

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
    """At most `count` samples of a batch, of those that have the metric; crops are 0..255."""
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
    """The worst of several parts, the worst first."""
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
    """One picture per sample: the crop, the prediction over it, and the truth over it.

    The truth is drawn where the prediction is, since cameras of datasets differ from the crop's:
    its pelvis at the predicted one, or, in sets of hands alone, each hand aligned as it is
    measured.

    Args:
        names: captions of the samples in the pictures.
    """
    draw = _Pictures(model, body_folder, hands_alone)
    for number, (sample, name) in enumerate(zip(samples, names, strict=True), start=1):
        write_image(folder / f"{number:02d}_{sample.error_mm:.0f}mm.jpg", draw(sample, name))


class _Pictures:
    def __init__(self, model: ModelConfig, folder: ModelFolder, hands_alone: bool) -> None:
        self._bodies = {10475: read_body(folder, "smplx"), 6890: read_body(folder, "smpl")}
        self._hands = list(read_hand_vertices(folder).values()) if hands_alone else []
        self._model = model
        self._renderers = {}
        for count, body in self._bodies.items():
            faces = body.faces
            if hands_alone:
                faces = faces[np.isin(faces, np.concatenate(self._hands)).all(axis=1)]
            self._renderers[count] = MeshRenderer(faces, count)

    def __call__(self, sample: WorstSample, name: str) -> UInt8[np.ndarray, "H W 3"]:
        crop = cv2.resize(sample.pixels, None, fx=_ENLARGED, fy=_ENLARGED)
        panels = {
            f"{name}": crop,
            f"prediction, {sample.metric} {sample.error_mm:.1f} mm": self._over(
                crop, sample.predicted_m, person_colour(0)
            ),
            "truth": self._over(crop, self._placed_truth(sample), person_colour(2)),
        }
        return np.concatenate([_captioned(*panel) for panel in panels.items()], axis=1)

    def _placed_truth(self, sample: WorstSample) -> Float32[np.ndarray, "V 3"]:
        placed = sample.true_m.copy()
        if self._hands:
            for hand, valid in zip(self._hands, sample.hands_valid, strict=True):
                if not valid:
                    placed[hand] = _BEHIND_THE_CAMERA
                    continue
                points = (torch.from_numpy(v[None, hand]) for v in (placed, sample.predicted_m))
                placed[hand] = align_similarity(*points)[0].numpy()
            return placed
        predicted, true = (
            (self._bodies[len(mesh)].joint_regressor[_PELVIS] @ mesh).astype(np.float32)
            for mesh in (sample.predicted_m, placed)
        )
        return placed + (predicted - true)

    def _over(
        self, crop: UInt8[np.ndarray, "H W 3"], mesh: Float32[np.ndarray, "V 3"], colour: Colour
    ) -> UInt8[np.ndarray, "H W 3"]:
        camera = Camera(self._model.focal, self._model.princpt).scaled(_ENLARGED)
        return self._renderers[len(mesh)].overlay(crop, [PlacedMesh(mesh, camera, colour)])


def _captioned(text: str, panel: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H2 W 3"]:
    strip = np.zeros((_CAPTION_PX, panel.shape[1], 3), np.uint8)
    place, white = (4, _CAPTION_PX - 8), (255, 255, 255)
    cv2.putText(strip, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, white, 1, cv2.LINE_AA)
    return np.concatenate([strip, panel])
