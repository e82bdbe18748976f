"""Networks as training has them: with heads beside what is published, or in part."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import Config
from models.auxiliary import KeypointHead, TokenJointHead
from models.heads import UNSUPERVISED_HEADS, HeadOutputs
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
        self._wants_keypoints = train.keypoint_weight > 0
        beside = self._wants_keypoints and network.keypoint_head is None
        self.keypoint_head = KeypointHead(model.encoder_config.embed_dim) if beside else None
        self.token_joint_head = (
            TokenJointHead(model.decoder_config.dim_out) if train.token_joint_weight else None
        )
        self._glances = (
            FirstGlances(network.decoder, model.decoder_config.head_dim)
            if train.first_glance_weight
            else None
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> SupervisedOutputs:
        tokens, keypoints, feature_map = self.network.tokens(images)
        if self.keypoint_head is not None:
            keypoints = self.keypoint_head(feature_map)
        return SupervisedOutputs(
            self.network.regress(tokens),
            keypoints if self._wants_keypoints else None,
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


class LiftingNetwork(nn.Module):
    """A network whose lifter and heads learn what joints mean in 3D, without pictures."""

    def __init__(self, network: SMPLestX) -> None:
        """Raises ValueError where the network has no lifter."""
        super().__init__()
        if network.lifter is None:
            raise ValueError("a network without a lifter")
        self.network = network.requires_grad_(False)
        network.lifter.requires_grad_(True)
        network.lifter.to_query.requires_grad_(False)  # for the decoder, which is not asked
        for name, head in network.heads.items():
            head.requires_grad_(name not in UNSUPERVISED_HEADS)

    def forward(self, keypoints: Float[Tensor, "B 137 4"]) -> HeadOutputs:
        return self.network.lift(keypoints)
