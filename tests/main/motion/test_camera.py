"""One camera per clip, and where people stand in it."""

import numpy as np
import pytest
from PIL import Image

from main.motion.camera import ClipCamera, choose_camera, solve_translation, turn_into_view

CAMERA = ClipCamera((1468.0, 1468.0), (640.0, 360.0), "test")


def choose(**options):
    return choose_camera(
        1280, 720, **({"focal_px": None, "fov_deg": None, "image": None} | options)
    )


def bodies(count=6, seed=0):
    """Points the size of a standing person about the origin."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, 137, 3)) * [0.2, 0.5, 0.12]).astype(np.float32)


def test_focal_length_comes_from_flags_or_the_diagonal():
    assert choose(focal_px=900.0).focal == (900.0, 900.0)
    assert choose(fov_deg=90.0).focal == pytest.approx((640.0, 640.0))
    default = choose()
    assert default.focal[0] == pytest.approx(np.hypot(1280, 720))
    assert default.princpt == (639.5, 359.5)
    assert "default" in default.origin


def test_focal_length_of_a_photograph_comes_from_exif(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26  # of a telephone
    path = tmp_path / "a.jpg"
    Image.new("RGB", (1280, 720)).save(path, exif=exif)
    camera = choose(image=path)
    assert camera.origin == "EXIF"
    assert camera.focal[0] == pytest.approx(26 / 43.2666 * np.hypot(1280, 720), rel=1e-4)
    assert choose(image=path, focal_px=900.0).focal[0] == 900
    Image.new("RGB", (1280, 720)).save(path)
    assert "default" in choose(image=path).origin


def test_translation_is_found_exactly_where_there_is_one():
    joints = bodies()
    translation = np.random.default_rng(1).uniform([-2, -1, 2], [2, 1, 9], (6, 3))
    target = CAMERA.project(joints + translation[:, None])
    np.testing.assert_allclose(solve_translation(joints, target, CAMERA), translation, atol=2e-4)


def test_turn_brings_the_axis_of_the_crop_into_view():
    princpt = np.array([[640.0, 360.0], [1200.0, 100.0], [30.0, 700.0]])
    turns = turn_into_view(princpt, CAMERA)
    np.testing.assert_allclose(turns[0], np.eye(3), atol=1e-12)
    for turn, place in zip(turns, princpt, strict=True):
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(turn) > 0
        axis = turn @ [0, 0, 1]
        np.testing.assert_allclose(axis[:2] / axis[2] * CAMERA.focal[0] + [640, 360], place)


def crop_people(count=200):
    """People as crops' cameras see them: far away, through a long lens; on a 1280 x 720 image."""
    rng = np.random.default_rng(3)
    princpt = rng.uniform([100, 200], [1180, 520], (count, 2))
    height = rng.uniform(150, 600, count)
    joints = bodies(count)
    scale = height / np.ptp(joints[..., 1], axis=1)  # pixels a metre
    depth = 28.0
    return (
        joints,
        joints[..., :2] * scale[:, None, None] * depth / (depth + joints[..., 2:])
        + princpt[:, None],
        princpt,
        scale,
    )


def test_whole_image_and_crop_agree_in_the_picture():
    joints, target, princpt, scale = crop_people()
    turned = np.einsum("tij,tkj->tki", turn_into_view(princpt, CAMERA), joints).astype(np.float32)
    translation = solve_translation(turned, target.astype(np.float32), CAMERA)
    error = np.linalg.norm(CAMERA.project(turned + translation[:, None]) - target, axis=-1)
    assert np.median(error) < 2
    without_turn = solve_translation(joints, target.astype(np.float32), CAMERA)
    worse = np.linalg.norm(CAMERA.project(joints + without_turn[:, None]) - target, axis=-1)
    assert np.median(worse) > 2 * np.median(error)
    order = np.argsort(scale)
    assert (np.diff(translation[order, 2]) < 0.2).all()  # whoever appears larger is nearer


def test_single_joints_do_not_move_the_others_in_the_picture():
    joints = bodies()
    translation = np.random.default_rng(1).uniform([-2, -1, 2], [2, 1, 9], (6, 3))
    target = CAMERA.project(joints + translation[:, None])
    moved = target.copy()
    moved[:, [5, 6]] += 40.0  # both ankles
    ours = CAMERA.project(joints + solve_translation(joints, moved, CAMERA)[:, None])
    assert np.median(np.linalg.norm(ours - target, axis=-1)) < 0.4
