"""Evaluation during training: metrics of test data, and pictures of training samples."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader, Dataset

from configs.schema import Config, ModelConfig
from datasets.cache import InstanceTable, open_dataset
from datasets.sample import TrainingSample, training_sample
from datasets.sources import find_source
from datasets.targets import NO_AUGMENTATION
from human_models.body import BodyModel
from human_models.joints import JOINT_PARTS, JOINTS, edges
from main.evaluation.benchmark import run_benchmark
from main.evaluation.metrics import MILLIMETRES, SMPLX_METRICS
from main.pipeline.estimator import Estimator
from main.training.state import Learner, Progress, Run
from main.training.train_log import TrainLog
from models.smplest_x import SMPLestX, body_parameters, found_keypoints, pose_body, root_relative
from models.supervision import LiftingNetwork, SupervisedSMPLestX, positions_in_crop
from synthetic.lifting import People, draw_poses
from utils.devices import constants, has_float64
from utils.errors import UserError
from utils.geometry import align_similarity
from utils.render import PERSON_COLOURS, draw_skeleton

log = logging.getLogger(__name__)

_PCK_THRESHOLD: Final = 0.05
"""Distance up to which a keypoint counts as correct, as a share of the crop's height."""
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
        """
        Raises:
            UserError: a dataset of `train.validate_on` is unknown.
        """
        self._run, self._config, self._learner, self._log = run, run.config, learner, train_log
        names = run.config.train.validate_on
        self._sources = [find_source(name, run.config.data) for name in names]

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


class BodyValidator(Validator):
    """The metrics of `main.test` for the datasets of `train.validate_on`, in millimetres."""

    def __init__(self, run: Run, learner: Learner, train_log: TrainLog) -> None:
        """
        Raises:
            UserError: a dataset or the metric is unknown.
        """
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


class KeypointValidator(Validator):
    """Median distances of body and hand joints in pixels of the network's input, and PCK."""

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
            positions, seen = positions_in_crop(batch, self._config.model)
            true = positions * constants((width, height), positions)
            errors.append((found - true).norm(dim=-1))
            known.append(seen)
        return _summary(torch.cat(errors), torch.cat(known), _PCK_THRESHOLD * height)


def _summary(
    errors: Float[Tensor, "N 137"], known: Bool[Tensor, "N 137"], threshold: float
) -> dict[str, float]:
    hands = slice(JOINT_PARTS["left_hand"].start, JOINT_PARTS["right_hand"].stop)
    values = {}
    for name, part in (("body", JOINT_PARTS["body"]), ("hand", hands)):
        chosen = errors[:, part][known[:, part]]
        if len(chosen):
            values[f"{name}_px"] = float(chosen.median())
            values[f"{name}_pck"] = float((chosen < threshold).float().mean())
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

    The body is on the device of the batch, and the network as in models.supervision.
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
