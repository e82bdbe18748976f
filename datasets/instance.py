"""One person in one image, as a dataset tells it: the value between files and samples."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32


class Instance(NamedTuple):
    """A row of a dataset after the dataset's own fixes, before any augmentation.

    Pixels are those of the image as it is stored, before any turn by EXIF; metres and rotations are
    in the camera's frame (x right, y down, z forward). Rotations are axis-angle vectors in radians,
    hands relative to the mean hand. What a dataset lacks is zero and marked as not valid.
    """

    row: int
    """Number of the row in the dataset's files, counted over all slices."""
    image_path: str
    """Relative to the dataset's folder of images."""
    image_size: tuple[int, int]
    """Width and height in pixels; (0, 0) where only the image itself tells."""
    body_box: Float32[np.ndarray, "4"]
    """x, y, width, height; already padded by the dataset."""
    part_boxes: Float32[np.ndarray, "3 5"]
    """Left hand, right hand, face: x, y, width, height, confidence (0: no box)."""
    joints_2d: Float32[np.ndarray, "137 2"]
    joints_3d: Float32[np.ndarray, "137 3"]
    has_joints_3d: bool
    joints_valid: Float32[np.ndarray, "137"]
    pose: Float32[np.ndarray, "53 3"]
    """joints.POSE_JOINTS."""
    pose_valid: Bool[np.ndarray, "53"]
    betas: Float32[np.ndarray, "10"]
    expression: Float32[np.ndarray, "10"]
    expression_valid: bool
    transl: Float32[np.ndarray, "3"]
    hand_roots: Float32[np.ndarray, "2 3"]
    """Global orientation of the left and right hand; hand-only datasets have nothing else."""
    gender: str
    """neutral, male or female; of the SMPL parameters where there are any."""
    smpl_pose: Float32[np.ndarray, "24 3"]
    smpl_betas: Float32[np.ndarray, "10"]
    has_smpl: bool
    vertices_path: str
    """File of ground-truth vertices, relative to the images; empty where there is none."""
