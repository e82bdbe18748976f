"""People for the page: the one skinned body; each person's shape, clothes, motion and flags."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int

from human_models.body import BodyModel
from human_models.files import BodyData
from human_models.joints import JOINTS
from main.exporting.character import CHARACTER_FIELDS, TO_WORLD, Character, make_character
from main.exporting.surfaces import (
    Layer,
    Shaped,
    make_layers,
    make_morphs,
    make_skeleton,
    strongest,
    vertex_normals,
)
from main.motion.result_reader import Result
from main.viewing.coarse import coarse_faces
from main.viewing.pack import Pack
from main.viewing.raw import raw_character
from utils.render import person_colour

VIEWED_FIELDS: Final = (*CHARACTER_FIELDS, "image_size", "focal", "princpt", "joints_3d_m")
"""What a file of results must hold, so that the page can show the person."""
_SEEN_M: Final = 1e-5
"""One unit of an expression that moves a vertex less leaves it where it is."""
_FEET: Final = [
    JOINTS.index(f"{side}_{end}") for side in ("left", "right") for end in ("heel", "big_toe")
]
_SHARES: Final = ("truncation", "occlusion", "score")
_MARKS: Final = ("interpolated", "out_of_range")


@dataclass(frozen=True, eq=False)
class ViewedPerson:
    """A person of a result: the number, and what `read_person` has of the file."""

    number: int
    name: str
    content: Mapping[str, np.ndarray]


def read_viewed(result: Result, number: int) -> ViewedPerson:
    """A person of a result folder.

    Raises:
        UserError: the file is unreadable or lacks something.
    """
    return ViewedPerson(
        number, result.files[number].stem, result.read_person(number, VIEWED_FIELDS)
    )


def describe_people(
    people: list[ViewedPerson], data: BodyData, body: BodyModel, pack: Pack, *, clothes: bool
) -> dict[str, Any]:
    """What the page draws people from: `template`, which all share, and `people`."""
    described = []
    template: dict[str, Any] = {}
    for person in people:
        character = make_character(person.name, person.content, body)
        raw = raw_character(person.name, person.content, body)
        # A scale of one: the page's expressions are coefficients, of both signs.
        morphs = make_morphs(np.zeros((1, character.expression.shape[1])))
        layers, shaped = make_layers(data, character.betas, person.number, morphs, clothes=clothes)
        skeleton = make_skeleton(data, character.betas)
        template = _template(data, layers, shaped, pack)
        shape = shaped.positions_m[: len(data.template)]
        described.append(
            {
                "number": person.number,
                "name": person.name,
                "color": "#{:02x}{:02x}{:02x}".format(*person_colour(person.number)),
                "rest": pack.exact(skeleton.positions_m),
                "positions": pack.rounded(shape),
                "normals": pack.rounded(vertex_normals(shape, data.faces)),
                "garments": [_garment(layer, pack) for layer in layers[1:]],
                "frames": pack.exact(character.frame_index),
                "smoothed": _motion(character, pack),
                "raw": None if raw is None else _motion(raw, pack),
                "flags": _flags(person.content, pack),
            }
        )
    return {"template": template, "people": described}


def _template(data: BodyData, layers: list[Layer], shaped: Shaped, pack: Pack) -> dict[str, Any]:
    """The body without clothes, its part that clothes leave bare, and its face's motions."""
    count = len(data.template)
    joints, weights = strongest(shaped.weights[:count])
    body = layers[0].surface
    expressions = shaped.expressions_m[:count]
    moved = np.flatnonzero(np.abs(expressions).max(axis=(1, 2)) > _SEEN_M)

    def detailed(faces: Int[np.ndarray, "F 3"]) -> dict[str, Any]:
        coarse = coarse_faces(data.template, faces, joints[:, 0])
        return {"fine": pack.exact(faces), "coarse": pack.exact(coarse)}

    colors = None
    if body.colors is not None:
        every: Float[np.ndarray, "V 3"] = np.zeros((count, 3))
        every[layers[0].points] = body.colors
        colors = pack.rounded(every)
    return {
        "parents": list(data.parents),
        "faces": detailed(data.faces),
        "uncovered": detailed(layers[0].points[body.faces]) if len(layers) > 1 else None,
        "joints": pack.exact(joints),
        "weights": pack.rounded(weights),
        "moved": pack.exact(moved),
        "expressions": pack.rounded(expressions[moved].transpose(0, 2, 1)),
        "colors": colors,
    }


def _garment(layer: Layer, pack: Pack) -> dict[str, Any]:
    surface = layer.surface
    coarse = coarse_faces(surface.positions_m, surface.faces, surface.joints[:, 0])
    return {
        "name": surface.name,
        "positions": pack.rounded(surface.positions_m),
        "normals": pack.rounded(surface.normals),
        "faces": {"fine": pack.exact(surface.faces), "coarse": pack.exact(coarse)},
        "joints": pack.exact(surface.joints),
        "weights": pack.rounded(surface.weights),
        "color": list(surface.material.color),
        "colors": None if surface.colors is None else pack.rounded(surface.colors),
    }


def _motion(character: Character, pack: Pack) -> dict[str, Any]:
    """Quaternions (x, y, z, w) of the 55 joints, the pelvis' place and expressions of each row."""
    return {
        "rotations": pack.rounded(character.quaternions[..., [1, 2, 3, 0]]),
        "pelvis": pack.exact(character.pelvis_m),
        "expressions": pack.rounded(character.expression),
    }


def _flags(content: Mapping[str, np.ndarray], pack: Pack) -> dict[str, Any]:
    """Shares as whole percent, marks as 0 or 1; what an older file lacks is left out."""
    percent = {
        name: pack.exact(np.round(100 * np.clip(content[name], 0, 1)).astype(np.int64))
        for name in _SHARES
        if name in content
    }
    marks = {name: pack.exact(content[name].astype(bool)) for name in _MARKS if name in content}
    return percent | marks


def world_of(people: list[ViewedPerson]) -> tuple[Float[np.ndarray, "4 4"], bool]:
    """From the page's camera frame (y up) to a world whose floor is y = 0; whether it is estimated.

    Without --floor the camera's own up is taken, and the height at which most feet are.
    """
    flip = np.eye(4)
    flip[:3, :3] = TO_WORLD["y"]
    for person in people:
        if "world_from_camera" in person.content:
            return person.content["world_from_camera"] @ flip, True
    world = np.eye(4)
    heights = [_lowest_feet(person.content) for person in people]
    world[1, 3] = -float(np.median(np.concatenate(heights)))
    return world, False


def _lowest_feet(content: Mapping[str, np.ndarray]) -> Float[np.ndarray, " T"]:
    feet: Float[np.ndarray, "T 4"] = -content["joints_3d_m"][:, _FEET, 1]
    return feet.min(axis=1)


def frame_count(people: list[ViewedPerson], told: int | None) -> int:
    """Of the clip: as its summary tells it, and no fewer than people have."""
    last: Int[np.ndarray, " P"] = np.array([one.content["frame_index"][-1] for one in people])
    return max(int(last.max()) + 1, told or 0)
