"""The mean of the primary errors."""

import pytest

from datasets.sources import SOURCES
from main.evaluation.metrics import SMPLX_METRICS
from main.evaluation.run import PRIMARY_METRICS, mean_primary_error

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


def test_primary_errors_are_of_our_sets_and_metrics():
    assert set(PRIMARY_METRICS) <= set(SOURCES)
    assert set(PRIMARY_METRICS.values()) <= set(SMPLX_METRICS)
