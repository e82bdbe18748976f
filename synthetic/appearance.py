"""Random appearance of a person: skin, face, hair and the colours of clothes.

The features of a face are weights per vertex of the open body, 0 to 1. Everything here is in the
rest pose.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from human_models.files import BodyData
from human_models.joints import SMPLX_SURFACE_VERTICES
from human_models.safe_pickle import load_npz
from synthetic.skeleton import pick
from synthetic.textures import SIDE, Colour, Texture, draw_colour, draw_noise, draw_texture
from synthetic.wardrobe import (
    Clothing,
    Kind,
    Piece,
    Wardrobe,
    draw_clothing,
    make_piece,
    thickness_of,
)

FEATURES: Final = ("lips", "mouth", "cheeks", "beard", "brows", "sclera", "iris", "pupil", "scalp")
_IRIS_DEG, _PUPIL_DEG = 32.0, 12.0
_EAR: Final = SMPLX_SURFACE_VERTICES["left_ear"]
Rng = np.random.Generator
Vertices = Float[np.ndarray, "V 3"]
Landmarks = Float[np.ndarray, "51 3"]
"""Positions from the brows to the inner lips, metres."""
Weights = Float[np.ndarray, " V"]


def face_features(body: BodyData) -> dict[str, Float32[np.ndarray, " V"]]:
    """Weights of each of FEATURES, 0 to 1; "scalp" is where hair grows, 0 at the hairline."""
    region = load_npz(body.source)["region"]
    vertices = body.template.astype(np.float64)
    assert body.landmarks is not None
    corners = vertices[body.landmarks.corners]
    landmarks = np.einsum("lkc,lk->lc", corners, body.landmarks.barycentrics)
    head = region == "head"
    front = head & (vertices[:, 2] > 0.08)
    outer, inner = landmarks[31:43], landmarks[43:51]
    inside = _inside(vertices, outer, 0.0015)
    weights = {
        "lips": inside * (1 - _inside(vertices, inner, 0.001)) * front,
        "mouth": np.isin(region, ("mouth_cavity", "tongue")).astype(float),
        "cheeks": _cheeks(vertices, landmarks) * front,
        "beard": _beard(vertices, landmarks) * head,
        "brows": _brows(vertices, landmarks) * head,
        "scalp": _scalp(vertices, landmarks, head),
        **_eyes(vertices, region),
    }
    return {name: weights[name].astype(np.float32) for name in FEATURES}


def _inside(vertices: Vertices, outline: Float[np.ndarray, "K 3"], soft_m: float) -> Weights:
    """1 inside an outline in the x-y plane, 0 outside, with a ramp `soft_m` metres wide."""
    polygon = (outline[:, :2] * 1e4).astype(np.float32)
    near = np.abs(vertices[:, :2] - outline[:, :2].mean(axis=0)).max(axis=1) < 0.06
    distance = np.full(len(vertices), -1.0)
    for i in np.flatnonzero(near):
        x, y = (vertices[i, :2] * 1e4).tolist()
        distance[i] = cv2.pointPolygonTest(polygon, (x, y), measureDist=True) / 1e4
    return np.clip(0.5 + distance / soft_m, 0, 1)


def _cheeks(vertices: Vertices, landmarks: Landmarks) -> Weights:
    eyes_y, mouth_y = landmarks[19:31, 1].mean(), landmarks[31:43, 1].mean()
    center = np.array([0.038, 0.6 * mouth_y + 0.4 * eyes_y])
    places = np.stack([np.abs(vertices[:, 0]), vertices[:, 1]], axis=1)
    distance = np.linalg.norm(places - center, axis=1)
    return np.exp(-((distance / 0.018) ** 2))


def _beard(vertices: Vertices, landmarks: Landmarks) -> Weights:
    """Weights of the upper lip, chin and jaw, up to the ears."""
    nose_y, mouth = landmarks[14:19, 1].min(), landmarks[31:43].mean(axis=0)
    ear = vertices[_EAR]
    depths = [ear[2] - 0.03, ear[2] + 0.01, mouth[2] - 0.03, mouth[2]]
    top = np.interp(
        vertices[:, 2], depths, [ear[1] - 0.03, ear[1] - 0.005, mouth[1], nose_y - 0.004]
    )
    bottom = mouth[1] - 0.085
    height = np.clip((top - vertices[:, 1]) / 0.008, 0, 1)
    return (
        height * np.clip((vertices[:, 1] - bottom) / 0.012, 0, 1) * (vertices[:, 2] > ear[2] - 0.03)
    )


def _brows(vertices: Vertices, landmarks: Landmarks) -> Weights:
    distance = np.full(len(vertices), np.inf)
    for brow in (landmarks[:5], landmarks[5:10]):
        for start, end in pairwise(brow):
            along = np.clip(
                (vertices - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1
            )
            to_line = vertices - (start + along[:, None] * (end - start))
            distance = np.minimum(distance, np.linalg.norm(to_line, axis=1))
    return np.clip(1 - (distance - 0.0015) / 0.0035, 0, 1)


def _scalp(vertices: Vertices, landmarks: Landmarks, head: np.ndarray) -> Weights:
    """Weights above the hairline, which falls from forehead to nape, without the ears."""
    ear = vertices[_EAR]
    nose = vertices[SMPLX_SURFACE_VERTICES["nose"]]
    depths = [ear[2] - 0.05, ear[2] - 0.01, ear[2] + 0.025, nose[2] - 0.035]
    heights = [ear[1] - 0.035, ear[1] + 0.015, ear[1] + 0.035, landmarks[:10, 1].max() + 0.04]
    above = vertices[:, 1] - np.interp(vertices[:, 2], depths, heights)
    around_ear = np.linalg.norm(vertices[:, 1:] - ear[1:], axis=1) < 0.036
    is_ear = around_ear & (np.abs(vertices[:, 0]) > 0.055)
    return np.clip(above / 0.02, 0, 1) * head * ~is_ear


def _eyes(vertices: Vertices, region: np.ndarray) -> dict[str, Weights]:
    weights = {name: np.zeros(len(vertices)) for name in ("sclera", "iris", "pupil")}
    for side in ("left", "right"):
        ball: Int[np.ndarray, " E"] = np.flatnonzero(region == f"{side}_eye")
        rays = vertices[ball] - vertices[ball].mean(axis=0)
        axis = vertices[SMPLX_SURFACE_VERTICES[f"{side}_eye"]] - vertices[ball].mean(axis=0)
        cosine = rays @ axis / np.linalg.norm(rays, axis=1) / np.linalg.norm(axis)
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        weights["sclera"][ball] = 1
        weights["iris"][ball] = angle < _IRIS_DEG
        weights["pupil"][ball] = angle < _PUPIL_DEG
    return weights


class HairStyle(NamedTuple):
    """Dimensions of a hair style, metres."""

    thickness: float
    volume: float
    """Additional thickness at the crown."""
    length: float
    """Length of the hair that hangs below the scalp."""
    chance: float
    """Probability in `Stylist`."""


STYLES: Final = {
    "cropped": HairStyle(0.004, 0.0, 0.0, 0.17),
    "short": HairStyle(0.012, 0.006, 0.0, 0.24),
    "full": HairStyle(0.02, 0.02, 0.0, 0.16),
    "round": HairStyle(0.045, 0.025, 0.02, 0.06),
    "chin": HairStyle(0.014, 0.012, 0.11, 0.14),
    "long": HairStyle(0.014, 0.01, 0.26, 0.15),
    "cap": HairStyle(0.012, 0.008, 0.0, 0.08),
}


class Scalp:
    """The faces of the head that hair grows on, as a separate piece."""

    def __init__(
        self, body: BodyData, faces: Int[np.ndarray, "F 3"], scalp: Float32[np.ndarray, " V"]
    ) -> None:
        faces = faces[(scalp[faces] > 0).any(axis=1)]
        template = body.template.astype(np.float32)
        self.piece: Piece = make_piece("hair", faces, template, is_open=True)
        points = self.piece.points
        self._weight = scalp[points]
        rest = body.template[points]
        ear = body.template[_EAR]
        self._height = rest[:, 1] - ear[1]
        behind = np.clip((ear[2] + 0.035 - rest[:, 2]) / 0.05, 0, 1)
        self._hanging = behind * np.clip(1 - self._height / 0.06, 0, 1)
        self._crown = np.clip((self._height - 0.02) / 0.1, 0, 1)
        self._outward = rest - np.array([0, rest[:, 1].mean(), ear[2]])
        self._outward[:, 1] = 0
        self._outward /= np.linalg.norm(self._outward, axis=1, keepdims=True)
        angle = np.arctan2(rest[:, 0], rest[:, 2] - ear[2])
        uv = np.stack([angle * 1.6, self._height * 0.8], axis=1)
        self.uv: Float32[np.ndarray, "P 2"] = uv.astype(np.float32)
        """Texture coordinates: around the head, then down along the strands."""

    def shape(
        self, style: HairStyle
    ) -> tuple[Float32[np.ndarray, " P"], Float32[np.ndarray, "P 3"] | None]:
        """Distance of each point from the skin, and its shift in the frame of the head, metres."""
        thickness = self._weight**0.5 * style.thickness + self._crown * style.volume
        if not style.length:
            return thickness.astype(np.float32), None
        shift = np.zeros((len(thickness), 3))
        shift[:, 1] = -style.length * self._hanging
        shift += self._outward * (0.02 + 0.08 * style.length) * self._hanging[:, None] ** 0.5
        return thickness.astype(np.float32), shift.astype(np.float32)


class Layer(NamedTuple):
    """One piece of a person with geometry offsets and surface colours; see `Look`."""

    piece: Piece
    thickness: Float32[np.ndarray, " P"]
    tint: Float32[np.ndarray, "P 3"]
    uv: Float32[np.ndarray, "P 2"]
    texture: Texture
    gloss: float
    bumps: Float32[np.ndarray, "B 3"]
    """B is P, or 0 for the skin."""
    shift: Float32[np.ndarray, "P 3"] | None = None


class Look(NamedTuple):
    """All layers of a person joined: a `Mesh` before posing."""

    points: Int[np.ndarray, " V"]
    """Indices into a person's points: the body's vertices, then those of the clothes."""
    faces: Int32[np.ndarray, "F 3"]
    thickness: Float32[np.ndarray, " V"]
    """Offset along the normal, metres."""
    hair: Float32[np.ndarray, "H 3"] | None
    """Shift of the hair, the last H points, in the frame of the head, metres."""
    hair_faces: Int32[np.ndarray, "f 3"] | None
    """Faces of the hair; indices count from its first point."""
    bumps: Float32[np.ndarray, "P 3"]
    """Added to the normals of the last P points, which are all but the skin, to shade wrinkles
    (bump mapping)."""
    tint: Float32[np.ndarray, "V 3"]
    """RGB by which the texture is multiplied."""
    uv: Float32[np.ndarray, "V 2"]
    """Texture coordinates; the texture repeats at every integer."""
    gloss: Float32[np.ndarray, " V"]
    two_sided: Bool[np.ndarray, " F"]
    texture: Int32[np.ndarray, " V"]
    textures: tuple[Texture, ...]


# Reflectances of skin from light to dark, after the Monk skin tone scale.
_SKINS: Final = np.array([
    (0.96, 0.86, 0.79), (0.93, 0.80, 0.71), (0.90, 0.74, 0.62),
    (0.82, 0.63, 0.49), (0.71, 0.51, 0.37), (0.58, 0.40, 0.28),
    (0.44, 0.29, 0.20), (0.32, 0.21, 0.15), (0.22, 0.15, 0.12),
])  # fmt: skip
_HAIRS: Final = np.array([
    (0.04, 0.035, 0.03), (0.08, 0.06, 0.045), (0.17, 0.10, 0.06),
    (0.30, 0.19, 0.10), (0.55, 0.40, 0.22), (0.75, 0.62, 0.40),
    (0.38, 0.15, 0.07), (0.45, 0.44, 0.43), (0.80, 0.79, 0.77),
])  # fmt: skip
_IRISES: Final = np.array(
    [(0.16, 0.09, 0.05), (0.25, 0.15, 0.07), (0.30, 0.42, 0.55), (0.28, 0.36, 0.20)]
)
_GLOSS: Final[dict[Kind, float]] = {
    "skin": 0.12, "hair": 0.07, "shirt": 0.0, "jacket": 0.03,
    "bottoms": 0.0, "skirt": 0.0, "shoes": 0.15,
}  # fmt: skip


class Stylist:
    """Draws looks at random from one wardrobe."""

    def __init__(
        self, body: BodyData, wardrobe: Wardrobe, features: dict[str, Float32[np.ndarray, " V"]]
    ) -> None:
        self._wardrobe = wardrobe
        self._features = {
            name: (np.flatnonzero(weight), weight[weight > 0]) for name, weight in features.items()
        }
        self._scalps = {
            fine: Scalp(body, faces, features["scalp"])
            for fine, faces in wardrobe.body_faces.items()
        }

    def draw(self, rng: Rng, *, fine: bool) -> Look:
        """A random look; `fine` keeps the detail that a person large in the picture needs."""
        clothing = draw_clothing(rng)
        bald = rng.random() < 0.06
        worn = self._wardrobe.pieces(clothing, bald=bald, fine=fine)
        hair_colour = _draw_hair_colour(rng)
        name = pick(rng, {name: style.chance for name, style in STYLES.items()})
        skin = self._skin(rng, worn[0], hair_colour, bald)
        layers = [skin, *_clothes(rng, clothing, worn[1:])]
        if not bald:
            colour = draw_colour(rng) if name == "cap" else hair_colour
            layers.append(
                _hair(rng, self._scalps[fine], STYLES[name], colour, strands=name != "cap")
            )
        return _look(layers)

    def _skin(self, rng: Rng, piece: Piece, hair: Colour, bald: bool) -> Layer:
        tone = _draw_skin(rng)
        tint = np.empty((self._wardrobe.body_count, 3), np.float32)
        tint[:] = tone
        stubble = 0.0 if rng.random() < 0.7 else rng.uniform(0.15, 0.95)
        red = np.clip(tone * (1.08, 0.72, 0.70), 0, 1)
        made_up = rng.random() < 0.2
        lips = rng.uniform((0.4, 0.05, 0.08), (0.75, 0.25, 0.3)) if made_up else red
        shades: dict[str, tuple[Float[np.ndarray, 3], float]] = {
            "cheeks": (red, rng.uniform(0, 0.5)),
            "beard": (hair * 0.8, stubble),
            "lips": (lips, rng.uniform(0.5, 1.0)),
            "mouth": (np.array([0.25, 0.08, 0.07]), 1.0),
            "brows": (hair * 0.8, rng.uniform(0.5, 0.95)),
            "scalp": (hair * 0.7, 0.0 if bald else 0.9),
            "sclera": (np.array([0.88, 0.86, 0.84]), 1.0),
            "iris": (_IRISES[rng.integers(len(_IRISES))], 1.0),
            "pupil": (np.array([0.02, 0.02, 0.02]), 1.0),
        }
        for name, (colour, strength) in shades.items():
            where, weight = self._features[name]
            share = weight[:, None] * np.float32(strength)
            tint[where] += share * (colour.astype(np.float32) - tint[where])
        texture = np.ones((SIDE, SIDE, 3), np.float32)
        texture += (draw_noise(rng, 1, 6) * rng.uniform(0, 0.04))[..., None]
        uv = _planar(piece, rng.uniform(0.2, 0.5), 0.0)
        zero = np.zeros(len(piece.points), np.float32)
        gloss = _GLOSS["skin"] * rng.uniform(0.2, 2)
        return Layer(
            piece, zero, tint[piece.points], uv, texture, gloss, np.zeros((0, 3), np.float32)
        )


def _clothes(rng: Rng, clothing: Clothing, worn: tuple[Piece, ...]) -> Iterator[Layer]:
    fits = {kind: rng.beta(1.5, 2.5) for kind in ("shirt", "jacket", "bottoms", "skirt")}
    tucked = clothing.skirt is not None or rng.random() < 0.3
    sole = draw_colour(rng, 0.9)
    patterned = {"shirt": 0.5, "jacket": 0.25, "bottoms": 0.2, "skirt": 0.5, "shoes": 0.15}
    for piece in worn:
        kind, rest = piece.kind, piece.rest
        thickness = thickness_of(kind, rest, fits.get(kind, 0.0), tucked)
        uv = _planar(piece, rng.uniform(0.12, 0.6), rng.choice((0, 0, 0.0, np.pi / 4)))
        texture = draw_texture(rng, draw_colour(rng), patterned[kind])
        tint = np.ones((len(rest), 3), np.float32)
        if kind == "shoes":
            tint[rest[:, 1] < -1.315] = np.clip(sole / texture.mean(axis=(0, 1)), 0, 8)
        bumps = _bumps(rng, piece, rng.uniform(0.02, 0.2))
        gloss = _GLOSS[kind] * rng.uniform(0, 2)
        yield Layer(piece, thickness, tint, uv, texture, gloss, bumps)


def _planar(piece: Piece, tile_m: float, angle: float) -> Float32[np.ndarray, "P 2"]:
    """Texture coordinates by projecting the rest pose along z, turned by `angle` radians."""
    sine, cosine = np.sin(angle) / tile_m, np.cos(angle) / tile_m
    return piece.rest[:, :2] @ np.array([[cosine, sine], [-sine, cosine]], np.float32)


def _hair(rng: Rng, scalp: Scalp, style: HairStyle, colour: Colour, *, strands: bool) -> Layer:
    scale = rng.uniform(0.7, 1.3)
    style = style._replace(length=style.length * scale, thickness=style.thickness * scale)
    thickness, shift = scalp.shape(style)
    tint = np.ones((len(thickness), 3), np.float32)
    texture = draw_texture(rng, colour, 0.0 if strands else 0.3)
    if strands:
        lines = draw_noise(rng, 4, 8).mean(axis=0) * 4 + draw_noise(rng, 6, 8) * 0.5
        texture = texture * np.exp(rng.uniform(0.1, 0.3) * np.clip(lines, -2, 1))[..., None]
    bumps = _bumps(rng, scalp.piece, 0.25)
    gloss = _GLOSS["hair"] * rng.uniform(0, 2)
    texture = texture.astype(np.float32)
    return Layer(scalp.piece, thickness, tint, scalp.uv, texture, gloss, bumps, shift)


def _bumps(rng: Rng, piece: Piece, strength: float) -> Float32[np.ndarray, "P 3"]:
    return piece.bumps[rng.integers(len(piece.bumps))] * np.float32(strength)


def _draw_skin(rng: Rng) -> Colour:
    lower, share = divmod(rng.uniform(0, len(_SKINS) - 1), 1)
    tone, darker = _SKINS[int(lower) : int(lower) + 2]
    tone = tone + share * (darker - tone)
    return np.clip(tone * rng.normal(1, 0.03, 3) * 0.92, 0.05, 1)


def _draw_hair_colour(rng: Rng) -> Colour:
    if rng.random() < 0.04:
        return draw_colour(rng, 0.0)
    return _HAIRS[rng.integers(len(_HAIRS))] * rng.uniform(0.8, 1.2)


def _look(layers: list[Layer]) -> Look:
    pieces = [layer.piece for layer in layers]
    points = [len(piece.points) for piece in pieces]
    first = np.cumsum([0, *points[:-1]], dtype=np.int32)
    shift = layers[-1].shift
    return Look(
        points=np.concatenate([piece.points for piece in pieces]),
        faces=np.concatenate([piece.faces + k for piece, k in zip(pieces, first, strict=True)]),
        thickness=np.concatenate([layer.thickness for layer in layers]),
        hair=shift,
        hair_faces=None if shift is None else pieces[-1].faces,
        bumps=np.concatenate([layer.bumps for layer in layers]),
        tint=np.concatenate([layer.tint for layer in layers]),
        uv=np.concatenate([layer.uv for layer in layers]),
        gloss=np.repeat([layer.gloss for layer in layers], points).astype(np.float32),
        two_sided=np.repeat([piece.open for piece in pieces], [len(p.faces) for p in pieces]),
        texture=np.repeat(np.arange(len(pieces), dtype=np.int32), points),
        textures=tuple(layer.texture for layer in layers),
    )
