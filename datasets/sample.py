"""From a row of a dataset to a sample: read the image, crop the person, make the targets.

Samples are flat dictionaries of arrays, which torch's default collate batches. Their keys are
those of the published code; `input_img` has its channels last and values of 0..255, as all images
have here before the network.

An augmentation mirrors and turns the image in its plane. The joints and rotations of the row
follow: mirrored (left and right swap), then turned about the camera's viewing axis (z).
"""

from pathlib import Path
from typing import Final, NamedTuple, TypedDict, cast

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from configs.schema import Config, ModelConfig
from datasets.humandata.file import LARGEST_TRAINED_BETA
from datasets.instances import Instance
from datasets.sources import Scans
from human_models.body import BodyLibrary, BodyOutput
from human_models.files import Gender
from human_models.joints import (
    JOINTS,
    JOINTS_FROM_MODEL,
    POSE_JOINTS,
    POSE_PARAMETERS,
    POSE_PARTS,
    ROOTS_OF_JOINTS,
    SIDES,
    mirror_permutation,
)
from human_models.safe_pickle import load_npy
from utils.camera import (
    Box,
    Camera,
    CropAugmentation,
    crop_person,
    image_to_crop,
    person_box,
    warp_crop,
)
from utils.errors import UserError
from utils.files import path_within, read_input
from utils.image import decode_image
from utils.mesh import read_ply_vertices

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


_FILE_PADDING: Final = 0.833
"""Undoes the padding of 1.2 that the boxes in dataset files already have."""
# Annotations are in pixels of the stored image, before it is turned according to EXIF data.
_DECODE: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_SMPLX_VERTICES: Final = 10475
_LARGEST_IMAGE: Final = 1 << 30
"""Bytes."""
_JOINTS_FROM_MODEL: Final = np.array(JOINTS_FROM_MODEL)
_WRISTS: Final = [POSE_JOINTS.index(f"{side}_wrist") for side in SIDES]


class TrainingSample(Targets):
    """The input and targets of a training step."""

    input_img: Float32[np.ndarray, "H W 3"]


class EvaluationSample(TypedDict):
    """A sample for evaluation: the plain crop, the true mesh, and the place of the crop."""

    input_img: Float32[np.ndarray, "H W 3"]
    target_smplx_mesh_cam: Float32[np.ndarray, "V 3"]
    """Metres, camera frame; 6890 vertices if the dataset has SMPL, else those of SMPL-X."""
    meta_lhand_valid: np.float32
    """Whether the pose of this hand is known."""
    meta_rhand_valid: np.float32
    meta_focal: Float32[np.ndarray, "2"]
    """The camera of the crop, in pixels of the image."""
    meta_principal_pt: Float32[np.ndarray, "2"]
    meta_image_size: Float32[np.ndarray, "2"]
    """Width and height in pixels."""
    meta_img_id: np.int64
    """Row of the dataset."""


def training_sample(
    instance: Instance,
    image_folder: Path,
    config: Config,
    augmentation: Augmentation,
    body_joints: Float32[np.ndarray, "137 3"] | None = None,
) -> TrainingSample:
    """The sample of one row with an augmentation.

    Args:
        body_joints: of `joints_of_body`, for datasets whose 3D joints they replace.

    Raises:
        UserError: the image cannot be read, or the row's box has no area inside it.
    """
    model = config.model
    image = read_pixels(path_within(image_folder, instance.image_path))
    height, width = image.shape[:2]
    box = body_box(instance, width, height, config)
    to_crop = image_to_crop(box, model.input_body_shape, width, augmentation.crop)
    crop = warp_crop(image, to_crop, model.input_body_shape)
    return {
        "input_img": _coloured(crop, augmentation),
        **training_targets(instance, augmentation, to_crop, model, body_joints),
    }


def evaluation_sample(
    instance: Instance,
    image_folder: Path,
    config: Config,
    bodies: BodyLibrary,
    scans: Scans | None = None,
) -> EvaluationSample:
    """The sample of one row without augmentation, and the true mesh: of `scans`, or else of the
    annotation (`true_mesh`).

    Raises:
        UserError: a file cannot be read, or the row's box has no area inside the image.
    """
    model = config.model
    path = path_within(image_folder, instance.image_path)
    image = read_pixels(path)
    mesh = scanned_mesh(path, scans) if scans else true_mesh(instance, image_folder, bodies)
    box = body_box(instance, image.shape[1], image.shape[0], config)
    camera = Camera(model.focal, model.princpt).in_image(box, model.input_body_shape)
    left, right = (instance.pose_valid[POSE_PARTS[f"{side}_hand"]][0] for side in SIDES)
    return {
        "input_img": crop_person(image, box, model.input_body_shape),
        "target_smplx_mesh_cam": mesh,
        "meta_lhand_valid": np.float32(left),
        "meta_rhand_valid": np.float32(right),
        "meta_focal": np.array(camera.focal, np.float32),
        "meta_principal_pt": np.array(camera.princpt, np.float32),
        "meta_image_size": np.array(image.shape[1::-1], np.float32),
        "meta_img_id": np.int64(instance.row),
    }


