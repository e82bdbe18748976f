"""Code that all commands share: one-line errors, log format, common flags.

The module of a command contains its parser and `run`, which imports the code that does the work.
Arguments are thus parsed, and --help is answered, before large packages such as PyTorch are loaded.
"""

import argparse
import gc
import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, Final, TypeVar

from utils.errors import OneLineFormatter, UserError, logging_to, refusal
from utils.files import OUTPUTS

log = logging.getLogger(__name__)

Options = TypeVar("Options")
PRECISIONS: Final = ("fp32", "bf16")
_NO_MEMORY: Final = (
    "failed to map segment from shared object",  # from the dynamic loader, during an import
    "Cannot allocate memory",
    "can't allocate memory",  # from PyTorch on the CPU
    "can't start new thread",
)
_PACKAGES: Final = (
    *("configs", "utils", "human_models", "open_body", "models"),
    *("datasets", "synthetic", "main", "__main__"),
)
_NUMBER: Final = re.compile(r"-\d+|-\d*\.\d+")


class _OneLineParser(argparse.ArgumentParser):
    """A parser that raises `UserError`, and accepts flags between positional arguments.

    When argparse itself meets a flag, it gives the remaining optional positional arguments their
    defaults.
    """

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message}; see --help")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Return the parsed arguments and the unrecognised ones, as argparse does."""
        arguments = list(sys.argv[1:] if args is None else args)
        kinds = {action.nargs for action in self._actions if not action.option_strings}
        if argparse.REMAINDER in kinds:  # the rest, including flags, belongs to another command
            return super().parse_known_args(arguments, namespace)
        if "" in arguments:  # as a path, it would mean the current folder
            raise UserError("an argument is empty; perhaps a variable of the shell is not set")
        if argparse.PARSER in kinds:
            return self._parse_with_command(arguments, namespace)
        return super().parse_known_args(self._flags_first(arguments), namespace)

    def _parse_with_command(self, arguments: list[str], namespace: Any) -> tuple[Any, list[str]]:
        """Parse a command line with a subcommand, whose flags may come before its name."""
        commands = next(action for action in self._actions if action.nargs == argparse.PARSER)
        own = [argument for argument in arguments if self._is_switch(argument)]
        arguments = [argument for argument in arguments if argument not in own]
        failure: UserError | None = None
        for place, argument in enumerate(arguments):
            if argument not in (commands.choices or ()):
                continue
            rest = [*arguments[:place], *arguments[place + 1 :]]
            try:
                parsed, unknown = super().parse_known_args([*own, argument, *rest], namespace)
                if unknown:
                    self.error(f"unrecognized arguments: {' '.join(unknown)}")
                return parsed, []
            except UserError as error:  # the name may have been the value of a flag
                failure = failure or error
        if failure is not None:
            raise failure
        return super().parse_known_args([*own, *arguments], namespace)

    def _is_switch(self, argument: str) -> bool:
        """Whether the argument is a flag of this parser without a value, except --help."""
        return any(
            argument in action.option_strings and action.nargs == 0 and action.dest != "help"
            for action in self._actions
        )

    def _flags_first(self, arguments: list[str]) -> list[str]:
        """The same arguments in another order: flags with their values, `--`, then the others."""
        flags: list[str] = []
        others: list[str] = []
        rest = iter(arguments)
        for argument in rest:
            if argument == "--":
                others += rest
            elif not argument.startswith("-") or argument == "-" or _NUMBER.fullmatch(argument):
                others.append(argument)
            else:
                flags.append(argument)
                if "=" not in argument and self._takes_value(argument):
                    flags += [value for value in [next(rest, None)] if value is not None]
        return [*flags, "--", *others] if others else flags

    def _takes_value(self, flag: str) -> bool:
        """Whether a flag, which may be abbreviated, is followed by its value."""
        actions = {name: action for action in self._actions for name in action.option_strings}
        names = [flag] if flag in actions else [name for name in actions if name.startswith(flag)]
        return len(names) == 1 and actions[names[0]].nargs is None


