"""Evaluation during training: the metrics of the benchmark door, on the weights of the moment."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule

from configs.schema import Config
from datasets.configured import find_source
from human_models.body import BodyLibrary
from main.estimator import Estimator
from main.testing.benchmark import run_benchmark
from main.testing.protocol import CORRECT, SMPLX_METRICS
from main.training.log import TrainLog
from main.training.state import Learner, Progress
from models.smplest_x import SMPLestX
from models.supervised import SupervisedSMPLestX
from utils.distributed import World
from utils.errors import UserError

log = logging.getLogger(__name__)


class Validator:
    """Evaluates `train.validate_on`; with an average of the weights, that is what is judged."""

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
        self._config, self._learner, self._bodies = config, learner, bodies
        self._data_dir, self._log, self._device, self._world = data_dir, train_log, device, world
        self._sources = [find_source(name, config.data) for name in config.train.validate_on]
        metric = config.train.validate_metric
        if metric not in SMPLX_METRICS:
            known = ", ".join(SMPLX_METRICS)
            raise UserError(
                f"train.validate_metric = '{metric}' is unknown; choose one of: {known}"
            )

    def __call__(self, done: int, progress: Progress) -> float | None:
        """Mean of the metric over the datasets, millimetres; None where nothing is evaluated.

        `done`: iterations of the run so far.
        """
        if not self._sources:
            return None
        values = []
        with self._network() as network:
            estimator = Estimator(self._config, network, self._bodies, self._device)
            for source in self._sources:
                result = run_benchmark(source, estimator, CORRECT, self._data_dir)
                if result is None:
                    continue
                means = {k: v["mean"] for k, v in result.means.items() if v["mean"] is not None}
                self._log.metrics(done, progress, means, f"validation/{source.name}")
                log.info(
                    "%s: %s mm", source.name, " ".join(f"{k} {v:.1f}" for k, v in means.items())
                )
                values.append(means.get(self._config.train.validate_metric))
        known = [value for value in values if value is not None]
        return self._agreed(sum(known) / len(known) if known else None)

    def _agreed(self, value: float | None) -> float | None:
        """What the first process found."""
        told = [value]
        if self._world.size > 1:
            distributed.broadcast_object_list(told)
        return told[0]

    @contextmanager
    def _network(self) -> Iterator[SMPLestX]:
        """The network to evaluate, whole and in evaluation mode."""
        network, average = self._learner.network, self._learner.average
        with average.in_place() if average else nullcontext():
            whole = self._whole_copy(network) if isinstance(network, FSDPModule) else network
            assert isinstance(whole, SupervisedSMPLestX)
            whole.eval()
            try:
                yield whole.network
            finally:
                network.train()

    def _whole_copy(self, network: nn.Module) -> SupervisedSMPLestX:
        options = StateDictOptions(full_state_dict=True)
        with torch.device("meta"):
            copy = SupervisedSMPLestX(SMPLestX(self._config.model), self._config)
        copy.load_state_dict(get_model_state_dict(network, options=options), assign=True)
        return copy
