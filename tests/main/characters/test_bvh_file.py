import numpy as np
import pybvh
import pytest
import torch

from human_models.joints import RIG_JOINTS
from main.characters.character import read_character, without_gaps
from main.characters.formats import write_bvh


@pytest.mark.parametrize("up", ["y", "z"])
def test_another_reader_finds_the_joints_to_a_millimetre(result, data, body, up, tmp_path):
    character = read_character(result / "person_001.npz", body, up)
    write_bvh(tmp_path / "one.bvh", character, data)
    bvh = pybvh.read_bvh_file(str(tmp_path / "one.bvh"))
    assert sorted(bvh.joint_names) == sorted(RIG_JOINTS)
    steady = without_gaps(character)
    assert bvh.frame_time == pytest.approx(1 / 24)
    assert bvh.frame_count == len(steady.frame_index) == 48
    with torch.inference_mode():
        joints = body(**steady.body_parameters(body), want_vertices=False).joints.numpy()
    found = bvh.node_positions()
    for number, name in enumerate(RIG_JOINTS):
        places_m = found[:, bvh.node_index[name]] / 100
        assert np.abs(places_m - joints[:, number]).max() < 0.001, name


def test_the_rest_pose_is_upright_and_fingers_end_at_their_tips(result, data, body, tmp_path):
    for up, height in (("y", 1), ("z", 2)):
        character = read_character(result / "person_002.npz", body, up)
        write_bvh(tmp_path / "one.bvh", character, data)
        bvh = pybvh.read_bvh_file(str(tmp_path / "one.bvh"))
        nodes = {node.name: node for node in bvh.nodes}
        assert nodes["head"].offset[height] > 5
        assert nodes["left_knee"].offset[height] < -25
        tip = nodes["left_index3"].children[0]
        assert 1 < np.linalg.norm(tip.offset) < 4