def command_parser(module: str, description: str) -> argparse.ArgumentParser:
    """A parser whose errors are one line, with the flags that every command has."""
    parser = _OneLineParser(prog=f"python -m main.{module}", description=description)
    parser.add_argument("--verbose", action="store_true", help="log in detail, with time stamps")
    return parser


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of commands that run a trained network."""
    add_config_flags(parser)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="numeric precision")


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of commands that read a config."""
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps or cpu")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the config, e.g. --set inference.detection.conf=0.3; relative paths in it "
        "start from the project's folder",
    )


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Arguments of commands that train."""
    parser.add_argument("job_name", metavar="JOB_NAME", help="part of the run folder's name")
    parser.add_argument("config_file", metavar="CONFIG_FILE", help="a path, or a name in configs/")
    parser.add_argument("--output", type=Path, default=OUTPUTS, help="parent of the run's folder")
    add_config_flags(parser)


def as_options(
    kind: Callable[..., Options], arguments: argparse.Namespace, /, **others: object
) -> Options:
    """Build options from the arguments of the same names, and from `others`."""
    for name in signature(kind).parameters.keys() - others.keys():
        value = getattr(arguments, name)
        others[name] = tuple(value) if isinstance(value, list) else value
    return kind(**others)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Disable garbage collection while the block imports large modules, which saves 10 % of time.

    Imported modules are never freed anyway.
    """
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # only once, as freezing keeps the garbage of later commands
            gc.freeze()
        gc.enable()


def count(text: str, least: int = 1) -> int:
    """An argparse type for whole numbers that are not less than `least`."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, {least} or more")
    return int(text)


@contextmanager
def logging_to_stderr() -> Iterator[logging.Handler]:
    """Write log messages of the project to stderr, without any prefix, while the block runs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter())
    for package in _PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)
    with logging_to(handler):
        yield handler


def command(
    make_parser: Callable[[], argparse.ArgumentParser],
    run: Callable[[argparse.Namespace], int | None],
) -> Callable[..., int]:
    """The `main` function of a command: parses, runs, and returns the exit status.

    An error that the user can correct is one line on stderr. If one of several processes fails, it
    ends here at once: see `utils.devices.end_process`.
    """

    def main(command_line: Sequence[str] | None = None) -> int:
        """Run a command line; None: that of this process."""
        _exit_on_signals()
        try:
            status = _run(make_parser(), run, command_line)
        except SystemExit as end:
            _end_among_others(end.code if isinstance(end.code, int) else 1)
            raise
        except BaseException as error:
            _end_among_others(1, error)
            raise
        _end_among_others(status)
        return status

    return main


def _end_among_others(status: int, error: BaseException | None = None) -> None:
    distributed = sys.modules.get("utils.devices")  # importing it would load PyTorch
    if status and distributed is not None:
        distributed.end_process(status, error)


def _run(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int | None],
    command_line: Sequence[str] | None,
) -> int:
    """Parse and run; known errors are logged, others are raised."""
    with logging_to_stderr() as handler:
        try:
            arguments = parser.parse_args(command_line)
            if arguments.verbose:
                handler.setFormatter(OneLineFormatter("%(asctime)s %(name)s: %(message)s"))
                logging.getLogger("main").setLevel(logging.DEBUG)
                logging.getLogger("utils").setLevel(logging.DEBUG)
            return run(arguments) or 0
        except UserError as error:
            flag = "" if error.setting is None else f"--{error.setting} "
            log.error("error: %s%s", flag, error)
            return 2
        except (RuntimeError, ImportError, MemoryError) as error:
            shortage = _memory_shortage(error)
            if shortage is None:
                raise
            log.error("error: %s", shortage, exc_info=log.isEnabledFor(logging.DEBUG))
            return 2
        except OSError as error:  # such as a full disk, no permission, or a missing folder
            log.error("error: %s", refusal(error), exc_info=log.isEnabledFor(logging.DEBUG))
            return 2
        except KeyboardInterrupt:
            log.error("stopped")
            return 130


def _exit_on_signals() -> None:
    """Exit by an exception on SIGTERM and SIGHUP, so that temporary files are removed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def _memory_shortage(error: BaseException) -> str | None:
    """The message for an error that means a lack of memory; None for other errors."""
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        return (
            "out of memory; close other programs, raise the limit (ulimit -v, or that of the "
            "container), or choose smaller batches"
        )
    torch = sys.modules.get("torch")  # loaded if the error comes from a device
    if torch is not None and isinstance(error, getattr(torch, "OutOfMemoryError", ())):
        return "the device's memory is full; choose a smaller --batch-size"
    return None
