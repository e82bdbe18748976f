"""Garments of the open body, cut from a body suit and a skirt.

The suit and skirt of `human_models/stand_in/outfit` follow the body's betas and joints. Vertices
are moved once onto the hem lines of all garments; a garment is then a subset of faces. Lengths are
metres in the rest pose: y up, the ground at -1.34, shoulders at 0.05, arms along x.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, Shaped

from human_models.files import STAND_IN, BodyData
from human_models.joints import RIG_JOINTS
from human_models.safe_pickle import load_npz
from synthetic.textures import SIDE, noise_bank
from utils.errors import UserError
from utils.mesh import merge_vertices

Rng = np.random.Generator
_CELL_M: Final = 0.011


def coarse_faces(
    body: BodyData, faces: Int[np.ndarray, "F 3"], region: Shaped[np.ndarray, " V"]
) -> Int[np.ndarray, "f 3"]:
    """Fewer faces over the same vertices, for people who are small in the picture.

    Vertices in one cell of a grid, with the same main joint and region, are replaced by one of
    them; collapsed faces are dropped. Lips and fingers are not merged, because they have different
    main joints.
    """
    cells = np.floor(body.template / _CELL_M).astype(np.int64)
    _, region_number = np.unique(region, return_inverse=True)
    key = np.column_stack([cells, body.weights.argmax(axis=1), region_number])
    is_trunk = region == "body"  # coarse as it is
    key[is_trunk] = 0
    key[is_trunk, 0] = -np.arange(1, is_trunk.sum() + 1) * 1000
    _, group = np.unique(key, axis=0, return_inverse=True)
    return merge_vertices(faces, group.ravel())


def slide_to_level(
    attributes: Float[np.ndarray, "V A"], faces: Int[np.ndarray, "F 3"], column: int, level: float
) -> None:
    """Change `attributes` so that no face has corners on both sides of column == level.

    The nearer end of each edge that crosses the level moves along the edge onto the level, with
    all of its attributes (position, weights, ...). A crossed face then has its single corner, or
    both other corners, on the level.
    """
    value = attributes[:, column]
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    gap = value[edges] - level
    crossing = gap[:, 0] * gap[:, 1] < 0
    edges, gap = edges[crossing], gap[crossing]
    first_is_nearer = np.abs(gap[:, 0]) < np.abs(gap[:, 1])
    mover = np.where(first_is_nearer, edges[:, 0], edges[:, 1])
    other = np.where(first_is_nearer, edges[:, 1], edges[:, 0])
    share = np.abs(value[mover] - level) / np.abs(value[mover] - value[other])
    order = np.argsort(-share, kind="stable")  # the shortest move of a vertex is written last
    mover, other, share = mover[order], other[order], share[order, None]
    attributes[mover] = (1 - share) * attributes[mover] + share * attributes[other]
    attributes[mover, column] = level


Kind = Literal["skin", "hair", "shirt", "jacket", "bottoms", "skirt", "shoes"]

SLEEVES_M: Final = (0.20, 0.31, 0.42, 0.55, 0.655)
"""Ends of sleeves: sleeveless, short, to the elbow, three-quarter, long."""
LEGS_M: Final = (-0.60, -0.80, -1.02, -1.25)
"""Lower ends of shorts and trousers."""
SHOES_M: Final = (-1.25, -1.12)
SHIRT_HEMS_M: Final = (-0.335, -0.385, -0.435)
NECKLINES_M: Final = (0.075, 0.10, 0.135)
"""Radius of the opening around the base of the neck."""
SKIRT_HEMS_M: Final = (-0.65, -0.82, -1.0, -1.19)
WAIST_M: Final = -0.29
_WRINKLES: Final = (1.0, 1.6, 2.3, 3.0)
_COLLAR_M: Final = 0.155
_JACKET_GAP_M: Final = 0.045
_COVERED_MARGIN_M: Final = 0.045
"""Skin more than this far inside a garment's edge is not drawn, so that it cannot show through."""

