"""Others' keypoints: files as OpenPose, MMPose and AlphaPose write them, and bad ones."""

import json

import numpy as np
import pytest

from human_models.joints import COCO_KEYPOINTS, FACE_KEYPOINTS, HAND_KEYPOINTS, JOINTS
from main.motion.rows import KeypointSource
from main.pipeline.detection import Detection
from main.pipeline.keypoint_files import KeypointFileDetector, read_keypoints
from utils.camera import Box
from utils.errors import UserError

IMAGE = np.zeros((4, 4, 3), np.uint8)


def points(count, first=0.0):
    """x = number of the point, y = 1000 + number, score 0.5."""
    number = np.arange(count) + first
    return np.stack([number, 1000 + number, np.full(count, 0.5)], axis=1)


def flat(values):
    return values.ravel().tolist()


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def openpose(**changed):
    person = {
        "person_id": [-1],
        "pose_keypoints_2d": flat(points(25)),
        "face_keypoints_2d": flat(points(70, 100)),
        "hand_left_keypoints_2d": flat(points(21, 200)),
        "hand_right_keypoints_2d": flat(points(21, 300)),
        "pose_keypoints_3d": [],
    }
    return {"version": 1.3, "people": [person | changed]}


def check(keypoints, expected):
    for name, number in expected.items():
        joint = JOINTS.index(name)
        assert keypoints.px[joint].tolist() == [number, 1000 + number], name
        assert keypoints.score[joint] == 0.5, name
        assert keypoints.source[joint] == KeypointSource.FILE, name


def test_openpose(tmp_path):
    for frame in (0, 12):
        write(tmp_path / f"walk_{frame:012d}_keypoints.json", openpose())
    write(tmp_path / "walk_000000000013_keypoints.json", {"version": 1.3, "people": []})
    frames = read_keypoints(tmp_path)
    assert {frame: len(people) for frame, people in frames.items()} == {0: 1, 12: 1, 13: 0}
    (person,) = frames[12]
    check(
        person,
        {
            "nose": 0,
            "right_shoulder": 2,
            "left_wrist": 7,  # of the body, not of the hand
            "right_ankle": 11,
            "left_eye": 16,
            "right_heel": 24,
            "face56": 100,  # the first of the contour
            "face5": 117,  # the first of the brows
            "face55": 167,
            "left_thumb1": 201,
            "left_pinky4": 220,
            "right_index4": 308,
        },
    )
    for unknown in ("neck", "pelvis", "face1"):
        assert person.score[JOINTS.index(unknown)] == 0


def test_openpose_without_hands_and_with_points_that_are_not_seen(tmp_path):
    body = points(25)
    body[4] = 0
    empty = {name: [] for name in ("face_keypoints_2d", "hand_left_keypoints_2d")}
    content = openpose(pose_keypoints_2d=flat(body), **empty)
    ((person,),) = read_keypoints(write(tmp_path / "a_keypoints.json", content)).values()
    check(person, {"right_wrist": 300, "left_wrist": 7})  # the hand's, as the body's is unknown
    assert person.score[JOINTS.index("left_thumb1")] == 0
    assert person.score[JOINTS.index("face20")] == 0


def mmpose(values):
    box = [[0.0, 0.0, 9.0, 9.0]]
    return {
        "keypoints": values[:, :2].tolist(),
        "keypoint_scores": values[:, 2].tolist(),
        "bbox": box,
        "bbox_score": 0.9,
    }


WHOLE_BODY = {
    **{name: k for k, name in enumerate(COCO_KEYPOINTS)},
    "left_big_toe": 17,
    "left_small_toe": 18,
    "left_heel": 19,
    "right_big_toe": 20,
    **{name: 23 + k for k, name in enumerate(FACE_KEYPOINTS)},
    **{name: 92 + k for k, name in enumerate(HAND_KEYPOINTS["left"][1:])},
    **{name: 113 + k for k, name in enumerate(HAND_KEYPOINTS["right"][1:])},
}


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("with_description", [False, True])
def test_mmpose_video(tmp_path, first, with_description):
    content = [
        {"frame_id": first, "instances": []},
        {"frame_id": first + 1, "instances": [mmpose(points(133)), mmpose(points(17))]},
    ]
    whole = {"meta_info": {}, "instance_info": content} if with_description else content
    frames = read_keypoints(write(tmp_path / "video.json", whole))
    assert [len(frames[k]) for k in (0, 1)] == [0, 2]
    check(frames[1][0], WHOLE_BODY)
    check(frames[1][1], {name: k for k, name in enumerate(COCO_KEYPOINTS)})


def test_mmpose_images(tmp_path):
    for name, count in (("b10", 2), ("b9", 1)):
        write(tmp_path / f"{name}.json", [mmpose(points(133))] * count)
    frames = read_keypoints(tmp_path)
    assert [len(frames[k]) for k in (0, 1)] == [1, 2]  # b9 before b10


