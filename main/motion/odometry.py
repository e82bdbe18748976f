"""The path of a camera that moves, from corners that are followed through the frames of a clip.

Two frames whose lines of sight differ give the first points in space; further frames are placed by
the points they show, and points by the frames that show them. Bundle adjustment over windows, and
at the end over all of them, makes both agree. The unit of length stays open.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import bsr_array
from scipy.spatial.transform import Rotation, Slerp

_STEP: Final = 0.02
"""Median shift of corners, over the focal length, after which a frame is added to the structure."""
_STARTS, _SPANS = 12, (1, 2, 3, 5, 8)
_LEAST_ANGLE, _GOOD_ANGLE = np.radians(0.7), np.radians(3.0)
_LEAST_COMMON: Final = 20
_LEAST_KNOWN: Final = 10
_WINDOW: Final = 10
_EVERY: Final = 3
_MOST_TOGETHER: Final = 150
"""Frames of one bundle adjustment."""
_LEAST_PLACED: Final = 0.8
Poses = Float[np.ndarray, "K 4 4"]


class Observation(NamedTuple):
    """Corners in a frame: their numbers, and where they are from the principal point, over the
    focal length."""

    ids: Int[np.ndarray, " N"]
    places: Float[np.ndarray, "N 2"]


class CameraPath(NamedTuple):
    """Poses of all frames from the first one's, in an unknown unit, and 0 to 1 how sure each is."""

    camera_from_first: Float[np.ndarray, "T 4 4"]
    confidence: Float[np.ndarray, " T"]


def find_path(
    observations: Sequence[Observation], rotations: Float[np.ndarray, "T 3 3"], noise: float
) -> CameraPath | None:
    """None where lines of sight differ too little, or most frames cannot be placed.

    Args:
        rotations: about how the camera is turned, from the first frame; for frames that cannot be
            placed.
        noise: of corners, over the focal length.
    """
    structure = _Structure(observations, noise)
    if not structure.begin():
        return None
    structure.grow()
    placed = structure.placed
    if placed.sum() < max(2, _LEAST_PLACED * len(placed)):
        return None
    return _every_frame(structure, observations, rotations)


def agrees_with_motion(
    before: Float[np.ndarray, "N 2"], after: Float[np.ndarray, "N 2"], noise: float
) -> Bool[np.ndarray, " N"]:
    """Which corners one motion of the camera explains, by their essential matrix.

    Args:
        before, after: from the principal point, over the focal length.
        noise: of corners, over the focal length.
    """
    _, agree = cv2.findEssentialMat(
        before, after, np.eye(3), method=cv2.USAC_MAGSAC, threshold=noise
    )
    return np.zeros(len(before), bool) if agree is None else agree.ravel() > 0


