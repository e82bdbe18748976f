"""Smoothing takes noise away and leaves motion where it is."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from utils.geometry import (
    align_signs,
    axis_angles_of,
    interpolate_axis_angles,
    quaternions_of,
    smooth,
    smooth_axis_angles,
    smooth_rotations,
)

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


def test_axis_angles_across_half_a_turn():
    """Vectors jump from +pi to -pi there; the rotations do not."""
    axis_angles = axis_angles_of(turning(0.1))
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