@pytest.mark.parametrize(
    ("count", "some"),
    [
        (17, {"right_ankle": 16}),
        (26, {"right_ankle": 16, "left_big_toe": 20, "right_heel": 25}),
        (133, WHOLE_BODY),
        (136, {"right_heel": 25, "face56": 26, "left_thumb1": 95, "right_pinky4": 135}),
    ],
)
def test_alphapose(tmp_path, count, some):
    def person(image):
        return {
            "image_id": image,
            "category_id": 1,
            "keypoints": flat(points(count)),
            "score": 2.9,
            "box": [0, 0, 9, 9],
            "idx": [0.0],
        }

    content = [person("0.jpg"), person("0.jpg"), person("7.jpg")]
    frames = read_keypoints(write(tmp_path / "alphapose-results.json", content))
    assert {frame: len(people) for frame, people in frames.items()} == {0: 2, 7: 1}
    check(frames[7][0], some)
    frames = read_keypoints(write(tmp_path / "photos.json", [person("b.jpg"), person("a2.png")]))
    assert sorted(frames) == [0, 1]


def test_scores_above_one_are_one_and_below_nothing_unknown(tmp_path):
    values = points(17)
    values[0, 2], values[1, 2] = 5.0, -0.2
    path = write(tmp_path / "a.json", [mmpose(values)])
    ((person,),) = read_keypoints(path).values()
    assert person.score[JOINTS.index("nose")] == 1
    assert person.score[JOINTS.index("left_eye")] == 0


def test_people_get_the_keypoints_that_overlap_them(tmp_path):
    near, far = points(17), points(17)
    near[:, :2] = np.random.default_rng(0).uniform(100, 200, (17, 2))
    far[:, :2] = near[:, :2] + 300
    frames = read_keypoints(write(tmp_path / "a.json", [mmpose(far), mmpose(near)]))
    boxes = [Box(90, 90, 120, 120), Box(390, 390, 120, 120), Box(700, 0, 50, 50)]
    detector = KeypointFileDetector(lambda *_: [Detection(box, 0.9) for box in boxes], frames)
    first, second, third = (one.keypoints for one in detector(0, IMAGE))
    np.testing.assert_allclose(first.px[JOINTS.index("nose")], near[0, :2])
    np.testing.assert_allclose(second.px[JOINTS.index("nose")], far[0, :2])
    assert not third.score.any()
    assert not any(one.keypoints.score.any() for one in detector(1, IMAGE))


BAD = {
    "nothing": ("", "not readable as JSON"),
    "number": ("3", "not keypoints of"),
    "numbers": ("[3]", "not keypoints of"),
    "empty": ("[]", "no keypoints of people in it"),
    "nobody": ('{"people": []}', "no keypoints of people in it"),
    "no pose": ('{"people": [{}]}', "no pose_keypoints_2d"),
    "no person": ('{"people": [1]}', "no pose_keypoints_2d"),
    "BODY_18": (json.dumps({"people": [{"pose_keypoints_2d": [1] * 54}]}), "54 numbers, expected"),
    "text": ('{"people": [{"pose_keypoints_2d": ["a"]}]}', "not plain numbers"),
    "ragged": ('[{"keypoints": [[1, 2], [1]], "keypoint_scores": [1, 1]}]', "not plain numbers"),
    "flat": ('[{"keypoints": [1, 2], "keypoint_scores": [1, 1]}]', "expected"),
    "no scores": ('[{"keypoints": [[1, 2]]}]', "no keypoints with keypoint_scores"),
    "few": ('[{"keypoints": [[1, 2]], "keypoint_scores": [1]}]', "1 keypoints, expected one of"),
    "instances": ('[{"frame_id": 0, "instances": 3}]', "not a list"),
    "frame": ('[{"frame_id": "x", "instances": []}]', "not a frame number"),
    "frame below 0": ('[{"frame_id": -1, "instances": []}]', "not a frame number"),
    "alphapose": ('[{"image_id": "a", "keypoints": [1, 2]}]', "not a list of x, y, score"),
    "nan": ('[{"keypoints": [[NaN, 2]], "keypoint_scores": [1]}]', "not readable as JSON"),
    "far": ('[{"keypoints": [[1e30, 2]], "keypoint_scores": [1]}]', "beyond any image"),
    "nested": ('[{"image_id": "a", "keypoints": [[[1]]]}]', "not a list of x, y, score"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line(tmp_path, case):
    text, message = BAD[case]
    path = tmp_path / "keypoints.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_keypoints(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files(tmp_path):
    with pytest.raises(UserError, match="no such file of keypoints"):
        read_keypoints(tmp_path / "gone.json")
    with pytest.raises(UserError, match="no keypoints of people in it"):
        read_keypoints(tmp_path)
