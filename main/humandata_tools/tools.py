"""The tools of the HumanData door by their words; each gives an exit status, None for 0."""

import argparse
from collections.abc import Callable
from typing import Final

from main.humandata_tools.cut import merge_files, slice_file, subset
from main.humandata_tools.parameters import from_parameters
from main.humandata_tools.report import check, stats
from main.humandata_tools.results import from_results
from main.humandata_tools.show import show

TOOLS: Final[dict[str, Callable[[argparse.Namespace], int | None]]] = {
    "check": check,
    "stats": stats,
    "show": show,
    "merge": merge_files,
    "slice": slice_file,
    "subset": subset,
    "from-results": from_results,
    "from-params": from_parameters,
}
