"""One camera per clip, and people moved into it from the cameras of their crops.

Frames: x right, y down, z forward, metres; focal lengths and principal points in pixels of the
whole image. A point is seen at focal * (X, Y) / Z + princpt.

A camera that stays in its place turns and zooms: `Turn` is fitted to points, and made to agree.
"""

import math
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import coo_array
from scipy.sparse.linalg import lsqr
from scipy.spatial.transform import Rotation

from human_models.joints import JOINT_PARTS, JOINTS
from utils.camera import project
from utils.errors import UserError
from utils.image import open_picture

_EXIF_PHOTO: Final = 0x8769
_FOCAL_LENGTH_35MM: Final = 0xA405
_DIAGONAL_35MM: Final = math.hypot(36, 24)
_NEAREST_M: Final = 0.2
# How much a joint counts: hands and faces have many, which all say the same.
_PART_WEIGHTS: Final = {"body": 1.0, "left_hand": 0.4, "right_hand": 0.4, "face": 0.2}
JOINT_WEIGHTS: Final = np.concatenate(
    [np.full(part.stop - part.start, _PART_WEIGHTS[name]) for name, part in JOINT_PARTS.items()]
)
_PASSES: Final = 5
_EXACT: Final = 2e-4
"""Distance in the image, over the focal length (0.3 pixels of 720p), below which nearer is no
better."""
PELVIS: Final = JOINTS.index("pelvis")


