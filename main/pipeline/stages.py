"""The steps of inference for each frame: detect, follow, track, crop, estimate, place.

Each step is a generator that reads from the last one; only a few batches of frames are in memory.
"""

import itertools
import logging
from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from main.motion.camera import ASSUMED, PELVIS, TURNS, Clip, place_bodies, truncation
from main.motion.camera_motion import CameraTracker
from main.motion.result_names import input_ids
from main.motion.result_reader import open_result
from main.motion.rows import PARAMETERS, RAW_ROW, Keypoints, KeypointSource, RawRows
from main.pipeline.detection import Detection, Detector, import_ultralytics, pairs
from main.pipeline.estimator import AT_ONCE, Estimator, Person, PersonCrop
from main.pipeline.keypoints import SOURCES, FoundPerson, KeypointFinder
from utils.camera import Box, intersection_over_union
from utils.errors import UserError, printable
from utils.iteration import parallel_map
from utils.source import Frame

INTERVAL_S: Final = 0.2
"""Time between two runs of the detector while everyone is followed by their keypoints."""
_MIN_OVERLAP: Final = 0.3
"""Least overlap (intersection over union) of the boxes of one person in two frames."""
_MAX_OVERLAP: Final = 0.8
"""Overlap of two people's boxes above which the detector runs: they may be the same person."""
_MIN_SCORE: Final = 0.2
"""Least score of the keypoints that move a box."""
_MIN_KEYPOINTS: Final = 3
"""Least number of such keypoints."""
_MIN_NEW_CONFIDENCE: Final = 0.15
"""Least mean score of the body's keypoints of a new person; chairs have 0.07 to 0.13."""
_MIN_RELATIVE_CONFIDENCE: Final = 0.6
"""Least mean score of the keypoints, relative to that at detection; below it a person is lost."""
_MAX_GROWTH: Final = 1.1
"""Largest factor by which a box grows or shrinks from one frame to the next."""


class _Followed(NamedTuple):
    detection: Detection
    found: FoundPerson
    confidence: float
    """Mean score of the body's keypoints when the person was detected."""


