"""Similarity alignment against the published code's values and against its definition."""

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.geometry import (
    align_similarity,
    aligned_distances,
    centred_in_place,
    exact_products,
    rooted_distances,
)

PARITY = Path(__file__).parents[1] / "parity"


def points(*shape, seed=0):
    return torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed)).double()


def rotations(count):
    turns, _ = torch.linalg.qr(points(count, 3, seed=5))
    return turns * torch.linalg.det(turns)[:, None, None]


def test_published_values():
    with np.load(PARITY / "rotations.npz") as values:
        source, target, expected = (
            torch.from_numpy(values[f"align_{name}"]) for name in ("source", "target", "result")
        )
    torch.testing.assert_close(align_similarity(source, target), expected, rtol=1e-9, atol=1e-9)


def test_undoes_a_similarity():
    target = points(4, 30)
    source = 2.5 * target @ rotations(4) + points(4, 1, seed=1)
    torch.testing.assert_close(align_similarity(source, target), target)


def test_no_other_similarity_fits_better():
    source, target = points(6, 12), points(6, 12, seed=1)
    aligned = align_similarity(source, target)
    best = (aligned - target).square().sum((1, 2))
    for seed in range(20):
        nudge, _ = torch.linalg.qr(torch.eye(3).double() + 0.05 * points(3, seed=seed))
        nudge = nudge * torch.linalg.det(nudge).sign()
        nudge = nudge * nudge.diagonal().sum().sign()
        moved = 1.01 * (aligned - aligned.mean(1, keepdim=True)) @ nudge + aligned.mean(1, True)
        assert ((moved - target).square().sum((1, 2)) >= best).all()


def test_never_mirrors():
    target = points(1, 30)
    mirrored = target * torch.tensor([-1.0, 1.0, 1.0]).double()
    aligned = align_similarity(mirrored, target)
    assert (aligned - target).norm(dim=-1).mean() > 0.3
    frame = torch.linalg.lstsq(
        mirrored[0] - mirrored[0].mean(0), aligned[0] - aligned[0].mean(0)
    ).solution
    assert torch.linalg.det(frame) > 0


def test_keeps_precision_far_from_the_camera():
    target = points(2, 500).mul(0.01) + torch.tensor([0.0, 0.0, 100.0])
    source = target * 1.5
    aligned = align_similarity(source.float(), target.float())
    assert aligned.dtype == torch.float32
    assert (aligned.double() - target).abs().max() < 2e-5  # float32 has 8e-6 at 100


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_points(count):
    source, target = points(3, count), points(3, count, seed=1)
    aligned = align_similarity(source, target)
    assert aligned.isfinite().all()
    torch.testing.assert_close(aligned.mean(1), target.mean(1))
    if count == 2:
        torch.testing.assert_close(aligned, target)


def test_points_that_coincide_land_on_the_centroid():
    target = points(1, 10)
    aligned = align_similarity(torch.full_like(target, 7.0), target)
    torch.testing.assert_close(aligned, target.mean(1, keepdim=True).expand(1, 10, 3))
    to_one_point = align_similarity(target, torch.full_like(target, 7.0))
    torch.testing.assert_close(to_one_point, torch.full_like(target, 7.0))


def test_points_on_a_line_stay_finite():
    along = torch.linspace(-1, 1, 9).double()[None, :, None]
    source = along * torch.tensor([1.0, 0, 0]).double()
    target = along * torch.tensor([0, 3.0, 0]).double() + 1
    torch.testing.assert_close(align_similarity(source, target), target)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_points_that_are_no_numbers_are_told(value):
    source = points(2, 10)
    source[1, 3, 2] = value
    for pair in ((source, points(2, 10)), (points(2, 10), source)):
        with pytest.raises(ValueError, match="finite"):
            align_similarity(*pair)


def test_batch_equals_singles():
    source, target = points(3, 40), points(3, 40, seed=1)
    singles = [align_similarity(source[k : k + 1], target[k : k + 1]) for k in range(3)]
    torch.testing.assert_close(align_similarity(source, target), torch.cat(singles))


def planar(rows):
    return centred_in_place(rows.float().mT.contiguous())


def test_distances_keep_their_digits_far_from_the_camera():
    """Positions have 4e-6 in float32 at 50 m, but all points of a sample share what is lost."""
    away = torch.tensor([3.0, -7.0, 50.0]).double()
    predicted, true = (points(3, 2000, seed=seed).mul(0.3) + away for seed in (0, 1))
    predicted, true = (rows.float().double() for rows in (predicted + 4, true))
    roots = (predicted[:, :1].mT, true[:, :1].mT)
    rooted = (predicted - predicted[:, :1] - true + true[:, :1]).norm(dim=2)
    aligned = (align_similarity(predicted, true) - true).norm(dim=2)
    pair = (planar(predicted), planar(true))
    torch.testing.assert_close(rooted_distances(*pair, roots).double(), rooted, rtol=0, atol=1e-6)
    found = aligned_distances(*pair).double()
    torch.testing.assert_close(found, aligned, rtol=0, atol=5e-6)
    torch.testing.assert_close(found.mean(1), aligned.mean(1), rtol=0, atol=5e-7)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_only_numbers_can_be_centred(value):
    rows = points(2, 10)
    rows[1, 3, 2] = value
    with pytest.raises(ValueError, match="finite"):
        planar(rows)


def test_precision_outside_is_as_before():
    matrix = points(3).float()
    outside = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16), exact_products(matrix.device):
            assert torch.get_float32_matmul_precision() == "highest"
            assert (matrix @ matrix).dtype == torch.float32
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(outside)