# Scalar fields over the vertices whose level sets are the hem lines.
_FIELDS: Final = ("arm", "height", "neck", "front")
_ARM, _HEIGHT, _NECK, _FRONT = range(len(_FIELDS))
_SHAPE_COLUMNS: Final = 3 + 30 + len(RIG_JOINTS)
_EYES: Final = ("left_eye", "right_eye")


class Clothing(NamedTuple):
    """A choice of garments; lengths are indices into the tables above, None is without it."""

    sleeve: int
    neckline: int | None
    shirt_hem: int
    legs: int | None
    skirt: int | None
    shoes: int | None
    jacket: bool


class Piece(NamedTuple):
    """Part of a person that is drawn with one material."""

    kind: Kind
    points: Int[np.ndarray, " P"]
    """Indices into a person's points: the body's vertices, then those of the clothes."""
    faces: Int32[np.ndarray, "F 3"]
    """Indices into `points`."""
    rest: Float32[np.ndarray, "P 3"]
    """Points of the mean person in the rest pose, metres, for texture coordinates."""
    bumps: Float32[np.ndarray, "K P 3"]
    """Wrinkles from wide to narrow: vectors of length about 1 to add to normals; K = 0 for skin."""
    open: bool
    """Whether the inside can be visible."""


class Wardrobe:
    """The clothes' points, shape directions and skinning weights, and pieces of any clothing."""

    def __init__(
        self, body: BodyData, scalp: Float32[np.ndarray, " V"], folder: Path = STAND_IN
    ) -> None:
        """Read the outfit of the neutral open body.

        Args:
            scalp: weight of the hair at each vertex, 0 to 1.

        Raises:
            UserError: the file is missing.
        """
        path = folder / "outfit" / "OUTFIT_NEUTRAL.npz"
        if not path.is_file():
            raise UserError(f"{path} is missing; rebuild it (human_models/stand_in/README.md).")
        outfit = load_npz(path)
        self.body_count = len(body.template)
        attributes = _with_hems(outfit)
        faces = np.concatenate([outfit["f_tights"], outfit["f_skirt"]]).astype(np.int64)
        self._is_skirt = np.arange(len(faces)) >= len(outfit["f_tights"])
        self.template: Float32[np.ndarray, "E 3"] = attributes[:, :3].astype(np.float32)
        self.shape_directions: Float32[np.ndarray, "E 3 10"] = (
            attributes[:, 3:33].reshape(-1, 3, 10).astype(np.float32)
        )
        self.weights: Float32[np.ndarray, "E 55"] = attributes[:, 33:_SHAPE_COLUMNS].astype(
            np.float32
        )
        fields = attributes[:, _SHAPE_COLUMNS:]
        self._face_fields = fields[faces].mean(axis=1).T
        self._faces = faces
        self.region = load_npz(body.source)["region"]
        fine = _without_backs_of_eyes(body, self.region)
        self.body_faces = {True: fine, False: coarse_faces(body, fine, self.region)}
        """Faces of the body with all detail (True) and without (False)."""
        self._body_fields = _fields(body.template).T.astype(np.float32)
        self._head = np.isin(self.region, ("head", *_EYES)) | (body.template[:, 1] > 0.17)
        self._under_hair = scalp > 0.5
        self.rest = np.concatenate([body.template, self.template]).astype(np.float32)
        """All points of the mean person in the rest pose, metres."""

    @lru_cache(maxsize=4096)  # noqa: B019 - a process has one wardrobe until it ends
    def _garment(self, kind: Kind, *ends_m: float) -> Piece:
        """A garment with its hem lines; for a shirt: sleeve, radius of the neckline, hem."""
        arm, height, neck, front = self._face_fields
        suit = ~self._is_skirt & (height < _COLLAR_M)
        if kind == "shirt":
            sleeve, radius, hem = ends_m
            chosen = suit & (arm < sleeve) & (neck > radius) & (height > hem)
        elif kind == "jacket":
            chosen = suit & (arm < SLEEVES_M[-1]) & (neck > NECKLINES_M[1])
            chosen &= (height > SHIRT_HEMS_M[-1]) & (front > _JACKET_GAP_M)
        elif kind == "bottoms":
            chosen = suit & (height < WAIST_M) & (height > ends_m[0]) & (arm < 0.3)
        elif kind == "skirt":
            chosen = self._is_skirt & (height > ends_m[0])
        else:
            chosen = suit & (height < ends_m[0])
        faces = self._faces[chosen] + self.body_count
        return make_piece(kind, faces, self.rest, is_open=kind == "skirt")

    def pieces(self, clothing: Clothing, *, bald: bool, fine: bool) -> tuple[Piece, ...]:
        """The pieces of a dressed person without the hair, the skin first.

        Skin under hair is left out unless the person is `bald`.
        """
        sleeve, neckline, hem, legs, skirt, shoes, jacket = clothing
        longest = len(SLEEVES_M) - 1 if jacket else sleeve
        ends = [SHIRT_HEMS_M[hem]]
        ends += [] if legs is None else [LEGS_M[legs]]
        ends += [] if skirt is None else [SKIRT_HEMS_M[skirt] + 0.05]
        radius = 0.0 if neckline is None else NECKLINES_M[neckline]
        pieces = [
            self._skin(longest, neckline, min(ends), shoes, bald, fine),
            self._garment("shirt", SLEEVES_M[sleeve], radius, SHIRT_HEMS_M[hem]),
        ]
        if legs is not None:
            end = LEGS_M[legs] if shoes is None else max(LEGS_M[legs], SHOES_M[shoes])
            pieces.append(self._garment("bottoms", end))
        if skirt is not None:
            pieces.append(self._garment("skirt", SKIRT_HEMS_M[skirt]))
        if jacket:
            pieces.append(self._garment("jacket"))
        if shoes is not None:
            pieces.append(self._garment("shoes", SHOES_M[shoes]))
        return tuple(pieces)

    @lru_cache(maxsize=256)  # noqa: B019 - as above
    def _skin(
        self,
        sleeve: int,
        neckline: int | None,
        clothed_to_m: float,
        shoes: int | None,
        bald: bool,
        fine: bool,
    ) -> Piece:
        """The faces of the body, without those that garments surely hide."""
        margin = _COVERED_MARGIN_M
        arm, height, from_neck, _ = self._body_fields
        neck = NECKLINES_M[neckline] if neckline is not None else 0.03
        hidden = (height > -0.33) & (arm < SLEEVES_M[sleeve] - margin) & (from_neck > neck + 0.03)
        hidden &= (height < 0.12) | (arm > 0.1)
        hidden |= (height < -0.25) & (height > clothed_to_m + margin) & (arm < 0.3)
        if shoes is not None:
            hidden |= height < SHOES_M[shoes] - 0.02
        hidden &= ~self._head
        if not bald:
            hidden |= self._under_hair
        faces = self.body_faces[fine]
        a, b, c = faces.T
        return make_piece("skin", faces[~(hidden[a] & hidden[b] & hidden[c])], self.rest)


