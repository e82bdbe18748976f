"""The plane under feet, and people who stand on it."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.tracking import clip_of, fill_rows
from benchmarks.walkers import CAMERA, FPS, estimates
from benchmarks.world import camera_motion, simulate
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from human_models.joints import BODY_JOINTS, JOINTS
from main.evaluation.metrics import FOOT_POINTS as FEET
from main.evaluation.metrics import world_errors
from main.motion import world as world_module
from main.motion.camera import static_camera
from main.motion.ground import (
    Ground,
    Plane,
    common_level,
    find_levels,
    fit_floor,
    world_from_camera,
)
from main.motion.legs import bend_leg
from main.motion.rows import FINAL_ROW, FinalRows, RawRows, WorldRows
from main.motion.standing import Observations, find_scale, zoom_or_dolly
from main.motion.stitch import stitch
from main.motion.trajectories import Smoothing, build_trajectories, pose_joints
from main.motion.world import solve_world
from synthetic.motion import Script

UP = np.array([0.05, -0.95, -0.3]) / np.linalg.norm([0.05, -0.95, -0.3])
HEIGHT = -1.6


def points_on_plane(rng, count, spread):
    across = np.linalg.svd(UP[None])[2][1:]
    points = rng.normal(0, spread, (count, 2)) @ across + HEIGHT * UP
    return points + rng.normal(0, 0.01, (count, 1)) * UP


def test_plane_of_many_points_in_spite_of_others():
    rng = np.random.default_rng(0)
    points = np.concatenate([points_on_plane(rng, 300, 1.5), rng.normal(0, 1, (60, 3))])
    plane, raised = fit_floor(points, np.zeros(360, int), np.array([0.0, -1, 0]))
    np.testing.assert_allclose(raised, 0, atol=1e-6)
    assert plane.up @ UP > np.cos(np.radians(1))
    assert abs(plane.height - HEIGHT) < 0.02


def test_people_at_one_place_leave_the_slope_to_the_expectation():
    rng = np.random.default_rng(1)
    plane, _ = fit_floor(points_on_plane(rng, 50, 0.001), np.zeros(50, int), UP)
    assert plane.up @ UP > np.cos(np.radians(2))
    assert abs(plane.height - HEIGHT) < 0.02
    one, _ = fit_floor(HEIGHT * UP[None], np.zeros(1, int), UP)
    np.testing.assert_allclose(one.up, UP, atol=1e-9)


def test_people_of_wrong_sizes_are_no_slope():
    rng, owners = np.random.default_rng(2), np.repeat([0, 1], 60)
    points = rng.normal(0, 0.1, (120, 3)) * [1, 0, 1] + [0, 1.6, 5]
    points[owners == 1] += [1.5, -0.1, 0]  # who is estimated too small seems to be higher
    up = np.array([0, -1.0, 0])
    plane, raised = fit_floor(points, owners, up)
    assert np.degrees(np.arccos(plane.up @ up)) < 1.5
    assert 0.05 < raised[-1] - raised[0] < 0.1
    same, none = fit_floor(points, np.zeros(120, int), up)
    assert np.degrees(np.arccos(same.up @ up)) > 2
    np.testing.assert_allclose(none, 0, atol=1e-6)


def test_world_stands_on_the_floor():
    transform = world_from_camera(Plane(UP, HEIGHT))
    rotation = transform[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0
    points = points_on_plane(np.random.default_rng(2), 20, 2.0)
    world = points @ rotation.T + transform[:3, 3]
    assert np.abs(world[:, 1]).max() < 0.05
    np.testing.assert_allclose(transform[:3, 3], [0, 1.6, 0], atol=1e-12)  # where the camera is
    ahead = rotation @ np.array([0, 0, 1.0])
    assert ahead[2] < -0.9
    assert (rotation @ np.array([1.0, 0, 0]))[0] > 0.99


@pytest.fixture(scope="module")
def body():
    return BodyLibrary(find_model_folder(Path("absent"))).smplx()


@pytest.fixture(scope="module")
def solved(body, tmp_path_factory):
    """Final and world rows of a simulated clip, and its truth."""

    def solve(camera, count=1, frames=150, noise=0.3, without=(), play=None):
        folder = tmp_path_factory.mktemp("rows")
        rng = np.random.default_rng(7)
        truth = simulate(body, rng, camera, count, frames, play)
        seen = estimates(body, rng, truth.walkers, noise=noise)
        seen = [one for one in seen if one.frame not in without]
        raw, final, world = RawRows(folder), FinalRows(folder), WorldRows(folder)
        fill_rows(raw, seen, frames)
        people = stitch(raw, CAMERA, FPS)
        clip = clip_of(CAMERA)
        build_trajectories(raw, raw, people, clip, body, Smoothing(), final)
        found = solve_world(final, clip, camera_motion(truth, camera), body, world)
        return truth, final, world, found

    return solve


CONTOUR = slice(JOINTS.index("face56"), len(JOINTS))


def sliding_m_s(world, mine):
    """Speed of feet that are in contact before and after."""
    contact, frames = world.take(mine, "foot_contact"), world.take(mine, "frame_index")
    stays = contact[1:] & contact[:-1] & (np.diff(frames) == 1)[:, None]
    feet = world.take(mine, "world_joints_3d_m")[:, FEET]
    return FPS * np.linalg.norm(np.diff(feet, axis=0), axis=-1)[stays]


def test_a_camera_that_turns_leaves_the_world_still(solved, body):
    truth, final, world, found = solved("pan", without=range(60, 90))
    (mine,) = final.by_identity().values()
    rows, frames = world.take(mine), final.take(mine, "frame_index")
    assert len(frames) < 150 - 20  # a gap stays a gap
    slide = sliding_m_s(world, mine)
    assert slide.size > 100
    assert slide.mean() < 0.01
    feet = rows["world_joints_3d_m"][:, FEET]
    assert feet[..., 1].min() > -0.01
    standing = feet[..., 1][rows["foot_contact"]]
    assert 0.0 < np.median(standing) < 0.04  # heels and toes over the sole
    errors = world_errors(rows["world_joints_3d_m"], truth.joints[0][frames], FPS)
    assert errors["wa_mpjpe"] < 50
    assert errors["rte"] < 2
    up = truth.camera_from_world[0, :3, :3] @ [0, 1, 0]
    assert np.degrees(np.arccos(up @ found.plane.up)) < 3
    # Parameters are those of the joints; the contour of faces is as the clip's camera sees it.
    posed = {name: rows[f"world_{name}"] for name in ("global_orient", "body_pose", "transl")}
    rows = final.take(mine)
    for name, values in posed.items():
        rows[name] = values
    again = pose_joints(body, rows) + rows["transl"][:, None]
    inner = slice(0, CONTOUR.start)
    ours = world.take(mine, "world_joints_3d_m")
    np.testing.assert_allclose(again[:, inner], ours[:, inner], atol=1e-4)
    assert np.median(moved_px(final, world, mine)[:, CONTOUR]) < 2


def moved_px(final, world, mine):
    """How far joints move in the image."""
    camera = world.take(mine, "world_from_camera").astype(np.float64)
    local = world.take(mine, "world_joints_3d_m") - camera[:, None, :3, 3]
    back = np.einsum("tji,tkj->tki", camera[:, :3, :3], local)
    return np.linalg.norm(CAMERA.project(back) - final.take(mine, "joints_2d_px"), axis=-1)


def test_bodies_with_large_errors_hardly_move_in_the_image(solved):
    _, final, world, _ = solved("pan", noise=1.0, frames=240)
    (mine,) = final.by_identity().values()
    assert np.median(moved_px(final, world, mine)) < 1.7  # 1.95 where legs may be out of reach
    assert sliding_m_s(world, mine).mean() < 0.01


def scale_of(truth, found):
    """How long the camera's way is, in its true length."""
    poses = (truth.camera_from_world, found.motion.camera_from_first)
    own, ours = (np.diff(np.linalg.inv(each)[:, :3, 3], axis=0) for each in poses)
    return np.linalg.norm(ours, axis=1).sum() / np.linalg.norm(own, axis=1).sum()


