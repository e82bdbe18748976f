"""Augmentations, and the targets of a person in an augmented crop.

An augmentation mirrors and turns the image in its plane. The joints and rotations of the person
follow: mirrored (left and right swap), then turned about the camera's viewing axis (z).
"""

from typing import Final, NamedTuple, TypedDict

import cv2
import numpy as np
from jaxtyping import Float, Float32

from configs.schema import ModelConfig
from datasets.humandata.file import LARGEST_TRAINED_BETA
from datasets.instances import Instance
from human_models.joints import JOINTS, POSE_JOINTS, ROOTS_OF_JOINTS, mirror_permutation
from utils.camera import CropAugmentation

_SCALE_SPREAD: Final = 0.25
_ROTATION_SPREAD_DEG: Final = 30.0
_ROTATION_PROBABILITY: Final = 0.6
_COLOUR_RANGE: Final = (0.8, 1.2)
_FLIP_PROBABILITY: Final = 0.5


class Augmentation(NamedTuple):
    """Scale of the person's box, rotation of the image in degrees, mirroring, factors of R, G, B.

    Seen in the crop, a positive rotation turns the person counter-clockwise.
    """

    scale: float = 1.0
    rotation_deg: float = 0.0
    flip: bool = False
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def crop(self) -> CropAugmentation:
        """The part that moves pixels."""
        return CropAugmentation(self.scale, self.rotation_deg, self.flip)


NO_AUGMENTATION: Final = Augmentation()


def draw_augmentation(seed: int, epoch: int, index: int, strength: float = 1.0) -> Augmentation:
    """The augmentation of sample `index` in `epoch`.

    It depends only on these numbers, so that neither the number of processes nor an interruption of
    training changes it.

    Args:
        strength: scales the changes of angle and size (`data.aug_strength`).
    """
    generator = np.random.default_rng((seed, epoch, index))
    normal_scale, normal_rotation = generator.standard_normal(2)
    turned, flipped = generator.random(2)
    red, green, blue = generator.uniform(*_COLOUR_RANGE, size=3)
    rotation = strength * _ROTATION_SPREAD_DEG * float(np.clip(normal_rotation, -2, 2))
    return Augmentation(
        scale=1 + strength * _SCALE_SPREAD * float(np.clip(normal_scale, -1, 1)),
        rotation_deg=rotation if turned < _ROTATION_PROBABILITY else 0.0,
        flip=bool(flipped < _FLIP_PROBABILITY),
        colour=(float(red), float(green), float(blue)),
    )


_PELVIS: Final = JOINTS.index("pelvis")
_JOINTS_MIRRORED: Final = np.array(mirror_permutation(JOINTS))
_POSE_MIRRORED: Final = np.array(mirror_permutation(POSE_JOINTS))
_SIDES_MIRRORED: Final = np.array([1, 0])
_MIRRORED_POINT: Final = np.array([-1, 1, 1], np.float32)
_MIRRORED_ROTATION: Final = np.array([1, -1, -1], np.float32)


class Targets(TypedDict):
    """Targets, and masks of what is known (1) or not (0), with the keys of the published code.

    Joints are `joints.JOINTS`. Metres are in the camera's frame as the crop shows it: x right,
    y down, z forward. Unknown values are zero.
    """

    target_joint_img: Float32[np.ndarray, "137 3"]
    """x, y and depth in cells of the grid on the crop; the depth of the pelvis is in the middle."""
    target_joint_cam: Float32[np.ndarray, "137 3"]
    """Metres from the pelvis."""
    target_smplx_joint_cam: Float32[np.ndarray, "137 3"]
    """Metres: the body from the pelvis, a hand from its wrist, the face from the neck."""
    target_smplx_pose: Float32[np.ndarray, "159"]
    """`joints.POSE_JOINTS`, axis-angle in radians, hands relative to the mean hand."""
    target_smplx_shape: Float32[np.ndarray, "10"]
    target_smplx_expr: Float32[np.ndarray, "10"]
    target_lhand_root: Float32[np.ndarray, "1 3"]
    """Global orientation of the left hand, axis-angle; only hand-only datasets have it."""
    target_rhand_root: Float32[np.ndarray, "1 3"]
    meta_joint_valid: Float32[np.ndarray, "137 1"]
    meta_joint_trunc: Float32[np.ndarray, "137 1"]
    """Valid, and neither left of nor above the crop nor in front of the grid."""
    meta_smplx_pose_valid: Float32[np.ndarray, "477"]
    """One for each element of the rotation matrices of `target_smplx_pose`."""
    meta_smplx_shape_valid: np.float32
    meta_smplx_expr_valid: np.float32
    meta_is_3D: np.float32


