"""A character as one mesh per frame: all of the body model, with what a skeleton cannot show."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int

from human_models.body import BodyModel
from main.characters.character import Character
from utils.files import atomic_path
from utils.iteration import with_progress
from utils.mesh import obj_maker, ply_maker

_BATCH = 16


def write_meshes(
    folder: Path,
    character: Character,
    body: BodyModel,
    kind: Literal["obj", "ply"],
    *,
    every: int = 1,
) -> None:
    """Write frame_000000.obj, ... numbered as in the video; the folder appears when it is whole.

    Metres, in the character's world. Frames that do not show the person have no file.

    Args:
        every: the step in frames of the video, from the character's first.
    """
    make_file = {"obj": obj_maker, "ply": ply_maker}[kind](body.faces.numpy())
    chosen = np.flatnonzero((character.frame_index - character.frame_index[0]) % every == 0)
    with atomic_path(folder) as partial:
        partial.mkdir()
        frames = _vertices(character, body, chosen)
        for number, vertices in with_progress(frames, len(chosen), "meshes"):
            (partial / f"frame_{number:06d}.{kind}").write_bytes(make_file(vertices))


def _vertices(
    character: Character, body: BodyModel, chosen: Int[np.ndarray, " K"]
) -> Iterator[tuple[int, Float32[np.ndarray, "V 3"]]]:
    """The vertices of each chosen keyframe, and its number in the video."""
    parameters = character.body_parameters(body)
    for start in range(0, len(chosen), _BATCH):
        rows = chosen[start : start + _BATCH]
        with torch.inference_mode():
            output = body(**{name: value[rows] for name, value in parameters.items()})
        assert output.vertices is not None
        yield from zip(character.frame_index[rows].tolist(), output.vertices.numpy(), strict=True)
