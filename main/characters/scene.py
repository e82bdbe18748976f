"""The page's data about people: the skinned body, and each person's shape, clothes, motion, flags.

Arrays go into one compressed block of bytes, a `Pack`, and JSON contains references into it.
"""

import base64
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from human_models.body import BodyModel
from human_models.files import BodyData
from human_models.joints import JOINTS, JOINTS_FROM_MODEL, RIG_JOINTS
from main.characters.character import CHARACTER_FIELDS, TO_WORLD, Character, make_character
from main.characters.options import ExportOptions
from main.characters.surfaces import (
    Layer,
    RestPoints,
    make_layers,
    make_morphs,
    make_skeleton,
    strongest,
)
from main.motion.camera import ClipCamera, place_bodies
from main.motion.result_reader import Result
from main.motion.rows import PARAMETERS
from utils.camera import project
from utils.errors import UserError
from utils.mesh import merge_vertices, vertex_normals
from utils.render import person_colour

VIEWED_FIELDS: Final = (*CHARACTER_FIELDS, "image_size", "focal", "princpt", "joints_3d_m")
"""Fields of a file of results that the page needs to show the person."""
_VISIBLE_M: Final = 1e-5
"""Displacements of vertices by one unit of an expression that are smaller are left out."""
_FEET: Final = [
    JOINTS.index(f"{side}_{end}") for side in ("left", "right") for end in ("heel", "big_toe")
]
_SHARES: Final = ("truncation", "occlusion", "score")
_MARKS: Final = ("interpolated", "out_of_range")
_FLIP: Final = np.diag([*np.diag(np.array(TO_WORLD["y"], np.float64)), 1.0])
"""Conversion between the coordinates of the camera and those of the page (y up)."""
_RAW_FIELDS: Final = tuple(f"raw_{name}" for name in PARAMETERS)
_BATCH: Final = 256
_CELL_M: Final = 0.04
_FACE_CELL_M: Final = 0.012
_FACE_JOINTS: Final = [
    RIG_JOINTS.index(name) for name in ("head", "jaw", "left_eye_smplhf", "right_eye_smplhf")
]
_ALIGNMENT: Final = 4
_LARGEST_INT16: Final = 32767


@dataclass(frozen=True, eq=False)
class ViewedPerson:
    """A person of a result: the number, and the fields that `read_person` returns."""

    number: int
    name: str
    content: Mapping[str, np.ndarray]


def read_viewed(result: Result, number: int) -> ViewedPerson:
    """Read a person of a result folder.

    Raises:
        UserError: the file is unreadable or incomplete.
    """
    return ViewedPerson(
        number, result.files[number].stem, result.read_person(number, VIEWED_FIELDS)
    )