class KeypointDetector:
    """Finds people and their keypoints, by the built-in networks, in consecutive frames of a clip.

    The detector runs at fixed intervals, where nobody was found, and where somebody is lost. In
    between, boxes move with the keypoints.
    """

    def __init__(self, detector: Detector, finder: KeypointFinder, interval: int | None) -> None:
        """Begin a clip.

        Args:
            interval: number of frames from one run of the detector to the next. None: the detector
                runs in each frame, and all people that it finds are kept.
        """
        self.detector, self.finder, self.interval = detector, finder, interval
        self.people: list[_Followed] = []
        self.detected_ago = 0

    def __call__(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[Detection]:
        self.detected_ago += 1
        followed = None
        if self.people and self.detected_ago < (self.interval or 1):
            followed = self._follow(image)
        if followed is None:
            followed = self._detect(index, image)
            self.detected_ago = 0
        self.people = followed
        return [one.detection for one in followed]

    def _detect(self, index: int, image: UInt8[np.ndarray, "H W 3"]) -> list[_Followed]:
        detections = self.detector(index, image)
        boxes = [one.box for one in detections]
        before: list[FoundPerson | None] = [None] * len(boxes)
        for new, old in pairs(boxes, [one.detection.box for one in self.people], _MIN_OVERLAP):
            before[new] = self.people[old].found
        found = self.finder(image, boxes, before)
        return [
            _Followed(one._replace(keypoints=person.keypoints), person, _confidence(person))
            for one, person, known in zip(detections, found, before, strict=True)
            if known or self.interval is None or _confidence(person) > _MIN_NEW_CONFIDENCE
        ]

    def _follow(self, image: UInt8[np.ndarray, "H W 3"]) -> list[_Followed] | None:
        """Move everyone with their keypoints; None: the detector must run."""
        boxes = [one.detection.box for one in self.people]
        found = self.finder(image, boxes, [one.found for one in self.people])
        followed = []
        for one, person in zip(self.people, found, strict=True):
            if (moved := _moved(one, person)) is None:
                return None
            followed.append(moved)
        array = np.array([one.detection.box for one in followed], np.float64)
        overlap = np.triu(intersection_over_union(array, array), 1)
        return None if (overlap > _MAX_OVERLAP).any() else followed


def _moved(one: _Followed, person: FoundPerson) -> _Followed | None:
    """Move a person with the keypoints; None: the person is lost."""
    box = moved_box(one.detection.box, one.found.body, person.body)
    if box is None or _confidence(person) < _MIN_RELATIVE_CONFIDENCE * one.confidence:
        return None
    moved = one.detection._replace(box=box, keypoints=person.keypoints)
    return one._replace(detection=moved, found=person)


def moved_box(
    box: Box, before: Float[np.ndarray, "17 3"], now: Float[np.ndarray, "17 3"]
) -> Box | None:
    """A box moved and scaled like keypoints (x, y, score); None if too few are known in both."""
    known = np.minimum(before[:, 2], now[:, 2]) > _MIN_SCORE
    if known.sum() < _MIN_KEYPOINTS:
        return None
    old, new = before[known, :2], now[known, :2]
    spread_before, spread_now = float(old.std(axis=0).sum()), float(new.std(axis=0).sum())
    growth = spread_now / max(spread_before, 1e-6)
    growth = min(max(growth, 1 / _MAX_GROWTH), _MAX_GROWTH)
    # The median over the keypoints is robust against one that jumps.
    center = np.median(new + growth * (np.array(box.center) - old), axis=0)
    width, height = box.width * growth, box.height * growth
    return Box(float(center[0] - width / 2), float(center[1] - height / 2), width, height)


def _confidence(person: FoundPerson) -> float:
    return float(person.body[:, 2].mean())


log = logging.getLogger(__name__)

READ_AHEAD: Final = 8
"""Number of frames that are decoded, and cropped, ahead of the next step."""
FRAMES_PER_BATCH: Final = 4
"""Largest number of frames, with or without people, that wait for a batch, in sizes of a batch."""
_MAX_DEPTH_M: Final = 1e5
"""Largest depth in the camera of a crop, whose focal length is long."""
_TRACKER: Final = {
    "track_high_thresh": 0.25,  # scores from which a detection may begin a track
    "track_low_thresh": 0.0,  # below `track_high_thresh` it can only go on with one
    "new_track_thresh": 0.25,
    "match_thresh": 0.8,  # largest 1 - overlap * score
    "fuse_score": True,
    "gmc_method": "none",  # the camera's own motion is not compensated
    "proximity_thresh": 0.5,
    "appearance_thresh": 0.8,
    "with_reid": False,
}
_MEMORY_S: Final = 2.5
"""Time for which a track without detections is kept."""
_DAMAGED_ADVICE: Final = "download its weights again, or choose --precision fp32"


class DetectedFrame(NamedTuple):
    frame: Frame
    detections: list[Detection]


class TrackedFrame(NamedTuple):
    """A frame with the detections in it and the number of each one's track."""

    frame: Frame
    detections: list[Detection]
    tracks: list[int]


class CroppedPerson(NamedTuple):
    """A person in a frame: the number of the track, the detection and the network's input."""

    track: int
    detection: Detection
    crop: PersonCrop


class CroppedFrame(NamedTuple):
    number: int
    people: list[CroppedPerson]


class EstimatedPerson(NamedTuple):
    track: int
    score: float
    person: Person
    keypoints: Keypoints | None = None


class EstimatedFrame(NamedTuple):
    number: int
    people: list[EstimatedPerson]


def detect_people(frames: Iterable[Frame], detector: Detector) -> Iterator[DetectedFrame]:
    """Find the people of each frame, of whom there may be none."""
    for frame in frames:
        yield DetectedFrame(frame, detector(frame.index, frame.image))


class _Boxes:
    """Detections in the form that the trackers of ultralytics expect."""

    def __init__(self, xywh: Float[np.ndarray, "N 4"], conf: Float[np.ndarray, " N"]) -> None:
        self.xywh, self.conf, self.cls = xywh, conf, np.zeros(len(conf))

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, chosen: Bool[np.ndarray, " N"]) -> "_Boxes":
        return _Boxes(self.xywh[chosen], self.conf[chosen])


