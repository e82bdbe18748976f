"""Keypoints that other programs found: files of OpenPose, MMPose and AlphaPose.

OpenPose    a folder with one NAME_keypoints.json per frame: BODY_25, hands, face
MMPose      one .json with the frames of a video, or a folder with one per image
AlphaPose   one .json with the people of all frames

Frames are numbered from 0, as in the result.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float, UInt8

from human_models.joints import (
    COCO_KEYPOINTS,
    FACE_KEYPOINTS,
    HAND_KEYPOINTS,
    JOINTS,
    joint_places,
)
from main.motion.rows import Keypoints, KeypointSource
from main.pipeline.detection import Detection, Detector, pairs
from utils.camera import Box
from utils.errors import UserError
from utils.files import read_json
from utils.image import natural_key

Frames = dict[int, list[Keypoints]]
_WHAT: Final = "file of keypoints"
_VIDEO_FRAME: Final = re.compile(r"_([0-9]{12})_keypoints\.json$")
"""OpenPose numbers the frames of a video with twelve digits."""
_MOST_FRAMES: Final = 10_000_000
_LARGEST_PX: Final = 1e6
_LEAST_OVERLAP: Final = 0.1
"""Least overlap of a person's box with the bounding box of the keypoints."""

_LEFT, _RIGHT = HAND_KEYPOINTS["left"], HAND_KEYPOINTS["right"]
_UNUSED: Final = ""
"""Name of points that are not used, such as the middle of the hips."""
# fmt: off
_BODY_25: Final = (
    "nose", _UNUSED, "right_shoulder", "right_elbow", "right_wrist",
    "left_shoulder", "left_elbow", "left_wrist", _UNUSED, "right_hip", "right_knee", "right_ankle",
    "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear",
    "left_big_toe", "left_small_toe", "left_heel",
    "right_big_toe", "right_small_toe", "right_heel",
)
_WHOLE_BODY: Final = (
    *COCO_KEYPOINTS, "left_big_toe", "left_small_toe", "left_heel",
    "right_big_toe", "right_small_toe", "right_heel",
    *FACE_KEYPOINTS, *_LEFT, *_RIGHT,
)
_HALPE_26: Final = (
    *COCO_KEYPOINTS, *[_UNUSED] * 3, "left_big_toe", "right_big_toe",
    "left_small_toe", "right_small_toe", "left_heel", "right_heel",
)
# fmt: on
_PEOPLE: Final = {
    len(names): names
    for names in (
        COCO_KEYPOINTS,
        _HALPE_26,
        _WHOLE_BODY,
        (*_HALPE_26, *FACE_KEYPOINTS, *_LEFT, *_RIGHT),
    )
}
"""Names of a person's points by their number: COCO, Halpe (short and whole), COCO-WholeBody."""
_OPENPOSE: Final = {
    "pose_keypoints_2d": _BODY_25,
    "hand_left_keypoints_2d": _LEFT,
    "hand_right_keypoints_2d": _RIGHT,
    "face_keypoints_2d": (*FACE_KEYPOINTS, _UNUSED, _UNUSED),
}


def read_keypoints(path: Path) -> Frames:
    """Read the people of each frame.

    Raises:
        UserError: the file is missing or in another format; the message names it.
    """
    frames = _read_folder(path) if path.is_dir() else _frames(read_json(path, _WHAT), path)
    if not any(frames.values()):
        raise UserError(f"{path}: there are no keypoints of people in it")
    return frames


def _read_folder(folder: Path) -> Frames:
    """One file per frame, by OpenPose's numbers if all have one, else in natural order."""
    files = sorted(folder.glob("*.json"), key=natural_key)
    numbers = [match and int(match[1]) for match in map(_VIDEO_FRAME.search, map(str, files))]
    frames: Frames = {}
    for place, (path, number) in enumerate(zip(files, numbers, strict=True)):
        people = [one for frame in _frames(read_json(path, _WHAT), path).values() for one in frame]
        frames[place if number is None or None in numbers else number] = people
    return frames


def _frames(content: Any, path: Path) -> Frames:
    if isinstance(content, dict) and isinstance(content.get("people"), list):
        return {0: [_openpose_person(one, path) for one in content["people"]]}
    if isinstance(content, dict) and isinstance(content.get("instance_info"), list):
        content = content["instance_info"]  # of MMPose's demos, behind a description of the joints
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise UserError(f"{path}: these are not keypoints of OpenPose, MMPose or AlphaPose")
    if content and all("instances" in one for one in content):
        return _mmpose_frames(content, path)
    if content and all("image_id" in one for one in content):
        return _alphapose_frames(content, path)
    return {0: [_mmpose_person(one, path) for one in content]}


def _openpose_person(person: Any, path: Path) -> Keypoints:
    keypoints = Keypoints.unknown()
    if not isinstance(person, dict) or not any(person.get(name) for name in _OPENPOSE):
        raise UserError(f"{path}: one of its people has no pose_keypoints_2d")
    for name, joints in _OPENPOSE.items():
        if person.get(name):
            values = _numbers(person[name], path, name)
            if values.size != 3 * len(joints):
                count = f"{values.size} numbers, expected {3 * len(joints)}"
                raise UserError(f"{path}: {name} has {count} (OpenPose's BODY_25, hands, face)")
            _enter(keypoints, joints, values.reshape(-1, 3))
    return keypoints


