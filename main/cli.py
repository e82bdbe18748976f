"""What all commands share: one-line errors, log format, common flags.

A command's own module is its parser and a `run` that imports what does the work: arguments are
parsed, and --help is answered, before PyTorch and others are loaded, which takes seconds.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from main.paths import OUTPUTS
from utils.errors import UserError, first_line

log = logging.getLogger(__name__)

PRECISIONS = ("fp32", "bf16")
_PACKAGES = ("configs", "utils", "human_models", "models", "datasets", "main", "__main__")


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message}; see --help")


def command_parser(module: str, description: str) -> argparse.ArgumentParser:
    """A parser whose errors are one line, with the flags that every command has."""
    parser = _OneLineParser(prog=f"python -m main.{module}", description=description)
    parser.add_argument("--verbose", action="store_true", help="log more, with time stamps")
    return parser


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of commands that run a trained network."""
    add_config_flags(parser)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the network")


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of commands that read a config."""
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps or cpu")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the config, e.g. --set inference.detection.conf=0.3",
    )


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Arguments of commands that train."""
    parser.add_argument("job_name", metavar="JOB_NAME", help="of the run's folder in outputs/")
    parser.add_argument("config_file", metavar="CONFIG_FILE", help="a path, or a name in configs/")
    parser.add_argument("--output", type=Path, default=OUTPUTS, help="where runs have folders")
    add_config_flags(parser)


@contextmanager
def logging_to_stderr() -> Iterator[logging.Handler]:
    """Show what the project's folders log, as bare messages, while the block runs."""
    handler = logging.StreamHandler(sys.stderr)
    root = logging.getLogger()
    root.addHandler(handler)
    for package in _PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)
    try:
        yield handler
    finally:
        root.removeHandler(handler)


def run_command(
    parser: argparse.ArgumentParser,
    main: Callable[[argparse.Namespace], int | None],
    command_line: Sequence[str] | None = None,
) -> int:
    """Parse, run, and return an exit status; what the user must know is one line on stderr.

    Args:
        command_line: None: the process' own.
    """
    # So that being ended by a scheduler cleans up like any other end.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with logging_to_stderr() as handler:
        try:
            arguments = parser.parse_args(command_line)
            if arguments.verbose:
                handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
                logging.getLogger("main").setLevel(logging.DEBUG)
                logging.getLogger("utils").setLevel(logging.DEBUG)
            return main(arguments) or 0
        except UserError as error:
            flag = "" if error.setting is None else f"--{error.setting} "
            log.error("error: %s%s", flag, error)
            return 2
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            log.error("error: the device's memory is full; choose a smaller --batch-size")
            return 2
        except OSError as error:  # the system's refusal: a full disk, no permission, no such place
            place = f"{error.filename}: " if error.filename else ""
            refusal = f"{place}{error.strerror or first_line(error)}"
            message = "error: %s; check the place's free space and permissions"
            log.error(message, refusal, exc_info=log.isEnabledFor(logging.DEBUG))
            return 2
        except KeyboardInterrupt:
            log.error("stopped")
            return 130


def _is_out_of_memory(error: RuntimeError) -> bool:
    import torch  # has been loaded where the error came from

    return isinstance(error, torch.OutOfMemoryError)
