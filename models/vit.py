"""Encoder: a plain Vision Transformer with learned task tokens in front of the image tokens.

Module names are those of ViTPose and timm, whose files they load. Shapes: B images, T task
tokens, N = h * w image tokens (patches), D channels, H heads.
"""

import itertools
import math
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from configs.schema import EncoderConfig

_GROUPS: Final = 8
"""Number of groups of channels in the normalisation of convolutional stems."""


class PatchEmbed(nn.Module):
    """Non-overlapping patches by one convolution; ViTPose pads the image by 2 on every side."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size, padding=2)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        return self.proj(images)


class ConvStem(nn.Module):
    """Convolutions that halve the image until a pixel is a patch (Xiao et al., NeurIPS 2021)."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        halvings = patch_size.bit_length() - 1
        widths = [max(_GROUPS, dim >> (halvings - k)) for k in range(1, halvings + 1)]
        self.stages = nn.Sequential(
            *(_ConvStage(*pair) for pair in itertools.pairwise([3, *widths]))
        )
        self.proj = nn.Conv2d(widths[-1], dim, kernel_size=1)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        return self.proj(self.stages(images))


class _ConvStage(nn.Module):
    """A convolution with stride 2, then a residual convolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False)
        self.down_norm = nn.GroupNorm(_GROUPS, width)
        self.same = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.same_norm = nn.GroupNorm(_GROUPS, width)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        x = F.relu(self.down_norm(self.down(x)))
        return F.relu(x + self.same_norm(self.same(x)))


class BlazePoseStem(nn.Module):
    """A `ConvStem` on the image at half its size, and the convolutions of BlazePose.

    BlazePose (Bazarevsky et al., 2020) was trained on photographs of people. Each patch gets its
    features at a 32nd of the image's size, and those of its feature pyramid, at a quarter of the
    size, within the patch. Its convolutions are frozen.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = _conv(3, 24, 3, stride=2)
        self.second = nn.Sequential(
            _conv(24, 24, 3, groups=24), nn.ReLU6(inplace=True), _conv(24, 16, 1)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(_InvertedResidual(*block) for block in blocks))
            for blocks in _BLAZEPOSE_STAGES
        )
        width = _BLAZEPOSE_STAGES[-1][-1][2]
        self.top = nn.Sequential(
            _conv(width, 6 * width, 1),
            nn.ReLU6(inplace=True),
            _conv(6 * width, 6 * width, 3, groups=6 * width),
        )
        widths = [*(blocks[-1][2] for blocks in _BLAZEPOSE_STAGES[:-1]), 6 * width]
        self.laterals = nn.ModuleList(_Lateral(channels) for channels in widths)
        self.requires_grad_(False)
        self.conv = ConvStem(_BLAZEPOSE_PATCH // 2, dim)
        self.coarse = nn.Linear(width, dim)
        cells = _BLAZEPOSE_PATCH // 4
        self.fine = nn.Conv2d(_PYRAMID_WIDTH, dim, kernel_size=cells, stride=cells)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        # Few images fit into the caches of a CPU; 32 at once take 1.6 times as long per image.
        # An exported graph has no loop, so that the number of images is variable.
        if images.device.type == "cpu" and not torch.compiler.is_compiling():
            groups = [self._features(group) for group in images.split(_CPU_GROUP)]
            coarse, pyramid = (torch.cat(maps) for maps in zip(*groups, strict=True))
        else:
            coarse, pyramid = self._features(images)
        learned = self.conv(F.avg_pool2d(images, 2))
        return learned + self.coarse(coarse.movedim(1, -1)).movedim(-1, 1) + self.fine(pyramid)

    def _features(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B P 8*h 8*w"]]:
        """Features of the last stage, and the finest ones of the pyramid."""
        # On CPUs, depthwise convolutions are three times faster with channels last.
        x = images.contiguous(memory_format=torch.channels_last)
        x = self.second(_relu6(self.first(x)))
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        *finer, coarse = stages
        pyramid = self.laterals[-1](_relu6(self.top(coarse)))
        for lateral, features in zip(reversed(self.laterals[:-1]), reversed(finer), strict=True):
            pyramid = F.interpolate(pyramid, scale_factor=2, mode="bilinear") + lateral(features)
        return coarse, pyramid


_CPU_GROUP: Final = 4
_BLAZEPOSE_PATCH: Final = 32
_BLAZEPOSE_STAGES: Final = (
    ((16, 64, 24, 3, 2), (24, 144, 24, 3, 1)),
    ((24, 144, 32, 5, 2), (32, 192, 32, 5, 1)),
    (
        (32, 192, 64, 3, 2),
        *[(64, 384, 64, 3, 1)] * 2,
        (64, 384, 88, 5, 1),
        *[(88, 528, 88, 5, 1)] * 2,
    ),
    ((88, 528, 144, 5, 2), *[(144, 864, 144, 5, 1)] * 3),
)
"""Input, hidden and output channels, kernel and stride of blocks, by size of feature map."""
_PYRAMID_WIDTH: Final = 48


def _conv(channels: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution with zero padding for its kernel."""
    return nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, groups=groups)


def _relu6(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """ReLU6 in place: on a CPU, allocating a new map costs more than computing it."""
    return F.relu6(x, inplace=True)


class _InvertedResidual(nn.Module):
    """1 x 1, depthwise and 1 x 1 convolution (Sandler et al., CVPR 2018)."""

    def __init__(self, channels: int, hidden: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.expand = _conv(channels, hidden, 1)
        self.depthwise = _conv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _conv(hidden, width, 1)
        self.is_residual = stride == 1 and channels == width

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        new = self.project(_relu6(self.depthwise(_relu6(self.expand(x)))))
        return x + new if self.is_residual else new


class _Lateral(nn.Module):
    """Features of one size of the pyramid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = _conv(channels, channels, 3, groups=channels)
        self.project = _conv(channels, _PYRAMID_WIDTH, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P H W"]:
        return _relu6(self.project(_relu6(self.depthwise(x))))


class Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block with stochastic depth (Huang et al., ECCV 2016)."""

    def __init__(self, config: EncoderConfig, drop_path: float) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, config.num_heads, qkv_bias=config.qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.drop_path = drop_path

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        x = x + self._drop_path(self.attn(self.norm1(x)))
        return x + self._drop_path(self.mlp(self.norm2(x)))

    def _drop_path(self, branch: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        mask = torch.rand(len(branch), 1, 1, device=branch.device) < keep
        return branch * (mask / keep).to(branch.dtype)


class ViT(nn.Module):
    """The encoder: a stem, transformer blocks over task and image tokens, and a last norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim, (height, width) = config.embed_dim, config.img_size
        self.grid = (height // config.patch_size, width // config.patch_size)
        self.recompute = config.use_checkpoint
        patches = self.grid[0] * self.grid[1]
        self.patch_embed: nn.Module
        match config.stem:
            case "patch":
                self.patch_embed = PatchEmbed(config.patch_size, dim)
            case "conv":
                self.patch_embed = ConvStem(config.patch_size, dim)
            case "blazepose":
                self.patch_embed = BlazePoseStem(dim)
        self.task_tokens = nn.Parameter(torch.zeros(1, config.task_tokens_num, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, dim))
        drop_paths = [
            config.drop_path_rate * i / max(config.depth - 1, 1) for i in range(config.depth)
        ]
        self.blocks = nn.ModuleList([Block(config, drop_path) for drop_path in drop_paths])
        self.last_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D h w"]]:
        """Task tokens and feature map of RGB images in 0..1 (no mean and deviation subtracted)."""
        task_tokens = self.task_tokens.expand(len(images), -1, -1)
        tokens = self._blocks(torch.cat([task_tokens, self._image_tokens(images)], dim=1))
        task_tokens, image_tokens = tokens.split([task_tokens.shape[1], math.prod(self.grid)], 1)
        return task_tokens, self._feature_map(image_tokens)

    def feature_map(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D h w"]:
        """The feature map without task tokens, as in ViTPose; for pre-training."""
        return self._feature_map(self._blocks(self._image_tokens(images)))

    def _image_tokens(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N D"]:
        patches = self.patch_embed(images)
        # ViTPose keeps the position of an absent class token and adds it to every patch.
        return patches.flatten(2).mT + self.pos_embed[:, 1:] + self.pos_embed[:, :1]

    def _blocks(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        for block in self.blocks:
            if self.recompute and self.training:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        return self.last_norm(tokens)

    def _feature_map(self, image_tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B D h w"]:
        return image_tokens.mT.unflatten(2, self.grid)
