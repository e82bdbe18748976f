import base64
import json

import numpy as np
import pygltflib
import pytest
import torch

from human_models.body import forward_kinematics, linear_blend_skinning, skinning_transforms
from human_models.joints import RIG_JOINTS, RIG_PARENTS
from main.characters.character import read_character, without_gaps
from main.characters.formats import write_glb
from main.characters.surfaces import make_layers, make_morphs, make_skeleton, strongest

FRAMES = (0, 9, 21, 30, 47)  # 21 lies in the gap: the player interpolates


@pytest.fixture(scope="module", params=["clothed", "bare"])
def glb(request, result, data, body, tmp_path_factory):
    character = read_character(result / "person_001.npz", body)
    file = tmp_path_factory.mktemp(request.param) / "person_001.glb"
    write_glb(file, character, data, 1, clothes=request.param == "clothed")
    morphs = make_morphs(character.expression)
    clothes = request.param == "clothed"
    return file, character, make_layers(data, character.betas, 1, morphs, clothes=clothes)


def four_weights(weights):
    joints, kept = strongest(weights)
    return dense(joints, kept)


def dense(joints, kept):
    weights = np.zeros((len(joints), len(RIG_JOINTS)))
    np.add.at(weights, (np.arange(len(joints))[:, None], joints), kept)
    return weights


def posed(data, body, character, frame, points, weights):
    """Points of the rest pose by the body model's own arithmetic, without pose correctives."""
    rest = torch.from_numpy(make_skeleton(data, character.betas).positions_m)[None]
    rotations = torch.from_numpy(character.rotations[[frame]])
    world = forward_kinematics(rotations, rest, body.parents_but_root, body.steps)
    moved = linear_blend_skinning(
        torch.from_numpy(points.T)[None],
        skinning_transforms(world, rest),
        torch.from_numpy(weights.T),
    )
    return moved[0].numpy().T + character.pelvis_m[frame] - rest[0, 0].numpy()


def test_khronos_validator_finds_nothing(glb, run_web):
    report = json.loads(run_web("validate_glb.mjs", glb[0]))
    # The body's texture coordinates wait for a texture of the user's.
    found = [(issue["code"], issue["pointer"]) for issue in report["issues"]["messages"]]
    unused = "/meshes/0/primitives/0/attributes/TEXCOORD_0"
    assert found == [("UNUSED_OBJECT", unused)]
    assert report["info"]["maxInfluences"] == 4
    assert report["info"]["hasMorphTargets"]


@pytest.mark.parametrize("glb", ["clothed"], indirect=True)
def test_three_js_draws_the_vertices_of_the_body_model(glb, data, body, run_web, tmp_path):
    file, character, (layers, shaped) = glb
    times = ",".join(str(frame / character.fps) for frame in FRAMES)
    run_web("play_glb.mjs", file, tmp_path / "played.json", times)
    played = json.loads((tmp_path / "played.json").read_text())
    assert played["bones"] == list(RIG_JOINTS)
    assert [mesh["name"] for mesh in played["meshes"]] == [layer.surface.name for layer in layers]
    steady = without_gaps(character)
    for frame, found in zip(FRAMES, played["frames"], strict=True):
        face = shaped.positions_m + shaped.expressions_m @ steady.expression[frame]
        for layer, encoded in zip(layers, found["vertices"], strict=True):
            surface = layer.surface
            if surface.name == "body":
                points, weights = face[layer.points], four_weights(shaped.weights[layer.points])
            else:  # garments stand off the points that they are made of
                points, weights = surface.positions_m, dense(surface.joints, surface.weights)
            drawn = np.frombuffer(base64.b64decode(encoded), "<f4").reshape(-1, 3)
            expected = posed(data, body, steady, frame, points, weights)
            assert np.linalg.norm(drawn - expected, axis=1).max() < 0.001


def test_what_a_skeleton_cannot_show_is_small(glb, data, body):
    """Four joints a vertex, no pose correctives, joints that do not follow the expression."""
    _, character, (_, shaped) = glb
    frame = 30
    points = shaped.positions_m + shaped.expressions_m @ character.expression[frame]
    four = posed(data, body, character, frame, points, four_weights(shaped.weights))
    all_joints = posed(data, body, character, frame, points, shaped.weights)
    apart = np.linalg.norm(four - all_joints, axis=1)
    assert apart.mean() < 0.0001
    assert np.percentile(apart, 99) < 0.002
    parameters = {name: value[[frame]] for name, value in character.body_parameters(body).items()}
    with torch.inference_mode():
        whole = body(**parameters).vertices[0].numpy()
    apart = np.linalg.norm(all_joints[: len(whole)] - whole, axis=1)
    assert 0 < apart.mean() < 0.001
    assert apart.max() < 0.02


def test_skeleton_weights_and_morphs_as_another_reader_sees_them(glb):
    file, _, (layers, _) = glb
    gltf = pygltflib.GLTF2.load_binary(str(file))
    joints = [gltf.nodes[number] for number in gltf.skins[0].joints]
    assert [joint.name for joint in joints] == list(RIG_JOINTS)
    for number, parent in enumerate(RIG_PARENTS[1:], start=1):
        assert number in joints[parent].children
    names = [f"expression{k}" for k in range(1, 11)]
    assert gltf.meshes[0].extras["targetNames"] == [*names, *(f"{k}_negative" for k in names)]
    about = gltf.asset.extras
    assert about["fps"] == 24
    assert "mean hand" in about["hands"]
    assert "pose-corrective" in about["not_included"]
    for layer in layers:
        assert layer.surface.weights.sum(axis=1) == pytest.approx(1)
        lengths = np.linalg.norm(layer.surface.normals, axis=1)
        assert lengths == pytest.approx(1)
    uv = layers[0].surface.texture_coordinates
    assert uv.min() >= 0
    assert uv.max() <= 1


def test_clothes_take_the_place_of_the_skin_under_them(result, data, body):
    character = read_character(result / "person_001.npz", body)
    morphs = make_morphs(character.expression)
    layers, _ = make_layers(data, character.betas, 1, morphs, clothes=True)
    names = [layer.surface.name for layer in layers]
    assert names == ["body", "shirt", "trousers", "shoes", "hair"]
    bare, _ = make_layers(data, character.betas, 1, morphs, clothes=False)
    assert len(layers[0].surface.faces) < 0.9 * len(bare[0].surface.faces)
    # Feet that stand on the floor of the world must not sink into it because of their shoes.
    floor_m = bare[0].surface.positions_m[:, 1].min()
    assert layers[3].surface.positions_m[:, 1].min() == pytest.approx(floor_m, abs=1e-9)
    other, _ = make_layers(data, character.betas, 2, morphs, clothes=True)
    assert other[1].surface.material != layers[1].surface.material


def test_morphs_keep_within_what_blender_and_unity_allow():
    expression = np.random.default_rng(0).normal(size=(20, 10)) * 2
    morphs = make_morphs(expression)
    assert morphs.weights.min() == 0
    assert morphs.weights.max() == 1
    positive, negative = np.split(morphs.weights, 2, axis=1)
    assert (positive - negative) * morphs.scale == pytest.approx(expression)
    assert make_morphs(expression * 0.01).scale == 1