class Pack:
    """Collects arrays; equal ones are stored once, so that data shared by people is not repeated.

    A reference is {"$": [type, offset, length, scale]}: NumPy's name of the little-endian type, the
    first byte, the count of numbers, and the factor that they are multiplied by.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._offsets: dict[str, int] = {}

    def exact(self, array: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
        """A reference to exact numbers; float64 becomes float32, bool and int a smaller type."""
        return self._add(_narrowed(array), 1.0)

    def rounded(self, array: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
        """A reference to numbers in 16 bits, in steps of 1/32767 of the largest magnitude."""
        scale = max(float(np.abs(array).max(initial=0)), 1e-9) / _LARGEST_INT16
        return self._add(np.round(array / scale).astype("<i2"), scale)

    def _add(self, array: Shaped[np.ndarray, "..."], scale: float) -> dict[str, Any]:
        content = np.ascontiguousarray(array).tobytes()
        key = hashlib.sha256(content).hexdigest()
        if key not in self._offsets:
            self._offsets[key] = self._size
            content += bytes(-len(content) % _ALIGNMENT)
            self._parts.append(content)
            self._size += len(content)
        return {"$": [array.dtype.str[1:], self._offsets[key], array.size, scale]}

    def encoded(self) -> str:
        """All bytes, encoded for the page."""
        return encoded(b"".join(self._parts))


def encoded(content: bytes) -> str:
    """Bytes compressed by zlib, in base64, as the page decodes them."""
    return base64.b64encode(zlib.compress(content)).decode("ascii")


def _narrowed(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """The same numbers in the smallest of the types that the page reads."""
    if array.dtype.kind == "f":
        return array.astype("<f4")
    if array.dtype.kind == "b":
        return array.astype("u1")
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    for name in ("u1", "u2", "i4"):
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return array.astype(f"<{name}")
    raise ValueError(f"integers up to {high} do not fit into 32 bits")


def describe_people(
    people: list[ViewedPerson], data: BodyData, body: BodyModel, pack: Pack, options: ExportOptions
) -> dict[str, Any]:
    """The page's data about people: `template`, which all share, and `people`."""
    space, clothes = options.space or "camera", options.clothes
    described = []
    template: dict[str, Any] = {}
    for person in people:
        character = make_character(person.name, person.content, body, space=space)
        raw = raw_character(person.name, person.content, body)
        if raw is not None and space == "world":
            raw = _in_world(raw, person.content["world_from_camera"])
        # A scale of one: expressions on the page are signed coefficients.
        morphs = make_morphs(np.zeros((1, character.expression.shape[1])))
        layers, rest = make_layers(data, character.betas, person.number, morphs, clothes=clothes)
        skeleton = make_skeleton(data, character.betas)
        template = _template(data, layers, rest, pack)
        positions_m = rest.positions_m[: len(data.template)]
        described.append(
            {
                "number": person.number,
                "name": person.name,
                "color": "#{:02x}{:02x}{:02x}".format(*person_colour(person.number)),
                "rest": pack.exact(skeleton.positions_m),
                "positions": pack.rounded(positions_m),
                "normals": pack.rounded(vertex_normals(positions_m, data.faces)),
                "garments": [_garment(layer, pack) for layer in layers[1:]],
                "frames": pack.exact(character.frame_index),
                "smoothed": _motion(character, pack),
                "raw": None if raw is None else _motion(raw, pack),
                "flags": _flags(person.content, pack),
            }
        )
    return {"template": template, "people": described}


def _template(data: BodyData, layers: list[Layer], rest: RestPoints, pack: Pack) -> dict[str, Any]:
    """The body without clothes, the part that clothes leave bare, and motions of the face."""
    count = len(data.template)
    joints, weights = strongest(rest.weights[:count])
    body = layers[0].surface
    expressions = rest.expressions_m[:count]
    moved = np.flatnonzero(np.abs(expressions).max(axis=(1, 2)) > _VISIBLE_M)

    def detailed(faces: Int[np.ndarray, "F 3"]) -> dict[str, Any]:
        coarse = simplified_faces(data.template, faces, joints[:, 0])
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
    coarse = simplified_faces(surface.positions_m, surface.faces, surface.joints[:, 0])
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


def simplified_faces(
    positions_m: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    joints: Int[np.ndarray, " V"],
) -> Int[np.ndarray, "C 3"]:
    """Fewer triangles over the same vertices, for machines that draw without a graphics card.

    Vertices in a cell of a grid are merged into the one nearest to their mean. Vertices of
    different joints are never merged, so fingers stay apart. After J. Rossignac, P. Borrel,
    "Multi-resolution 3D approximations for rendering complex scenes", 1993.

    Args:
        positions_m: in the rest pose, metres.
        joints: for each vertex, the joint with the largest weight.
    """
    sizes_m = np.where(np.isin(joints, _FACE_JOINTS), _FACE_CELL_M, _CELL_M)
    cells = np.floor(positions_m / sizes_m[:, None]).astype(np.int64)
    _, cluster = np.unique(np.column_stack([cells, joints]), axis=0, return_inverse=True)
    cluster = cluster.reshape(-1)
    sums = np.stack([np.bincount(cluster, axis) for axis in positions_m.T], axis=1)
    means = sums / np.bincount(cluster)[:, None]
    distance_m = np.linalg.norm(positions_m - means[cluster], axis=1)
    merged = merge_vertices(faces, cluster, distance_m)
    _, first = np.unique(np.sort(merged, axis=1), axis=0, return_index=True)
    return merged[np.sort(first)]


def _motion(character: Character, pack: Pack) -> dict[str, Any]:
    """Per row: quaternions (x, y, z, w) of the 55 joints, position of the pelvis, expressions."""
    return {
        "rotations": pack.rounded(character.quaternions[..., [1, 2, 3, 0]]),
        "pelvis": pack.exact(character.pelvis_m),
        "expressions": pack.rounded(character.expression),
    }


