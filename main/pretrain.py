"""Pre-training: `python -m main.pretrain JOB_NAME CONFIG_FILE [flags]`.

--stage keypoints: the ViT of the config learns to find joints in the crops of any HumanData files,
without task tokens, as ViTPose does. The run ends by writing outputs/pretrain_JOB_DATE/model_dump/
encoder.pth in the format of ViTPose, for `model.encoder_pretrained_model_path`.

--stage lifting: the lifter of the config (`model.lifter_config`) and the heads learn to lift 2D
joints to 3D, from synthetic poses without pictures. Snapshots contain the whole network, for
`model.pretrained_model_path`, with the encoder of `model.encoder_pretrained_model_path`.

scripts/pretrain.sh starts the processes.
"""

import argparse
import sys

from main.cli import add_run_flags, as_options, command, command_parser, quick_imports


def run(arguments: argparse.Namespace) -> int:
    with quick_imports():
        from main.training import KEYPOINTS, LIFTING, RunOptions, run_training

    recipe = LIFTING if arguments.stage == "lifting" else KEYPOINTS
    return run_training(recipe, as_options(RunOptions, arguments))


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("pretrain", "Pre-train parts of a network, as one process of a run.")
    add_run_flags(parser)
    parser.add_argument(
        "--stage", choices=("keypoints", "lifting"), default="keypoints", help="what to train"
    )
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
