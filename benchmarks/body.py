"""Speed of the SMPL-X layer against the `smplx` package: `python -m benchmarks.body`.

The candidates take turns, so that whatever else the machine does strikes all of them alike;
ratios are of medians. On a machine whose cores are busy, measure with --threads 1: two threads
that wait for each other measure the neighbours. Claims: the mesh is never slower than the
package's, and joints alone are at least four times as fast.
"""

import argparse
import contextlib
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import smplx
import torch
from torch import Tensor

from human_models.body import BodyLibrary
from human_models.files import ModelFolder, find_model_folder

_SIZES = {
    "global_orient": 3,
    "body_pose": 63,
    "jaw_pose": 3,
    "leye_pose": 3,
    "reye_pose": 3,
    "left_hand_pose": 45,
    "right_hand_pose": 45,
    "betas": 10,
    "expression": 10,
    "transl": 3,
}
Bodies = dict[str, Callable[[], tuple[Tensor | None, Tensor]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("human_models/human_model_files"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    folder = find_model_folder(arguments.folder)
    parameters = random_parameters(arguments.batch, arguments.device)
    bodies = candidates(folder, parameters, arguments.device)
    print(
        f"python -m benchmarks.body --folder {arguments.folder} --batch {arguments.batch} "
        f"--rounds {arguments.rounds} --device {arguments.device} --threads {arguments.threads}\n"
        f"{folder.name}, {arguments.threads} threads, torch {torch.__version__}"
    )
    for title, step in (("forward", forward), ("forward + backward", forward_backward)):
        milliseconds = interleaved(bodies, step, list(parameters.values()), arguments.rounds)
        package = milliseconds["smplx package"]
        for name, own in milliseconds.items():
            print(f"{title:20} {name:15} {own:8.2f} ms   {own / package:5.2f} of the package's")


def random_parameters(batch: int, device: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: (0.3 * torch.randn(batch, size, generator=generator)).to(device).requires_grad_()
        for name, size in _SIZES.items()
    }


def candidates(folder: ModelFolder, parameters: dict[str, Tensor], device: str) -> Bodies:
    """Each gives (vertices or None, joints) of the same people."""
    ours = BodyLibrary(folder, device=device).smplx()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints warnings about small files
        package = smplx.create(
            *(str(folder.path), "smplx"),
            ext="npz",
            use_pca=False,
            use_face_contour=True,
            batch_size=len(parameters["betas"]),
        ).to(device)

    def run_package() -> tuple[Tensor, Tensor]:
        output = package(**parameters, return_shaped=False)  # ours computes no shaped mesh
        return output.vertices, output.joints

    return {
        "smplx package": run_package,
        "mesh": lambda: ours(**parameters),
        "joints alone": lambda: ours(**parameters, want_vertices=False),
    }


def forward(body: Callable[[], tuple[Tensor | None, Tensor]], parameters: list[Tensor]) -> None:
    with torch.no_grad():
        body()


def forward_backward(
    body: Callable[[], tuple[Tensor | None, Tensor]], parameters: list[Tensor]
) -> None:
    total = sum(points.square().sum() for points in body() if points is not None)
    assert isinstance(total, Tensor)
    torch.autograd.grad(total, parameters)


def interleaved(
    bodies: Bodies,
    step: Callable[[Callable[[], tuple[Tensor | None, Tensor]], list[Tensor]], None],
    parameters: list[Tensor],
    rounds: int,
) -> dict[str, float]:
    """Median milliseconds of each candidate; the first three rounds warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in bodies}
    for _ in range(rounds + 3):
        for name, body in bodies.items():
            start = time.perf_counter()
            step(body, parameters)
            if parameters[0].is_cuda:
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(times[3:]) for name, times in seconds.items()}


if __name__ == "__main__":
    main()