def test_the_way_of_a_camera_is_not_too_short_where_bodies_are_wrong(solved):
    truth, _, _, found = solved("walk-along", noise=1.0)
    assert scale_of(truth, found) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("goes_ahead", [True, False])
def test_people_tell_a_zoom_from_a_camera_that_goes_ahead(goes_ahead, body, tmp_path, caplog):
    """Towards a wall that is 10 m away, which looks the same."""
    rng, count = np.random.default_rng(0), 150
    truth = simulate(body, rng, "static", 1, count)
    ahead = 0.3 * np.arange(count) / FPS
    zoom = 10 / (10 - ahead)
    seen = truth.walkers[0].joints.copy()
    if goes_ahead:
        seen[..., 2] -= ahead[:, None]
    else:  # a longer lens shows people as if nearer
        seen[..., 2] /= zoom[:, None]
    px = CAMERA.project(seen)
    low, high = (
        np.clip(edge, 0, 2 * np.array(CAMERA.princpt)) for edge in (px.min(axis=1), px.max(axis=1))
    )
    boxes = np.concatenate([low, high - low], axis=1)
    walker = truth.walkers[0]._replace(joints=seen, boxes=boxes)
    raw, final, world = RawRows(tmp_path), FinalRows(tmp_path), WorldRows(tmp_path)
    fill_rows(raw, estimates(body, rng, [walker], noise=0.3), count)
    clip, people = clip_of(CAMERA), stitch(raw, CAMERA, FPS)
    build_trajectories(raw, raw, people, clip, body, Smoothing(), final)
    motion = static_camera(count)._replace(kind="rotating", zoom=zoom)
    found = solve_world(final, clip, motion, body, world)
    assert found.motion.kind == ("moving" if goes_ahead else "rotating")
    assert caplog.text.count("moves ahead or back instead of zooming") == goes_ahead
    frames = final.column("frame_index")
    errors = world_errors(world.column("world_joints_3d_m"), truth.joints[0][frames], FPS)
    assert errors["rte"] < 2
    if goes_ahead:
        way = np.linalg.inv(found.motion.camera_from_first)[:, :3, 3]
        assert way[-1] == pytest.approx([0, 0, ahead[-1]], abs=0.15)
        assert world.column("camera_confidence").max() < 0.31
        stated = WorldRows(tmp_path)
        found = solve_world(final, clip, motion, body, stated, kind_is_certain=True)
        assert found.motion.kind == "rotating"


