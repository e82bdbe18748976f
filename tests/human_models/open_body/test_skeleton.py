"""Rotations, forward kinematics and skinning of the T-pose."""

import numpy as np
from scipy import sparse

from human_models.open_body.assets import Rig
from human_models.open_body.skeleton import axis_rotations, posed_heads, skin


def test_axis_rotations_follow_the_right_hand():
    quarter = axis_rotations(np.array([[0, 0, 2.0], [0, 3.0, 0]]), np.full(2, np.pi / 2))
    np.testing.assert_allclose(quarter[0] @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(quarter[1] @ [0, 0, 1], [1, 0, 0], atol=1e-15)


def test_a_turned_bone_carries_its_child_and_its_skin():
    empty = sparse.csr_matrix((2, 3))
    rig = Rig(["upper", "lower"], [-1, 0], empty, empty, np.eye(3, 2))
    heads = np.array([[1.0, 0, 0], [2.0, 0, 0]])
    rotations = axis_rotations(np.array([[0, 0, 1.0]] * 2), np.array([np.pi / 2, 0]))
    new_heads = posed_heads(heads[None], rotations[None], rig)[0]
    np.testing.assert_allclose(new_heads, [[1, 0, 0], [1, 1, 0]], atol=1e-15)

    vertices = np.array([[1.5, 0, 0], [3.0, 0, 0], [2.0, 0, 0]])
    weights = np.array([[1, 0], [0, 1], [0.5, 0.5]])
    posed = skin(vertices, weights, heads, rotations, new_heads)
    np.testing.assert_allclose(posed, [[1, 0.5, 0], [2, 1, 0], [1, 1, 0]], atol=1e-15)
