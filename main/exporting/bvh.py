"""A character's motion as .bvh: 55 joints with fingers, in centimetres."""

from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float

from human_models.files import BodyData
from human_models.joints import RIG_JOINTS, SMPLX_SURFACE_VERTICES
from main.exporting.character import TO_WORLD, Character, without_gaps
from main.exporting.surfaces import make_skeleton
from utils.bvh import make_bvh
from utils.files import atomic_path

_CENTIMETRES: Final = 100.0
_TIPS: Final = {
    f"{side}_{joint}": f"{side}_{tip}"
    for side in ("left", "right")
    for joint, tip in (
        ("foot", "big_toe"),
        ("eye_smplhf", "eye"),
        *((f"{finger}3", f"{finger}4") for finger in ("thumb", "index", "middle", "ring", "pinky")),
    )
}
"""Points of the surface at which the last bones end."""


def write_bvh(path: Path, character: Character, body: BodyData) -> None:
    """Write every frame from the first to the last that shows the person.

    The rest pose stands upright in the character's world; without a gap in the frames the n-th
    row is the n-th keyframe.
    """
    character = without_gaps(character)
    # The rest pose is y up; all frames of the skeleton are turned alike.
    turn = np.array(TO_WORLD[character.up]) @ np.array(TO_WORLD["y"]).T
    positions = make_skeleton(body, character.betas).positions_m
    ends = _ends(body, character.betas, positions)
    offsets = positions - positions[list(body.parents)]
    rotations = turn @ character.rotations @ turn.T
    rotations[:, 0] = character.rotations[:, 0] @ turn.T
    text = make_bvh(
        RIG_JOINTS,
        body.parents,
        offsets @ turn.T * _CENTIMETRES,
        ends @ turn.T * _CENTIMETRES,
        character.pelvis_m * _CENTIMETRES,
        rotations,
        1 / character.fps,
    )
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="ascii")


def _ends(
    body: BodyData, betas: Float[np.ndarray, " S"], joints: Float[np.ndarray, "55 3"]
) -> Float[np.ndarray, "55 3"]:
    """Where bones without a further joint end, from their joint; the jaw's goes on as it came."""
    ends = joints - joints[list(body.parents)]
    for joint, tip in _TIPS.items():
        vertex, number = SMPLX_SURFACE_VERTICES[tip], RIG_JOINTS.index(joint)
        tip_position = body.template[vertex] + body.shape_directions[vertex] @ betas
        ends[number] = tip_position - joints[number]
    return ends
