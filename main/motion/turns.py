"""Turns of a camera that stays in its place: fitted to points, and made to agree."""

import math
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import coo_array
from scipy.sparse.linalg import lsqr
from scipy.spatial.transform import Rotation

INLIER_PX: Final = 1.5
"""Points at most so far from where a turn takes them agree with it."""
_SAMPLES: Final = 48
_PASSES: Final = 8
_DISAGREE: Final = math.radians(0.3)
"""Measured turns that are farther off the adjusted ones count less and less."""
Points = Float[np.ndarray, "N 2"]


class Turn(NamedTuple):
    """What a camera that stays in its place does between two frames.

    Attributes:
        rotation: directions in the first frame's axes to the second's.
        zoom: focal length of the second over that of the first.
    """

    rotation: Float[np.ndarray, "3 3"]
    zoom: float

    def then(self, other: "Turn") -> "Turn":
        return Turn(other.rotation @ self.rotation, self.zoom * other.zoom)

    def back(self) -> "Turn":
        return Turn(self.rotation.T, 1 / self.zoom)

    def of(self, points: Points, focal: float) -> Points:
        """Where points of the first frame are in the second.

        Args:
            points: from the principal point, pixels.
            focal: of the first frame, pixels.
        """
        turned = points @ self.rotation[:, :2].T + focal * self.rotation[:, 2]
        depth = np.maximum(turned[:, 2:], 1e-3 * focal)
        return turned[:, :2] / depth * (focal * self.zoom)


NO_TURN: Final = Turn(np.eye(3), 1.0)


class Fit(NamedTuple):
    turn: Turn
    inliers: Bool[np.ndarray, " N"]
    error: float
    """Root mean square of the inliers' distances, pixels."""


def fit_turn(
    before: Points, after: Points, focal: float, expected: Turn, rng: np.random.Generator
) -> Fit:
    """The rotation and zoom that explain most points.

    Random pairs of points give hypotheses, beside the expected turn; the best of them is refined
    by reweighted least squares (Geman and McClure's weights).

    Args:
        before, after: from the principal point, pixels.
        focal: of the first frame, pixels.
    """
    count = len(before)
    best, best_score = expected, _score(expected, before, after, focal)
    first = rng.integers(count, size=_SAMPLES)
    second = (first + 1 + rng.integers(count - 1, size=_SAMPLES)) % count
    for turn in _turns_of_pairs(before, after, first, second, focal):
        if (score := _score(turn, before, after, focal)) < best_score:
            best, best_score = turn, score
    for _ in range(6):
        best, step = _improved(best, before, after, focal)
        if step < 1e-6:
            break
    distance = np.linalg.norm(best.of(before, focal) - after, axis=1)
    inliers = distance < INLIER_PX
    error = float(np.sqrt(np.mean(distance[inliers] ** 2))) if inliers.any() else math.inf
    return Fit(best, inliers, error)


def _score(turn: Turn, before: Points, after: Points, focal: float) -> float:
    squares = ((turn.of(before, focal) - after) ** 2).sum(axis=1)
    return float(np.minimum(squares, (2 * INLIER_PX) ** 2).sum())


def _turns_of_pairs(
    before: Points,
    after: Points,
    first: np.ndarray,
    second: np.ndarray,
    focal: float,
) -> list[Turn]:
    """The turn that each pair of points says: its length gives the zoom, then two directions."""
    spans = [np.linalg.norm(points[second] - points[first], axis=1) for points in (before, after)]
    usable = (spans[0] > 20) & (spans[1] > 20)
    zooms = spans[1][usable] / spans[0][usable]
    frames = [
        _frames(
            _rays(before[first[usable]], focal),
            _rays(before[second[usable]], focal),
        ),
        _frames(
            _rays(after[first[usable]], focal * zooms[:, None]),
            _rays(after[second[usable]], focal * zooms[:, None]),
        ),
    ]
    rotations = frames[1] @ frames[0].transpose(0, 2, 1)
    return [Turn(r, float(z)) for r, z in zip(rotations, zooms, strict=True) if 0.5 < z < 2]


