"""From 2D joints to task tokens: what joints mean in 3D, which poses alone teach, without pictures.

A network that has a lifter finds the joints on the encoder's feature map (`auxiliary.KeypointHead`)
and begins from what their places mean; the decoder then corrects that with what it sees.
"""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from configs.schema import LifterConfig
from human_models.joints import JOINTS
from models.auxiliary import DEPTH_UNIT_M, at_cells, middles
from models.heads import HEADS

TASK_TOKENS: Final = sum(head.tokens for head in HEADS)
_UNSURE: Final = 0.1
"""Expected error at which a joint counts e times less than a certain one."""
_PLACE_UNIT: Final = 0.25
"""Of x and y as the network takes them."""


def observed_keypoints(predicted: Float[Tensor, "B 137 4 h w"]) -> Float[Tensor, "B 137 4"]:
    """What the keypoint head says of each joint, as a `Lifter` takes it."""
    height, width = predicted.shape[-2:]
    scores = predicted[:, :, 0].flatten(2)
    best = scores.argmax(2)
    found = at_cells(predicted[:, :, 1:], best)
    x, y = (middles(best, width) + found[..., :2]).unbind(2)
    cells = torch.arange(height * width, device=scores.device)
    every_x, every_y = (middles(cells, width) + predicted[:, :, 1:3].flatten(3).mT).unbind(3)
    # A cell is as wide as it is high; at zero a root has no gradient.
    squared = (every_x - x[..., None]).square() + (every_y - y[..., None]).square()
    distance = squared.clamp(min=1e-12).sqrt() / height
    error = (scores.softmax(2) * distance).sum(2)
    return torch.stack([x / width - 0.5, y / height - 0.5, DEPTH_UNIT_M * found[..., 2], error], 2)


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

    A keypoint is four numbers: x and y as shares of the crop's width and height from its middle,
    the depth in metres from the pelvis, and the error to expect as a share of the crop's height,
    which is infinite for a joint of which nothing is known.
    """

    def __init__(self, config: LifterConfig, query_dim: int, token_dim: int) -> None:
        """Widths of the decoder's queries and of decoded tokens."""
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
        """What the keypoints mean: as decoded tokens, and as queries for the decoder to begin."""
        place, depth, error = keypoints.split([2, 1, 1], dim=2)
        confidence = torch.exp(-error / _UNSURE)
        values = torch.cat([place / _PLACE_UNIT, depth / DEPTH_UNIT_M], dim=2)
        values = torch.where(confidence > 0, values, 0.0)
        x = self.embed(torch.cat([values, confidence], dim=2).flatten(1))
        for block in self.blocks:
            x = block(x)
        tokens = self.tokens(self.norm(x)).unflatten(1, (TASK_TOKENS, -1))
        return self.to_decoded(tokens), self.to_query(tokens)
