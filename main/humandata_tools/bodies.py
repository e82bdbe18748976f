"""Bodies of HumanData rows: parameters -> mesh and joints in the camera's frame.

Parameters are columns by the names of the format, N rows of numbers; others are not looked at.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import torch
from jaxtyping import Float32

from human_models.body import BodyLibrary, BodyModel

_BATCH: Final = 64
_SIZES: Final = {
    "global_orient": 3,
    "body_pose": 63,
    "left_hand_pose": 45,
    "right_hand_pose": 45,
    "jaw_pose": 3,
    "betas": 10,
    "expression": 10,
    "transl": 3,
}
"""SMPL-X's parameters and their numbers a row; what a row lacks is zero."""


def joints_of_smplx(
    bodies: BodyLibrary, parameters: Mapping[str, np.ndarray]
) -> Float32[np.ndarray, "N 144 3"]:
    """Joints of the neutral body (MODEL_JOINTS, HumanData's first 144), metres."""
    body, count = bodies.smplx(), len(parameters["global_orient"])
    return np.concatenate(
        [_posed(body, parameters, rows, want_vertices=False)[1] for rows in _batches(count)]
    )


def mesh_of_smplx(
    bodies: BodyLibrary, parameters: Mapping[str, np.ndarray], row: int
) -> Float32[np.ndarray, "10475 3"]:
    """Vertices of the neutral body of one row, metres."""
    vertices, _ = _posed(bodies.smplx(), parameters, slice(row, row + 1), want_vertices=True)
    assert vertices is not None
    return vertices[0]


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, start + _BATCH) for start in range(0, count, _BATCH))


def _posed(
    body: BodyModel,
    parameters: Mapping[str, np.ndarray],
    rows: slice,
    *,
    want_vertices: bool,
) -> tuple[Float32[np.ndarray, "B V 3"] | None, Float32[np.ndarray, "B 144 3"]]:
    count = len(parameters["global_orient"][rows])
    given = {
        name: torch.from_numpy(
            np.ascontiguousarray(parameters[name][rows], np.float32).reshape(count, size)
            if name in parameters
            else np.zeros((count, size), np.float32)
        )
        for name, size in _SIZES.items()
    }
    with torch.inference_mode():
        output = body(**given, want_vertices=want_vertices)
    vertices = None if output.vertices is None else output.vertices.numpy(force=True)
    return vertices, output.joints.numpy(force=True)
