"""Health check: `python -m main.doctor [MODEL_DIR]` lists which files exist and what works.

The exit status is 0 if everything can run, else the sum of 1 (inference cannot), 2 (training
cannot), 4 (evaluation cannot) and 64 (the device computes wrong numbers).
"""

import argparse
import sys

from main.cli import add_network_flags, command, command_parser
from utils.files import CONFIG_NAME, PRETRAINED


def run(arguments: argparse.Namespace) -> int:
    from main.pipeline.health import run_checks

    return run_checks(
        arguments.model_dir, arguments.device, arguments.precision, arguments.overrides
    )


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("doctor", "Check which files exist and whether everything can run.")
    known = sorted(path.parent.name for path in PRETRAINED.glob(f"*/{CONFIG_NAME}"))
    default = known[0] if known else "smplest_x_h"
    parser.add_argument(
        "model_dir", metavar="MODEL_DIR", nargs="?", default=default, help=f"default: {default}"
    )
    add_network_flags(parser)
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
