"""The network alone, as a file: `python -m main.convert MODEL_DIR [--precision fp16 | --onnx]`.

A training checkpoint carries the optimizer's state, two thirds of its bytes. The safetensors file
written beside it holds the network alone and is found first by every command. With --onnx it is an
ONNX file for other programs, and for `main.inference --backend onnx`.
"""

import argparse
import sys
from pathlib import Path

from main.cli import PRECISIONS, command, command_parser


def run(arguments: argparse.Namespace) -> None:
    from main.pipeline.model_files import to_onnx, to_safetensors

    if arguments.onnx:
        to_onnx(arguments.model_dir, arguments.output)
    else:
        to_safetensors(arguments.model_dir, arguments.output, arguments.precision)


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("convert", "Write a checkpoint's network as safetensors or ONNX.")
    parser.add_argument(
        "model_dir", metavar="MODEL_DIR", help="as for inference, or a weights file"
    )
    parser.add_argument("--output", type=Path, help="default: beside the weights")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--precision", choices=(*PRECISIONS, "fp16"), default="fp32", help="of weights"
    )
    kind.add_argument("--onnx", action="store_true", help="write ONNX, in fp32")
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
