"""Simulated clips of people who walk, cross, leave and come back, without rendering.

Boxes and bodies are projected, and noise simulates a detector and a network: a part that is
independent in every frame and a part that varies slowly, both larger for occluded people. People
who are mostly hidden are not detected. `read_clip` reads the truth of rendered clips
(`python -m main.synthesize --video`) in the same form.
"""

import math
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from human_models.body import BodyLibrary, BodyModel
from human_models.files import find_model_folder
from human_models.joints import JOINT_PARTS, JOINTS_FROM_MODEL
from human_models.safe_pickle import load_npz
from main.motion.camera import ClipCamera, solve_translation, turn_into_view
from main.motion.kinematics import POSITION, ROTATIONS, SHAPE, NetworkErrors
from main.pipeline.estimator import Person
from synthetic.poses import walk_cycle
from synthetic.production import SynthesisOptions, synthesize
from synthetic.skeleton import JOINT, turn
from utils.camera import Box, Camera, person_box
from utils.devices import usable_cores
from utils.files import ROOT
from utils.iteration import with_progress

WIDTH, HEIGHT, FPS = 1280, 720, 30
CAMERA: Final = ClipCamera((1300.0, 1300.0), (WIDTH / 2, HEIGHT / 2), "simulation")
_CROP_CAMERA: Final = Camera((5000, 5000), (96, 128))
_CAMERA_HEIGHT_M: Final = 1.5
_HIP_HEIGHT_M: Final = 0.93
_HIDDEN: Final = 0.65
_SILHOUETTE: Final = 0.6
"""Share of a box's width that its person covers."""


class Walker(NamedTuple):
    """True motion of one person over T frames, metres in the camera frame of the clip.

    Attributes:
        joints: positions with translation.
        boxes: boxes around the joints with a margin: x, y, width, height in pixels.
        covered: share of the body's joints behind a nearer person.
        in_image: share of the body's joints inside the image.
    """

    rotations: Float[np.ndarray, "T 22 3 3"]
    betas: Float[np.ndarray, "10"]
    joints: Float[np.ndarray, "T 137 3"]
    boxes: Float[np.ndarray, "T 4"]
    covered: Float[np.ndarray, " T"]
    in_image: Float[np.ndarray, " T"]

    @property
    def detectable(self) -> Bool[np.ndarray, " T"]:
        return (self.covered < _HIDDEN) & (self.in_image > 0.35)


def installed_body() -> BodyModel:
    """The installed SMPL-X, or the open body without it."""
    return BodyLibrary(find_model_folder(ROOT / "human_models" / "human_model_files")).smplx()


class Estimate(NamedTuple):
    frame: int
    walker: int
    score: float
    person: Person


def walkers(
    body: BodyModel,
    rng: np.random.Generator,
    count: int,
    frames: int,
    *,
    crossing: bool = True,
    distance_m: tuple[float, float] = (3.2, 7.0),
) -> list[Walker]:
    """People of one clip who walk to and fro across the view at different distances.

    Args:
        crossing: whether they also leave the view at its sides.
        distance_m: approximate range of the distances.
    """
    people = [_walk(body, rng, frames, crossing, distance_m) for _ in range(count)]
    depth = np.stack([one.joints[:, 0, 2] for one in people])
    result = []
    for k, one in enumerate(people):
        px = CAMERA.project(one.joints[:, JOINT_PARTS["body"]])
        behind = np.zeros(px.shape[:2], bool)
        for other in range(count):
            x, y, width, height = people[other].boxes.T
            middle = (np.abs(px[..., 0].T - x - width / 2) < _SILHOUETTE * width / 2).T
            within = middle & (y < px[..., 1].T).T & (y + height > px[..., 1].T).T
            behind |= within & (depth[other] < depth[k])[:, None]
        result.append(one._replace(covered=behind.mean(axis=1)))
    return result


