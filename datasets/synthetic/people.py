"""How a person looks: clothes, colours, hair and face. Looks are values; nothing is posed here."""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from datasets.synthetic.clothes import draw_clothing, thickness_of
from datasets.synthetic.hair import STYLES, HairStyle, Scalp
from datasets.synthetic.limbs import pick
from datasets.synthetic.textures import (
    SIDE,
    Colour,
    Texture,
    draw_colour,
    draw_noise,
    draw_texture,
)
from datasets.synthetic.wardrobe import Clothing, Kind, Piece, Wardrobe
from human_models.files import BodyData


class Layer(NamedTuple):
    """How one piece of a person differs from the points that it is made of."""

    thickness: Float32[np.ndarray, " P"]
    """Metres outward."""
    shift: Float32[np.ndarray, "P 3"] | None
    """Metres in the frame of the head."""
    bumps: Float32[np.ndarray, "P 3"] | None
    """Added to normals: wrinkles that only light shows."""
    tint: Float32[np.ndarray, "P 3"]
    uv: Float32[np.ndarray, "P 2"]
    texture: Texture
    gloss: float


class Look(NamedTuple):
    """A person's pieces and how each is worn, joined: what `meshes.Mesh` holds before posing."""

    clothing: Clothing
    points: Int[np.ndarray, " V"]
    """Of all points of a person: the body's vertices, then the clothes'."""
    faces: Int32[np.ndarray, "F 3"]
    thickness: Float32[np.ndarray, " V"]
    hair: Float32[np.ndarray, "P 3"] | None
    """Shift of the last P points, which are the hair's, in the frame of the head."""
    hair_faces: Int32[np.ndarray, "f 3"] | None
    """Of the last P points alone."""
    bumps: Float32[np.ndarray, "P 3"]
    """Added to the normals of the last P points: of all but the skin."""
    tint: Float32[np.ndarray, "V 3"]
    uv: Float32[np.ndarray, "V 2"]
    gloss: Float32[np.ndarray, " V"]
    two_sided: Bool[np.ndarray, " F"]
    texture: Int32[np.ndarray, " V"]
    textures: tuple[Texture, ...]


# Reflectances of skin, light to dark, after the Monk skin tone scale.
_SKINS: Final = np.array(
    [
        (0.96, 0.86, 0.79),
        (0.93, 0.80, 0.71),
        (0.90, 0.74, 0.62),
        (0.82, 0.63, 0.49),
        (0.71, 0.51, 0.37),
        (0.58, 0.40, 0.28),
        (0.44, 0.29, 0.20),
        (0.32, 0.21, 0.15),
        (0.22, 0.15, 0.12),
    ]
)
_HAIRS: Final = np.array(
    [
        (0.04, 0.035, 0.03),
        (0.08, 0.06, 0.045),
        (0.17, 0.10, 0.06),
        (0.30, 0.19, 0.10),
        (0.55, 0.40, 0.22),
        (0.75, 0.62, 0.40),
        (0.38, 0.15, 0.07),
        (0.45, 0.44, 0.43),
        (0.80, 0.79, 0.77),
    ]
)
_IRISES: Final = np.array(
    [(0.16, 0.09, 0.05), (0.25, 0.15, 0.07), (0.30, 0.42, 0.55), (0.28, 0.36, 0.20)]
)
_STYLE_CHANCES: Final = {
    "cropped": 0.17,
    "short": 0.24,
    "full": 0.16,
    "round": 0.06,
    "chin": 0.14,
    "long": 0.15,
    "cap": 0.08,
}
_GLOSS: Final[dict[Kind, float]] = {
    "skin": 0.12,
    "hair": 0.07,
    "shirt": 0.0,
    "jacket": 0.03,
    "bottoms": 0.0,
    "skirt": 0.0,
    "shoes": 0.15,
}