class _Structure:
    """Frames and points whose places agree."""

    def __init__(self, observations: Sequence[Observation], noise: float) -> None:
        self.noise = noise
        self.keys = _chosen(observations)
        self.seen = [observations[key] for key in self.keys]
        self.poses: Poses = np.tile(np.eye(4), (len(self.keys), 1, 1))
        self.placed: Bool[np.ndarray, " K"] = np.zeros(len(self.keys), bool)
        most = max((int(one.ids.max(initial=0)) for one in observations), default=0) + 1
        self.points = np.zeros((most, 3))
        self.known = np.zeros(most, bool)
        # All observations in a row: frame, point, place.
        self.frame = np.repeat(np.arange(len(self.keys)), [len(one.ids) for one in self.seen])
        self.point = np.concatenate([one.ids for one in self.seen])
        self.place = np.concatenate([one.places for one in self.seen])

    def begin(self) -> bool:
        """Place the two frames that say most of the space between them."""
        best, best_score = None, 0.0
        count = len(self.keys)
        starts = np.unique(np.linspace(0, max(count - 2, 0), _STARTS).astype(int))
        for start in starts:
            for span in _SPANS:
                if start + span >= count:
                    continue
                pose, inliers, angle = self._pair(int(start), int(start + span))
                score = inliers * min(angle, _GOOD_ANGLE) if angle > _LEAST_ANGLE else 0.0
                if score > best_score:
                    best, best_score = (int(start), int(start + span), pose), score
        if best is None:
            return False
        first, second, pose = best
        self.poses[first], self.poses[second] = np.eye(4), pose
        self.placed[[first, second]] = True
        self._add_points()
        return int(self.known.sum()) >= _LEAST_KNOWN

    def _pair(self, first: int, second: int) -> tuple[Float[np.ndarray, "4 4"], int, float]:
        """The second frame's pose from the first, how many corners agree, the median angle."""
        pose = np.eye(4)
        one, other = self.seen[first], self.seen[second]
        _, i, j = np.intersect1d(one.ids, other.ids, return_indices=True)
        if len(i) < _LEAST_COMMON:
            return pose, 0, 0.0
        a, b = one.places[i], other.places[j]
        matrix, mask = cv2.findEssentialMat(
            *(a, b, np.eye(3)), method=cv2.USAC_MAGSAC, threshold=self.noise
        )
        if matrix is None or matrix.shape != (3, 3):
            return pose, 0, 0.0
        _, rotation, shift, mask = cv2.recoverPose(matrix, a, b, np.eye(3), mask=mask)
        good = mask.ravel() > 0
        if good.sum() < _LEAST_COMMON:
            return pose, 0, 0.0
        pose[:3, :3], pose[:3, 3] = rotation, shift.ravel()
        count = int(good.sum())
        both = np.tile(np.eye(4), (count, 1, 1)), np.tile(pose, (count, 1, 1))
        return pose, count, float(np.median(_meet(*both, a[good], b[good])[1]))

    def grow(self) -> None:
        """Place the other frames, outwards from the first two."""
        first, second = np.flatnonzero(self.placed)[[0, -1]]
        inner, after = range(first + 1, second), range(second + 1, len(self.keys))
        number = 0
        for order in (inner, after, range(first - 1, -1, -1)):
            for key in order:
                if not self._place(key):
                    break
                self._add_points()
                number += 1
                if number % _EVERY == 0:
                    near = np.flatnonzero(self.placed)
                    near = near[np.argsort(abs(near - key), kind="stable")[:_WINDOW]]
                    self._adjust(near, 4)
        placed = np.flatnonzero(self.placed)
        for start in range(0, len(placed), _MOST_TOGETHER // 2):
            self._adjust(placed[start : start + _MOST_TOGETHER], 12)
            self._add_points()
            self._adjust(placed[start : start + _MOST_TOGETHER], 8)
            if start + _MOST_TOGETHER >= len(placed):
                break

    def _place(self, key: int) -> bool:
        ids, places = self.seen[key]
        known = self.known[ids]
        if known.sum() < _LEAST_KNOWN:
            return False
        near = np.flatnonzero(self.placed)
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
        if agree.sum() < _LEAST_KNOWN:
            return False
        self.poses[key], self.placed[key] = pose, True
        return True

    def _add_points(self) -> None:
        """Points that two placed frames see from different sides; wrong ones are forgotten."""
        usable = self.placed[self.frame]
        frame, point, place = self.frame[usable], self.point[usable], self.place[usable]
        known = self.known[point]
        seen, error = self._residuals(frame[known], point[known], place[known])
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
        places, angle = _meet(a, b, place[one], place[other])
        good = angle > _LEAST_ANGLE
        for pose, index in ((a, one), (b, other)):
            seen = np.einsum("nij,nj->ni", pose[:, :3, :3], places) + pose[:, :3, 3]
            depth = np.maximum(seen[:, 2:], 1e-6)
            error = np.linalg.norm(seen[:, :2] / depth - place[index], axis=1)
            good &= (seen[:, 2] > 0) & (error < 3 * self.noise)
        self.points[ids[good]], self.known[ids[good]] = places[good], True

    def _residuals(
        self, frame: np.ndarray, point: np.ndarray, place: np.ndarray
    ) -> tuple[Float[np.ndarray, "M 3"], Float[np.ndarray, "M 2"]]:
        """Points in their frames' cameras, and how far they are seen from where they should be."""
        pose = self.poses[frame]
        seen = np.einsum("mij,mj->mi", pose[:, :3, :3], self.points[point]) + pose[:, :3, 3]
        depth = np.where(np.abs(seen[:, 2:]) < 1e-6, 1e-6, seen[:, 2:])
        return seen, place - seen[:, :2] / depth

    def _adjust(self, free: Int[np.ndarray, " F"], passes: int) -> None:
        """Bundle adjustment: move some frames and the points that they see.

        Levenberg and Marquardt's steps on Cauchy's loss. Other frames that see the points hold
        them; where there are none, the first of the frames stays.
        """
        in_free = np.isin(self.frame, free) & self.known[self.point]
        ids = np.unique(self.point[in_free])
        if len(ids) < _LEAST_KNOWN:
            return
        used = self.known[self.point] & self.placed[self.frame] & np.isin(self.point, ids)
        frame, point, place = self.frame[used], self.point[used], self.place[used]
        if np.isin(frame, free).all():
            free = free[1:]
        column = np.full(len(self.keys), -1)
        column[free] = np.arange(len(free))
        row = np.searchsorted(ids, point)
        damping = 1e-4
        seen, error, squares = self._misfits(frame, point, place)
        for _ in range(passes):
            steps = _step(
                self.poses[frame, :3, :3], seen, error, 1 / (1 + squares), column[frame], row,
                (len(free), len(ids)), damping,
            )  # fmt: skip
            before, cost = (self.poses.copy(), self.points.copy()), np.log1p(squares).sum()
            self.poses[free] = _moved(self.poses[free], steps[0])
            self.points[ids] += steps[1]
            tried = self._misfits(frame, point, place)
            gain = cost - np.log1p(tried[2]).sum()
            if gain > 0:
                (seen, error, squares), damping = tried, damping / 4
                if gain < 1e-5 * cost:
                    break
            else:
                (self.poses, self.points), damping = before, damping * 10

    def _misfits(
        self, frame: np.ndarray, point: np.ndarray, place: np.ndarray
    ) -> tuple[Float[np.ndarray, "M 3"], Float[np.ndarray, "M 2"], Float[np.ndarray, " M"]]:
        """As `_residuals`, and the squared distances over those of noise."""
        seen, error = self._residuals(frame, point, place)
        return seen, error, (error**2).sum(axis=1) / self.noise**2


def _step(
    rotation: Float[np.ndarray, "M 3 3"],
    seen: Float[np.ndarray, "M 3"],
    error: Float[np.ndarray, "M 2"],
    weight: Float[np.ndarray, " M"],
    frame: Int[np.ndarray, " M"],
    point: Int[np.ndarray, " M"],
    size: tuple[int, int],
    damping: float,
) -> tuple[Float[np.ndarray, "F 6"], Float[np.ndarray, "P 3"]]:
    """Steps of frames (-1: it does not move) and points; points are eliminated first."""
    of_frame, of_seen = _derivatives(seen)
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
    """Of a point's place in the image, by the pose's rotation vector and shift, and the point."""
    x, y, z = seen.T
    z = np.where(np.abs(z) < 1e-6, 1e-6, z)
    of_seen = np.zeros((len(seen), 2, 3))
    of_seen[:, 0, 0] = of_seen[:, 1, 1] = 1 / z
    of_seen[:, 0, 2], of_seen[:, 1, 2] = -x / z**2, -y / z**2
    across = np.zeros((len(seen), 3, 3))
    across[:, 0, 1], across[:, 0, 2], across[:, 1, 2] = seen[:, 2], -y, x
    across[:, 1, 0], across[:, 2, 0], across[:, 2, 1] = -seen[:, 2], y, -x
    return np.concatenate([of_seen @ across, of_seen], axis=2), of_seen


def _moved(poses: Float[np.ndarray, "F 4 4"], step: Float[np.ndarray, "F 6"]) -> np.ndarray:
    moved = poses.copy()
    turn = Rotation.from_rotvec(step[:, :3]).as_matrix()
    moved[:, :3, :3] = turn @ poses[:, :3, :3]
    moved[:, :3, 3] = np.einsum("fij,fj->fi", turn, poses[:, :3, 3]) + step[:, 3:]
    return moved


def _meet(
    one: Float[np.ndarray, "N 4 4"],
    other: Float[np.ndarray, "N 4 4"],
    place: Float[np.ndarray, "N 2"],
    other_place: Float[np.ndarray, "N 2"],
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, " N"]]:
    """Where lines of sight of two cameras come nearest to each other, and the angle there."""
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
    """The pose from which points are seen at their places, begun at `pose`, and which agree."""
    error = np.zeros_like(places)
    for _ in range(8):
        seen = points @ pose[:3, :3].T + pose[:3, 3]
        error = places - seen[:, :2] / np.maximum(seen[:, 2:], 1e-6)
        weight = 1 / (1 + (error**2).sum(axis=1) / noise**2)
        slope = _derivatives(seen)[0]
        normal = np.einsum("mij,mik,m->jk", slope, slope, weight) + 1e-9 * np.eye(6)
        step = np.linalg.solve(normal, np.einsum("mij,mi,m->j", slope, error, weight))
        pose = _moved(pose[None], step[None])[0]
        if np.abs(step).max() < 1e-7:
            break
    return pose, np.linalg.norm(error, axis=1) < 3 * noise


