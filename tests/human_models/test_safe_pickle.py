"""Pickles and .npz files of others are read, and none of what they ask for is run."""

import contextlib
import io
import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from human_models.safe_pickle import Placeholder, load_npy, load_npz, load_pickle
from utils.errors import UserError


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def write(path: Path, content: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


# ---- what is refused


def attacks(mark: Path) -> dict[str, object]:
    return {
        "posix.system": Call(os.system, f"touch '{mark}'"),
        "builtins.eval": Call(eval, f"open({str(mark)!r}, 'w')"),
        "builtins.exec": Call(exec, f"open({str(mark)!r}, 'w')"),
        "builtins.getattr": Call(getattr, "text", "upper"),
        "io.open": Call(open, str(mark), "w"),
        "numpy.load": Call(np.load, str(mark)),
    }


def save_pickle(path: Path, content: object, protocol: int = 2) -> Callable[[], object]:
    write(path, content, protocol)
    return lambda: load_pickle(path)


def save_npz(path: Path, content: object) -> Callable[[], object]:
    with path.open("wb") as file:
        np.savez(file, plain=np.zeros(3), meta=np.array(content))
    return lambda: load_npz(path)


def save_npy(path: Path, content: object) -> Callable[[], object]:
    with path.open("wb") as file:
        np.save(file, np.array(content), allow_pickle=True)
    return lambda: load_npy(path)


@pytest.mark.parametrize("name", list(attacks(Path())))
@pytest.mark.parametrize(
    "save", [save_pickle, partial(save_pickle, protocol=5), save_npz, save_npy]
)
def test_attack_is_refused_and_not_run(
    tmp_path: Path, name: str, save: Callable[[Path, object], Callable[[], object]]
) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "body"
    load = save(path, {"v_template": np.zeros(3), "poses": attacks(mark)[name]})

    with pytest.raises(UserError) as refusal:
        load()

    message = str(refusal.value)
    assert message.startswith(f"{path}: refused to run '")
    assert f".{name.split('.')[1]}'" in message
    assert "\n" not in message
    assert not mark.exists()


def test_attack_would_have_worked(tmp_path: Path) -> None:
    """The payload above is real: plain pickle runs it."""
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(attacks(mark)["posix.system"]))
    assert mark.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x05numpy\x8c\x16ndarray.__init_subclass__\x93.",  # a dotted name
        b"cchumpy.ch\nCh.__reduce__\n.",
        b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.",
        b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.",
    ],
)
def test_crafted_streams_are_refused(tmp_path: Path, stream: bytes) -> None:
    path = tmp_path / "body.pkl"
    path.write_bytes(stream)
    with pytest.raises(UserError, match=r"body\.pkl"):
        load_pickle(path)


# ---- what is read


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_values_and_arrays(tmp_path: Path, protocol: int) -> None:
    content = {
        "text": "räksmörgås",
        "bytes": b"\x00\xff",
        "empty": b"",
        "numbers": [1, 2.5, True, None, 2**70],
        "ordered": OrderedDict(a=1),
        "set": {1, 2},
        "scalar": np.float32(1.5),
        "array": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "strings": np.array(["one", "two"]),
        "objects": np.array([{"a": 1}, None, "b"], dtype=object),
    }
    read = load_pickle(write(tmp_path / "a.pkl", content, protocol))
    assert isinstance(read, dict)
    assert read.keys() == content.keys()
    for key, value in content.items():
        assert type(read[key]) is type(value), key
        np.testing.assert_array_equal(read[key], value)


def test_pickles_of_old_numpy(tmp_path: Path) -> None:
    """numpy 1 called its modules numpy.core; numpy 2 calls them numpy._core."""
    array = np.arange(4, dtype=np.float32)
    stream = pickle.dumps([array, np.float64(2)], 2)
    assert b"numpy._core" in stream
    path = tmp_path / "a.pkl"
    path.write_bytes(stream.replace(b"numpy._core", b"numpy.core"))
    read = load_pickle(path)
    assert isinstance(read, list)
    np.testing.assert_array_equal(read[0], array)
    assert read[1] == 2