class Stylist:
    """Draws looks. Holds what does not change from person to person."""

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

    def draw(self, rng: np.random.Generator, *, fine: bool) -> Look:
        """A look; it depends on the generator alone. Small people need not be `fine`."""
        clothing = draw_clothing(rng)
        bald = rng.random() < 0.06
        worn = self._wardrobe.pieces(clothing, bald=bald, fine=fine)
        hair_colour = _draw_hair_colour(rng)
        name = pick(rng, _STYLE_CHANCES)
        skin = self._skin(rng, worn[0], hair_colour, bald)
        layers = [skin, *self._clothes(rng, clothing, worn[1:])]
        pieces = [*worn]
        if not bald:
            colour = draw_colour(rng) if name == "cap" else hair_colour
            scalp = self._scalps[fine]
            pieces.append(scalp.piece)
            layers.append(_hair(rng, scalp, STYLES[name], colour, strands=name != "cap"))
        return _look(clothing, tuple(pieces), tuple(layers))

    def _skin(self, rng: np.random.Generator, piece: Piece, hair: Colour, bald: bool) -> Layer:
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
        return Layer(zero, None, None, tint[piece.points], uv, texture, gloss)

    def _clothes(
        self, rng: np.random.Generator, clothing: Clothing, worn: tuple[Piece, ...]
    ) -> list[Layer]:
        layers = []
        fits = {kind: rng.beta(1.5, 2.5) for kind in ("shirt", "jacket", "bottoms", "skirt")}
        tucked = clothing.skirt is not None or rng.random() < 0.3
        sole = draw_colour(rng, 0.9)
        patterned = {"shirt": 0.5, "jacket": 0.25, "bottoms": 0.2, "skirt": 0.5, "shoes": 0.15}
        for piece in worn:
            rest = piece.rest
            thickness = thickness_of(piece.kind, rest, fits.get(piece.kind, 0.0), tucked)
            uv = _planar(piece, rng.uniform(0.12, 0.6), rng.choice((0, 0, 0.0, np.pi / 4)))
            texture = draw_texture(rng, draw_colour(rng), patterned[piece.kind])
            tint = np.ones((len(rest), 3), np.float32)
            if piece.kind == "shoes":
                tint[rest[:, 1] < -1.315] = np.clip(sole / texture.mean(axis=(0, 1)), 0, 8)
            bumps = _bumps(rng, piece, rng.uniform(0.02, 0.2))
            gloss = _GLOSS[piece.kind] * rng.uniform(0, 2)
            layers.append(Layer(thickness, None, bumps, tint, uv, texture, gloss))
        return layers


def _planar(piece: Piece, tile_m: float, angle: float) -> Float32[np.ndarray, "P 2"]:
    """The front view of the rest pose, in tiles."""
    sine, cosine = np.sin(angle) / tile_m, np.cos(angle) / tile_m
    return piece.rest[:, :2] @ np.array([[cosine, sine], [-sine, cosine]], np.float32)


def _hair(
    rng: np.random.Generator, scalp: Scalp, style: HairStyle, colour: Colour, *, strands: bool
) -> Layer:
    scale = rng.uniform(0.7, 1.3)
    style = style._replace(length=style.length * scale, thickness=style.thickness * scale)
    thickness, shift = scalp.shape(style)
    count = len(thickness)
    tint = np.ones((count, 3), np.float32)
    texture = draw_texture(rng, colour, 0.0 if strands else 0.3)
    if strands:
        lines = draw_noise(rng, 4, 8).mean(axis=0) * 4 + draw_noise(rng, 6, 8) * 0.5
        texture = texture * np.exp(rng.uniform(0.1, 0.3) * np.clip(lines, -2, 1))[..., None]
    bumps = _bumps(rng, scalp.piece, 0.25)
    gloss = _GLOSS["hair"] * rng.uniform(0, 2)
    return Layer(*(thickness, shift, bumps, tint, scalp.uv, texture.astype(np.float32), gloss))


def _bumps(rng: np.random.Generator, piece: Piece, strength: float) -> Float32[np.ndarray, "P 3"]:
    return piece.bumps[rng.integers(len(piece.bumps))] * np.float32(strength)


def _draw_skin(rng: np.random.Generator) -> Colour:
    place = rng.uniform(0, len(_SKINS) - 1)
    lower = int(place)
    tone = _SKINS[lower] + (place - lower) * (
        _SKINS[min(lower + 1, len(_SKINS) - 1)] - _SKINS[lower]
    )
    return np.clip(tone * rng.normal(1, 0.03, 3) * 0.92, 0.05, 1)


def _draw_hair_colour(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.04:
        return draw_colour(rng, 0.0)
    return _HAIRS[rng.integers(len(_HAIRS))] * rng.uniform(0.8, 1.2)


def _look(clothing: Clothing, pieces: tuple[Piece, ...], layers: tuple[Layer, ...]) -> Look:
    points = [len(piece.points) for piece in pieces]
    first = np.cumsum([0, *points[:-1]], dtype=np.int32)
    shift = layers[-1].shift
    return Look(
        clothing,
        points=np.concatenate([piece.points for piece in pieces]),
        faces=np.concatenate([piece.faces + k for piece, k in zip(pieces, first, strict=True)]),
        thickness=np.concatenate([layer.thickness for layer in layers]),
        hair=shift,
        hair_faces=None if shift is None else pieces[-1].faces,
        bumps=np.concatenate([layer.bumps for layer in layers if layer.bumps is not None]),
        tint=np.concatenate([layer.tint for layer in layers]),
        uv=np.concatenate([layer.uv for layer in layers]),
        gloss=np.repeat([layer.gloss for layer in layers], points).astype(np.float32),
        two_sided=np.repeat([piece.open for piece in pieces], [len(p.faces) for p in pieces]),
        texture=np.repeat(np.arange(len(pieces), dtype=np.int32), points),
        textures=tuple(layer.texture for layer in layers),
    )
