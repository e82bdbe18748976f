"""The mean of primary errors, and the papers' figures beside one's own."""

import pytest

from datasets.sources import SOURCES
from main.testing.comparison import (
    NOTE,
    PRIMARY_METRICS,
    PUBLISHED,
    comparison_table,
    mean_primary_error,
)
from main.testing.protocol import SMPLX_METRICS

MEANS = {
    name: {metric: {"mean": 50.0 + k, "count": 10}, "pa_mpvpe_all": {"mean": 1.0, "count": 10}}
    for k, (name, metric) in enumerate(PRIMARY_METRICS.items())
}


def test_mean_of_five():
    assert mean_primary_error(MEANS) == {"mean": pytest.approx(52.0), "count": 5}
    more = MEANS | {"SynHand": {"mpvpe_all": {"mean": 900.0, "count": 1}}}
    assert mean_primary_error(more) == mean_primary_error(MEANS)


def test_no_mean_of_fewer():
    for name in PRIMARY_METRICS:
        assert mean_primary_error({k: v for k, v in MEANS.items() if k != name}) is None
    empty = MEANS | {"EHF": {"mpvpe_all": {"mean": None, "count": 0}}}
    assert mean_primary_error(empty) is None


def test_figures_are_of_our_sets_and_metrics():
    assert set(PRIMARY_METRICS) <= set(SOURCES)
    for benchmark, published in PUBLISHED.items():
        assert benchmark == "MPE" or benchmark in SOURCES
        for one in published:
            assert set(one.figures) <= ({"mpe"} if benchmark == "MPE" else set(SMPLX_METRICS))


def test_table_says_whose_figures_they_are():
    table = comparison_table("UBody", MEANS["UBody"])
    assert table is not None
    assert table.caption == NOTE
    rows = list(table.columns[0].cells)
    assert rows == ["this run", "SMPLest-X-H40", "SMPLest-X-H40, finetuned"]
    assert comparison_table("PW3D", MEANS["PW3D"]) is None
