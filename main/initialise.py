"""Make an untrained model: `python -m main.initialise CONFIG_FILE MODEL_DIR [--seed N]`.

Its weights are random, and its output is an average person who stands and fills the box. Training
can start from it, and all commands can be tried with it if there are no trained weights.
"""

import argparse
import sys
from pathlib import Path

from main.cli import command, command_parser
from utils.errors import UserError
from utils.files import CONFIG_NAME, PRETRAINED, ROOT, atomic_path


def initialise(config_file: str, model_dir: str, seed: int) -> Path:
    """Write weights and config to a new model folder; a plain name is one in pretrained_models/.

    Raises:
        UserError: the config cannot be read, or the folder exists already.
    """
    import torch

    from configs.reader import load_config, save_config
    from human_models.body import BodyLibrary
    from human_models.files import find_model_folder
    from models.checkpoint import save_safetensors
    from models.initialise import initial_network

    folder = Path(model_dir) if "/" in model_dir else PRETRAINED / model_dir
    if folder.exists() or folder.is_symlink():  # also if the name is empty or ".."
        raise UserError(f"{folder} exists already; name a new folder")
    config = load_config(config_file)
    body = BodyLibrary(find_model_folder(ROOT / config.model.human_model_path)).smplx()
    torch.manual_seed(seed)
    network = initial_network(config.model, body)
    with atomic_path(folder) as partial:
        partial.mkdir()
        weights = partial / f"{folder.name}.safetensors"
        save_safetensors(network.state_dict(), weights, {"source": f"untrained, seed {seed}"})
        save_config(config, partial / CONFIG_NAME)
    return folder


def run(arguments: argparse.Namespace) -> None:
    initialise(arguments.config_file, arguments.model_dir, arguments.seed)


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("initialise", "Make an untrained network.")
    parser.add_argument("config_file", metavar="CONFIG_FILE", help="a path, or a name in configs/")
    parser.add_argument(
        "model_dir", metavar="MODEL_DIR", help="a new folder, or a name in pretrained_models/"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
