"""The network: a crop of a person in, the regressed parameters of the body out."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import ModelConfig
from models.decoder import TokenDecoder
from models.heads import HeadOutputs, Heads
from models.vit import ViT


class SMPLestX(nn.Module):
    """ViT with task tokens -> token decoder -> heads."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = ViT(config.encoder_config)
        self.decoder = TokenDecoder(config.decoder_config)
        self.heads = Heads(config.decoder_config.dim_out)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> HeadOutputs:
        """RGB crops in 0..1 of the config's input_body_shape, any precision."""
        return self.regress(self.tokens(images)[0])

    def tokens(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B 80 O"], Float[Tensor, "B D h w"]]:
        """Decoded task tokens, and the encoder's feature map."""
        task_tokens, feature_map = self.encoder(images.to(self.precision))
        return self.decoder(task_tokens, feature_map.flatten(2).mT), feature_map

    def regress(self, tokens: Float[Tensor, "B 80 O"]) -> HeadOutputs:
        """What decoded task tokens say, computed in float32 also under autocast."""
        with torch.autocast(tokens.device.type, enabled=False):
            return self.heads(tokens.float())

    @property
    def precision(self) -> torch.dtype:
        return self.encoder.task_tokens.dtype

    def to_precision(self, dtype: torch.dtype) -> "SMPLestX":
        """Encoder and decoder in `dtype`; the heads stay float32.

        The camera's depth is the head output that bf16's 8 bits would spoil; the heads are under
        1 % of the work.
        """
        self.encoder.to(dtype)
        self.decoder.to(dtype)
        self.heads.float()
        return self
