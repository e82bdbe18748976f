"""Rotations, similarities and smoothing, against the published numbers, SciPy and closed forms."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from utils.geometry import (
    align_signs,
    align_similarity,
    aligned_distances,
    axis_angle_to_matrix,
    centred_in_place,
    exact_products,
    interpolate_axis_angles,
    matrix_to_axis_angle,
    rooted_distances,
    rotation_6d_to_axis_angle,
    rotation_6d_to_matrix,
    smooth,
    smooth_axis_angles,
    smooth_rotations,
)

ROTATIONS = {
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
    close(rotation_6d_to_axis_angle(ROTATIONS["rot6d"]), ROTATIONS["rot6d_to_axis_angle"])


def test_rodrigues():
    close(axis_angle_to_matrix(ROTATIONS["axis_angle"]), ROTATIONS["rodrigues"])


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_rows_do_not_depend_on_the_batch(batch):
    rotations = ROTATIONS["rot6d"][:batch]
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


SIGMA = 2.0
TIMES = np.arange(90.0)


def turning(speed):
    """Quaternions (90, 1, 4) of a turn about one axis, radians a frame."""
    axis = np.array([1.0, 2.0, -1.0]) / np.sqrt(6)
    return Rotation.from_rotvec(np.outer(speed * TIMES, axis)).as_quat()[:, None]


def angles_between(one, other):
    ours, theirs = (Rotation.from_quat(q.reshape(-1, 4)) for q in (one, other))
    return (ours.inv() * theirs).magnitude()


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def acceleration(values):
    return np.abs(values[2:] - 2 * values[1:-1] + values[:-2]).mean()


def test_what_is_constant_or_linear_stays_up_to_the_ends():
    line = np.stack([np.full(90, 3.0), 0.5 * TIMES - 7], axis=1)
    np.testing.assert_allclose(smooth(line, SIGMA), line, atol=1e-9)
    weights = np.random.default_rng(0).uniform(0.1, 1, 90)
    np.testing.assert_allclose(smooth(line, SIGMA, weights), line, atol=1e-9)


def test_steady_turn_stays_up_to_the_ends():
    quaternions = turning(0.1)  # 170 degrees a second at 30 fps
    assert angles_between(smooth_rotations(quaternions, SIGMA), quaternions).max() < 0.01


def test_noise_falls_and_acceleration_at_least_halves():
    truth = np.sin(TIMES / 10)[:, None]
    noisy = truth + 0.1 * noise(truth.shape)
    smoothed = smooth(noisy, SIGMA)
    assert np.abs(smoothed - truth).mean() < 0.5 * np.abs(noisy - truth).mean()
    assert acceleration(smoothed - truth) < 0.1 * acceleration(noisy - truth)


def test_noise_of_rotations_falls():
    truth = turning(0.03)
    disturbed = Rotation.from_quat(truth[:, 0]) * Rotation.from_rotvec(0.05 * noise((90, 3)))
    noisy = disturbed.as_quat()[:, None]
    before = angles_between(noisy, truth).mean()
    assert angles_between(smooth_rotations(noisy, SIGMA), truth).mean() < 0.5 * before


def test_there_is_no_lag():
    """The time at which a smoothed step is halfway is that of the step."""
    step = (TIMES >= 45).astype(float)
    smoothed = smooth(step, 3.0)
    assert smoothed[44] + smoothed[45] == pytest.approx(1.0, abs=1e-9)
    wave = np.sin(TIMES / 5)
    shifts = range(-3, 4)
    inner = slice(20, 70)
    likeness = [np.dot(np.roll(wave, k)[inner], smooth(wave, SIGMA)[inner]) for k in shifts]
    assert shifts[int(np.argmax(likeness))] == 0


def test_signs_of_quaternions_do_not_matter():
    quaternions = turning(0.1)
    flipped = quaternions * np.where(noise(90) > 0, 1.0, -1.0)[:, None, None]
    expected = smooth_rotations(quaternions, SIGMA)
    assert angles_between(smooth_rotations(flipped, SIGMA), expected).max() < 1e-6
    assert (np.sum(align_signs(flipped)[1:] * align_signs(flipped)[:-1], axis=-1) > 0).all()


def quaternions_of(axis_angles):
    quaternions = Rotation.from_rotvec(axis_angles.reshape(-1, 3)).as_quat()
    return quaternions.reshape(len(axis_angles), -1, 4)


def test_axis_angles_across_half_a_turn():
    """Vectors jump from +pi to -pi there; the rotations do not."""
    axis_angles = Rotation.from_quat(turning(0.1)[:, 0]).as_rotvec()
    assert np.abs(np.diff(axis_angles, axis=0)).max() > 1
    smoothed = smooth_axis_angles(axis_angles, SIGMA)
    assert angles_between(quaternions_of(smoothed), quaternions_of(axis_angles)).max() < 0.01


def test_samples_without_weight_do_not_count():
    line, weights = 2.0 * TIMES, np.ones(90)
    broken = line.copy()
    broken[40:46], weights[40:46] = 1e6, 0
    np.testing.assert_allclose(smooth(broken, SIGMA, weights), line, atol=1e-4)


def test_where_nothing_counts_the_values_stay():
    values, weights = noise((90, 2)), np.ones(90)
    weights[30:60] = 0
    np.testing.assert_array_equal(smooth(values, 1.0, weights)[36:54], values[36:54])


@pytest.mark.parametrize("length", [1, 2, 3])
def test_short_series(length):
    values = noise((length, 3))
    assert np.isfinite(smooth(values, SIGMA)).all()
    assert smooth(values, 0.1).tolist() == values.tolist()
    poses = noise((length, 6)).astype(np.float32)
    assert smooth_axis_angles(poses, SIGMA).shape == (length, 6)


def test_interpolation_is_steady_and_takes_the_short_way():
    first, last = np.array([0, 0, 3.0, 0, 0, 0]), np.array([0, 0, -3.0, 0.4, 0, 0])
    between = interpolate_axis_angles(first, last, np.array([0.0, 0.25, 0.5, 1.0]))
    way = angles_between(
        quaternions_of(between)[:, 0], quaternions_of(first[None])[:, 0].repeat(4, 0)
    )
    total = 2 * np.pi - 6
    np.testing.assert_allclose(way, np.array([0, 0.25, 0.5, 1]) * total, atol=1e-6)
    np.testing.assert_allclose(between[:, 3], [0, 0.1, 0.2, 0.4], atol=1e-9)
