"""The cache equals its files, follows their changes, and is whole whatever happens to a build."""

import fcntl
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import datasets.cache as cache_module
from datasets.cache import InstanceTable, annotation_files, open_dataset, write_table
from datasets.humandata.reader import Columns
from datasets.instances import NUMBER_COLUMNS, TEXT_COLUMNS, instance, read_columns
from datasets.sources import SOURCES
from utils.errors import UserError

PARITY = Path(__file__).parents[1] / "parity" / "data"
# File -> row of the table; the values of MOYO_like_nohand were made without its rules.
NAMES = {
    "EgoBody_Kinect": "EgoBody_Kinect",
    "GTA_Human2": "GTA_Human2",
    "MOYO_like_nohand": "EgoBody_Kinect",
    "RenBody_HiRes": "RenBody_HiRes",
    "SynHand": "SynHand",
    "UBody": "UBody",
    "PW3D": "PW3D",
}
EXPECTED = sorted(PARITY.glob("expected_*.npz"))
FORK = multiprocessing.get_context("fork")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "annot").mkdir()
    shutil.copy(PARITY / "annot/EgoBody_Kinect.npz", tmp_path / "annot/one.npz")
    shutil.copy(PARITY / "annot/RenBody_HiRes.npz", tmp_path / "annot/two.npz")
    return tmp_path


def opened(data_dir: Path, *, interval: int = 1) -> InstanceTable:
    source = SOURCES["EgoBody_Kinect"]._replace(
        train=("one.npz", "two.npz"), train_interval=interval
    )
    return open_dataset(source, "train", data_dir)


def folders(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "cache/EgoBody_Kinect_train").glob("*/manifest.json"))


def leftovers(data_dir: Path) -> list[Path]:
    return list((data_dir / "cache/EgoBody_Kinect_train").glob(".partial_*"))


@pytest.mark.parametrize("path", EXPECTED, ids=lambda path: path.stem)
def test_rows_of_the_published_code(path: Path, tmp_path: Path) -> None:
    expected = np.load(path)
    name, split = path.stem.removeprefix("expected_").rsplit("_", 1)
    file = f"{name}_test.npz" if name == "PW3D" else f"{name}.npz"
    (tmp_path / "annot").symlink_to(PARITY / "annot")
    table = open_dataset(
        SOURCES[NAMES[name]]._replace(train=(file,), test=(file,), test_interval=1),
        "test" if split == "test" else "train",
        tmp_path,
        protocol="published",
    )
    assert len(table) == expected["length"]
    assert [table[i].row for i in range(3)] == expected["rows"].tolist()
    assert table[0].has_smpl == (name == "PW3D")
    if split == "train":  # the first sample is neither mirrored nor turned
        first = table[0]
        assert first.has_joints_3d == expected["meta_is_3D"][0]
        assert first.expression_valid == expected["meta_smplx_expr_valid"][0]
        np.testing.assert_array_equal(first.joints_valid, expected["meta_joint_valid"][0, :, 0])
        np.testing.assert_array_equal(
            first.pose_valid.repeat(9), expected["meta_smplx_pose_valid"][0]
        )
        np.testing.assert_allclose(
            first.pose.reshape(-1), expected["target_smplx_pose"][0], atol=1e-6
        )
        np.testing.assert_array_equal(first.betas, expected["target_smplx_shape"][0])


