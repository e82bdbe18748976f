"""Rotations against the published code, and their own properties."""

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.geometry import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    rotation_6d_to_axis_angle,
    rotation_6d_to_matrix,
)

PARITY = {
    k: torch.from_numpy(v)
    for k, v in np.load(Path(__file__).parents[1] / "parity" / "rotations.npz").items()
}


def close(actual, wanted, tolerance=1e-5):
    torch.testing.assert_close(actual, wanted, rtol=0, atol=tolerance)


def random_axis_angles(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    axis = torch.nn.functional.normalize(
        torch.randn(count, 3, generator=generator).double(), dim=-1
    )
    return axis * torch.rand(count, 1, generator=generator).double() * np.pi


def test_6d_to_axis_angle():
    close(rotation_6d_to_axis_angle(PARITY["rot6d"]), PARITY["rot6d_to_axis_angle"])


def test_rodrigues():
    close(axis_angle_to_matrix(PARITY["axis_angle"]), PARITY["rodrigues"])


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_rows_do_not_depend_on_the_batch(batch):
    rotations = PARITY["rot6d"][:batch]
    single = torch.cat([rotation_6d_to_matrix(row[None]) for row in rotations])
    close(rotation_6d_to_matrix(rotations), single)


def test_axis_angle_there_and_back():
    axis_angle = random_axis_angles(500)
    close(matrix_to_axis_angle(axis_angle_to_matrix(axis_angle)), axis_angle)


@pytest.mark.parametrize("angle", [1e-9, 1e-5, np.pi - 1e-6])
def test_angles_at_the_ends(angle):
    axis_angle = torch.nn.functional.normalize(torch.tensor([[0.3, -0.5, 0.8]]).double()) * angle
    matrix = axis_angle_to_matrix(axis_angle)
    close(axis_angle_to_matrix(matrix_to_axis_angle(matrix)), matrix, 1e-6)


def test_identity_is_zero_with_a_finite_gradient():
    rotation = torch.tensor([[1.0, 0, 0, 1, 0, 0]], requires_grad=True)
    axis_angle = rotation_6d_to_axis_angle(rotation)
    close(axis_angle, torch.zeros(1, 3))
    axis_angle.sum().backward()
    assert rotation.grad is not None
    assert rotation.grad.isfinite().all()


def test_6d_gives_rotations():
    matrix = rotation_6d_to_matrix(torch.randn(100, 6, generator=torch.Generator().manual_seed(1)))
    close(matrix @ matrix.mT, torch.eye(3).expand(100, 3, 3))
    close(torch.linalg.det(matrix), torch.ones(100))


def test_degenerate_matrix_gives_zero():
    close(matrix_to_axis_angle(torch.full((1, 3, 3), torch.nan)), torch.zeros(1, 3))


def test_gradient_agrees_with_differences():
    rotation = torch.randn(4, 6, generator=torch.Generator().manual_seed(2)).double()
    assert torch.autograd.gradcheck(rotation_6d_to_axis_angle, rotation.requires_grad_())
