"""Meshes, vertices and skeletons drawn over images."""

import time

import cv2
import numpy as np
import pytest
from jaxtyping import Bool, Float, Int, UInt8

from utils.camera import Camera
from utils.render import (
    PERSON_COLOURS,
    MeshRenderer,
    PlacedMesh,
    draw_skeleton,
    draw_vertices,
    person_colour,
)

CAMERA = Camera((420.0, 380.0), (150.3, 97.6))  # fx != fy, off the middle of 320 x 240
WHITE = (255, 255, 255)


def sphere(
    rings: int = 60, radius: float = 0.5, center: tuple[float, float, float] = (0.2, -0.1, 3.0)
) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """Rings of 2 * rings vertices from pole to pole; faces counter-clockwise from outside."""
    columns = 2 * rings
    polar = np.linspace(0, np.pi, rings + 1)[:, None]
    around = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    x, y = np.sin(polar) * np.cos(around), np.broadcast_to(np.cos(polar), (rings + 1, columns))
    vertices = np.stack([x, y, np.sin(polar) * np.sin(around)], -1).reshape(-1, 3)
    ring, column = np.mgrid[:rings, :columns]
    a, b = ring * columns + column, ring * columns + (column + 1) % columns
    c, d = a + columns, b + columns
    faces = np.concatenate(
        [np.stack(corners, -1).reshape(-1, 3) for corners in ((a, b, c), (b, d, c))]
    )
    return vertices * radius + center, faces


def grey(width: int = 320, height: int = 240) -> UInt8[np.ndarray, "H W 3"]:
    return np.full((height, width, 3), 90, np.uint8)


def drawn_mask(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    size: tuple[int, int] = (320, 240),
    camera: Camera = CAMERA,
) -> Bool[np.ndarray, "H W"]:
    """Pixels at least half covered: where the darkened background is gone by half."""
    renderer = MeshRenderer(faces, len(vertices))
    mesh = PlacedMesh(vertices, camera, (0, 0, 0))
    image = np.full((size[1], size[0], 3), 255, np.uint8)
    # Highlights on black stay far below half of white.
    return renderer.overlay(image, [mesh], alpha=1.0).max(axis=-1) < 128


def sphere_mask(
    radius: float,
    center: tuple[float, float, float],
    size: tuple[int, int] = (320, 240),
    camera: Camera = CAMERA,
) -> Bool[np.ndarray, "H W"]:
    """Pixels whose ray comes nearer to the sphere's centre than its radius."""
    v, u = np.mgrid[: size[1], : size[0]]
    (fx, fy), (cx, cy) = camera
    rays = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones(u.shape)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    along = rays @ np.array(center)
    return np.sum(np.square(center)) - along**2 < radius**2


def within_a_pixel(mask: Bool[np.ndarray, "H W"], expected: Bool[np.ndarray, "H W"]) -> bool:
    kernel = np.ones((3, 3), np.uint8)
    grown = cv2.dilate(expected.astype(np.uint8), kernel) > 0
    shrunk = cv2.erode(expected.astype(np.uint8), kernel) > 0
    return bool((mask <= grown).all() and (mask >= shrunk).all())


@pytest.mark.parametrize("radius", [0.03, 0.3, 0.75])
@pytest.mark.parametrize("center", [(0.2, -0.1, 3.0), (-1.0, 0.5, 3.0), (0.9, 0.6, 2.5)])
def test_sphere_lies_where_the_pinhole_camera_sees_it(
    radius: float, center: tuple[float, float, float]
) -> None:
    mask, expected = drawn_mask(*sphere(100, radius, center)), sphere_mask(radius, center)
    assert expected.sum() > 20
    assert within_a_pixel(mask, expected)
    assert np.count_nonzero(mask != expected) <= 6 + 0.15 * np.sqrt(4 * np.pi * expected.sum())


def test_large_region_agrees_too() -> None:
    """Above the size up to which regions are drawn at twice the resolution."""
    camera = Camera((1500.0, 1430.0), (700.2, 520.7))
    center = (0.3, 0.1, 4.0)
    mask = drawn_mask(*sphere(150, 1.0, center), (1280, 960), camera)
    expected = sphere_mask(1.0, center, (1280, 960), camera)
    assert expected.sum() > 300_000
    assert within_a_pixel(mask, expected)
    assert np.count_nonzero(mask != expected) < 400


