"""From rows of single frames to final values, on clips of walkers with the open body."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.tracking import fill_rows, identity_score
from benchmarks.walkers import CAMERA, FPS, HEIGHT, WIDTH, estimates, walkers
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from human_models.joints import JOINTS
from main.tracks import refine
from main.tracks.assemble import Clip, assemble_people, check_person_flag, choose_people
from main.tracks.camera import project
from main.tracks.ground import FOOT_JOINTS, find_floor
from main.tracks.placing import place_rows
from main.tracks.refine import Strengths, pose_joints, smoothing_factor
from main.tracks.rows import PARAMETERS, ROW, RowFile, people_of, row_of
from main.tracks.shape import CONFIDENCE, confidence
from utils.errors import UserError

SIZE = (WIDTH, HEIGHT)
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
def assembled(body, alone, tmp_path):
    """Final rows of the person alone, in the order of frames."""

    def run(factor=1.0):
        file = RowFile(tmp_path)
        fill_rows(file, alone[1], 120)
        assemble_people(file, body, Clip(CAMERA, SIZE, FPS, Strengths().times(factor)))
        rows = np.array(file.view())
        return rows[np.argsort(rows["frame_index"])]

    return run


def acceleration_error(ours, truth):
    difference = (ours - truth)[:, BODY_JOINTS]
    second = difference[2:] - 2 * difference[1:-1] + difference[:-2]
    return np.linalg.norm(second, axis=-1).mean()


def pose_error(ours, truth):
    relative = (ours - ours[:, :1]) - (truth - truth[:, :1])
    return np.linalg.norm(relative[:, BODY_JOINTS], axis=-1).mean()


def test_people_keep_their_identity(body, crossing, tmp_path):
    people, seen = crossing
    file = RowFile(tmp_path)
    fill_rows(file, seen, 240)
    before = identity_score(file.view(), people)
    assemble_people(file, body, Clip(CAMERA, SIZE, FPS, Strengths()))
    after = identity_score(file.view(), people)
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
    np.testing.assert_allclose(rows["joints_2d_px"], project(joints, CAMERA), atol=0.01)


def test_raw_values_stay_as_they_came(assembled, alone):
    rows = assembled()
    given = {one.frame: one.person for one in alone[1]}
    for row in rows[~rows["interpolated"]]:
        person = given[int(row["frame_index"])]
        for name in PARAMETERS:
            np.testing.assert_array_equal(row[f"raw_{name}"], getattr(person, name))


def test_whole_image_solution_agrees_with_the_crops(assembled):
    """Median over joints and frames, 1280 x 720; unsmoothed."""
    rows = assembled(0.0)
    rows = rows[~rows["interpolated"]]
    error = np.linalg.norm(rows["joints_2d_px"] - rows["raw_joints_2d_px"], axis=-1)
    assert np.median(error) < 1.6


def test_people_who_are_near_match_the_crops(body):
    """People of some 450 pixels."""
    rng = np.random.default_rng(3)
    people = walkers(body, rng, 2, 40, crossing=False, distance_m=(4, 4.5))
    seen = estimates(body, rng, people)
    rows = np.stack([row_of(1, one.frame, one.score, one.person) for one in seen])
    place_rows(rows, CAMERA, SIZE)
    error = np.linalg.norm(rows["joints_2d_px"] - rows["raw_joints_2d_px"], axis=-1)
    assert np.median(np.ptp(rows["raw_joints_2d_px"][..., 1], axis=1)) > 400
    assert np.median(error) < 2.0  # least squares alone: 2.7


def test_blocks_join_without_a_seam(assembled, monkeypatch):
    whole = assembled()
    monkeypatch.setattr(refine, "BLOCK", 32)
    parts = assembled()
    for name in ("global_orient", "body_pose", "transl", "joints_3d_m"):
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-4)


def test_single_image_keeps_its_values_but_for_the_camera(body, alone, tmp_path):
    file = RowFile(tmp_path)
    one = alone[1][10]
    file.append(row_of(1, 0, one.score, one.person))
    assemble_people(file, body, Clip(CAMERA, SIZE, FPS, Strengths().times(0)))
    (row,) = file.view()
    for name in ("body_pose", "left_hand_pose", "jaw_pose", "betas", "expression"):
        np.testing.assert_array_equal(row[name], getattr(one.person, name))
    error = np.linalg.norm(row["joints_2d_px"] - one.person.joints_2d_px, axis=-1)
    assert np.median(error) < 0.015 * one.person.box_xywh[3]


def test_feet_find_the_floor(body, crossing, tmp_path):
    people, seen = crossing
    file = RowFile(tmp_path)
    fill_rows(file, seen, 240)
    assemble_people(file, body, Clip(CAMERA, SIZE, FPS, Strengths()))
    rows = file.view()
    plane = find_floor(rows, FPS)
    assert plane is not None
    assert plane.up @ [0, -1, 0] > np.cos(np.radians(6))
    feet = [JOINTS.index(name) for name in FOOT_JOINTS]
    true_floor = np.median([one.joints[:, feet, 1].max(axis=1) for one in people])
    assert plane.height == pytest.approx(-true_floor, abs=0.15)
    assert rows["foot_contact"].shape[1] == len(FOOT_JOINTS)
    assert 0.1 < rows["foot_contact"].mean() < 0.9


def rows_of_people(lengths):
    rows = np.zeros(sum(lengths), ROW)
    rows["person"] = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    rows["box_xywh"] = [0, 0, 10, 20]
    return rows


def test_choice_of_people():
    rows = rows_of_people([5, 9, 7])
    assert choose_people(rows, None, None) == {1, 2, 3}
    assert choose_people(rows, None, 2) == {2, 3}
    assert choose_people(rows, "3,1", None) == {1, 3}
    assert choose_people(rows, "3, 1", 1) == {3}
    rows["box_xywh"][:5, 2] = 1000
    assert choose_people(rows, "largest", None) == {1}
    with pytest.raises(UserError, match="nobody found by that number; there are 1, 2, 3"):
        choose_people(rows, "4", None)


@pytest.mark.parametrize("word", ["tallest", "0", "1,", "-1", "1.5"])
def test_wrong_choices_are_refused(word):
    with pytest.raises(UserError, match="--person"):
        check_person_flag(word)


def test_strength_of_smoothing():
    assert [smoothing_factor(word) for word in ("auto", "off", "0.5")] == [1, 0, 0.5]
    for word in ("much", "-1", "nan", "1e9"):
        with pytest.raises(UserError, match="--smooth"):
            smoothing_factor(word)


def test_interpolated_frames_say_nothing_about_the_shape(assembled):
    rows = assembled()
    assert (confidence({name: rows[name] for name in CONFIDENCE})[rows["interpolated"]] == 0).all()
    assert len(people_of(rows)) == 1
