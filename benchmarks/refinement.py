"""Effect of refinement on estimates of synthetic people, and measurement of a network's errors.

    python -m main.synthesize --split test --people 500 --seed 99 --crops --out DATA
    python -m benchmarks.refinement DATA                  # true joints with 1.5 % noise
    python -m benchmarks.refinement DATA --own            # keypoints that the networks find
    python -m benchmarks.refinement DATA --split train --write errors.npz    # measure the network
    python -m benchmarks.refinement demo/result_CLIP --jitter   # fingertips in a video's result

PVE and PA-PVE are mean distances of vertices in millimetres, relative to the pelvis and after
similarity alignment. A network must be measured on people with whom it was not trained.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console

from datasets.humandata.writer import BODY_BOX_SCALE
from human_models.joints import (
    JOINT_PARTS,
    JOINTS,
    JOINTS_FROM_MODEL,
    POSE_PARAMETERS,
    RIG_JOINTS,
    SIDES,
)
from human_models.safe_pickle import load_npz
from main.cli import command, command_parser
from main.motion.camera import Clip, ClipCamera
from main.motion.kinematics import ROTATED, NetworkErrors, Observed, error_vector
from main.motion.refinement import Refinement, observed
from main.motion.result_reader import open_result
from main.motion.rows import KeypointSource
from main.pipeline.estimator import Estimator
from main.pipeline.keypoints import KeypointFinder
from main.pipeline.pipeline import network_errors
from main.pipeline.stages import EstimatedPerson, raw_rows
from utils.camera import Box, scaled_boxes
from utils.geometry import align_similarity, axis_angle_to_matrix, matrix_to_axis_angle

_NOISE = 0.015
"""Standard deviation of the noise on true joints, over the longer side of the box."""


class Bodies(NamedTuple):
    rotations: Float[torch.Tensor, "N 55 3 3"]
    shape: Float[torch.Tensor, "N 20"]
    pelvis_m: Float[torch.Tensor, "N 3"]


def run(arguments: argparse.Namespace) -> None:
    if arguments.jitter:
        show_jitter(arguments.data)
        return
    torch.set_num_threads(1)
    estimator = Estimator.load(arguments.model, device="cpu")
    content = load_npz(arguments.data / "annot" / f"openpeople_{arguments.split}.npz")
    count = min(arguments.people or len(content["image_path"]), len(content["image_path"]))
    finder = KeypointFinder(1) if arguments.own else None
    rng = np.random.default_rng(0)
    networks, truths, afters, errors, seconds = [], [], [], [], 0.0
    measured = network_errors(arguments.model, 1.0)
    truth = true_bodies(content, estimator, count)
    for place in range(count):
        row, clip = estimate(arguments, content, place, estimator, finder, rng)
        seen = observed(row, estimator.body, clip.image_size)
        true = Bodies(*(values[place : place + 1] for values in truth))
        errors.append(error_vector(seen, *true, clip.camera))
        if arguments.write is not None:
            continue
        networks.append(Bodies(seen.rotations, seen.shape, seen.pelvis_m))
        truths.append(true)
        start = time.process_time()
        refinement = Refinement(estimator.body, measured, clip)
        refinement.move(row, refinement.solver)
        seconds += time.process_time() - start
        after: Observed = observed(row, estimator.body, clip.image_size)
        afters.append(Bodies(after.rotations, after.shape, after.pelvis_m))
    console = Console()
    if arguments.write is not None:
        NetworkErrors.measured(torch.cat(errors).double().numpy()).write(arguments.write)
        console.print(f"{arguments.write}: errors of {count} estimates")
        return
    for name, bodies in (("network", networks), ("refined", afters)):
        pve, pa_pve = np.mean(
            [distances(one, true, estimator) for one, true in zip(bodies, truths, strict=True)], 0
        )
        console.print(f"{name}: PVE {pve:.1f}, PA-PVE {pa_pve:.1f} mm, {count} people")
    console.print(f"{seconds / count * 1e3:.1f} ms per person, one at a time")


def show_jitter(folder: Path) -> None:
    """Print accelerations of fingertips in the keypoints and in the bodies of a result."""
    result, console = open_result(folder), Console()
    for number in result.files:
        names = ("joints_2d_px", "keypoints_px", "keypoint_score")
        bodies, points, score = (result.read_person(number, names)[name] for name in names)
        for side in SIDES:
            part = JOINT_PARTS[f"{side}_hand"]
            tips = [joint for joint in range(*part.indices(137)) if JOINTS[joint].endswith("4")]
            known = np.asarray((score[:, tips] > 0).all(axis=1))
            known = known[2:] & known[1:-1] & known[:-2]
            if known.any():
                raw, after = (
                    np.median(np.linalg.norm(np.diff(px[:, tips], 2, axis=0), axis=-1)[known])
                    for px in (points, bodies)
                )
                console.print(
                    f"person {number}, {side} hand: keypoints {raw:.2f}, bodies {after:.2f} "
                    f"pixels per frame², {known.sum()} frames"
                )


def estimate(
    arguments: argparse.Namespace,
    content: dict[str, np.ndarray],
    place: int,
    estimator: Estimator,
    finder: KeypointFinder | None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, Clip]:
    """The raw row of one person with keypoints, and the true camera."""
    path = arguments.data / "img" / "openpeople" / str(content["image_path"][place])
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert image is not None, path
    padded = content["bbox_xywh"][place, None, :4].astype(float)
    box = Box(*scaled_boxes(padded, 1 / BODY_BOX_SCALE)[0].tolist())
    meta = content["meta"].item()
    focal, princpt = meta["focal_length"][place], meta["principal_point"][place]
    camera = ClipCamera(
        (float(focal[0]), float(focal[1])), (float(princpt[0]), float(princpt[1])), "annotation"
    )
    clip = Clip(camera, (image.shape[1], image.shape[0]), 30.0)
    person = estimator(image, [(box.x, box.y, box.width, box.height)], want_vertices=False)[0]
    row = raw_rows([(place, EstimatedPerson(0, 1.0, person))], clip)
    if finder is None:
        noise = _NOISE * max(box.width, box.height) * rng.standard_normal((len(JOINTS), 2))
        true_px = content["keypoints2d_smplx"][place, list(JOINTS_FROM_MODEL), :2]
        row["keypoints_px"], row["keypoint_score"] = true_px + noise, 1
        row["keypoint_source"] = KeypointSource.FILE
    else:
        finder(image, [box], [None])[0].keypoints.write(row[0])
    return row, clip


def true_bodies(content: dict[str, np.ndarray], estimator: Estimator, count: int) -> Bodies:
    """Bodies of the annotations."""
    parameters = content["smplx"].item()
    vectors = [
        np.asarray(parameters[name])[:count].reshape(count, -1, 3) for name in POSE_PARAMETERS
    ]
    turned = torch.from_numpy(np.concatenate(vectors, axis=1).astype(np.float32))
    rotations = torch.eye(3).repeat(count, len(RIG_JOINTS), 1, 1)
    rotations[:, ROTATED] = axis_angle_to_matrix(turned + estimator.body.mean_pose[ROTATED])
    shape = np.concatenate([parameters[name][:count] for name in ("betas", "expression")], axis=1)
    pelvis = content["keypoints3d_smplx"][:count, 0, :3].astype(np.float32)
    return Bodies(rotations, torch.from_numpy(shape.astype(np.float32)), torch.from_numpy(pelvis))


def distances(one: Bodies, true: Bodies, estimator: Estimator) -> tuple[float, float]:
    """PVE and PA-PVE in millimetres."""
    ours, truth = (vertices(bodies, estimator).double() for bodies in (one, true))
    aligned = align_similarity(ours, truth)
    near, nearest = ((points - truth).norm(dim=-1).mean().item() for points in (ours, aligned))
    return near * 1e3, nearest * 1e3


def vertices(bodies: Bodies, estimator: Estimator) -> Float[torch.Tensor, "N V 3"]:
    """Vertices relative to the pelvis, metres."""
    vectors = (matrix_to_axis_angle(bodies.rotations) - estimator.body.mean_pose)[:, ROTATED]
    pose = {name: vectors[:, part].flatten(1) for name, part in POSE_PARAMETERS.items()}
    betas, expression = bodies.shape.split(10, dim=1)
    posed = estimator.body(**pose, betas=betas, expression=expression)
    assert posed.vertices is not None
    return posed.vertices - posed.joints[:, :1]


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("refinement", "Measure the effect of refinement.")
    parser.prog = "python -m benchmarks.refinement"
    parser.add_argument("data", type=Path, help="folder with annot/ and img/, or a result")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default="smplest_x_demo")
    parser.add_argument("--people", type=int, help="use only the first N people", metavar="N")
    parser.add_argument("--own", action="store_true", help="use keypoints that networks find")
    parser.add_argument("--jitter", action="store_true", help="jitter of fingertips in a result")
    parser.add_argument("--write", type=Path, metavar="FILE", help="measure the network's errors")
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