def _chosen(observations: Sequence[Observation]) -> list[int]:
    """Frames between which corners moved by a step, or of which many corners are gone."""
    # A black frame leads nowhere.
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


def _every_frame(
    structure: _Structure,
    observations: Sequence[Observation],
    rotations: Float[np.ndarray, "T 3 3"],
) -> CameraPath:
    """Frames between those of the structure, each placed by the points that it shows."""
    count = len(observations)
    poses, confidence = np.tile(np.eye(4), (count, 1, 1)), np.zeros(count)
    placed = np.flatnonzero(structure.placed)
    keys, at = np.array(structure.keys)[placed], structure.poses[placed]
    # Beside the placed frames the camera turns as expected and stays where it was.
    inside = np.clip(np.arange(count), keys[0], keys[-1])
    between = Slerp(keys, Rotation.from_matrix(at[:, :3, :3]))(inside).as_matrix()
    centres = -np.einsum("kji,kj->ki", at[:, :3, :3], at[:, :3, 3])
    centre = np.stack([np.interp(inside, keys, axis) for axis in centres.T], axis=1)
    for number, (ids, places) in enumerate(observations):
        turned = rotations[number] @ rotations[inside[number]].T @ between[number]
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turned, -turned @ centre[number]
        known = structure.known[ids]
        if keys[0] <= number <= keys[-1] and known.sum() >= _LEAST_KNOWN:
            better, agree = resect(
                pose, structure.points[ids[known]], places[known], structure.noise
            )
            if agree.sum() >= _LEAST_KNOWN:
                pose = better
                confidence[number] = agree.mean() * min(1.0, agree.sum() / 40)
        poses[number] = pose
    return CameraPath(poses @ np.linalg.inv(poses[0]), confidence)
