"""Reports of a run: its log, metrics of test data, and pictures of training samples.

The first process writes the log: to the screen, to metrics.jsonl, and for TensorBoard.
"""

import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader, Dataset

from configs.schema import Config, ModelConfig
from datasets.cache import InstanceTable, open_dataset
from datasets.sample import NO_AUGMENTATION, TrainingSample, training_sample
from datasets.sources import find_source
from human_models.body import BodyModel
from human_models.joints import JOINT_PARTS, JOINTS, edges
from main.evaluation.benchmark import run_benchmark
from main.evaluation.metrics import MILLIMETRES, SMPLX_METRICS
from main.pipeline.estimator import Estimator
from main.training.state import Learner, Progress, Run
from models.losses import LiftingNetwork, SupervisedSMPLestX, places_in_crop
from models.smplest_x import SMPLestX, body_parameters, found_keypoints, pose_body, root_relative
from synthetic.lifting import People, draw_poses
from utils.devices import constants, has_float64, peak_memory_mib
from utils.errors import OneLineFormatter, UserError, logging_to
from utils.files import atomic_path, read_input
from utils.geometry import align_similarity
from utils.render import PERSON_COLOURS, draw_skeleton

Terms = Mapping[str, Float[Tensor, " B"]]
_LARGEST_LOG: Final = 2**30
"""Largest size of metrics.jsonl, in bytes."""


