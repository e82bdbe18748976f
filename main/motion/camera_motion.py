"""The motion of the camera of a clip, from the background behind people.

Corners of a keyframe are tracked to the frames after it (Lucas-Kanade, forward and backward). A
rotation and a zoom explain the positions of most of them. If too few agree, an older keyframe with
nearly the same view replaces the keyframe, or the frame becomes one. At the end, all measurements
between keyframes are adjusted to agree, so errors do not accumulate if the camera returns to a
view.
"""

import logging
import math
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8
from scipy.spatial.transform import Rotation

from main.motion.camera import UNMODELLED, CameraKind, CameraMotion, Clip, static_camera
from main.motion.odometry import CameraPath, Observation, agrees_with_motion, find_path
from main.motion.turns import (
    INLIER_PX,
    NO_TURN,
    Edge,
    Fit,
    Points,
    Turn,
    TurnedPoints,
    adjusted,
    find_focal,
    fit_turn,
)

log = logging.getLogger(__name__)

_LONGEST_SIDE: Final = 640
"""Longest side of the reduced frames; all distances below are in their pixels."""
_CORNERS: Final = 200
_CORNER_DISTANCE: Final = 12
_CORNER_QUALITY: Final = 0.005
_BOX_MARGIN: Final = 0.08
"""Margin around boxes relative to their height, because hands and shadows leave boxes."""
_MIN_POINTS: Final = 12
"""Least number of corners from which a turn is fitted."""
_MAX_RETURN_ERROR: Final = 0.5
"""Distance of a corner that is tracked back from where it was, beyond which it is lost."""
_MIN_SHARE: Final = 0.55
"""Share of a keyframe's corners that agree with the turn, below which the keyframe changes."""
_MIN_OLD_SHARE: Final = 0.7
"""The same for an older keyframe that replaces it."""
_NEAR: Final = 0.25
"""Displacement of the view, over the longest side, up to which an older keyframe may replace it."""
_OVERLAPPING: Final = 0.4
"""The same up to which a new keyframe is measured against an older one."""
_MAX_IMAGES: Final = 64
"""Number of keyframes whose images are kept."""
_OLD_KEYFRAMES: Final = 2
"""Number of older keyframes that are tried when the keyframe changes."""
_FOCAL_MATCHES, _MIN_DISPLACEMENT = 12, 5
"""Largest number of matches from which the focal length is found, and the least displacement of the
view in each of them."""
_MIN_INLIERS: Final = 0.35
"""Least share of the found corners that agree with a turn."""
_SURE: Final = 0.5
"""Confidence below which tracking is also started from the phase correlation of the images."""
_UNSEEN: Final = 1e-3
"""Weight of a turn that was not measured; others have the root of their number of corners."""
_CHECK_S: Final = 0.4
"""Time between two checks of parallax."""
_UNEXPLAINED, _EXPLAINED = 0.05, 0.75
"""There is parallax if the turn leaves more than the first share of the corners unexplained, and a
motion explains more than the second share of those and of all."""
_MOVES: Final = 0.3
"""Share of the checks that find parallax, from which the camera moves."""
_PATH_CORNERS: Final = 90
"""Corners of each frame that are kept for the path of a moving camera."""
_SUBPIXELS: Final = 64
_NOISE: Final = 0.7
"""Standard deviation of corners, for the path of a moving camera."""
_STILL: Final = 0.6
"""Displacement of the view below which the camera is static."""
_ZOOMS: Final = 0.01
"""Logarithm of the zoom below which it is noise."""
_LK: Final[dict[str, Any]] = {
    "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
    "winSize": (15, 15),
    "maxLevel": 3,
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01),
}


class _Keyframe(NamedTuple):
    """A reduced image and the corners in it, to which later frames are compared.

    Corners that come from an older keyframe have the same `ids` there.
    """

    grey: UInt8[np.ndarray, "h w"]
    corners: Float32[np.ndarray, "N 2"]
    ids: Int32[np.ndarray, " N"]


