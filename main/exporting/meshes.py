"""A character as one mesh a frame: all of the body model, with what a skeleton cannot show."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int

from human_models.body import BodyModel
from main.exporting.character import Character
from utils.files import atomic_path
from utils.iteration import with_progress

MeshFormat = Literal["obj", "ply"]
_BATCH = 16


def write_meshes(
    folder: Path, character: Character, body: BodyModel, kind: MeshFormat, *, every: int = 1
) -> None:
    """Write frame_000000.obj, ... numbered as in the video; the folder appears when it is whole.

    Metres, in the character's world. Frames that do not show the person have no file.

    Args:
        every: the step in frames of the video, from the character's first.
    """
    faces = body.faces.numpy()
    text = _obj_faces(faces)
    chosen = np.flatnonzero((character.frame_index - character.frame_index[0]) % every == 0)
    with atomic_path(folder) as partial:
        partial.mkdir()
        frames = _vertices(character, body, chosen)
        for number, vertices in with_progress(frames, len(chosen), "meshes"):
            file = partial / f"frame_{number:06d}.{kind}"
            if kind == "obj":
                rows = "".join(f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in vertices.tolist())
                file.write_text(rows + text, encoding="ascii")
            else:
                file.write_bytes(_ply(vertices, faces))


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


def _obj_faces(faces: Int[np.ndarray, "F 3"]) -> str:
    return "".join(f"f {a} {b} {c}\n" for a, b, c in (faces + 1).tolist())


def _ply(vertices: Float32[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> bytes:
    """Binary, little-endian."""
    header = (
        "ply\nformat binary_little_endian 1.0\n"
        f"element vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.empty(len(faces), np.dtype([("count", "u1"), ("corners", "<i4", (3,))]))
    rows["count"], rows["corners"] = 3, faces
    return header.encode("ascii") + vertices.astype("<f4").tobytes() + rows.tobytes()
