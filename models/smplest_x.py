"""The network: a crop of a person in, the regressed parameters of the body out."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import ModelConfig
from models.decoder import HeadOutputs, Heads, TokenDecoder
from models.lifter import KeypointHead, Lifter, observed_keypoints
from models.vit import ViT


class NetworkTokens(NamedTuple):
    decoded: Float[Tensor, "B 80 O"]
    """Task tokens as the heads read them."""
    keypoints: Float[Tensor, "B 137 4 h w"] | None
    """What the lifter began from, of networks that have one."""
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
        """RGB crops in 0..1 of the config's input_body_shape, any precision."""
        return self.regress(self.tokens(images).decoded)

    def tokens(self, images: Float[Tensor, "B 3 H W"]) -> NetworkTokens:
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
        """What joints alone mean, without a picture; `keypoints` as `Lifter` takes them."""
        assert self.lifter is not None
        return self.regress(self.lifter(keypoints)[0])

    def regress(self, tokens: Float[Tensor, "B 80 O"]) -> HeadOutputs:
        """What decoded task tokens say, computed in float32 also under autocast."""
        with torch.autocast(tokens.device.type, enabled=False):
            return self.heads(tokens.float())

    @property
    def precision(self) -> torch.dtype:
        return self.encoder.task_tokens.dtype

    def to_precision(self, dtype: torch.dtype) -> "SMPLestX":
        """Encoder, decoder and keypoint head in `dtype`; lifter and heads stay float32.

        The camera's depth is the head output that bf16's 8 bits would spoil; the heads are under
        1 % of the work. The lifter needs places of joints more finely than bf16 has them.
        """
        self.encoder.to(dtype)
        self.decoder.to(dtype)
        self.heads.float()
        if self.keypoint_head is not None:
            self.keypoint_head.to(dtype)
        return self
