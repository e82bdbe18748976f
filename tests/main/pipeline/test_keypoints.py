"""Keypoints of the built-in networks: on a photograph, on people of whom the truth is known."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from human_models.joints import FACE_KEYPOINTS, HAND_KEYPOINTS, JOINTS, SIDES, joint_places
from main.motion.kinematics import DEPTH_JOINTS
from main.motion.rows import Keypoints, KeypointSource
from main.pipeline.detection import Detection
from main.pipeline.keypoints import (
    FoundPerson,
    KeypointFinder,
    Part,
    _Arm,
    _each_hand_once,
    _enter_pose,
    _hand_square,
    _without_shared,
)
from main.pipeline.networks import Square, is_same_body, without_shared_limbs
from main.pipeline.stages import KeypointDetector, moved_box
from utils.camera import Box
from utils.image import read_image

ASTRONAUT = Path(find_spec("skimage").origin).parent / "data" / "astronaut.png"
BOX = Box(14.0, 9.8, 345.3, 497.6)
EXPECTED = json.loads((Path(__file__).parent / "astronaut_keypoints.json").read_text())
"""x, y by joint, in pixels; checked by eye."""


@pytest.fixture(scope="module")
def finder():
    return KeypointFinder(2)


@pytest.fixture(scope="module")
def astronaut():
    return read_image(ASTRONAUT)


def test_keypoints_of_a_photograph(finder, astronaut):
    (found,) = finder(astronaut, [BOX], [None])
    px, score, depth, source = found.keypoints
    for name, point in EXPECTED.items():
        joint = JOINTS.index(name)
        assert score[joint] > 0.3, name
        np.testing.assert_allclose(px[joint], point, atol=2, err_msg=name)
    face = joint_places(FACE_KEYPOINTS)
    assert (source[face] == KeypointSource.FACE).all()
    left, right = joint_places(["left_eye", "right_eye"])
    assert px[left, 0] > px[right, 0] + 20  # her left eye is on the right of the picture
    # Contour and eyes of the face's network are on the same sides.
    assert px[face[16], 0] > px[face[0], 0] + 40
    assert px[face[45], 0] > px[face[36], 0] + 20
    unknown = score == 0
    assert unknown.any()
    assert not px[unknown].any()
    assert not source[unknown].any()
    # She sits, so her left knee, below the picture, is nearer to the camera than her hips.
    assert depth[JOINTS.index("left_knee")] < -0.15
    assert (abs(depth[DEPTH_JOINTS[:2]]) < 0.3).all()


def test_the_next_frame_starts_from_the_last_one(finder, astronaut):
    (first,) = finder(astronaut, [BOX], [None])
    (again,) = finder(astronaut, [BOX], [first])
    face = joint_places(FACE_KEYPOINTS)
    apart = np.linalg.norm(again.keypoints.px[face] - first.keypoints.px[face], axis=1)
    assert again.keypoints.score[face].all()
    assert apart.mean() < 2


def test_nobody_in_the_box_and_boxes_outside(finder):
    image = np.zeros((60, 80, 3), np.uint8)
    boxes = [Box(0, 0, 80, 60), Box(-500, -500, 3, 4), Box(20, 20, 0.5, 0.5)]
    for found in finder(image, boxes, [None] * 3):
        assert np.isfinite(found.keypoints.px).all()
        assert not (found.keypoints.score[25:] > 0).any()


def test_a_square_is_cut_out_upright():
    image = np.zeros((100, 100, 3), np.uint8)
    image[20:40, 60:80] = 255  # to the upper right of the centre
    square = Square((50, 50), 80, np.pi / 4)  # a part that points there
    crop = square.cut(image, 40)[..., 0]
    rows, columns = np.nonzero(crop)
    assert abs(columns.mean() - 20) < 1.5
    assert rows.mean() < 12
    point = square.in_image(np.array([[columns.mean(), rows.mean()]]), 40)
    np.testing.assert_allclose(point, [[69.5, 29.5]], atol=1)


def test_one_hand_is_not_both():
    points = np.random.default_rng(0).uniform(40, 60, (21, 2))
    body = np.zeros((17, 3))
    body[9, :2], body[10, :2] = (300, 300), (45, 45)
    left = Part(points, 0.9, Square((50, 50), 40))
    right = Part(points + 1, 0.8, Square((50, 50), 40))
    assert _without_shared([left, right], body) == [None, right]
    apart = right._replace(points=points + 100)
    assert _without_shared([left, apart], body) == [left, apart]
    body[9, :2], body[9:11, 2] = (54, 45), 0.5  # pressed together: both wrists are there
    assert _without_shared([left, right], body) == [left, right]
    body[9, :2] = (47, 45)  # both are the wrist of one hand
    assert _without_shared([left, right], body).count(None) == 1


def test_a_box_moves_with_the_keypoints():
    before = np.random.default_rng(0).uniform(20, 80, (17, 3))
    before[:, 2] = 0.9
    now = before.copy()
    now[:, :2] = before[:, :2] * 1.05 + [7, -3]
    now[3, :2] = 500  # one that jumped
    now[3, 2] = 0.1
    box = moved_box(Box(10, 10, 80, 90), before, now)
    np.testing.assert_allclose(box, [10 * 1.05 + 7, 10 * 1.05 - 3, 84, 94.5], atol=1e-6)
    assert moved_box(Box(10, 10, 80, 90), before * [1, 1, 0.1], now) is None


def test_the_detector_runs_where_somebody_may_be_new(finder, astronaut):
    asked = []

    def detector(index, image):
        asked.append(index)
        return [Detection(BOX, 0.7)] if image.any() else []

    following = KeypointDetector(detector, finder, 4)
    black = np.zeros_like(astronaut)
    frames = [black, black, *[astronaut] * 6, black, astronaut]
    found = [following(index, image) for index, image in enumerate(frames)]
    # Each frame until somebody is there, then every fourth, and where she is lost.
    assert asked == [0, 1, 2, 6, 8, 9]
    assert [len(people) for people in found] == [0, 0, 1, 1, 1, 1, 1, 1, 0, 1]
    for (one,) in found[2:8]:
        np.testing.assert_allclose(one.box, BOX, atol=3)
        assert one.score == 0.7
        assert one.keypoints is not None
        assert one.keypoints.score[JOINTS.index("nose")] > 0.3


@pytest.mark.parametrize(("interval", "people"), [(4, 0), (None, 1)])
def test_a_new_box_without_keypoints_is_nobody_unless_it_is_of_a_file(interval, people, finder):
    following = KeypointDetector(lambda *_: [Detection(BOX, 0.7)], finder, interval)
    assert len(following(0, np.zeros((512, 512, 3), np.uint8))) == people


@pytest.mark.parametrize(("others", "people"), [(0.05, 0), (0.2, 1)])
def test_a_new_box_with_few_keypoints_is_of_a_thing(others, people, finder, monkeypatch):
    body = np.full((17, 3), others)
    body[11:15, 2] = 0.3  # as the base of a swivel chair has legs
    found = FoundPerson(Keypoints.unknown(), body, None, (None, None), None)
    monkeypatch.setattr(finder, "_find", lambda *_: found)
    following = KeypointDetector(lambda *_: [Detection(BOX, 0.7)], finder, 4)
    assert len(following(0, np.zeros((512, 512, 3), np.uint8))) == people


def test_depths_are_of_points_that_are_the_joints_of_the_body_or_unknown_to_it():
    keypoints, pose = Keypoints.unknown(), np.zeros((39, 4))
    keypoints.score[DEPTH_JOINTS[:2]], keypoints.px[DEPTH_JOINTS[0]] = 1, [50, 0]
    pose[[11, 12, 25], 3] = 0.1, 0.2, 0.3
    _enter_pose(keypoints, pose, 20)
    assert keypoints.depth_m[DEPTH_JOINTS].tolist() == [0, 0.2, 0.3, 0, 0, 0]


def test_feet_are_seen_from_the_ankles_of_the_body():
    keypoints, pose = Keypoints.unknown(), np.zeros((39, 4))
    ankles, feet = (
        [JOINTS.index(f"{side}_{name}") for name in names for side in SIDES]
        for names in (("ankle",), ("heel", "big_toe"))
    )
    pose[[27, 28], :2], pose[29:33, :2] = (
        [[10, 90], [40, 90]],
        [[8, 95], [38, 95], [20, 99], [50, 99]],
    )
    pose[29:33, 2] = 0.9
    keypoints.enter(ankles, pose[[27, 28], :2] + [[3, 4], [30, 0]], np.ones(2), KeypointSource.BODY)
    _enter_pose(keypoints, pose, 20)
    assert keypoints.score[feet].tolist() == [0.9, 0, 0.9, 0]
    assert keypoints.px[feet][::2].tolist() == [[11, 99], [23, 103]]
    unknown = Keypoints.unknown()
    _enter_pose(unknown, pose, 200)
    assert not unknown.score.any()


def test_hands_are_in_the_order_of_the_joints():
    for side in SIDES:
        places = joint_places(HAND_KEYPOINTS[side])
        assert JOINTS[places[0]] == f"{side}_wrist"
        assert places[1:] == list(range(places[1], places[1] + 20))


def test_a_hand_that_two_people_have_is_of_the_nearer_wrist():
    hand = np.random.default_rng(0).uniform(40, 60, (20, 2))
    people = []
    for wrist, shift in (((90, 90), 0), ((45, 45), 1)):
        keypoints = Keypoints.unknown()
        places = joint_places(HAND_KEYPOINTS["left"][1:])
        keypoints.enter(places, hand + shift, np.full(20, 0.9), KeypointSource.HAND)
        body = np.zeros((17, 3))
        body[9] = (*wrist, 0.9)
        hand_before = Part(np.zeros((21, 2)), 0.9, Square((50, 50), 40))
        people.append(FoundPerson(keypoints, body, None, (hand_before, None), None))
    first, second = _each_hand_once(people)
    assert not first.keypoints.score.any()
    assert first.hands == (None, None)
    assert second.keypoints.score[places].all()
    assert second.hands[0] is not None


HAND = np.random.default_rng(1).uniform(-10, 10, (21, 2)) + 50
HAND[0] = 50
ARM = _Arm(np.array([50, 50, 0.3]), 30.0)


def hand(presence, points=HAND):
    return Part(points, presence, Square((50, 50), 40))


def test_a_hand_is_at_its_wrist_and_a_faint_one_is_as_large_as_hands_are():
    assert ARM.accepted(hand(0.8), 0.2) == hand(0.8)
    assert ARM.accepted(hand(0.8, HAND + 20), 0.2) is None
    faint = ARM.accepted(hand(0.3), 0.2)
    assert faint is not None
    assert faint.score == 0.25
    assert ARM.accepted(hand(0.1), 0.2) is None
    assert ARM.accepted(hand(np.nan), 0.0) is None
    for length in (0.0, 5.0, 300.0):
        assert ARM._replace(length=length).accepted(hand(0.3), 0.2) is None
        assert ARM._replace(length=length).accepted(hand(0.8), 0.2) is not None
    unseen = ARM._replace(wrist=np.array([50, 50, 0.2]))
    assert unseen.accepted(hand(0.3), 0.2) is None


class Hands(KeypointFinder):
    """Finds the given hands, one after the other."""

    hand_network = None

    def __init__(self, *found):
        self.found, self.squares = list(found), []

    def _part(self, network, image, square, runs, following):
        self.squares.append((square, runs))
        return self.found.pop(0)


NOTHING = np.zeros((4, 4, 3), np.uint8)
START = Square((55, 55), 50, 0.3)
BEFORE = Square((52, 52), 45, 0.1)


@pytest.mark.parametrize(
    ("apart", "presence", "expected"),
    [(1.0, 0.0, 0.25), (9.0, 0.0, None), (9.0, 0.3, 0.25), (9.0, 0.7, 0.7)],
)
def test_two_looks_at_a_hand_without_presence_must_agree(apart, presence, expected):
    """It is in the image where the turned square gives the same points, or presence."""
    finder = Hands(hand(0.0), hand(presence, HAND + [apart, 0] * (np.arange(21) > 0)[:, None]))
    found = finder._hand(NOTHING, ARM, START, None, searches_twice=True)
    assert (found and found.score) == expected
    assert [runs for _, runs in finder.squares] == [2, 3]
    assert finder.squares[1][0].angle != START.angle
    if apart == 1:
        np.testing.assert_allclose(found.points[1:], HAND[1:] + np.array([0.5, 0]))
        assert found.following.side > 10


def test_a_lost_hand_is_not_looked_for_twice_in_each_frame():
    finder = Hands(hand(0.0), hand(0.0))
    sure = hand(0.9)._replace(following=BEFORE)
    assert finder._hand(NOTHING, ARM, START, sure, searches_twice=False) is None
    assert finder.squares == [(BEFORE, 1), (START, 2)]


@pytest.mark.parametrize("searches_twice", [False, True])
def test_a_faint_hand_is_followed_without_presence_from_look_to_look(searches_twice):
    finder = Hands(hand(0.0), hand(0.0), hand(0.0, HAND + 8))
    faint = hand(0.25)._replace(following=BEFORE)
    found = finder._hand(NOTHING, ARM, START, faint, searches_twice=searches_twice)
    assert (found is None) == searches_twice
    assert len(finder.squares) == (3 if searches_twice else 1)


def test_blazepose_says_where_a_hand_is_only_from_the_wrist_of_the_body():
    body, pose = standing(50), np.ones((39, 4))
    pose[[15, 19, 17], :2] = body[9, :2], body[9, :2] + [6, 8], body[9, :2] + [6, 8]
    square = _hand_square(body, pose, 0)
    np.testing.assert_allclose([*square.center, square.side], [*body[9, :2] + [7.2, 9.6], 40])
    pose[[15, 19, 17], 0] += 30  # as of somebody else
    assert _hand_square(body, pose, 0) == _hand_square(body, None, 0)


def standing(x, y=0.0):
    """A body of 100 pixels' height that stands upright, seen from the front."""
    half = np.array([0, 2, -2, 4, -4, 9, -9, 12, -12, 13, -13, 6, -6, 7, -7, 7, -7], float)
    down = np.array([6, 4, 4, 5, 5, 20, 20, 34, 34, 47, 47, 52, 52, 74, 74, 96, 96], float)
    return np.column_stack([x + half, y + down, np.full(17, 0.9)])


