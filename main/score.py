"""How near a result is to the truth: `python -m main.score RESULT TRUTH.npz`.

RESULT is a folder of inference, TRUTH a HumanData file of the same video whose `meta.frame_index`
says which frame a row belongs to, as `main.synthesize --video` writes it. In every frame, results
are assigned to people by the overlap of their boxes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from main.cli import command_parser, run_command


def run(arguments: argparse.Namespace) -> None:
    from main.evaluation.scoring import score_result

    score_result(arguments.result, arguments.truth, arguments.body_folder)


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("score", "Compare a result of inference with the truth.")
    parser.add_argument("result", metavar="RESULT", type=Path, help="folder of a result")
    parser.add_argument("truth", metavar="TRUTH.npz", type=Path, help="HumanData of the video")
    parser.add_argument("--body-folder", default="human_models/human_model_files")
    return parser


def main(command_line: Sequence[str] | None = None) -> int:
    """Run this command with a command line, the process' own by default; the exit status."""
    return run_command(make_parser(), run, command_line)


if __name__ == "__main__":
    sys.exit(main())
