"""Keypoints: found on the feature map, and lifted to the task tokens of a body in 3D.

A network with a lifter finds the joints on the encoder's feature map, begins from what their places
mean in 3D, which poses alone teach without pictures, and corrects that with what the decoder sees.
The keypoint head alone is also what pre-training and auxiliary supervision use.
"""

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from configs.schema import LifterConfig, ModelConfig
from human_models.joints import JOINTS
from models.decoder import TASK_TOKENS
from utils.devices import constants

DEPTH_UNIT_M: Final = 0.5
_UNSURE: Final = 0.1
"""Expected error at which a joint counts e times less than a certain one."""
_PLACE_UNIT: Final = 0.25
"""Unit of x and y as the lifter takes them."""


class KeypointHead(nn.Module):
    """Scores of the feature map's cells for every joint, the place within the cell, the depth."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.final_layer = nn.Conv2d(channels, 4 * len(JOINTS), kernel_size=1)

    def forward(self, feature_map: Float[Tensor, "B D h w"]) -> Float[Tensor, "B 137 4 h w"]:
        """Score; x and y from the cell's middle in cells; depth from the pelvis in half metres."""
        return self.final_layer(feature_map).float().unflatten(1, (len(JOINTS), 4))


def found_keypoints(
    predicted: Float[Tensor, "B 137 4 h w"], config: ModelConfig
) -> Float[Tensor, "B 137 2"]:
    """Where the best cell of each joint says it is, in pixels of the network's input."""
    height, width = predicted.shape[-2:]
    best = predicted[:, :, 0].flatten(2).argmax(2)
    offset = at_cells(predicted[:, :, 1:3], best)
    cells = middles(best, width) + offset
    input_height, input_width = config.input_body_shape
    return cells * constants((input_width / width, input_height / height), cells)


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


def cell_of(places: Float[Tensor, "B J 2"], height: int, width: int) -> Int[Tensor, "B J"]:
    """The cell of a grid over the crop, row by row; places outside have the nearest."""
    column, row = (
        (places[..., k] * size).floor().clamp(0, size - 1).long()
        for k, size in enumerate((width, height))
    )
    return row * width + column


def middles(cells: Int[Tensor, "*B"], width: int) -> Float[Tensor, "*B 2"]:
    """x, y of cells' middles, in cells."""
    return torch.stack([cells % width, cells // width], dim=-1) + 0.5


def at_cells(
    values: Float[Tensor, "B 137 C h w"], cells: Int[Tensor, "B 137"]
) -> Float[Tensor, "B 137 C"]:
    """Values of one cell per joint."""
    chosen = cells[:, :, None, None].expand(-1, -1, values.shape[2], 1)
    return values.flatten(3).gather(3, chosen)[..., 0]


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
        """What the keypoints mean: as decoded tokens, and as queries for the decoder to begin.

        Computed in float32 also under autocast, as in inference.
        """
        with torch.autocast(keypoints.device.type, enabled=False):
            place, depth, error = keypoints.float().split([2, 1, 1], dim=2)
            confidence = torch.exp(-error / _UNSURE)
            values = torch.cat([place / _PLACE_UNIT, depth / DEPTH_UNIT_M], dim=2)
            values = torch.where(confidence > 0, values, 0.0)
            x = self.embed(torch.cat([values, confidence], dim=2).flatten(1))
            for block in self.blocks:
                x = block(x)
            tokens = self.tokens(self.norm(x)).unflatten(1, (TASK_TOKENS, -1))
            return self.to_decoded(tokens), self.to_query(tokens)