def _walk(
    body: BodyModel,
    rng: np.random.Generator,
    frames: int,
    crossing: bool,
    distance_m: tuple[float, float],
) -> Walker:
    times = np.arange(frames) / FPS
    distance = rng.uniform(*distance_m)
    half = distance * CAMERA.princpt[0] / CAMERA.focal[0] * (1.25 if crossing else 0.6)
    speed = rng.uniform(0.7, 1.6) * rng.choice((-1, 1))
    # A triangle wave with rounded turns.
    x = half * 2 / math.pi * np.arcsin(np.sin(speed * times / half + rng.uniform(0, 2 * math.pi)))
    x = gaussian_filter1d(x, 6, mode="nearest")
    z = distance + rng.uniform(0.1, 0.8) * np.sin(rng.uniform(0.2, 0.6) * times + rng.uniform(0, 6))
    velocity = np.stack([np.gradient(x, times), np.gradient(z, times)])
    heading = np.unwrap(np.arctan2(velocity[0], -velocity[1]))
    stride = np.clip(np.hypot(*velocity) / 1.3, 0.2, 1.2)
    phase = np.cumsum(np.hypot(*velocity) / FPS / 1.4) + rng.random()
    rotations = np.stack([walk_cycle(p, s, 0.0) for p, s in zip(phase, stride, strict=True)])
    for side, sign in (("left", 1), ("right", -1)):
        swing = 25 * stride * np.cos(2 * math.pi * phase) * sign
        rotations[:, JOINT[f"{side}_shoulder"]] = [
            turn("x", -angle) @ turn("z", -68.0 * sign) for angle in swing
        ]
    rotations[:, 0] = [
        turn("x", 180.0) @ turn("y", math.degrees(angle)) @ root
        for angle, root in zip(heading, rotations[:, 0], strict=True)
    ]
    betas = rng.normal(0, 1, 10).astype(np.float32)
    place = np.stack([x, np.full(frames, _CAMERA_HEIGHT_M - _HIP_HEIGHT_M), z], axis=1)
    joints = joints_of(body, rotations, np.tile(betas, (frames, 1))) + place[:, None]
    px = CAMERA.project(joints)
    low, high = px.min(axis=1), px.max(axis=1)
    margin = 0.04 * (high - low)
    low, high = (
        np.clip(low - margin, 0, (WIDTH, HEIGHT)),
        np.clip(high + margin, 0, (WIDTH, HEIGHT)),
    )
    part = px[:, JOINT_PARTS["body"]]
    inside = ((part >= 0) & (part < (WIDTH, HEIGHT))).all(axis=-1).mean(axis=1)
    boxes = np.concatenate([low, high - low], axis=1)
    return Walker(rotations, betas, joints, boxes, np.zeros(frames), inside)


def joints_of(
    body: BodyModel, rotations: Float[np.ndarray, "T 22 3 3"], betas: Float[np.ndarray, "T 10"]
) -> Float[np.ndarray, "T 137 3"]:
    """Joints without translation, metres."""
    pose = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_rotvec().reshape(-1, 66)
    pose_tensor = torch.from_numpy(pose.astype(np.float32))
    with torch.inference_mode():
        output = body(
            global_orient=pose_tensor[:, :3],
            body_pose=pose_tensor[:, 3:],
            betas=torch.from_numpy(np.asarray(betas, np.float32)),
            want_vertices=False,
        )
    return output.joints[:, JOINTS_FROM_MODEL].numpy()


def _disturbance(
    rng: np.random.Generator, shape: tuple[int, ...], quick: float, lasting: float
) -> Float[np.ndarray, " T *C"]:
    """White noise plus noise that varies over a second, with the given standard deviations."""
    sigma, margin = 0.5 * FPS, round(2 * FPS)
    white = rng.normal(size=(shape[0] + 2 * margin, *shape[1:]))
    slow = gaussian_filter1d(white, sigma, axis=0)[margin:-margin]
    deviation = (2 * sigma * math.sqrt(math.pi)) ** -0.5  # of filtered white noise
    return quick * rng.normal(size=shape) + lasting * slow / deviation


