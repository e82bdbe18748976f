"""Errors of people in the world, in simulated or rendered clips with moving cameras.

    python -m benchmarks.world [--clips 3] [--frames 300] [--people 1] [--of published|demo]
        [--true pelvis|orientation|pose]
    python -m benchmarks.world --rendered FOLDER [--frames 120] [--of network|published|demo]
        [--find-focal]

Simulated people walk and turn without sliding (synthetic/motion.py), and the motion of the camera
is the true one, except for the scale of the moving camera, so that only people are evaluated. With
--rendered, clips of three people in a hall are rendered into FOLDER if they do not exist
(synthetic/shots.py; some minutes each), and the motion of the camera is estimated as with
`--camera auto`, around true boxes.

Bodies get the noise of `benchmarks.walkers` (--of published: about as large as the errors of
published networks) or the measured errors of the demo network (--of demo), and are then tracked,
placed and smoothed as in inference. With --of network, `main.inference --world` runs with the demo
network on the frames; its results are kept in FOLDER/results and used again. With --find-focal, it
does not get the focal length. The table compares

    static   the camera is assumed to be static
    placed   each frame in the true camera, at the depth from the size of the person
    solved   the result of main.motion.world

A line per person contains the error of the 25 body joints relative to the pelvis, the speed of feet
while they are in contact by the result, the median movement of joints in the image by the solution,
and the errors of gravity and height. A line per clip contains the estimated kind of camera and the
levels of the ground. With --true, a part of all simulated bodies is replaced by the truth before
the world is solved, which shows the effect of its errors.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from benchmarks.camera import turn_errors
from benchmarks.tracking import clip_of, fill_rows
from benchmarks.walkers import (
    CAMERA,
    HEIGHT,
    WIDTH,
    Estimate,
    Walker,
    draw_clips,
    estimates,
    installed_body,
    joints_of,
    read_clip,
    video_of,
)
from datasets.humandata.writer import BODY_BOX_SCALE
from human_models.body import BodyModel
from human_models.joints import JOINT_PARTS, JOINTS
from human_models.safe_pickle import load_npz
from main.evaluation.metrics import FOOT_POINTS, WORLD_UNITS, world_errors
from main.motion.camera import CameraMotion, Clip, ClipCamera, static_camera
from main.motion.camera_motion import CameraTracker
from main.motion.kinematics import ERRORS_NAME, NetworkErrors
from main.motion.result_reader import open_result
from main.motion.rows import FinalRows, RawRows, WorldRows
from main.motion.stitch import stitch
from main.motion.trajectories import Smoothing, build_trajectories, pose_joints
from main.motion.world import solve_world
from main.pipeline.options import InferenceOptions
from main.pipeline.pipeline import process_input
from synthetic.motion import FPS, Physique, Script
from synthetic.production import SynthesisOptions
from synthetic.rendering import FLIP
from synthetic.shots import CAMERAS, PEOPLE
from synthetic.skeleton import Skeleton, turn
from utils.camera import scaled_boxes
from utils.files import PRETRAINED
from utils.source import open_source

SIMULATED: Final = ("static", "pan", "hand-held", "walk-along")
COLUMNS_USED: Final = (
    "frame_index", "joints_3d_m", "joints_2d_px", "world_joints_3d_m", "world_from_camera",
    "camera_zoom", "foot_contact",
)  # fmt: skip
_SIZE: Final = (640, 360)
"""Width and height of rendered clips, pixels."""
_HEIGHT_M: Final = 1.5
_BODY: Final = JOINT_PARTS["body"]


class Truth(NamedTuple):
    """People and camera in the world (y up).

    If the camera zooms, `walkers` are as seen with the focal length of the first frame.
    """

    joints: list[Float[np.ndarray, "T 137 3"]]
    walkers: list[Walker]
    camera_from_world: Float[np.ndarray, "T 4 4"]
    zoom: Float[np.ndarray, " T"]
    known: list[Bool[np.ndarray, " T"]]
    """Whether each person is annotated in each frame."""
    camera: ClipCamera


def simulate(
    body: BodyModel,
    rng: np.random.Generator,
    camera: str,
    count: int,
    frames: int,
    play: Callable[[np.random.Generator, Physique], Script] | None = None,
) -> Truth:
    """Simulate people with the motion of `play` (None: they walk to and fro) and a camera."""
    play_of = [
        play or partial(_walks, camera=camera, number=k, frames=frames) for k in range(count)
    ]
    people = [_person(body, rng, play, frames) for play in play_of]
    joints = [one[2] for one in people]
    camera_from_world = _camera(rng, camera, joints[0][:, 0])
    walkers = []
    for rotations, betas, world in people:
        turned = rotations.copy()
        turned[:, 0] = camera_from_world[:, :3, :3] @ rotations[:, 0]
        seen = np.einsum("tij,tkj->tki", camera_from_world[:, :3, :3], world)
        seen += camera_from_world[:, None, :3, 3]
        px = CAMERA.project(seen)
        size = np.array([WIDTH, HEIGHT])
        low, high = (np.clip(edge, 0, size) for edge in (px.min(axis=1), px.max(axis=1)))
        inside = ((px[:, _BODY] >= 0) & (px[:, _BODY] < size)).all(axis=-1).mean(axis=1)
        boxes = np.concatenate([low, high - low], axis=1)
        inside[seen[:, 0, 2] < 0.5] = 0
        walkers.append(Walker(turned, betas, seen, boxes, np.zeros(frames), inside))
    known = [np.ones(frames, bool)] * count
    return Truth(joints, walkers, camera_from_world, np.ones(frames), known, CAMERA)


def _person(
    body: BodyModel,
    rng: np.random.Generator,
    play: Callable[[np.random.Generator, Physique], Script],
    frames: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations in the world, betas, joints in the world."""
    betas = np.clip(rng.standard_normal(10), -2, 2).astype(np.float32)
    rest = body.rest_joints(torch.from_numpy(betas[None]))[0].numpy()
    posed = body(
        global_orient=torch.zeros(1, 3),
        body_pose=torch.zeros(1, 63),
        betas=torch.from_numpy(betas[None]),
    )
    sole = float(posed.vertices[0, :, 1].min())  # type: ignore[index]
    still = joints_of(body, np.tile(np.eye(3), (1, 22, 1, 1)), betas[None])[0]
    ankle, heel = (still[JOINTS.index(f"left_{name}")] for name in ("ankle", "heel"))
    physique = Physique(Skeleton(rest), float(ankle[1]) - sole, float(ankle[2] - heel[2]))
    motion = play(rng, physique).play(rng, frames)
    local = joints_of(body, motion.rotations, np.tile(betas, (frames, 1)))
    return motion.rotations, betas, local - local[:, :1] + motion.pelvis[:, None]