def test_two_people_stand_on_one_floor_under_a_camera_that_walks(solved):
    truth, final, world, found = solved("walk-along", count=2, noise=0.2)
    assert found.motion.scale_known
    assert scale_of(truth, found) == pytest.approx(1, abs=0.03)
    for mine in final.by_identity().values():
        contact = world.take(mine, "foot_contact")
        if contact.any():
            heights = world.take(mine, "world_joints_3d_m")[:, FEET, 1][contact]
            assert np.abs(heights).max() < 0.06


def test_steps_are_levels_and_no_slope(solved, monkeypatch):
    def climbs(_, physique):
        script = Script(physique, 0.6, -6.3, -90.0).wait(0.4)
        return script.climb(1.3, rise_m=0.17, tread_m=0.34).turn_to(0.0)

    truth, final, world, found = solved("static", frames=180, play=climbs)
    assert found.levels == pytest.approx([0.34], abs=0.04)
    up = truth.camera_from_world[0, :3, :3] @ [0, 1, 0]
    assert np.degrees(np.arccos(up @ found.plane.up)) < 3
    (mine,) = final.by_identity().values()
    frames = final.take(mine, "frame_index")
    ours, true = world.take(mine, "world_joints_3d_m"), truth.joints[0][frames]
    assert np.abs(ours[:, 0, 1] - true[:, 0, 1]).mean() < 0.04
    contact = world.take(mine, "foot_contact")
    assert contact[frames < 60].any()  # below
    heights = ours[:, FEET, 1][contact]
    assert ((heights < 0.1) | (np.abs(heights - 0.36) < 0.1)).all()
    assert sliding_m_s(world, mine).mean() < 0.01
    # Which level is at height 0 changes nothing else.
    monkeypatch.setattr(world_module, "common_level", lambda heights, owners, levels: levels[-1])
    _, _, lower, other = solved("static", frames=180, play=climbs)
    np.testing.assert_allclose(other.levels, -found.levels)
    ours[..., 1] -= found.levels[0]
    np.testing.assert_allclose(lower.take(mine, "world_joints_3d_m"), ours, atol=2e-3)


