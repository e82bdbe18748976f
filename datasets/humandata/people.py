"""People with parameters, joints and cameras -> the entries of a HumanData file."""

import logging
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from datasets.humandata.entries import Entries, take_rows
from datasets.humandata.layout import JOINTS
from human_models.joints import JOINT_PARTS, JOINTS_FROM_MODEL, MODEL_JOINTS
from utils.errors import UserError

log = logging.getLogger(__name__)

BODY_BOX_SCALE: Final = 1.2
"""By how much the format has body boxes padded."""
_LANDMARKS: Final = [i for i, name in enumerate(MODEL_JOINTS) if name.startswith("face")]
_MODEL_JOINTS: Final = np.array(JOINTS_FROM_MODEL)
_PART_JOINTS: Final = {
    "lhand": [MODEL_JOINTS.index("left_wrist"), *_MODEL_JOINTS[JOINT_PARTS["left_hand"]].tolist()],
    "rhand": [
        MODEL_JOINTS.index("right_wrist"),
        *_MODEL_JOINTS[JOINT_PARTS["right_hand"]].tolist(),
    ],
    "face": _LANDMARKS,
}


class People(NamedTuple):
    """N people in images, a row each; metres and radians in the camera's frame, pixels."""

    image_path: list[str]
    image_size: Int[np.ndarray, "N 2"]
    """Width and height."""
    parameters: dict[str, np.ndarray]
    """Of SMPL-X, by the names of the format; hands relative to the mean hand."""
    joints_2d: Float[np.ndarray, "N 190 2"]
    joints_3d: Float[np.ndarray, "N 190 3"]
    joints_known: Bool[np.ndarray, "190"]
    focal: Float[np.ndarray, "N 2"]
    princpt: Float[np.ndarray, "N 2"]
    boxes: Float[np.ndarray, "N 5"]
    """x, y, width, height, confidence of bodies, not padded; NaN: that of the joints is taken."""


def scatter_network_joints(
    joints: Float[np.ndarray, "N 137 D"],
) -> tuple[Float[np.ndarray, "N 190 D"], Bool[np.ndarray, "190"]]:
    """The network's joints at their places in HumanData, and which places they fill.

    By the order of the network (JOINTS_FROM_MODEL): the table by which files are read has the eye
    points of the face crosswise, and would put each eye into the other's place.
    """
    scattered = np.zeros((len(joints), JOINTS, joints.shape[2]), np.float32)
    scattered[:, _MODEL_JOINTS] = joints
    known = np.zeros(JOINTS, bool)
    known[_MODEL_JOINTS] = True
    return scattered, known


def humandata_entries(people: People) -> Entries:
    """What `write_humandata` takes. Body boxes are padded by 1.2 and clipped to the image, boxes of
    hands and faces enclose their joints; people whose box is outside the image are left out.

    Raises UserError where nobody is left.
    """
    in_front = (people.joints_3d[..., 2] > 0) & people.joints_known
    confidence = in_front[..., None].astype(np.float32)
    joints_2d = np.concatenate([people.joints_2d, confidence], axis=2).astype(np.float32)
    joints_3d = np.concatenate([people.joints_3d, confidence], axis=2).astype(np.float32)
    given = np.isfinite(people.boxes).all(axis=1)
    tight = np.where(given[:, None], people.boxes, _enclosing(joints_2d))
    body = _clipped(_padded(tight), people.image_size)
    parts = {
        f"{part}_bbox_xywh": _clipped(_enclosing(joints_2d[:, joints]), people.image_size)
        for part, joints in _PART_JOINTS.items()
    }
    mask = people.joints_known.astype(np.uint8)
    rotations = {
        name: values.reshape(len(values), -1, 3) if values.shape[1] in (45, 63) else values
        for name, values in people.parameters.items()
    }
    entries: Entries = {
        "image_path": np.array(people.image_path, dtype=str),
        "bbox_xywh": body,
        **parts,
        "keypoints2d_smplx": joints_2d * in_front[..., None],
        "keypoints2d_smplx_mask": mask,
        "keypoints3d_smplx": joints_3d * in_front[..., None],
        "keypoints3d_smplx_mask": mask,
        "smplx": {name: values.astype(np.float32) for name, values in rotations.items()},
        "meta": {
            "height": people.image_size[:, 1].tolist(),
            "width": people.image_size[:, 0].tolist(),
            "focal_length": people.focal.astype(np.float32),
            "principal_point": people.princpt.astype(np.float32),
        },
        "misc": {
            "flat_hand_mean": False,
            "kps3d_root_aligned": False,
            "bbox_body_scale": BODY_BOX_SCALE,
            "bbox_hand_scale": 1.0,
            "bbox_face_scale": 1.0,
            "cam_param_type": "perspective",
        },
    }
    inside = body[:, 2] > 0
    if not inside.any():
        raise UserError("nobody is inside an image; check the cameras and the translations")
    if not inside.all():
        log.warning("%d people outside their images are left out", int((~inside).sum()))
    return take_rows(entries, np.flatnonzero(inside))


def _enclosing(joints: Float[np.ndarray, "N J 3"]) -> Float[np.ndarray, "N 5"]:
    """Boxes about the confident joints; without an area where there are none."""
    seen = joints[..., 2:] > 0
    first = np.where(seen, joints[..., :2], np.inf).min(axis=1)
    last = np.where(seen, joints[..., :2], -np.inf).max(axis=1)
    size = np.where(np.isfinite(first), np.maximum(last - first, 0), 0)
    start = np.where(np.isfinite(first), first, 0)
    return np.concatenate([start, size, np.ones((len(joints), 1))], axis=1)


def _padded(boxes: Float[np.ndarray, "N 5"]) -> Float[np.ndarray, "N 5"]:
    padded = boxes.copy()
    padded[:, :2] -= boxes[:, 2:4] * (BODY_BOX_SCALE - 1) / 2
    padded[:, 2:4] *= BODY_BOX_SCALE
    return padded


def _clipped(
    boxes: Float[np.ndarray, "N 5"], image_size: Int[np.ndarray, "N 2"]
) -> Float[np.ndarray, "N 5"]:
    """The part inside the image; all zero where there is none."""
    start = np.clip(boxes[:, :2], 0, image_size)
    end = np.clip(boxes[:, :2] + boxes[:, 2:4], 0, image_size)
    clipped = np.concatenate([start, end - start, boxes[:, 4:]], axis=1)
    empty = ((end - start) < 2).any(axis=1)  # less than two pixels bound no area
    return np.where(empty[:, None], 0, clipped).astype(np.float32)
