"""The network, from the crop of a person to a body in the camera of the crop.

Task tokens attend to each other and to the image, and each head regresses one group of parameters
from its own task tokens. Rotations are 6D (see utils.geometry); a camera is (x, y, gamma), see
`camera_translation`.

A network with a lifter finds joints on the feature map of the encoder and lifts them to 3D, which
it can learn from poses without pictures; the decoder then corrects the result. Pre-training and
auxiliary supervision use the same keypoint head.

Shapes: B images, T task tokens, N image tokens, D channels, O channels of a decoded token.
"""

import math
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from configs.schema import DecoderConfig, LifterConfig, ModelConfig
from human_models.body import BodyModel
from human_models.joints import JOINT_PARTS, JOINTS, JOINTS_FROM_MODEL, PART_ROOTS, POSE_PARAMETERS
from models.vit import ViT
from utils.camera import project
from utils.devices import constants, picked, runs_of
from utils.geometry import rotation_6d_to_axis_angle


def attend(
    q: Float[Tensor, "B Q inner"], kv: Float[Tensor, "B K 2*inner"], num_heads: int
) -> Float[Tensor, "B Q inner"]:
    """Multi-head attention of projected queries to projected keys and values."""
    queries = q.unflatten(-1, (num_heads, -1)).transpose(1, 2)
    keys, values = kv.unflatten(-1, (2, num_heads, -1)).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(queries, keys, values)
    return attended.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention, if wanted only for the first tokens."""

    def __init__(self, dim: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.inner = num_heads, num_heads * head_dim
        self.to_qkv = nn.Linear(dim, 3 * self.inner, bias=False)
        self.to_out = nn.Linear(self.inner, dim)

    def forward(self, tokens: Float[Tensor, "B K D"], keep: int | None) -> Float[Tensor, "B Q D"]:
        """The first `keep` tokens (None: all) attend to all tokens."""
        to_q, to_kv = self.to_qkv.weight.split([self.inner, 2 * self.inner])
        q, kv = F.linear(tokens[:, :keep], to_q), F.linear(tokens, to_kv)
        return self.to_out(attend(q, kv, self.num_heads))


class CrossAttention(nn.Module):
    """Multi-head attention of tokens to a context."""

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
        """
        Args:
            keep: compute only this many first tokens; they attend to all tokens.
        """
        x = tokens[:, :keep] + self.self_attention(self.self_norm(tokens), keep)
        x = x + self.cross_attention(self.cross_norm(x), image_tokens)
        return x + self.feed_forward(self.feed_forward_norm(x))


class TokenDecoder(nn.Module):
    """Layers over task and image tokens together; returns only the task tokens."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        dim, self.task_tokens_num = config.feat_dim, config.task_tokens_num
        self.pos_embedding = nn.Parameter(torch.zeros(1, 1, dim))
        # Published checkpoints contain it, but nothing uses it.
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
    """A group of parameters, the number of its task tokens, and the size of its output."""

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
ROTATION_HEADS: Final = ("body_root_pose", "body_pose", "hand_pose", "face_jaw_pose")
"""Heads with one task token per rotation, in the order of `joints.POSE_JOINTS`."""
TASK_TOKENS: Final = sum(head.tokens for head in HEADS)
UNSUPERVISED_HEADS: Final = ("hand_cam", "face_root_pose", "face_cam")
"""No loss reads them; they are kept because checkpoints contain them."""


class HeadOutputs(NamedTuple):
    """Outputs of the network, one row per person. Hands: left half, then right half."""

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

    @property
    def rotations_6d(self) -> Float[Tensor, "B 53 6"]:
        """The rotations of `joints.POSE_JOINTS`."""
        rotations = [getattr(self, name) for name in ROTATION_HEADS]
        return torch.cat(rotations, dim=1).unflatten(1, (-1, 6))


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


DEPTH_UNIT_M: Final = 0.5
_ERROR_SCALE: Final = 0.1
"""Expected error at which the weight of a joint is 1/e."""
_POSITION_UNIT: Final = 0.25
"""Unit of x and y in the lifter."""


class KeypointHead(nn.Module):
    """For each joint: scores of the cells of the feature map, position in the cell, and depth."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(channels, 4 * len(JOINTS), kernel_size=1)

    def forward(self, feature_map: Float[Tensor, "B D h w"]) -> Float[Tensor, "B 137 4 h w"]:
        """Score; x, y in cells from the cell's middle; depth in half metres from the pelvis."""
        return self.final_layer(feature_map).float().unflatten(1, (len(JOINTS), 4))


def found_keypoints(
    predicted: Float[Tensor, "B 137 4 h w"], config: ModelConfig
) -> Float[Tensor, "B 137 2"]:
    """The position of each joint, in pixels of the network's input."""
    input_height, input_width = config.input_body_shape
    positions = observed_keypoints(predicted)[..., :2] + 0.5
    return positions * constants((input_width, input_height), positions)


