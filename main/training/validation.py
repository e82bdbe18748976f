"""Evaluation during training, on the weights of the moment."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import distributed

from configs.schema import Config, TrainConfig
from datasets.sources import find_source
from human_models.body import BodyLibrary
from main.training.log import TrainLog
from main.training.state import Learner, Progress
from utils.distributed import World

log = logging.getLogger(__name__)


class Validator(ABC):
    """Evaluates what learns; with an average of the weights, that is what is judged."""

    def __init__(
        self,
        config: Config,
        learner: Learner,
        bodies: BodyLibrary,
        data_dir: Path,
        train_log: TrainLog,
        device: torch.device,
        world: World,
    ) -> None:
        self._config, self._learner, self._bodies = config, learner, bodies
        self._data_dir, self._log, self._device, self._world = data_dir, train_log, device, world
        self._metric = self._metric_of(config.train)

    def __call__(self, done: int, progress: Progress) -> float | None:
        """Mean of the metric over what is evaluated; None where nothing is.

        `done`: iterations of the run so far.
        """
        network, average = self._learner.network, self._learner.average
        network.eval()
        known = []
        with average.in_place() if average else nullcontext():
            for dataset, values in self._evaluations():
                self._log.metrics(done, progress, values, f"validation/{dataset}")
                told = " ".join(f"{name} {value:.4g}" for name, value in values.items())
                log.info("%s: %s", dataset, told)
                known += [values[self._metric]] if self._metric in values else []
        network.train()
        return self._agreed(sum(known) / len(known) if known else None)

    @staticmethod
    @abstractmethod
    def _metric_of(config: TrainConfig) -> str:
        """The metric that tells how good a network is."""

    @abstractmethod
    def _evaluations(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Names of datasets, and all metrics of each; every process of the run asks."""

    def _agreed(self, value: float | None) -> float | None:
        """What the first process found."""
        told = [value]
        if self._world.size > 1:
            distributed.broadcast_object_list(told)
        return told[0]


class DatasetValidator(Validator):
    """Evaluates the datasets of `train.validate_on`."""

    def __init__(
        self,
        config: Config,
        learner: Learner,
        bodies: BodyLibrary,
        data_dir: Path,
        train_log: TrainLog,
        device: torch.device,
        world: World,
    ) -> None:
        """Raises UserError where a dataset or the metric is unknown."""
        super().__init__(config, learner, bodies, data_dir, train_log, device, world)
        self._sources = [find_source(name, config.data) for name in config.train.validate_on]