def test_equal_to_direct_reading(data_dir: Path) -> None:
    table = opened(data_dir)
    people = list(table)
    assert [person.row for person in people] == list(range(12))
    assert table[-1].row == 11
    with pytest.raises(IndexError):
        table[12]
    for k, name in enumerate(("one", "two")):
        path = data_dir / f"annot/{name}.npz"
        source = SOURCES["EgoBody_Kinect"]
        columns, length = read_columns(source, "train", path, interval=1, protocol="correct")
        assert length == 6
        for i in range(6):
            texts = {text: str(columns[text][i]) for text in TEXT_COLUMNS}
            direct = instance(columns, i, texts)._replace(row=6 * k + i)
            for ours, theirs in zip(people[6 * k + i], direct, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_rows_do_not_share_memory(data_dir: Path) -> None:
    table = opened(data_dir)
    before = table[0].joints_2d.copy()
    table[0].joints_2d[:] = 7
    np.testing.assert_array_equal(table[0].joints_2d, before)


def test_made_once(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(data_dir)
    monkeypatch.setattr(cache_module, "read_columns", None)
    assert len(opened(data_dir)) == 12


def test_change_of_key_rebuilds(data_dir: Path) -> None:
    assert len(opened(data_dir)) == 12
    assert [person.row for person in opened(data_dir, interval=4)] == [0, 4, 6, 10]
    assert len(folders(data_dir)) == 2
    shutil.copy(PARITY / "annot/UBody.npz", data_dir / "annot/two.npz")
    assert len(opened(data_dir)) == 9
    os.utime(data_dir / "annot/one.npz", ns=(1, 1))
    opened(data_dir)
    assert len(folders(data_dir)) == 4


def test_new_version_rebuilds(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = opened(data_dir)
    monkeypatch.setattr(cache_module, "VERSION", cache_module.VERSION + 1)
    assert opened(data_dir).folder != old.folder
    with pytest.raises(UserError, match="version"):
        InstanceTable(old.folder)


def test_damaged_cache_is_made_anew(data_dir: Path) -> None:
    table = opened(data_dir)
    expected = table[3].pose
    with (table.folder / "pose").open("r+b") as file:
        file.truncate(200)
    np.testing.assert_array_equal(opened(data_dir)[3].pose, expected)


def row_of(table: InstanceTable, i: int) -> int:
    return table[i].row


def test_goes_to_other_processes_as_its_folder(data_dir: Path) -> None:
    table = opened(data_dir)
    assert len(pickle.dumps(table)) < 500
    with SPAWN.Pool(1) as pool:
        assert pool.starmap(row_of, [(table, 5), (table, 7)]) == [5, 7]


def _open_and_report(data_dir: Path, counts: "multiprocessing.Queue[int]") -> None:
    builds = 0
    original = write_table

    def counted(folder: Path, parts: Iterator[Columns], key: str = "") -> int:
        nonlocal builds
        builds += 1
        return original(folder, parts, key)

    pytest.MonkeyPatch().setattr(cache_module, "write_table", counted)  # in this process alone
    assert len(opened(data_dir)) == 12
    counts.put(builds)


def test_processes_at_once_build_once(data_dir: Path) -> None:
    counts: multiprocessing.Queue[int] = FORK.Queue()
    processes = [FORK.Process(target=_open_and_report, args=(data_dir, counts)) for _ in range(4)]
    for process in processes:
        process.start()
    assert sorted(counts.get(timeout=60) for _ in processes) == [0, 0, 0, 1]
    for process in processes:
        process.join()
        assert process.exitcode == 0


def _die_while_building(data_dir: Path) -> None:
    def read(source, split, path, **options):  # type: ignore[no-untyped-def]
        if path.name == "two.npz":
            os.kill(os.getpid(), signal.SIGKILL)
        return read_columns(source, split, path, **options)

    pytest.MonkeyPatch().setattr(cache_module, "read_columns", read)
    opened(data_dir)


def test_killed_build_leaves_nothing_used(data_dir: Path) -> None:
    process = FORK.Process(target=_die_while_building, args=(data_dir,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert folders(data_dir) == []
    assert len(leftovers(data_dir)) == 1
    assert len(opened(data_dir)) == 12
    assert leftovers(data_dir) == []


def _build_on_a_full_disk(data_dir: Path, message: "multiprocessing.Queue[str]") -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
    try:
        opened(data_dir)
    except UserError as error:
        message.put(str(error))


def test_full_disk_is_told(data_dir: Path) -> None:
    message: multiprocessing.Queue[str] = FORK.Queue()
    process = FORK.Process(target=_build_on_a_full_disk, args=(data_dir, message))
    process.start()
    assert "cannot write the cache" in message.get(timeout=60)
    process.join()
    assert folders(data_dir) == []
    assert leftovers(data_dir) == []
    assert len(opened(data_dir)) == 12


def test_disk_without_locks(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert len(opened(data_dir)) == 12


def test_error_in_a_file_leaves_nothing(data_dir: Path) -> None:
    (data_dir / "annot/two.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"two\.npz is damaged"):
        opened(data_dir)
    assert folders(data_dir) == []
    assert leftovers(data_dir) == []


def test_texts_of_any_alphabet_and_no_rows(tmp_path: Path) -> None:
    paths = ["", "ä/é.jpg", "日本/x.png", "plain"]
    numbers = {
        name: np.zeros((len(paths), *shape), dtype)
        for name, (dtype, shape) in NUMBER_COLUMNS.items()
    }
    columns = numbers | {name: np.array(paths) for name in TEXT_COLUMNS}
    none = {name: column[:0] for name, column in columns.items()}
    write_table(tmp_path / "full", iter([columns, none, columns]))
    table = InstanceTable(tmp_path / "full")
    assert [person.image_path for person in table] == paths * 2
    write_table(tmp_path / "empty", iter([none]))
    assert len(InstanceTable(tmp_path / "empty")) == 0


def test_slices_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for i in (10, 2, 0, 1):
        (tmp_path / f"ubody_train_x_{i}.npz").touch()
    found = annotation_files(SOURCES["UBody"], "train", tmp_path)
    assert [path.stem[-2:] for path in found] == ["_0", "_1", "_2", "10"]


def test_missing_files(data_dir: Path) -> None:
    with pytest.raises(UserError, match=r"needs .*bedlam_train\.npz"):
        open_dataset(SOURCES["BEDLAM"], "train", data_dir)
    with pytest.raises(UserError, match="needs a file named like"):
        open_dataset(SOURCES["MOYO"], "train", data_dir)
