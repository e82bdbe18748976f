"""Which rows an epoch takes: all claims of the mixture, over many epochs."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from configs.schema import DataConfig
from datasets.training_set import Mixture
from utils.errors import UserError

LENGTHS = {"small": 3, "middle": 10, "large": 40}


def mixture(seed=7, **data):
    return Mixture(LENGTHS, DataConfig.model_validate(data), seed)


def counts_by_dataset(mixed, epoch):
    located = [mixed.locate(int(number)) for number in mixed.epoch(epoch)]
    for dataset, row in located:
        assert 0 <= row < mixed.lengths[dataset]
    counts = Counter(dataset for dataset, _ in located)
    return [counts[k] for k in range(len(LENGTHS))]


def test_concat_takes_every_row_once():
    mixed = mixture(data_strategy="concat")
    assert len(mixed) == 53
    orders = [mixed.epoch(k) for k in range(3)]
    for order in orders:
        assert sorted(order) == list(range(53))
    assert not np.array_equal(orders[0], orders[1])


@pytest.mark.parametrize(("total", "length"), [("auto", 53), (20, 20), (91, 91), (2, 2)])
def test_balance_gives_equal_shares_and_loses_no_remainder(total, length):
    mixed = mixture(data_strategy="balance", total_data_len=total)
    assert len(mixed) == length
    counts = [counts_by_dataset(mixed, epoch) for epoch in range(6)]
    for of_epoch in counts:
        assert sum(of_epoch) == length
        assert max(of_epoch) - min(of_epoch) <= 1
    sums = np.sum(counts[:3], axis=0)  # what does not divide goes round
    assert (sums == length).all()


def test_weighted_gives_the_named_lengths():
    wanted = {"small": 7, "middle": 4, "large": 30}
    mixed = mixture(data_strategy="weighted", dataset_lengths=wanted)
    assert len(mixed) == 41
    for epoch in range(3):
        assert counts_by_dataset(mixed, epoch) == list(wanted.values())


@pytest.mark.parametrize(
    "data",
    [
        {"data_strategy": "balance", "total_data_len": 20},
        {"data_strategy": "weighted", "dataset_lengths": {"small": 7, "middle": 4, "large": 30}},
    ],
)
def test_no_row_is_taken_twice_before_all_were_once(data):
    mixed = mixture(**data)
    taken = Counter(dict.fromkeys(range(53), 0))
    starts = [0, 3, 13, 53]
    for epoch in range(25):
        taken.update(mixed.epoch(epoch).tolist())
        for first, last in pairwise(starts):
            rows = [taken[number] for number in range(first, last)]
            assert max(rows) - min(rows) <= 1


def test_order_is_a_function_of_seed_and_epoch():
    data = {"data_strategy": "balance", "total_data_len": 20}
    again = mixture(**data)
    for epoch in (5, 0, 3):  # in any order
        np.testing.assert_array_equal(mixture(**data).epoch(epoch), again.epoch(epoch))
    assert not np.array_equal(mixture(**data).epoch(1), again.epoch(2))
    assert not np.array_equal(mixture(seed=8, **data).epoch(1), again.epoch(1))


def test_datasets_are_mixed_within_an_epoch():
    order = mixture(data_strategy="balance", total_data_len=60).epoch(0)
    halves = [np.searchsorted([3, 13], half, side="right") for half in (order[:30], order[30:])]
    for half in halves:
        assert set(half.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("lengths", "data", "message"),
    [
        ({}, {}, "trainset_humandata is empty"),
        ({"a": 3, "b": 0}, {}, "b has no rows"),
        ({"a": 3, "b": 4}, {"dataset_lengths": {"a": 1}}, "lacks b"),
        ({"a": 3}, {"dataset_lengths": {"a": 1, "c": 2}}, "has c, which is not trained on"),
    ],
)
def test_bad_mixtures_are_refused(lengths, data, message):
    config = DataConfig.model_validate({"data_strategy": "weighted", **data})
    with pytest.raises(UserError, match=message):
        Mixture(lengths, config, seed=0)
