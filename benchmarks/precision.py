"""Speed and errors of alternatives to fp32 eager mode for the network on a CPU.

    python -m benchmarks.precision [--model smplest_x_demo] [--ways bf16,compile,int8,onnx-int8]
    python -m benchmarks.precision --config configs/config_smplest_x_b.py --threads 1

All are timed alternately on the same batch, so that other load affects them equally; ratios are of
medians. int8 is dynamic quantisation: weights of linear layers are quantised in advance,
activations at run time. onnx and onnx-int8 need requirements-onnx.txt. With --model, the error on
OpenPeople's test split is printed as well, and the distance of vertices from those of fp32, for
bodies at the same place.
"""

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.ao.quantization import default_dynamic_qconfig, quantize_dynamic
from torch.utils.data import default_collate

from benchmarks.inference import Cost, cost
from configs.reader import load_config
from configs.schema import Config
from datasets.cache import open_dataset
from datasets.sample import evaluation_sample
from datasets.sources import find_source
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from main.evaluation.metrics import Evaluator
from main.pipeline.estimator import Estimator
from main.pipeline.model_files import find_model
from models.checkpoint import load_network
from models.deployment import OnnxNetwork, save_onnx
from models.smplest_x import SMPLestX
from utils.files import ROOT

Network = Any
"""A network for `Estimator`: a callable with a batch of images."""
_CPU: Final = torch.device("cpu")


def _int8(network: SMPLestX, _: Config) -> Network:
    # The decoder's self-attention uses its weight in two parts; heads are not quantised.
    linear = [
        name
        for name, part in network.named_modules()
        if isinstance(part, nn.Linear) and not name.endswith("to_qkv") and "heads" not in name
    ]
    return quantize_dynamic(network, dict.fromkeys(linear, default_dynamic_qconfig))


def _onnx(network: SMPLestX, config: Config, *, int8: bool = False) -> Network:
    with tempfile.TemporaryDirectory() as folder:
        path, quantised = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        save_onnx(network, config.model.input_body_shape, path)
        if int8:
            tool = import_module("onnxruntime.quantization")
            tool.quantize_dynamic(path, quantised, op_types_to_quantize=["MatMul"])
        other = OnnxNetwork(quantised if int8 else path, _CPU)
        other(torch.rand(2, 3, *config.model.input_body_shape))  # loads the file
        return other


WAYS: Final[dict[str, Callable[[SMPLestX, Config], Network]]] = {
    "bf16": lambda network, _: deepcopy(network).to_precision(torch.bfloat16),
    "compile": lambda network, _: torch.compile(deepcopy(network), dynamic=False),
    "int8": _int8,
    "onnx": _onnx,
    "onnx-int8": partial(_onnx, int8=True),
}


@torch.inference_mode()
def measure(networks: dict[str, Network], images: Tensor, rounds: int) -> dict[str, Cost]:
    """Median cost per batch."""
    runs = {name: partial(network, images) for name, network in networks.items()}
    costs = [{name: cost(run) for name, run in runs.items()} for _ in range(rounds)]
    return {
        name: Cost(*map(statistics.median, zip(*(one[name] for one in costs), strict=True)))
        for name in runs
    }


@torch.inference_mode()
def evaluate(networks: dict[str, Network], config: Config, batch: int) -> None:
    """Print the errors of each network, over full batches, because compiled networks need them."""
    bodies = BodyLibrary(find_model_folder(ROOT / config.model.human_model_path))
    source, data_dir = find_source("OpenPeople", config.data), ROOT / config.data.data_dir
    table, folder = open_dataset(source, "test", data_dir), data_dir / "img" / source.images
    estimators = {name: Estimator(config, way, bodies, _CPU) for name, way in networks.items()}
    evaluator = Evaluator(bodies.folder)
    errors_mm: dict[str, list[Tensor]] = {name: [] for name in networks}
    moved_mm: dict[str, list[Tensor]] = {name: [] for name in networks}
    for start in range(0, len(table) - batch + 1, batch):
        rows = [table[row] for row in range(start, start + batch)]
        people = default_collate([evaluation_sample(row, folder, config, bodies) for row in rows])
        true, valid = people["target_smplx_mesh_cam"], torch.ones(batch)
        centred: dict[str, Tensor] = {}
        for name, estimator in estimators.items():
            mesh = estimator.predict(people["input_img"], want_vertices=True)[1].vertices
            assert mesh is not None
            found = evaluator.smplx(mesh, true, valid, valid, only=("mpvpe_all",))
            errors_mm[name].append(found["mpvpe_all"].error_mm)
            centred[name] = mesh - mesh.mean(1, keepdim=True)
            moved_mm[name].append(1e3 * (centred[name] - centred["fp32"]).norm(dim=-1))
    for name, moved in moved_mm.items():
        away, error = torch.cat(moved).numpy(), torch.cat(errors_mm[name]).mean()
        distance = f"{away.mean():.3f} mm, 99th percentile {np.percentile(away, 99):.3f} mm"
        print(f"{name}: PVE {error:.2f} mm; from fp32 {distance}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--model", metavar="MODEL_DIR")
    given.add_argument("--config", default="configs/config_smplest_x_demo.py")
    parser.add_argument("--ways", default="bf16,compile,int8")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # torch.ao warns of its deprecation on every call

    files = find_model(arguments.model) if arguments.model else None
    config = load_config(files.config if files else Path(arguments.config))
    torch.manual_seed(0)
    network = load_network(config.model, files.weights) if files else SMPLestX(config.model).eval()
    images = torch.rand(arguments.batch, 3, *config.model.input_body_shape)
    print(f"python -m benchmarks.precision --batch {arguments.batch}, {config.model.model_type}")
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        torch.compiler.reset()  # compiled code depends on the number of threads
        networks: dict[str, Network] = {"fp32": network}
        first_s = {}
        for way in arguments.ways.split(","):
            networks[way] = WAYS[way](network, config)
            with torch.inference_mode():
                first_s[way] = cost(partial(networks[way], images)).wall_s
        costs = measure(networks, images, arguments.rounds)
        for way, (wall_s, cpu_s) in costs.items():
            wall_ms, cpu_ms = (1e3 * seconds / arguments.batch for seconds in (wall_s, cpu_s))
            wall, cpu = wall_s / costs["fp32"].wall_s, cpu_s / costs["fp32"].cpu_s
            print(
                f"{threads} thread(s), {way}: {wall_ms:.1f} ms a crop ({cpu_ms:.1f} of CPU), "
                f"{wall:.2f} ({cpu:.2f}) of fp32; first batch {first_s.get(way, wall_s):.1f} s",
                flush=True,
            )
    if files:
        evaluate(networks, config, arguments.batch)


if __name__ == "__main__":
    main()