def estimates(
    body: BodyModel,
    rng: np.random.Generator,
    people: list[Walker],
    camera: ClipCamera = CAMERA,
    noise: float = 1.0,
    network: NetworkErrors | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> list[Estimate]:
    """Simulated estimates of a detector and a network, ordered by frame.

    Args:
        noise: factor of the errors of bodies.
        network: measured errors that replace the errors of bodies; half of their variance is slow.
        size: width and height of the image.
    """
    result = []
    for number, one in enumerate(people):
        frames = len(one.joints)
        worse = noise * (1 + 3 * one.covered[:, None])
        pose_error = _disturbance(rng, (frames, 22 * 3), 0.05, 0.06) * worse
        error = Rotation.from_rotvec(pose_error.reshape(-1, 3)).as_matrix().reshape(-1, 22, 3, 3)
        rotations = one.rotations @ error
        betas = one.betas * 0.7 + _disturbance(rng, (frames, 10), 0.2, 0.25) * worse
        if network is not None:
            axes = _disturbance(rng, (frames, network.basis.shape[1]), 0.7, 0.7)
            errors = axes @ network.basis.numpy().T
            pose_error, place_error = errors[:, ROTATIONS][:, :66], errors[:, POSITION]
            error = Rotation.from_rotvec(pose_error.reshape(-1, 3)).as_matrix()
            rotations = one.rotations @ error.reshape(-1, 22, 3, 3)
            betas = one.betas + errors[:, SHAPE][:, :10]
        boxes = one.boxes + one.boxes[:, [2, 3, 2, 3]] * rng.normal(0, 0.015, (frames, 4)) * worse
        scores = np.clip(0.92 - 0.5 * one.covered + rng.normal(0, 0.03, frames), 0.3, 1)
        seen = np.flatnonzero(one.detectable & (rng.random(frames) > 0.02 + 0.3 * one.covered))
        cuts = [person_box(Box(*boxes[frame]), *size) for frame in seen]
        seen = seen[[k for k, cut in enumerate(cuts) if cut is not None]]
        crops = [_CROP_CAMERA.in_image(cut, (256, 192)) for cut in cuts if cut is not None]
        turns = turn_into_view(np.array([crop.princpt for crop in crops]).reshape(-1, 2), camera)
        rotations = rotations[seen].copy()
        rotations[:, 0] = turns.transpose(0, 2, 1) @ rotations[:, 0]
        joints = joints_of(body, rotations, betas[seen])
        depth_error = np.exp(_disturbance(rng, (frames, 1), 0.015, 0.02) * worse)[seen]
        shift = _disturbance(rng, (frames, 2), 0.006, 0.006)[seen]
        if network is not None:
            depth_error, shift = np.exp(place_error[seen, 2:]), place_error[seen, :2]
        true_px = camera.project(one.joints[seen]) + (shift * boxes[seen, 3:])[:, None]
        for k, frame in enumerate(seen.tolist()):
            crop = ClipCamera(crops[k].focal, crops[k].princpt, "crop")
            transl = solve_translation(joints[k : k + 1], true_px[k : k + 1], crop)[0]
            transl *= depth_error[k]
            result.append(
                Estimate(
                    *(frame, number, float(scores[frame])),
                    _person(rotations[k], betas[frame], boxes[frame], joints[k], transl, crop),
                )
            )
    return sorted(result, key=lambda one: (one.frame, one.walker))


def _person(
    rotations: Float[np.ndarray, "22 3 3"],
    betas: Float[np.ndarray, "10"],
    box: Float[np.ndarray, "4"],
    joints: Float[np.ndarray, "137 3"],
    transl: Float[np.ndarray, "3"],
    camera: ClipCamera,
) -> Person:
    pose = Rotation.from_matrix(rotations).as_rotvec().astype(np.float32)
    placed = (joints + transl).astype(np.float32)
    return Person(
        box_xywh=box.astype(np.float32),
        global_orient=pose[0],
        body_pose=pose[1:].reshape(-1),
        **{name: np.zeros(45, np.float32) for name in ("left_hand_pose", "right_hand_pose")},
        jaw_pose=np.zeros(3, np.float32),
        betas=betas.astype(np.float32),
        expression=np.zeros(10, np.float32),
        transl=transl.astype(np.float32),
        focal=np.array(camera.focal, np.float32),
        princpt=np.array(camera.princpt, np.float32),
        joints_3d_m=placed,
        joints_2d_px=camera.project(placed),
        vertices_m=None,
    )


def draw_clips(options: SynthesisOptions, folder: Path) -> list[Path]:
    """Annotation files of rendered clips, which are rendered if they do not exist."""
    count = options.picture_count()
    name = f"{options.name}_{options.split}_clip"
    wanted = [folder / "annot" / f"{name}_{number:03d}.npz" for number in range(count)]
    if not all(path.is_file() for path in wanted):
        pictures = synthesize(options, folder, min(4, usable_cores()))
        for _ in with_progress(pictures, count, "clips"):
            pass
    return wanted


def video_of(file: Path) -> Path:
    """Path of the video that belongs to the annotation file of a rendered clip."""
    frame = Path(str(load_npz(file)["image_path"][0]))
    split, clip = frame.parts[0], frame.parts[1]
    name = file.stem.removesuffix(f"_{split}_{clip}")
    return file.parent.parent / "img" / name / split / f"{clip}.mp4"


def read_clip(file: Path, body: BodyModel) -> tuple[list[Walker], ClipCamera, int]:
    """People, camera and number of frames of the annotation file of a rendered clip.

    People count as out of view in frames in which they are not annotated.
    """
    content = load_npz(file)
    meta, parameters = content["meta"].item(), content["smplx"].item()
    frames = int(meta["frame_index"].max()) + 1
    camera = ClipCamera(
        tuple(map(float, meta["focal_length"][0])),
        tuple(map(float, meta["principal_point"][0])),
        "annotation",
    )
    people = []
    for number in np.unique(meta["person"]):
        mine = np.flatnonzero(meta["person"] == number)
        at = meta["frame_index"][mine]
        vectors = np.concatenate(
            [parameters["global_orient"][mine, None], parameters["body_pose"][mine]], axis=1
        )
        rotations = np.tile(np.eye(3), (frames, 22, 1, 1))
        matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix()
        rotations[at] = matrices.reshape(-1, 22, 3, 3)
        betas = parameters["betas"][mine[0]].astype(np.float32)
        joints = joints_of(body, rotations, np.tile(betas, (frames, 1)))
        joints[at] += parameters["transl"][mine, None]
        boxes, covered, in_image = np.zeros((frames, 4)), np.ones(frames), np.zeros(frames)
        boxes[at] = content["bbox_xywh"][mine, :4]
        covered[at], in_image[at] = meta["occlusion"][mine], 1 - meta["truncation"][mine]
        people.append(Walker(rotations, betas, joints, boxes, covered, in_image))
    return people, camera, frames