def _walks(
    rng: np.random.Generator, physique: Physique, camera: str, number: int, frames: int
) -> Script:
    """A walk to and fro, over a width that depends on the camera."""
    wide = {"static": 1.6, "hand-held": 1.6, "pan": 4.0, "walk-along": 8.0}[camera]
    middle = rng.uniform(-6.0, -4.5) - 0.9 * number
    side = rng.choice((-1.0, 1.0))
    start = (float(-side * wide * rng.uniform(0.5, 1.0)), float(middle + rng.normal(0, 0.4)))
    script = Script(physique, *start, rng.uniform(-180, 180), -0.5)
    place = np.array(start)
    while script.time < frames / FPS + 1:
        goal = np.array([side * wide * rng.uniform(0.5, 1.0), middle + rng.uniform(-1.2, 1.2)])
        script.turn_to(math.degrees(math.atan2(*(goal - place))))
        script.walk([tuple(goal.tolist())], rng.uniform(0.85, 1.15))
        script.wait(rng.uniform(0, 1.0))
        place, side = goal, -side
    return script


def _camera(
    rng: np.random.Generator, kind: str, person: Float[np.ndarray, "T 3"]
) -> Float[np.ndarray, "T 4 4"]:
    frames = len(person)
    centre = np.tile([0.0, _HEIGHT_M, 0.0], (frames, 1))
    yaw, shake = np.zeros(frames), np.zeros((frames, 3))
    if kind == "walk-along":
        centre[:, 0] = gaussian_filter1d(person[:, 0], 20, mode="nearest")
        centre[:, 1] += 0.02 * np.sin(np.arange(frames) / FPS * 2 * math.pi * 1.8)
    if kind in ("pan", "walk-along"):
        offset = person - centre
        yaw = gaussian_filter1d(np.arctan2(-offset[:, 0], -offset[:, 2]), 10, mode="nearest")
    if kind in ("hand-held", "walk-along"):
        shake = gaussian_filter1d(rng.normal(size=(frames, 3)), 6, axis=0, mode="nearest")
        shake *= np.radians(1.5) / shake.std()
    result = np.tile(np.eye(4), (frames, 1, 1))
    tilt = turn("x", rng.uniform(-8, -2)) @ turn("z", rng.normal(0, 2))
    turns = Rotation.from_rotvec(yaw[:, None] * [0, 1, 0]).as_matrix() @ tilt
    rotation = FLIP @ (turns @ Rotation.from_rotvec(shake).as_matrix()).transpose(0, 2, 1)
    result[:, :3, :3] = rotation
    result[:, :3, 3] = -np.einsum("tij,tj->ti", rotation, centre)
    return result


