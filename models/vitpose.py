"""Encoder weights from pre-training on poses: files of ViTPose and of `main.pretrain`.

Such a file is `torch.save` of {'state_dict': ...}, whose encoder keys may begin with `backbone.`
and which may carry heads that mean nothing here.
"""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.checkpoint import read_torch, require_weights, save_torch
from models.lifter import KeypointHead
from models.supervision import KeypointNetwork
from models.vit import ViT
from utils.errors import UserError

log = logging.getLogger(__name__)

_PREFIX: Final = "backbone."
_HEAD: Final = "keypoint_head."
_BLOCK: Final = re.compile(r"blocks\.(\d+)\.")
# What no such file has: it belongs to the body, not to the image.
_OWN: Final = frozenset({"task_tokens"})


@torch.no_grad()
def load_encoder(
    encoder: ViT, path: Path, *, interpolate: bool = False, deepen: bool = False
) -> None:
    """Give an encoder the weights of a file, all but its task tokens; logs what was left over.

    Args:
        interpolate: resize the position embedding where it is of another input size.
        deepen: the file may end before the encoder does: blocks behind its last one begin as the
            identity (Net2Net, Chen et al., ICLR 2016).

    Raises:
        UserError: the file is missing or damaged, or an encoder's weight is missing in it or of
            another shape.
    """
    content = read_torch(path)
    given = content.get("state_dict", content)
    if not isinstance(given, dict):
        raise UserError(f"{path}: there is no 'state_dict' in it; is it a file of ViTPose?")
    given = {key.removeprefix(_PREFIX): v for key, v in require_weights(path, given).items()}
    wanted = {key: value for key, value in encoder.state_dict().items() if key not in _OWN}
    new = _blocks_behind(given, wanted) if deepen else {}
    wanted = {key: value for key, value in wanted.items() if key not in new}
    if not wanted.keys() & given.keys():
        raise UserError(f"{path}: none of its {len(given)} weights is an encoder's; wrong file?")
    absent = sorted(wanted.keys() - given.keys())
    if absent:
        raise UserError(f"{path}: lacks {len(absent)} of the encoder's weights, e.g. {absent[0]}")

    state = {key: given[key] for key in wanted}
    height, width = encoder.grid
    if interpolate and state["pos_embed"].shape != wanted["pos_embed"].shape:
        state["pos_embed"] = _resized(state["pos_embed"], height, width)
    for key, value in state.items():
        if value.shape != wanted[key].shape:
            other_size = key == "pos_embed" and value.shape[-1] == wanted[key].shape[-1]
            advice = (
                "train.interpolate_pos_embed = True resizes it"
                if other_size
                else "use the config that belongs to these weights"
            )
            raise UserError(
                f"{path}: {key} has shape {tuple(value.shape)}, "
                f"expected {tuple(wanted[key].shape)}; {advice}"
            )
    encoder.load_state_dict({**encoder.state_dict(), **state, **_as_identity(new)})
    unused = len(given.keys() - wanted.keys())
    log.info("encoder: %d weights from %s, %d others in it unused", len(state), path, unused)


@torch.no_grad()
def load_keypoint_head(head: KeypointHead, path: Path) -> None:
    """Give a head the weights with which the encoder of a file of `main.pretrain` learned.

    Files of ViTPose have other heads, and the head keeps its weights.

    Raises:
        UserError: the file is missing or damaged.
    """
    content = read_torch(path)
    given = content.get("state_dict", content)
    wanted = head.state_dict()
    state = {key: given.get(_HEAD + key) for key in wanted}
    fits = all(
        isinstance(value, Tensor) and value.shape == wanted[key].shape
        for key, value in state.items()
    )
    if fits:
        head.load_state_dict(state)
    else:
        log.warning("keypoint head: begins with random weights, %s has none for it", path)


def _blocks_behind(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the blocks behind the last one that is given."""
    depth = max((1 + int(block[1]) for key in given if (block := _BLOCK.match(key))), default=0)
    return {
        key: value
        for key, value in wanted.items()
        if (block := _BLOCK.match(key)) and int(block[1]) >= depth > 0
    }


def _as_identity(blocks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What blocks add to their input begins as zero."""
    return {
        key: torch.zeros_like(value) if ".attn.proj." in key or ".mlp.fc2." in key else value
        for key, value in blocks.items()
    }


def save_encoder(network: KeypointNetwork, path: Path) -> None:
    """Write a pre-trained encoder, and the head it learned with, as ViTPose writes its own."""
    encoder = {_PREFIX + k: v for k, v in network.encoder.state_dict().items() if k not in _OWN}
    head = {_HEAD + k: v for k, v in network.keypoint_head.state_dict().items()}
    save_torch({"state_dict": {**encoder, **head}}, path)


def _resized(embedding: Float[Tensor, "1 N D"], height: int, width: int) -> Float[Tensor, "1 M D"]:
    """A position embedding for another grid; its shape was 4 to 3, as ViTPose's inputs are."""
    whole, patches = embedding[:, :1], embedding[:, 1:]
    old_height = math.isqrt(patches.shape[1] * 4 // 3)
    if old_height * 3 // 4 * old_height != patches.shape[1]:
        old_height = math.isqrt(patches.shape[1])
    old = patches.mT.unflatten(2, (old_height, -1))
    new = F.interpolate(old.float(), (height, width), mode="bicubic", align_corners=False)
    return torch.cat([whole, new.flatten(2).mT.to(whole.dtype)], dim=1)