def test_triangle_covers_its_pixels() -> None:
    corners = np.array([(60.0, 40.0), (200.0, 80.0), (90.0, 190.0)])
    depths = np.array([2.0, 3.0, 2.5])
    vertices = np.column_stack(
        [(corners - CAMERA.princpt) / CAMERA.focal * depths[:, None], depths]
    )
    expected = np.zeros((240, 320), np.uint8)
    cv2.fillConvexPoly(expected, np.rint(corners).astype(np.int32), 1)
    towards_camera, away = np.array([[0, 2, 1]]), np.array([[0, 1, 2]])
    assert within_a_pixel(drawn_mask(vertices, towards_camera), expected > 0)
    assert not drawn_mask(vertices, away).any()


def test_only_the_mesh_changes_the_image() -> None:
    """No dark box around it, at any depth: empty pixels are distinguished from drawn ones."""
    vertices, faces = sphere(30, 0.3, (0.0, 0.0, 0.0))
    renderer = MeshRenderer(faces, len(vertices))
    for depth in np.geomspace(1.5, 60, 40):
        placed = vertices + np.array([0.1, 0.05, depth])
        mesh = PlacedMesh(placed, Camera((400.0, 400.0), (160.0, 120.0)), WHITE)
        changed = (renderer.overlay(grey(), [mesh]) != grey()).any(axis=-1)
        u, v = (placed[:, :2] / placed[:, 2:] * 400 + (160, 120)).mean(axis=0)
        rows, columns = np.nonzero(changed)
        assert np.hypot(columns - u, rows - v).max() < 400 * 0.3 / depth * 1.1 + 2


def test_nearer_person_hides_the_farther_one() -> None:
    vertices, faces = sphere()
    renderer = MeshRenderer(faces, len(vertices))
    red = PlacedMesh(vertices, CAMERA, (255, 0, 0))
    blue = PlacedMesh(vertices + np.array([0, 0, 1.5]), CAMERA, (0, 0, 255))
    middle = (85, 178)
    for meshes in ([red, blue], [blue, red]):
        shown = renderer.overlay(grey(), meshes, alpha=1.0)[middle]
        assert shown[0] > 2 * int(shown[2])
    far_red = PlacedMesh(vertices, CAMERA, (255, 0, 0), depth_m=9.0)
    near_blue = PlacedMesh(vertices, CAMERA, (0, 0, 255), depth_m=2.0)
    shown = renderer.overlay(grey(), [near_blue, far_red], alpha=1.0)[middle]
    assert shown[2] > 2 * int(shown[0])


def test_own_front_hides_own_back() -> None:
    """Two spheres as one mesh: the nearer one is seen whatever the order of their faces."""
    near, faces = sphere(30, 0.3, (0.0, 0.0, 2.0))
    far, _ = sphere(30, 0.6, (0.0, 0.0, 4.0))
    alone = MeshRenderer(faces, len(near)).overlay(
        grey(), [PlacedMesh(near, CAMERA, WHITE)], alpha=1.0
    )
    middle = (slice(80, 115), slice(130, 170))
    for parts in ((near, far), (far, near)):
        both = MeshRenderer(np.concatenate([faces, faces + len(near)]), 2 * len(near))
        image = both.overlay(grey(), [PlacedMesh(np.concatenate(parts), CAMERA, WHITE)], alpha=1.0)
        assert np.abs(image[middle].astype(int) - alone[middle]).max() <= 2


def test_edges_are_soft_and_alpha_blends() -> None:
    vertices, faces = sphere()
    renderer = MeshRenderer(faces, len(vertices))
    mesh = PlacedMesh(vertices, CAMERA, (60, 160, 250))
    shown = [renderer.overlay(grey(), [mesh], alpha).astype(int) for alpha in (0.0, 0.5, 1.0)]
    np.testing.assert_array_equal(shown[0], grey())
    assert np.abs(shown[1] - (shown[2] + 90) / 2).max() <= 1.5
    mask = (shown[2] != 90).any(axis=-1)
    black = renderer.overlay(np.zeros_like(grey()), [mesh], 1.0).astype(int)
    partly = mask & (np.abs((shown[2] - black)[..., 0] - 45) < 40)
    assert 50 < partly.sum() < 1000


