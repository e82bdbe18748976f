"""Rows of an epoch, batches of a mixture, shares of processes, images that cannot be read."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.reader import load_config
from configs.schema import DataConfig
from datasets import training_set
from datasets.training_set import BatchKeys, Key, Mixture, Share, TrainingLoader, TrainingSet
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder
from utils.errors import UserError

ROOT = Path(__file__).parents[2]
PARITY = ROOT / "tests" / "parity" / "data"
BODY = ModelFolder(STAND_IN, STAND_IN_NAME)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Six rows of EgoBody_Kinect whose images are copies, and six rows of SynHand."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "annot").mkdir()
    for name in ("one", "two"):
        shutil.copytree(PARITY / "img", folder / "img" / name)
    return folder


def make_config(*changes):
    files = {"one": "EgoBody_Kinect", "two": "SynHand"}
    datasets = {
        name: {"train": (str(PARITY / "annot" / f"{file}.npz"),), "images": name}
        for name, file in files.items()
    }
    names = "data.trainset_humandata=('one', 'two')"
    sets = [f"data.datasets={datasets}", names, "data.data_strategy=concat", *changes]
    return load_config(ROOT / "configs" / "config_debug.py", sets)


@pytest.fixture
def samples(data_dir):
    return TrainingSet(make_config(), data_dir, BODY)


def keys_of(samples, share, epoch=0, first_iteration=0):
    keys = BatchKeys(samples.mixture(), share)
    keys.epoch, keys.first_iteration = epoch, first_iteration
    return list(keys)


def test_processes_share_an_epoch_between_them(samples):
    (whole,) = keys_of(samples, Share(0, 1, 12, 1))
    assert len({(key.dataset, key.row) for key in whole}) == 12
    shares = [keys_of(samples, Share(rank, 3, 2, 1)) for rank in range(3)]
    for iteration, batches in enumerate(zip(*shares, strict=True)):
        assert [key for batch in batches for key in batch] == whole[
            6 * iteration : 6 * iteration + 6
        ]


def test_batches_of_an_iteration_are_its_samples(samples):
    (whole,) = keys_of(samples, Share(0, 1, 12, 1))
    accumulated = [keys_of(samples, Share(rank, 2, 1, 3)) for rank in range(2)]
    iterations = [
        {key for share in accumulated for batch in share[3 * k : 3 * k + 3] for key in batch}
        for k in range(2)
    ]
    assert iterations == [set(whole[:6]), set(whole[6:])]


def test_last_iteration_is_filled_with_the_first_samples(samples):
    share = Share(0, 1, 5, 1)
    assert share.iterations(12) == 3
    batches = keys_of(samples, share)
    first, last = batches[0], batches[-1]
    assert [len(batch) for batch in batches] == [5, 5, 5]
    assert [key[2:] for key in last[2:]] == [key[2:] for key in first[:3]]
    assert [key.position for key in last[2:]] == [12, 13, 14]  # augmented anew


def test_goes_on_within_an_epoch(samples):
    share = Share(0, 1, 2, 2)
    assert keys_of(samples, share, 3, 1) == keys_of(samples, share, 3)[2:]
    loader = TrainingLoader(samples, share, workers=0, pin=False)
    whole, rest = list(loader.epoch(3)), list(loader.epoch(3, 1))
    assert len(whole) == loader.iterations == 3
    for expected, found in zip(whole[1:], rest, strict=True):
        for one, two in zip(expected, found, strict=True):
            assert all(one[name].equal(two[name]) for name in one)


def test_samples_are_functions_of_their_keys(samples):
    key = Key(1, 4, 0, 2)
    one, two = samples[key], samples[key]
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])
    for other in (key._replace(epoch=2), key._replace(position=5), key._replace(row=3)):
        assert not np.array_equal(samples[other]["input_img"], one["input_img"])


@pytest.fixture
def damaged(data_dir, tmp_path):
    """Row 2 of `one` has no image, row 3's is damaged."""
    folder = tmp_path / "data"
    shutil.copytree(data_dir, folder, symlinks=True)
    (folder / "img/one/set/000002.png").unlink()
    (folder / "img/one/set/000003.png").write_bytes(b"no image")
    return folder


def test_next_row_takes_the_place_of_one_that_cannot_be_read(damaged, caplog):
    samples = TrainingSet(make_config("data.no_aug=True"), damaged, BODY)
    for _ in range(2):  # deterministically
        found, expected = samples[Key(0, 0, 0, 2)], samples[Key(0, 0, 0, 4)]
        assert (found["unreadable"], expected["unreadable"]) == (2, 0)
        np.testing.assert_array_equal(found["input_img"], expected["input_img"])
    named = [record.message for record in caplog.records]
    assert "000002.png" in named[0]
    assert "000003.png" in named[1]
    loader = TrainingLoader(samples, Share(0, 1, 12, 1), workers=1, pin=False)
    ((batch,),) = loader.epoch(0)
    loader.close()
    assert int(batch["unreadable"].sum()) == 3


