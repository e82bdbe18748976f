"""Start the local app, which is used in a browser: `python -m main.serve`.

scripts/app.sh installs its dependencies.
"""

import argparse
import re
import secrets
import sys
from pathlib import Path

from main.cli import as_options, command, command_parser, count
from utils.errors import UserError
from utils.files import OUTPUTS

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def run(arguments: argparse.Namespace) -> None:
    try:
        from main.app.server import Settings, serve
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; start with scripts/app.sh") from None

    token = arguments.token
    if token is not None and not re.fullmatch(r"[A-Za-z0-9_-]{8,}", token):
        raise UserError("--token: give at least eight letters, digits, - or _, or leave it out")
    if token is None and arguments.host not in LOOPBACK:
        token = secrets.token_urlsafe(24)
    serve(as_options(Settings, arguments, folder=arguments.output.absolute(), token=token))


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("serve", "Start the local app (docs/app.md).")
    add = parser.add_argument
    add("--port", type=int, default=7860, help="default: 7860; 0: any free port")
    add("--host", default=LOOPBACK[0], help="address to listen on (default: 127.0.0.1)")
    add("--token", help="access token for other computers (default: a new one, which is printed)")
    add("--model", default="smplest_x_demo", metavar="MODEL_DIR", help="selected at the start")
    add("--limit-mb", type=count, default=300, metavar="MB", help="largest upload (default: 300)")
    add("--output", type=Path, default=OUTPUTS / "app", metavar="DIR", help="folder of the jobs")
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