@pytest.fixture
def chumpy_like(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """Classes that pickle under chumpy's names, as long as their modules are there."""
    classes = {}
    for module, name in (("ch", "Ch"), ("reordering", "Select"), ("ch", "MatVecMult")):
        full = f"chumpy.{module}"
        cls = type(name, (), {"__module__": full, "__init__": lambda s, **k: vars(s).update(k)})
        if full not in sys.modules:
            monkeypatch.setitem(sys.modules, full, ModuleType(full))
        setattr(sys.modules[full], name, cls)
        classes[name] = cls
    monkeypatch.setitem(sys.modules, "chumpy", ModuleType("chumpy"))
    return classes


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_python2_chumpy_body(
    tmp_path: Path,
    protocol: int,
    chumpy_like: dict[str, type],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ch, select, product = chumpy_like.values()
    template = np.arange(12.0).reshape(4, 3)
    variable = ch(x=template, _dirty_vars=set(), name=None)
    regressor = scipy.sparse.random(3, 4, density=0.5, format="csc", random_state=1)
    content = {
        "v_template": variable,
        "chosen": select(a=variable, idxs=np.array([3, 4, 5]), preferred_shape=(1, 3)),
        "flat": select(a=variable, idxs=np.array([11])),
        "nested": [{"inside": variable}],
        "J": product(mtx=regressor, vec=variable),
        "J_regressor": regressor,
    }
    stream = pickle.dumps(content, protocol)
    assert b"scipy.sparse._csc" in stream
    stream = stream.replace(b"scipy.sparse._csc", b"scipy.sparse.csc")  # its name in old scipy
    path = tmp_path / "basicModel_f_lbs_10_207_0_v1.0.0.pkl"
    path.write_bytes(stream)
    for module in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        monkeypatch.delitem(sys.modules, module)

    read: Any = load_pickle(path)

    assert "chumpy" not in sys.modules
    np.testing.assert_array_equal(read["v_template"], template)
    np.testing.assert_array_equal(read["chosen"], template[1:2])
    np.testing.assert_array_equal(read["flat"], [11.0])
    np.testing.assert_array_equal(read["nested"][0]["inside"], template)
    assert isinstance(read["J"], Placeholder), "not an array: stays inert, and nobody needs it"
    np.testing.assert_array_equal(read["J_regressor"].toarray(), regressor.toarray())


def test_class_with_state_as_a_global_reduce(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"(dS'J'\ncchumpy.ch\nCh\n(tR(dS'x'\nI3\nsbs.")
    assert load_pickle(path) == {"J": 3}


@pytest.mark.parametrize("layout", ["csc", "csr", "coo"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_sparse_matrices(tmp_path: Path, layout: str, kind: str, protocol: int) -> None:
    dense = np.zeros((3, 5))
    dense[[0, 2, 2], [1, 0, 4]] = 1, 2, 3
    sparse = getattr(scipy.sparse, f"{layout}_{kind}")(dense)
    read = load_pickle(write(tmp_path / "a.pkl", {"matrix": sparse}, protocol))
    assert isinstance(read, dict)
    assert isinstance(read["matrix"], scipy.sparse.csr_matrix)
    np.testing.assert_array_equal(read["matrix"].toarray(), dense)


def test_sparse_matrix_that_points_outside_is_an_error(tmp_path: Path) -> None:
    sparse = scipy.sparse.csr_matrix(np.eye(3))
    sparse.indices[0] = 1000
    with pytest.raises(UserError, match="damaged"):
        load_pickle(write(tmp_path / "a.pkl", sparse))


def test_npz_with_plain_and_object_arrays(tmp_path: Path) -> None:
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    arrays: dict[str, Any] = {
        "f": np.arange(6).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "empty": np.zeros((0, 3)),
        "part2num": np.array({"head": 15, "names": ["a", "b"]}),
        "boxes": np.array([np.zeros(2), None], dtype=object),
    }
    for save in (np.savez, np.savez_compressed):
        save(path, **arrays)
        read = load_npz(path)
        assert read.keys() == arrays.keys()
        for key in ("f", "fortran", "empty"):
            np.testing.assert_array_equal(read[key], arrays[key])
            assert read[key].dtype == arrays[key].dtype
        assert read["part2num"].item() == {"head": 15, "names": ["a", "b"]}
        assert read["boxes"].shape == (2,)
        np.testing.assert_array_equal(read["boxes"][0], np.zeros(2))
        assert load_npz(path, keys=("f", "absent")).keys() == {"f"}


# ---- what is damaged


def test_missing_file(tmp_path: Path) -> None:
    for load in (load_pickle, load_npz, load_npy):
        with pytest.raises(UserError, match=r"Cannot read .*absent.*No such file"):
            load(tmp_path / "absent")


@pytest.mark.parametrize("cut", [0, 1, 10, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, cut: float) -> None:
    content = {"a": np.arange(100.0), "b": "text", "c": np.array({"d": 1})}
    streams = {load_pickle: pickle.dumps(content, 2)}
    for save, load in ((np.savez, load_npz), (np.save, load_npy)):
        buffer = io.BytesIO()
        save(buffer, np.arange(100.0))
        streams[load] = buffer.getvalue()
    for load, stream in streams.items():
        path = tmp_path / "a"
        path.write_bytes(stream[: int(cut * len(stream)) if cut < 1 else int(cut)])
        with pytest.raises(UserError, match="damaged") as problem:
            load(path)
        assert "\n" not in str(problem.value)


def test_damaged_member_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.zeros(1000))
    stream = bytearray(path.read_bytes())
    stream[2000] ^= 1
    path.write_bytes(stream)
    with pytest.raises(UserError, match="damaged"):
        load_npz(path)


def test_garbage_never_escapes_as_another_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sound = pickle.dumps({"a": np.arange(5.0), "b": [1, "x", {"c": np.float32(1)}]}, 2)
    path = tmp_path / "a.pkl"
    for _ in range(500):
        stream = bytearray(sound)
        for place in rng.integers(0, len(stream), 3):
            stream[place] = rng.integers(0, 256)
        path.write_bytes(stream)
        with contextlib.suppress(UserError):
            load_pickle(path)
