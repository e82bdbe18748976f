"""Strip a checkpoint to its network: `python -m main.convert MODEL_DIR [--precision fp16]`.

A training checkpoint carries the optimizer's state, two thirds of its bytes. The safetensors file
written beside it holds the network alone and is found first by every door.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from configs.reader import load_config
from main.door import door_parser, run_door
from main.estimator import PRECISIONS
from main.model_files import find_model
from models.checkpoint import load_network, save_safetensors
from utils.errors import UserError

log = logging.getLogger(__name__)

STORED: Final = {**PRECISIONS, "fp16": torch.float16}
"""Half the size; fp16 is nearer to fp32 than bf16 where no weight is large."""


def convert(model_dir: str, output: Path | None, precision: str) -> Path:
    """Write the network of MODEL_DIR as safetensors and return the file's path.

    Args:
        output: default: beside the weights, with their name.
        precision: a name of STORED, of encoder and decoder; the heads stay fp32.

    Raises:
        UserError: see `find_model`, `load_config`, `load_network`.
    """
    files = find_model(model_dir)
    target = output or files.weights.with_name(f"{files.name}.safetensors")
    if target.suffix != ".safetensors":
        raise UserError(f"--output {target}: the name must end in .safetensors")
    if target.resolve() == files.weights.resolve():
        raise UserError(f"{files.weights} is a safetensors file already; name another --output")
    config = load_config(files.config)
    network = load_network(config.model, files.weights, STORED[precision])
    state = network.state_dict()
    save_safetensors(state, target, {"source": files.weights.name, "precision": precision})
    parameters = sum(value.numel() for value in state.values())
    log.info(
        "%s: %.1f M parameters, %.2f GB (from %.2f GB)",
        target,
        parameters / 1e6,
        target.stat().st_size / 1e9,
        files.weights.stat().st_size / 1e9,
    )
    return target


def run(arguments: argparse.Namespace) -> None:
    convert(arguments.model_dir, arguments.output, arguments.precision)


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("convert", "Strip a checkpoint to its network, as safetensors.")
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="as for inference, or a file")
    parser.add_argument("--output", type=Path, help="default: beside the weights")
    parser.add_argument("--precision", choices=STORED, default="fp32")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run this door with a command line (the process' own by default); the exit status."""
    return run_door(make_parser(), run, words)


if __name__ == "__main__":
    sys.exit(main())
