"""The camera of a clip and how it moves, and people moved into it from the cameras of their crops.

Frames: x right, y down, z forward, metres; focal lengths and principal points in pixels of the
whole image. A point is seen at focal * (X, Y) / Z + princpt.
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
ASSUMED: Final = "default: the image's diagonal"
TURNS: Final = "the camera's turns"
"""Origins of a focal length: nothing is known of it, and turns of the camera showed it."""


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


CameraKind = Literal["static", "rotating", "moving"]


class CameraMotion(NamedTuple):
    """Where the camera is in every frame, relative to the first; T frames.

    Attributes:
        camera_from_first: points of the first frame's camera (x right, y down, z forward) in each
            frame's camera. Translations are in metres if `scale_known`; of a camera that only
            turns they are 0.
        zoom: the focal length over that of the first frame.
        confidence: 0 to 1, how far the pose of each frame can be trusted.
        scale_known: translations are in metres; else their unit is unknown.
    """

    kind: CameraKind
    camera_from_first: Float[np.ndarray, "T 4 4"]
    zoom: Float[np.ndarray, " T"]
    confidence: Float[np.ndarray, " T"]
    scale_known: bool


def static_camera(frame_count: int, confidence: float = 1.0) -> CameraMotion:
    """A camera that stands still."""
    return CameraMotion(
        "static",
        np.tile(np.eye(4), (frame_count, 1, 1)),
        np.ones(frame_count),
        np.full(frame_count, confidence),
        True,
    )


def scaled(motion: CameraMotion, factor: float) -> CameraMotion:
    """The motion with its translations times `factor`, which makes metres of its unit."""
    poses = motion.camera_from_first.copy()
    poses[:, :3, 3] *= factor
    return motion._replace(camera_from_first=poses, scale_known=True)


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
        focal, origin = math.hypot(width, height), ASSUMED
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
