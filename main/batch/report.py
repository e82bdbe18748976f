"""What became of each clip: a table for people, report.json for programs."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from utils.files import atomic_path

_MOST_LINES: Final = 200
"""Of longer tables only the failures are shown; report.json has everything."""


class ClipReport(NamedTuple):
    """One clip: what was found in it and how long it took, or why nothing was."""

    clip: str
    status: Literal["done", "finished before", "failed"]
    frames: int | None = None
    people: int | None = None
    seconds: float | None = None
    reason: str | None = None


def table(reports: Sequence[ClipReport]) -> str:
    """Clip, frames, people, seconds, or the reason; and a line of totals."""
    shown = reports
    if len(reports) > _MOST_LINES:
        shown = [report for report in reports if report.status == "failed"][:_MOST_LINES]
    width = max([len(report.clip) for report in shown], default=4)
    lines = [f"{'clip':{width}}  frames  people  seconds"] if shown else []
    for report in shown:
        counts = f"{_cell(report.frames, 6)}  {_cell(report.people, 6)}  "
        if report.status == "failed":
            end = f"failed: {report.reason}"
        elif report.status == "done":
            end = counts + f"{report.seconds or 0:7.1f}"
        else:
            end = counts + report.status
        lines.append(f"{report.clip:{width}}  {end}")
    counted = Counter(report.status for report in reports)
    lines.append(", ".join(f"{count} {status}" for status, count in sorted(counted.items())))
    return "\n".join(lines)


def _cell(number: int | None, width: int) -> str:
    return f"{'-' if number is None else number:>{width}}"


def write_report(
    path: Path, about: dict[str, Any], reports: Sequence[ClipReport], seconds: float
) -> None:
    """Write report.json whole, or leave the old one."""
    counted = Counter(report.status for report in reports)
    content = {
        **about,
        "seconds": round(seconds, 3),
        "done": counted["done"],
        "finished_before": counted["finished before"],
        "failed": counted["failed"],
        "clips": [report._asdict() for report in reports],
    }
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
