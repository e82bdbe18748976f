"""How good estimates are: benchmarks, scores of results, submissions to test servers.

metrics.py           what is measured, and by which protocol
benchmark.py         one dataset through one network, by its own boxes or those of a detector
worst.py             the samples with the largest errors, and their pictures
run.py               what `main.test` runs: benchmarks of one network, their files and tables
scoring.py           what `main.score` runs: a result of inference against the truth of its video
servers.py           which files the test servers of AGORA and BEDLAM take
submission.py        what `main.submit` runs: a test split, estimated and zipped
submission_check.py  a submission checked by the rules of its server

Names are imported when they are asked for, since PyTorch takes seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from main.evaluation.benchmark import run_benchmark as run_benchmark
    from main.evaluation.metrics import CORRECT as CORRECT
    from main.evaluation.metrics import SMPLX_METRICS as SMPLX_METRICS
    from main.evaluation.metrics import Evaluator as Evaluator

_MODULES = {
    "CORRECT": "metrics",
    "Evaluator": "metrics",
    "SMPLX_METRICS": "metrics",
    "run_benchmark": "benchmark",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