def make_piece(
    kind: Kind,
    faces: Int[np.ndarray, "F 3"],
    rest: Float32[np.ndarray, "N 3"],
    *,
    is_open: bool = False,
) -> Piece:
    """A piece from faces that index a whole person's N points, whose rest pose is `rest`."""
    used = np.zeros(faces.max() + 1, bool)
    used[faces] = True
    number = np.cumsum(used, dtype=np.int32) - 1
    points = np.flatnonzero(used)
    own = rest[points]
    bumps = np.zeros((0, len(points), 3), np.float32)
    if kind != "skin":
        places = [(own[:, :2] * SIDE * scale).astype(np.int64) % SIDE for scale in _WRINKLES]
        bumps = np.array([noise_bank()[2:5, place[:, 1], place[:, 0]].T for place in places])
    return Piece(kind, points, number[faces], own, bumps, is_open)


def _fields(points: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "V 4"]:
    x, y, z = np.asarray(points, np.float64).T
    fields = np.zeros((len(points), len(_FIELDS)))
    fields[:, _ARM] = np.where(y > -0.25, np.abs(x), 0)
    fields[:, _HEIGHT] = y
    fields[:, _NECK] = np.sqrt(x**2 + (1.15 * (y - 0.14)) ** 2 + (z - 0.045) ** 2)
    fields[:, _FRONT] = np.where(z > 0.03, np.abs(x), 1.0)
    return fields


