"""Properties of targets: they mirror and turn as the crop does, and keep quiet of the unknown."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from configs.reader import load_config
from datasets.instances import Instance
from datasets.sample import training_sample
from datasets.targets import NO_AUGMENTATION, Augmentation, training_targets
from human_models.joints import JOINTS, POSE_PARTS, mirror_permutation
from utils.camera import Box, image_to_crop

CONFIG = load_config(Path(__file__).parents[1] / "parity" / "config_base.py")
AUGMENTATIONS = (
    NO_AUGMENTATION,
    Augmentation(flip=True),
    Augmentation(1, 90),
    Augmentation(1.2, 25, True, (1.1, 0.9, 1.0)),
    Augmentation(0.8, -40, False, (0.85, 1.15, 1.2)),
)
LEFT_WRIST, RIGHT_WRIST = JOINTS.index("left_wrist"), JOINTS.index("right_wrist")


def person(**changes: Any) -> Instance:
    """Someone of random numbers whose left hand is not known."""
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return generator.normal(scale=0.4, size=shape).astype(np.float32)

    pose, pose_valid, joints_valid = normal(53, 3), np.ones(53, bool), np.ones(137, np.float32)
    pose_valid[POSE_PARTS["left_hand"]] = joints_valid[LEFT_WRIST] = 0
    known = Instance(
        row=0,
        image_path="image.png",
        image_size=(360, 270),
        body_box=np.array([100, 60, 150, 160], np.float32),
        joints_2d=normal(137, 2) * 100 + (180, 135),
        joints_3d=normal(137, 3),
        has_joints_3d=True,
        joints_valid=joints_valid,
        pose=pose,
        pose_valid=pose_valid,
        betas=normal(10),
        expression=normal(10),
        expression_valid=True,
        transl=normal(3),
        hand_roots=np.array([[0, 0, 0], [1, 2, -1]], np.float32),
        gender="neutral",
        smpl_pose=np.zeros((24, 3), np.float32),
        smpl_betas=np.zeros(10, np.float32),
        has_smpl=False,
        vertices_path="",
    )
    return known._replace(**changes)


def targets_of(instance: Instance, augmentation: Augmentation) -> dict[str, np.ndarray]:
    box = Box(*instance.body_box.tolist())
    width = instance.image_size[0]
    to_crop = image_to_crop(box, CONFIG.model.input_body_shape, width, augmentation.crop)
    return {**training_targets(instance, augmentation, to_crop, CONFIG.model)}


def mirrored(instance: Instance, targets: dict[str, np.ndarray]) -> Instance:
    """The row of the mirrored image, from the targets of a mirrored sample."""
    x, y, width, height = instance.body_box
    box = np.array([instance.image_size[0] - 1 - x - width, y, width, height], np.float32)
    to_crop = image_to_crop(Box(*box.tolist()), CONFIG.model.input_body_shape, 0)
    joint_img = targets["target_joint_img"][:, :2] * 16
    return instance._replace(
        body_box=box,
        joints_2d=((joint_img - to_crop[:, 2]) / np.diag(to_crop)).astype(np.float32),
        joints_3d=targets["target_joint_cam"],
        joints_valid=targets["meta_joint_valid"][:, 0],
        pose=targets["target_smplx_pose"].reshape(53, 3),
        pose_valid=targets["meta_smplx_pose_valid"][::9].astype(bool),
        hand_roots=np.concatenate([targets[f"target_{s}hand_root"] for s in "lr"]),
    )


def test_flip_twice_is_identity():
    instance = person()
    flip = Augmentation(flip=True)
    once = targets_of(instance, flip)
    twice, straight = (
        targets_of(mirrored(instance, once), flip),
        targets_of(instance, Augmentation()),
    )
    changed = {key for key in once if not np.array_equal(once[key], straight[key])}
    assert changed >= {"target_joint_img", "target_joint_cam", "target_smplx_pose"}
    assert changed >= {"meta_joint_valid", "meta_smplx_pose_valid", "target_lhand_root"}
    for key in straight:
        np.testing.assert_allclose(twice[key], straight[key], atol=1e-3, err_msg=key)


def test_a_joint_lies_where_the_crop_shows_it(tmp_path):
    """A white dot drawn at each wrist is found at its target, however the crop is made."""
    spots = {LEFT_WRIST: (150, 120), RIGHT_WRIST: (210, 160)}
    joints_2d = np.zeros((137, 2), np.float32)
    for joint, spot in spots.items():
        joints_2d[joint] = spot
    instance = person(joints_2d=joints_2d)
    for augmentation in AUGMENTATIONS:
        for joint, spot in spots.items():
            seen_as = mirror_permutation(JOINTS)[joint] if augmentation.flip else joint
            image = np.zeros((270, 360, 3), np.uint8)
            cv2.circle(image, spot, 3, (255, 255, 255), -1)
            cv2.imwrite(str(tmp_path / instance.image_path), image)
            sample = training_sample(instance, tmp_path, CONFIG, augmentation)
            weights = sample["input_img"].mean(axis=2)
            rows, columns = np.indices(weights.shape)
            found = [(columns * weights).sum(), (rows * weights).sum()] / weights.sum()
            target = sample["target_joint_img"][seen_as, :2] * 16
            np.testing.assert_allclose(found, target, atol=0.3)


def test_a_global_rotation_follows_the_crop():
    """The hand's direction in 3D turns as its direction in the crop does; so does its root."""
    direction = np.array([1, 0, 0], np.float32)
    joints_3d = np.zeros((137, 3), np.float32)
    joints_3d[LEFT_WRIST] = direction
    root = np.zeros((53, 3), np.float32)
    root[0] = (0.3, -0.2, 0.5)
    hands = np.array([[0, 0, 0], root[0]], np.float32)
    instance = person(joints_3d=joints_3d, pose=root, hand_roots=hands)
    targets = targets_of(instance, Augmentation(rotation_deg=30))
    turn = cv2.Rodrigues(np.array([0, 0, np.deg2rad(-30)]))[0]
    np.testing.assert_allclose(targets["target_joint_cam"][LEFT_WRIST], turn @ direction, atol=1e-6)
    for key in ("target_smplx_pose", "target_rhand_root"):
        turned = cv2.Rodrigues(targets[key].ravel()[:3])[0]
        np.testing.assert_allclose(turned, turn @ cv2.Rodrigues(root[0])[0], atol=1e-6)
    assert not targets["target_lhand_root"].any()  # not known


def test_unknown_stays_zero_and_invalid():
    nothing = np.zeros((137, 3), np.float32)
    joints_2d = np.full((137, 2), 100, np.float32)
    joints_2d[5] = np.nan
    instance = person(
        joints_2d=joints_2d,
        joints_3d=nothing,
        has_joints_3d=False,
        hand_roots=np.zeros((2, 3), np.float32),
    )
    betas = instance.betas.copy()
    betas[3] = 3.5
    targets = targets_of(instance._replace(betas=betas), Augmentation(0.9, 20, True))
    assert targets["meta_is_3D"] == 0
    assert not targets["target_joint_cam"].any()
    assert not targets["target_smplx_shape"].any()
    assert targets["meta_smplx_shape_valid"] == 0
    assert targets["meta_joint_trunc"][6] == 0  # the other ankle, mirrored
    assert not targets["target_lhand_root"].any()
    assert not targets["target_rhand_root"].any()
    assert all(np.isfinite(value).all() for value in targets.values())
