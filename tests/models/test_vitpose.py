"""Encoder weights from files of ViTPose: strictly, and with a report."""

import logging

import pytest
import torch

from configs.schema import EncoderConfig
from models.initialise import load_encoder
from models.vit import ViT
from utils.errors import UserError

CONFIG = EncoderConfig(embed_dim=16, depth=2, num_heads=2)


def make_encoder(**changes):
    torch.manual_seed(1)
    encoder = ViT(CONFIG.model_copy(update=changes))
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    return encoder


@pytest.fixture
def weights():
    """As ViTPose has them: no task tokens, a head that means nothing here."""
    state = {f"backbone.{k}": v for k, v in make_encoder().state_dict().items()}
    del state["backbone.task_tokens"]
    return state | {"keypoint_head.final_layer.weight": torch.ones(17, 4)}


@pytest.fixture
def save(tmp_path):
    def saved(state, *, wrapped=True):
        path = tmp_path / "vitpose.pth"
        torch.save({"state_dict": state} if wrapped else state, path)
        return path

    return saved


@pytest.mark.parametrize("prefix", ["backbone.", ""])
@pytest.mark.parametrize("wrapped", [True, False])
def test_all_weights_but_task_tokens_are_loaded(weights, save, caplog, prefix, wrapped):
    caplog.set_level(logging.INFO)
    given = {k.replace("backbone.", prefix): v for k, v in weights.items()}
    encoder = ViT(CONFIG)
    tokens = encoder.task_tokens.clone()
    load_encoder(encoder, save(given, wrapped=wrapped))
    for key, value in encoder.state_dict().items():
        if key != "task_tokens":
            assert value.equal(weights[f"backbone.{key}"]), key
    assert encoder.task_tokens.equal(tokens)
    count = len(weights) - 1
    assert f"{count} weights from" in caplog.text
    assert "1 others in it unused" in caplog.text


def check_refused(path, *messages, encoder=None):
    encoder = encoder or make_encoder()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(UserError) as raised:
        load_encoder(encoder, path)
    for message in (str(path), *messages):
        assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert all(value.equal(before[key]) for key, value in encoder.state_dict().items())


def test_nothing_matched_is_an_error(save):
    check_refused(save({"layer.weight": torch.ones(2)}), "none of its 1 weights")


def test_a_missing_weight_is_named(weights, save):
    del weights["backbone.blocks.1.mlp.fc1.bias"]
    check_refused(save(weights), "lacks 1", "blocks.1.mlp.fc1.bias")


def test_a_deeper_encoder_begins_as_the_shallow_one(weights, save):
    deep = ViT(CONFIG.model_copy(update={"depth": CONFIG.depth + 2}))
    for parameter in deep.parameters():
        torch.nn.init.normal_(parameter)
    path = save(weights)
    check_refused(path, f"blocks.{CONFIG.depth}.", encoder=deep)
    load_encoder(deep, path, deepen=True)
    shallow = make_encoder()
    load_encoder(shallow, path)
    images = torch.rand(2, 3, *CONFIG.img_size)
    torch.testing.assert_close(deep.feature_map(images), shallow.feature_map(images))


def test_a_hole_is_no_depth(weights, save):
    given = {k: v for k, v in weights.items() if ".blocks.0." not in k}
    with pytest.raises(UserError, match=r"lacks .* blocks\.0\."):
        load_encoder(make_encoder(), save(given), deepen=True)


def test_other_sizes_are_told_what_to_do(weights, save):
    path = save(weights)
    smaller = make_encoder(img_size=(128, 96))
    check_refused(path, "pos_embed", "interpolate_pos_embed", encoder=smaller)
    check_refused(path, "use the config", encoder=ViT(CONFIG.model_copy(update={"embed_dim": 8})))


def test_files_of_something_else(save, tmp_path):
    check_refused(tmp_path / "none.pth", "no such")
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"PK no weights")
    check_refused(damaged)
    check_refused(save(3), "state_dict")


@pytest.mark.parametrize(
    ("old", "new"),
    [((256, 192), (128, 96)), ((256, 192), (384, 288)), ((224, 224), (256, 192))],
)
def test_resized_positions_keep_constant_and_linear_fields(save, old, new):
    """A bicubic resampling reproduces them, linear ones away from the border."""
    source, target = make_encoder(img_size=old), make_encoder(img_size=new)
    height, width = source.grid

    def middles(count):
        """Of cells, as shares of the side."""
        return (torch.arange(count) + 0.5) / count

    with torch.no_grad():
        field = source.pos_embed[0, 1:].unflatten(0, (height, width))
        field[..., 0] = 3
        field[..., 1] = middles(width)
        field[..., 2] = middles(height)[:, None]
    load_encoder(target, save(source.state_dict()), interpolate=True)
    assert target.pos_embed[:, 0].equal(source.pos_embed[:, 0])
    height, width = target.grid
    field = target.pos_embed[0, 1:].unflatten(0, (height, width)).detach()
    torch.testing.assert_close(field[..., 0], torch.full((height, width), 3.0))
    inner = slice(4, -4) if height > 8 else slice(2, -2)
    middle = (inner, slice(3, -3) if width > 6 else slice(2, -2))
    rows, columns = middles(height)[:, None].expand(-1, width), middles(width).expand(height, -1)
    torch.testing.assert_close(field[..., 1][middle], columns[middle], rtol=0, atol=1e-2)
    torch.testing.assert_close(field[..., 2][middle], rows[middle], rtol=0, atol=1e-2)
