"""What a network makes of training samples: crops with true and predicted joints."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from configs.schema import Config, ModelConfig
from human_models.body import BodyModel
from human_models.joints import JOINTS, edges
from main.training.objective import images_of
from models.posing import body_parameters, pose_body
from utils.render import PERSON_COLOURS, draw_skeleton

Preview = Callable[[nn.Module, Mapping[str, Tensor]], UInt8[Tensor, "3 H W"]]
"""A picture of what a network makes of a batch; every process of a run must call it."""

_TRUE, _PREDICTED = PERSON_COLOURS[2], PERSON_COLOURS[5]
_BONES: Final = edges(JOINTS)
_MOST: Final = 8


class JointPreview:
    """True and predicted joints of a batch's first crops: `joint_pictures`."""

    def __init__(self, body: BodyModel, config: Config) -> None:
        """`body` is on the device of the batches."""
        self._body, self._config = body, config.model

    @torch.no_grad()
    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> UInt8[Tensor, "3 H W"]:
        """`network` as in models.supervised."""
        few = {name: values[:_MOST] for name, values in batch.items()}
        network.eval()
        heads = network(images_of(few)).heads
        network.train()
        if isinstance(network, FSDPModule):
            network.reshard()  # else it keeps what it gathered until the next backward pass
        parameters = body_parameters(heads, self._config)
        posed = pose_body(parameters, self._body, self._config, want_vertices=False)
        return joint_pictures(few, posed.joints_2d, self._config)


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
