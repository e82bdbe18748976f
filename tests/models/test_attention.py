"""Attention supervision: scores of the cells in which a token's joint may be."""

import torch
import torch.nn.functional as F

from configs.reader import load_config
from human_models.joints import JOINTS, POSE_JOINTS
from models.losses import (
    PLACED_JOINTS,
    PLACED_POSES,
    POSE_TOKENS,
    SupervisedSMPLestX,
    attention_loss,
)
from models.smplest_x import SMPLestX

CONFIG = load_config("configs/config_smplest_x_demo.py")
MODEL = CONFIG.model
ENCODER = MODEL.encoder_config
HEIGHT, WIDTH = (side // ENCODER.patch_size for side in ENCODER.img_size)


def targets_at(places):
    """Samples with joints at these shares of the crop."""
    _, height, width = MODEL.output_hm_shape
    image = torch.cat(
        [places * torch.tensor([width, height]), torch.zeros(*places.shape[:2], 1)], 2
    )
    return {"target_joint_img": image, "meta_joint_valid": torch.ones(*places.shape[:2], 1)}


def test_queries_are_the_tokens_of_the_joints():
    assert [JOINTS[k] for k in PLACED_JOINTS] == [POSE_JOINTS[k] for k in PLACED_POSES]
    assert POSE_TOKENS[POSE_JOINTS.index("jaw")] == 78


def test_scores_are_what_the_first_head_softmaxes():
    torch.manual_seed(0)
    network = SMPLestX(MODEL)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    supervised = SupervisedSMPLestX(network, CONFIG).train()
    seen = {}
    layer = network.decoder.layers[1]
    layer.cross_attention.register_forward_pre_hook(lambda _, inputs: seen.update(at=inputs))
    images = torch.rand(2, 3, *MODEL.input_body_shape)
    attention = supervised(images).attention
    assert attention.shape == (2, 2, len(PLACED_JOINTS), HEIGHT * WIDTH)
    tokens, context = seen["at"]
    module, size = layer.cross_attention, MODEL.decoder_config.head_dim
    query = module.to_q(tokens)[..., :size]
    key, value = (part[..., :size] for part in module.to_kv(context).chunk(2, dim=-1))
    expected = F.scaled_dot_product_attention(query, key, value)
    placed = [POSE_TOKENS[pose] for pose in PLACED_POSES]
    torch.testing.assert_close(attention[1].softmax(-1) @ value, expected[:, placed])
    assert supervised(images[:1]).attention.shape[1] == 1


def test_loss_is_nothing_where_attention_is_right_and_ignores_what_is_outside():
    places = torch.rand(2, len(JOINTS), 2, generator=torch.Generator().manual_seed(0))
    places[1, PLACED_JOINTS[0]] = 1.5
    column, row = (
        (places[:, PLACED_JOINTS, k] * n).long().clamp(max=n - 1)
        for k, n in enumerate((WIDTH, HEIGHT))
    )
    scores = 50.0 * F.one_hot(row * WIDTH + column, HEIGHT * WIDTH)
    scores = scores.expand(3, -1, -1, -1).clone()
    assert attention_loss(scores, targets_at(places), MODEL).max() < 1e-6
    scores[:, 1, 0] = scores[:, 1, 0].roll(7, dims=-1)
    assert attention_loss(scores, targets_at(places), MODEL).max() < 1e-6
    scores[0, 0, 1] = scores[0, 0, 1].roll(7, dims=-1)
    losses = attention_loss(scores, targets_at(places), MODEL)
    torch.testing.assert_close(losses, torch.tensor([50 / 3 / len(PLACED_JOINTS), 0.0]))


def test_gradients_reach_queries_keys_and_what_is_before_them():
    torch.manual_seed(0)
    supervised = SupervisedSMPLestX(SMPLestX(MODEL), CONFIG).train()
    for parameter in supervised.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    places = torch.rand(2, len(JOINTS), 2)
    attention = supervised(torch.rand(2, 3, *MODEL.input_body_shape)).attention
    attention_loss(attention, targets_at(places), MODEL).mean().backward()
    moved = {name for name, p in supervised.named_parameters() if p.grad is not None}
    assert "network.decoder.layers.1.cross_attention.to_q.weight" in moved
    assert "network.encoder.task_tokens" in moved
