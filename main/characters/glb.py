"""A character as an animated .glb: skeleton, skin, morphs of the face, clothes, motion."""

from pathlib import Path
from typing import Any

from human_models.files import BodyData
from main.characters.character import Character
from main.characters.surfaces import Morphs, make_layers, make_morphs, make_skeleton
from utils.files import atomic_path
from utils.mesh import Motion, make_glb


def write_glb(
    path: Path, character: Character, body: BodyData, person: int, *, clothes: bool = True
) -> None:
    """Write a character whose world is y up; keyframes at the video's own times.

    The shape is baked into the rest mesh; expressions are morphs, the jaw and the fingers joints.
    """
    assert character.up == "y"
    skeleton = make_skeleton(body, character.betas)
    morphs = make_morphs(character.expression)
    layers, _ = make_layers(body, character.betas, person, morphs, clothes=clothes)
    motion = Motion(
        times_s=character.times_s,
        rotations=character.quaternions,
        root_m=character.pelvis_m,
        morphs=morphs.weights,
    )
    surfaces = [layer.surface for layer in layers]
    content = make_glb(character.name, skeleton, surfaces, motion, _about(character, morphs))
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def _about(character: Character, morphs: Morphs) -> dict[str, Any]:
    return {
        "body_model": character.body_model,
        "fps": character.fps,
        "first_frame": int(character.frame_index[0]),
        "last_frame": int(character.frame_index[-1]),
        "keyframes": len(character.frame_index),
        "betas": [round(float(beta), 6) for beta in character.betas],
        "units": "metres, seconds from the beginning of the video",
        "world": "y up, x right and z towards the viewer as the camera sees it",
        "hands": "rotations from the flat hand; the model's mean hand is in them",
        "shape": "betas are the mean over the track, baked into the rest mesh",
        "expression_of_a_full_morph": morphs.scale,
        "not_included": "pose-corrective blend shapes; joints beyond the four strongest a vertex",
    }
