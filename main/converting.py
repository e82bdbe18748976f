"""The network of a model folder as a file of another kind, beside its weights."""

import logging
from pathlib import Path
from typing import Final

import torch

from configs.reader import load_config
from main.pipeline.estimator import PRECISIONS
from main.pipeline.model_files import find_model
from models.checkpoint import load_network, save_safetensors
from models.onnx import save_onnx
from utils.errors import UserError

log = logging.getLogger(__name__)

STORED: Final = {**PRECISIONS, "fp16": torch.float16}
"""Half the size; fp16 is nearer to fp32 than bf16 where no weight is large."""


def to_safetensors(model_dir: str, output: Path | None, precision: str) -> Path:
    """Write the network of MODEL_DIR as safetensors and return the file's path.

    Args:
        output: default: beside the weights, with their name.
        precision: a name of STORED, of encoder and decoder; the heads stay fp32.

    Raises:
        UserError: see `find_model`, `load_config`, `load_network`.
    """
    files = find_model(model_dir)
    target = output or files.weights.with_name(f"{files.name}.safetensors")
    _check_suffix(target, ".safetensors")
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


def to_onnx(model_dir: str, output: Path | None) -> Path:
    """Write the network of MODEL_DIR as ONNX, in fp32, and return the file's path.

    Args:
        output: default: beside the weights, with their name, where `--backend onnx` looks.

    Raises:
        UserError: see `find_model`, `load_config`, `load_network`, `save_onnx`.
    """
    files = find_model(model_dir)
    target = output or files.onnx
    _check_suffix(target, ".onnx")
    config = load_config(files.config).model
    error = save_onnx(load_network(config, files.weights), config.input_body_shape, target)
    log.info("%s: computes what PyTorch does, largest difference %.1e", target, error)
    return target


def _check_suffix(target: Path, suffix: str) -> None:
    if target.suffix != suffix:
        raise UserError(f"--output {target}: the name must end in {suffix}")
