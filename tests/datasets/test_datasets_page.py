"""docs/datasets.md explains every column, property and fix of the table of sources."""

import csv
from pathlib import Path

import pytest

from datasets import sources
from datasets.sources import SOURCES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
with (ROOT / "datasets" / "sources.csv").open(encoding="utf-8", newline="") as _file:
    ROWS = list(csv.DictReader(_file))


def test_every_column_and_property_is_explained() -> None:
    properties = {word for row in ROWS for word in row["properties"].split()}
    assert properties == {"flat_hands", "joints_from_body", "visible_only", "without_truth"}
    for word in (*ROWS[0], *properties):
        assert f"`{word}`" in PAGE


def test_table_has_every_dataset_once() -> None:
    assert [row["name"] for row in ROWS] == list(SOURCES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_row_is_read_as_it_is_written(row: dict[str, str]) -> None:
    source = SOURCES[row["name"]]
    for split in ("train", "test"):
        files = source._asdict()[split]
        assert (files is None) == (row[split] == "")
        if files is not None and "{" not in row[split]:
            assert " ".join(files) == row[split]
    assert (source.images or ".") == row["images"]
    assert [fix.__name__ for fix in source.fixes] == row["fixes"].split()
    assert all(getattr(sources, fix) in source.fixes for fix in row["fixes"].split())


def test_slices_are_counted_out() -> None:
    assert SOURCES["RenBody"].files("train") == tuple(
        f"renbody_train_230525_399_{i}.npz" for i in range(10)
    )
    assert SOURCES["MPI_INF_3DHP"].files("train") == tuple(
        f"mpi_inf_3dhp_neural_annot_part{i}.npz" for i in (1, 2, 3)
    )
