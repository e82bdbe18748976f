"""The optimizer: groups of parameters, the learning rate, and averaged weights."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from configs.schema import TrainConfig
from models.smplest_x import UNSUPERVISED_HEADS, SMPLestX
from utils.errors import UserError

_BLOCK: Final = re.compile(r"encoder\.blocks\.(\d+)\.")
_BEFORE_BLOCKS: Final = ("encoder.patch_embed.", "encoder.pos_embed", "encoder.task_tokens")


def freeze(network: SMPLestX, config: TrainConfig) -> None:
    """Stop the gradients of parameters that no loss reads, and of the config's `frozen_blocks`.

    Raises:
        UserError: the encoder has fewer blocks.
    """
    depth = len(network.encoder.blocks)
    if config.frozen_blocks > depth:
        raise UserError(f"train.frozen_blocks = {config.frozen_blocks}; the encoder has {depth}")
    for name in UNSUPERVISED_HEADS:
        network.heads[name].requires_grad_(False)
    if config.frozen_blocks:
        network.encoder.patch_embed.requires_grad_(False)
        network.encoder.pos_embed.requires_grad_(False)
    for block in network.encoder.blocks[: config.frozen_blocks]:
        block.requires_grad_(False)


def make_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam over the trained parameters; `lr_scale` of a group multiplies the learning rate."""
    blocks = [_BLOCK.search(name) for name, _ in network.named_parameters()]
    depth = 2 + max((int(block[1]) for block in blocks if block), default=0)
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            layer = _layer(name, depth) if config.layer_decay < 1 else depth
            groups.setdefault((layer, parameter.ndim > 1), []).append(parameter)
    described: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr_scale": config.layer_decay ** (depth - layer),
            "weight_decay": config.weight_decay if is_matrix else 0.0,
        }
        for (layer, is_matrix), parameters in groups.items()
    ]
    kind = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
    return kind(described, lr=config.lr, fused=True)


def _layer(name: str, last: int) -> int:
    """0 before the encoder's blocks, 1 for the first block, `last` after all blocks."""
    block = _BLOCK.search(name)
    if block:
        return 1 + int(block[1])
    return 0 if any(part in name for part in _BEFORE_BLOCKS) else last


def learning_rate(
    iteration: int, iterations: int, config: TrainConfig, spent: float = 0.0
) -> float:
    """The rate of an iteration, counted from 0 over all epochs: a linear rise, then a half cosine.

    Args:
        spent: share of `train.time_limit_s` that has passed. The position on the cosine is this
            share or that of the iterations, whichever is larger.
    """
    if iteration < config.warmup_iters:
        return config.lr * (iteration + 1) / config.warmup_iters
    done = (iteration - config.warmup_iters) / max(1, iterations - config.warmup_iters)
    wave = (1 + math.cos(math.pi * min(1.0, max(done, spent)))) / 2
    return config.min_lr + (config.lr - config.min_lr) * wave


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group of parameters its share of the learning rate (`lr_scale`)."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


class AveragedWeights:
    """Exponential moving average of a network's trained parameters (Polyak averaging).

    It begins as the mean of all iterations so far, so that the random start soon loses its
    influence.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._learning = [p for p in network.parameters() if p.requires_grad]
        self._average = [p.detach().clone() for p in self._learning]
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Include the current weights in the average."""
        self.updates += 1
        decay = min(self._decay, self.updates / (self.updates + 9))
        torch._foreach_lerp_(self._average, [p.detach() for p in self._learning], 1 - decay)

    def restart(self, updates: int) -> None:
        """Take the current weights as the average of `updates` iterations."""
        self.updates = updates
        for average, parameter in zip(self._average, self._learning, strict=True):
            average.copy_(parameter.detach())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the network the averaged weights while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._learning, self._average, strict=True):
            present = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(present)
