"""Write or check a submission to the test server of AGORA or BEDLAM.

python -m main.submit agora|bedlam MODEL_DIR [CKPT_ID] --output FILE.zip [flags]
python -m main.submit check FILE.zip --server agora|bedlam

People come from the HumanData files of the test split (the datasets AGORA_test and BEDLAM_test),
or with --images from a folder of test images, with boxes from a detector or a file.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from main.cli import add_network_flags, as_options, command, command_parser
from main.evaluation.servers import SERVERS
from main.pipeline.options import DetectorName


def run(arguments: argparse.Namespace) -> int:
    from main.evaluation.submission import SubmissionOptions, report_check, submit

    if arguments.command == "check":
        return report_check(arguments.file, SERVERS[arguments.server])
    options = as_options(SubmissionOptions, arguments, server=SERVERS[arguments.command])
    return submit(options)


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("submit", "Write or check a submission to AGORA or BEDLAM.")
    commands = parser.add_subparsers(dest="command", metavar="agora|bedlam|check", required=True)
    for server in SERVERS.values():
        subparser = commands.add_parser(
            server.name, help=f"estimate {server.source} and write a zip file"
        )
        add = subparser.add_argument
        add("model_dir", metavar="MODEL_DIR", help="as for inference, or a training run")
        add("checkpoint_id", metavar="CKPT_ID", nargs="?", help="an epoch of the run, from 0")
        add("--output", type=Path, required=True, metavar="FILE.zip", help="file to write")
        add("--images", type=Path, metavar="DIR", help="test images, instead of HumanData files")
        add(
            "--boxes",
            type=Path,
            metavar="FILE",
            help='with --images: boxes, as {"0": [[x, y, width, height], ...], ...}',
        )
        add("--detector", choices=get_args(DetectorName), default="auto", help="with --images")
        add_network_flags(subparser)
    check = commands.add_parser("check", help="check a zip file or a folder with its content")
    check.add_argument("file", type=Path, metavar="FILE.zip")
    check.add_argument("--server", choices=SERVERS, required=True)
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
