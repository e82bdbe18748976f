"""Weights to start training from: random ones, and those of encoders pre-trained on poses.

The heads of an untrained network predict an average person, because learning is much faster from an
average pose and a camera that frames it than from random ones (as in Kanazawa et al., CVPR 2018).

A pre-trained encoder comes from ViTPose or from `main.pretrain`. Its file is `torch.save` of
{'state_dict': ...}, whose encoder keys may begin with `backbone.`; other heads in it are ignored.
The convolutions of a `BlazePoseStem` are those of the bundled network.
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
from torch import Tensor, nn

from configs.schema import ModelConfig
from human_models.body import BodyModel
from human_models.joints import BODY_JOINTS
from models.checkpoint import read_network, read_torch, require_weights, save_torch
from models.smplest_x import BodyParameters, Heads, KeypointHead, SMPLestX, camera_depth, pose_body
from models.supervision import KeypointNetwork
from models.vit import BlazePoseStem, ViT
from utils.errors import UserError
from utils.files import PRETRAINED
from utils.geometry import axis_angle_to_matrix

_BUNDLED: Final = PRETRAINED / "smplest_x_demo" / "smplest_x_demo.safetensors"
_WEIGHT_STD: Final = 0.02  # as usual for ViTs since BERT
_HEAD_STD: Final = 1e-3
_FILLED_SHARE: Final = 0.8
"""Share of the height of the crop that the average person fills."""
_LOWERED_ARM_RAD: Final = 1.1
_LOWERED_ARMS: Final = {"left_shoulder": -_LOWERED_ARM_RAD, "right_shoulder": _LOWERED_ARM_RAD}


def initial_network(config: ModelConfig, body: BodyModel) -> SMPLestX:
    """A network with random weights whose heads output the average person (`average_person`)."""
    network = SMPLestX(config)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=_WEIGHT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if network.lifter is not None:
        # The lifter decides first: its queries, and what the decoder adds, begin as zero.
        nn.init.zeros_(network.lifter.to_query.weight)
        nn.init.zeros_(network.decoder.token_projection.weight)
    encoder = network.encoder
    for embedding in (encoder.task_tokens, encoder.pos_embed, network.decoder.pos_embedding):
        nn.init.trunc_normal_(embedding, std=_WEIGHT_STD)
    if isinstance(encoder.patch_embed, BlazePoseStem):
        _load_convolutions(encoder.patch_embed)
    with torch.no_grad():
        encoder.pos_embed[0, 1:] = _sincos_embedding(*encoder.grid, config.encoder_config.embed_dim)
    _set_heads(network.heads, average_person(body, config), config)
    return network


def _load_convolutions(stem: BlazePoseStem) -> None:
    """Give a stem the convolutions that are not trained, from the bundled network."""
    begin = "encoder.patch_embed."
    weights = read_network(_BUNDLED)
    for name, parameter in stem.named_parameters():
        if parameter.requires_grad:
            continue
        given = weights.get(begin + name)
        if given is None or given.shape != parameter.shape:
            raise UserError(f"{_BUNDLED}: lacks {begin}{name}; restore it from the repository")
        parameter.data.copy_(given)


def _sincos_embedding(height: int, width: int, dim: int) -> Float[Tensor, "N D"]:
    """A position embedding: sines and cosines of rows and columns (He et al., CVPR 2022).

    With it from the start, finding joints is learned much faster.
    """
    waves = 10_000 ** -(torch.arange(dim // 4) / (dim / 4))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phases = [place.reshape(-1, 1) * waves for place in (rows, columns)]
    parts = [wave(phase) for phase in phases for wave in (torch.sin, torch.cos)]
    return F.pad(torch.cat(parts, dim=1), (0, dim % 4))


@torch.no_grad()
def average_person(body: BodyModel, config: ModelConfig) -> BodyParameters:
    """A person of mean shape who stands upright with lowered arms, faces and fills the crop."""
    pose = torch.zeros(len(BODY_JOINTS) - 1, 3)
    for joint, angle in _LOWERED_ARMS.items():
        pose[BODY_JOINTS.index(joint) - 1, 2] = angle
    person = BodyParameters(
        # Half a turn about x: y points up for the body and down for the camera.
        global_orient=torch.tensor([[math.pi, 0, 0]]),
        body_pose=pose.reshape(1, -1),
        left_hand_pose=torch.zeros(1, 45),
        right_hand_pose=torch.zeros(1, 45),
        jaw_pose=torch.zeros(1, 3),
        betas=torch.zeros(1, 10),
        expression=torch.zeros(1, 10),
        transl=torch.zeros(1, 3),
    )
    joints = pose_body(person, body, config, want_vertices=False).joints[0]
    top, bottom = joints.amin(0), joints.amax(0)
    depth = config.focal[1] * (bottom - top)[1] / (_FILLED_SHARE * config.input_body_shape[0])
    middle = (top + bottom) / 2
    return person._replace(transl=torch.stack([-middle[0], -middle[1], depth])[None])


def _rotations_6d(axis_angles: Float[Tensor, "1 A"]) -> Float[Tensor, " R"]:
    return axis_angle_to_matrix(axis_angles.reshape(-1, 3))[..., :2].reshape(-1)


@torch.no_grad()
def _set_heads(heads: Heads, person: BodyParameters, config: ModelConfig) -> None:
    x, y, depth = person.transl[0]
    furthest = camera_depth(config)
    if depth >= furthest:
        smallest = float(config.camera_3d_size * depth / furthest)
        raise UserError(
            f"model.camera_3d_size = {config.camera_3d_size:g}: a person who fills a crop of "
            f"{config.input_body_shape} is farther away than the camera head can express; "
            f"set it above {smallest:.2f}"
        )
    camera = torch.stack([x, y, torch.logit(depth / furthest)])
    hands = torch.cat([person.left_hand_pose, person.right_hand_pose], dim=1)
    no_rotation = _rotations_6d(torch.zeros(1, 3))
    biases = {
        "body_root_pose": _rotations_6d(person.global_orient),
        "body_pose": _rotations_6d(person.body_pose),
        "body_shape": person.betas[0],
        "body_cam": camera,
        "hand_root_pose": no_rotation.repeat(2),
        "hand_pose": _rotations_6d(hands),
        "hand_cam": torch.zeros(6),
        "face_root_pose": no_rotation,
        "face_expression": person.expression[0],
        "face_jaw_pose": _rotations_6d(person.jaw_pose),
        "face_cam": torch.zeros(3),
    }
    for name, head in heads.items():
        assert isinstance(head, nn.Linear)
        nn.init.trunc_normal_(head.weight, std=_HEAD_STD)
        head.bias.copy_(biases[name])


log = logging.getLogger(__name__)

_PREFIX: Final = "backbone."
_HEAD: Final = "keypoint_head."
_BLOCK: Final = re.compile(r"blocks\.(\d+)\.")
# Not in these files, as it belongs to the body, not to the image.
_NOT_SAVED: Final = frozenset({"task_tokens"})


@torch.no_grad()
def load_encoder(
    encoder: ViT, path: Path, *, interpolate: bool = False, deepen: bool = False
) -> None:
    """Load the weights of an encoder, except its task tokens; logs what is left over.

    Args:
        interpolate: resize the position embedding of another input size.
        deepen: allow fewer blocks in the file; the following ones start as the identity (Net2Net,
            Chen et al., ICLR 2016).

    Raises:
        UserError: the file is missing or damaged, or a weight of the encoder is missing or has
            another shape.
    """
    given = {key.removeprefix(_PREFIX): value for key, value in _read_weights(path).items()}
    wanted = {key: value for key, value in encoder.state_dict().items() if key not in _NOT_SAVED}
    new = _blocks_after(given, wanted) if deepen else {}
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
    """Load the weights of the keypoint head from a file of `main.pretrain`.

    Files of ViTPose have other heads; the head then keeps its weights.

    Raises:
        UserError: the file is missing or damaged.
    """
    given, wanted = _read_weights(path), head.state_dict()
    state = {key: given[_HEAD + key] for key in wanted if _HEAD + key in given}
    if {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in wanted.items()}:
        head.load_state_dict(state)
    else:
        log.warning("the keypoint head starts from random weights, as %s has none for it", path)


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    """The weights in a file of `torch.save`, as `load_encoder` needs them."""
    content = read_torch(path)
    weights = content.get("state_dict", content)
    if not isinstance(weights, dict):
        raise UserError(f"{path}: there is no 'state_dict' in it; is it a file of ViTPose?")
    return require_weights(path, weights)


def _blocks_after(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the blocks after the last given one."""
    depth = max((1 + int(block[1]) for key in given if (block := _BLOCK.match(key))), default=0)
    return {
        key: value
        for key, value in wanted.items()
        if (block := _BLOCK.match(key)) and int(block[1]) >= depth > 0
    }


