"""Decoder and heads: task tokens attend to each other and to the image, and become parameters.

Each head reads its own task tokens and regresses one group of parameters. Rotations are 6D (see
utils.rotation); a camera is (x, y, gamma), see models.posing.

Shapes: B images, T task tokens, N image tokens, D channels, O channels of a decoded token.
"""

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import DecoderConfig


def attend(
    q: Float[Tensor, "B Q inner"], kv: Float[Tensor, "B K 2*inner"], num_heads: int
) -> Float[Tensor, "B Q inner"]:
    """Multi-head attention of projected queries to projected keys and values."""
    queries = q.unflatten(-1, (num_heads, -1)).transpose(1, 2)
    keys, values = kv.unflatten(-1, (2, num_heads, -1)).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(queries, keys, values)
    return attended.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.inner = num_heads, num_heads * head_dim
        self.to_qkv = nn.Linear(dim, 3 * self.inner, bias=False)
        self.to_out = nn.Linear(self.inner, dim)

    def forward(self, tokens: Float[Tensor, "B K D"], keep: int | None) -> Float[Tensor, "B Q D"]:
        """The first `keep` tokens (all of them: None) attend to all tokens."""
        to_q, to_kv = self.to_qkv.weight.split([self.inner, 2 * self.inner])
        q, kv = F.linear(tokens[:, :keep], to_q), F.linear(tokens, to_kv)
        return self.to_out(attend(q, kv, self.num_heads))


class CrossAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(dim, num_heads * head_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * num_heads * head_dim, bias=False)
        self.to_out = nn.Linear(num_heads * head_dim, dim)

    def forward(
        self, tokens: Float[Tensor, "B Q D"], context: Float[Tensor, "B K D"]
    ) -> Float[Tensor, "B Q D"]:
        return self.to_out(attend(self.to_q(tokens), self.to_kv(context), self.num_heads))


class Layer(nn.Module):
    """Self-attention, cross-attention to the image tokens, feed-forward; pre-norm residuals."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        dim = config.feat_dim
        self.self_norm = nn.LayerNorm(dim)
        self.self_attention = SelfAttention(dim, config.num_heads, config.head_dim)
        self.cross_norm = nn.LayerNorm(dim)
        self.cross_attention = CrossAttention(dim, config.num_heads, config.head_dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(
        self,
        tokens: Float[Tensor, "B K D"],
        image_tokens: Float[Tensor, "B N D"],
        keep: int | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """`keep`: only the first so many tokens are computed; all of them are attended to."""
        x = tokens[:, :keep] + self.self_attention(self.self_norm(tokens), keep)
        x = x + self.cross_attention(self.cross_norm(x), image_tokens)
        return x + self.feed_forward(self.feed_forward_norm(x))


class TokenDecoder(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        dim, self.task_tokens_num = config.feat_dim, config.task_tokens_num
        self.pos_embedding = nn.Parameter(torch.zeros(1, 1, dim))
        # Published checkpoints carry it and nothing uses it.
        self.to_token_embedding = nn.Linear(config.task_tokens_num, dim).requires_grad_(False)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.depth)])
        self.token_projection = nn.Linear(dim, config.dim_out)

    def forward(
        self, task_tokens: Float[Tensor, "B T D"], image_tokens: Float[Tensor, "B N D"]
    ) -> Float[Tensor, "B T O"]:
        tokens = torch.cat([task_tokens, image_tokens], dim=1) + self.pos_embedding
        for layer in self.layers[:-1]:
            tokens = layer(tokens, image_tokens)
        tokens = self.layers[-1](tokens, image_tokens, keep=self.task_tokens_num)
        return self.token_projection(tokens)


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
"""In the order of the task tokens."""
TASK_TOKENS: Final = sum(head.tokens for head in HEADS)
UNSUPERVISED_HEADS: Final = ("hand_cam", "face_root_pose", "face_cam")
"""No loss reads them; they are kept because checkpoints hold them."""


class HeadOutputs(NamedTuple):
    """What the network regresses, one row per person. Hands: left half, then right half."""

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
    """One linear layer per head, on its concatenated tokens."""

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
