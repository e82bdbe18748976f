"""Samples of a mixture of datasets, batch by batch, for one of several processes.

The rows of an epoch and their order are a function of the seed and the epoch: they are the same for
any number of processes, and interrupted training continues where it stopped.
"""

import logging
import os
import resource
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, get_type_hints

import cv2
import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from configs.schema import Config, DataConfig
from datasets.cache import open_dataset
from datasets.sample import TrainingSample, joints_of_body, training_sample
from datasets.sources import find_source
from datasets.targets import NO_AUGMENTATION, draw_augmentation
from human_models.body import BodyLibrary
from human_models.files import ModelFolder
from utils.errors import UserError

log = logging.getLogger(__name__)

_TRIES: Final = 20
"""Successive rows that may fail before a dataset counts as missing."""
_GRACE_S: Final = 20
"""How long a worker continues after a signal to end."""
_PATIENCE_S: Final = 600
"""How long a batch may take, even on slow storage."""
_CHECK_S: Final = 5
"""How often workers are checked while waiting for a batch."""
_BATCHES_AHEAD: Final = 3
"""Per worker: two that the loader requests, and one in transit."""
_FILES_OF_WORKER: Final = 8
"""Pipes and locks between a worker and its process."""
_OTHER_FILES: Final = 128
_SHARED_MEMORY: Final = Path("/dev/shm")


# First numbers of the seeds of random orders.
_ROW_ORDER: Final = 0
_EPOCH_ORDER: Final = 1


class Mixture:
    """Rows of several datasets, numbered consecutively from the first dataset on."""

    def __init__(self, lengths: Mapping[str, int], config: DataConfig, seed: int) -> None:
        """
        Args:
            lengths: dataset name -> rows.

        Raises:
            UserError: a dataset is empty, or `weighted` lacks one or names an unknown one.
        """
        if not lengths:
            raise UserError("data.trainset_humandata is empty; name the datasets to train on")
        empty = [name for name, length in lengths.items() if not length]
        if empty:
            raise UserError(f"{empty[0]} has no rows to train on; leave it out or correct its file")
        self.names = tuple(lengths)
        self.lengths = tuple(lengths.values())
        self.seed = seed
        self._starts = np.cumsum([0, *self.lengths])
        self._takes_all = config.data_strategy == "concat"
        self._epoch_length = sum(self.lengths)
        self._shares: dict[str, int] = {}
        if config.data_strategy == "weighted":
            self._shares = _weighted(lengths, config.dataset_lengths)
            self._epoch_length = sum(self._shares.values())
        elif config.data_strategy == "balance" and config.total_data_len != "auto":
            self._epoch_length = config.total_data_len

    def __len__(self) -> int:
        """Samples per epoch."""
        return self._epoch_length

    def epoch(self, epoch: int) -> Int64[np.ndarray, " N"]:
        """The numbers of an epoch's rows, in the order of training.

        Each dataset gives its rows in a fixed order and continues in the next epoch where it
        stopped: no row is repeated before all have been used once.
        """
        generator = np.random.default_rng((self.seed, _EPOCH_ORDER, epoch))
        if self._takes_all:
            return generator.permutation(self._epoch_length)
        parts = [self._rows(dataset, epoch) for dataset in range(len(self.names))]
        return generator.permutation(np.concatenate(parts))

    def locate(self, number: int) -> tuple[int, int]:
        """The dataset (its index in `names`) of a numbered row, and the row in this dataset."""
        dataset = int(np.searchsorted(self._starts, number, side="right")) - 1
        return dataset, int(number - self._starts[dataset])

    def _rows(self, dataset: int, epoch: int) -> Int64[np.ndarray, " K"]:
        """The numbers of the rows that a dataset gives in an epoch."""
        length = self.lengths[dataset]
        order = np.random.default_rng((self.seed, _ROW_ORDER, dataset)).permutation(length)
        given = np.arange(self._given(dataset, epoch), self._given(dataset, epoch + 1))
        return self._starts[dataset] + order[given % length]

    def _given(self, dataset: int, epochs: int) -> int:
        """How many rows a dataset gives in this number of epochs."""
        if self._shares:
            return epochs * self._shares[self.names[dataset]]
        # The remainder goes to other datasets in every epoch.
        return (epochs * self._epoch_length + dataset) // len(self.names)


