"""Networks as training has them, an encoder's way from pre-training on, and auxiliary losses."""

import pytest
import torch
import torch.nn.functional as F

from configs.reader import load_config
from human_models.joints import JOINT_PARTS, JOINTS, POSE_JOINTS
from models.checkpoint import read_torch
from models.initialise import load_encoder, save_encoder
from models.smplest_x import KeypointHead, SMPLestX, found_keypoints
from models.supervision import (
    NETWORK,
    PLACED_JOINTS,
    PLACED_POSES,
    POSE_TOKENS,
    KeypointNetwork,
    SupervisedSMPLestX,
    TokenJointHead,
    attention_loss,
    keypoint_loss,
    positions_in_crop,
    token_joint_loss,
)
from models.vit import ViT

CONFIG = load_config("configs/config_smplest_x_demo.py")
ENCODER = CONFIG.model.encoder_config


@pytest.fixture
def images():
    return torch.rand(
        2, 3, *CONFIG.model.input_body_shape, generator=torch.Generator().manual_seed(1)
    )


def with_random_weights(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def test_auxiliary_heads_change_nothing_of_the_network(images):
    network = with_random_weights(SMPLestX(CONFIG.model), 0)
    supervised = SupervisedSMPLestX(network, CONFIG).eval()
    with torch.inference_mode():
        heads, keypoints, token_joints, attention = supervised(images)
        for output, alone in zip(heads, network(images), strict=True):
            torch.testing.assert_close(output, alone)
    assert keypoints.shape[-2:] == network.encoder.grid
    assert token_joints.shape == (2, 53, 3)
    assert attention is None  # training alone needs them
    names = {name for name, _ in supervised.named_parameters()}
    published = {name.removeprefix(NETWORK) for name in names if name.startswith(NETWORK)}
    assert published == {name for name, _ in network.named_parameters()}


def test_without_weights_there_are_no_auxiliary_heads(images):
    weights = ("keypoint", "token_joint", "attention")
    overrides = [f"train.{name}_weight=0" for name in weights]
    config = load_config("configs/config_smplest_x_demo.py", overrides)
    supervised = SupervisedSMPLestX(SMPLestX(config.model), config)
    assert all(name.startswith(NETWORK) for name, _ in supervised.named_parameters())
    assert supervised(images)[1:] == (None, None, None)


def test_auxiliary_heads_compute_in_float32_under_autocast(images):
    supervised = with_random_weights(SupervisedSMPLestX(SMPLestX(CONFIG.model), CONFIG), 6).train()
    inputs = {}
    head, lifter = supervised.token_joint_head, supervised.network.lifter
    for name, part in (("head", head), ("lifter", lifter)):
        part.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given[0]}))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = supervised(images)
        lifted = lifter(inputs["lifter"])
    assert inputs["head"].dtype == inputs["lifter"].dtype == torch.float32
    assert outputs.token_joints.equal(head(inputs["head"]))
    assert all(map(torch.equal, lifted, lifter(inputs["lifter"])))
    # Scores are products of bf16 numbers, but not themselves rounded to bf16.
    assert outputs.attention.dtype == torch.float32
    assert not outputs.attention.equal(outputs.attention.bfloat16().float())


def test_encoder_goes_from_pre_training_to_training(tmp_path, images):
    trained = KeypointNetwork(ViT(ENCODER))
    with_random_weights(trained, 2)
    path = tmp_path / "encoder.pth"
    save_encoder(trained, path)
    names = read_torch(path)["state_dict"].keys()
    assert {name.split(".")[0] for name in names} == {"backbone", "keypoint_head"}
    encoder = with_random_weights(ViT(ENCODER), 3)
    before = encoder.task_tokens.clone()
    load_encoder(encoder, path)
    assert torch.equal(encoder.task_tokens, before)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.feature_map(images), trained.encoder.feature_map(images))


