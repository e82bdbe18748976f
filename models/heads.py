"""Heads: each reads its own task tokens and regresses one group of parameters.

The order of HEADS is the order of the 80 task tokens. Rotations are 6D (see utils.rotation);
a camera is (x, y, gamma), see models.posing.
"""

from typing import Final, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class Head(NamedTuple):
    name: str
    tokens: int
    outputs: int


HEADS: Final = (
    Head("body_root_pose", 1, 6),
    Head("body_pose", 21, 21 * 6),
    Head("body_shape", 10, 10),
    Head("body_cam", 1, 3),
    Head("hand_root_pose", 2, 2 * 6),
    Head("hand_pose", 30, 2 * 15 * 6),
    Head("hand_cam", 2, 2 * 3),
    Head("face_root_pose", 1, 6),
    Head("face_expression", 10, 10),
    Head("face_jaw_pose", 1, 6),
    Head("face_cam", 1, 3),
)

UNSUPERVISED_HEADS: Final = ("hand_cam", "face_root_pose", "face_cam")
"""No loss reads them; they are kept because checkpoints hold them."""


class HeadOutputs(NamedTuple):
    """What the network regresses, a row a person. Hands: left half, then right half."""

    body_root_pose: Float[Tensor, "B 6"]
    body_pose: Float[Tensor, "B 126"]
    body_shape: Float[Tensor, "B 10"]
    body_cam: Float[Tensor, "B 3"]
    hand_root_pose: Float[Tensor, "B 12"]
    hand_pose: Float[Tensor, "B 180"]
    hand_cam: Float[Tensor, "B 6"]
    face_root_pose: Float[Tensor, "B 6"]
    face_expression: Float[Tensor, "B 10"]
    face_jaw_pose: Float[Tensor, "B 6"]
    face_cam: Float[Tensor, "B 3"]


class Heads(nn.ModuleDict):
    """One linear layer a head, on its tokens laid end to end."""

    def __init__(self, token_dim: int) -> None:
        super().__init__({h.name: nn.Linear(h.tokens * token_dim, h.outputs) for h in HEADS})

    def forward(self, tokens: Float[Tensor, "B 80 O"]) -> HeadOutputs:
        groups = tokens.split([head.tokens for head in HEADS], dim=1)
        return HeadOutputs(
            **{
                head.name: self[head.name](group.flatten(1))
                for head, group in zip(HEADS, groups, strict=True)
            }
        )
