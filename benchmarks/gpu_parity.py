"""Comparison of a device's results with the published code's (tests/parity), for `on_gpu`."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from configs.reader import load_config
from human_models.body import BodyLibrary, BodyModel
from human_models.files import ModelFolder
from main.evaluation.metrics import Evaluator
from main.pipeline.estimator import PRECISIONS
from main.training.trainer import autocast
from models.checkpoint import load_network, to_published
from models.losses import training_losses
from models.smplest_x import body_parameters, pose_body
from utils.devices import has_float64
from utils.files import ROOT
from utils.geometry import axis_angle_to_matrix, rotation_6d_to_axis_angle

PARITY: Final = ROOT / "tests" / "parity"
HALVES: Final = ("hand_root_pose", "hand_pose", "hand_cam")


def largest_error(found: Tensor, expected: Tensor) -> float:
    """Largest absolute error over the largest expected absolute value (at least 1)."""
    scale = max(1.0, float(expected.abs().max()))
    return float((found.cpu().double() - expected.double()).abs().max()) / scale


def make_random_body(folder: Path) -> ModelFolder:
    """Write the body models with which the files in tests/parity were made."""
    script = [sys.executable, str(PARITY / "make_random_body.py"), str(folder), "7"]
    subprocess.run(script, check=True, cwd=ROOT)
    return ModelFolder(folder, "random")


def parity_errors(
    device: torch.device, precision: str, random_body: ModelFolder
) -> Iterator[tuple[str, float]]:
    """Errors of head outputs, bodies, losses, gradients, and in fp32 of rotations and metrics."""
    body = BodyLibrary(random_body).smplx().to(device)
    yield from _forward_errors(device, precision, body)
    yield from _loss_errors(device, precision, body)
    if precision == "fp32":
        yield from _geometry_errors(device, random_body)


def _read(path: Path) -> dict[str, Tensor]:
    with np.load(path) as content:
        return {key: torch.from_numpy(content[key]) for key in content}


def _forward_errors(
    device: torch.device, precision: str, body: BodyModel
) -> Iterator[tuple[str, float]]:
    known = _read(PARITY / "forward.npz")
    model = load_config(PARITY / "config_base.py").model
    weights = PARITY / "snapshot_fp16.pth.tar"
    network = load_network(model, weights, PRECISIONS[precision]).to(device)
    images = known["img_uint8"].to(device).float() / 255
    with torch.inference_mode():
        tokens, features = network.encoder(images.to(network.precision))
        heads = network(images)
        posed = pose_body(body_parameters(heads, model), body, model, want_vertices=True)
    yield (
        "encoder",
        max(
            largest_error(tokens.float(), known["encoder_tokens"]),
            largest_error(features.float(), known["encoder_feat"]),
        ),
    )
    expected = {
        name: torch.cat([known[f"raw_l{name}"], known[f"raw_r{name}"]], dim=1)
        if name in HALVES
        else known[f"raw_{name.replace('body_shape', 'body_betas')}"]
        for name in heads._fields
    }
    yield "heads", max(largest_error(getattr(heads, k), v) for k, v in expected.items())
    assert posed.vertices is not None
    yield "vertices", largest_error(posed.vertices[:, ::25], known["out_smplx_mesh_cam"])


def _loss_errors(
    device: torch.device, precision: str, body: BodyModel
) -> Iterator[tuple[str, float]]:
    known = _read(PARITY / "losses.npz")
    targets = {key: v.to(device) for key, v in known.items() if "expected" not in key}
    config = load_config(PARITY / "config_base.py", ["train.hand_loss=True"])
    network = load_network(config.model, PARITY / "snapshot_fp16.pth.tar").to(device)
    images = _read(PARITY / "forward.npz")["img_uint8"].to(device).float() / 255
    with autocast(device, precision):
        heads = network(images)
        parameters = body_parameters(heads, config.model)
        posed = pose_body(parameters, body, config.model, want_vertices=False)
        terms = training_losses(heads, posed, targets, config, "published")
    torch.stack(list(terms.values())).mean(1).sum().backward()
    prefix = "expected_hand_loss_True/"
    expected = {k.removeprefix(prefix): v.item() for k, v in known.items() if prefix in k}
    yield (
        "losses",
        max(abs(term.mean().item() / expected[name] - 1) for name, term in terms.items()),
    )
    norms = [
        (parameter.grad.norm().item(), expected[f"gradnorm/{name}"])
        for name, parameter in to_published(dict(network.named_parameters())).items()
        if parameter.grad is not None and f"gradnorm/{name}" in expected
    ]
    yield "gradients", max(abs(found / norm - 1) for found, norm in norms)


def _geometry_errors(device: torch.device, folder: ModelFolder) -> Iterator[tuple[str, float]]:
    known = _read(PARITY / "rotations.npz")
    vectors = rotation_6d_to_axis_angle(known["rot6d"].to(device))
    matrices = axis_angle_to_matrix(known["axis_angle"].to(device))
    yield (
        "rotations",
        max(
            largest_error(vectors, known["rot6d_to_axis_angle"]),
            largest_error(matrices, known["rodrigues"]),
        ),
    )
    if not has_float64(device):
        return
    known = _read(PARITY / "data" / "eval_smplx.npz")
    names = ("pred", "gt", "lhand_valid", "rhand_valid")
    predicted, true, left, right = (known[name].to(device) for name in names)
    evaluator = Evaluator(folder, "published").to(device)
    errors = evaluator.smplx(predicted, true, left, right)
    yield (
        "metrics",
        max(
            largest_error(error[valid], known[f"expected_{name}"])
            for name, (error, valid) in errors.items()
        ),
    )
