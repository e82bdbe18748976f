"""How near a result is to the truth: `python -m main.score RESULT TRUTH.npz`.

RESULT is a folder of inference, TRUTH a HumanData file of the same video whose `meta.frame_index`
says which frame a row is of, as `main.synthesize --video` writes it. In every frame results are
given to people by the overlap of their boxes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from main.door import door_parser, run_door


def run(arguments: argparse.Namespace) -> None:
    from main.testing.scoring import run_score

    run_score(arguments)


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("score", "Compare a result of inference with the truth.")
    parser.add_argument("result", metavar="RESULT", type=Path, help="folder of a result")
    parser.add_argument("truth", metavar="TRUTH.npz", type=Path, help="HumanData of the video")
    parser.add_argument("--body-folder", default="human_models/human_model_files")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run this door with a command line (the process' own by default); the exit status."""
    return run_door(make_parser(), run, words)


if __name__ == "__main__":
    sys.exit(main())