def observed_keypoints(predicted: Float[Tensor, "B 137 4 h w"]) -> Float[Tensor, "B 137 4"]:
    """The joints of the keypoint head as input of a `Lifter`.

    They are means over the cells, weighted by scores (integral regression: Sun et al., ECCV 2018):
    if a joint may be in two places, the expected error of the mean is smaller.
    """
    height, width = predicted.shape[-2:]
    scores, offset_x, offset_y, depths = predicted.flatten(3).unbind(2)
    weights = scores.softmax(2)
    cells = torch.arange(height * width, device=scores.device)
    every_x, every_y = cells % width + 0.5 + offset_x, cells // width + 0.5 + offset_y
    x, y, depth = ((weights * values).sum(2) for values in (every_x, every_y, depths))
    # Cells are square; the square root has no gradient at zero.
    squared = (every_x - x[..., None]).square() + (every_y - y[..., None]).square()
    error = (weights * squared.clamp(min=1e-12).sqrt()).sum(2) / height
    return torch.stack([x / width - 0.5, y / height - 0.5, DEPTH_UNIT_M * depth, error], 2)


def cell_of(positions: Float[Tensor, "B J 2"], height: int, width: int) -> Int[Tensor, "B J"]:
    """The cells, counted row by row, of a grid over the crop; the nearest cell if outside.

    Args:
        positions: x, y as shares of the crop's width and height.
    """
    column, row = (
        (positions[..., k] * size).floor().clamp(0, size - 1).long()
        for k, size in enumerate((width, height))
    )
    return row * width + column


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B W"]) -> Float[Tensor, "B W"]:
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm(x))))


