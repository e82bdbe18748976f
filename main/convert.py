"""Convert a checkpoint: `python -m main.convert MODEL_DIR [--precision bf16|fp16 | --onnx]`.

Two thirds of a training checkpoint are the state of the optimizer. The safetensors file that is
written beside it contains only the network, and all commands prefer it. --onnx writes an ONNX file
instead, for other programs and for `main.inference --backend onnx`.
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
        "--precision", choices=(*PRECISIONS, "fp16"), default="fp32", help="precision of weights"
    )
    kind.add_argument("--onnx", action="store_true", help="write ONNX (fp32)")
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
