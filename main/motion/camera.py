"""The camera of a clip, its motion, and the placement of people from the cameras of their crops.

Camera frames have x right, y down and z forward, in metres. Focal lengths and principal points are
in pixels of the whole image. A point (X, Y, Z) is projected to focal * (X, Y) / Z + princpt.
"""

import math
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from human_models.joints import JOINT_PARTS, JOINTS
from utils.camera import project
from utils.errors import UserError
from utils.image import open_picture

_EXIF_PHOTO: Final = 0x8769
_FOCAL_LENGTH_35MM: Final = 0xA405
_DIAGONAL_35MM: Final = math.hypot(36, 24)
_MIN_DEPTH_M: Final = 0.2
# Hands and faces have many joints with correlated errors.
_PART_WEIGHTS: Final = {"body": 1.0, "left_hand": 0.4, "right_hand": 0.4, "face": 0.2}
JOINT_WEIGHTS: Final = np.concatenate(
    [np.full(part.stop - part.start, _PART_WEIGHTS[name]) for name, part in JOINT_PARTS.items()]
)
"""Weights of the joints in `solve_translation`."""
_PASSES: Final = 5
_MIN_DISTANCE: Final = 2e-4
"""Lower bound of distances in the image that weights are divided by, over the focal length (0.3
pixels in 720p)."""
UNMODELLED: Final = 0.3
"""Factor or bound of the confidence if only a part of the camera's motion is known."""
PELVIS: Final = JOINTS.index("pelvis")
ASSUMED: Final = "default: the image's diagonal"
TURNS: Final = "the camera's turns"
"""Origins of a focal length that is assumed, and of one that the camera's rotation determines."""