class ClipCamera(NamedTuple):
    """The camera that all people and frames of a clip share.

    Attributes:
        focal, princpt: (x, y), pixels of the whole image.
            Pixels count from the centre of the top left one.
        origin: where the focal length is from, for the summary.
    """

    focal: tuple[float, float]
    princpt: tuple[float, float]
    origin: str

    def project(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 2"]:
        """Metres in this camera to pixels; points behind it as if just before it."""
        focal, princpt = np.array(self.focal), np.array(self.princpt)
        pixels = project(points, focal, princpt, depth_epsilon=0, nearest_m=1e-3)
        return pixels.astype(np.float32)


class Clip(NamedTuple):
    """What all people of a clip share.

    Attributes:
        image_size: width and height in pixels.
        fps: frames per second.
    """

    camera: ClipCamera
    image_size: tuple[int, int]
    fps: float


class PlacedBodies(NamedTuple):
    """Bodies in the clip's camera: orientation (axis-angle), translation and joints in metres."""

    global_orient: Float[np.ndarray, "T 3"]
    transl: Float[np.ndarray, "T 3"]
    joints_3d_m: Float[np.ndarray, "T 137 3"]


def choose_camera(
    width: int, height: int, *, focal_px: float | None, fov_deg: float | None, image: Path | None
) -> ClipCamera:
    """The focal length as given, or of the photograph's EXIF data, or a guess.

    The guess is the diagonal of the image in pixels, an angle of view of 53 degrees across the
    diagonal, which is between a telephone's main camera and a normal lens.

    Args:
        width, height: of the image in pixels.
        focal_px: in pixels.
        fov_deg: the angle of view across the image's width, in degrees.
        image: a photograph that may have EXIF data.
    """
    if focal_px is not None:
        focal, origin = focal_px, "--focal"
    elif fov_deg is not None:
        focal, origin = width / 2 / math.tan(math.radians(fov_deg) / 2), "--fov"
    elif image is not None and (from_exif := _exif_focal(image, width, height)) is not None:
        focal, origin = from_exif, "EXIF"
    else:
        focal, origin = math.hypot(width, height), "default: the image's diagonal"
    return ClipCamera((focal, focal), ((width - 1) / 2, (height - 1) / 2), origin)


def _exif_focal(path: Path, width: int, height: int) -> float | None:
    """In pixels, from the focal length that would give the same view on 35 mm film."""
    try:
        with open_picture(path) as image:
            equivalent = float(image.getexif().get_ifd(_EXIF_PHOTO).get(_FOCAL_LENGTH_35MM, 0))
    except UserError:
        return None
    return equivalent / _DIAGONAL_35MM * math.hypot(width, height) if equivalent > 0 else None


def place_bodies(
    *,
    global_orient: Float[np.ndarray, "T 3"],
    transl: Float[np.ndarray, "T 3"],
    joints_3d_m: Float[np.ndarray, "T 137 3"],
    joints_2d_px: Float[np.ndarray, "T 137 2"],
    princpt: Float[np.ndarray, "T 2"],
    camera: ClipCamera,
) -> PlacedBodies:
    """Move bodies from the cameras of their crops into the clip's.

    Args:
        global_orient, transl, joints_3d_m: in the crops' cameras, as the network gave them.
        joints_2d_px: where the crops' cameras see the joints, in pixels of the whole image.
        princpt: principal points of the crops' cameras, in pixels of the whole image.
    """
    turn = turn_into_view(np.array(princpt, np.float64), camera)
    pelvis = joints_3d_m[:, PELVIS, None]
    # SMPL-X turns about the pelvis, which rests where the shape puts it, whatever the pose.
    rest = pelvis - transl[:, None]
    joints = np.einsum("tij,tkj->tki", turn, joints_3d_m - pelvis) + rest
    translation = solve_translation(joints, joints_2d_px, camera)
    orient = (Rotation.from_matrix(turn) * Rotation.from_rotvec(global_orient)).as_rotvec()
    return PlacedBodies(orient, translation, joints + translation[:, None])


def truncation(
    joints_px: Float[np.ndarray, "T 137 2"], image_size: tuple[int, int]
) -> Float[np.ndarray, " T"]:
    """Share of the body's 25 joints that are outside the image."""
    body = joints_px[:, JOINT_PARTS["body"]]
    inside = ((body >= -0.5) & (body < np.array(image_size) - 0.5)).all(axis=-1)
    return 1 - inside.mean(axis=1)


def turn_into_view(
    princpt: Float[np.ndarray, "T 2"], camera: ClipCamera
) -> Float[np.ndarray, "T 3 3"]:
    """Rotations from the frames of crops' cameras to the clip's.

    The network sees a person straight ahead, wherever in the image the crop is. Its camera's axis
    passes through the crop's principal point; in the clip's camera that is the direction d, and
    the turn is the smallest that brings z to d. Without it a person at the image's edge would
    show another side than the crop does.
    """
    direction = np.concatenate(
        [(princpt - camera.princpt) / camera.focal, np.ones((len(princpt), 1))], axis=1
    )
    x, y, z = (direction / np.linalg.norm(direction, axis=1, keepdims=True)).T
    k = 1 / (1 + z)
    rows = [[1 - k * x * x, -k * x * y, x], [-k * x * y, 1 - k * y * y, y], [-x, -y, z]]
    return np.array(rows).transpose(2, 0, 1)


def solve_translation(
    joints: Float[np.ndarray, "T 137 3"],
    target_px: Float[np.ndarray, "T 137 2"],
    camera: ClipCamera,
) -> Float[np.ndarray, "T 3"]:
    """Where bodies stand, so that the clip's camera sees their joints where the crops' cameras did.

    With a = (target - princpt) / focal, a joint (X, Y, Z) at translation t is seen at its target if
    X + t_x - a_x (Z + t_z) = 0 and Y + t_y - a_y (Z + t_z) = 0: linear in t. The weighted sum of
    squares over all joints is minimised by its 3 x 3 normal equations; a second pass divides by
    the depth that the first one found, which makes the residuals those of the image.

    Further passes divide the weights by the distances in the image, so that the sum of distances
    becomes small in place of the sum of their squares (iteratively re-weighted least squares;
    Weiszfeld, 1937): perspective, which a crop's camera does not show, moves a few joints far, feet
    and hands before the body, and they should not move all others.

    Args:
        joints: metres, in the orientation of the clip's camera, without translation.
        target_px: pixels of the whole image.
    """
    rays = (target_px - camera.princpt) / camera.focal
    ax, ay = np.ascontiguousarray(np.moveaxis(rays, -1, 0), np.float64)
    x, y, z = np.ascontiguousarray(np.moveaxis(joints, -1, 0), np.float64)
    right_x, right_y = ax * z - x, ay * z - y
    # All that the normal equations sum up, whatever the weights.
    terms = np.stack(
        [np.ones_like(ax), ax, ay, ax**2 + ay**2, right_x, right_y, ax * right_x + ay * right_y],
        axis=-1,
    )
    weights = np.broadcast_to(JOINT_WEIGHTS, ax.shape)
    for number in range(_PASSES):
        translation = _solve_normal_equations((weights[:, None] @ terms)[:, 0])
        depth = np.maximum(z + translation[:, 2:], _NEAREST_M)
        weights = JOINT_WEIGHTS / depth**2
        if number > 0:
            off_x = (x + translation[:, :1]) / depth - ax
            off_y = (y + translation[:, 1:2]) / depth - ay
            weights /= np.maximum(np.hypot(off_x, off_y), _EXACT)
    return translation.astype(np.float32)


def _solve_normal_equations(sums: Float[np.ndarray, "T 7"]) -> Float[np.ndarray, "T 3"]:
    total, ax, ay, squares, right_x, right_y, right_z = sums.T
    zero = np.zeros_like(total)
    normal = np.array(
        [[total, zero, -ax], [zero, total, -ay], [-ax, -ay, squares + 1e-9 * total]]
    ).transpose(2, 0, 1)
    right = np.stack([right_x, right_y, -right_z], axis=1)
    return np.linalg.solve(normal, right[..., None])[..., 0]


INLIER_PX: Final = 1.5
"""Points at most so far from where a turn takes them agree with it."""
_SAMPLES: Final = 48
_TURN_PASSES: Final = 8
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
    # Fits start from each other: without orthogonalization, rounding errors grow exponentially.
    rotation = (Rotation.from_rotvec(step[:3]) * Rotation.from_matrix(turn.rotation)).as_matrix()
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
    for _ in range(_TURN_PASSES):
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
