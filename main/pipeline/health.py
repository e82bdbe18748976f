"""The checks of `main.doctor`: files, the device, and whether it computes a network correctly."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
import torch
from rich.console import Console
from rich.markup import escape

from configs.reader import load_config
from configs.schema import Config
from human_models.files import (
    GENDERS,
    STAND_IN,
    STAND_IN_NAME,
    ModelFolder,
    Rig,
    read_body,
    read_hand_vertices,
    read_head_vertices,
    read_j14_regressor,
    read_smplx_to_smpl,
)
from main.pipeline.estimator import PRECISIONS
from main.pipeline.model_files import find_model
from models.checkpoint import load_network
from utils.devices import pick_device
from utils.errors import UserError, escape_controls
from utils.files import ROOT

TASKS: Final = {"inference": 1, "training": 2, "evaluation": 4}
WRONG_NUMBERS: Final = 64
_REFERENCE: Final = ROOT / "tests" / "parity"
_TOLERANCE: Final = {"fp32": 1e-3, "bf16": 0.15}
"""Largest allowed error of a head output; outputs are of the order of 3."""
_RIGS: Final[dict[Rig, str]] = {"smplx": "SMPL-X", "smpl": "SMPL"}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        advice: how to correct it; empty if nothing is wrong.
        blocks: keys of TASKS that cannot run because of it.
        is_wrong: whether the device computes wrong numbers.
    """

    name: str
    state: str
    advice: str = ""
    blocks: tuple[str, ...] = ()
    is_wrong: bool = False


def examine(config: Config, model_dir: str, device: str, precision: str) -> Iterator[Finding]:
    """Check everything that the commands need, in the order in which a user would correct it."""
    yield _machine()
    yield from _device(device)
    yield _reference_outputs(device, precision)
    yield from _bodies(ROOT / config.model.human_model_path)
    yield _network(model_dir, precision)
    yield _detector(ROOT / config.inference.detection.model_path)
    yield _encoder(config)
    yield _datasets(ROOT / config.data.data_dir)


def _machine() -> Finding:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return Finding("software", f"{versions}, OpenCV {cv2.__version__}, PyAV {av.__version__}")


def _device(name: str) -> Iterator[Finding]:
    try:
        device = pick_device(name)
    except UserError as error:
        yield Finding("device", "missing", str(error), tuple(TASKS))
        return
    if device.type == "cuda":
        kind = f"{torch.cuda.get_device_name(device)}, float32 without TF32"
    else:
        kind = platform.processor() or platform.machine()
    yield Finding("device", f"{device}, {kind} ({torch.get_num_threads()} CPU threads)")


def reference_error(device: str, precision: str) -> float:
    """Largest difference between a small network's outputs for four crops and stored values.

    Raises:
        UserError: the reference files are missing or not readable.
    """
    config = load_config(_REFERENCE / "config_base.py")
    dtype = PRECISIONS[precision]
    chosen = pick_device(device)
    network = load_network(config.model, _REFERENCE / "snapshot_fp16.pth.tar", dtype).to(chosen)
    with np.load(_REFERENCE / "forward.npz") as known:
        crops = torch.from_numpy(known["img_uint8"])
        expected = torch.from_numpy(known["raw_body_pose"])
    with torch.inference_mode():
        pose = network(crops.to(chosen).float() / 255).body_pose
    return float((pose.cpu() - expected).abs().max())


def _reference_outputs(device: str, precision: str) -> Finding:
    name = "reference outputs"
    try:
        error = reference_error(device, precision)
    except UserError as problem:
        return Finding(name, "not checked", str(problem))
    if error <= _TOLERANCE[precision]:
        return Finding(name, f"reproduced ({precision}, largest error {error:.1e})")
    advice = f"this device computes wrong numbers (error {error:.1e}); try --device cpu"
    return Finding(name, "not reproduced", advice, is_wrong=True)


def _readable(name: str, read: Callable[[], object]) -> Finding:
    try:
        read()
    except UserError as error:
        return Finding(name, "missing or unreadable", str(error))
    return Finding(name, "readable")