def test_a_body_is_the_same_from_behind_and_not_beside():
    body, mirrored = standing(50), standing(51)
    mirrored[1:] = mirrored[1:].reshape(8, 2, 3)[:, ::-1].reshape(16, 3)
    assert is_same_body(body, mirrored)
    assert not is_same_body(body, standing(75))
    assert not is_same_body(body, body * [1, 1, 0])


class Bodies(KeypointFinder):
    """Finds the body in front in every square, and another one where that is painted over."""

    def __init__(self, behind):
        self.behind = behind

    def _body(self, image, square, hidden=()):
        return self.behind if hidden else standing(50)


SQUARE = Square((50, 50), 125)


def test_a_body_that_two_people_have_is_whose_it_was():
    last = [standing(70), standing(51)]
    image = np.zeros((100, 100, 3), np.uint8)
    for behind, expected in (
        (standing(85), standing(85)),
        (standing(51), np.zeros((17, 3))),  # the one in front once more
        (standing(85) * [1, 1, 0.1], np.zeros((17, 3))),  # nobody
    ):
        bodies = [standing(50), standing(50)]
        finder = Bodies(behind)
        first, second = finder._each_body_once(image, [SQUARE, SQUARE], bodies, last)
        np.testing.assert_array_equal(second, standing(50))
        np.testing.assert_array_equal(first, expected)


