"""People in the world, beside the truth: simulated walkers under cameras that move.

    python -m benchmarks.world [--clips 3] [--frames 300] [--people 1] [--of published|demo]
        [--true pelvis|orientation|pose]

People walk, turn and climb two steps on planted feet (datasets/synthetic/motion.py). Nothing is
rendered: bodies are disturbed as `benchmarks.walkers` disturbs them (--of published: noise of
bodies about as large as that of published networks) or by the measured errors of the demo network,
then tracked, placed and smoothed as inference does it. The camera's motion is the true one, so that
only people are judged; for the moving camera its scale is not given. Compared are

    static   the camera is taken to stand still
    placed   each frame where its size puts it, in the true camera
    solved   main.motion.world

Each person's line: the error of the 25 joints of the body relative to the pelvis; how fast feet
move while the result itself says that they are in contact; how far the median joint moved in the
image; how far gravity is off. With --true, an ingredient of everybody's body in the camera of the
clip is the true one before the world is solved, which shows what its errors cost.
"""

import argparse
import math
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from benchmarks.tracking import clip_of, fill_rows
from benchmarks.walkers import CAMERA, HEIGHT, WIDTH, Estimate, Walker, estimates, joints_of
from datasets.synthetic.motion import FPS, Physique, Script
from datasets.synthetic.skeleton import Skeleton, turn
from human_models.body import BodyLibrary, BodyModel
from human_models.files import find_model_folder
from human_models.joints import JOINT_PARTS, JOINTS
from main.evaluation.metrics import FOOT_POINTS, WORLD_UNITS, world_errors
from main.motion.camera_motion import CameraMotion, static_camera
from main.motion.refinement import ERRORS_NAME, NetworkErrors
from main.motion.rows import FinalRows, RawRows, WorldRows
from main.motion.stitch import stitch
from main.motion.trajectories import Smoothing, build_trajectories, pose_joints
from main.motion.world import solve_world
from utils.files import PRETRAINED, ROOT

CAMERAS: Final = ("static", "pan", "hand-held", "walk-along")
_HEIGHT_M: Final = 1.5
_BODY: Final = JOINT_PARTS["body"]
_FLIP: Final = np.diag([1.0, -1.0, -1.0])


class Truth(NamedTuple):
    """People in the world (y up), and where the camera is in it."""

    joints: list[Float[np.ndarray, "T 137 3"]]
    walkers: list[Walker]
    camera_from_world: Float[np.ndarray, "T 4 4"]


def simulate(
    body: BodyModel, rng: np.random.Generator, camera: str, count: int, frames: int
) -> Truth:
    """Some people who walk to and fro, turn, and climb by chance, and one kind of camera."""
    people = [_person(body, rng, camera, k, frames) for k in range(count)]
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
    return Truth(joints, walkers, camera_from_world)