def read_pixels(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """The stored pixels of an image file, as RGB.

    Raises:
        UserError: the file is missing or not an image.
    """
    content = read_input(path, _LARGEST_IMAGE)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), _DECODE) if content else None
    except cv2.error:  # more pixels than OpenCV accepts
        image = None
    if image is None:  # Pillow is slower, but reads HEIC and some irregular files
        return decode_image(content, str(path), as_stored=True)
    return cast(np.ndarray, image)


def body_box(instance: Instance, width: int, height: int, config: Config) -> Box:
    """The part of the image that the network sees, for an image of this size in pixels.

    Raises:
        UserError: the part has no area.
    """
    ratio = config.data.bbox_ratio * _FILE_PADDING
    aspect = config.model.input_img_shape[1] / config.model.input_img_shape[0]
    stated = Box(*instance.body_box.tolist())
    box = person_box(stated, width, height, aspect=aspect, ratio=ratio)
    if box is None:
        raise UserError(
            f"row {instance.row}: the box {tuple(stated)} has no area inside "
            f"'{instance.image_path}' ({width}x{height}); correct it or remove the row"
        )
    return box


def _coloured(
    crop: Float32[np.ndarray, "H W 3"], augmentation: Augmentation
) -> Float32[np.ndarray, "H W 3"]:
    if augmentation.colour == NO_AUGMENTATION.colour:
        return crop
    rows = crop.reshape(len(crop), -1)  # long rows, because NumPy is slow along an axis of three
    rows *= np.tile(np.array(augmentation.colour, np.float32), crop.shape[1])
    np.minimum(rows, 255, out=rows)
    return crop


def true_mesh(
    instance: Instance, image_folder: Path, bodies: BodyLibrary
) -> Float32[np.ndarray, "V 3"]:
    """The true vertices of a row, in metres in the camera's frame.

    They come from the file of vertices that the row names, else from its SMPL parameters (of its
    gender), else from its SMPL-X parameters (neutral). If only hands are known, they are turned by
    their global orientation about the wrists of a body at rest.

    Raises:
        UserError: a file of vertices or of the body model is missing or damaged.
    """
    if instance.vertices_path:
        return load_npy(path_within(image_folder, instance.vertices_path)).astype(np.float32)
    if instance.has_smpl:
        with torch.inference_mode():
            output = bodies.smpl(cast(Gender, instance.gender))(
                global_orient=_row(instance.smpl_pose[:1]),
                body_pose=_row(instance.smpl_pose[1:]),
                betas=_row(instance.smpl_betas),
                transl=_row(instance.transl),
            )
    else:
        output = _smplx(instance, bodies, want_vertices=True)
    assert output.vertices is not None
    return output.vertices[0].numpy(force=True)


def scanned_mesh(image: Path, scans: Scans) -> Float32[np.ndarray, "10475 3"]:
    """The registered mesh of an image: metres, axes of the camera, origin of the scanner.

    Raises:
        UserError: the file is missing, damaged, or not a mesh of SMPL-X.
    """
    path = scans.path_for(image)
    vertices = read_ply_vertices(path)
    if len(vertices) != _SMPLX_VERTICES:
        raise UserError(
            f"'{path}' has {len(vertices)} vertices, SMPL-X has {_SMPLX_VERTICES}; "
            "put the registered mesh there, not the raw scan"
        )
    rotation = cv2.Rodrigues(np.array(scans.to_camera))[0]
    return (vertices @ rotation.T).astype(np.float32)


def joints_of_body(instance: Instance, bodies: BodyLibrary) -> Float32[np.ndarray, "137 3"]:
    """The body model's joints for the SMPL-X parameters of a row, in metres, camera frame."""
    joints = _smplx(instance, bodies, want_vertices=False).joints[0].numpy(force=True)
    return joints[_JOINTS_FROM_MODEL]


def _smplx(instance: Instance, bodies: BodyLibrary, *, want_vertices: bool) -> BodyOutput:
    pose = instance.pose
    if not instance.pose_valid[POSE_PARTS["body"]].any():
        pose = pose.copy()
        pose[_WRISTS] = instance.hand_roots
    with torch.inference_mode():
        return bodies.smplx()(
            **{name: _row(pose[joints]) for name, joints in POSE_PARAMETERS.items()},
            betas=_row(instance.betas),
            expression=_row(instance.expression),
            transl=_row(instance.transl),
            want_vertices=want_vertices,
        )


def _row(values: Float32[np.ndarray, "*N"]) -> Float32[Tensor, "1 M"]:
    """One row as a batch."""
    return torch.tensor(values.reshape(1, -1))