def test_no_aug_gives_the_plain_crop(data_dir, samples):
    plain = TrainingSet(make_config("data.no_aug=True"), data_dir, BODY)
    epochs = [Key(epoch, 0, 0, 0) for epoch in range(2)]
    first, second = (plain[key]["input_img"] for key in epochs)
    np.testing.assert_array_equal(first, second)
    first, second = (samples[key]["input_img"] for key in epochs)
    assert (first != second).any()


def test_dataset_without_images_is_one_line(damaged):
    shutil.rmtree(damaged / "img/one/set")
    loader = TrainingLoader(
        TrainingSet(make_config(), damaged, BODY), Share(0, 1, 4, 1), workers=1, pin=False
    )
    with pytest.raises(UserError, match="one: 20 rows in succession failed") as raised:
        list(loader.epoch(0))
    assert len(str(raised.value).splitlines()) == 1
    loader.close()


def test_names_and_targets_of_both_datasets(samples):
    assert samples.names == ("one", "two")
    ((batch,),) = TrainingLoader(samples, Share(0, 1, 12, 1), workers=0, pin=False).epoch(0)
    assert batch["dataset"].bincount().tolist() == [6, 6]
    assert batch["input_img"].shape == (12, 256, 192, 3)
    assert all(isinstance(value, torch.Tensor) for value in batch.values())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("one", "two", "one"), "names one twice"),
        (("one", "toe"), "unknown dataset 'toe'; did you mean"),
        (("BEDLAM",), "bedlam_train.npz"),
        ((), "is empty"),
    ],
)
def test_bad_names_are_one_line(data_dir, names, message):
    with pytest.raises(UserError, match=message):
        TrainingSet(make_config(f"data.trainset_humandata={names}"), data_dir, BODY).mixture()


def test_corrupt_file_is_named(data_dir, tmp_path):
    path = tmp_path / "corrupt.npz"
    path.write_bytes(b"no archive")
    change = f"data.datasets={{'one': {{'train': ('{path}',), 'images': 'one'}}}}"
    config = make_config(change, "data.trainset_humandata=('one',)")
    with pytest.raises(UserError, match=r"corrupt\.npz is damaged"):
        TrainingSet(config, data_dir, BODY)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("unable to allocate shared memory(shm) for file </torch_1>: No space left", "--shm-size"),
        ("DataLoader worker (pid 1) is killed by signal: Bus error. It is possible", "--shm-size"),
        ("unable to open shared memory object </t>: Too many open files (24)", "ulimit -n"),
        ("Too many open files. Communication with the workers is no longer", "ulimit -n"),
        ("DataLoader worker (pid 7) is killed by signal: Killed.", "Out of memory"),
        ("DataLoader timed out after 5 seconds", "disk of the images"),
    ],
)
def test_what_the_system_refuses_to_workers_is_one_line(samples, monkeypatch, error, remedy):
    monkeypatch.setattr(training_set, "_PATIENCE_S", 5)

    def refused():
        raise RuntimeError(f"Caught RuntimeError in worker process 0.\nTraceback ...\n{error}")

    loader = TrainingLoader(samples, Share(0, 1, 4, 1), workers=1, pin=False)
    monkeypatch.setattr(loader._loader.__class__, "__iter__", lambda _: iter(refused, None))
    with pytest.raises(UserError, match=remedy) as raised:
        next(loader.epoch(0))
    assert "\n" not in str(raised.value)
    assert "train.num_thread (now 1)" in str(raised.value)


def test_slow_batch_is_waited_for(samples, monkeypatch):
    answers = iter([RuntimeError("DataLoader timed out after 5 seconds")] * 3 + [{}])

    class Batches:
        def __next__(self):
            answer = next(answers)
            if isinstance(answer, RuntimeError):
                raise answer
            return answer

        def __iter__(self):
            return self

    loader = TrainingLoader(samples, Share(0, 1, 4, 1), workers=1, pin=False)
    monkeypatch.setattr(loader._loader.__class__, "__iter__", lambda _: Batches())
    assert next(loader.epoch(0)) == [{}]


def test_batches_of_workers_are_in_shared_memory_before_they_are_sent(samples, monkeypatch):
    sample = samples[training_set.Key(0, 0, 0, 0)]
    monkeypatch.setattr(training_set, "get_worker_info", lambda: "a worker")
    batch = training_set._collated([sample, sample])
    assert all(tensor.is_shared() for tensor in batch.values())


