"""Start the processes of a run on this machine: `python -m main.launch N MODULE [ARGUMENTS]`.

This is torchrun (torch.distributed.run) without its traceback, because the process that failed has
already reported the error. Environment variables configure a cluster: NNODES, NODE_RANK,
RDZV_ENDPOINT (host:port, the same on all machines), RDZV_ID, MAX_RESTARTS, and
TORCH_ELASTIC_SHUTDOWN_TIMEOUT, the seconds that processes have to save their work after a signal
(default: 600).
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import datetime

from main.cli import command, command_parser, count, quick_imports
from utils.errors import UserError

log = logging.getLogger(__name__)


def launch(processes: int, module: str, arguments: Sequence[str]) -> int:
    """Run a module in several processes and return 0, or the exit status of one that failed.

    Raises:
        UserError: the module is empty, or an environment variable is wrong.
    """
    with quick_imports():
        import torch
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import get_args_parser, run

        from utils.devices import DATE, LAUNCH_DATE, usable_cores

    if not module:
        raise UserError("MODULE is empty; give main.train, main.pretrain or main.test")
    environment = os.environ
    environment[LAUNCH_DATE] = datetime.now().astimezone().strftime(DATE)
    flags = _torchrun_flags(processes, environment)
    # The processes share the machine's cores; torchrun would give each a single thread.
    threads = max(1, usable_cores() // processes)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    if not torch.cuda.is_available():
        # Else glibc spends a quarter of a step returning memory that the next step needs.
        environment.setdefault("MALLOC_MMAP_MAX_", "0")
        environment.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**40))
    environment.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    parsed = get_args_parser().parse_args([*flags, "-m", module, *arguments])
    try:
        run(parsed)
    except ChildFailedError as error:
        return _status({rank: failure.exitcode for rank, failure in error.failures.items()})
    except SignalException as error:
        return 128 + error.sigval
    return 0


def _torchrun_flags(processes: int, environment: MutableMapping[str, str]) -> list[str]:
    restarts = environment.get("MAX_RESTARTS", "0")
    if restarts != "0":
        # Else restarted processes would join the store of the old ones and wait for them.
        environment.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    flags = [
        f"--nproc-per-node={processes}",
        f"--max-restarts={restarts}",
        f"--nnodes={environment.get('NNODES', '1')}",
    ]
    if "RDZV_ENDPOINT" not in environment:
        return [*flags, "--standalone"]
    flags += [
        f"--rdzv-endpoint={environment['RDZV_ENDPOINT']}",
        f"--rdzv-id={environment.get('RDZV_ID', 'smplest_x')}",
        "--rdzv-backend=c10d",
    ]
    rank = environment.get("NODE_RANK")
    return flags if rank is None else [*flags, f"--node-rank={rank}"]


def _status(codes: Mapping[int, int]) -> int:
    """Exit status for the codes of failed ranks; 128 plus the signal if signals ended all.

    After one rank has failed, torchrun ends the others by SIGTERM, and they may report 128 plus
    that signal. SIGKILL has another cause, such as the system's lack of memory.
    """
    killed = [rank for rank, code in codes.items() if code == -signal.SIGKILL]
    for rank in killed:
        log.error("error: SIGKILL ended rank %d; out of memory?", rank)
    own = [code for code in codes.values() if 0 < code < 128]
    if own:
        return max(own)
    rank, code = min(codes.items(), key=lambda one: one[1])
    if code > 0:
        return code
    if not killed:
        log.error("error: signal %d ended rank %d", -code, rank)
    return 128 - code


def run(arguments: argparse.Namespace) -> int:
    return launch(arguments.processes, arguments.module, arguments.arguments)


def make_parser() -> argparse.ArgumentParser:
    parser = command_parser("launch", "Start the processes of a run on this machine.")
    parser.add_argument(
        "processes", metavar="N", type=count, help="number of processes, one per GPU"
    )
    parser.add_argument("module", metavar="MODULE", help="main.train, main.pretrain or main.test")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the module")
    return parser


main = command(make_parser, run)


if __name__ == "__main__":
    sys.exit(main())
