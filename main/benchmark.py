"""One dataset through one network: errors of every sample, and their means."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader, Dataset

from configs.schema import Config
from datasets.cache import InstanceTable, open_dataset
from datasets.sample import EvaluationSample, evaluation_sample
from datasets.sources import Source
from human_models.body import BodyLibrary
from human_models.files import ModelFolder
from main.estimator import Estimator
from main.metric_table import MeanAndCount, MetricTable, SampleErrors
from main.metrics import Evaluator
from main.protocol import HAND_SET_METRICS, PUBLISHED, SMPLX_METRICS, Protocol
from utils.progress import with_progress

_SMPL_VERTICES: Final = 6890


class BenchmarkResult(NamedTuple):
    """Means, and what they are means of: a row a sample, NaN where a sample lacks a metric."""

    means: dict[str, MeanAndCount]
    errors_mm: dict[str, Float[np.ndarray, " N"]]


class _EvaluationSamples(Dataset[EvaluationSample]):
    """What the loader's workers read; it opens the body files where it runs."""

    def __init__(
        self, table: InstanceTable, image_folder: Path, config: Config, folder: ModelFolder
    ) -> None:
        self.table, self.image_folder, self.config = table, image_folder, config
        self.bodies = BodyLibrary(folder)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> EvaluationSample:
        instance = self.table[index]
        return evaluation_sample(instance, self.image_folder, self.config, self.bodies)


def run_benchmark(
    source: Source, estimator: Estimator, protocol: Protocol, data_dir: Path
) -> BenchmarkResult:
    """Evaluate the test split of a dataset under `data_dir` (folders annot and img).

    Raises:
        UserError: files of the dataset or of the body are missing or wrong.
    """
    config = estimator.config
    table = open_dataset(
        source,
        "test",
        data_dir,
        protocol="published" if protocol == PUBLISHED else "correct",
    )
    folder = estimator.bodies.folder
    samples = _EvaluationSamples(table, data_dir / "img" / source.images, config, folder)
    loader = DataLoader(
        samples, batch_size=config.test.test_batch_size, num_workers=config.train.num_thread
    )
    # Errors are computed in float64, which Apple's devices lack.
    device = estimator.device if estimator.device.type != "mps" else torch.device("cpu")
    evaluator = Evaluator(folder, protocol).to(device)
    metrics = HAND_SET_METRICS if source.hands_alone else SMPLX_METRICS
    means, errors = MetricTable(), []
    for batch in with_progress(loader, len(loader), "batches"):
        found = _errors(batch, estimator, evaluator, metrics)
        means.add(found)
        errors.append(found)
    return BenchmarkResult(means.summary(), dict(_per_sample(errors)))


@torch.inference_mode()
def _errors(
    batch: dict[str, torch.Tensor],
    estimator: Estimator,
    evaluator: Evaluator,
    metrics: tuple[str, ...],
) -> dict[str, SampleErrors]:
    predicted = estimator.predict(batch["input_img"], want_vertices=True)[1].vertices
    assert predicted is not None
    device = evaluator.head.device
    predicted, true = predicted.to(device), batch["target_smplx_mesh_cam"].to(device)
    if true.shape[1] == _SMPL_VERTICES:
        return evaluator.smpl(predicted, true)
    left, right = (batch[f"meta_{side}hand_valid"].to(device) for side in "lr")
    if evaluator.protocol == PUBLISHED:  # it counts every hand, known or not
        left, right = torch.ones_like(left), torch.ones_like(right)
    return evaluator.smplx(predicted, true, left, right, only=metrics)


def _per_sample(
    batches: list[dict[str, SampleErrors]],
) -> Iterator[tuple[str, Float[np.ndarray, " N"]]]:
    for name in batches[0] if batches else ():
        values = [batch[name].error_mm.where(batch[name].valid, torch.nan) for batch in batches]
        yield name, torch.cat(values).cpu().numpy()
