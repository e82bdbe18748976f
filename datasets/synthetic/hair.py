"""Hair and headwear: the scalp of the head, thickened and for long hair drawn down."""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from datasets.synthetic.wardrobe import Piece, make_piece
from human_models.files import BodyData
from human_models.joints import SMPLX_SURFACE_VERTICES

_EAR: Final = SMPLX_SURFACE_VERTICES["left_ear"]


class HairStyle(NamedTuple):
    """Lengths in metres."""

    thickness: float
    volume: float
    """Farther from the skull at the crown and back."""
    length: float
    """How far the lower edge hangs down."""
    covers: float
    """Share of the scalp, from the crown, that is covered."""


STYLES: Final = {
    "cropped": HairStyle(0.004, 0.0, 0.0, 1.0),
    "short": HairStyle(0.012, 0.006, 0.0, 1.0),
    "full": HairStyle(0.02, 0.02, 0.0, 1.0),
    "round": HairStyle(0.045, 0.025, 0.02, 1.0),
    "chin": HairStyle(0.014, 0.012, 0.11, 1.0),
    "long": HairStyle(0.014, 0.01, 0.26, 1.0),
    "cap": HairStyle(0.012, 0.008, 0.0, 1.0),
}


class Scalp:
    """The part of the head that hair grows on, as a piece of its own."""

    def __init__(
        self, body: BodyData, faces: Int[np.ndarray, "F 3"], scalp: Float32[np.ndarray, " V"]
    ) -> None:
        faces = faces[(scalp[faces] > 0).any(axis=1)]
        self.piece: Piece = make_piece(
            "hair", faces, body.template.astype(np.float32), is_open=True
        )
        points = self.piece.points
        self._weight = scalp[points]
        rest = body.template[points]
        ear = body.template[_EAR]
        self._height = rest[:, 1] - ear[1]
        behind = np.clip((ear[2] + 0.035 - rest[:, 2]) / 0.05, 0, 1)
        self._hanging = behind * np.clip(1 - (self._height - 0.0) / 0.06, 0, 1)
        self._crown = np.clip((self._height - 0.02) / 0.1, 0, 1)
        self._outward = rest - np.array([0, rest[:, 1].mean(), ear[2]])
        self._outward[:, 1] = 0
        self._outward /= np.linalg.norm(self._outward, axis=1, keepdims=True)
        angle = np.arctan2(rest[:, 0], rest[:, 2] - ear[2])
        self.uv: Float32[np.ndarray, "P 2"] = np.stack(
            [angle * 1.6, self._height * 0.8], axis=1
        ).astype(np.float32)
        """Strands run down: fine along the first coordinate, coarse along the second."""

    def shape(
        self, style: HairStyle
    ) -> tuple[Float32[np.ndarray, " P"], Float32[np.ndarray, "P 3"] | None]:
        """How far each point lies off the skin, and its shift in the frame of the head."""
        thickness = self._weight**0.5 * style.thickness + self._crown * style.volume
        if not style.length:
            return thickness.astype(np.float32), None
        shift = np.zeros((len(thickness), 3))
        shift[:, 1] = -style.length * self._hanging
        shift += self._outward * (0.02 + 0.08 * style.length) * self._hanging[:, None] ** 0.5
        return thickness.astype(np.float32), shift.astype(np.float32)
