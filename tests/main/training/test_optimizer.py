"""Groups of parameters, the learning rate, and averaged weights, against their formulas."""

import math

import pytest
import torch

from configs.reader import load_config
from main.training.optimizer import (
    AveragedWeights,
    freeze,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)
from models.smplest_x import UNSUPERVISED_HEADS, SMPLestX
from models.supervision import SupervisedSMPLestX
from tests.main.training.conftest import CONFIG
from utils.errors import UserError


def config_with(*changes):
    return load_config(CONFIG, [f"train.{change}" for change in changes])


def network_of(config):
    torch.manual_seed(0)
    network = SMPLestX(config.model)
    freeze(network, config.train)
    return SupervisedSMPLestX(network, config)


def scales(network, optimizer):
    """Of each parameter that learns, by name: (share of the learning rate, weight decay)."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        names[id(parameter)].removeprefix("network."): (group["lr_scale"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_plain_adam_moves_all_that_is_supervised():
    config = config_with()
    network = network_of(config)
    optimizer = make_optimizer(network, config.train)
    assert type(optimizer) is torch.optim.Adam
    found = scales(network, optimizer)
    assert set(found.values()) == {(1.0, 0.0)}
    frozen = {name for name, _ in network.network.named_parameters()} - found.keys()
    without_effect = {"to_token_embedding"}  # published weights have it, nothing reads it
    assert {name.split(".")[1] for name in frozen} == {*UNSUPERVISED_HEADS, *without_effect}


def test_layers_learn_slower_towards_the_image():
    config = config_with("layer_decay=0.5", "weight_decay=0.1")
    network = network_of(config)
    optimizer = make_optimizer(network, config.train)
    assert type(optimizer) is torch.optim.AdamW
    found = scales(network, optimizer)
    expected = {
        "decoder.": 1.0,
        "heads.": 1.0,
        "encoder.last_norm.": 1.0,
        "encoder.blocks.1.": 0.5,
        "encoder.blocks.0.": 0.25,
        "encoder.patch_embed.": 0.125,
        "encoder.pos_embed": 0.125,
        "encoder.task_tokens": 0.125,
    }
    for name, (scale, decay) in found.items():
        (wanted,) = [value for prefix, value in expected.items() if name.startswith(prefix)]
        assert scale == wanted, name
        is_matrix = network.network.get_parameter(name).ndim > 1
        assert decay == (0.1 if is_matrix else 0.0), name
    set_learning_rate(optimizer, 2.0)
    assert {group["lr"] for group in optimizer.param_groups} == {2.0, 1.0, 0.5, 0.25}


def test_frozen_blocks_keep_their_weights():
    network = network_of(config_with("frozen_blocks=1")).network
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    assert not any(name.startswith("encoder.blocks.0.") for name in learning)
    assert not {"encoder.pos_embed", "encoder.patch_embed.proj.weight"} & learning
    assert {"encoder.blocks.1.norm1.weight", "encoder.task_tokens"} <= learning
    with pytest.raises(UserError, match="frozen_blocks = 3; the encoder has 2"):
        network_of(config_with("frozen_blocks=3"))


def test_learning_rate_rises_then_falls_along_a_cosine():
    config = config_with("lr=1.0", "min_lr=0.1", "warmup_iters=4").train
    rates = [learning_rate(k, 24, config) for k in range(25)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[14] == pytest.approx(0.55)  # half way
    assert rates[24] == pytest.approx(0.1)
    for k in range(5, 24):
        assert rates[k] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * (k - 4) / 20)))
    plain = config_with("lr=1.0", "min_lr=0.1").train
    assert learning_rate(0, 24, plain) == 1.0


def test_average_is_that_of_the_formula():
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    average = AveragedWeights(layer, 0.8)
    expected = layer.weight.detach().clone()
    for update in range(1, 60):
        with torch.no_grad():
            layer.weight += 0.1 * update
        average.update()
        decay = min(0.8, update / (update + 9))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    present, bias = layer.weight.detach().clone(), layer.bias.clone()
    with average.in_place():
        torch.testing.assert_close(layer.weight.detach(), expected)
        assert layer.bias.equal(bias)
    assert layer.weight.equal(present)


def test_snapshot_holds_the_average_beside_what_goes_on(everything, plain):
    state = everything.snapshot("snapshot_1")
    published = state["network"]["module.encoder.blocks.0.attn.qkv.weight"]
    trained = state["training_network"]["network.encoder.blocks.0.attn.qkv.weight"]
    assert not published.equal(trained)
    assert state["average_updates"] == 4
    assert "training_network" not in plain.snapshot("snapshot_1")
