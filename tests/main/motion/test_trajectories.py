"""From rows of single frames to final values, on clips of walkers with the open body."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.tracking import fill_rows, identity_score
from benchmarks.walkers import CAMERA, FPS, HEIGHT, WIDTH, estimates, walkers
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from human_models.joints import JOINTS
from main.motion import trajectories
from main.motion.camera import Clip, place_bodies, static_camera
from main.motion.results import choose_people
from main.motion.rows import FINAL_ROW, PARAMETERS, FinalRows, RawRows, WorldRows
from main.motion.standing import FOOT_JOINTS
from main.motion.stitch import stitch
from main.motion.trajectories import Smoothing, build_trajectories, confidence, pose_joints
from main.motion.world import solve_world
from main.pipeline.options import parse_person, parse_smoothing
from main.pipeline.stages import EstimatedPerson, raw_rows
from utils.errors import UserError

CLIP = Clip(CAMERA, (WIDTH, HEIGHT), FPS)
BODY_JOINTS = slice(0, 25)


@pytest.fixture(scope="module")
def body():
    return BodyLibrary(find_model_folder(Path("absent"))).smplx()


@pytest.fixture(scope="module")
def crossing(body):
    """Three people who cross, leave and come back, and their truth."""
    rng = np.random.default_rng((0, 4))
    people = walkers(body, rng, 3, 240)
    return people, estimates(body, rng, people)


@pytest.fixture(scope="module")
def alone(body):
    """One person, well visible, who is missed in frames 40 to 47."""
    rng = np.random.default_rng((1, 1))
    people = walkers(body, rng, 1, 120, crossing=False, distance_m=(6, 6.5))
    seen = [one for one in estimates(body, rng, people) if not 40 <= one.frame < 48]
    return people[0], seen


@pytest.fixture
def finished(body, tmp_path):
    """Final rows of raw ones."""

    def run(raw, factor=1.0):
        final = FinalRows(tmp_path)
        people = stitch(raw, CAMERA, FPS)
        build_trajectories(raw, raw, people, CLIP, body, Smoothing().times(factor), final)
        return final

    return run


@pytest.fixture
def assembled(alone, finished, tmp_path):
    """Final rows of the person alone, in the order of frames."""

    def run(factor=1.0):
        raw = RawRows(tmp_path)
        fill_rows(raw, alone[1], 120)
        final = finished(raw, factor)
        return final.take(np.arange(len(final)))

    return run


def acceleration_error(ours, truth):
    difference = (ours - truth)[:, BODY_JOINTS]
    second = difference[2:] - 2 * difference[1:-1] + difference[:-2]
    return np.linalg.norm(second, axis=-1).mean()


def pose_error(ours, truth):
    relative = (ours - ours[:, :1]) - (truth - truth[:, :1])
    return np.linalg.norm(relative[:, BODY_JOINTS], axis=-1).mean()


def test_people_keep_their_identity(crossing, finished, tmp_path):
    people, seen = crossing
    raw = RawRows(tmp_path)
    fill_rows(raw, seen, 240)
    before = identity_score(raw, people)
    after = identity_score(finished(raw), people)
    assert before.idf1 < 0.9
    assert after.idf1 > 0.95
    assert after.switches <= before.switches + 1


def test_smoothing_halves_the_acceleration_error_and_poses_are_no_worse(assembled, alone):
    raw, smoothed = assembled(0.0), assembled(1.0)
    truth = alone[0].joints[raw["frame_index"]]
    raw_joints, joints = raw["joints_3d_m"], smoothed["joints_3d_m"]
    assert acceleration_error(joints, truth) < 0.2 * acceleration_error(raw_joints, truth)
    assert pose_error(joints, truth) < pose_error(raw_joints, truth)


def test_there_is_no_lag(assembled, alone):
    """In frames: how far errors point along the joints' own motion, less what is so before."""

    def lag(rows):
        truth = alone[0].joints[rows["frame_index"]]
        relative, expected = (
            (one - one[:, :1])[:, BODY_JOINTS] for one in (rows["joints_3d_m"], truth)
        )
        velocity = np.gradient(expected, axis=0)
        return -((relative - expected) * velocity).sum() / (velocity**2).sum()

    assert abs(lag(assembled(1.0)) - lag(assembled(0.0))) < 0.1


def test_gap_is_filled_and_flagged(assembled, alone):
    rows = assembled()
    first, last = rows["frame_index"][[0, -1]]
    assert rows["frame_index"].tolist() == list(range(first, last + 1))
    absent = set(range(first, last + 1)) - {one.frame for one in alone[1]}
    assert set(range(40, 48)) <= absent
    assert set(rows["frame_index"][rows["interpolated"]].tolist()) == absent
    assert (rows["score"] == 0).tolist() == rows["interpolated"].tolist()
    gap = np.isin(rows["frame_index"], range(40, 48))
    truth = alone[0].joints[rows["frame_index"]]
    near = np.linalg.norm((rows["joints_3d_m"] - truth)[:, :25], axis=-1).mean(axis=1)
    assert near[gap].mean() < 2 * near[~gap].mean()


