"""The skeleton and skinned surfaces of a person: body, clothes, hair, morph targets of the face."""

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from human_models.files import STAND_IN_NAME, BodyData
from human_models.joints import RIG_JOINTS
from human_models.safe_pickle import load_npz
from synthetic.appearance import STYLES, Scalp, face_features
from synthetic.wardrobe import Clothing, Piece, Wardrobe, thickness_of
from utils.mesh import Material, Skeleton, Surface, vertex_normals

_INFLUENCES: Final = 4
"""Joints per vertex, as three.js and game engines read them."""
_CLOTHING: Final = Clothing(
    sleeve=1, neckline=1, shirt_hem=2, legs=3, skirt=None, shoes=0, jacket=False
)
_FIT: Final = 0.35
_HAIR: Final = "short"
_HAIRLINE: Final = 0.4
"""Scalp weight from which hair covers the skin."""
# Linear RGB. Shirts differ from person to person.
_SKIN: Final = (0.62, 0.36, 0.25)
_BARE: Final = (0.55, 0.55, 0.55)
_SHIRTS: Final = (
    (0.05, 0.22, 0.42),
    (0.48, 0.08, 0.06),
    (0.07, 0.30, 0.14),
    (0.55, 0.36, 0.05),
    (0.26, 0.10, 0.38),
    (0.05, 0.34, 0.36),
)
_COLORS: Final = {"bottoms": (0.05, 0.06, 0.09), "shoes": (0.03, 0.03, 0.03)}
_HAIR_COLOR: Final = (0.04, 0.022, 0.012)
_PAINT: Final = {
    "cheeks": ((0.62, 0.24, 0.17), 0.4),
    "lips": ((0.48, 0.13, 0.11), 0.8),
    "mouth": ((0.16, 0.03, 0.03), 1.0),
    "brows": (_HAIR_COLOR, 0.8),
    "scalp": (_HAIR_COLOR, 0.9),
    "sclera": ((0.78, 0.76, 0.73), 1.0),
    "iris": ((0.07, 0.12, 0.22), 1.0),
    "pupil": ((0.005, 0.005, 0.005), 1.0),
}
"""Colours of the open body's face, painted over each other, and their opacity."""


class Morphs(NamedTuple):
    """Expressions for programs that limit weights of morph targets to 0...1, as Blender does.

    Every coefficient has two morph targets, one for each sign. A weight of 1 stands for `scale`.
    """

    scale: float
    names: tuple[str, ...]
    weights: Float[np.ndarray, "T 2E"]


class Layer(NamedTuple):
    """A surface, and the points of the person that it uses (the body's, then the clothes')."""

    surface: Surface
    points: Int[np.ndarray, " V"]


class RestPoints(NamedTuple):
    """Points of a person in the rest pose, first those of the body. Metres, y up, facing +z."""

    positions_m: Float[np.ndarray, "N 3"]
    weights: Float[np.ndarray, "N 55"]
    expressions_m: Float[np.ndarray, "N 3 E"]
    """Displacements of the points by one unit of each expression."""
    body_count: int


def make_skeleton(body: BodyData, betas: Float[np.ndarray, " S"]) -> Skeleton:
    """The joints of a shape in the rest pose, without an expression."""
    vertices = body.template + body.shape_directions @ betas
    positions = body.joint_regressor.astype(np.float64) @ vertices
    return Skeleton(RIG_JOINTS, body.parents, positions)


def make_morphs(expression: Float[np.ndarray, "T E"]) -> Morphs:
    """Weights in [0, 1] of two morphs per coefficient: first all positive, then all negative ones.

    If a player interpolates them, their difference is the interpolated coefficient.
    """
    scale = max(1.0, float(np.abs(expression).max()))
    names = [f"expression{k + 1}" for k in range(expression.shape[1])]
    weights = np.concatenate([expression.clip(min=0), (-expression).clip(min=0)], axis=1) / scale
    return Morphs(scale, (*names, *(f"{name}_negative" for name in names)), weights)


def make_layers(
    body: BodyData, betas: Float[np.ndarray, " S"], person: int, morphs: Morphs, *, clothes: bool
) -> tuple[list[Layer], RestPoints]:
    """The surfaces of a person, the body with the morphs first, and their points.

    Args:
        person: number from 1; decides the colour of the shirt.
        clothes: dress the open body and leave out the skin underneath. SMPL-X has no clothes.
    """
    features = face_features(body) if body.name == STAND_IN_NAME else None
    if features is None or not clothes:
        rest = _rest_points(body, betas, None)
        colors = None if features is None else _paint(features)
        return [_body_layer(body, rest, body.faces, colors, morphs)], rest
    wardrobe = Wardrobe(body, features["scalp"])
    rest = _rest_points(body, betas, wardrobe)
    skin, *garments = wardrobe.pieces(_CLOTHING, bald=False, fine=True)
    hair = Scalp(body, wardrobe.body_faces[True], features["scalp"])
    layers = [_body_layer(body, rest, skin.points[skin.faces], _paint(features), morphs)]
    worn = _COLORS | {"shirt": _SHIRTS[(person - 1) % len(_SHIRTS)]}
    for piece in garments:
        thickness = thickness_of(piece.kind, piece.rest, _FIT, tucked=False)
        layers.append(_garment_layer(piece, rest, thickness, worn[piece.kind]))
    layers.append(_hair_layer(hair, rest, features["scalp"]))
    return layers, rest


