"""What the network gave, frame by frame, as a motion that can be laid beside the smoothed one."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from jaxtyping import Float

from human_models.body import BodyModel
from human_models.joints import JOINTS_FROM_MODEL
from main.exporting.character import Character, make_character
from main.motion.camera import ClipCamera, place_bodies
from main.motion.rows import PARAMETERS
from utils.camera import project
from utils.errors import UserError

_BATCH: Final = 256
_NEEDED: Final = tuple(f"raw_{name}" for name in PARAMETERS)


def raw_character(
    name: str, content: Mapping[str, np.ndarray], body: BodyModel
) -> Character | None:
    """The raw values of a file of results, only moved into the clip's camera.

    Every frame has its own shape there, which the camera's depth depends on; poses are drawn on the
    one shape of the person. None where the file has no raw values.

    Args:
        content: of `main.motion.result_reader.read_person`.

    Raises:
        UserError: the raw values are in no camera's view.
    """
    if any(key not in content for key in (*_NEEDED, "focal", "princpt")):
        return None
    focal, princpt = (tuple(map(float, content[key][0])) for key in ("focal", "princpt"))
    camera = ClipCamera((focal[0], focal[1]), (princpt[0], princpt[1]), "")
    raw = {key: content[f"raw_{key}"] for key in PARAMETERS}
    joints = _joints(raw, body)
    seen_px = project(joints, raw["focal"][:, None], raw["princpt"][:, None])
    if not np.isfinite(seen_px).all():
        raise UserError(
            f"{name}.npz: 'raw_transl' is in the camera itself; run the inference again"
        )
    placed = place_bodies(
        global_orient=raw["global_orient"],
        transl=raw["transl"],
        joints_3d_m=joints,
        joints_2d_px=seen_px,
        princpt=raw["princpt"],
        camera=camera,
    )
    motion = raw | {"global_orient": placed.global_orient, "transl": placed.transl}
    return make_character(name, {**content, **motion}, body)


def _joints(raw: Mapping[str, np.ndarray], body: BodyModel) -> Float[np.ndarray, "T 137 3"]:
    """In the cameras of the crops, metres."""
    names = [name for name in PARAMETERS if name not in ("focal", "princpt")]
    parts = []
    with torch.inference_mode():
        for start in range(0, len(raw["transl"]), _BATCH):
            rows = slice(start, start + _BATCH)
            parameters = {name: torch.from_numpy(raw[name][rows]).float() for name in names}
            output = body(**parameters, want_vertices=False)
            parts.append(output.joints[:, list(JOINTS_FROM_MODEL)].numpy())
    return np.concatenate(parts)
