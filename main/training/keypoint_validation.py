"""How well a pre-trained encoder finds joints in the test splits of datasets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from configs.schema import Config, TrainConfig
from datasets.augmentation import NO_AUGMENTATION
from datasets.cache import InstanceTable, open_dataset
from datasets.sample import TrainingSample, training_sample
from human_models.joints import JOINT_PARTS
from main.training.objective import images_of
from main.training.validation import DatasetValidator
from models.auxiliary import found_keypoints, places_in_crop

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


class KeypointValidator(DatasetValidator):
    """Median distance of body joints and hands, pixels of the network's input."""

    @staticmethod
    def _metric_of(config: TrainConfig) -> str:
        del config
        return "body_px"

    def _evaluations(self) -> Iterator[tuple[str, dict[str, float]]]:
        for source in self._sources if self._world.is_first else ():
            table = open_dataset(source, "test", self._data_dir)
            samples = _Plain(table, self._data_dir / "img" / source.images, self._config)
            yield source.name, self._evaluate(samples)

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