class Tracker:
    """Assigns each detection to a track; tracks are numbered from 1, and no detection is dropped.

    This is BoT-SORT (Aharon et al., 2022) of ultralytics, with a Kalman filter and overlaps, but
    without appearance. Tracks of one person are joined after the video by their bodies: see
    main/motion/stitch.py.
    """

    def __init__(self, fps: float) -> None:
        import_ultralytics()
        from ultralytics.trackers.bot_sort import BOTSORT

        settings = SimpleNamespace(**_TRACKER, track_buffer=max(1, round(_MEMORY_S * fps)))
        self.tracker = BOTSORT(settings)
        self.new_number = itertools.count(1).__next__
        self.numbers: dict[int, int] = defaultdict(self.new_number)

    def __call__(self, detections: list[Detection]) -> list[int]:
        """Track numbers of the next frame's detections; to be called for empty frames, too."""
        rows = [[*one.box.center, one.box.width, one.box.height, one.score] for one in detections]
        array = np.array(rows, np.float32).reshape(-1, 5)
        usable = np.flatnonzero(np.isfinite(array).all(axis=1))
        self.tracker.update(_Boxes(array[usable, :4], array[usable, 4]))
        identities = [0] * len(detections)
        # Unlike the result of `update`, these include unconfirmed tracks of a single detection.
        for track in self.tracker.tracked_stracks:
            if track.frame_id == self.tracker.frame_id:
                identities[usable[int(track.idx)]] = self.numbers[track.track_id]
        return [identity or self.new_number() for identity in identities]


def track_people(frames: Iterable[DetectedFrame], tracker: Tracker) -> Iterator[TrackedFrame]:
    """Assign the detections of each frame to tracks."""
    for frame, detections in frames:
        yield TrackedFrame(frame, detections, tracker(detections))


def watch_camera(
    frames: Iterable[TrackedFrame], camera: CameraTracker | None
) -> Iterator[TrackedFrame]:
    """Pass each frame and the boxes of its people to the tracker of the camera, if any."""
    for tracked in frames:
        if camera is not None:
            boxes = np.array([one.box for one in tracked.detections], np.float64)
            camera.add(tracked.frame.index, tracked.frame.image, boxes.reshape(-1, 4))
        yield tracked


def crop_people(frames: Iterable[TrackedFrame], estimator: Estimator) -> Iterator[CroppedFrame]:
    """Cut the network's inputs out of each frame; boxes outside the image are left out."""
    has_warned = False
    for frame, detections, tracks in frames:
        people = []
        for track, detection in zip(tracks, detections, strict=True):
            crop = estimator.crop(frame.image, detection.box)
            if crop is None:
                level = logging.DEBUG if has_warned else logging.WARNING
                log.log(level, "frame %d: a box outside the image is left out", frame.index)
                has_warned = True
            else:
                people.append(CroppedPerson(track, detection, crop))
        yield CroppedFrame(frame.index, people)


class Batch(NamedTuple):
    """Inputs for one run of the network, and the frames that are complete after it."""

    crops: list[PersonCrop]
    frames: list[CroppedFrame]


def batches(cropped: Iterable[CroppedFrame], size: int) -> Iterator[Batch]:
    """Group people of consecutive frames into full batches; these may split a frame."""
    crops: list[PersonCrop] = []
    frames: list[CroppedFrame] = []
    for frame in cropped:
        for person in frame.people:
            if len(crops) == size:
                yield Batch(crops, frames)
                crops, frames = [], []
            crops.append(person.crop)
        frames.append(frame)
        if len(frames) >= FRAMES_PER_BATCH * size:
            yield Batch(crops, frames)
            crops, frames = [], []
    yield Batch(crops, frames)