@pytest.mark.parametrize("hidden", [True, False])
def test_who_stands_behind_something_is_not_below_the_floor(solved, body, tmp_path, hidden, caplog):
    """A network takes the upper part of a body for the whole, so it seems to be farther away."""
    truth, final, _, _ = solved("static", frames=180)
    (mine,) = final.by_identity().values()
    rows = final.take(mine)
    cut = rows["frame_index"] < 60
    move = 0.4 * rows["joints_3d_m"][cut, :1]
    rows["joints_3d_m"][cut] += move
    rows["transl"][cut] += move[:, 0]
    rows["keypoint_score"] = 0.9
    if hidden:
        ankles = [JOINTS.index(f"{side}_ankle") for side in ("left", "right")]
        rows["keypoint_score"][np.ix_(cut, ankles)] = 0.1
    far, world = FinalRows(tmp_path), WorldRows(tmp_path)
    far.append(rows)
    solve_world(far, clip_of(CAMERA), static_camera(180), body, world)
    height = world.column("world_joints_3d_m")[:, 0, 1]
    low = truth.joints[0][rows["frame_index"], 0, 1] - height
    sunk = low[cut][:45].mean() - low[~cut][15:].mean()
    assert sunk < 0.05 if hidden else sunk > 0.1
    assert "no visible foot" not in caplog.text
    if hidden:  # what nobody sees says nothing of the ground, either
        assert np.abs(low[~cut]).mean() < 0.05
        rows["keypoint_score"][:, ankles] = 0.1
        unseen = FinalRows(tmp_path)
        unseen.append(rows)
        solve_world(unseen, clip_of(CAMERA), static_camera(180), body, WorldRows(tmp_path))
        assert "no visible foot" in caplog.text


def test_feet_that_are_seen_below_the_floor_come_onto_it_where_the_image_shows_them():
    count, no = 120, np.zeros(120, bool)
    up, pelvis = np.array([0.0, -1, 0]), np.tile([0.3, 0.9, 6.0], (count, 1))
    limbs, soles = np.tile([0.0, 0.9, 0.0], (count, 10, 1)), np.full((count, 4), 0.05)
    limbs[60:] *= 0.68  # sole 6 cm below the ground, which touches it
    people, centre = np.zeros(count, int), np.zeros((count, 3))
    ray = pelvis / np.linalg.norm(pelvis, axis=1, keepdims=True)
    runs, weight = [np.arange(count)], np.ones(count)
    seen = Observations(runs, people, pelvis, centre, ray, weight, limbs, soles, no)
    lifted = world_module._lifted(seen, Ground(Plane(up, -1.5), np.zeros(0)), FPS)
    feet, before = (one.pelvis[:, None] + one.limbs[:, :4] for one in (lifted, seen))
    assert (feet[:30, :, 1] + 0.05) == pytest.approx(1.5, abs=0.03)
    np.testing.assert_allclose(feet / feet[..., 2:], before / before[..., 2:])
    np.testing.assert_allclose(np.cross(lifted.pelvis, pelvis), 0, atol=1e-12)
    nearer = 1 - feet[0, 0, 2] / before[0, 0, 2]
    assert 1 - lifted.pelvis[0, 2] / 6 == pytest.approx(nearer / 2)
    np.testing.assert_allclose(lifted.pelvis[110:], pelvis[110:], atol=0.01)
    np.testing.assert_array_equal(lifted.limbs[:, 4:], limbs[:, 4:])
    low = world_module._lifted(seen, Ground(Plane(up, -1.5), np.array([-0.3])), FPS)
    np.testing.assert_array_equal(low.pelvis, pelvis)  # stands on a lower level


def test_windows_join_without_a_seam(solved, monkeypatch):
    _, final, whole, _ = solved("static")
    monkeypatch.setattr(world_module, "_WINDOW", 40)
    monkeypatch.setattr(world_module, "_OVERLAP", 60)
    _, _, parts, _ = solved("static")
    moved = whole.column("world_transl") - parts.column("world_transl")
    assert np.linalg.norm(moved, axis=1).max() < 0.05
    for mine in final.by_identity().values():
        assert sliding_m_s(parts, mine).mean() < 0.01


def test_nobody_who_rests_is_warned_of(solved, body, tmp_path, caplog):
    final, world = FinalRows(tmp_path), WorldRows(tmp_path)
    rows = np.zeros(1, FINAL_ROW)
    rows["global_orient"] = [np.pi, 0, 0]
    rows["transl"] = [0, 0, 4]
    rows["joints_3d_m"] = pose_joints(body, rows) + rows["transl"][:, None]
    final.append(rows)
    found = solve_world(final, clip_of(CAMERA), static_camera(1), body, world)
    assert caplog.text.count("no visible foot ever stands") == 1
    assert found.plane.up @ [0, -1, 0] > 0.95
    assert world.column("world_joints_3d_m")[0, FEET, 1].min() == pytest.approx(0.02, abs=0.02)