class TrainLog:
    """Logs the mean losses every `train.print_iters` iterations.

    `add` and `close` must be called by every process; only the first one writes.
    """

    def __init__(self, run: Run, datasets: Sequence[str], iterations: int, start: Progress) -> None:
        """
        Args:
            datasets: names; batches refer to them by number.
            iterations: per epoch.
            start: position of the run; log lines of later iterations are removed.
        """
        self._folder, self._device, self._world = run.folder / "log", run.device, run.world
        self._datasets, self._per_epoch = datasets, iterations
        self._every = run.config.train.print_iters
        self._iterations = run.config.train.end_epoch * iterations
        limit = run.config.train.time_limit_s
        self._ends = run.began + (math.inf if limit is None else limit - start.seconds)
        self._precision = torch.float64 if has_float64(run.device) else torch.float32
        self._sums: Tensor | None = None
        self._names: tuple[str, ...] = ()
        self._new, self._samples, self._waited = 0, 0, 0.0
        self._since = time.perf_counter()
        self._board: Any = None
        if run.world.is_first:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            _remove_later_lines(self._folder / "metrics.jsonl", start)
            self._board = SummaryWriter(str(self._folder), purge_step=self._step(start) + 1)

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Count the time of the block as waiting."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def add(
        self,
        progress: Progress,
        rate: float,
        batches: Sequence[Mapping[str, Tensor]],
        losses: Sequence[Terms],
    ) -> None:
        """Add the iteration after which training is at `progress`.

        If it was skipped, `batches` and `losses` are empty.
        """
        for batch, terms in zip(batches, losses, strict=True):
            self._names = tuple(terms)
            values = torch.stack([*terms.values(), torch.ones_like(next(iter(terms.values())))])
            if self._sums is None:
                shape = len(self._datasets), len(values)
                self._sums = torch.zeros(shape, dtype=self._precision, device=self._device)
            rows = batch["dataset"].to(self._device)
            self._sums.index_add_(0, rows, values.to(self._precision).T)
            self._samples += values.shape[1]
        self._new += 1
        step = self._step(progress)
        if step % self._every == 0 or step == self._iterations:
            self._write_means(progress, rate)

    def metrics(self, progress: Progress, values: Mapping[str, float], kind: str) -> None:
        """Log other numbers, such as those of a validation."""
        if self._world.is_first:
            self._write({"kind": kind, **_place(progress), **values})
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, self._step(progress))

    def picture(self, progress: Progress, name: str, image: Tensor) -> None:
        """Show an RGB image (3 H W, 0..255) in TensorBoard."""
        if self._world.is_first:
            self._board.add_image(name, image.to(torch.uint8), self._step(progress))

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _step(self, progress: Progress) -> int:
        """Iterations of the run so far."""
        return progress.epoch * self._per_epoch + progress.iteration

    def _write_means(self, progress: Progress, rate: float) -> None:
        if self._sums is None:
            return  # all iterations were skipped, in all processes
        step = self._step(progress)
        if self._world.size > 1:
            distributed.all_reduce(self._sums)
        sums = self._sums.tolist()
        taken = time.perf_counter() - self._since
        numbers = {
            "lr": rate,
            "samples_per_s": self._samples * self._world.size / taken,
            "data_wait": self._waited / taken,
            "memory_mib": peak_memory_mib(self._device),
            "seconds_left": min(
                taken / self._new * (self._iterations - step), self._ends - time.monotonic()
            ),
        }
        self._sums = None
        self._new, self._samples, self._waited = 0, 0, 0.0
        self._since = time.perf_counter()
        if not self._world.is_first:
            return
        total = [sum(column) for column in zip(*sums, strict=True)]
        means = dict(zip(self._names, (value / total[-1] for value in total[:-1]), strict=True))
        loss = sum(means.values())
        by_dataset = {
            dataset: dict(zip(self._names, (value / row[-1] for value in row[:-1]), strict=True))
            for dataset, row in zip(self._datasets, sums, strict=True)
            if row[-1]
        }
        values = {"loss": loss, **means, **numbers}
        self._write({"kind": "train", **_place(progress), **values, "by_dataset": by_dataset})
        for name, value in values.items():
            self._board.add_scalar(f"train/{name}", value, step)
        for dataset, terms in by_dataset.items():
            for name, value in terms.items():
                self._board.add_scalar(f"{dataset}/{name}", value, step)
        log.info(
            "epoch %d iteration %d: loss %.4f (%s) lr %.2e, %.1f samples/s, %.0f %% waiting for "
            "data, %.0f MiB, %s left",
            *progress[:2],
            loss,
            " ".join(f"{name} {value:.4f}" for name, value in means.items()),
            rate,
            numbers["samples_per_s"],
            100 * numbers["data_wait"],
            numbers["memory_mib"],
            timedelta(seconds=round(numbers["seconds_left"])),
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        with (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append log messages to a file while the block runs."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(OneLineFormatter("%(asctime)s %(message)s"))
    with logging_to(handler):
        yield


def _place(progress: Progress) -> dict[str, int]:
    return {"epoch": progress.epoch, "iteration": progress.iteration}


def _remove_later_lines(path: Path, start: Progress) -> None:
    """Remove lines of iterations after `start`, which will be repeated, and a truncated line."""
    if not path.exists():
        return
    kept = []
    for text in read_input(path, _LARGEST_LOG).decode("utf-8", "replace").splitlines():
        try:
            line = json.loads(text)
            done = (line["epoch"], line["iteration"]) <= start[:2]
        except (ValueError, KeyError, TypeError, RecursionError):
            break
        if done:
            kept.append(text + "\n")
    with atomic_path(path) as partial:
        partial.write_text("".join(kept), encoding="utf-8")


log = logging.getLogger(__name__)

_NEAR: Final = 0.05
"""Distance up to which a keypoint counts as found, as a share of the crop's height."""
_LIFTING_SEED: Final = 2**32
"""Different from all seeds of training, which configs limit to smaller numbers."""
_LIFTING_POSES: Final = 500
_LIFTING_SAMPLES: Final = 1000
_TRUE, _PREDICTED = PERSON_COLOURS[2], PERSON_COLOURS[5]
_BONES: Final = edges(JOINTS)
_MOST_CROPS: Final = 8
"""Per picture."""


Preview = Callable[[BodyModel, Config, nn.Module, Mapping[str, Tensor]], UInt8[Tensor, "3 H W"]]
"""Draws the predictions of a network for a batch; every process of a run must call it."""


def images_of(batch: Mapping[str, Tensor]) -> Float[Tensor, "B 3 H W"]:
    """The network's input, 0..1."""
    return batch["input_img"].permute(0, 3, 1, 2) / 255


class Validator(ABC):
    """Evaluates the network, with averaged weights if there are any."""

    metric: str
    """Decides which network is the best."""

    def __init__(self, run: Run, learner: Learner, train_log: TrainLog) -> None:
        self._run, self._config, self._learner, self._log = run, run.config, learner, train_log

    def __call__(self, progress: Progress) -> float | None:
        """The mean of the metric over all evaluations; None if there are none."""
        network, average = self._learner.network, self._learner.average
        network.eval()
        known = []
        with average.in_place() if average else nullcontext():
            for dataset, values in self._evaluations():
                self._log.metrics(progress, values, f"validation/{dataset}")
                summary = " ".join(f"{name} {value:.4g}" for name, value in values.items())
                log.info("%s: %s", dataset, summary)
                known += [values[self.metric]] if self.metric in values else []
        network.train()
        return self._of_first_process(sum(known) / len(known) if known else None)

    @abstractmethod
    def _evaluations(self) -> Iterator[tuple[str, dict[str, float]]]:
        """The name and the metrics of each dataset; every process of the run must iterate."""

    def _of_first_process(self, value: float | None) -> float | None:
        values = [value]
        if self._run.world.size > 1:
            distributed.broadcast_object_list(values)
        return values[0]


class DatasetValidator(Validator):
    """Evaluates the datasets of `train.validate_on`."""

    def __init__(self, run: Run, learner: Learner, train_log: TrainLog) -> None:
        """Raises UserError if a dataset is unknown."""
        super().__init__(run, learner, train_log)
        config = run.config
        self._sources = [find_source(name, config.data) for name in config.train.validate_on]


class BodyValidator(DatasetValidator):
    """The metrics of `main.test`, in millimetres."""

    def __init__(self, run: Run, learner: Learner, train_log: TrainLog) -> None:
        """Raises UserError if a dataset or the metric is unknown."""
        super().__init__(run, learner, train_log)
        self.metric = run.config.train.validate_metric
        if self.metric not in SMPLX_METRICS:
            known = ", ".join(SMPLX_METRICS)
            raise UserError(
                f"train.validate_metric = '{self.metric}' is unknown; choose one of: {known}"
            )

    def _evaluations(self) -> Iterator[tuple[str, dict[str, float]]]:
        network = self._learner.network
        whole = self._whole_copy(network) if isinstance(network, FSDPModule) else network
        assert isinstance(whole, SupervisedSMPLestX)
        estimator = Estimator(self._config, whole.network, self._run.bodies, self._run.device)
        for source in self._sources:
            result = run_benchmark(source, estimator, "correct", self._run.data_dir)
            if result is not None:
                means = {name: value["mean"] for name, value in result.means.items()}
                yield source.name, {name: mean for name, mean in means.items() if mean is not None}

    def _whole_copy(self, network: nn.Module) -> SupervisedSMPLestX:
        options = StateDictOptions(full_state_dict=True)
        with torch.device("meta"):
            copy = SupervisedSMPLestX(SMPLestX(self._config.model), self._config)
        copy.load_state_dict(get_model_state_dict(network, options=options), assign=True)
        return copy.eval()


class UnchangedSamples(Dataset[TrainingSample]):
    """Rows of a split without augmentation."""

    def __init__(self, table: InstanceTable, images: Path, config: Config) -> None:
        self.table, self.images, self.config = table, images, config

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> TrainingSample:
        return training_sample(self.table[row], self.images, self.config, NO_AUGMENTATION)


class KeypointValidator(DatasetValidator):
    """Median distances of body joints and hands, in pixels of the network's input."""

    metric = "body_px"

    def _evaluations(self) -> Iterator[tuple[str, dict[str, float]]]:
        for source in self._sources if self._run.world.is_first else ():
            table = open_dataset(source, "test", self._run.data_dir)
            images = self._run.data_dir / "img" / source.images
            samples = UnchangedSamples(table, images, self._config)
            yield source.name, self._evaluate(samples)

    @torch.inference_mode()
    def _evaluate(self, samples: UnchangedSamples) -> dict[str, float]:
        errors, known = [], []
        height, width = self._config.model.input_body_shape
        for batch in DataLoader(samples, self._config.test.test_batch_size):
            batch = {name: value.to(self._run.device) for name, value in batch.items()}
            found = found_keypoints(self._learner.network(images_of(batch)), self._config.model)
            places, seen = places_in_crop(batch, self._config.model)
            errors.append((found - places * constants((width, height), places)).norm(dim=-1))
            known.append(seen)
        return _summary(torch.cat(errors), torch.cat(known), _NEAR * height)


def _summary(
    errors: Float[Tensor, "N 137"], known: Bool[Tensor, "N 137"], near: float
) -> dict[str, float]:
    hands = slice(JOINT_PARTS["left_hand"].start, JOINT_PARTS["right_hand"].stop)
    values = {}
    for name, part in (("body", JOINT_PARTS["body"]), ("hand", hands)):
        chosen = errors[:, part][known[:, part]]
        if len(chosen):
            values[f"{name}_px"] = float(chosen.median())
            values[f"{name}_near"] = float((chosen < near).float().mean())
    return values


class LiftingValidator(Validator):
    """Errors of joints in millimetres, relative to the pelvis and after alignment (PA).

    The people have poses that do not occur in training.
    """

    metric = "mpjpe"

    def _evaluations(self) -> Iterator[tuple[str, dict[str, float]]]:
        if self._run.world.is_first:
            yield "lifting", self._evaluate()

    @torch.inference_mode()
    def _evaluate(self) -> dict[str, float]:
        network, body, model = self._learner.network, self._run.body, self._config.model
        assert isinstance(network, LiftingNetwork)
        rest = body.rest_joints(torch.zeros(1, body.num_betas, device=self._run.device))[0]
        poses = draw_poses(rest.numpy(force=True), _LIFTING_SEED, _LIFTING_POSES)
        batch = People(poses, body, model).batch(_LIFTING_SAMPLES, _LIFTING_SEED)
        parameters = body_parameters(network(batch["keypoints"]), model)
        posed = pose_body(parameters, body, model, want_vertices=False)
        found, true = root_relative(posed.joints), batch["target_joint_cam"]
        if not has_float64(found.device):
            found, true = found.cpu(), true.cpu()
        body_joints = JOINT_PARTS["body"]
        distances = {"mpjpe": (found - true)[:, body_joints].norm(dim=2)}
        for name, part in JOINT_PARTS.items():
            aligned = align_similarity(found[:, part], true[:, part])
            distances[f"pa_{name}"] = (aligned - true[:, part]).norm(dim=2)
        return {name: MILLIMETRES * float(d.mean()) for name, d in distances.items()}


@torch.no_grad()
def preview_joints(
    body: BodyModel, config: Config, network: nn.Module, batch: Mapping[str, Tensor]
) -> UInt8[Tensor, "3 H W"]:
    """Draw true and predicted joints of the first crops of a batch, see `joint_pictures`.

    The body is on the device of the batch, and the network as in models.losses.
    """
    few = {name: values[:_MOST_CROPS] for name, values in batch.items()}
    network.eval()
    heads = network(images_of(few)).heads
    network.train()
    if isinstance(network, FSDPModule):
        network.reshard()  # else it keeps all gathered parameters until the next backward pass
    parameters = body_parameters(heads, config.model)
    posed = pose_body(parameters, body, config.model, want_vertices=False)
    return joint_pictures(few, posed.joints_2d, config.model)


def joint_pictures(
    batch: Mapping[str, Tensor], predicted_px: Float[Tensor, "B 137 2"], config: ModelConfig
) -> UInt8[Tensor, "3 H W"]:
    """The first crops of a batch side by side, truth above in green, prediction below in red.

    `predicted_px` are in pixels of the network's input.
    """
    height, width = config.input_body_shape
    _, grid_height, grid_width = config.output_hm_shape
    pixels_per_cell = np.array([width / grid_width, height / grid_height])
    columns = []
    for k in range(min(_MOST_CROPS, len(predicted_px))):
        image = batch["input_img"][k].cpu().numpy().astype(np.uint8)
        true = batch["target_joint_img"][k, :, :2].cpu().numpy() * pixels_per_cell
        known = batch["meta_joint_trunc"][k].cpu().numpy() > 0
        drawn = [
            draw_skeleton(image, joints, _BONES, colour)
            for joints, colour in (
                (np.where(known, true, np.nan), _TRUE),
                (predicted_px[k].float().cpu().numpy(), _PREDICTED),
            )
        ]
        columns.append(np.concatenate(drawn))
    return torch.from_numpy(np.concatenate(columns, axis=1)).permute(2, 0, 1)