def test_shading_shows_the_form() -> None:
    vertices, faces = sphere()
    image = MeshRenderer(faces, len(vertices)).overlay(
        grey(), [PlacedMesh(vertices, CAMERA, (200, 200, 200))], alpha=1.0
    )
    middle, lower_right_rim = image[85, 178].mean(), image[122, 219].mean()
    assert middle > lower_right_rim + 50


def test_input_stays_as_it_is() -> None:
    vertices, faces = sphere()
    image, before = grey(), vertices.copy()
    image.flags.writeable = False
    mesh = PlacedMesh(vertices, CAMERA, WHITE)
    result = MeshRenderer(faces, len(vertices)).overlay(image, [mesh])
    assert result is not image
    assert (result != image).any()
    np.testing.assert_array_equal(vertices, before)


@pytest.mark.parametrize(
    "offset", [(9, 0, 0), (-9, 0, 0), (0, 9, 0), (0, -9, 0), (0, 0, -6), (0, 0, -60)]
)
def test_outside_the_image_or_behind_nothing_is_drawn(offset: tuple[float, float, float]) -> None:
    vertices, faces = sphere()
    mesh = PlacedMesh(vertices + offset, CAMERA, WHITE)
    result = MeshRenderer(faces, len(vertices)).overlay(grey(), [mesh])
    np.testing.assert_array_equal(result, grey())


def test_broken_values_skip_the_person_only() -> None:
    vertices, faces = sphere()
    renderer = MeshRenderer(faces, len(vertices))
    good = PlacedMesh(vertices, CAMERA, WHITE)
    holed = vertices.copy()
    holed[7, 1] = np.nan
    bad = [
        PlacedMesh(holed, CAMERA, WHITE),
        PlacedMesh(vertices, CAMERA._replace(focal=(np.inf, 1.0)), WHITE),
        PlacedMesh(vertices, CAMERA._replace(princpt=(np.nan, 1.0)), WHITE),
    ]
    result = renderer.overlay(grey(), [*bad, good])
    np.testing.assert_array_equal(result, renderer.overlay(grey(), [good]))
    np.testing.assert_array_equal(renderer.overlay(grey(), []), grey())


@pytest.mark.parametrize("depth", [-0.3, 0.0, 0.06, 0.3, 0.55])
def test_camera_inside_or_near_the_mesh_is_fast(depth: float) -> None:
    vertices, faces = sphere(70, 0.5, (0.0, 0.0, depth))
    renderer = MeshRenderer(faces, len(vertices))
    start = time.perf_counter()
    renderer.overlay(
        grey(1920, 1080), [PlacedMesh(vertices, Camera((1500.0, 1500.0), (960.0, 540.0)), WHITE)]
    )
    assert time.perf_counter() - start < 1.5


def test_tiny_mesh_and_tiny_image() -> None:
    vertices, faces = sphere(10, 0.5, (0.0, 0.0, 2000.0))
    renderer = MeshRenderer(faces, len(vertices))
    mesh = PlacedMesh(vertices, CAMERA, WHITE)
    changed = (renderer.overlay(grey(), [mesh]) != grey()).any(axis=-1)
    assert changed.sum() <= 9
    near = PlacedMesh(vertices - (0, 0, 1998), CAMERA._replace(princpt=(0.0, 0.0)), WHITE)
    assert (renderer.overlay(grey(1, 1), [near]) != grey(1, 1)).all()