def estimate_people(
    cropped: Iterable[CroppedFrame], estimator: Estimator, batch_size: int, workers: int = 1
) -> Generator[EstimatedFrame, None, None]:
    """Run the network on batches, `workers` of them at a time; frames stay in order.

    PyTorch's threads are divided among the workers, which need no synchronisation between them.
    People whose estimates contain NaN or infinity are left out.

    Raises:
        UserError: this applies to all people.
    """
    threads = max(1, torch.get_num_threads() // workers)

    def estimate(batch: Batch) -> tuple[list[CroppedFrame], list[Person]]:
        torch.set_num_threads(threads)  # of this thread and those it starts later
        return batch.frames, estimator.estimate(batch.crops, want_vertices=False)

    estimates: deque[Person] = deque()
    total = left_out = 0
    with closing(parallel_map(estimate, batches(cropped, batch_size), workers)) as estimated:
        for frames, people in estimated:
            estimates.extend(people)
            for number, cropped_people in frames:
                estimated_people = [
                    EstimatedPerson(track, one.score, estimates.popleft(), one.keypoints)
                    for track, one, _ in cropped_people
                ]
                usable = [one for one in estimated_people if one.person.is_finite()]
                if len(usable) < len(estimated_people) and not left_out:
                    no_numbers = (
                        "frame %d: the network gave NaN or infinity; who it was is left out; %s"
                    )
                    log.warning(no_numbers, number, _DAMAGED_ADVICE)
                total += len(estimated_people)
                left_out += len(estimated_people) - len(usable)
                yield EstimatedFrame(number, usable)
    if 0 < total == left_out:
        raise UserError(f"the network gave NaN or infinity for every person; {_DAMAGED_ADVICE}")
    if left_out > 1:
        log.warning("%d of %d estimates were left out as NaN or infinite", left_out, total)


class EarlierEstimates(NamedTuple):
    """The network's estimates for a clip, from the result of an earlier run.

    Attributes:
        frames: frames with people; the number of a track is that of the person.
        frame_count: number of frames of the clip.
        keypoints: "built-in", "file", or None if there are none.
        clip: the present clip; a focal length that is not given is taken from the result, if the
            earlier run determined it.
    """

    frames: list[EstimatedFrame]
    frame_count: int
    keypoints: str | None
    clip: Clip


def read_estimates(
    folder: Path, clip: Clip, path: Path, estimator: Estimator, model: str, want_keypoints: bool
) -> EarlierEstimates:
    """Read the estimates of an earlier result.

    Raises:
        UserError: there is no result, it is damaged, it was made with another model, frame rate,
            image size or content of `path`, or it lacks the keypoints that are needed.
    """
    if not folder.is_dir():
        raise UserError(f"--reuse: there is no result {folder}; run without it")
    result = open_result(folder)
    summary = result.require_summary()
    for what, then, now in (
        ("model", summary.model, printable(model)),
        ("frame rate", summary.fps, clip.fps),
        ("size", summary.image_size, list(clip.image_size)),
    ):
        if then != now:
            raise UserError(
                f"--reuse: {folder} was made with {what} {then}, not {now}; run without it"
            )
    if summary.input_ids and input_ids(path)[1] not in summary.input_ids:
        raise UserError(f"--reuse: {path} has changed since {folder} was made; run without it")
    if summary.keypoints is None and want_keypoints:
        needed = "which --refine and --keypoints need"
        raise UserError(f"--reuse: {folder} has no keypoints, {needed}; run without it")
    names = ["score", "box_xywh", "interpolated", *(f"raw_{name}" for name in PARAMETERS)]
    names += ("keypoints_px", "keypoint_score") if summary.keypoints else ()
    frames: dict[int, list[EstimatedPerson]] = {}
    for number in result.files:
        content = result.read_person(number, names)
        # Results of early versions have no depths.
        depths = content.get("keypoint_depth_m", np.zeros((len(content["score"]), 137)))
        kept = np.flatnonzero(~content["interpolated"])
        values = {name: content[f"raw_{name}"][kept].astype(np.float32) for name in PARAMETERS}
        sides = content["box_xywh"][kept, 2:]
        if not len(kept) or not (sides > 0).all():
            what = "'box_xywh' has boxes without size" if len(kept) else "all is 'interpolated'"
            raise UserError(f"--reuse: {result.files[number]}: {what}; run without it")
        joints = estimator.joints_of(values)
        depth = joints[:, PELVIS, 2]
        if not ((depth > 0) & (depth < _MAX_DEPTH_M)).all():
            where = f"{result.files[number]}: 'raw_transl' is in no camera's view"
            raise UserError(f"--reuse: {where}; run without it")
        seen = joints[..., :2] / (joints[..., 2:] + 1e-4) * values["focal"][:, None]
        for i, row in enumerate(kept):
            person = Person(
                box_xywh=content["box_xywh"][row].astype(np.float32),
                **{name: value[i] for name, value in values.items()},
                joints_3d_m=joints[i],
                joints_2d_px=seen[i] + values["princpt"][i],
                vertices_m=None,
            )
            keypoints = None
            if summary.keypoints:
                score = content["keypoint_score"][row].astype(np.float64)
                found_by = SOURCES if summary.keypoints == "built-in" else KeypointSource.FILE
                source = np.where(score > 0, found_by, 0).astype(np.uint8)
                keypoints = Keypoints(content["keypoints_px"][row], score, depths[row], source)
            one = EstimatedPerson(number, float(content["score"][row]), person, keypoints)
            frames.setdefault(int(content["frame_index"][row]), []).append(one)
    count = summary.frames if summary.frames is not None else max(frames) + 1
    ordered = [EstimatedFrame(number, frames[number]) for number in sorted(frames)]
    earlier = summary.camera
    if clip.camera.origin == ASSUMED and earlier and earlier.origin == TURNS and earlier.focal:
        x, y = earlier.focal
        clip = clip._replace(camera=clip.camera._replace(focal=(x, y), origin=TURNS))
    return EarlierEstimates(ordered, count, summary.keypoints, clip)


def place_people(frames: Iterable[EstimatedFrame], clip: Clip, rows: RawRows) -> int:
    """Convert all people to the clip's camera and append them to `rows`; the number of frames."""
    waiting: list[tuple[int, EstimatedPerson]] = []
    count = 0
    for number, people in frames:
        count += 1
        waiting += [(number, person) for person in people]
        if len(waiting) >= AT_ONCE:
            rows.append(raw_rows(waiting, clip))
            waiting = []
    if waiting:
        rows.append(raw_rows(waiting, clip))
    return count


def raw_rows(estimates: list[tuple[int, EstimatedPerson]], clip: Clip) -> np.ndarray:
    """Rows of type `RAW_ROW` for estimates, each given with the number of its frame."""
    rows = np.zeros(len(estimates), RAW_ROW)
    for row, (number, (track, score, person, keypoints)) in zip(rows, estimates, strict=True):
        row["track"], row["frame_index"], row["score"] = track, number, score
        for name in ("box_xywh", *PARAMETERS, "joints_2d_px"):
            row[name] = getattr(person, name)
        if keypoints is not None:
            keypoints.write(row)
    _place(rows, np.stack([one.person.joints_3d_m for _, one in estimates]), clip)
    return rows


def place_again(rows: RawRows, clip: Clip, estimator: Estimator) -> None:
    """Convert all people again, to the clip's camera with a new focal length."""
    for _, block in rows.blocks():
        joints = estimator.joints_of({name: block[name].copy() for name in PARAMETERS})
        _place(block, joints, clip)


def _place(rows: np.ndarray, joints_3d_m: Float[np.ndarray, "N 137 3"], clip: Clip) -> None:
    """Fill the columns `PLACED` of rows, from joints in metres in the cameras of their crops."""
    placed = place_bodies(
        global_orient=rows["global_orient"],
        transl=rows["transl"],
        joints_3d_m=joints_3d_m,
        joints_2d_px=rows["joints_2d_px"],
        princpt=rows["princpt"],
        camera=clip.camera,
    )
    rows["placed_orient"] = placed.global_orient
    rows["placed_pelvis_m"] = placed.joints_3d_m[:, PELVIS]
    seen = clip.camera.project(placed.joints_3d_m.astype(np.float32))
    rows["truncation"] = truncation(seen, clip.image_size)