def _rays(points: Points, focal: float | np.ndarray) -> Float[np.ndarray, "N 3"]:
    rays = np.column_stack([points / focal, np.ones(len(points))])
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _frames(
    one: Float[np.ndarray, "N 3"], other: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, "N 3 3"]:
    """Right-handed axes (columns) spanned by two directions each."""
    middle = one + other
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    normal = np.cross(one, other)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return np.stack([middle, normal, np.cross(middle, normal)], axis=-1)


def _improved(turn: Turn, before: Points, after: Points, focal: float) -> tuple[Turn, float]:
    """One Gauss-Newton step on rotation vector and log zoom, and how large it was."""
    predicted = turn.of(before, focal)
    residual = (after - predicted) / focal
    squares = (residual**2).sum(axis=1)
    scale = (INLIER_PX / 2 / focal) ** 2
    weights = (scale / (scale + squares)) ** 2
    u, v = (predicted / (focal * turn.zoom)).T
    x, y = (predicted / focal).T
    rows_x = np.stack([-u * v, 1 + u * u, -v], axis=1) * turn.zoom
    rows_y = np.stack([-(1 + v * v), u * v, u], axis=1) * turn.zoom
    design = np.concatenate([np.column_stack([rows_x, x]), np.column_stack([rows_y, y])])
    both = np.concatenate([weights, weights])
    normal = design.T @ (both[:, None] * design) + 1e-9 * np.eye(4)
    step = np.linalg.solve(normal, design.T @ (both * residual.T.ravel()))
    rotation = Rotation.from_rotvec(step[:3]).as_matrix() @ turn.rotation
    zoom = float(np.clip(turn.zoom * math.exp(step[3]), 0.2, 5))
    return Turn(rotation, zoom), float(np.abs(step).max())


class Edge(NamedTuple):
    """A measured turn from one keyframe to another."""

    source: int
    target: int
    turn: Turn
    weight: float


def adjusted(first: list[Turn], edges: list[Edge]) -> list[Turn]:
    """Turns of keyframes that agree best with all measured ones; the first keyframe stays.

    Least squares of rotation vectors and log zooms, reweighted where measurements disagree.

    Args:
        first: where to begin.
    """
    if len(first) == 1:
        return first
    source = np.array([edge.source for edge in edges])
    target = np.array([edge.target for edge in edges])
    measured = np.array([edge.turn.rotation for edge in edges])
    log_measured = np.log([edge.turn.zoom for edge in edges])
    weight = np.array([edge.weight for edge in edges])
    rotations = np.array([turn.rotation for turn in first])
    log_zooms = np.log([turn.zoom for turn in first])
    number = np.arange(len(edges))
    for _ in range(_PASSES):
        # exp(step_t) R_t = M exp(step_s) R_s, so that step_t - M step_s = log(M R_s R_t').
        error = measured @ rotations[source] @ rotations[target].transpose(0, 2, 1)
        residual = Rotation.from_matrix(error).as_rotvec()
        angle = np.linalg.norm(residual, axis=1)
        own = weight / (1 + (angle / _DISAGREE) ** 2)
        rows, columns, values = [], [], []
        for axis in range(3):
            rows.append(3 * number + axis)
            columns.append(3 * target + axis)
            values.append(own)
            for other in range(3):
                rows.append(3 * number + axis)
                columns.append(3 * source + other)
                values.append(-own * measured[:, axis, other])
        step = _solved(rows, columns, values, residual * own[:, None], 3, len(first))
        rotations = Rotation.from_rotvec(step).as_matrix() @ rotations
        zoom_residual = log_measured + log_zooms[source] - log_zooms[target]
        log_zooms += _solved(
            [number, number], [target, source], [own, -own], zoom_residual * own, 1, len(first)
        )[:, 0]
    return [Turn(r, float(np.exp(z))) for r, z in zip(rotations, log_zooms, strict=True)]


def _solved(
    rows: list[np.ndarray],
    columns: list[np.ndarray],
    values: list[np.ndarray],
    right: np.ndarray,
    width: int,
    count: int,
) -> Float[np.ndarray, "count width"]:
    """Least squares for `width` unknowns of each of `count` keyframes; the first one's are 0."""
    index = np.concatenate(rows), np.concatenate(columns)
    matrix = coo_array((np.concatenate(values), index), (right.size, width * count)).tocsc()
    free = lsqr(matrix[:, width:], right.ravel(), atol=1e-10, btol=1e-10)[0]
    return np.concatenate([np.zeros(width), free]).reshape(count, width)