def _weighted(lengths: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    missing = [name for name in lengths if name not in wanted]
    unknown = [name for name in wanted if name not in lengths]
    if missing:
        raise UserError(f"data.dataset_lengths lacks {missing[0]}; 'weighted' needs every dataset")
    if unknown:
        raise UserError(f"data.dataset_lengths has {unknown[0]}, which is not trained on")
    return dict(wanted)


class Key(NamedTuple):
    """What a sample depends on, besides the seed."""

    epoch: int
    position: int
    """In the order of the epoch; also the seed of the augmentation."""
    dataset: int
    row: int


class Share(NamedTuple):
    """The share of one of `size` processes, and how its batches form iterations."""

    rank: int
    size: int
    batch_size: int
    """Samples per batch, on every process."""
    accumulate: int
    """Batches per process and iteration."""

    @property
    def iteration_samples(self) -> int:
        return self.size * self.batch_size * self.accumulate

    def iterations(self, epoch_length: int) -> int:
        """Iterations per epoch; the last one is filled with the epoch's first samples."""
        return -(-epoch_length // self.iteration_samples)


class TrainingBatch(TrainingSample):
    """A sample of the loader; batches have one more axis in front."""

    dataset: np.int64
    """Index in `TrainingSet.names`."""
    unreadable: np.int64
    """Rows tried before this one, whose image or box was unusable."""


class TrainingSet(Dataset[TrainingBatch | UserError]):
    """The train splits that a config names, each with its table and folder of images.

    A UserError is returned as a value, because torch would hide it in a traceback.
    """

    def __init__(self, config: Config, data_dir: Path, body_folder: ModelFolder) -> None:
        """Open the caches, or write them at the first time.

        Raises:
            UserError: a dataset is unknown, missing, damaged or named twice.
        """
        self.config = config
        names = config.data.trainset_humandata
        twice = [name for k, name in enumerate(names) if name in names[:k]]
        if twice:
            raise UserError(
                f"data.trainset_humandata names {twice[0]} twice; name it once, and give it more "
                "samples with data_strategy = 'weighted'"
            )
        self.sources = [find_source(name, config.data) for name in names]
        self.tables = [open_dataset(source, "train", data_dir) for source in self.sources]
        self.names = tuple(source.name for source in self.sources)
        self.image_folders = [data_dir / "img" / source.images for source in self.sources]
        self.bodies = BodyLibrary(body_folder)

    def mixture(self) -> Mixture:
        lengths = dict(zip(self.names, map(len, self.tables), strict=True))
        return Mixture(lengths, self.config.data, self.config.train.seed)

    def __getitem__(self, key: Key) -> TrainingBatch | UserError:
        """The sample of a key, or of the next row of its dataset that can be read.

        An error if too many rows in succession cannot be read.
        """
        table = self.tables[key.dataset]
        for skipped in range(_TRIES):
            row = (key.row + skipped) % len(table)
            try:
                sample = self._sample(key, row)
            except UserError as error:
                log.warning("%s: %s; another row takes its place", self.names[key.dataset], error)
                last = error
            else:
                return {**sample, "dataset": np.int64(key.dataset), "unreadable": np.int64(skipped)}
        return UserError(
            f"{self.names[key.dataset]}: {_TRIES} rows in succession failed; the last: {last}"
        )

    def _sample(self, key: Key, row: int) -> TrainingSample:
        data, source = self.config.data, self.sources[key.dataset]
        instance = self.tables[key.dataset][row]
        augmentation = NO_AUGMENTATION
        if not data.no_aug:
            seed = self.config.train.seed
            augmentation = draw_augmentation(seed, key.epoch, key.position, data.aug_strength)
        joints = joints_of_body(instance, self.bodies) if source.joints_from_body else None
        folder = self.image_folders[key.dataset]
        return training_sample(instance, folder, self.config, augmentation, joints)


class BatchKeys(Sampler[list[Key]]):
    """The keys of the batches of one process, from an iteration to the end of its epoch."""

    def __init__(self, mixture: Mixture, share: Share) -> None:
        self.mixture, self.share = mixture, share
        self.epoch, self.first_iteration = 0, 0

    def __iter__(self) -> Iterator[list[Key]]:
        share, order = self.share, self.mixture.epoch(self.epoch)
        batches = share.iterations(len(order)) * share.accumulate
        for batch in range(self.first_iteration * share.accumulate, batches):
            start = (batch * share.size + share.rank) * share.batch_size
            positions = range(start, start + share.batch_size)
            yield [
                Key(self.epoch, p, *self.mixture.locate(int(order[p % len(order)])))
                for p in positions
            ]


class TrainingLoader:
    """Batches of one process, prepared by workers that persist over epochs."""

    def __init__(self, samples: TrainingSet, share: Share, *, workers: int, pin: bool) -> None:
        """
        Raises:
            UserError: the system allows too few open files for the workers.
        """
        if workers:
            _raise_file_limit(workers)
        self.names = samples.names
        self.mixture, self.share = samples.mixture(), share
        self._keys = BatchKeys(self.mixture, share)
        self._loader = DataLoader(
            samples,
            batch_sampler=self._keys,
            num_workers=workers,
            collate_fn=_collated,
            pin_memory=pin,
            persistent_workers=workers > 0,
            worker_init_fn=_begin_worker,
            timeout=_CHECK_S if workers else 0,
        )

    @property
    def iterations(self) -> int:
        """Iterations per epoch."""
        return self.share.iterations(len(self.mixture))

    def epoch(self, epoch: int, first_iteration: int = 0) -> Iterator[list[dict[str, Tensor]]]:
        """The batches of each iteration of an epoch, from `first_iteration` on.

        Raises:
            UserError: too many rows of a dataset in succession cannot be read, or the system ended
                the workers.
        """
        self._keys.epoch, self._keys.first_iteration = epoch, first_iteration
        batches: list[dict[str, Tensor]] = []
        for batch in self._loaded():
            if isinstance(batch, UserError):
                raise batch
            batches.append(batch)
            if len(batches) == self.share.accumulate:
                yield batches
                batches = []

    def _loaded(self) -> Iterator[dict[str, Tensor] | UserError]:
        """The batches of the loader; a UserError of one line if workers end."""
        batches, checks = iter(self._loader), 0
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError) as error:
                checks += 1
                if "timed out" in str(error) and checks * _CHECK_S < _PATIENCE_S:
                    continue  # all workers are alive
                problem = _problem_of_workers(str(error), self._loader.num_workers)
                if problem is None:
                    raise
                raise UserError(problem) from error
            checks = 0
            yield batch

    def close(self) -> None:
        """End the workers. After an error, the garbage collector would close their queues first,
        and then wait for workers that cannot receive the request to end."""
        iterator = self._loader._iterator
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()


def _collated(samples: Sequence[TrainingBatch | UserError]) -> dict[str, Tensor] | UserError:
    """A batch, or the error of the first sample that has one."""
    wrong = [sample for sample in samples if isinstance(sample, UserError)]
    if wrong:
        return wrong[0]
    batch: dict[str, Tensor] = default_collate(list(samples))
    if get_worker_info() is not None:
        # Sharing it in transit would lose it without an error if shared memory is full.
        for tensor in batch.values():
            tensor.share_memory_()
    return batch


def _raise_file_limit(workers: int) -> None:
    """Allow as many open files as batches in transit need: one for each tensor.

    Without them, batches are lost without an error, and the process waits for them in vain.
    """
    tensors = len(get_type_hints(TrainingBatch))
    needed = _OTHER_FILES + workers * (_FILES_OF_WORKER + _BATCHES_AHEAD * tensors)
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return
    if most != resource.RLIM_INFINITY and most < needed:
        raise UserError(
            f"train.num_thread = {workers} needs {needed} open files but the system allows {most}; "
            f"raise the limit (ulimit -n {needed}), or set a smaller train.num_thread"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def _problem_of_workers(error: str, workers: int) -> str | None:
    """What an error of the loader means and what to do; None: it does not come from the system."""
    remedy = f"or set a smaller train.num_thread (now {workers})"
    if "Too many open files" in error:
        return f"the loader's workers have too many open files; raise ulimit -n, {remedy}"
    if "shared memory" in error or "Bus error" in error:
        shared = ""
        if _SHARED_MEMORY.is_dir():
            shared = f" ({shutil.disk_usage(_SHARED_MEMORY).total >> 20} MiB in {_SHARED_MEMORY})"
        return (
            f"the loader's workers need more shared memory{shared}; start the container with "
            f"--shm-size=8g or --ipc=host, {remedy}"
        )
    if "timed out" in error:
        return (
            f"no batch came within {_PATIENCE_S} s; look whether the disk of the images answers, "
            f"{remedy}"
        )
    if "DataLoader worker" in error:
        how = error[error.index("DataLoader worker") :].splitlines()[0]
        return f"{how} Out of memory? Free some, {remedy}"
    return None


def _begin_worker(worker: int) -> None:
    """Give a worker one thread, because workers already share the cores.

    A scheduler signals all processes of a run; workers continue until theirs has saved its state.
    """
    del worker
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
