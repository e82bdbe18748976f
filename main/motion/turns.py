"""Turns: the rotation and zoom between two frames of a camera that stays in its place.

A turn is fitted to corners that are found in both frames. The measured turns between many frames
are adjusted to agree, and determine the focal length.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize_scalar
from scipy.sparse import coo_array
from scipy.sparse.linalg import lsqr
from scipy.spatial.transform import Rotation

INLIER_PX: Final = 1.5
"""Distance of a point from its prediction up to which it agrees with a turn."""
_SAMPLES: Final = 48
_PASSES: Final = 8
_EDGE_SIGMA: Final = math.radians(0.3)
"""Angle between a measured and an adjusted turn from which its weight falls (Cauchy's loss)."""
_FOCAL_RANGE: Final = (0.45, 2.5)
"""Focal lengths to try, relative to the assumed one: 96 to 23 degrees across the diagonal."""
_FOCAL_STEPS: Final = 16
_FOCAL_CHANGE, _FOCAL_RISE = 0.1, 0.015
"""A focal length is known if the cost rises by `_FOCAL_RISE` when it changes by this share."""
_EXPLAINED: Final = 0.9
"""Least share of points that agree with turns for the focal length to be known."""
_MIN_SPAN_PX: Final = 20
"""Least distance between two points from which a turn is computed."""
Points = Float[np.ndarray, "N 2"]


class Turn(NamedTuple):
    """Rotation and zoom from a first to a second frame.

    Attributes:
        rotation: matrix that takes directions in the first frame's camera to the second's.
        zoom: focal length of the second frame over that of the first.
    """

    rotation: Float[np.ndarray, "3 3"]
    zoom: float

    def then(self, other: "Turn") -> "Turn":
        """This turn followed by another one."""
        return Turn(other.rotation @ self.rotation, self.zoom * other.zoom)

    def back(self) -> "Turn":
        """The inverse turn."""
        return Turn(self.rotation.T, 1 / self.zoom)

    def of(self, points: Points, focal: float) -> Points:
        """Positions in the second frame of points in the first.

        Args:
            points: relative to the principal point, in pixels.
            focal: focal length of the first frame in pixels.
        """
        turned = points @ self.rotation[:, :2].T + focal * self.rotation[:, 2]
        depth = np.maximum(turned[:, 2:], 1e-3 * focal)
        return turned[:, :2] / depth * (focal * self.zoom)


NO_TURN: Final = Turn(np.eye(3), 1.0)


class Fit(NamedTuple):
    """A turn, and which points agree with it."""

    turn: Turn
    inliers: Bool[np.ndarray, " N"]


def fit_turn(
    before: Points, after: Points, focal: float, expected: Turn, rng: np.random.Generator
) -> Fit:
    """Fit the rotation and zoom that explain most points.

    The hypotheses are the expected turn and those of random pairs of points. The best one is
    refined by reweighted least squares (Geman and McClure's weights).

    Args:
        before, after: corresponding points relative to the principal point, in pixels.
        focal: focal length of the first frame in pixels.
    """
    count = len(before)
    best, best_score = expected, _score(expected, before, after, focal)
    first = rng.integers(count, size=_SAMPLES)
    second = (first + 1 + rng.integers(count - 1, size=_SAMPLES)) % count
    for turn in _turns_of_pairs(before, after, first, second, focal):
        if (score := _score(turn, before, after, focal)) < best_score:
            best, best_score = turn, score
    for _ in range(_PASSES):
        best, step = _improved(best, before, after, focal)
        if step < 1e-6:
            break
    distance = np.linalg.norm(best.of(before, focal) - after, axis=1)
    return Fit(best, distance < INLIER_PX)


class TurnedPoints(NamedTuple):
    """Corresponding points of two frames between which the camera turned.

    Attributes:
        before, after: relative to the principal point, in pixels.
        turn: the turn that was fitted with an assumed focal length.
        zoom: focal length of the first frame over that of the clip's first frame.
    """

    before: Points
    after: Points
    turn: Turn
    zoom: float


def find_focal(seen: list[TurnedPoints], assumed: float) -> float | None:
    """Find the focal length of a clip's first frame, in pixels, from rotations of the camera.

    When a camera turns, points near the edges of the image move farther than those in the middle,
    the more so the shorter the focal length is (self-calibration of a rotating camera; Hartley,
    IJCV 1997). The focal length minimises the mean of Geman and McClure's costs of all distances,
    where each turn is fitted again. With a wrong assumed focal length, a turn looks as if the
    camera zoomed, too. Therefore `TurnedPoints.zoom` may be wrong, and 1 is also tried.

    Args:
        assumed: the focal length in pixels with which turns and zooms were found.

    Returns:
        None if the focal length hardly has an effect, or turns explain too few points.
    """
    tried = [seen] if seen else []
    if any(pair.zoom != 1 for pair in seen):
        tried.append([pair._replace(zoom=1.0) for pair in seen])
    found = [_best_focal(pairs, assumed) for pairs in tried]
    return min(found, default=(math.inf, None), key=lambda best: best[0])[1]


def _best_focal(seen: list[TurnedPoints], assumed: float) -> tuple[float, float | None]:
    """The least mean cost and its focal length; infinity and None if it is unknown."""

    def fit(factor: float) -> tuple[float, float]:
        """The mean cost, and the share of points that agree."""
        squares = []
        for before, after, turn, zoom in seen:
            focal = assumed * factor * zoom
            vector = Rotation.from_matrix(turn.rotation).as_rotvec() / factor
            turn = Turn(Rotation.from_rotvec(vector).as_matrix(), turn.zoom)
            for _ in range(_PASSES):
                turn, _ = _improved(turn, before, after, focal)
            squares.append(((turn.of(before, focal) - after) ** 2).sum(axis=1))
        square = np.concatenate(squares)
        cost = square / (square + (INLIER_PX / 2) ** 2)
        return float(cost.mean()), float((square < INLIER_PX**2).mean())

    factors = np.geomspace(*_FOCAL_RANGE, _FOCAL_STEPS)
    best = int(np.argmin([fit(factor)[0] for factor in factors]))
    if best in (0, _FOCAL_STEPS - 1):
        return math.inf, None
    around = factors[best - 1], factors[best + 1]
    factor = float(minimize_scalar(lambda f: fit(f)[0], bounds=around, method="bounded").x)
    cost, explained = fit(factor)
    rise = min(fit(factor * (1 + change))[0] - cost for change in (-_FOCAL_CHANGE, _FOCAL_CHANGE))
    is_known = explained > _EXPLAINED and rise > _FOCAL_RISE
    return (cost, assumed * factor) if is_known else (math.inf, None)


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
    """Turns of pairs of points: the ratio of distances is the zoom, directions give the rotation.

    Args:
        first, second: numbers of the points of each pair.
    """
    spans = [np.linalg.norm(points[second] - points[first], axis=1) for points in (before, after)]
    usable = np.minimum(*spans) > _MIN_SPAN_PX
    first, second, zooms = first[usable], second[usable], spans[1][usable] / spans[0][usable]
    axes = [
        _axes(_rays(points[first], focal_of), _rays(points[second], focal_of))
        for points, focal_of in ((before, focal), (after, focal * zooms[:, None]))
    ]
    rotations = axes[1] @ axes[0].transpose(0, 2, 1)
    return [Turn(r, float(z)) for r, z in zip(rotations, zooms, strict=True) if 0.5 < z < 2]


def _rays(points: Points, focal: float | np.ndarray) -> Float[np.ndarray, "N 3"]:
    rays = np.column_stack([points / focal, np.ones(len(points))])
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _axes(
    one: Float[np.ndarray, "N 3"], other: Float[np.ndarray, "N 3"]
) -> Float[np.ndarray, "N 3 3"]:
    """Right-handed axes (columns) that pairs of unit vectors span."""
    middle = one + other
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    normal = np.cross(one, other)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return np.stack([middle, normal, np.cross(middle, normal)], axis=-1)


def _improved(turn: Turn, before: Points, after: Points, focal: float) -> tuple[Turn, float]:
    """A Gauss-Newton step on rotation vector and log zoom: the new turn, and its largest change."""
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
    # Fits start from each other: without orthogonalisation, rounding errors grow exponentially.
    rotation = (Rotation.from_rotvec(step[:3]) * Rotation.from_matrix(turn.rotation)).as_matrix()
    zoom = float(np.clip(turn.zoom * math.exp(step[3]), 0.2, 5))
    return Turn(rotation, zoom), float(np.abs(step).max())


class Edge(NamedTuple):
    """A measured turn between the keyframes with two numbers."""

    source: int
    target: int
    turn: Turn
    weight: float


def adjusted(first: list[Turn], edges: list[Edge]) -> list[Turn]:
    """Adjust the turns from the first frame to keyframes to all measured turns between them.

    Reweighted least squares of rotation vectors and log zooms; the first keyframe does not change.

    Args:
        first: initial turns from the first frame to each keyframe.
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
        own = weight / (1 + (angle / _EDGE_SIGMA) ** 2)
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
    """Solve least squares for `width` unknowns of `count` keyframes; those of the first are 0."""
    index = np.concatenate(rows), np.concatenate(columns)
    matrix = coo_array((np.concatenate(values), index), (right.size, width * count)).tocsc()
    free = lsqr(matrix[:, width:], right.ravel(), atol=1e-10, btol=1e-10)[0]
    return np.concatenate([np.zeros(width), free]).reshape(count, width)
