"""What AGORA's and BEDLAM's servers demand of the content of one person's pickle."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Shaped

from main.submitting.records import EYES, MATCHED_JOINTS, SCORED_JOINTS, Server
from utils.errors import UserError

Level = Literal["error", "warning"]
"""error: the server refuses it or would measure it wrongly; warning: it is hardly meant."""
Problem = tuple[Level, str]

_VERTICES: Final = 10475
_VECTORS: Final[dict[str, tuple[int, ...]]] = {
    "transl": (1, 3),
    "expression": (1, 10),
    "global_orient": (1, 3),
    "body_pose": (1, 63),
    "jaw_pose": (1, 3),
    "left_hand_pose": (1, 45),
    "right_hand_pose": (1, 45),
    **dict.fromkeys(EYES, (1, 3)),
}
"""Shapes of params where pose2rot is True; that of betas depends on num_betas."""
_MATRICES: Final = _VECTORS | {
    name: (1, shape[1] // 3, 3, 3)
    for name, shape in _VECTORS.items()
    if name.endswith(("pose", "orient"))
}
"""Shapes of params where pose2rot is False."""
_CHOICES: Final[dict[str, Sequence[object]]] = {
    "gender": ("neutral", "male", "female"),
    "age": ("adult", "kid"),
    "kid_flag": (False, True),
    "pose2rot": (True, False),
    "num_betas": range(10, 300),
}
"""Keys that may be left out; their first value then holds."""
_KID_BETAS: Final = 11
_MARGIN: Final = 0.25
"""Joints may lie outside the vertices' box by this part of its longest side."""
_BODY_SIDE_M: Final = (0.3, 3.0)
"""Longest side of the box around a body in any pose."""


def check_record(record: object, server: Server) -> Iterator[Problem]:
    """What is wrong with the content of one person's pickle."""
    if not isinstance(record, dict):
        yield "error", f"holds a {type(record).__name__}, not a dictionary"
        return
    mesh = [key for key in ("verts", "allSmplJoints3d") if key in record]
    if len(mesh) == 1:
        yield "error", "verts and allSmplJoints3d go together, only one is there"
    elif mesh:
        yield from _check_mesh(record)
        if "params" in record:
            yield "warning", "params are not looked at where there are verts"
    elif "params" not in record:
        yield "error", "neither verts with allSmplJoints3d nor params are there"
    elif not server.takes_parameters:
        yield "error", f"params: {server.name} takes verts and allSmplJoints3d alone"
    else:
        yield from _check_parameters(record)
    yield from _check_joints(record, server)
    for key in record.keys() - {"params", "joints", "verts", "allSmplJoints3d", *_CHOICES}:
        yield "warning", f"'{key}' means nothing to the server"


def _numbers(values: dict[Any, Any], key: str) -> Shaped[np.ndarray, "..."]:
    """Raises UserError where it is no array of finite numbers."""
    value = values.get(key)
    if value is None:
        raise UserError(f"{key} is missing")
    if not isinstance(value, np.ndarray):
        raise UserError(f"{key} is a {type(value).__name__}, not a NumPy array")
    if value.dtype.kind not in "fiu":
        raise UserError(f"{key} is of type {value.dtype}, not numbers")
    if not np.isfinite(value).all():
        raise UserError(f"{key} has NaN or infinity")
    return value


def _check_mesh(record: dict[Any, Any]) -> Iterator[Problem]:
    try:
        vertices = _numbers(record, "verts").squeeze()  # as the servers do
        joints = _numbers(record, "allSmplJoints3d").squeeze()
    except UserError as error:
        yield "error", str(error)
        return
    if vertices.shape != (_VERTICES, 3):
        yield "error", f"verts are {vertices.shape}, not ({_VERTICES}, 3)"
    if joints.ndim != 2 or joints.shape[1] != 3 or len(joints) < SCORED_JOINTS:
        yield "error", f"allSmplJoints3d are {joints.shape}, not ({SCORED_JOINTS}, 3)"
    elif len(joints) > SCORED_JOINTS:
        yield "warning", f"allSmplJoints3d: {len(joints)}, the first {SCORED_JOINTS} count"
    if vertices.ndim != 2 or joints.ndim != 2 or {vertices.shape[1], joints.shape[1]} != {3}:
        return
    if not len(vertices) or not len(joints):
        return
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    side = (high - low).max()
    outside = np.maximum(low - joints[:SCORED_JOINTS], joints[:SCORED_JOINTS] - high).max()
    if outside > _MARGIN * side:
        yield "error", f"joints lie {outside:.2f} m off the vertices: they need the same origin"
    if not _BODY_SIDE_M[0] < side < _BODY_SIDE_M[1]:
        yield "warning", f"the body measures {side:.4g}; verts are wanted in metres"


def _check_parameters(record: dict[Any, Any]) -> Iterator[Problem]:
    choices = {key: allowed[0] for key, allowed in _CHOICES.items()}
    for key, allowed in _CHOICES.items():
        given = record.get(key, allowed[0])
        choices[key] = given.tolist() if isinstance(given, np.generic | np.ndarray) else given
        if choices[key] not in allowed:
            told = "10 to 299" if isinstance(allowed, range) else ", ".join(map(str, allowed))
            yield "error", f"{key} is {str(choices[key])[:80]}, possible are {told}"
    if choices["kid_flag"] and choices["num_betas"] != _KID_BETAS:
        yield "error", f"a kid needs num_betas {_KID_BETAS} and as many betas"
    if choices["age"] == "kid" and not choices["kid_flag"]:
        yield "warning", "age is kid, but the server's tools go by kid_flag"
    parameters = record["params"]
    if not isinstance(parameters, dict):
        yield "error", f"params is a {type(parameters).__name__}, not a dictionary"
        return
    shapes = _VECTORS if choices["pose2rot"] else _MATRICES
    for name, shape in {"betas": (1, choices["num_betas"]), **shapes}.items():
        try:
            found = _numbers(parameters, name).shape
        except UserError as error:
            yield "error", f"params: {error}"
            continue
        if found != shape:
            yield "error", f"params: {name} is {found}, not {shape}"
    for key in parameters.keys() - {"betas", *shapes}:
        yield "warning", f"params: '{key}' means nothing to the server"


def _check_joints(record: dict[Any, Any], server: Server) -> Iterator[Problem]:
    try:
        joints = _numbers(record, "joints")
    except UserError as error:
        yield "error", str(error)
        return
    if joints.ndim != 2 or joints.shape[1] < 2 or len(joints) < MATCHED_JOINTS:
        yield "error", f"joints are {joints.shape}, not ({MATCHED_JOINTS}, 2)"
        return
    if joints.shape != (MATCHED_JOINTS, 2):
        yield "warning", f"joints are {joints.shape}: all set the person's box, 24 are matched"
    size = np.array(server.image_size)
    points = joints[:MATCHED_JOINTS, :2]
    if (points.min(axis=0) < -size).any() or (points.max(axis=0) > 2 * size).any():
        yield "warning", f"joints lie far outside the image of {size[0]}x{size[1]} pixels"
    elif (points.max(axis=0) < 0).any() or (points.min(axis=0) > size).any():
        yield "warning", f"no joint lies in the image of {size[0]}x{size[1]} pixels"
