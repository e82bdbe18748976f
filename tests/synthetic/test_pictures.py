"""Pictures of synthetic people and their annotations."""

import cv2
import numpy as np
import pytest

from synthetic.backgrounds import read_photograph
from synthetic.figures import PosedPerson, person_mesh
from synthetic.ground_truth import describe, hidden_share
from synthetic.pictures import Studio, draw_crop, draw_scene, generator, plan_crop, plan_scene
from synthetic.rendering import (
    draw_lights,
    draw_prop,
    draw_stage,
    full_camera,
    place,
    render,
    visible_surface,
)
from utils.camera import Camera
from utils.errors import UserError


@pytest.fixture(scope="module")
def studio():
    return Studio("train")


def one(studio, plan, draw, seed, shape):
    planned = plan(studio, generator(seed, "train", 0), shape)
    figures = studio.figures.pose([person.parameters for person in planned.people])
    return planned, draw(studio, planned, figures, shape)


@pytest.mark.parametrize("seed", range(4))
def test_crop_rows_reproject(studio, seed):
    plan, drawn = one(studio, plan_crop, draw_crop, seed, (256, 192))
    image = cv2.imdecode(np.frombuffer(drawn.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (256, 192, 3)
    (row,) = drawn.rows
    joints, pixels = row["keypoints3d_smplx"][:, :3], row["keypoints2d_smplx"][:, :2]
    expected = joints[:, :2] / joints[:, 2:] * row["meta.focal_length"]
    expected += row["meta.principal_point"]
    np.testing.assert_allclose(pixels, expected, atol=1e-3)
    figure = studio.figures.pose([plan.people[0].parameters])[0]
    np.testing.assert_allclose(figure.joints + row["smplx.transl"], joints, atol=1e-5)
    seen = row["keypoints2d_smplx"][:, 2] > 0
    assert (pixels[seen] > -0.5).all()
    assert (pixels[seen] < [191.5, 255.5]).all()
    x, y, width, height, confidence = row["bbox_xywh"]
    assert confidence == 1
    assert min(x, y) >= 0
    assert x + width <= 192
    assert y + height <= 256


def test_scene_annotates_several_people(studio):
    counts = []
    for seed in range(6):
        _, drawn = one(studio, plan_scene, draw_scene, seed, (180, 320))
        counts.append(len(drawn.rows))
        for row in drawn.rows:
            assert row["meta.occlusion"] <= 0.85
    assert max(counts) > 1


@pytest.mark.parametrize("seed", range(12))
def test_smallest_pictures_are_drawn(studio, seed):
    _, drawn = one(studio, plan_scene, draw_scene, seed, (32, 32))
    assert cv2.imdecode(np.frombuffer(drawn.jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (32, 32, 3)


def test_a_damaged_photograph_is_named(tmp_path):
    path = tmp_path / "coffee.png"
    path.write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"coffee\.png': damaged; reinstall its package"):
        read_photograph(path)


def test_what_is_behind_a_box_is_not_seen(studio):
    rng = np.random.default_rng(7)
    stage = draw_stage(rng, 4.0, 40.0)._replace(height_m=1.2, from_world=np.diag([1.0, -1, -1]))
    person = studio.draw_person(rng, stage, fine=False)
    figure = studio.figures.pose([person.parameters])[0]
    move = place(stage, figure, 0.0, 4.0)
    mesh = person_mesh(figure, person.look, move)
    posed = PosedPerson(person.parameters, figure, move, mesh)
    camera, shape = full_camera(40.0, (360, 640)), (360, 640)
    lights = draw_lights(rng, stage.up)
    wall = draw_prop(rng, stage, 0.0, 2.0, (4.0, 4.0, 0.1))
    for things, hidden in (([], False), ([wall], True)):
        picture = render([mesh, *things], lights, camera, shape)
        row = describe(posed, picture, 0, studio.parts)
        occlusion, _ = hidden_share(posed, picture, 0, studio.parts)
        assert (occlusion > 0.95) == hidden
        assert (row["keypoints2d_smplx"][:22, 2].sum() < 2) == hidden
        assert (row["lhand_bbox_xywh"][4] == 0) == hidden
        assert (row["face_bbox_xywh"][4] == 0) == hidden
        assert row["bbox_xywh"][4] == 1  # boxes of bodies are exact also where hidden
    behind = draw_prop(rng, stage, 0.0, 8.0, (4.0, 4.0, 0.1))
    picture = render([mesh, behind], lights, camera, shape)
    assert hidden_share(posed, picture, 0, studio.parts)[0] == 0


def test_raster_interpolates_in_space():
    points = np.array([[-1, 1, 2], [1, 1, 2], [0, -1, 8]], np.float32)
    faces = np.array([[0, 1, 2]], np.int32)
    camera = Camera((100.0, 90.0), (30.0, 40.0))
    seen = visible_surface(points, faces, np.ones(1, bool), points, camera, (80, 64))
    row, column = np.divmod(seen.pixels, 64)
    place_px = np.stack([column, row], axis=1)
    np.testing.assert_allclose(camera.project(seen.values), place_px, atol=1e-3)
    np.testing.assert_allclose(seen.values[:, 2], seen.depth_m[row, column], atol=1e-3)


def test_faces_turned_away_are_left_out():
    points = np.array([[-1, 1, 2], [1, 1, 2], [0, -1, 2]], np.float32)
    camera = Camera((50.0, 50.0), (32.0, 32.0))
    shown = []
    for order in ([0, 1, 2], [0, 2, 1]):
        faces = np.array([order], np.int32)
        shown.append(
            len(visible_surface(points, faces, np.zeros(1, bool), points, camera, (64, 64)).pixels)
        )
    assert (shown[0] == 0) != (shown[1] == 0)


def test_outsides_of_props_are_shown():
    rng = np.random.default_rng(0)
    stage = draw_stage(rng, 4.0, 40.0)
    for _ in range(10):  # boxes and columns
        prop = draw_prop(rng, stage, 0.0, 4.0, (1.0, 1.0, 1.0))
        corners = prop.points[prop.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        outward = corners.mean(axis=1) - prop.points.mean(axis=0)
        assert (np.einsum("fc,fc->f", normals, outward) >= -1e-6).all()


def test_halved_camera_sees_the_same():
    camera = full_camera(35.0, (360, 640))
    point = np.array([0.3, -0.2, 3.0])
    pixel, half = camera.project(point), camera.scaled(0.5).project(point)
    np.testing.assert_allclose((pixel + 0.5) / 2, half + 0.5, atol=1e-9)
