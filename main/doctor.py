"""Health check: `python -m main.doctor [MODEL_DIR]` says what is there and what works.

The exit status is 0 if everything can run, else the sum of 1 (inference cannot), 2 (training
cannot) and 4 (testing cannot); 64 if this machine computes wrong numbers.
"""

import argparse
import sys

from main.cli import add_network_flags, command, command_parser
from utils.files import PRETRAINED


def run(arguments: argparse.Namespace) -> int:
    from main.pipeline.health import run_checks

    return run_checks(
        arguments.model_dir, arguments.device, arguments.precision, arguments.overrides
    )


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("doctor", "Check which files are there and whether everything can run.")
    known = sorted(path.name for path in PRETRAINED.glob("*/")) or ["smplest_x_h"]
    parser.add_argument("model_dir", metavar="MODEL_DIR", nargs="?", default=known[0])
    add_network_flags(parser)
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