FEW_FILES = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
from datasets import training_set
try:
    training_set._raise_file_limit(4)
except training_set.UserError as error:
    print(error)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize("most", [64, 4096])
def test_open_files_are_enough_or_it_is_said(most):
    """Too few would lose batches on their way, and training would wait for ever."""
    done = subprocess.run(
        [sys.executable, "-c", FEW_FILES, str(most)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, limit = done.stdout.splitlines()
    if most == 64:
        assert limit == "64"
        (line,) = lines
        assert re.search(r"the system allows 64; .*ulimit -n \d+.*smaller train.num_thread", line)
    else:
        assert not lines
        assert 64 < int(limit) <= 4096


LENGTHS = {"small": 3, "middle": 10, "large": 40}


def mixture(seed=7, **data):
    return Mixture(LENGTHS, DataConfig.model_validate(data), seed)


def counts_by_dataset(mixed, epoch):
    located = [mixed.locate(int(number)) for number in mixed.epoch(epoch)]
    for dataset, row in located:
        assert 0 <= row < mixed.lengths[dataset]
    counts = Counter(dataset for dataset, _ in located)
    return [counts[k] for k in range(len(LENGTHS))]


def test_concat_takes_every_row_once():
    mixed = mixture(data_strategy="concat")
    assert len(mixed) == 53
    orders = [mixed.epoch(k) for k in range(3)]
    for order in orders:
        assert sorted(order) == list(range(53))
    assert not np.array_equal(orders[0], orders[1])


@pytest.mark.parametrize(("total", "length"), [("auto", 53), (20, 20), (91, 91), (2, 2)])
def test_balance_gives_equal_shares_and_loses_no_remainder(total, length):
    mixed = mixture(data_strategy="balance", total_data_len=total)
    assert len(mixed) == length
    counts = [counts_by_dataset(mixed, epoch) for epoch in range(6)]
    for of_epoch in counts:
        assert sum(of_epoch) == length
        assert max(of_epoch) - min(of_epoch) <= 1
    sums = np.sum(counts[:3], axis=0)  # what does not divide goes round
    assert (sums == length).all()


def test_weighted_gives_the_named_lengths():
    wanted = {"small": 7, "middle": 4, "large": 30}
    mixed = mixture(data_strategy="weighted", dataset_lengths=wanted)
    assert len(mixed) == 41
    for epoch in range(3):
        assert counts_by_dataset(mixed, epoch) == list(wanted.values())


@pytest.mark.parametrize(
    "data",
    [
        {"data_strategy": "balance", "total_data_len": 20},
        {"data_strategy": "weighted", "dataset_lengths": {"small": 7, "middle": 4, "large": 30}},
    ],
)
def test_no_row_is_taken_twice_before_all_were_once(data):
    mixed = mixture(**data)
    taken = Counter(dict.fromkeys(range(53), 0))
    starts = [0, 3, 13, 53]
    for epoch in range(25):
        taken.update(mixed.epoch(epoch).tolist())
        for first, last in pairwise(starts):
            rows = [taken[number] for number in range(first, last)]
            assert max(rows) - min(rows) <= 1


def test_order_is_a_function_of_seed_and_epoch():
    data = {"data_strategy": "balance", "total_data_len": 20}
    again = mixture(**data)
    for epoch in (5, 0, 3):  # in any order
        np.testing.assert_array_equal(mixture(**data).epoch(epoch), again.epoch(epoch))
    assert not np.array_equal(mixture(**data).epoch(1), again.epoch(2))
    assert not np.array_equal(mixture(seed=8, **data).epoch(1), again.epoch(1))


def test_datasets_are_mixed_within_an_epoch():
    order = mixture(data_strategy="balance", total_data_len=60).epoch(0)
    halves = [np.searchsorted([3, 13], half, side="right") for half in (order[:30], order[30:])]
    for half in halves:
        assert set(half.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("lengths", "data", "message"),
    [
        ({}, {}, "trainset_humandata is empty"),
        ({"a": 3, "b": 0}, {}, "b has no rows"),
        ({"a": 3, "b": 4}, {"dataset_lengths": {"a": 1}}, "lacks b"),
        ({"a": 3}, {"dataset_lengths": {"a": 1, "c": 2}}, "has c, which is not trained on"),
    ],
)
def test_bad_mixtures_are_refused(lengths, data, message):
    config = DataConfig.model_validate({"data_strategy": "weighted", **data})
    with pytest.raises(UserError, match=message):
        Mixture(lengths, config, seed=0)