class Lifter(nn.Module):
    """A residual network over all joints at once (Martinez et al., ICCV 2017).

    A keypoint is four numbers: x and y from the middle of the crop as shares of its width and
    height, depth from the pelvis in metres, and the expected error as a share of the crop's height,
    which is infinite for unknown joints.
    """

    def __init__(self, config: LifterConfig, query_dim: int, token_dim: int) -> None:
        """
        Args:
            query_dim: width of the decoder's queries.
            token_dim: width of decoded tokens.
        """
        super().__init__()
        self.embed = nn.Linear(4 * len(JOINTS), config.width)
        self.blocks = nn.ModuleList([_Block(config.width) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(config.width)
        self.tokens = nn.Linear(config.width, TASK_TOKENS * config.token_rank)
        self.to_decoded = nn.Linear(config.token_rank, token_dim)
        self.to_query = nn.Linear(config.token_rank, query_dim)

    def forward(
        self, keypoints: Float[Tensor, "B 137 4"]
    ) -> tuple[Float[Tensor, "B 80 O"], Float[Tensor, "B 80 D"]]:
        """Lift keypoints: to decoded tokens, and to initial queries of the decoder.

        Computed in float32 also under autocast, as in inference.
        """
        with torch.autocast(keypoints.device.type, enabled=False):
            position, depth, error = keypoints.float().split([2, 1, 1], dim=2)
            confidence = torch.exp(-error / _ERROR_SCALE)
            values = torch.cat([position / _POSITION_UNIT, depth / DEPTH_UNIT_M], dim=2)
            values = torch.where(confidence > 0, values, 0.0)
            x = self.embed(torch.cat([values, confidence], dim=2).flatten(1))
            for block in self.blocks:
                x = block(x)
            tokens = self.tokens(self.norm(x)).unflatten(1, (TASK_TOKENS, -1))
            return self.to_decoded(tokens), self.to_query(tokens)


class NetworkTokens(NamedTuple):
    decoded: Float[Tensor, "B 80 O"]
    """Task tokens for the heads."""
    keypoints: Float[Tensor, "B 137 4 h w"] | None
    """Output of the keypoint head in networks with a lifter."""
    feature_map: Float[Tensor, "B D h w"]


class SMPLestX(nn.Module):
    """ViT with task tokens -> token decoder -> heads; optionally with a lifter, see `Lifter`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = ViT(config.encoder_config)
        self.decoder = TokenDecoder(config.decoder_config)
        self.heads = Heads(config.decoder_config.dim_out)
        self.keypoint_head: KeypointHead | None = None
        self.lifter: Lifter | None = None
        if config.lifter_config is not None:
            self.keypoint_head = KeypointHead(config.encoder_config.embed_dim)
            decoder = config.decoder_config
            self.lifter = Lifter(config.lifter_config, decoder.feat_dim, decoder.dim_out)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> HeadOutputs:
        """Run the network on RGB crops in 0..1 of the config's input_body_shape, any precision."""
        return self.regress(self.tokens(images).decoded)

    def tokens(self, images: Float[Tensor, "B 3 H W"]) -> NetworkTokens:
        """The network without its heads, and what auxiliary losses need from it."""
        task_tokens, feature_map = self.encoder(images.to(self.precision))
        image_tokens = feature_map.flatten(2).mT
        if self.keypoint_head is None or self.lifter is None:
            return NetworkTokens(self.decoder(task_tokens, image_tokens), None, feature_map)
        keypoints = self.keypoint_head(feature_map)
        lifted, queries = self.lifter(observed_keypoints(keypoints))
        queries = task_tokens + queries.to(self.precision)
        decoded = lifted + self.decoder(queries, image_tokens)
        return NetworkTokens(decoded, keypoints, feature_map)

    def lift(self, keypoints: Float[Tensor, "B 137 4"]) -> HeadOutputs:
        """Head outputs from joints without a picture; `keypoints` as for `Lifter`."""
        assert self.lifter is not None
        return self.regress(self.lifter(keypoints)[0])

    def regress(self, tokens: Float[Tensor, "B 80 O"]) -> HeadOutputs:
        """Head outputs from decoded task tokens, computed in float32 also under autocast."""
        with torch.autocast(tokens.device.type, enabled=False):
            return self.heads(tokens.float())

    @property
    def precision(self) -> torch.dtype:
        return self.encoder.task_tokens.dtype

    def to_precision(self, dtype: torch.dtype) -> "SMPLestX":
        """Encoder, decoder and keypoint head in `dtype`; lifter and heads stay float32.

        The 8 bits of bf16 are not enough for the depth of the camera, and the heads are under 1 %
        of the work. The lifter needs more precise positions of joints than bf16 has.
        """
        self.encoder.to(dtype)
        self.decoder.to(dtype)
        self.heads.float()
        if self.keypoint_head is not None and self.lifter is not None:
            self.keypoint_head.to(dtype)
            self.lifter.float()
        return self


_FROM_MODEL: Final = runs_of(JOINTS_FROM_MODEL)


class BodyParameters(NamedTuple):
    """SMPL-X parameters, one row per person.

    Rotations are axis-angle vectors in radians, joint by joint in the order of the rig; those of
    hands are relative to the mean hand (flat_hand_mean=False). `transl` is in metres in the crop's
    camera frame: x right, y down, z forward.
    """

    global_orient: Float[Tensor, "B 3"]
    body_pose: Float[Tensor, "B 63"]
    left_hand_pose: Float[Tensor, "B 45"]
    right_hand_pose: Float[Tensor, "B 45"]
    jaw_pose: Float[Tensor, "B 3"]
    betas: Float[Tensor, "B 10"]
    expression: Float[Tensor, "B 10"]
    transl: Float[Tensor, "B 3"]


class PosedBody(NamedTuple):
    """A body in the crop's camera frame (metres) and its projection (pixels of the input)."""

    vertices: Float[Tensor, "B V 3"] | None
    joints: Float[Tensor, "B 137 3"]
    joints_2d: Float[Tensor, "B 137 2"]


def camera_depth(config: ModelConfig) -> float:
    """Depth in metres at which `camera_3d_size` metres fill the crop (mean of its two sides)."""
    height, width = config.input_body_shape
    return math.sqrt(math.prod(config.focal) * config.camera_3d_size**2 / (height * width))


def camera_translation(camera: Float[Tensor, "B 3"], config: ModelConfig) -> Float[Tensor, "B 3"]:
    """(x, y, gamma) -> translation in metres, at sigmoid(gamma) of `camera_depth`."""
    depth = camera_depth(config) * camera[:, 2:].sigmoid()
    return torch.cat([camera[:, :2], depth], dim=1)


def body_parameters(heads: HeadOutputs, config: ModelConfig) -> BodyParameters:
    """The head outputs in the units of the body model."""
    # All joints at once: small batches are limited by the number of calls, not by arithmetic.
    rotations = rotation_6d_to_axis_angle(heads.rotations_6d)
    return BodyParameters(
        **{name: rotations[:, joints].flatten(1) for name, joints in POSE_PARAMETERS.items()},
        betas=heads.body_shape,
        expression=heads.face_expression,
        transl=camera_translation(heads.body_cam, config),
    )


def pose_body(
    parameters: BodyParameters, body: BodyModel, config: ModelConfig, *, want_vertices: bool
) -> PosedBody:
    """Run the body model and project the 137 joints by the camera of the crop."""
    output = body(**parameters._asdict(), want_vertices=want_vertices)
    joints = picked(output.joints, _FROM_MODEL)
    focal, princpt = constants(config.focal, joints), constants(config.princpt, joints)
    return PosedBody(output.vertices, joints, project(joints, focal, princpt))


def root_relative(joints: Float[Tensor, "B 137 3"]) -> Float[Tensor, "B 137 3"]:
    """Joints relative to the pelvis."""
    return joints - joints[:, PART_ROOTS["body"], None]


def part_relative(joints: Float[Tensor, "B 137 3"]) -> Float[Tensor, "B 137 3"]:
    """Body joints relative to the pelvis, hands to their wrists, the face to the neck."""
    parts = [
        joints[:, part] - joints[:, PART_ROOTS[name], None] for name, part in JOINT_PARTS.items()
    ]
    return torch.cat(parts, dim=1)
