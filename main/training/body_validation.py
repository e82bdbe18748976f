"""How well a network regresses bodies in the test splits of datasets."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule

from configs.schema import TrainConfig
from main.evaluation import CORRECT, SMPLX_METRICS, run_benchmark
from main.pipeline.estimator import Estimator
from main.training.validation import DatasetValidator
from models.smplest_x import SMPLestX
from models.supervised import SupervisedSMPLestX
from utils.errors import UserError


class BodyValidator(DatasetValidator):
    """The metrics of `main.test`, in millimetres."""

    @staticmethod
    def _metric_of(config: TrainConfig) -> str:
        metric = config.validate_metric
        if metric not in SMPLX_METRICS:
            known = ", ".join(SMPLX_METRICS)
            raise UserError(
                f"train.validate_metric = '{metric}' is unknown; choose one of: {known}"
            )
        return metric

    def _evaluations(self) -> Iterator[tuple[str, dict[str, float]]]:
        network = self._learner.network
        whole = self._whole_copy(network) if isinstance(network, FSDPModule) else network
        assert isinstance(whole, SupervisedSMPLestX)
        estimator = Estimator(self._config, whole.network, self._bodies, self._device)
        for source in self._sources:
            result = run_benchmark(source, estimator, CORRECT, self._data_dir)
            if result is not None:
                means = {name: value["mean"] for name, value in result.means.items()}
                yield source.name, {name: mean for name, mean in means.items() if mean is not None}

    def _whole_copy(self, network: nn.Module) -> SupervisedSMPLestX:
        options = StateDictOptions(full_state_dict=True)
        with torch.device("meta"):
            copy = SupervisedSMPLestX(SMPLestX(self._config.model), self._config)
        copy.load_state_dict(get_model_state_dict(network, options=options), assign=True)
        return copy.eval()