def _bodies(path: Path) -> Iterator[Finding]:
    licensed = ModelFolder(path, "SMPL-X")
    stand_in = ModelFolder(STAND_IN, STAND_IN_NAME)
    usable = False
    for rig, gender in product(_RIGS, GENDERS):
        finding = _readable(f"{_RIGS[rig]} {gender}", partial(read_body, licensed, rig, gender))
        usable |= (rig, gender, finding.state) == ("smplx", "neutral", "readable")
        yield finding
    for name, read in (
        ("SMPLX_to_J14.pkl", read_j14_regressor),
        ("MANO_SMPLX_vertex_ids.pkl", read_hand_vertices),
        ("SMPL-X__FLAME_vertex_ids.npy", read_head_vertices),
        ("smplx2smpl.pkl", read_smplx_to_smpl),
    ):
        yield _readable(name, partial(read, licensed))
    finding = _readable(STAND_IN_NAME, partial(read_body, stand_in, "smplx"))
    if finding.state == "readable":
        state = "readable" if usable else "readable; takes the place of SMPL-X"
        yield Finding(STAND_IN_NAME, state)
    else:
        blocks = () if usable else tuple(TASKS)
        yield Finding(STAND_IN_NAME, finding.state, finding.advice, blocks)


def _network(model_dir: str, precision: str) -> Finding:
    name = f"network {model_dir}"
    try:
        files = find_model(model_dir)
        network = load_network(
            load_config(files.config).model, files.weights, PRECISIONS[precision]
        )
    except UserError as error:
        return Finding(name, "missing or unreadable", str(error), ("inference", "evaluation"))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    broken = [key for key, value in network.named_parameters() if not bool(value.isfinite().all())]
    if broken:
        advice = f"{broken[0]} contains NaN or infinity; download the weights again"
        return Finding(name, "broken", advice, ("inference", "evaluation"))
    return Finding(name, f"readable, {parameters / 1e6:.0f} M parameters, all keys match")


def _detector(path: Path) -> Finding:
    if path.is_file():
        return Finding("person detector", f"YOLO, {path.name}")
    advice = f"YOLO is more accurate; --detector yolo downloads it to {path}"
    return Finding("person detector", "MoveNet (built in)", advice)


def _encoder(config: Config) -> Finding:
    path = config.model.encoder_pretrained_model_path
    if path is None or (ROOT / path).is_file():
        return Finding("encoder for training", path or "none in the config")
    is_vitpose = Path(path).name.startswith("vitpose")
    weights = "ViTPose weights" if is_vitpose else "the encoder.pth of scripts/pretrain.sh"
    random = "--set model.encoder_pretrained_model_path=None"
    advice = f"put {weights} at {path}, or start from random weights: {random}"
    return Finding("encoder for training", "missing", advice, ("training",))


def _datasets(folder: Path) -> Finding:
    files = sorted(folder.rglob("*.npz")) if folder.is_dir() else []
    if files:
        return Finding("datasets", f"{len(files)} annotation files in {folder}")
    advice = f"put HumanData files under {folder}"
    return Finding("datasets", "missing", advice, ("training", "evaluation"))


def _shown(text: str) -> str:
    return escape(escape_controls(text))


def _report(findings: list[Finding]) -> int:
    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        is_error = finding.blocks or finding.is_wrong
        mark = "[red]-[/]" if is_error else "[yellow]o[/]" if finding.advice else "[green]+[/]"
        console.print(f"{mark} [bold]{_shown(finding.name)}[/]: {_shown(finding.state)}")
        if finding.advice:
            console.print(f"    {_shown(finding.advice)}")
    blocked = {task for finding in findings for task in finding.blocks}
    for task in TASKS:
        console.print(
            f"{task}: " + ("[red]cannot run[/]" if task in blocked else "[green]can run[/]")
        )
    wrong = WRONG_NUMBERS if any(finding.is_wrong for finding in findings) else 0
    return wrong + sum(status for task, status in TASKS.items() if task in blocked)


def run_checks(model_dir: str, device: str, precision: str, overrides: Sequence[str]) -> int:
    """Run all checks, print the findings, and return the exit status, a sum of `TASKS`."""
    try:
        config_path = find_model(model_dir).config
    except UserError:
        config_path = ROOT / "configs" / "config_smplest_x_h.py"
    config = load_config(config_path, overrides)
    return _report(list(examine(config, model_dir, device, precision)))
