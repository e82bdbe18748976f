"""Cost of evaluating SMPL-X meshes against one sample at a time in numpy.

    python -m benchmarks.metrics [--batch 32] [--rounds 20] [--device cpu] [--threads 1]

The numpy code is the usual one: joints by full regressor matrices, a decomposition per sample
and part. Both are first held against each other. Then each runs in processes of its own, in
turns, with the same number of threads; in one process their threads would wait for each other.
Times are those of the fastest round: what else runs on the machine can only add to it.
Aim: at most a tenth of the time.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from human_models.body import BodyLibrary
from human_models.files import (
    ModelFolder,
    find_model_folder,
    read_body,
    read_hand_vertices,
    read_head_vertices,
    read_j14_regressor,
)
from human_models.joints import JOINT_PARTS, JOINTS, RIG_JOINTS, SMPLX_SURFACE_VERTICES
from main.evaluation.metrics import Evaluator

TURNS = 3

Points = Float[np.ndarray, "N 3"]


class PlainEvaluator:
    """All metrics of a sample, the way they are usually written."""

    def __init__(self, folder: ModelFolder) -> None:
        self.regressor = read_body(folder, "smplx").joint_regressor
        self.j14 = read_j14_regressor(folder)
        self.hands = read_hand_vertices(folder)
        self.head = read_head_vertices(folder)
        self.hand_regressors = {side: self._hand_regressor(side) for side in self.hands}

    def _hand_regressor(self, side: str) -> Float[np.ndarray, "20 10475"]:
        rows = np.zeros((20, self.regressor.shape[1]), np.float32)
        for row, name in zip(rows, JOINTS[JOINT_PARTS[f"{side}_hand"]], strict=True):
            if name in RIG_JOINTS:
                row[:] = self.regressor[RIG_JOINTS.index(name)]
            else:
                row[SMPLX_SURFACE_VERTICES[name]] = 1
        return rows

    def __call__(self, predicted: Points, true: Points) -> dict[str, float]:
        errors = {}

        def compare(name: str, points: Points, wanted: Points, offset: Points) -> None:
            errors[name] = error_mm(points + offset, wanted)
            errors[f"pa_{name}"] = error_mm(aligned(points, wanted), wanted)

        def offset(joint: str) -> Points:
            row = RIG_JOINTS.index(joint)
            return np.dot(self.regressor, true)[row] - np.dot(self.regressor, predicted)[row]

        compare("mpvpe_all", predicted, true, offset("pelvis"))
        compare("mpvpe_face", predicted[self.head], true[self.head], offset("neck"))
        body = np.dot(self.j14, predicted), np.dot(self.j14, true)
        compare("mpjpe_body", *body, offset("pelvis"))
        for side, vertices in self.hands.items():
            wrist, part = offset(f"{side}_wrist"), f"{side[0]}_hand"
            compare(f"mpvpe_{part}", predicted[vertices], true[vertices], wrist)
            regressor = self.hand_regressors[side]
            compare(f"mpjpe_{part}", np.dot(regressor, predicted), np.dot(regressor, true), wrist)
        for metric in ("mpvpe", "pa_mpvpe", "mpjpe", "pa_mpjpe"):
            errors[f"{metric}_hand"] = (errors[f"{metric}_l_hand"] + errors[f"{metric}_r_hand"]) / 2
        return errors


def error_mm(points: Points, wanted: Points) -> float:
    return float(np.sqrt(np.sum((points - wanted) ** 2, 1)).mean() * 1000)


def aligned(source: Points, target: Points) -> Points:
    """Source under the similarity that brings it closest to the target."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    covariance = np.dot((source - source_mean).T, target - target_mean) / len(source)
    U, singular_values, Vt = np.linalg.svd(covariance)
    if np.linalg.det(np.dot(Vt.T, U.T)) < 0:
        singular_values[-1], Vt[2] = -singular_values[-1], -Vt[2]
    rotation = np.dot(Vt.T, U.T)
    scale = singular_values.sum() / np.var(source, axis=0).sum()
    return np.dot(scale * rotation, (source - source_mean).T).T + target_mean


class Candidates:
    """Both ways to evaluate the same batch of meshes."""

    def __init__(self, folder: ModelFolder, batch: int, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        template = BodyLibrary(folder).smplx().mesh.template.unflatten(0, (3, -1)).T
        true = template + torch.rand(batch, 1, 3, generator=generator)
        predicted = true + 0.03 * torch.randn(true.shape, generator=generator)
        self.meshes = [mesh.contiguous().to(device) for mesh in (predicted, true)]
        self.arrays = [mesh.numpy(force=True) for mesh in self.meshes]
        self.valid = torch.ones(batch, dtype=torch.bool, device=device)
        self.evaluator = Evaluator(folder).to(device)
        self.plain = PlainEvaluator(folder)

    def batched(self) -> dict[str, list[float]]:
        errors = self.evaluator.smplx(self.meshes[0], self.meshes[1], self.valid, self.valid)
        return {name: error.tolist() for name, (error, _) in errors.items()}

    def numpy(self) -> list[dict[str, float]]:
        return [self.plain(*pair) for pair in zip(*self.arrays, strict=True)]

    def check(self) -> None:
        """Both say the same."""
        result = self.batched()
        for k, errors in enumerate(self.numpy()):
            assert errors.keys() == result.keys()
            assert all(np.isclose(result[name][k], errors[name], rtol=1e-4) for name in errors)


def fastest_ms(candidate: Callable[[], object], rounds: int) -> float:
    """The first two rounds warm up."""
    times = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        candidate()
        times.append(1000 * (time.perf_counter() - start))
    return min(times[2:])


def in_own_process(name: str, options: list[str], threads: int) -> float:
    """Fastest round of a candidate, milliseconds."""
    counts = {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    command = [sys.executable, "-m", "benchmarks.metrics", *options, "--candidate", name]
    done = subprocess.run(
        command, env={**os.environ, **counts}, check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("human_models/human_model_files"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--candidate", choices=("batched", "numpy"), help="measure this one alone")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    folder = find_model_folder(arguments.folder)
    candidates = Candidates(folder, arguments.batch, arguments.device)
    if arguments.candidate:
        print(fastest_ms(getattr(candidates, arguments.candidate), arguments.rounds))
        return
    candidates.check()
    options = [
        word
        for name in ("folder", "batch", "rounds", "device", "threads")
        for word in (f"--{name}", str(getattr(arguments, name)))
    ]
    times: dict[str, list[float]] = {"batched": [], "numpy": []}
    for _ in range(TURNS):
        for name, taken in times.items():
            taken.append(in_own_process(name, options, arguments.threads) / arguments.batch)
    own, usual = (min(taken) for taken in times.values())
    print(
        f"python -m benchmarks.metrics {' '.join(options)}\n"
        f"{folder.name}, torch {torch.__version__}; milliseconds a sample:\n"
        f"batched {own:.3f}   numpy {usual:.3f}   ratio {own / usual:.3f}"
    )


if __name__ == "__main__":
    main()
