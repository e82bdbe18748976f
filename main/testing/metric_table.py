"""Errors of samples, and their means over a benchmark."""

from collections.abc import Mapping
from typing import NamedTuple, TypedDict

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class SampleErrors(NamedTuple):
    """One metric of a batch; a sample that lacks it (an absent hand) is not valid and has 0."""

    error_mm: Float[Tensor, " B"]
    valid: Bool[Tensor, " B"]


class MeanAndCount(TypedDict):
    """Mean over `count` samples, millimetres; None where no sample has the metric."""

    mean: float | None
    count: int


class MetricTable:
    """Means over all samples added so far, every sample with equal weight.

    Sums stay on the device of the errors until they are asked for. A table can be pickled, so
    each process of a run can fill its own and one can merge them all.
    """

    def __init__(self) -> None:
        self._sums_and_counts: dict[str, Tensor] = {}

    def add(self, errors: Mapping[str, SampleErrors]) -> None:
        """Count a batch in."""
        for name, (error, valid) in errors.items():
            kept = error.double().where(valid, 0.0)
            self._accumulate(name, torch.stack([kept.sum(), valid.double().sum()]))

    def merge(self, other: "MetricTable") -> None:
        """Count the samples of another table in."""
        for name, sum_and_count in other._sums_and_counts.items():
            self._accumulate(name, sum_and_count)

    def summary(self) -> dict[str, MeanAndCount]:
        """Every metric that was ever added, also where no sample was valid."""
        result: dict[str, MeanAndCount] = {}
        for name, sum_and_count in self._sums_and_counts.items():
            total, count = sum_and_count.tolist()
            result[name] = {"mean": total / count if count else None, "count": int(count)}
        return result

    def _accumulate(self, name: str, sum_and_count: Float[Tensor, "2"]) -> None:
        sum_so_far = self._sums_and_counts.get(name)
        self._sums_and_counts[name] = (
            sum_and_count.clone()
            if sum_so_far is None
            else sum_so_far + sum_and_count.to(sum_so_far.device)
        )
