"""What `main.humandata` tells of files: findings and statistics, for people and as JSON."""

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datasets.humandata.check import check_humandata
from datasets.humandata.finding import Finding, Severity
from datasets.humandata.statistics import humandata_statistics
from utils.errors import UserError

log = logging.getLogger(__name__)

FAULTY, UNREADABLE = 1, 2
_COLOURS: Final[dict[Severity, str]] = {"error": "red", "warning": "yellow", "info": "dim"}


def check(arguments: argparse.Namespace) -> int:
    """Status 0: no errors in any file, 1: errors, 2: a file that cannot be read."""
    status = 0
    reports: list[dict[str, Any]] = []
    for path in arguments.files:
        try:
            findings = check_humandata(
                path, arguments.images, images_sample=arguments.images_sample
            )
        except UserError as error:
            log.error("error: %s", error)
            status = UNREADABLE
            reports.append({"file": str(path), "unreadable": str(error)})
            continue
        if any(finding.severity == "error" for finding in findings):
            status = max(status, FAULTY)
        reports.append({"file": str(path), "findings": [asdict(one) for one in findings]})
        if not arguments.json:
            _show_findings(path, findings)
    if arguments.json:
        _write_json(reports)
    return status


def _show_findings(path: Path, findings: Sequence[Finding]) -> None:
    console = Console()
    counts = Counter(finding.severity for finding in findings)
    summary = ", ".join(
        f"{counts[severity]} {severity}{'s' if counts[severity] > 1 and severity != 'info' else ''}"
        for severity in _COLOURS
        if counts[severity]
    )
    console.print(f"{escape(str(path))}: {summary or 'faultless'}", soft_wrap=True)
    if not findings:
        return
    table = Table("", "entry", "rows", "what is wrong", "what to do")
    for one in findings:
        colour = _COLOURS[one.severity]
        texts = [one.severity, one.entry, _rows(one), one.what, one.advice]
        table.add_row(*(escape(text) for text in texts), style=colour)
    console.print(table)


def _rows(finding: Finding) -> str:
    if not finding.rows:
        return ""
    shown = ", ".join(map(str, finding.first_rows))
    more = ", ..." if finding.rows > len(finding.first_rows) else ""
    return f"{finding.rows}: {shown}{more}"


def stats(arguments: argparse.Namespace) -> None:
    reports = {str(path): humandata_statistics(path) for path in arguments.files}
    if arguments.json:
        _write_json([{"file": path, **report} for path, report in reports.items()])
        return
    table = Table("", *(escape(Path(path).name) for path in reports))
    for name in next(iter(reports.values())):
        told = [_in_words(report[name]) for report in reports.values()]
        if any(told):
            table.add_row(name.replace("_", " "), *map(escape, told))
    Console().print(table)


def _in_words(value: Any, separator: str = "\n") -> str:
    if isinstance(value, dict):
        return separator.join(f"{key} {_in_words(part, ', ')}" for key, part in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def _write_json(content: object) -> None:
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