def test_legs_reach_what_they_can(body):
    rows = np.zeros(3, FINAL_ROW)
    joints = pose_joints(body, rows).astype(np.float64)
    shift = np.array([[0.05, 0.2, 0.1], [0, 0.05, -0.1], [0, -0.4, 0]])  # the last: too far
    still = Rotation.identity(3)
    rows["body_pose"] = bend_leg(still, rows["body_pose"], joints, "left", shift, still)
    moved = pose_joints(body, rows) - joints
    ankle = JOINTS.index("left_ankle")
    np.testing.assert_allclose(moved[:2, ankle], shift[:2], atol=1e-4)
    assert np.linalg.norm(moved[2, ankle]) < 0.02
    knees = rows["body_pose"].reshape(3, 21, 3)[:, BODY_JOINTS.index("left_knee") - 1]
    assert (knees[:2, 0] > 0).all()  # they bend as knees do
    np.testing.assert_array_equal(moved[:, JOINTS.index("right_ankle")], 0)


def test_heights_of_many_contacts_are_levels():
    rng = np.random.default_rng(0)
    heights = np.concatenate([rng.normal(0, 0.02, 800), rng.normal(0.3, 0.02, 240)])
    one, two = np.zeros(1040, int), np.repeat([0, 1], (800, 240))
    assert find_levels(heights, one, 1.5) == pytest.approx([0, 0.3], abs=0.02)
    assert find_levels(heights, two, 2.5).tolist() == [0]  # a person of another size
    assert find_levels(heights, two, 1.5) == pytest.approx([0, 0.3], abs=0.02)  # nobody is so small
    assert find_levels(-heights, two, 1.5).tolist() == [0]  # a child that is taken for an adult
    assert find_levels(-heights, one, 1.5) == pytest.approx([-0.3, 0], abs=0.02)
    sinking = np.concatenate([heights[:800], rng.uniform(-0.4, -0.2, 240)])
    assert find_levels(sinking, two, 1.5).tolist() == [0]  # who sits is taken for standing
    assert find_levels(2 * heights, one, 1.5).tolist() == [0]  # too high to be climbed


def test_the_floor_is_the_lowest_level_of_half_of_the_people():
    levels = np.array([-0.2, 0, 0.3])
    heights, owners = np.repeat([[-0.21, 0.31], [0.01, 0.29], [0, 0.02]], 10, axis=0), np.arange(3)
    contacts = heights.ravel(), np.repeat(owners, 20)
    assert common_level(*contacts, levels) == 0  # only one of three is ever lower
    two = contacts[1] < 2
    assert common_level(contacts[0][two], contacts[1][two], levels) == -0.2
    assert common_level(levels, owners, levels) == -0.2  # nobody shares one


def test_somebody_whose_feet_never_rest_does_not_outvote_others():
    """Feet of the first person stand still at scale 1, those of the other one never."""
    lengths = np.array([60, 180])
    runs = np.split(np.arange(240), [60])
    centre = np.zeros((240, 3))
    centre[:, 2] = 0.3 * np.concatenate([np.arange(count) for count in lengths]) / FPS
    pelvis = np.zeros((240, 3))
    pelvis[60:] = centre[60:, 2:] * [1.7, 0, -5]  # moves least, at 0.5 m/s, at scale 6
    still = np.zeros(240, bool)
    limbs, soles = np.zeros((240, 10, 3)), np.zeros((240, 4))
    people = np.repeat([1, 2], lengths)
    seen = Observations(runs, people, pelvis, centre, pelvis, np.ones(240), limbs, soles, still)
    assert find_scale(seen, FPS).scale == pytest.approx(1, abs=0.01)


def test_people_who_are_seen_for_two_frames_tell_no_zoom_from_motion(body, tmp_path):
    final = FinalRows(tmp_path)
    rows = np.zeros(2, FINAL_ROW)
    rows["frame_index"], rows["transl"] = [0, 1], [0, 0, 4]
    final.append(rows)
    motion = static_camera(2)._replace(kind="rotating", zoom=np.array([1, 1.2]))
    assert zoom_or_dolly(final, motion, np.zeros((2, 4)), FPS).kind == "rotating"