def test_people_of_one_camera_hide_each_other_point_by_point() -> None:
    """Two spheres that go through each other: each shows the side that it has in front."""
    near_left, faces = sphere(60, 0.5, (-0.2, 0.0, 3.0))
    near_right, _ = sphere(60, 0.5, (0.2, 0.0, 3.0))
    renderer = MeshRenderer(faces, len(near_left))
    meshes = [
        PlacedMesh(near_left, CAMERA, (255, 0, 0)),
        PlacedMesh(near_right, CAMERA, (0, 0, 255)),
    ]
    for order in (meshes, meshes[::-1]):
        shown = renderer.overlay(grey(), order, alpha=1.0).astype(int)
        row = shown[97]
        red, blue = row[:, 0] > 2 * row[:, 2], row[:, 2] > 2 * row[:, 0]
        middle = round(CAMERA.princpt[0])
        assert red[middle - 40 : middle - 2].all()
        assert blue[middle + 3 : middle + 41].all()


def test_people_apart_are_drawn_as_if_alone() -> None:
    left, faces = sphere(40, 0.2, (-0.6, 0.0, 3.0))
    right, _ = sphere(40, 0.2, (0.6, 0.0, 3.0))
    renderer = MeshRenderer(faces, len(left))
    one, two = (PlacedMesh(v, CAMERA, (60, 160, 250)) for v in (left, right))
    both = renderer.overlay(grey(), [one, two])
    np.testing.assert_array_equal(both, renderer.overlay(renderer.overlay(grey(), [one]), [two]))


def black(width: int = 200, height: int = 100) -> UInt8[np.ndarray, "H W 3"]:
    image = np.zeros((height, width, 3), np.uint8)
    image.flags.writeable = False
    return image


def test_bone_runs_between_its_joints() -> None:
    joints = np.array([(20.0, 50.0), (180.0, 50.0), (100.0, 10.0)])
    image = draw_skeleton(black(), joints, [(0, 1)], (200, 100, 50))
    assert image[50, 100] == pytest.approx((200, 100, 50), rel=0.15)  # smooth lines are a bit paler
    assert image[50, 15].max() == 0
    assert image[45, 100].max() == 0
    assert image[10, 100].min() > 100  # a joint without a bone is a dot
    assert image[30, 100].max() == 0


def test_bones_are_smooth_and_placed_between_pixels() -> None:
    def shade(y: float) -> float:
        joints = np.array([(-50.0, y), (250.0, y)])
        image = draw_skeleton(black(), joints, [(0, 1)], (255, 255, 255))[:, 100, 0].astype(float)
        return float(np.sum(image * np.arange(100)) / image.sum())

    for y in (50.0, 50.25, 50.5, 50.75):
        assert shade(y) == pytest.approx(y, abs=0.13)


def test_joints_that_are_not_finite_or_far_away_are_left_out() -> None:
    joints = np.array([(20.0, 50.0), (np.nan, 5.0), (np.inf, 5.0), (1e9, 50.0), (60.0, 50.0)])
    edges = [(0, 1), (1, 2), (0, 3), (0, 4)]
    image = draw_skeleton(black(), joints, edges, (255, 255, 255))
    expected = draw_skeleton(black(), joints[[0, 4]], [(0, 1)], (255, 255, 255))
    np.testing.assert_array_equal(image, expected)


def test_lines_grow_with_the_image() -> None:
    joints = np.array([(10.0, 50.0), (190.0, 50.0)])
    widths = [
        np.count_nonzero(draw_skeleton(black(*size), joints, [(0, 1)], (255, 255, 255))[:, 100, 0])
        for size in ((200, 100), (2000, 1000), (4000, 2000))
    ]
    assert widths[0] < widths[1] < widths[2]


def test_vertices_are_points() -> None:
    points = np.array([(10.4, 20.4), (199.4, 99.4), (-0.6, 5.0), (200.0, 5.0), (np.nan, 1.0)])
    image = draw_vertices(black(), points, (9, 8, 7))
    rows, columns = np.nonzero(image.any(axis=-1))
    assert sorted(zip(columns.tolist(), rows.tolist(), strict=True)) == [(10, 20), (199, 99)]
    assert image[20, 10].tolist() == [9, 8, 7]


def test_colours_differ_and_repeat() -> None:
    colours = np.array(PERSON_COLOURS)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 60
    assert person_colour(2) == person_colour(2 + len(PERSON_COLOURS))
