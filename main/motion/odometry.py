"""Visual odometry: the path of a moving camera from corners that are tracked through a clip.

Two frames with parallax give the first points in space. Further frames are located by the points
that they show, and points are triangulated from the frames that show them. Bundle adjustment over
windows, and at the end over longer ones, makes both agree. The unit of length is unknown.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import bsr_array
from scipy.spatial.transform import Rotation, Slerp

_STEP: Final = 0.02
"""Median shift of corners, over the focal length, from one keyframe to the next."""
_STARTS, _SPANS = 12, (1, 2, 3, 5, 8)
"""Number of keyframes that are tried as the first of the initial pair, and their distances in
keyframes from the second."""
_MIN_ANGLE, _GOOD_ANGLE = np.radians(0.7), np.radians(3.0)
"""Least angle between the rays to a point, and the angle from which more is no advantage."""
_MIN_COMMON: Final = 20
"""Least number of corners that the initial pair has in common."""
_MIN_POINTS: Final = 10
"""Least number of points that locate a frame."""
_WINDOW, _INTERVAL = 10, 3
"""Keyframes of a bundle adjustment while the structure grows, and how many are added before it."""
_MAX_WINDOW: Final = 150
"""Keyframes of a bundle adjustment at the end."""
_MIN_LOCATED: Final = 0.8
"""Least share of keyframes that are located."""
_MIN_DEPTH: Final = 1e-6
Poses = Float[np.ndarray, "K 4 4"]


class Observation(NamedTuple):
    """Corners in a frame.

    Attributes:
        ids: numbers of the corners, which are the same in all frames.
        places: positions relative to the principal point, over the focal length.
    """

    ids: Int[np.ndarray, " N"]
    places: Float[np.ndarray, "N 2"]


class CameraPath(NamedTuple):
    """Poses of all frames as in `CameraMotion`, in an unknown unit, and their reliability."""

    camera_from_first: Float[np.ndarray, "T 4 4"]
    confidence: Float[np.ndarray, " T"]


def find_path(
    observations: Sequence[Observation], rotations: Float[np.ndarray, "T 3 3"], noise: float
) -> CameraPath | None:
    """Find the path of the camera.

    Args:
        rotations: approximate rotations from the first frame, for frames that cannot be located.
        noise: standard deviation of corners, over the focal length.

    Returns:
        None if there is too little parallax, or too many frames cannot be located.
    """
    structure = _Structure(observations, noise)
    if not structure.begin():
        return None
    structure.grow()
    located = structure.located
    if located.sum() < max(2, _MIN_LOCATED * len(located)):
        return None
    return _locate_all(structure, observations, rotations)


def agrees_with_motion(
    before: Float[np.ndarray, "N 2"], after: Float[np.ndarray, "N 2"], noise: float
) -> Bool[np.ndarray, " N"]:
    """Which corners agree with one essential matrix, that is, with one motion of the camera.

    Args:
        before, after: relative to the principal point, over the focal length.
        noise: standard deviation of corners, over the focal length.
    """
    _, agree = cv2.findEssentialMat(
        before, after, np.eye(3), method=cv2.USAC_MAGSAC, threshold=noise
    )
    return np.zeros(len(before), bool) if agree is None else agree.ravel() > 0


class _Residuals(NamedTuple):
    """Residuals of M observations.

    Attributes:
        seen: the points in the cameras of their keyframes.
        error: observed minus projected positions.
        squares: squared distances over those of the noise.
    """

    seen: Float[np.ndarray, "M 3"]
    error: Float[np.ndarray, "M 2"]
    squares: Float[np.ndarray, " M"]


class _Structure:
    """Keyframes and points in space.

    Attributes:
        keys: numbers of the keyframes.
        poses, located: pose of each keyframe, and whether it is known.
        points, known: position of each corner in space, and whether it is known.
        frame, point, place: keyframe, corner and position of each observation.
    """

    def __init__(self, observations: Sequence[Observation], noise: float) -> None:
        self.noise = noise
        self.keys = _choose_keyframes(observations)
        self.seen = [observations[key] for key in self.keys]
        self.poses: Poses = np.tile(np.eye(4), (len(self.keys), 1, 1))
        self.located: Bool[np.ndarray, " K"] = np.zeros(len(self.keys), bool)
        most = max((int(one.ids.max(initial=0)) for one in observations), default=0) + 1
        self.points = np.zeros((most, 3))
        self.known = np.zeros(most, bool)
        self.frame = np.repeat(np.arange(len(self.keys)), [len(one.ids) for one in self.seen])
        self.point = np.concatenate([one.ids for one in self.seen])
        self.place = np.concatenate([one.places for one in self.seen])

    def begin(self) -> bool:
        """Locate the pair of keyframes with the best parallax; whether there is one."""
        best, best_score = None, 0.0
        count = len(self.keys)
        starts = np.unique(np.linspace(0, max(count - 2, 0), _STARTS).astype(int))
        pairs = [(first, first + span) for first in starts.tolist() for span in _SPANS]
        for first, second in pairs:
            if second >= count:
                continue
            pose, inliers, angle = self._pair(first, second)
            score = inliers * min(angle, _GOOD_ANGLE) if angle > _MIN_ANGLE else 0.0
            if score > best_score:
                best, best_score = (first, second, pose), score
        if best is None:
            return False
        first, second, pose = best
        self.poses[first], self.poses[second] = np.eye(4), pose
        self.located[[first, second]] = True
        self._add_points()
        return int(self.known.sum()) >= _MIN_POINTS

    def _pair(self, first: int, second: int) -> tuple[Float[np.ndarray, "4 4"], int, float]:
        """Pose of the second keyframe from the first, number of inliers, median angle of rays."""
        pose = np.eye(4)
        one, other = self.seen[first], self.seen[second]
        _, i, j = np.intersect1d(one.ids, other.ids, return_indices=True)
        if len(i) < _MIN_COMMON:
            return pose, 0, 0.0
        a, b = one.places[i], other.places[j]
        matrix, mask = cv2.findEssentialMat(
            *(a, b, np.eye(3)), method=cv2.USAC_MAGSAC, threshold=self.noise
        )
        if matrix is None or matrix.shape != (3, 3):
            return pose, 0, 0.0
        _, rotation, shift, mask = cv2.recoverPose(matrix, a, b, np.eye(3), mask=mask)
        good = mask.ravel() > 0
        if good.sum() < _MIN_COMMON:
            return pose, 0, 0.0
        pose[:3, :3], pose[:3, 3] = rotation, shift.ravel()
        count = int(good.sum())
        both = np.tile(np.eye(4), (count, 1, 1)), np.tile(pose, (count, 1, 1))
        return pose, count, float(np.median(_triangulate(*both, a[good], b[good])[1]))

    def grow(self) -> None:
        """Locate the other keyframes, from the first two outwards."""
        first, second = np.flatnonzero(self.located)[[0, -1]]
        inner, after = range(first + 1, second), range(second + 1, len(self.keys))
        number = 0
        for order in (inner, after, range(first - 1, -1, -1)):
            for key in order:
                if not self._locate(key):
                    break
                self._add_points()
                number += 1
                if number % _INTERVAL == 0:
                    near = np.flatnonzero(self.located)
                    near = near[np.argsort(abs(near - key), kind="stable")[:_WINDOW]]
                    self._adjust(near, 4)
        located = np.flatnonzero(self.located)
        for start in range(0, len(located), _MAX_WINDOW // 2):
            self._adjust(located[start : start + _MAX_WINDOW], 12)
            self._add_points()
            self._adjust(located[start : start + _MAX_WINDOW], 8)
            if start + _MAX_WINDOW >= len(located):
                break

    def _locate(self, key: int) -> bool:
        """Find the pose of a keyframe from known points; whether enough of them agree."""
        ids, places = self.seen[key]
        known = self.known[ids]
        if known.sum() < _MIN_POINTS:
            return False
        near = np.flatnonzero(self.located)
        start = self.poses[near[np.argmin(abs(near - key))]]
        points, places = self.points[ids[known]], places[known]
        found, vector, shift, _ = cv2.solvePnPRansac(
            *(points, places, np.eye(3), None),
            *(cv2.Rodrigues(start[:3, :3])[0], start[:3, 3].copy(), True),
            iterationsCount=100,
            reprojectionError=3 * self.noise,
        )
        if found:
            start = np.eye(4)
            start[:3, :3], start[:3, 3] = cv2.Rodrigues(vector)[0], shift.ravel()
        pose, agree = resect(start, points, places, self.noise)
        if agree.sum() < _MIN_POINTS:
            return False
        self.poses[key], self.located[key] = pose, True
        return True

    def _add_points(self) -> None:
        """Triangulate points from the first and last keyframe that show them; drop wrong ones."""
        usable = self.located[self.frame]
        frame, point, place = self.frame[usable], self.point[usable], self.place[usable]
        known = self.known[point]
        seen, error, _ = self._residuals(frame[known], point[known], place[known])
        bad = (np.linalg.norm(error, axis=1) > 4 * self.noise) | (seen[:, 2] < 0)
        wrong = np.bincount(point[known], bad, len(self.known))
        often = np.bincount(point[known], minlength=len(self.known))
        self.known &= wrong <= often / 2
        frame, point, place = (values[~known] for values in (frame, point, place))
        order = np.lexsort((frame, point))
        frame, point, place = frame[order], point[order], place[order]
        ids, first, count = np.unique(point, return_index=True, return_counts=True)
        twice = count > 1
        ids, one, other = ids[twice], first[twice], (first + count - 1)[twice]
        if not len(ids):
            return
        a, b = self.poses[frame[one]], self.poses[frame[other]]
        places, angle = _triangulate(a, b, place[one], place[other])
        good = angle > _MIN_ANGLE
        for pose, index in ((a, one), (b, other)):
            seen = np.einsum("nij,nj->ni", pose[:, :3, :3], places) + pose[:, :3, 3]
            depth = np.maximum(seen[:, 2:], _MIN_DEPTH)
            error = np.linalg.norm(seen[:, :2] / depth - place[index], axis=1)
            good &= (seen[:, 2] > 0) & (error < 3 * self.noise)
        self.points[ids[good]], self.known[ids[good]] = places[good], True

    def _residuals(self, frame: np.ndarray, point: np.ndarray, place: np.ndarray) -> _Residuals:
        """Residuals of observations, given as in the attributes."""
        pose = self.poses[frame]
        seen = np.einsum("mij,mj->mi", pose[:, :3, :3], self.points[point]) + pose[:, :3, 3]
        depth = np.where(np.abs(seen[:, 2:]) < _MIN_DEPTH, _MIN_DEPTH, seen[:, 2:])
        error = place - seen[:, :2] / depth
        return _Residuals(seen, error, (error**2).sum(axis=1) / self.noise**2)

    def _adjust(self, free: Int[np.ndarray, " F"], passes: int) -> None:
        """Bundle adjustment of some keyframes and the points that they show.

        Levenberg-Marquardt steps with Cauchy's loss. Other keyframes that show the points do not
        change; if there are none, the first of the keyframes does not.
        """
        in_free = np.isin(self.frame, free) & self.known[self.point]
        ids = np.unique(self.point[in_free])
        if len(ids) < _MIN_POINTS:
            return
        used = self.known[self.point] & self.located[self.frame] & np.isin(self.point, ids)
        frame, point, place = self.frame[used], self.point[used], self.place[used]
        if np.isin(frame, free).all():
            free = free[1:]
        column = np.full(len(self.keys), -1)
        column[free] = np.arange(len(free))
        row = np.searchsorted(ids, point)
        damping = 1e-4
        now = self._residuals(frame, point, place)
        for _ in range(passes):
            rotation, size = self.poses[frame, :3, :3], (len(free), len(ids))
            of_frames, of_points = _step(rotation, now, column[frame], row, size, damping)
            before, cost = (self.poses.copy(), self.points.copy()), np.log1p(now.squares).sum()
            self.poses[free] = _moved(self.poses[free], of_frames)
            self.points[ids] += of_points
            tried = self._residuals(frame, point, place)
            gain = cost - np.log1p(tried.squares).sum()
            if gain > 0:
                now, damping = tried, damping / 4
                if gain < 1e-5 * cost:
                    break
            else:
                (self.poses, self.points), damping = before, damping * 10


def _step(
    rotation: Float[np.ndarray, "M 3 3"],
    residuals: _Residuals,
    frame: Int[np.ndarray, " M"],
    point: Int[np.ndarray, " M"],
    size: tuple[int, int],
    damping: float,
) -> tuple[Float[np.ndarray, "F 6"], Float[np.ndarray, "P 3"]]:
    """A damped Gauss-Newton step of F keyframes and P points, which are eliminated first.

    Args:
        rotation: rotation of the keyframe of each observation.
        frame, point: numbers of the keyframe and of the point; -1: the keyframe does not change.
        size: F and P.
    """
    error, weight = residuals.error, 1 / (1 + residuals.squares)
    of_frame, of_seen = _derivatives(residuals.seen)
    of_point = of_seen @ rotation
    frames, points = size
    v = np.zeros((points, 3, 3))
    np.add.at(v, point, np.einsum("mij,mik,m->mjk", of_point, of_point, weight))
    right_point = np.zeros((points, 3))
    np.add.at(right_point, point, np.einsum("mij,mi,m->mj", of_point, error, weight))
    v += np.eye(3) * (damping * np.trace(v, axis1=1, axis2=2)[:, None, None] / 3 + 1e-9)
    inverse = np.linalg.inv(v)
    if not frames:
        return np.zeros((0, 6)), np.einsum("pij,pj->pi", inverse, right_point)
    moves = frame >= 0
    of_frame, of_point = of_frame[moves], of_point[moves]
    error, weight, frame, point = error[moves], weight[moves], frame[moves], point[moves]
    u = np.zeros((frames, 6, 6))
    np.add.at(u, frame, np.einsum("mij,mik,m->mjk", of_frame, of_frame, weight))
    right_frame = np.zeros((frames, 6))
    np.add.at(right_frame, frame, np.einsum("mij,mi,m->mj", of_frame, error, weight))
    diagonal = np.arange(6)
    u[:, diagonal, diagonal] *= 1 + damping
    u[:, diagonal, diagonal] += 1e-9
    w = np.einsum("mij,mik,m->mjk", of_frame, of_point, weight)
    order = np.lexsort((point, frame))
    starts = np.searchsorted(frame[order], np.arange(frames + 1))
    shape = (6 * frames, 3 * points)
    coupling = bsr_array((w[order], point[order], starts), shape=shape).tocsr()
    solved = bsr_array(
        (w[order] @ inverse[point[order]], point[order], starts), shape=shape
    ).tocsr()
    system = -(solved @ coupling.T).toarray()
    blocks = system.reshape(frames, 6, frames, 6)
    blocks[np.arange(frames), :, np.arange(frames), :] += u
    right = right_frame.ravel() - solved @ right_point.ravel()
    step = np.linalg.solve(system, right)
    left = right_point - (coupling.T @ step).reshape(points, 3)
    return step.reshape(frames, 6), np.einsum("pij,pj->pi", inverse, left)


def _derivatives(
    seen: Float[np.ndarray, "M 3"],
) -> tuple[Float[np.ndarray, "M 2 6"], Float[np.ndarray, "M 2 3"]]:
    """Derivatives of projections by the pose (rotation vector, translation) and by the point."""
    x, y, z = seen.T
    z = np.where(np.abs(z) < _MIN_DEPTH, _MIN_DEPTH, z)
    of_seen = np.zeros((len(seen), 2, 3))
    of_seen[:, 0, 0] = of_seen[:, 1, 1] = 1 / z
    of_seen[:, 0, 2], of_seen[:, 1, 2] = -x / z**2, -y / z**2
    across = np.zeros((len(seen), 3, 3))
    across[:, 0, 1], across[:, 0, 2], across[:, 1, 2] = seen[:, 2], -y, x
    across[:, 1, 0], across[:, 2, 0], across[:, 2, 1] = -seen[:, 2], y, -x
    return np.concatenate([of_seen @ across, of_seen], axis=2), of_seen


def _moved(poses: Float[np.ndarray, "F 4 4"], step: Float[np.ndarray, "F 6"]) -> Poses:
    """Poses followed by the rotation vectors and translations of a step."""
    moved = poses.copy()
    turn = Rotation.from_rotvec(step[:, :3]).as_matrix()
    moved[:, :3, :3] = turn @ poses[:, :3, :3]
    moved[:, :3, 3] = np.einsum("fij,fj->fi", turn, poses[:, :3, 3]) + step[:, 3:]
    return moved


def _triangulate(
    one: Float[np.ndarray, "N 4 4"],
    other: Float[np.ndarray, "N 4 4"],
    place: Float[np.ndarray, "N 2"],
    other_place: Float[np.ndarray, "N 2"],
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, " N"]]:
    """The midpoints between the rays of two cameras, and the angles between them in radians."""
    centres, rays = [], []
    for pose, at in ((one, place), (other, other_place)):
        rotation = pose[:, :3, :3].transpose(0, 2, 1)
        centres.append(-np.einsum("nij,nj->ni", rotation, pose[:, :3, 3]))
        ray = np.einsum("nij,nj->ni", rotation, np.column_stack([at, np.ones(len(at))]))
        rays.append(ray / np.linalg.norm(ray, axis=1, keepdims=True))
    between = centres[1] - centres[0]
    cosine = (rays[0] * rays[1]).sum(axis=1)
    sine = np.maximum(1 - cosine**2, 1e-12)
    along, along_other = ((ray * between).sum(axis=1) for ray in rays)
    near = (along - cosine * along_other) / sine
    far = (cosine * along - along_other) / sine
    middle = centres[0] + near[:, None] * rays[0] + centres[1] + far[:, None] * rays[1]
    return middle / 2, np.arccos(np.clip(cosine, -1, 1))


def resect(
    pose: Float[np.ndarray, "4 4"],
    points: Float[np.ndarray, "N 3"],
    places: Float[np.ndarray, "N 2"],
    noise: float,
) -> tuple[Float[np.ndarray, "4 4"], Bool[np.ndarray, " N"]]:
    """Refine a pose so that points are projected to their places, and tell which of them agree.

    Reweighted least squares with Cauchy's loss.
    """
    error = np.zeros_like(places)
    for _ in range(8):
        seen = points @ pose[:3, :3].T + pose[:3, 3]
        error = places - seen[:, :2] / np.maximum(seen[:, 2:], _MIN_DEPTH)
        weight = 1 / (1 + (error**2).sum(axis=1) / noise**2)
        slope = _derivatives(seen)[0]
        normal = np.einsum("mij,mik,m->jk", slope, slope, weight) + 1e-9 * np.eye(6)
        step = np.linalg.solve(normal, np.einsum("mij,mi,m->j", slope, error, weight))
        pose = _moved(pose[None], step[None])[0]
        if np.abs(step).max() < 1e-7:
            break
    return pose, np.linalg.norm(error, axis=1) < 3 * noise


def _choose_keyframes(observations: Sequence[Observation]) -> list[int]:
    """Frames between which corners moved by `_STEP`, or many corners were lost."""
    # Frames without corners cannot be located.
    shown = [number for number, one in enumerate(observations) if len(one.ids)] or [0]
    keys = shown[:1]
    for number in shown[1:]:
        last, now = observations[keys[-1]], observations[number]
        _, i, j = np.intersect1d(last.ids, now.ids, return_indices=True)
        moved = np.linalg.norm(last.places[i] - now.places[j], axis=1)
        if len(i) < 0.6 * len(last.ids) or float(np.median(moved)) > _STEP:
            keys.append(number)
    if keys[-1] != shown[-1]:
        keys.append(shown[-1])
    return keys


def _locate_all(
    structure: _Structure,
    observations: Sequence[Observation],
    rotations: Float[np.ndarray, "T 3 3"],
) -> CameraPath:
    """The poses of all frames: interpolated between keyframes, and refined by known points."""
    count = len(observations)
    poses, confidence = np.tile(np.eye(4), (count, 1, 1)), np.zeros(count)
    located = np.flatnonzero(structure.located)
    keys, at = np.array(structure.keys)[located], structure.poses[located]
    # Before and after them, the camera turns as in `rotations` and does not move.
    inside = np.clip(np.arange(count), keys[0], keys[-1])
    between = Slerp(keys, Rotation.from_matrix(at[:, :3, :3]))(inside).as_matrix()
    centres = -np.einsum("kji,kj->ki", at[:, :3, :3], at[:, :3, 3])
    centre = np.stack([np.interp(inside, keys, axis) for axis in centres.T], axis=1)
    for number, (ids, places) in enumerate(observations):
        turned = rotations[number] @ rotations[inside[number]].T @ between[number]
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turned, -turned @ centre[number]
        known = structure.known[ids]
        if keys[0] <= number <= keys[-1] and known.sum() >= _MIN_POINTS:
            better, agree = resect(
                pose, structure.points[ids[known]], places[known], structure.noise
            )
            if agree.sum() >= _MIN_POINTS:
                pose = better
                confidence[number] = agree.mean() * min(1.0, agree.sum() / 40)
        poses[number] = pose
    return CameraPath(poses @ np.linalg.inv(poses[0]), confidence)
