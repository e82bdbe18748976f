"""Processes of a run that lose each other: the one that failed tells why, the others just end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import distributed

from utils.distributed import World
from utils.errors import UserError

_TOLD: Final = "told"
_ENDED: Final = 2
"""Exit status, as of the process that tells."""


@contextmanager
def one_tells(here: World) -> Iterator[None]:
    """Of what the user must know, a single process tells, whether one of them found it or all.

    A process that waits for another one which has ended so gets errors of the network; it ends
    without a word.

    Raises:
        UserError, OSError: as the block does, in the first process that raises.
        SystemExit: in the others.
    """
    if here.size == 1:
        yield
        return
    store = distributed.distributed_c10d._get_default_store()
    try:
        yield
    except (UserError, OSError, torch.OutOfMemoryError):
        if _has_been_told(lambda: store.add(_TOLD, 1) > 1):
            raise SystemExit(_ENDED) from None
        raise
    except RuntimeError:
        if _has_been_told(lambda: store.check([_TOLD])):
            raise SystemExit(_ENDED) from None
        raise


def _has_been_told(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except RuntimeError:
        return True  # the first process, which has the store, is gone
