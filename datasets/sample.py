"""From a row of a dataset to a sample: read the image, crop the person, make the targets.

Samples are flat dictionaries of arrays, which torch's default collate batches. Their keys are
those of the published code; `input_img` has its channels last and values of 0..255, as all images
have here before the network.
"""

from pathlib import Path
from typing import Final, TypedDict, cast

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from configs.schema import Config
from datasets.instances import Instance
from datasets.sources import Scans
from datasets.targets import NO_AUGMENTATION, Augmentation, Targets, training_targets
from human_models.body import BodyLibrary, BodyOutput
from human_models.files import Gender
from human_models.joints import JOINTS_FROM_MODEL, POSE_JOINTS, POSE_PARAMETERS, POSE_PARTS, SIDES
from human_models.safe_pickle import load_npy
from utils.camera import Box, Camera, crop_person, image_to_crop, person_box, warp_crop
from utils.errors import UserError
from utils.files import path_within, read_input
from utils.image import decode_image
from utils.mesh import read_ply_vertices

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