def _flags(content: Mapping[str, np.ndarray], pack: Pack) -> dict[str, Any]:
    """Shares in whole percent, flags as 0 or 1; fields that older files lack are left out."""
    percent = {
        name: pack.exact(np.round(100 * np.clip(content[name], 0, 1)).astype(np.int64))
        for name in _SHARES
        if name in content
    }
    marks = {name: pack.exact(content[name].astype(bool)) for name in _MARKS if name in content}
    return percent | marks


def raw_character(
    name: str, content: Mapping[str, np.ndarray], body: BodyModel
) -> Character | None:
    """The output of the network, frame by frame, moved into the clip's camera.

    Raw frames have different shapes, on which the camera's depth depends; poses are drawn with the
    final shape of the person. None if the file has no raw values.

    Args:
        content: returned by `main.motion.result_reader.read_person`.

    Raises:
        UserError: the raw values are not in front of a camera.
    """
    if any(key not in content for key in (*_RAW_FIELDS, "focal", "princpt")):
        return None
    focal, princpt = (tuple(map(float, content[key][0])) for key in ("focal", "princpt"))
    camera = ClipCamera((focal[0], focal[1]), (princpt[0], princpt[1]), "")
    raw = {key: content[f"raw_{key}"] for key in PARAMETERS}
    joints = _joints_in_crops(raw, body)
    seen_px = project(joints, raw["focal"][:, None], raw["princpt"][:, None])
    if not np.isfinite(seen_px).all():
        raise UserError(
            f"{name}.npz: 'raw_transl' puts the body at the camera; run inference again"
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


def _in_world(character: Character, world_from_camera: Float[np.ndarray, "*T 4 4"]) -> Character:
    """A character (y up) in front of the camera, moved into the world frame by frame."""
    poses = world_from_camera @ _FLIP
    rotations = character.rotations.copy()
    rotations[:, 0] = poses[..., :3, :3] @ rotations[:, 0]
    pelvis = (poses[..., :3, :3] @ character.pelvis_m[..., None])[..., 0] + poses[..., :3, 3]
    return replace(character, rotations=rotations, pelvis_m=pelvis)


def camera_path(
    people: list[ViewedPerson], frames: int
) -> tuple[Float[np.ndarray, "F 4 4"], Float[np.ndarray, " F"]]:
    """The pose (y up) of the camera in the world, and its zoom, in each frame of the clip.

    Frames without people get the values of the nearest frame with people.
    """
    known = np.concatenate([person.content["frame_index"] for person in people])
    known, rows = np.unique(known, return_index=True)
    poses, zooms = [], []
    for person in people:
        count = len(person.content["frame_index"])
        pose = person.content["world_from_camera"]
        poses.append(np.broadcast_to(pose, (count, 4, 4)))
        zooms.append(person.content.get("camera_zoom", np.ones(count)))
    middles = (known[1:] + known[:-1]) / 2
    nearest = rows[np.searchsorted(middles, np.arange(frames))]
    return np.concatenate(poses)[nearest] @ _FLIP, np.concatenate(zooms)[nearest]


def _joints_in_crops(
    raw: Mapping[str, np.ndarray], body: BodyModel
) -> Float[np.ndarray, "T 137 3"]:
    """Joints in the cameras of the crops, in metres."""
    names = [name for name in PARAMETERS if name not in ("focal", "princpt")]
    parts = []
    with torch.inference_mode():
        for start in range(0, len(raw["transl"]), _BATCH):
            rows = slice(start, start + _BATCH)
            parameters = {name: torch.from_numpy(raw[name][rows]).float() for name in names}
            output = body(**parameters, want_vertices=False)
            parts.append(output.joints[:, list(JOINTS_FROM_MODEL)].numpy())
    return np.concatenate(parts)


def world_of(people: list[ViewedPerson]) -> tuple[Float[np.ndarray, "4 4"], bool]:
    """The transform from the camera (y up) to a world with floor y = 0; whether it is estimated.

    Without world coordinates, or if the camera moves, up is the camera's up, and the floor is at
    the height of most feet.
    """
    for person in people:
        poses = person.content.get("world_from_camera")
        if poses is not None and (poses == poses[0]).all():
            return poses[0] @ _FLIP, True
    world = np.eye(4)
    depths = [person.content["joints_3d_m"][:, _FEET, 1].max(axis=1) for person in people]
    world[1, 3] = float(np.median(np.concatenate(depths)))  # y of the camera points down
    return world, False