class _Match(NamedTuple):
    """Corners of a keyframe that are found in a frame, and the turn between both.

    Attributes:
        ids: numbers of the corners.
        before, after: positions in both frames relative to the principal point.
        share: share of all corners of the keyframe that agree with the turn.
    """

    ids: Int32[np.ndarray, " N"]
    before: Points
    after: Points
    fit: Fit
    share: float

    @property
    def weight(self) -> float:
        return math.sqrt(self.fit.inliers.sum())

    @property
    def confidence(self) -> float:
        inliers = float(self.fit.inliers.sum())
        return min(1.0, inliers / (4 * _MIN_POINTS)) * inliers / len(self.fit.inliers)


class CameraTracker:
    """Finds the camera's motion from the frames of a clip, which are added once and in order.

    Memory grows by less than a kilobyte per frame.

    Args:
        kind: the kind of motion; None: it is found.
    """

    def __init__(self, clip: Clip, kind: CameraKind | None = None) -> None:
        self.kind = kind
        width, height = clip.image_size
        self._scale = min(1.0, _LONGEST_SIDE / max(width, height))
        self._size = (round(width * self._scale), round(height * self._scale))
        self._focal = float(clip.camera.focal[0]) * self._scale
        self._centre = (np.array(clip.camera.princpt) + 0.5) * self._scale - 0.5
        right, bottom = np.array(self._size) / 2
        self._outline = np.array(
            [[0, 0], [-right, -bottom], [right, -bottom], [-right, bottom], [right, bottom]]
        )
        self._check_interval = max(1, round(_CHECK_S * clip.fps))
        self._rng = np.random.default_rng(0)
        self._edges: list[Edge] = []
        self._absolute: list[Turn] = []
        """Turns from the first frame to each keyframe, before adjustment."""
        self._images: dict[int, _Keyframe] = {}
        """The keyframes whose images are kept, by their numbers."""
        self._current = -1
        self._last: Float32[np.ndarray, "a b"] | None = None
        """The last frame's thumbnail."""
        self._turn = self._step = NO_TURN
        """Turns of the last frame from the current keyframe, and from the frame before."""
        self._frames: list[tuple[int, Turn, float]] = []
        """The keyframe of each frame, the turn from there, and the confidence."""
        self._parallax: list[bool] = []
        self._widest: dict[int, tuple[float, _Match]] = {}
        """The match of some keyframes with the largest displacement of the view, and that."""
        self._corner_count = 0
        self._observations: list[tuple[np.ndarray, np.ndarray]] = []
        """Numbers of corners in each frame, and their positions in 1 / `_SUBPIXELS` pixels."""

    def add(
        self,
        frame_index: int,
        image: UInt8[np.ndarray, "H W 3"],
        boxes_xywh: Float[np.ndarray, "P 4"],
    ) -> None:
        """Add a frame.

        Args:
            frame_index: from 0, without gaps.
            image: RGB, of the clip's size.
            boxes_xywh: boxes of people in pixels, which are left out.
        """
        grey = cv2.cvtColor(
            cv2.resize(image, self._size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
        )
        background = self._background(boxes_xywh)
        match = self._match_current(grey, background)
        if match is not None:
            self._step = self._turn.back().then(match.fit.turn)
            self._turn = match.fit.turn
            moved = self._displacement(self._turn)
            if moved > self._widest.get(self._current, (0.0, match))[0]:
                self._widest[self._current] = moved, match
                if len(self._widest) > _FOCAL_MATCHES:
                    del self._widest[min(self._widest, key=lambda one: self._widest[one][0])]
            if frame_index % self._check_interval == 0:
                self._parallax.append(self._has_parallax(match))
        if match is None or match.share < _MIN_SHARE:
            match = self._change_keyframe(match, grey, background)
        self._remember(match)
        if frame_index == 0:
            confidence = float(len(self._images[0].corners) >= _MIN_POINTS)
        else:
            confidence = 0.0 if match is None else match.confidence
        self._frames.append((self._current, self._turn, confidence))

    def _remember(self, match: _Match | None) -> None:
        """Keep corners for the path of a moving camera."""
        keyframe = self._images[self._current]
        ids, places = keyframe.ids, keyframe.corners
        if match is not None:
            ids, places = match.ids, match.after + self._centre
        fine = np.clip(np.rint(places[:_PATH_CORNERS] * _SUBPIXELS), 0, 65535).astype(np.uint16)
        self._observations.append((ids[:_PATH_CORNERS].copy(), fine))

    def _background(self, boxes_xywh: Float[np.ndarray, "P 4"]) -> UInt8[np.ndarray, "h w"]:
        """A mask that is 255 outside boxes and their margins, else 0."""
        width, height = self._size
        mask = np.full((height, width), 255, np.uint8)
        for x, y, w, h in np.asarray(boxes_xywh, np.float64).reshape(-1, 4) * self._scale:
            margin = _BOX_MARGIN * h + 2
            left, right = (int(np.clip(v, 0, width)) for v in (x - margin, x + w + margin + 1))
            top, bottom = (int(np.clip(v, 0, height)) for v in (y - margin, y + h + margin + 1))
            mask[top:bottom, left:right] = 0
        return mask

    def _make_keyframe(
        self,
        grey: UInt8[np.ndarray, "h w"],
        background: UInt8[np.ndarray, "h w"],
        absolute: Turn,
        match: _Match | None,
    ) -> None:
        """Make the frame the current keyframe, with the corners of a match and new ones."""
        ids, places = np.zeros(0, np.int32), np.zeros((0, 2), np.float32)
        if match is not None:
            ids, places = match.ids, (match.after + self._centre).astype(np.float32)
            background = background.copy()
            for column, row in np.rint(places).astype(int).tolist():
                cv2.circle(background, (column, row), _CORNER_DISTANCE, 0, -1)
        wanted = max(_CORNERS - len(ids), 1)
        found = cv2.goodFeaturesToTrack(
            grey, wanted, _CORNER_QUALITY, _CORNER_DISTANCE, mask=background, blockSize=5
        )
        if found is not None:
            new = np.arange(self._corner_count, self._corner_count + len(found), dtype=np.int32)
            self._corner_count += len(new)
            places = np.concatenate([places, found.reshape(-1, 2)])
            ids = np.concatenate([ids, new])
        self._absolute.append(absolute)
        self._current, self._turn = len(self._absolute) - 1, NO_TURN
        self._images[self._current] = _Keyframe(grey, places, ids)
        if len(self._images) > _MAX_IMAGES:  # the oldest except for the first
            del self._images[list(self._images)[1]]

    def _match_current(
        self, grey: UInt8[np.ndarray, "h w"], background: UInt8[np.ndarray, "h w"]
    ) -> _Match | None:
        """Match with the current keyframe, from the last motion or the shift of the images."""
        best: _Match | None = None
        last, self._last = self._last, _thumbnail(grey)
        if last is None:
            return None
        for with_last_step in (True, False):
            step = self._step if with_last_step else self._step_of_images(last, self._last)
            match = self._match(self._current, self._turn.then(step), grey, background)
            if match is not None and (best is None or match.share > best.share):
                best = match
            if best is not None and best.confidence > _SURE:
                break
        return best

    def _step_of_images(
        self, last: Float32[np.ndarray, "a b"], image: Float32[np.ndarray, "a b"]
    ) -> Turn:
        """The turn between two thumbnails, from their phase correlation."""
        window = cv2.createHanningWindow(image.shape[::-1], cv2.CV_32F)
        (right, down), _ = cv2.phaseCorrelate(last, image, window)
        x, y = np.array([right, down]) * (self._size[0] / image.shape[1] / self._focal)
        return Turn(Rotation.from_rotvec([-math.atan(y), math.atan(x), 0]).as_matrix(), 1.0)

    def _match(
        self,
        keyframe: int,
        expected: Turn,
        grey: UInt8[np.ndarray, "h w"],
        background: UInt8[np.ndarray, "h w"],
    ) -> _Match | None:
        """Match a frame with a keyframe.

        Args:
            expected: the turn from the keyframe with which tracking starts.

        Returns:
            None if too few corners are found, or no turn explains enough of them.
        """
        template, corners, ids = self._images[keyframe]
        if len(corners) < _MIN_POINTS:
            return None
        width, height = self._size
        focal = self._focal * self._absolute[keyframe].zoom
        guess = (expected.of(corners - self._centre, focal) + self._centre).astype(np.float32)
        inside = ((guess > -20) & (guess < np.array(self._size) + 20)).all(axis=1)
        corners, guess, ids = corners[inside], guess[inside], ids[inside]
        if len(corners) < _MIN_POINTS:
            return None
        places, there, _ = cv2.calcOpticalFlowPyrLK(template, grey, corners, guess.copy(), **_LK)
        returned, back, _ = cv2.calcOpticalFlowPyrLK(
            grey, template, places, corners.copy(), **_LK | {"maxLevel": 1}
        )
        return_error = np.linalg.norm(returned - corners, axis=1)
        column, row = np.rint(places).T.clip(-1, max(width, height)).astype(int)
        found: Bool[np.ndarray, " C"] = (
            (there.ravel() > 0) & (back.ravel() > 0) & (return_error < _MAX_RETURN_ERROR)
        )
        found &= (column >= 0) & (row >= 0) & (column < width) & (row < height)
        found[found] = background[row[found], column[found]] > 0
        if found.sum() < _MIN_POINTS:
            return None
        before, after = (
            points[found].astype(np.float64) - self._centre for points in (corners, places)
        )
        fit = fit_turn(before, after, focal, expected, self._rng)
        inliers = int(fit.inliers.sum())
        if inliers < max(_MIN_POINTS, _MIN_INLIERS * len(before)):
            return None
        return _Match(ids[found], before, after, fit, inliers / len(self._images[keyframe].ids))

    def _displacement(self, turn: Turn) -> float:
        """Largest distance by which a turn moves the middle and corners of the view."""
        moved = turn.of(self._outline, self._focal) - self._outline
        return float(np.linalg.norm(moved, axis=1).max())

    def _change_keyframe(
        self,
        match: _Match | None,
        grey: UInt8[np.ndarray, "h w"],
        background: UInt8[np.ndarray, "h w"],
    ) -> _Match | None:
        """Change to an older keyframe with nearly the same view, or else to a new one.

        Args:
            match: match of the frame with the current keyframe, if there is one.

        Returns:
            The best match of the frame with any keyframe.
        """
        source, turn = self._current, self._turn
        absolute = turn if source < 0 else self._absolute[source].then(turn)
        near = []
        for number in self._images:
            between = self._absolute[number].back().then(absolute)
            moved = self._displacement(between) / max(self._size)
            if number != source and moved < _OVERLAPPING:
                near.append((moved, number, between))
        near.sort(key=lambda one: one[0])
        found: list[tuple[int, _Match]] = [] if match is None else [(source, match)]
        for moved, number, between in near[:_OLD_KEYFRAMES]:
            other = self._match(number, between, grey, background)
            if other is None:
                continue
            if moved < _NEAR and other.share > _MIN_OLD_SHARE:
                self._current, self._turn = number, other.fit.turn
                back = other.fit.turn.back()
                self._edges += [
                    Edge(one, number, seen.fit.turn.then(back), seen.weight) for one, seen in found
                ]
                return other
            found.append((number, other))
        if match is None and found:
            number, match = found[0]
            absolute = self._absolute[number].then(match.fit.turn)
        if match is None:
            self._step = NO_TURN
        self._make_keyframe(grey, background, absolute, match)
        self._edges += [Edge(one, self._current, seen.fit.turn, seen.weight) for one, seen in found]
        if source >= 0 and not found:
            self._edges.append(Edge(source, self._current, turn, _UNSEEN))
        return match

    def _has_parallax(self, match: _Match) -> bool:
        """Whether a motion of the camera explains many corners that no turn explains."""
        explained = float(match.fit.inliers.mean())
        if explained > 1 - _UNEXPLAINED:
            return False
        focal = self._focal * self._absolute[self._current].zoom
        agree = agrees_with_motion(
            match.before / focal,
            match.after / (focal * match.fit.turn.zoom),
            INLIER_PX / 2 / focal,
        )
        others = agree[~match.fit.inliers]
        return bool(min(agree.mean(), others.mean()) > _EXPLAINED)

    def find_focal(self) -> float | None:
        """The focal length of the first frame in pixels of the clip, if rotations determine it."""
        if self.kind == "moving":
            return None
        seen = [
            TurnedPoints(match.before, match.after, match.fit.turn, self._absolute[number].zoom)
            for number, (moved, match) in self._widest.items()
            if moved > _MIN_DISPLACEMENT
        ]
        focal = find_focal(seen, self._focal)
        return None if focal is None else focal / self._scale

    def finish(self) -> CameraMotion:
        """The camera's motion in all frames that were added, which is also logged."""
        count = len(self._frames)
        if count < 2:
            return static_camera(count)
        keyframes = adjusted(self._absolute, self._edges)
        turns = [keyframes[number].then(turn) for number, turn, _ in self._frames]
        confidence = np.array([one for _, _, one in self._frames])
        seen = confidence > 0
        if seen.sum() < count / 2:
            log.warning(
                "camera: nothing behind the people can be followed in %d of %d frames; it is taken "
                "to stand still",
                *(count - seen.sum(), count),
            )
            return static_camera(count, 0.0)
        moved = np.array([self._displacement(turn) for turn in turns]) / self._scale
        largest = float(np.quantile(moved[seen], 0.99))
        parallax = float(np.mean(self._parallax)) if self._parallax else 0.0
        kind = self.kind or ("rotating" if parallax < _MOVES else "moving")
        if self.kind is None and largest < _STILL / self._scale:
            kind = "static"
        if kind == "static":
            sure = float(confidence[seen].mean())
            log.info(
                "camera: stands still; the background moves by at most %.1f pixels (%.0f %% sure)",
                *(largest, 100 * sure),
            )
            return static_camera(count, sure)
        return self._changing_motion(kind, turns, confidence, parallax)

    def _changing_motion(
        self,
        kind: CameraKind,
        turns: list[Turn],
        confidence: Float[np.ndarray, " T"],
        parallax: float,
    ) -> CameraMotion:
        """The motion of a camera that turns or moves, which is also logged.

        Args:
            turns: turns from the first frame to each frame.
            confidence: reliability of the turns.
            parallax: share of the checks that found parallax.
        """
        count = len(turns)
        zoom = np.array([turn.zoom for turn in turns])
        if np.abs(np.log(zoom)).max() < _ZOOMS:
            zoom = np.ones(count)
        poses = np.tile(np.eye(4), (count, 1, 1))
        poses[:, :3, :3] = [turn.rotation for turn in turns]
        path = self._path(poses[:, :3, :3]) if kind == "moving" else None
        if path is not None:
            poses, confidence, zoom = path.camera_from_first, path.confidence, np.ones(count)
        angles = np.degrees(Rotation.from_matrix(poses[:, :3, :3]).magnitude())
        sure = float(confidence.mean())
        if self.kind is None:
            sure *= 1 - parallax if kind == "rotating" else parallax
        log.info(
            "camera: %s by up to %.0f degrees, zoom %.2f to %.2f; parallax in %.0f %% of checks "
            "(%.0f %% sure)",
            *("turns" if kind == "rotating" else "moves, and turns", angles.max()),
            *(zoom.min(), zoom.max(), 100 * parallax, 100 * sure),
        )
        if kind == "moving" and path is None:
            log.warning(
                "camera: its path cannot be found, only its rotation; world coordinates are as if "
                "it stayed in its place"
            )
            kind, confidence = "rotating", confidence * UNMODELLED
        return CameraMotion(kind, poses, zoom, confidence, kind == "rotating")

    def _path(self, rotations: Float[np.ndarray, "T 3 3"]) -> CameraPath | None:
        observations = [
            Observation(ids, (places / _SUBPIXELS - self._centre) / self._focal)
            for ids, places in self._observations
        ]
        return find_path(observations, rotations, _NOISE / self._focal)


def _thumbnail(grey: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "a b"]:
    return cv2.resize(grey, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA).astype(np.float32)
