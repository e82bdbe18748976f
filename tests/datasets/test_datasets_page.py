"""docs/datasets.md tells of every dataset what the table of sources expects."""

from pathlib import Path

import pytest

from datasets.sources import SOURCES, Source

PAGE = Path(__file__).parents[2] / "docs" / "datasets.md"
MARK = "\\*"
MOST_NAMES = 3


def names(source: Source, split: str) -> str:
    files = source._asdict()[split] or ()
    if len(files) > MOST_NAMES:
        files = (files[0], "...", files[-1])
    cell = ", ".join(name if name == "..." else f"`{name}`" for name in files)
    unknown = any("*" in name for name in files)
    return f"{cell}{' ' + MARK if unknown else ''}" or "-"


def row(source: Source) -> str:
    images = f"`{source.images}/`" if source.images else "`.`"
    cells = (source.name, names(source, "train"), names(source, "test"), images)
    return f"| {' | '.join(cells)} |"


def rows_of_page() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("| ")][1:]  # behind the heads


def test_page_has_these_sets_and_no_other() -> None:
    told = [line.split(" | ")[0].removeprefix("| ") for line in rows_of_page()]
    assert told == list(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_row_is_as_the_table_says(name: str) -> None:
    assert row(SOURCES[name]) in rows_of_page()
