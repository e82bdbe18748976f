"""Compare a result with the ground truth of its video: `python -m main.score RESULT TRUTH.npz`.

RESULT is a result folder of inference. TRUTH is a HumanData file of the same video with
`meta.frame_index`, the frame of each row, as `main.synthesize --video` writes it, or a file of EMDB
or a folder of RICH. In every frame, estimated people are assigned to true ones by the overlap of
their boxes.
"""

import argparse
import sys
from pathlib import Path

from main.cli import command, command_parser


def run(arguments: argparse.Namespace) -> None:
    from main.evaluation.scoring import score_result

    score_result(arguments.result, arguments.truth, arguments.body_folder)


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("score", "Compare a result of inference with the ground truth.")
    parser.add_argument("result", metavar="RESULT", type=Path, help="a result folder of inference")
    parser.add_argument(
        "truth", metavar="TRUTH.npz", type=Path, help="the truth, as HumanData, EMDB or RICH"
    )
    parser.add_argument(
        "--body-folder", default="human_models/human_model_files", help="folder of SMPL-X files"
    )
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
