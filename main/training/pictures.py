"""What a network makes of training samples: crops with true and predicted joints."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from configs.schema import ModelConfig
from human_models.joints import JOINTS, edges
from utils.draw import PERSON_COLOURS, draw_skeleton

_TRUE, _PREDICTED = PERSON_COLOURS[2], PERSON_COLOURS[5]
_BONES: Final = edges(JOINTS)
_MOST: Final = 8


def joint_pictures(
    batch: Mapping[str, Tensor], predicted_px: Float[Tensor, "B 137 2"], config: ModelConfig
) -> UInt8[Tensor, "3 H W"]:
    """The first crops of a batch in a row: above the truth in green, below the prediction in red.

    `predicted_px` are in pixels of the network's input.
    """
    height, width = config.input_body_shape
    _, grid_height, grid_width = config.output_hm_shape
    pixels_per_cell = np.array([width / grid_width, height / grid_height])
    columns = []
    for k in range(min(_MOST, len(predicted_px))):
        image = batch["input_img"][k].cpu().numpy().astype(np.uint8)
        true = batch["target_joint_img"][k, :, :2].cpu().numpy() * pixels_per_cell
        known = batch["meta_joint_trunc"][k].cpu().numpy() > 0
        drawn = [
            draw_skeleton(image, joints, _BONES, colour)
            for joints, colour in (
                (np.where(known, true, np.nan), _TRUE),
                (predicted_px[k].float().cpu().numpy(), _PREDICTED),
            )
        ]
        columns.append(np.concatenate(drawn))
    return torch.from_numpy(np.concatenate(columns, axis=1)).permute(2, 0, 1)