def camera_motion(truth: Truth, kind: str) -> CameraMotion:
    """The true motion of the camera; for the walk-along camera, with an unknown scale."""
    poses = truth.camera_from_world @ np.linalg.inv(truth.camera_from_world[0])
    still = static_camera(len(poses))
    if kind == "walk-along":
        poses[:, :3, 3] /= 3.7
        return still._replace(kind="moving", camera_from_first=poses, scale_known=False)
    return still._replace(
        kind="rotating" if kind != "static" else "static", camera_from_first=poses
    )


def make_true(final: FinalRows, truth: Truth, ingredient: str | None, body: BodyModel) -> None:
    """Replace the pelvis position, root orientation or body pose of final rows by the truth."""
    if ingredient is None:
        return
    for mine in final.by_identity().values():
        rows = final.take(mine)
        number = rows["frame_index"]
        pelvis = rows["joints_3d_m"][:, 0].copy()
        walker = min(truth.walkers, key=lambda one: np.linalg.norm(one.joints[number, 0] - pelvis))
        true = Rotation.from_matrix(walker.rotations[number].reshape(-1, 3, 3)).as_rotvec()
        true = true.reshape(len(mine), 22, 3)
        if ingredient == "pelvis":
            pelvis = walker.joints[number, 0]
        elif ingredient == "orientation":
            rows["global_orient"] = true[:, 0]
        else:
            rows["body_pose"] = true[:, 1:].reshape(len(mine), 63)
        joints = pose_joints(body, rows)
        rows["transl"] = pelvis - joints[:, 0]
        rows["joints_3d_m"] = joints + rows["transl"][:, None]
        rows["joints_2d_px"] = truth.camera.project(rows["joints_3d_m"])
        final.put(mine, rows)


class Measured(NamedTuple):
    """Errors of one person: metrics by method, and the values of the person's line."""

    ways: dict[str, dict[str, float]]
    pose_mm: float
    sliding: float
    moved_px: float
    tilt_deg: float
    height_mm: float


Person = dict[str, np.ndarray]
"""Columns of final and of world rows, or a file of a result folder."""


class Solution(NamedTuple):
    """Estimated people, kind of camera, and heights of further levels of the ground."""

    people: list[Person]
    camera: str
    levels_m: list[float]