def _mmpose_frames(content: list[dict[str, Any]], path: Path) -> Frames:
    numbers = [_frame_number(one.get("frame_id"), path) for one in content]
    first = min(1, *numbers)  # the demos of MMPose count from 1, its inferencer from 0
    frames: Frames = {}
    for number, one in zip(numbers, content, strict=True):
        if not isinstance(one["instances"], list):
            raise UserError(f"{path}: the instances of frame {number} are not a list")
        people = [_mmpose_person(person, path) for person in one["instances"]]
        frames.setdefault(number - first, []).extend(people)
    return frames


def _mmpose_person(person: Any, path: Path) -> Keypoints:
    if not isinstance(person, dict) or not {"keypoints", "keypoint_scores"} <= person.keys():
        raise UserError(f"{path}: one of its people has no keypoints with keypoint_scores")
    points = _numbers(person["keypoints"], path, "keypoints")
    scores = _numbers(person["keypoint_scores"], path, "keypoint_scores")
    if points.ndim != 2 or points.shape[1] != 2 or scores.shape != points.shape[:1]:
        shapes = f"{points.shape} and {scores.shape}"
        raise UserError(f"{path}: keypoints and keypoint_scores are {shapes}, expected (N, 2), (N)")
    return _person(np.column_stack([points, scores]), path)


def _alphapose_frames(content: list[dict[str, Any]], path: Path) -> Frames:
    """By the numbers that are the names of a video's frames, else the images in natural order."""
    names = [str(one["image_id"]) for one in content]
    order = sorted(set(names), key=lambda name: natural_key(Path(name)))
    places = {name: place for place, name in enumerate(order)}
    if all(Path(name).stem.isdecimal() for name in order):
        places = {name: _frame_number(int(Path(name).stem[:12]), path) for name in order}
    frames: Frames = {}
    for name, one in zip(names, content, strict=True):
        values = _numbers(one.get("keypoints"), path, "keypoints")
        if values.ndim != 1 or values.size % 3:
            raise UserError(
                f"{path}: keypoints of {name[:60]} are not a list of x, y, score, x, ..."
            )
        frames.setdefault(places[name], []).append(_person(values.reshape(-1, 3), path))
    return frames


def _person(values: Float[np.ndarray, "N 3"], path: Path) -> Keypoints:
    """A person by x, y, score of each point; which set it is, their number says."""
    if len(values) not in _PEOPLE:
        known = ", ".join(map(str, sorted(_PEOPLE)))
        raise UserError(f"{path}: a person has {len(values)} keypoints, expected one of {known}")
    keypoints = Keypoints.unknown()
    _enter(keypoints, _PEOPLE[len(values)], values)
    return keypoints


def _enter(keypoints: Keypoints, names: Sequence[str], values: Float[np.ndarray, "N 3"]) -> None:
    """Write points by their names; what is known stays: wrists of hands come after the body's."""
    used = [
        row
        for row, name in enumerate(names)
        if name != _UNUSED and not keypoints.score[JOINTS.index(name)]
    ][::-1]  # of a name that is there twice, the first one is written last
    places = joint_places([names[row] for row in used])
    keypoints.enter(places, values[used, :2], values[used, 2], KeypointSource.FILE)


def _numbers(values: Any, path: Path, name: str) -> np.ndarray:
    try:
        array = np.array(values, dtype=object)
        plain = all(type(value) in (int, float) for value in array.ravel())
    except ValueError:  # lists of different lengths
        plain = False
    if not plain or not array.size:
        raise UserError(f"{path}: {name} of one of its people are not plain numbers")
    numbers = array.astype(np.float64)
    if np.abs(numbers).max() > _LARGEST_PX:
        raise UserError(f"{path}: {name} of one of its people are beyond any image")
    return numbers


def _frame_number(value: Any, path: Path) -> int:
    if type(value) is not int or not 0 <= value < _MOST_FRAMES:
        raise UserError(f"{path}: a frame_id or image_id is not a frame number")
    return value


class KeypointFileDetector:
    """People with the keypoints of a file, of whoever's overlap the most."""

    def __init__(
        self,
        detector: Detector,
        frames: Mapping[int, Sequence[Keypoints]],
        first: int = 0,
        reduction: int = 1,
    ) -> None:
        """Join a detector with what was read.

        Args:
            first: the frame of the file that is frame 0 here.
            reduction: pixels of the file for one of the frame.
        """
        self.detector, self.frames = detector, frames
        self.first, self.reduction = first, reduction

    def __call__(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        detections = self.detector(index, image)
        keypoints = [
            one._replace(px=one.px / self.reduction)
            for one in self.frames.get(self.first + index, [])
            if one.score.any()
        ]
        given = [Keypoints.unknown()] * len(detections)
        boxes, others = [one.box for one in detections], [_extent(one) for one in keypoints]
        for person, other in pairs(boxes, others, _LEAST_OVERLAP):
            given[person] = keypoints[other]
        return [one._replace(keypoints=mine) for one, mine in zip(detections, given, strict=True)]


def _extent(keypoints: Keypoints) -> Box:
    known = keypoints.px[keypoints.score > 0]
    low, high = known.min(axis=0), known.max(axis=0)
    return Box(*low.tolist(), *np.maximum(high - low, 1).tolist())