def _as_identity(blocks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Set blocks to the identity: what they add to their input is zero."""
    return {
        key: torch.zeros_like(value) if ".attn.proj." in key or ".mlp.fc2." in key else value
        for key, value in blocks.items()
    }


def save_encoder(network: KeypointNetwork, path: Path) -> None:
    """Write a pre-trained encoder and its head in the format of ViTPose."""
    encoder = {
        _PREFIX + k: v for k, v in network.encoder.state_dict().items() if k not in _NOT_SAVED
    }
    head = {_HEAD + k: v for k, v in network.keypoint_head.state_dict().items()}
    save_torch({"state_dict": {**encoder, **head}}, path)


def _resized(embedding: Float[Tensor, "1 N D"], height: int, width: int) -> Float[Tensor, "1 M D"]:
    """A position embedding resized to another grid, from one of 4 to 3 as in ViTPose."""
    whole, patches = embedding[:, :1], embedding[:, 1:]
    old_height = math.isqrt(patches.shape[1] * 4 // 3)
    if old_height * 3 // 4 * old_height != patches.shape[1]:
        old_height = math.isqrt(patches.shape[1])
    old = patches.mT.unflatten(2, (old_height, -1))
    new = F.interpolate(old.float(), (height, width), mode="bicubic", align_corners=False)
    return torch.cat([whole, new.flatten(2).mT.to(whole.dtype)], dim=1)
