"""Which files MODEL_DIR means, a config and the weights that belong to it, and their conversion.

MODEL_DIR is the name of a folder under pretrained_models/, or any folder, or a weights file.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from configs.reader import load_config
from utils.errors import UserError, first_line
from utils.files import CONFIG_NAME, OUTPUTS, PRETRAINED, atomic_path, open_input, read_json

log = logging.getLogger(__name__)

WEIGHT_SUFFIXES: Final = (".safetensors", ".pth.tar", ".pth", ".pt")


class HubModel(NamedTuple):
    repo: str
    files: tuple[str, ...]


HUB_MODELS: Final = {
    "smplest_x_h": HubModel("waanqii/SMPLest-X", ("smplest_x_h.pth.tar", CONFIG_NAME))
}


class ModelFiles(NamedTuple):
    name: str
    weights: Path
    config: Path

    @property
    def onnx(self) -> Path:
        """Path of the same network as ONNX, if `main.convert --onnx` has written it."""
        return self.weights.with_name(f"{self.name}.onnx")


def find_model(model_dir: str, *, download: bool = False) -> ModelFiles:
    """Weights and config of MODEL_DIR.

    In a folder NAME, NAME.safetensors takes precedence over NAME.pth.tar, and these over a single
    weights file with another name.

    Args:
        download: download a published model by its name if it is absent.

    Raises:
        UserError: something is missing; the message says which file to put where.
    """
    path = Path(model_dir)
    if path.is_file():
        return ModelFiles(_stem(path), path, _config_of(path))
    folder = path if path.is_dir() else PRETRAINED / model_dir
    if download and model_dir in HUB_MODELS:
        _download(model_dir, folder)
    name = folder.resolve().name
    if not folder.is_dir():
        raise UserError(_how_to_get(model_dir, folder))
    named = [folder / f"{name}{suffix}" for suffix in WEIGHT_SUFFIXES]
    present = [weights for weights in named if weights.is_file()]
    others = [path for path in folder.iterdir() if path.name.endswith(WEIGHT_SUFFIXES)]
    if present:
        return ModelFiles(name, present[0], _config_of(present[0]))
    if len(others) == 1:
        return ModelFiles(name, others[0], _config_of(others[0]))
    if not others and model_dir in HUB_MODELS:  # such as a download that was broken off
        raise UserError(_how_to_get(model_dir, folder))
    if snapshots := _snapshots(folder):
        raise UserError(
            f"{folder} is a training run; name one of its snapshots, such as {snapshots[-1]}"
        )
    if not others:
        raise UserError(
            f"{folder}: there are no weights in it; put {name}.safetensors or {name}.pth.tar there"
        )
    raise UserError(
        f"{folder}: neither {name}.safetensors nor {name}.pth.tar is in it, "
        f"but {len(others)} other weights files; name the one you mean"
    )


def find_weights(model_dir: str, checkpoint_id: str | None) -> ModelFiles:
    """The files of MODEL_DIR (see `find_model`), or the snapshot of an epoch of a training run.

    Args:
        model_dir: with an epoch, the name of a run under outputs/, or the run's folder.
        checkpoint_id: the number of the epoch, from 0; None: no training run.

    Raises:
        UserError: there is no such model, run or snapshot; the message lists existing snapshots.
    """
    if checkpoint_id is None:
        return find_model(model_dir)
    name = Path("model_dump") / f"snapshot_{checkpoint_id}.pth.tar"
    runs = (Path(model_dir), OUTPUTS / model_dir)
    folder = next((run for run in runs if (run / "model_dump").is_dir()), None)
    if folder is None:
        raise UserError(
            f"{runs[1] / name} is missing, and there is no training run '{model_dir}'; put its "
            "snapshot and config there, or leave the epoch out to use pretrained_models/"
        )
    weights = folder / name
    if not weights.is_file():
        there = ", ".join(path.name for path in _snapshots(folder))
        raise UserError(f"{weights} is missing; there are: {there or 'none'}")
    return ModelFiles(folder.resolve().name, weights, _config_of(weights))


def _snapshots(run: Path) -> list[Path]:
    """The snapshots of a run in the order of their epochs: 10 follows 9."""
    files = run.glob("model_dump/snapshot_*.pth.tar")
    return sorted(files, key=lambda file: (len(file.name), file.name))


def _stem(weights: Path) -> str:
    suffix = next((s for s in WEIGHT_SUFFIXES if weights.name.endswith(s)), None)
    if suffix is None:
        kinds = ", ".join(WEIGHT_SUFFIXES)
        raise UserError(f"{weights}: the name of a weights file ends in one of {kinds}")
    return weights.name.removesuffix(suffix)


def _config_of(weights: Path) -> Path:
    # Training writes its snapshots into a folder of the run that holds the config.
    for folder in (weights.parent, weights.parent.parent):
        if (folder / CONFIG_NAME).is_file():
            return folder / CONFIG_NAME
    published = HUB_MODELS.get(weights.parent.name)
    where = f", from huggingface.co/{published.repo}, or add --download" if published else ""
    raise UserError(
        f"{weights.parent / CONFIG_NAME} is missing; put the config of {weights.name} beside it"
        + where
    )


def _how_to_get(model_dir: str, folder: Path) -> str:
    if model_dir in HUB_MODELS:
        hub = HUB_MODELS[model_dir]
        files = " and ".join(hub.files)
        return (
            f"{folder} has no weights: put {files} from huggingface.co/{hub.repo} into it, "
            "or add --download (8.2 GB)"
        )
    there = [config.parent.name for config in PRETRAINED.glob(f"*/{CONFIG_NAME}")]
    known = ", ".join(sorted({*there, *HUB_MODELS}))
    return f"{model_dir}: no such model folder, and none of pretrained_models/ ({known})"


def _download(model_dir: str, folder: Path) -> None:
    """Download missing files, resuming an interrupted download, and record their hashes."""
    from huggingface_hub import errors, hf_hub_download

    # The base of what the hub's HTTP client raises, whichever client that is.
    http_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]

    hub = HUB_MODELS[model_dir]
    absent = [name for name in hub.files if not (folder / name).is_file()]
    for name in absent:
        log.info("downloading %s from %s", name, hub.repo)
        try:
            fetched = Path(hf_hub_download(hub.repo, name, local_dir=folder))
        except (http_error, errors.LocalEntryNotFoundError, OSError) as error:
            _remove_traces(folder)
            raise UserError(
                f"could not download {name} ({first_line(error)}); put it into {folder} by hand, "
                f"from huggingface.co/{hub.repo}"
            ) from None
        _record(folder, name, hub.repo, fetched)


def _remove_traces(folder: Path) -> None:
    """Remove the folder of a failed download if it has nothing that can be resumed."""
    left = [path for path in folder.rglob("*") if path.is_file()]
    if not any(path.parent == folder or path.suffix == ".incomplete" for path in left):
        shutil.rmtree(folder, ignore_errors=True)


def _record(folder: Path, name: str, repo: str, fetched: Path) -> None:
    record = folder / "fetched.json"
    known = read_json(record, "record") if record.is_file() else {}
    if not isinstance(known, dict):
        raise UserError(f"{record}: not a record of downloads; delete it")
    with open_input(fetched) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    known[name] = {"repo": repo, "bytes": fetched.stat().st_size, "sha256": digest}
    with atomic_path(record) as partial:
        partial.write_text(json.dumps(known, indent=2) + "\n")


def to_safetensors(model_dir: str, output: Path | None, precision: str) -> Path:
    """Write the network of MODEL_DIR as safetensors and return the file's path.

    Args:
        output: default: beside the weights, with their name.
        precision: fp32; bf16, but heads and lifter fp32; or fp16, see `checkpoint.small_state`.

    Raises:
        UserError: see `find_model`, `load_config`, `load_network`.
    """
    import torch

    from models.checkpoint import load_network, save_safetensors, small_state

    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    files = find_model(model_dir)
    target = output or files.weights.with_name(f"{files.name}.safetensors")
    _check_suffix(target, ".safetensors")
    if target.resolve() == files.weights.resolve():
        raise UserError(f"{files.weights} is a safetensors file already; name another --output")
    config = load_config(files.config)
    network = load_network(config.model, files.weights, kinds[precision])
    state = small_state(network) if precision == "fp16" else network.state_dict()
    parameters = sum(value.numel() for value in network.state_dict().values())
    save_safetensors(state, target, {"source": files.weights.name, "precision": precision})
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
    from models.checkpoint import load_network
    from models.deployment import save_onnx

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