def test_final_values_belong_together(assembled, body):
    rows = assembled()
    assert (rows["betas"] == rows["betas"][0]).all()
    assert (rows["focal"] == CAMERA.focal).all()
    assert (rows["princpt"] == CAMERA.princpt).all()
    joints = pose_joints(body, rows) + rows["transl"][:, None]
    np.testing.assert_allclose(rows["joints_3d_m"], joints, atol=1e-5)
    np.testing.assert_allclose(rows["joints_2d_px"], CAMERA.project(joints), atol=0.01)


def test_raw_values_stay_as_they_came(assembled, alone):
    rows = assembled()
    given = {one.frame: one.person for one in alone[1]}
    for row in rows[~rows["interpolated"]]:
        person = given[int(row["frame_index"])]
        for name in PARAMETERS:
            np.testing.assert_array_equal(row[f"raw_{name}"], getattr(person, name))


def test_whole_image_solution_agrees_with_the_crops(assembled, alone):
    """Median over joints and frames, 1280 x 720; unsmoothed."""
    rows = assembled(0.0)
    rows = rows[~rows["interpolated"]]
    given = {one.frame: one.person.joints_2d_px for one in alone[1]}
    raw_px = np.stack([given[frame] for frame in rows["frame_index"].tolist()])
    error = np.linalg.norm(rows["joints_2d_px"] - raw_px, axis=-1)
    assert np.median(error) < 1.6


def test_people_who_are_near_match_the_crops(body):
    """People of some 450 pixels."""
    rng = np.random.default_rng(3)
    people = walkers(body, rng, 2, 40, crossing=False, distance_m=(4, 4.5))
    seen = estimates(body, rng, people)
    names = ("global_orient", "transl", "joints_3d_m", "joints_2d_px", "princpt")
    given = {name: np.stack([getattr(one.person, name) for one in seen]) for name in names}
    placed = place_bodies(**given, camera=CAMERA)
    raw_px = given["joints_2d_px"]
    error = np.linalg.norm(CAMERA.project(placed.joints_3d_m) - raw_px, axis=-1)
    assert np.median(np.ptp(raw_px[..., 1], axis=1)) > 400
    assert np.median(error) < 2.0  # least squares alone: 2.7


def test_blocks_join_without_a_seam(assembled, monkeypatch):
    whole = assembled()
    monkeypatch.setattr(trajectories, "BLOCK", 32)
    parts = assembled()
    for name in ("global_orient", "body_pose", "transl", "joints_3d_m"):
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-4)


def test_single_image_keeps_its_values_but_for_the_camera(alone, finished, row_file):
    one = alone[1][10]
    raw = row_file(raw_rows([(0, EstimatedPerson(1, one.score, one.person))], CLIP))
    row = finished(raw, 0.0).take(0)
    for name in ("body_pose", "left_hand_pose", "jaw_pose", "betas", "expression"):
        np.testing.assert_array_equal(row[name], getattr(one.person, name))
    error = np.linalg.norm(row["joints_2d_px"] - one.person.joints_2d_px, axis=-1)
    assert np.median(error) < 0.015 * one.person.box_xywh[3]


def test_feet_find_the_floor(crossing, finished, body, tmp_path):
    people, seen = crossing
    raw = RawRows(tmp_path)
    fill_rows(raw, seen, 240)
    final, world = finished(raw), WorldRows(tmp_path)
    plane = solve_world(final, CLIP, static_camera(240), body, world).plane
    assert plane.up @ [0, -1, 0] > np.cos(np.radians(6))
    feet = [JOINTS.index(name) for name in FOOT_JOINTS]
    true_floor = np.median([one.joints[:, feet, 1].max(axis=1) for one in people])
    assert plane.height == pytest.approx(-true_floor, abs=0.15)
    contacts = world.column("foot_contact")
    assert contacts.shape == (len(final), len(FOOT_JOINTS))
    assert 0.1 < contacts.mean() < 0.9


def rows_of_people(lengths):
    rows = np.zeros(sum(lengths), FINAL_ROW)
    rows["person"] = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    rows["box_xywh"] = [0, 0, 10, 20]
    return rows


def test_choice_of_people(row_file):
    rows = rows_of_people([5, 9, 7])
    file = row_file(rows)
    assert choose_people(file, None, None) == {1, 2, 3}
    assert choose_people(file, None, 2) == {2, 3}
    assert choose_people(file, parse_person("3,1"), None) == {1, 3}
    assert choose_people(file, parse_person("3, 1"), 1) == {3}
    with pytest.raises(UserError, match="nobody has this number; there are 1, 2, 3"):
        choose_people(file, (4,), None)
    rows["box_xywh"][:5, 2] = 1000
    assert choose_people(row_file(rows), "largest", None) == {1}


@pytest.mark.parametrize("word", ["tallest", "0", "1,", "-1", "1.5"])
def test_wrong_choices_are_refused(word):
    with pytest.raises(UserError, match="--person"):
        parse_person(word)


def test_strength_of_smoothing():
    assert [parse_smoothing(word) for word in ("auto", "off", "0.5")] == [1, 0, 0.5]
    with pytest.raises(UserError, match="--smooth much: give auto, off, or a number from 0 to 20"):
        parse_smoothing("much")


def test_interpolated_frames_say_nothing_about_the_shape(assembled):
    rows = assembled()
    trust = confidence(rows["score"], rows["box_xywh"], rows["truncation"])
    assert (trust[rows["interpolated"]] == 0).all()
    assert set(rows["person"].tolist()) == {1}