def solve(
    body: BodyModel,
    seen: list[Estimate],
    clip: Clip,
    motion: CameraMotion,
    frames: int,
    change: Callable[[FinalRows], None] | None = None,
) -> Solution:
    """Track, smooth and solve the world for given estimates and camera motion, as in inference.

    Args:
        change: function that changes the final rows before the world is solved.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(RawRows(Path(folder))) as raw,
        closing(FinalRows(Path(folder))) as final,
        closing(WorldRows(Path(folder))) as world,
    ):
        fill_rows(raw, seen, frames, clip.camera, clip.image_size)
        people = stitch(raw, clip.camera, FPS)
        build_trajectories(raw, raw, people, clip, body, Smoothing(), final)
        if change is not None:
            change(final)
        solved = solve_world(final, clip, motion, body, world)
        found = []
        for mine in final.by_identity().values():
            parts = [rows.take(mine) for rows in (final, world)]
            found.append({name: part[name] for part in parts for name in part.dtype.names or ()})
        return Solution(found, motion.kind, solved.levels.tolist())


def infer(video: Path, focal_px: float | None, folder: Path) -> Solution:
    """Run `main.inference --world` with the demo network on a clip and its boxes.

    Args:
        focal_px: focal length; None if unknown.
        folder: for the result, which replaces an earlier one.
    """
    options = InferenceOptions("smplest_x_demo", focal_px=focal_px, world=True, overlay=None)
    process_input(str(video), folder, options)
    result = open_result(folder / f"result_{video.stem}")
    world = json.loads((result.folder / "summary.json").read_text())["world"]
    people = [result.read_person(number, ()) for number in result.files]
    return Solution(people, world["camera"], world["levels_m"])


def measure(truth: Truth, solution: Solution) -> list[Measured]:
    """Errors of all people who are found in enough frames."""
    results, frames = [], len(truth.camera_from_world)
    for person in solution.people:
        number, pelvis = person["frame_index"], person["joints_3d_m"][:, 0]
        apart = [
            np.linalg.norm(one.joints[number, 0] - pelvis, axis=1)[known[number]]
            for one, known in zip(truth.walkers, truth.known, strict=True)
        ]
        owner = int(np.argmin([away.mean() if len(away) else math.inf for away in apart]))
        known = truth.known[owner][number]
        if known.sum() >= min(100, frames // 2):
            part = {name: person[name][known] for name in COLUMNS_USED}
            results.append(_measured(truth, owner, part))
    return results


def _measured(truth: Truth, owner: int, found: Person) -> Measured:
    number = found["frame_index"]
    true, zoom = truth.joints[owner][number], truth.zoom[number]
    local, ours = (found[name].astype(np.float64) for name in ("joints_3d_m", "world_joints_3d_m"))
    turns, places = np.split(truth.camera_from_world[number, :3], [3], axis=2)
    near = local.copy()
    near[..., 2] += local[:, :1, 2] * (zoom - 1)[:, None]
    placed = np.einsum("tji,tkj->tki", turns, near - places.transpose(0, 2, 1))
    camera = found["world_from_camera"].astype(np.float64)
    back = np.einsum("tji,tkj->tki", camera[:, :3, :3], ours - camera[:, None, :3, 3])
    found_turns = camera[:, :3, :3].transpose(0, 2, 1)
    seconds, ways = number / FPS, {}
    for name, joints, cameras in (
        ("static", local, np.tile(np.eye(3), (len(number), 1, 1))),
        ("placed", placed, turns),
        ("solved", ours, found_turns),
    ):
        own, true_turns = (each @ each[0].T for each in (cameras, turns))
        degrees, drift = turn_errors(own, true_turns, seconds)
        of_camera = {"camera": degrees, "drift": drift}
        ways[name] = world_errors(joints, true, FPS) | of_camera
    lens = np.array(truth.camera.focal) * found["camera_zoom"][:, None, None]
    moved_px = back[..., :2] / back[..., 2:] * lens + truth.camera.princpt - found["joints_2d_px"]
    contact = found["foot_contact"]
    both = contact[1:] & contact[:-1] & (np.diff(number) == 1)[:, None]
    steps = np.linalg.norm(np.diff(ours[:, FOOT_POINTS], axis=0), axis=-1)
    seen = np.einsum("tij,tkj->tki", turns, true - true[:, :1])
    pose = np.linalg.norm((local - local[:, :1] - seen)[:, _BODY], axis=-1)
    up = (turns[:, :, 1] * found_turns[:, :, 1]).sum(axis=1).clip(-1, 1)
    return Measured(
        ways,
        1e3 * float(pose.mean()),
        100 * FPS * float(steps[both].mean()) if both.any() else math.nan,
        float(np.median(np.linalg.norm(moved_px, axis=-1))),
        math.degrees(float(np.arccos(up).mean())),
        1e3 * float(np.abs(ours[:, 0, 1] - true[:, 0, 1]).mean()),
    )


def read_truth(file: Path, body: BodyModel) -> Truth:
    """Of a clip of `main.synthesize --video --camera`. Where nobody is seen, the camera is as in
    the nearest frame."""
    walkers, camera, frames = read_clip(file, body)
    meta = load_npz(file)["meta"].item()
    numbers, first = np.unique(meta["frame_index"], return_index=True)
    nearest = first[np.abs(np.arange(frames)[:, None] - numbers).argmin(axis=1)]
    poses = np.asarray(meta["world_from_camera"])[nearest]
    zoom = np.asarray(meta["focal_length"])[nearest, 0] / camera.focal[0]
    joints, seen = [], []
    for one in walkers:
        joints.append(np.einsum("tij,tkj->tki", poses[:, :3, :3], one.joints))
        joints[-1] += poses[:, None, :3, 3]
        # A longer lens shows somebody as if nearer.
        as_if = one.joints.copy()
        as_if[..., 2] /= zoom[:, None]
        boxes = scaled_boxes(one.boxes, 1 / BODY_BOX_SCALE)
        seen.append(one._replace(joints=as_if, boxes=boxes))
    known = [one.in_image > 0 for one in walkers]
    return Truth(joints, seen, np.linalg.inv(poses), zoom, known, camera)


def follow_camera(video: Path, truth: Truth, clip: Clip) -> CameraMotion:
    """The estimated motion of the camera, as with `--camera auto`, around true boxes."""
    tracker = CameraTracker(clip)
    with open_source(video) as frames:
        for frame in frames:
            there = [
                one.boxes[frame.index]
                for one, known in zip(truth.walkers, truth.known, strict=True)
                if known[frame.index]
            ]
            tracker.add(frame.index, frame.image, np.array(there).reshape(-1, 4))
    return tracker.finish()


def clips_of(
    body: BodyModel, arguments: argparse.Namespace, camera: str
) -> Iterator[tuple[Truth, Solution]]:
    """Each clip with its solution."""
    of = arguments.of or ("network" if arguments.rendered else "published")
    network = None
    if of == "demo":
        network = NetworkErrors.read(PRETRAINED / "smplest_x_demo" / ERRORS_NAME, 1.0)
    if arguments.rendered is None:
        for number in range(arguments.clips):
            rng = np.random.default_rng((arguments.seed, number, SIMULATED.index(camera)))
            truth = simulate(body, rng, camera, arguments.people, arguments.frames)
            seen = estimates(body, rng, truth.walkers, network=network)
            motion = camera_motion(truth, camera)
            change = partial(make_true, truth=truth, ingredient=arguments.true, body=body)
            yield truth, solve(body, seen, clip_of(CAMERA), motion, arguments.frames, change)
        return
    seed, frames = arguments.seed, arguments.frames
    people = arguments.clips * PEOPLE
    name = f"world-{camera}-{seed}-{frames}"
    options = SynthesisOptions("clips", name, "test", seed, people, _SIZE, frames, camera)
    for number, file in enumerate(draw_clips(options, arguments.rendered)):
        truth, video = read_truth(file, body), video_of(file)
        if of == "network":
            focal_px = None if arguments.find_focal else truth.camera.focal[0]
            yield truth, infer(video, focal_px, arguments.rendered / "results" / file.stem)
            continue
        rng = np.random.default_rng((arguments.seed, number))
        clip = Clip(truth.camera, _SIZE, FPS)
        seen = estimates(body, rng, truth.walkers, truth.camera, network=network, size=_SIZE)
        motion = follow_camera(video, truth, clip)
        yield truth, solve(body, seen, clip, motion, len(truth.zoom))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, help="default: 3, or 1 with --rendered")
    parser.add_argument("--frames", type=int, help="default: 300, or 120 with --rendered")
    parser.add_argument("--people", type=int, default=1, help="of a simulated clip")
    parser.add_argument("--of", choices=("published", "demo", "network"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cameras", nargs="+", choices=(*CAMERAS,))
    parser.add_argument("--true", choices=("pelvis", "orientation", "pose"), help="if simulated")
    parser.add_argument("--find-focal", action="store_true", help="with --of network")
    parser.add_argument("--rendered", type=Path, metavar="FOLDER", help="parent of annot/, img/")
    arguments = parser.parse_args()
    rendered = arguments.rendered is not None
    arguments.clips = arguments.clips or (1 if rendered else 3)
    arguments.frames = arguments.frames or (120 if rendered else 300)
    cameras = arguments.cameras or (tuple(CAMERAS) if rendered else SIMULATED)
    if not rendered and (arguments.of == "network" or not {*cameras} <= {*SIMULATED}):
        parser.error(
            "the network, and other cameras than these, need --rendered: " + ", ".join(SIMULATED)
        )
    body = installed_body()
    units = WORLD_UNITS | {"camera": "deg", "drift": "deg/s"}
    table = Table("camera", "way", *(f"{n}, {u}" for n, u in units.items()))
    for kind in cameras:
        results = []
        for truth, solution in clips_of(body, arguments, kind):
            results += measure(truth, solution)
            levels = ", ".join(f"{level:.2f}" for level in solution.levels_m)
            print(f"{kind}: taken for {solution.camera}; levels: {levels or 'none'}")
        for way in ("static", "placed", "solved"):
            means = [np.nanmean([one.ways[way][name] for one in results]) for name in units]
            table.add_row(kind, way, *(f"{value:.4g}" for value in means))
        for one in results:
            print(
                f"{kind}: pose {one.pose_mm:.0f} mm, sliding {one.sliding:.2f} cm/s, "
                f"moved {one.moved_px:.1f} px, gravity {one.tilt_deg:.1f} deg, "
                f"height {one.height_mm:.0f} mm"
            )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
