"""Pre-training: `python -m main.pretrain JOB_NAME CONFIG_FILE [flags]`.

--stage keypoints: the ViT of the config learns to find joints in the crops of any HumanData sets,
without task tokens, as ViTPose does. At the end of a run outputs/pretrain_JOB_DATE/model_dump/
encoder.pth is a file of ViTPose's form, for `model.encoder_pretrained_model_path`.

--stage lifting: the lifter of the config (`model.lifter_config`) and the heads learn what joints
mean in 3D, from endless synthetic poses without pictures. Snapshots are of the whole network, for
`model.pretrained_model_path`; its encoder is that of `model.encoder_pretrained_model_path`.

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
