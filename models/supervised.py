"""Networks as training has them: with heads beside them that what is published lacks."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import Config
from models.auxiliary import KeypointHead, TokenJointHead
from models.heads import HeadOutputs
from models.pointing import FirstGlances
from models.smplest_x import SMPLestX
from models.vit import ViT

NETWORK = "network."
"""Begins the names of all weights that are more than a help of training."""


class SupervisedOutputs(NamedTuple):
    heads: HeadOutputs
    keypoints: Float[Tensor, "B 137 4 h w"] | None
    token_joints: Float[Tensor, "B 53 3"] | None
    glances: Float[Tensor, "L B J N"] | None
    """See models/pointing.py."""


class SupervisedSMPLestX(nn.Module):
    """The network, and those auxiliary heads that the config gives a weight."""

    def __init__(self, network: SMPLestX, config: Config) -> None:
        super().__init__()
        self.network = network
        model, train = config.model, config.train
        self.keypoint_head = (
            KeypointHead(model.encoder_config.embed_dim) if train.keypoint_weight else None
        )
        self.token_joint_head = (
            TokenJointHead(model.decoder_config.dim_out) if train.token_joint_weight else None
        )
        self._glances = (
            FirstGlances(network.decoder, model.decoder_config.head_dim)
            if train.first_glance_weight
            else None
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> SupervisedOutputs:
        tokens, feature_map = self.network.tokens(images)
        return SupervisedOutputs(
            self.network.regress(tokens),
            self.keypoint_head(feature_map) if self.keypoint_head else None,
            self.token_joint_head(tokens) if self.token_joint_head else None,
            self._glances.scores() if self._glances and self.training else None,
        )


class KeypointNetwork(nn.Module):
    """An encoder that learns to find joints, without task tokens: pre-training as ViTPose's."""

    def __init__(self, encoder: ViT, channels: int) -> None:
        super().__init__()
        self.network = nn.ModuleDict({"encoder": encoder})
        encoder.task_tokens.requires_grad_(False)
        self.keypoint_head = KeypointHead(channels)

    @property
    def encoder(self) -> ViT:
        encoder = self.network["encoder"]
        assert isinstance(encoder, ViT)
        return encoder

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 137 4 h w"]:
        return self.keypoint_head(self.encoder.feature_map(images))