def _person(
    body: BodyModel, rng: np.random.Generator, camera: str, number: int, frames: int
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
    motion = script.play(rng, frames)
    local = joints_of(body, motion.rotations, np.tile(betas, (frames, 1)))
    return motion.rotations, betas, local - local[:, :1] + motion.pelvis[:, None]


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
        away = person - centre
        yaw = gaussian_filter1d(np.arctan2(-away[:, 0], -away[:, 2]), 10, mode="nearest")
    if kind in ("hand-held", "walk-along"):
        shake = gaussian_filter1d(rng.normal(size=(frames, 3)), 6, axis=0, mode="nearest")
        shake *= np.radians(1.5) / shake.std()
    result = np.tile(np.eye(4), (frames, 1, 1))
    tilt = turn("x", rng.uniform(-8, -2)) @ turn("z", rng.normal(0, 2))
    turns = Rotation.from_rotvec(yaw[:, None] * [0, 1, 0]).as_matrix() @ tilt
    rotation = _FLIP @ (turns @ Rotation.from_rotvec(shake).as_matrix()).transpose(0, 2, 1)
    result[:, :3, :3] = rotation
    result[:, :3, 3] = -np.einsum("tij,tj->ti", rotation, centre)
    return result


def camera_motion(truth: Truth, kind: str) -> CameraMotion:
    """The true one; of the walk-along the scale is hidden."""
    poses = truth.camera_from_world @ np.linalg.inv(truth.camera_from_world[0])
    still = static_camera(len(poses))
    if kind == "walk-along":
        poses[:, :3, 3] /= 3.7
        return still._replace(kind="moving", camera_from_first=poses, scale_known=False)
    return still._replace(
        kind="rotating" if kind != "static" else "static", camera_from_first=poses
    )


def make_true(final: FinalRows, truth: Truth, ingredient: str, body: BodyModel) -> None:
    """Give final rows the true place of the pelvis, orientation of the root, or body pose."""
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
        rows["joints_2d_px"] = CAMERA.project(rows["joints_3d_m"])
        final.put(mine, rows)


class Measured(NamedTuple):
    """One person: the metrics of each way, and what the line says."""

    ways: dict[str, dict[str, float]]
    pose_mm: float
    sliding: float
    moved_px: float
    tilt_deg: float


def measure(
    body: BodyModel,
    truth: Truth,
    seen: list[Estimate],
    motion: CameraMotion,
    ingredient: str | None = None,
) -> list[Measured]:
    frames = len(truth.camera_from_world)
    clip = clip_of(CAMERA)
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(RawRows(Path(folder))) as raw,
        closing(FinalRows(Path(folder))) as final,
        closing(WorldRows(Path(folder))) as world,
    ):
        fill_rows(raw, seen, frames)
        people = stitch(raw, CAMERA, FPS)
        build_trajectories(raw, raw, people, clip, body, Smoothing(), final)
        if ingredient is not None:
            make_true(final, truth, ingredient, body)
        solved = solve_world(final, clip, motion, body, world)
        first_from_world = truth.camera_from_world[0]
        up = first_from_world[:3, :3] @ [0, 1, 0]
        tilt = math.degrees(math.acos(min(1.0, float(up @ solved.plane.up))))
        results = []
        for mine in final.by_identity().values():
            if len(mine) < 100:
                continue
            found = final.take(mine)
            number = found["frame_index"]
            pelvis = found["joints_3d_m"][:, 0]
            owner = min(
                range(len(truth.walkers)),
                key=lambda k: np.linalg.norm(
                    truth.walkers[k].joints[number, 0] - pelvis, axis=1
                ).mean(),
            )
            true = truth.joints[owner][number]
            local = found["joints_3d_m"].astype(np.float64)
            poses = truth.camera_from_world @ np.linalg.inv(truth.camera_from_world[0])
            placed = np.einsum(
                "tji,tkj->tki", poses[number, :3, :3], local - poses[number, None, :3, 3]
            )
            new = world.take(mine)
            ours = new["world_joints_3d_m"].astype(np.float64)
            ways = {
                "static": world_errors(local, true, FPS),
                "placed": world_errors(placed, true, FPS),
                "solved": world_errors(ours, true, FPS),
            }
            camera = new["world_from_camera"].astype(np.float64)
            back = np.einsum("tji,tkj->tki", camera[:, :3, :3], ours - camera[:, None, :3, 3])
            moved = np.linalg.norm(CAMERA.project(back) - found["joints_2d_px"], axis=-1)
            contact = new["foot_contact"]
            both = contact[1:] & contact[:-1] & (np.diff(number) == 1)[:, None]
            steps = np.linalg.norm(np.diff(ours[:, FOOT_POINTS], axis=0), axis=-1)
            seen_true = truth.walkers[owner].joints[number]
            pose = np.linalg.norm(
                (local - local[:, :1] - seen_true + seen_true[:, :1])[:, _BODY], axis=-1
            )
            results.append(
                Measured(
                    ways,
                    1e3 * float(pose.mean()),
                    100 * FPS * float(steps[both].mean()),
                    float(np.median(moved)),
                    tilt,
                )
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--of", choices=("published", "demo"), default="published")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cameras", nargs="+", choices=CAMERAS, default=CAMERAS)
    parser.add_argument("--true", choices=("pelvis", "orientation", "pose"))
    arguments = parser.parse_args()
    library = BodyLibrary(find_model_folder(ROOT / "human_models" / "human_model_files"))
    body = library.smplx()
    network = None
    if arguments.of == "demo":
        network = NetworkErrors.read(PRETRAINED / "smplest_x_demo" / ERRORS_NAME, 1.0)
    table = Table("camera", "way", *(f"{n}, {u}" for n, u in WORLD_UNITS.items()))
    for kind in arguments.cameras:
        results = []
        for clip in range(arguments.clips):
            rng = np.random.default_rng((arguments.seed, clip, CAMERAS.index(kind)))
            truth = simulate(body, rng, kind, arguments.people, arguments.frames)
            seen = estimates(body, rng, truth.walkers, network=network)
            motion = camera_motion(truth, kind)
            results += measure(body, truth, seen, motion, arguments.true)
        for way in ("static", "placed", "solved"):
            means = [np.mean([one.ways[way][name] for one in results]) for name in WORLD_UNITS]
            table.add_row(kind, way, *(f"{value:.1f}" for value in means))
        for one in results:
            print(
                f"{kind}: pose {one.pose_mm:.0f} mm, sliding {one.sliding:.2f} cm/s, "
                f"moved {one.moved_px:.1f} px, gravity {one.tilt_deg:.1f} deg"
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
