"""Which rows of which datasets an epoch takes, and in what order.

The order is a function of the seed and the epoch: it is the same for every number of processes,
and training that was stopped takes it up where it was.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from jaxtyping import Int64

from configs.schema import DataConfig
from utils.errors import UserError

_ROWS: Final = 0
_EPOCH: Final = 1


class Mixture:
    """Rows of several datasets, numbered through: those of the first dataset come first."""

    def __init__(self, lengths: Mapping[str, int], config: DataConfig, seed: int) -> None:
        """`lengths`: dataset name -> rows.

        Raises:
            UserError: a dataset is empty, or `weighted` lacks or does not know a dataset.
        """
        if not lengths:
            raise UserError("data.trainset_humandata is empty; name the datasets to train on")
        empty = [name for name, length in lengths.items() if not length]
        if empty:
            raise UserError(f"{empty[0]} has no rows to train on; leave it out or correct its file")
        self.names = tuple(lengths)
        self.lengths = tuple(lengths.values())
        self.seed = seed
        self._starts = np.cumsum([0, *self.lengths])
        self._takes_all = config.data_strategy == "concat"
        self._epoch_length = sum(self.lengths)
        self._shares: dict[str, int] = {}
        if config.data_strategy == "weighted":
            self._shares = _weighted(lengths, config.dataset_lengths)
            self._epoch_length = sum(self._shares.values())
        elif config.data_strategy == "balance" and config.total_data_len != "auto":
            self._epoch_length = config.total_data_len

    def __len__(self) -> int:
        """Samples an epoch."""
        return self._epoch_length

    def epoch(self, epoch: int) -> Int64[np.ndarray, " N"]:
        """The numbers of an epoch's rows, in the order of training.

        A dataset gives its rows in turn, in an order of its own that never changes, and goes on in
        the next epoch where it stopped: no row is taken a second time before all were once.
        """
        generator = np.random.default_rng((self.seed, _EPOCH, epoch))
        if self._takes_all:
            return generator.permutation(self._epoch_length)
        parts = [
            start + self._turn(k, length, *self._span(k, epoch))
            for k, (start, length) in enumerate(zip(self._starts[:-1], self.lengths, strict=True))
        ]
        return generator.permutation(np.concatenate(parts))

    def locate(self, number: int) -> tuple[int, int]:
        """Which dataset (its place in `names`) a numbered row is of, and which row there."""
        dataset = int(np.searchsorted(self._starts, number, side="right")) - 1
        return dataset, int(number - self._starts[dataset])

    def _span(self, dataset: int, epoch: int) -> tuple[int, int]:
        """How many rows a dataset gave before this epoch, and gives up to its end."""
        if self._shares:
            share = self._shares[self.names[dataset]]
            return epoch * share, (epoch + 1) * share
        # What does not divide goes to other datasets in every epoch.
        count = len(self.names)
        ends = [(k * self._epoch_length + dataset) // count for k in (epoch, epoch + 1)]
        return ends[0], ends[1]

    def _turn(self, dataset: int, length: int, start: int, stop: int) -> Int64[np.ndarray, " K"]:
        order = np.random.default_rng((self.seed, _ROWS, dataset)).permutation(length)
        return order[np.arange(start, stop) % length]


def _weighted(lengths: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    missing = [name for name in lengths if name not in wanted]
    unknown = [name for name in wanted if name not in lengths]
    if missing:
        raise UserError(f"data.dataset_lengths lacks {missing[0]}; 'weighted' needs every dataset")
    if unknown:
        raise UserError(f"data.dataset_lengths has {unknown[0]}, which is not trained on")
    return dict(wanted)
