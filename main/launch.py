"""Starts the processes of a run on this machine: `python -m main.launch N MODULE [words]`.

It is torchrun (torch.distributed.run) without its traceback: what went wrong has been said by the
process that found it. Its environment variables set what a cluster needs: NNODES, NODE_RANK,
RDZV_ENDPOINT (host:port, the same on all machines), RDZV_ID, MAX_RESTARTS.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

from main.door import door_parser, run_door
from utils.errors import UserError


def launch(arguments: argparse.Namespace) -> int:
    """Run a module in so many processes; the exit status of the first one that failed, or 0."""
    if arguments.processes < 1:
        raise UserError(f"{arguments.processes} processes; start 1 or more")
    environment = os.environ
    words = [
        f"--nproc-per-node={arguments.processes}",
        f"--max-restarts={environment.get('MAX_RESTARTS', '0')}",
        f"--nnodes={environment.get('NNODES', '1')}",
    ]
    if "RDZV_ENDPOINT" in environment:
        words += [
            f"--rdzv-endpoint={environment['RDZV_ENDPOINT']}",
            f"--rdzv-id={environment.get('RDZV_ID', 'smplest_x')}",
            "--rdzv-backend=c10d",
        ]
        if "NODE_RANK" in environment:
            words.append(f"--node-rank={environment['NODE_RANK']}")
    else:
        words.append("--standalone")
    # Its processes share the machine's cores; torchrun itself would give each a single thread.
    threads = max(1, len(os.sched_getaffinity(0)) // arguments.processes)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    parsed = get_args_parser().parse_args([*words, "-m", arguments.module, *arguments.words])
    try:
        run(parsed)
    except ChildFailedError as error:
        return max(failure.exitcode for failure in error.failures.values()) or 1
    except SignalException as error:
        return 128 + error.sigval
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = door_parser("launch", "Start the processes of a run on this machine.")
    parser.add_argument("processes", metavar="N", type=int, help="processes, one a GPU")
    parser.add_argument("module", metavar="MODULE", help="main.train, main.pretrain or main.test")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="what the module is given")
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run this door with a command line (the process' own by default); the exit status."""
    return run_door(make_parser(), launch, words)


if __name__ == "__main__":
    sys.exit(main())