class ClipCamera(NamedTuple):
    """The camera that all people and frames of a clip share.

    Attributes:
        focal: focal lengths in x and y, in pixels of the whole image.
        princpt: principal point in pixels from the centre of the top left pixel.
        origin: where the focal length comes from, for the summary.
    """

    focal: tuple[float, float]
    princpt: tuple[float, float]
    origin: str

    def project(self, points: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 2"]:
        """Project points in metres to pixels; points behind the camera as if just in front."""
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


CameraKind = Literal["static", "rotating", "moving"]


class CameraMotion(NamedTuple):
    """Pose and zoom of the camera in T frames, relative to the first frame.

    Attributes:
        camera_from_first: rigid transforms of points in the first frame's camera to the camera of
            each frame. Translations of a camera that only turns are 0.
        zoom: focal length over that of the first frame.
        confidence: reliability of each pose, from 0 to 1.
        scale_known: whether translations are in metres; otherwise their unit is unknown.
    """

    kind: CameraKind
    camera_from_first: Float[np.ndarray, "T 4 4"]
    zoom: Float[np.ndarray, " T"]
    confidence: Float[np.ndarray, " T"]
    scale_known: bool


def static_camera(frame_count: int, confidence: float = 1.0) -> CameraMotion:
    """The motion of a camera that does not move."""
    return CameraMotion(
        "static",
        np.tile(np.eye(4), (frame_count, 1, 1)),
        np.ones(frame_count),
        np.full(frame_count, confidence),
        True,
    )


def scaled(motion: CameraMotion, factor: float) -> CameraMotion:
    """The motion in metres, where `factor` is the number of metres of its unit."""
    poses = motion.camera_from_first.copy()
    poses[:, :3, 3] *= factor
    return motion._replace(camera_from_first=poses, scale_known=True)


def as_dolly(motion: CameraMotion) -> CameraMotion:
    """The motion of a camera that moves ahead and back instead of zooming.

    Both look the same if all of the background is equally far away. The unit of length is its
    distance in the first frame.
    """
    turns = motion.camera_from_first[:, :3, :3]
    ahead = turns[:, 2]  # optical axes in the first camera's frame
    nearer = np.diff(1 - 1 / motion.zoom, prepend=0.0)
    poses = motion.camera_from_first.copy()
    centres = np.cumsum(nearer[:, None] * ahead, axis=0)
    poses[:, :3, 3] = -np.einsum("tij,tj->ti", turns, centres)
    confidence = np.minimum(motion.confidence, UNMODELLED)
    return CameraMotion("moving", poses, np.ones(len(poses)), confidence, False)


def choose_camera(
    width: int, height: int, *, focal_px: float | None, fov_deg: float | None, image: Path | None
) -> ClipCamera:
    """The camera with the given focal length, else that of EXIF data, else an assumed one.

    The assumed focal length is the diagonal of the image: an angle of view of 53 degrees across the
    diagonal, between the main camera of a phone and a normal lens.

    Args:
        width, height: size of the image in pixels.
        focal_px: focal length in pixels, if known.
        fov_deg: angle of view across the image's width in degrees, if known.
        image: a photograph that may have EXIF data.
    """
    if focal_px is not None:
        focal, origin = focal_px, "--focal"
    elif fov_deg is not None:
        focal, origin = width / 2 / math.tan(math.radians(fov_deg) / 2), "--fov"
    elif image is not None and (from_exif := _exif_focal(image, width, height)) is not None:
        focal, origin = from_exif, "EXIF"
    else:
        focal, origin = math.hypot(width, height), ASSUMED
    return ClipCamera((focal, focal), ((width - 1) / 2, (height - 1) / 2), origin)


def _exif_focal(path: Path, width: int, height: int) -> float | None:
    """The focal length in pixels, from the one that gives the same view on 35 mm film."""
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
    """Move bodies from the cameras of their crops into the camera of the clip.

    Args:
        global_orient, transl, joints_3d_m: in the cameras of the crops, as the network estimates.
        joints_2d_px: projections by the cameras of the crops, in pixels of the whole image.
        princpt: principal points of the cameras of the crops, in pixels of the whole image.
    """
    turn = turn_into_view(np.array(princpt, np.float64), camera)
    pelvis = joints_3d_m[:, PELVIS, None]
    # SMPL-X rotates about the pelvis, whose position at rest depends on the shape alone.
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
    """Rotations from the frames of the crops' cameras to that of the clip's camera.

    The network sees a person straight ahead, wherever the crop is in the image: the optical axis
    passes through the principal point of the crop, which is a direction d in the clip's camera. The
    rotation is the smallest that takes z to d. Without it, people at the edge of the image would
    show another side than in the crop.

    Args:
        princpt: principal points of the cameras of the crops, in pixels of the whole image.
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
    """Find the translations in metres with which joints are projected to their targets.

    With a = (target - princpt) / focal, a joint (X, Y, Z) with translation t is at its target if
    X + t_x - a_x (Z + t_z) = 0 and Y + t_y - a_y (Z + t_z) = 0. These equations are linear in t, so
    3 x 3 normal equations minimise the weighted sum of squares over all joints. The second pass
    divides the residuals by the depths of the first, which makes them distances in the image.

    Further passes divide the weights by these distances, which minimises the sum of distances
    instead of squares (iteratively reweighted least squares; Weiszfeld, 1937). Perspective, which
    is not visible in a crop's camera, moves a few joints far, mostly of hands and feet; they should
    not move the others.

    Args:
        joints: in metres, in the axes of the clip's camera, without translation.
        target_px: in pixels of the whole image.
    """
    rays = (target_px - camera.princpt) / camera.focal
    ax, ay = np.ascontiguousarray(np.moveaxis(rays, -1, 0), np.float64)
    x, y, z = np.ascontiguousarray(np.moveaxis(joints, -1, 0), np.float64)
    right_x, right_y = ax * z - x, ay * z - y
    # Terms of the normal equations, which are summed with the weights of each pass.
    terms = np.stack(
        [np.ones_like(ax), ax, ay, ax**2 + ay**2, right_x, right_y, ax * right_x + ay * right_y],
        axis=-1,
    )
    weights = np.broadcast_to(JOINT_WEIGHTS, ax.shape)
    for number in range(_PASSES):
        translation = _solve_normal_equations((weights[:, None] @ terms)[:, 0])
        depth = np.maximum(z + translation[:, 2:], _MIN_DEPTH_M)
        weights = JOINT_WEIGHTS / depth**2
        if number > 0:
            off_x = (x + translation[:, :1]) / depth - ax
            off_y = (y + translation[:, 1:2]) / depth - ay
            weights /= np.maximum(np.hypot(off_x, off_y), _MIN_DISTANCE)
    return translation.astype(np.float32)


def _solve_normal_equations(sums: Float[np.ndarray, "T 7"]) -> Float[np.ndarray, "T 3"]:
    total, ax, ay, squares, right_x, right_y, right_z = sums.T
    zero = np.zeros_like(total)
    normal = np.array(
        [[total, zero, -ax], [zero, total, -ay], [-ax, -ay, squares + 1e-9 * total]]
    ).transpose(2, 0, 1)
    right = np.stack([right_x, right_y, -right_z], axis=1)
    return np.linalg.solve(normal, right[..., None])[..., 0]