def test_without_a_last_frame_a_body_is_whose_box_it_fills():
    squares = [Square((80, 50), 125), SQUARE]
    bodies = [standing(50), standing(50)]
    image = np.zeros((100, 100, 3), np.uint8)
    first, second = Bodies(standing(85))._each_body_once(image, squares, bodies, [None, None])
    np.testing.assert_array_equal(first, standing(85))
    np.testing.assert_array_equal(second, standing(50))


def test_limbs_on_those_of_somebody_in_front_are_unknown():
    body = standing(85)
    body[9] = standing(50)[10]  # a wrist on the other's other wrist
    result = without_shared_limbs(body, [standing(50)])
    assert not result[9].any()
    np.testing.assert_array_equal(np.delete(result, 9, 0), np.delete(body, 9, 0))


def test_a_person_behind_one_who_is_painted_over_is_found(finder, astronaut):
    """Two copies side by side in one box: the network finds one, and without it the other."""
    image = np.concatenate([astronaut, astronaut], axis=1)
    boxes = [BOX, BOX._replace(x=BOX.x + astronaut.shape[1])]
    found = finder(image, boxes, [None, None])
    square = Square((astronaut.shape[1], 256), 1.25 * 1024)
    again = finder._body(image, square, [found[0].body])
    assert is_same_body(again, found[1].body)
    again = finder._body(image, square, [found[1].body])
    assert is_same_body(again, found[0].body)
