"""Attention that is told where to look: a pose token's first glance goes to its joint.

Cross-attention from random weights takes long to find its places (Meng et al., Conditional DETR,
ICCV 2021), and what a token has not seen it cannot tell. So in training the first attention head
of each decoder layer is supervised directly: the scores that its softmax gets are scores of the
cells in which the joint may be.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import ModelConfig
from models.auxiliary import PLACED_JOINTS, PLACED_POSES, POSE_TOKENS, cell_of, places_in_crop
from models.decoder import TokenDecoder

_QUERIES: Final = [POSE_TOKENS[pose] for pose in PLACED_POSES]
"""Tokens whose joints have a place."""


class FirstGlances:
    """What the first head of each layer's cross-attention scored in the last forward pass."""

    def __init__(self, decoder: TokenDecoder, head_dim: int) -> None:
        self._head_dim, self._layers = head_dim, len(decoder.layers)
        self._projected: dict[tuple[int, str], Tensor] = {}
        for k, layer in enumerate(decoder.layers):
            attention = layer.get_submodule("cross_attention")
            for name in ("to_q", "to_kv"):
                keep = partial(self._keep, (k, name))
                attention.get_submodule(name).register_forward_hook(keep)

    def _keep(self, key: tuple[int, str], module: nn.Module, _: object, projected: Tensor) -> None:
        if module.training:
            self._projected[key] = projected[..., : self._head_dim].float()

    def scores(self) -> Float[Tensor, "L B J N"]:
        """Of L layers, J = len(PLACED_JOINTS) tokens and N image tokens."""
        of_layers = [
            self._projected[k, "to_q"][:, _QUERIES] @ self._projected[k, "to_kv"].mT
            for k in range(self._layers)
        ]
        return torch.stack(of_layers) * self._head_dim**-0.5


def first_glance_loss(
    scores: Float[Tensor, "L B J N"], targets: Mapping[str, Tensor], config: ModelConfig
) -> Float[Tensor, " B"]:
    """Cross-entropy of the cell with the joint, mean over joints in the crop and layers."""
    encoder = config.encoder_config
    grid = [side // encoder.patch_size for side in encoder.img_size]
    places, known = places_in_crop(targets, config)
    right = cell_of(places[:, PLACED_JOINTS], *grid).expand(len(scores), -1, -1)
    miss = F.cross_entropy(scores.flatten(0, 2), right.flatten(), reduction="none")
    seen = known[:, PLACED_JOINTS]
    of_sample = miss.unflatten(0, right.shape).mean(0) * seen
    return of_sample.sum(1) / seen.sum(1).clamp(min=1)