def training_targets(
    instance: Instance,
    augmentation: Augmentation,
    to_crop: Float[np.ndarray, "2 3"],
    model: ModelConfig,
    body_joints: Float32[np.ndarray, "137 3"] | None = None,
) -> Targets:
    """Targets of one person; they share no memory with the instance, which may be a read-only file.

    Args:
        to_crop: from pixels of the image to pixels of the network's input, mirroring included
            (`utils.camera.image_to_crop`).
        body_joints: metres in the camera's frame; replace unreliable 3D joints of the dataset.
            Depths in the grid remain those of the dataset.
    """
    flip = augmentation.flip
    joints = _JOINTS_MIRRORED if flip else slice(None)
    turn = _turn(augmentation.rotation_deg)

    valid = instance.joints_valid[joints]
    joint_img = _grid_joints(instance, to_crop, model)[joints]
    in_crop = valid * _in_crop(joint_img, model)
    camera_joints = instance.joints_3d if body_joints is None else body_joints
    joint_cam = camera_joints - camera_joints[_PELVIS]
    if flip:
        joint_cam = joint_cam[joints] * _MIRRORED_POINT
    joint_cam = _finite(joint_cam @ turn.T)
    pose, pose_valid = _pose(instance, flip, turn)
    left_root, right_root = _hand_roots(instance, flip, turn)
    shape_trusted = np.abs(instance.betas).max() <= LARGEST_TRAINED_BETA
    betas = instance.betas if shape_trusted else np.zeros_like(instance.betas)
    return {
        "target_joint_img": _finite(joint_img),
        "target_joint_cam": joint_cam,
        "target_smplx_joint_cam": joint_cam - joint_cam[list(ROOTS_OF_JOINTS)],
        "target_smplx_pose": _finite(pose.ravel()),
        "target_smplx_shape": np.array(betas),
        "target_smplx_expr": np.array(instance.expression),
        "target_lhand_root": left_root,
        "target_rhand_root": right_root,
        "meta_joint_valid": np.array(valid[:, None]),
        "meta_joint_trunc": in_crop[:, None],
        "meta_smplx_pose_valid": np.repeat(pose_valid.astype(np.float32), 9),
        "meta_smplx_shape_valid": np.float32(betas.any()),
        "meta_smplx_expr_valid": np.float32(instance.expression_valid),
        "meta_is_3D": np.float32(instance.has_joints_3d or body_joints is not None),
    }


def _finite(values: Float32[np.ndarray, "*N"]) -> Float32[np.ndarray, "*N"]:
    return np.where(np.isfinite(values), values, np.float32(0))


def _turn(rotation_deg: float) -> Float32[np.ndarray, "3 3"]:
    """Rotation about z by -rotation_deg, as the crop turns the person."""
    angle = np.deg2rad(-rotation_deg)
    sine, cosine = np.sin(angle), np.cos(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], np.float32)


def _grid_joints(
    instance: Instance, to_crop: Float[np.ndarray, "2 3"], model: ModelConfig
) -> Float32[np.ndarray, "137 3"]:
    """2D joints and depths in cells of the grid; NaN where unknown."""
    cells, grid_height, grid_width = model.output_hm_shape
    height, width = model.input_body_shape
    crop_px = instance.joints_2d @ to_crop[:, :2].T + to_crop[:, 2]
    grid = np.zeros((len(JOINTS), 3), np.float32)
    grid[:, :2] = crop_px * (grid_width / width, grid_height / height)
    if instance.has_joints_3d:
        depth_m = instance.joints_3d[:, 2] - instance.joints_3d[_PELVIS, 2]
        grid[:, 2] = (depth_m / (model.body_3d_size / 2) + 1) / 2 * cells
    return grid


def _in_crop(
    joint_img: Float32[np.ndarray, "137 3"], model: ModelConfig
) -> Float32[np.ndarray, "137"]:
    """Which joints count as visible.

    As in the published code, cells are compared with the size of the crop in pixels, so that
    joints right of or below the crop count too.
    """
    height, width = model.input_body_shape
    x, y, depth = joint_img.T
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (depth >= 0)
    return seen.astype(np.float32)


def _pose(
    instance: Instance, flip: bool, turn: Float32[np.ndarray, "3 3"]
) -> tuple[Float32[np.ndarray, "53 3"], Float32[np.ndarray, "53"]]:
    pose, valid = instance.pose, instance.pose_valid.astype(np.float32)
    if flip:
        pose, valid = pose[_POSE_MIRRORED] * _MIRRORED_ROTATION, valid[_POSE_MIRRORED]
    root = _turned(pose[0], turn) if valid[0] else pose[0]
    return np.concatenate([root[None], pose[1:]]), valid


def _hand_roots(
    instance: Instance, flip: bool, turn: Float32[np.ndarray, "3 3"]
) -> Float32[np.ndarray, "2 1 3"]:
    """Of the left and right hand; zero means unknown and remains zero."""
    roots = instance.hand_roots
    if flip:
        roots = roots[_SIDES_MIRRORED] * _MIRRORED_ROTATION
    return np.stack([_turned(root, turn) if root.any() else root for root in roots])[:, None]


def _turned(
    rotation: Float32[np.ndarray, "3"], turn: Float32[np.ndarray, "3 3"]
) -> Float32[np.ndarray, "3"]:
    """The rotation of an axis-angle vector, followed by `turn`."""
    turned = cv2.Rodrigues(turn @ cv2.Rodrigues(rotation)[0])[0]
    return turned.ravel().astype(np.float32)
