"""How well a pre-trained encoder finds joints in the test splits of datasets."""

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, distributed
from torch.utils.data import DataLoader, Dataset

from configs.schema import Config
from datasets.augmentation import NO_AUGMENTATION
from datasets.cache import InstanceTable, open_dataset
from datasets.configured import find_source
from datasets.sample import TrainingSample, training_sample
from human_models.body import BodyLibrary
from human_models.joints import JOINT_PARTS
from main.training.log import TrainLog
from main.training.objective import images_of
from main.training.state import Learner, Progress
from models.auxiliary import found_keypoints, places_in_crop
from utils.distributed import World

log = logging.getLogger(__name__)

_NEAR: Final = 0.05
"""Of the crop's height: what counts as found."""


class _Plain(Dataset[TrainingSample]):
    """Rows of a test split without augmentation."""

    def __init__(self, table: InstanceTable, images: Path, config: Config) -> None:
        self.table, self.images, self.config = table, images, config

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> TrainingSample:
        return training_sample(self.table[row], self.images, self.config, NO_AUGMENTATION)


class KeypointValidator:
    """Median distance of body joints and hands on `train.validate_on`, by the first process."""

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
        """Raises UserError where a dataset is unknown."""
        del bodies
        self._config, self._learner, self._data_dir = config, learner, data_dir
        self._log, self._device, self._world = train_log, device, world
        self._sources = [find_source(name, config.data) for name in config.train.validate_on]

    def __call__(self, done: int, progress: Progress) -> float | None:
        """Mean over the datasets of the body's median error, pixels of the network's input."""
        if not self._sources:
            return None
        network, average = self._learner.network, self._learner.average
        network.eval()
        medians = []
        with average.in_place() if average else nullcontext():
            for source in self._sources if self._world.is_first else ():
                table = open_dataset(source, "test", self._data_dir)
                samples = _Plain(table, self._data_dir / "img" / source.images, self._config)
                values = self._evaluate(samples)
                self._log.metrics(done, progress, values, f"validation/{source.name}")
                told = " ".join(f"{name} {value:.3f}" for name, value in values.items())
                log.info("%s: %s", source.name, told)
                medians += [values["body_px"]] if "body_px" in values else []
        network.train()
        agreed = [sum(medians) / len(medians) if medians else None]
        if self._world.size > 1:
            distributed.broadcast_object_list(agreed)
        return agreed[0]

    @torch.inference_mode()
    def _evaluate(self, samples: _Plain) -> dict[str, float]:
        errors, known = [], []
        height, width = self._config.model.input_body_shape
        for batch in DataLoader(samples, self._config.test.test_batch_size):
            batch = {name: value.to(self._device) for name, value in batch.items()}
            found = found_keypoints(self._learner.network(images_of(batch)), self._config.model)
            places, seen = places_in_crop(batch, self._config.model)
            errors.append((found - places * places.new_tensor([width, height])).norm(dim=-1))
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