def _without_backs_of_eyes(body: BodyData, region: np.ndarray) -> Int[np.ndarray, "F 3"]:
    """The faces of the body without the back halves of the eyeballs."""
    behind = np.zeros(len(body.template), bool)
    for eye in _EYES:
        ball = np.flatnonzero(region == eye)
        depth = body.template[ball, 2]
        behind[ball] = depth < depth.mean()
    return body.faces[~behind[body.faces].all(axis=1)]


def _with_hems(outfit: dict[str, np.ndarray]) -> Float[np.ndarray, "E A"]:
    """Attributes of the clothes' vertices, moved onto all hem lines: positions, shape directions,
    weights, fields."""
    template, directions = outfit["v_template"], outfit["shapedirs"].reshape(-1, 30)
    columns = [template, directions, outfit["weights"], _fields(template)]
    attributes = np.concatenate(columns, axis=1).astype(np.float64)
    suit, skirt = (outfit[f"f_{part}"].astype(np.int64) for part in ("tights", "skirt"))
    for faces, column, levels in (
        (suit, _FRONT, (_JACKET_GAP_M,)),
        (suit, _NECK, NECKLINES_M),
        (suit, _ARM, SLEEVES_M),
        (suit, _HEIGHT, (*LEGS_M, *SHOES_M, *SHIRT_HEMS_M, WAIST_M, _COLLAR_M)),
        (skirt, _HEIGHT, SKIRT_HEMS_M),
    ):
        for level in levels:
            slide_to_level(attributes, faces, _SHAPE_COLUMNS + column, level)
    return attributes


def draw_clothing(rng: Rng) -> Clothing:
    """A random choice of garments and lengths."""
    skirted = rng.random() < 0.2
    legs: int | None = int(rng.choice(4, p=(0.1, 0.15, 0.05, 0.7)))
    if skirted:
        legs = None
    shoes: int | None = int(rng.random() < 0.15)
    if rng.random() < 0.08:
        shoes = None
    return Clothing(
        sleeve=int(rng.choice(5, p=(0.12, 0.35, 0.1, 0.08, 0.35))),
        neckline=None if rng.random() < 0.08 else int(rng.choice(3, p=(0.45, 0.35, 0.2))),
        shirt_hem=1 if skirted else int(rng.choice(3, p=(0.2, 0.35, 0.45))),
        legs=legs,
        skirt=int(rng.choice(4, p=(0.25, 0.35, 0.2, 0.2))) if skirted else None,
        shoes=shoes,
        jacket=bool(rng.random() < 0.18),
    )


def thickness_of(
    kind: Kind, rest: Float32[np.ndarray, "P 3"], fit: float, tucked: bool
) -> Float32[np.ndarray, " P"]:
    """Distance of a garment from the suit, metres; `fit` is 0 for tight and 1 for wide."""
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    at_hem = np.clip((-0.2 - y) / 0.06, 0, 1)
    if kind == "shirt":
        belly = np.clip((0.05 - y) / 0.35, 0, 1) * (x < 0.25)
        sleeve = np.clip((x - 0.2) / 0.2, 0, 1)
        thickness = 0.006 + 0.03 * fit * (belly + 0.5 * sleeve)
        thickness = (
            thickness * (1 - at_hem) + 0.004 * at_hem if tucked else thickness + 0.014 * at_hem
        )
    elif kind == "jacket":
        thickness = 0.022 + 0.025 * fit * (x > 0.2) + (0.03 + 0.02 * fit) * at_hem
    elif kind == "bottoms":
        down = np.clip((WAIST_M - 0.15 - y) / (WAIST_M - LEGS_M[-1]), 0, 1)
        thickness = 0.006 + 0.035 * fit * down**0.6
        if tucked:
            thickness = thickness + np.clip((y + 0.48) / 0.05, 0, 1) * 0.008
    elif kind == "skirt":
        down = np.clip((WAIST_M - y) / 0.5, 0, 1)
        thickness = 0.012 + (0.02 + 0.06 * fit) * down
    else:
        thickness = 0.006 + 0.006 * (y < -1.315)
    return np.broadcast_to(thickness, len(rest)).astype(np.float32)