@pytest.mark.parametrize(
    ("stem", "patch_size"),
    [("patch", 8), ("patch", 16), ("conv", 8), ("conv", 16), ("blazepose", 32)],
)
def test_stems_make_a_token_a_patch(stem, patch_size, images):
    config = ENCODER.model_copy(update={"stem": stem, "patch_size": patch_size})
    encoder = ViT(config).eval()
    height, width = (side // patch_size for side in config.img_size)
    assert encoder.grid == (height, width)
    tokens, feature_map = encoder(images)
    assert tokens.shape == (2, 80, config.embed_dim)
    assert feature_map.shape == (2, config.embed_dim, height, width)
    with torch.inference_mode():  # of many images at once, too
        torch.testing.assert_close(encoder(images.repeat(3, 1, 1, 1))[1][4:], feature_map)


def test_feature_map_of_pre_training_is_without_task_tokens(images):
    encoder = with_random_weights(ViT(ENCODER), 4)
    with torch.inference_mode():
        alone = encoder.feature_map(images)
        encoder.task_tokens.fill_(5)
        torch.testing.assert_close(encoder.feature_map(images), alone)
        assert not torch.allclose(encoder(images)[1], alone)


def test_recomputing_activations_changes_no_gradient(images):
    def gradient(recompute):
        config = ENCODER.model_copy(update={"use_checkpoint": recompute, "drop_path_rate": 0.3})
        encoder = with_random_weights(ViT(config), 5).train()
        torch.manual_seed(0)
        encoder(images)[1].square().mean().backward()
        return encoder.task_tokens.grad

    torch.testing.assert_close(gradient(recompute=True), gradient(recompute=False))


MODEL = CONFIG.model
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


_, GRID_HEIGHT, GRID_WIDTH = MODEL.output_hm_shape


@pytest.fixture
def targets():
    """Two people, every joint somewhere in the crop."""
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(2, len(JOINTS), 3, generator=generator)
    return {
        "target_joint_img": places * torch.tensor([GRID_WIDTH, GRID_HEIGHT, 16]),
        "target_joint_cam": torch.randn(2, len(JOINTS), 3, generator=generator),
        "meta_joint_valid": torch.ones(2, len(JOINTS), 1),
        "meta_is_3D": torch.tensor([1.0, 0.0]),
    }


def perfect(targets):
    """Scores, offsets and depths that say exactly where the joints are."""
    cells = targets["target_joint_img"][..., :2] * torch.tensor(
        [WIDTH / GRID_WIDTH, HEIGHT / GRID_HEIGHT]
    )
    predicted = torch.zeros(2, len(JOINTS), 4, HEIGHT, WIDTH)
    for person in range(2):
        for joint in range(len(JOINTS)):
            x, y = cells[person, joint]
            column, row = int(x), int(y)
            predicted[person, joint, 0, row, column] = 50
            predicted[person, joint, 1, row, column] = x - column - 0.5
            predicted[person, joint, 2, row, column] = y - row - 0.5
            depth = targets["target_joint_cam"][person, joint, 2]
            predicted[person, joint, 3, row, column] = 2 * depth
    return predicted


def test_exact_keypoints_cost_nothing_and_are_found(targets):
    predicted = perfect(targets)
    assert keypoint_loss(predicted, targets, MODEL).abs().max() < 1e-5
    height, width = MODEL.input_body_shape
    places, known = positions_in_crop(targets, MODEL)
    assert known.all()
    expected = places * torch.tensor([width, height])
    torch.testing.assert_close(found_keypoints(predicted, MODEL), expected, atol=1e-4, rtol=0)


def test_parts_count_alike_however_many_joints_they_have(targets):
    predicted = perfect(targets)
    predicted[0, JOINT_PARTS["body"], 1] += 0.2  # x of every offset
    predicted[1, JOINT_PARTS["face"], 1] += 0.2
    losses = keypoint_loss(predicted, targets, MODEL)
    torch.testing.assert_close(losses, torch.full((2,), 0.1 / len(JOINT_PARTS)))


def test_depths_count_where_there_are_3d_joints(targets):
    predicted = perfect(targets)
    predicted[:, JOINT_PARTS["body"], 3] += 0.2
    losses = keypoint_loss(predicted, targets, MODEL)
    torch.testing.assert_close(losses, torch.tensor([0.2 / len(JOINT_PARTS), 0.0]))


def test_joints_outside_or_unknown_do_not_count(targets):
    predicted = perfect(targets)
    predicted[0, 5, 1] += 9
    predicted[1, 7, 1] += 9
    targets["target_joint_img"][0, 5, 0] = -0.5
    targets["meta_joint_valid"][1, 7] = 0
    assert keypoint_loss(predicted, targets, MODEL).abs().max() < 1e-5
    targets["meta_joint_valid"][:] = 0
    assert keypoint_loss(predicted, targets, MODEL).eq(0).all()


def test_tokens_say_where_their_joints_are(targets):
    head = TokenJointHead(4)
    with torch.no_grad():
        head.place.weight.zero_()
        head.place.weight[0, 0] = 1
        head.place.bias.zero_()
    tokens = torch.zeros(2, 80, 4)
    tokens[:, :, 0] = torch.arange(80.0)
    order = head(tokens)[0, :, 0].tolist()
    # Body root and pose, then both hands behind shape, camera and hand roots, then the jaw.
    assert order == [*range(22), *range(35, 65), 78]
    assert len(order) == len(POSE_JOINTS)


def test_token_joints_are_places_and_depths(targets):
    predicted = torch.zeros(2, len(POSE_JOINTS), 3)
    places, _ = positions_in_crop(targets, MODEL)
    for token, name in enumerate(POSE_JOINTS):
        if name in JOINTS:
            joint = JOINTS.index(name)
            predicted[:, token, :2] = places[:, joint] - 0.5
            predicted[0, token, 2] = targets["target_joint_cam"][0, joint, 2]
    assert token_joint_loss(predicted, targets, MODEL).abs().max() < 1e-6
    predicted[1, :, 2] += 5  # no 3D joints: nothing known of depths
    assert token_joint_loss(predicted, targets, MODEL).abs().max() < 1e-6
    predicted[0, :, 2] += 5
    assert token_joint_loss(predicted, targets, MODEL)[0] > 1


def test_head_has_a_cell_for_every_patch():
    head = KeypointHead(8)
    assert head(torch.zeros(2, 8, HEIGHT, WIDTH)).shape == (2, len(JOINTS), 4, HEIGHT, WIDTH)
