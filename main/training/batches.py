"""Where the batches of a run come from: the crops of datasets, or joints without pictures."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor

from configs.schema import Config
from datasets.synthetic.lifting import People, draw_poses
from datasets.training_set import Share, TrainingLoader, TrainingSet
from human_models.body import BodyLibrary
from main.paths import ROOT

_POSES: Final = 20_000
"""That are drawn at the start of lifting; every sample mixes and varies some."""


def crops(
    config: Config, bodies: BodyLibrary, share: Share, device: torch.device
) -> TrainingLoader:
    """Batches of the datasets that the config names; raises UserError as `TrainingSet` does."""
    samples = TrainingSet(config, ROOT / config.data.data_dir, bodies.folder)
    pin = device.type == "cuda"
    return TrainingLoader(samples, share, workers=config.train.num_thread, pin=pin)


class LiftingLoader:
    """Batches of people who are joints alone, made on the device."""

    def __init__(
        self, config: Config, bodies: BodyLibrary, share: Share, device: torch.device
    ) -> None:
        self.names: Final = ("lifting",)
        self.share, self._seed = share, config.train.seed
        self.iterations: Final = share.iterations(config.train.lifting_samples)
        body = BodyLibrary(bodies.folder).smplx()
        rest = body.rest_joints(torch.zeros(1, body.num_betas))[0]
        poses = draw_poses(rest.numpy(), self._seed, _POSES)
        self._people = People(poses, body.to(device), config.model)

    def epoch(self, epoch: int, first_iteration: int = 0) -> Iterator[list[dict[str, Tensor]]]:
        share = self.share
        for iteration in range(first_iteration, self.iterations):
            seeds = [
                np.random.SeedSequence((self._seed, epoch, iteration, batch, share.rank))
                for batch in range(share.accumulate)
            ]
            yield [
                self._people.batch(share.batch_size, int(seed.generate_state(1, np.uint64)[0]))
                for seed in seeds
            ]

    def close(self) -> None:
        pass


BatchLoader = TrainingLoader | LiftingLoader
"""Batches of each iteration of an epoch, functions of the iteration's number."""