def _rest_points(
    body: BodyData, betas: Float[np.ndarray, " S"], wardrobe: Wardrobe | None
) -> RestPoints:
    positions = body.template + body.shape_directions @ betas
    weights, expressions = body.weights, body.expression_directions
    if wardrobe is not None:
        clothes = wardrobe.template + wardrobe.shape_directions @ betas
        positions = np.concatenate([positions, clothes])
        weights = np.concatenate([weights, wardrobe.weights])
        expressions = np.pad(expressions, ((0, len(clothes)), (0, 0), (0, 0)))
    positions, weights = positions.astype(np.float64), weights.astype(np.float64)
    return RestPoints(positions, weights, expressions, len(body.template))


def _body_layer(
    body: BodyData,
    rest: RestPoints,
    faces: Int[np.ndarray, "F 3"],
    colors: Float[np.ndarray, "V 3"] | None,
    morphs: Morphs,
) -> Layer:
    """The visible faces of the body, with vertices duplicated along seams of the texture."""
    normals = vertex_normals(rest.positions_m[: len(body.template)], body.faces)
    corners = _texture_corners(body, faces)
    if corners is None:
        points, own = np.unique(faces, return_inverse=True)
        uv = None
    else:
        texture_faces, all_uv = corners
        pairs = np.stack([faces.ravel(), texture_faces.ravel()], axis=1)
        unique, own = np.unique(pairs, axis=0, return_inverse=True)
        points, uv = unique[:, 0], all_uv[unique[:, 1]] * [1, -1] + [0, 1]
    joints, weights = strongest(rest.weights[points])
    moves = rest.expressions_m[points] * morphs.scale
    both_ways = np.concatenate([moves, -moves], axis=2).transpose(2, 0, 1)
    surface = Surface(
        name="body",
        positions_m=rest.positions_m[points],
        normals=normals[points],
        faces=own.reshape(-1, 3),
        joints=joints,
        weights=weights,
        material=Material(_BARE if colors is None else (1.0, 1.0, 1.0), 0.65),
        texture_coordinates=uv,
        colors=None if colors is None else colors[points],
        morphs_m=dict(zip(morphs.names, both_ways, strict=True)),
    )
    return Layer(surface, points)


def _garment_layer(
    piece: Piece,
    rest: RestPoints,
    thickness_m: Float[np.ndarray, " P"],
    color: tuple[float, float, float],
) -> Layer:
    positions = rest.positions_m[piece.points]
    normals = vertex_normals(positions, piece.faces)
    positions = positions + normals * thickness_m[:, None]
    # Bare feet touch the ground of the world, so soles must not be below them.
    positions[:, 1] = np.maximum(positions[:, 1], rest.positions_m[: rest.body_count, 1].min())
    joints, weights = strongest(rest.weights[piece.points])
    surface = Surface(
        name={"bottoms": "trousers"}.get(piece.kind, piece.kind),
        positions_m=positions,
        normals=vertex_normals(positions, piece.faces),
        faces=piece.faces.astype(np.int64),
        joints=joints,
        weights=weights,
        material=Material(color, 0.9, double_sided=True),
    )
    return Layer(surface, piece.points)


def _hair_layer(hair: Scalp, rest: RestPoints, scalp: Float[np.ndarray, " V"]) -> Layer:
    """Hair, blended into the colour of the skin at its edge to hide the border of triangles."""
    thickness, _ = hair.shape(STYLES[_HAIR])
    layer = _garment_layer(hair.piece, rest, thickness, (1.0, 1.0, 1.0))
    share = np.clip(scalp[hair.piece.points] / _HAIRLINE, 0, 1)[:, None]
    colors = np.array(_SKIN) * (1 - share) + np.array(_HAIR_COLOR) * share
    return Layer(replace(layer.surface, colors=colors), layer.points)


def strongest(
    weights: Float[np.ndarray, "V J"],
) -> tuple[Int[np.ndarray, "V 4"], Float[np.ndarray, "V 4"]]:
    """The four joints with the largest weights of each vertex, and their normalised weights."""
    joints = np.argsort(-weights, axis=1, kind="stable")[:, :_INFLUENCES]
    kept = np.take_along_axis(weights, joints, axis=1)
    kept = kept / kept.sum(axis=1, keepdims=True)
    return np.where(kept > 0, joints, 0), kept


def _texture_corners(
    body: BodyData, faces: Int[np.ndarray, "F 3"]
) -> tuple[Int[np.ndarray, "F 3"], Float[np.ndarray, "U 2"]] | None:
    """Texture coordinates of corners of the given faces; None if the body file has none."""
    if body.source.suffix != ".npz":
        return None
    content = load_npz(body.source, ("vt", "ft"))
    if "vt" not in content or content.get("ft", np.zeros(0)).shape != body.faces.shape:
        return None
    place = {tuple(face): row for row, face in enumerate(body.faces.tolist())}
    rows = [place[tuple(face)] for face in faces.tolist()]
    return content["ft"].astype(np.int64)[rows], content["vt"].astype(np.float64)


def _paint(features: dict[str, Float[np.ndarray, " V"]]) -> Float[np.ndarray, "V 3"]:
    colors = np.tile(np.array(_SKIN), (len(features["lips"]), 1))
    for name, (color, strength) in _PAINT.items():
        colors += strength * features[name][:, None] * (np.array(color) - colors)
    return colors
