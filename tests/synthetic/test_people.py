"""Dressed people posed and drawn: poses, hands, garments, what is seen."""

import numpy as np
import pytest
import torch

from human_models.joints import HANDS_MEAN, SIDES
from synthetic.arms import SHAPES, draw_hand, hand_pose
from synthetic.figures import person_mesh
from synthetic.pictures import Studio
from synthetic.poses import mirrored, walk_cycle
from synthetic.rendering import draw_lights, draw_stage, full_camera, place, render
from synthetic.skeleton import JOINT, penetration, turn
from synthetic.wardrobe import draw_clothing, slide_to_level


@pytest.fixture(scope="module")
def studio():
    return Studio("train")


def test_reach_brings_the_wrist_to_its_target(studio):
    skeleton = studio.poser.skeleton
    limb = skeleton.limbs["left", "arm"]
    target = np.array([0.1, -0.2, 0.3])
    rotations = np.tile(np.eye(3), (22, 1, 1))
    shoulder, elbow = JOINT["left_shoulder"], JOINT["left_elbow"]
    rotations[shoulder], rotations[elbow] = skeleton.reach(limb, target, np.array([0.3, -1, 0]))
    _, places = skeleton.world(rotations)
    np.testing.assert_allclose(places[JOINT["left_wrist"]] - places[shoulder], target, atol=2e-3)


def test_skeleton_is_that_of_the_body(studio):
    rng = np.random.default_rng(0)
    pose = studio.poser.draw(rng)
    stage = draw_stage(rng, 4.0, 50.0)
    given = studio.parameters(rng, stage, pose, 20.0)
    given = given._replace(betas=np.zeros(10, np.float32), expression=np.zeros(10, np.float32))
    figure = studio.figures.pose([given])[0]
    rotations = [torch.linalg.matrix_exp(_skew(row)).numpy() for row in pose.body]
    world = np.array([stage.from_world @ turn("y", 20.0) @ pose.root, *rotations])
    _, places = studio.poser.skeleton.world(world)
    np.testing.assert_allclose(places, figure.joints[:22], atol=1e-4)


def _skew(row):
    x, y, z = row.tolist()
    return torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)


def test_few_poses_have_limbs_in_each_other(studio):
    rng = np.random.default_rng(1)
    depths = []
    for _ in range(60):
        pose = studio.poser.draw(rng)
        rotations = [torch.linalg.matrix_exp(_skew(row)).numpy() for row in pose.body]
        world = studio.poser.skeleton.world(np.array([pose.root, *rotations]))
        depths.append(penetration(*world))
    assert np.mean(np.array(depths) < 0.02) > 0.85


def test_hands_folded_through_the_body_are_found(studio):
    rotations = np.tile(np.eye(3), (22, 1, 1))
    rotations[JOINT["left_shoulder"]] = turn("y", 170.0)
    assert penetration(*studio.poser.skeleton.world(rotations)) > 0.05
    assert penetration(*studio.poser.skeleton.world(np.tile(np.eye(3), (22, 1, 1)))) < 0


def test_mirrored_gait_is_half_a_cycle_later():
    left, right = walk_cycle(0.2, 1.0, 0.0), walk_cycle(0.7, 1.0, 0.0)
    np.testing.assert_allclose(mirrored(left), right, atol=1e-9)


def test_hands_are_relative_to_the_mean_and_mirrored():
    bends = np.zeros((5, 4))
    for side in SIDES:  # the flat hand is the negative mean
        np.testing.assert_allclose(
            hand_pose(bends, side), -np.reshape(HANDS_MEAN[side], (15, 3)), atol=1e-6
        )
    left, right = (draw_hand(np.random.default_rng(2), side, "fist") for side in SIDES)
    np.testing.assert_allclose(left * [1, -1, -1], right, atol=1e-6)


def test_all_hand_shapes_differ(studio):
    poses = [draw_hand(np.random.default_rng(0), "left", name) for name in SHAPES]
    apart = [np.abs(a - b).max() for i, a in enumerate(poses) for b in poses[:i]]
    assert min(apart) > 0.15


def test_sliding_leaves_no_face_across_the_line():
    rng = np.random.default_rng(3)
    x, y = np.meshgrid(np.arange(12.0), np.arange(12.0))
    points = np.stack([x.ravel(), y.ravel() + rng.normal(0, 0.2, 144)], axis=1)
    corner = (np.arange(11)[:, None] * 12 + np.arange(11)).ravel()
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + 13], axis=1),
            np.stack([corner, corner + 13, corner + 12], axis=1),
        ]
    )
    slide_to_level(points, faces, 1, 5.3)
    above = points[:, 1] > 5.3 + 1e-9
    below = points[:, 1] < 5.3 - 1e-9
    assert not (above[faces].any(axis=1) & below[faces].any(axis=1)).any()
    assert above.any()
    assert below.any()


def test_drawn_silhouette_agrees_with_the_mesh(studio):
    rng = np.random.default_rng(4)
    stage = draw_stage(rng, 4.0, 50.0)._replace(focal_mm=40.0)
    person = studio.draw_person(rng, stage, fine=True)
    figure = studio.figures.pose([person.parameters])[0]
    mesh = person_mesh(figure, person.look, place(stage, figure, 0.0, 4.0))
    camera = full_camera(40.0, (360, 640))
    picture = render([mesh], draw_lights(rng, stage.up), camera, (360, 640))
    rows, columns = np.nonzero(picture.owner == 0)
    drawn = camera.project(mesh.points)
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    assert columns.min() == pytest.approx(max(low[0], 0), abs=1.5)
    assert columns.max() == pytest.approx(min(high[0], 639), abs=1.5)
    assert rows.min() == pytest.approx(max(low[1], 0), abs=1.5)
    assert rows.max() == pytest.approx(min(high[1], 359), abs=1.5)
    middle = camera.project(mesh.points.mean(axis=0)).round().astype(int)
    depth = picture.depth_m[rows, columns]
    assert mesh.points[:, 2].min() - 1e-3 < depth.min() < depth.max() < mesh.points[:, 2].max()
    assert picture.owner[middle[1], middle[0]] == 0


def test_person_stands_on_the_floor(studio):
    rng = np.random.default_rng(5)
    stage = draw_stage(rng, 5.0, 35.0)
    person = studio.draw_person(rng, stage, fine=False)
    figure = studio.figures.pose([person.parameters])[0]
    moved = figure.points + place(stage, figure, 1.0, 5.0)
    assert (moved @ stage.up).min() == pytest.approx(-stage.height_m, abs=1e-4)
    pelvis = stage.from_world.T @ (figure.joints[0] + place(stage, figure, 1.0, 5.0))
    np.testing.assert_allclose(pelvis[[0, 2]], [1.0, -5.0], atol=1e-4)


def test_everybody_is_dressed(studio):
    for seed in range(40):
        clothing = draw_clothing(np.random.default_rng(seed))
        assert (clothing.legs is None) != (clothing.skirt is None)
        pieces = studio.figures.wardrobe.pieces(clothing, bald=True, fine=False)
        kinds = {piece.kind for piece in pieces}
        assert {"skin", "shirt"} <= kinds
        assert {"bottoms", "skirt"} & kinds
        assert all(len(piece.faces) > 50 for piece in pieces)
