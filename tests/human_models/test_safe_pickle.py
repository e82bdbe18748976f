"""Pickles and .npz files of others are read, and none of what they ask for is run."""

import contextlib
import io
import os
import pickle
import struct
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from benchmarks import hostile_files
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
        with pytest.raises(UserError, match=r"cannot read .*absent.*No such file"):
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


@pytest.mark.parametrize("protocol", range(6))
def test_numbers_as_keys(tmp_path: Path, protocol: int) -> None:
    content = [dict.fromkeys(range(1, 10_001)), {10**9: 1, 2.5: 2}, set(range(5000))]
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    assert load_pickle(path) == content


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


# ---- what is forged: bytes that NumPy or Python would take for something else


def operation(value: object) -> bytes:
    """The operations of a pickle that push a value; bytes are taken as operations as they are."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(operation, value)) + b"t"
    return pickle.dumps(value, 2)[2:-1]


def raw(content: bytes) -> bytes:
    """The operation that pushes bytes."""
    return b"B" + struct.pack("<I", len(content)) + content


def name(text: str) -> bytes:
    module, _, attribute = text.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def call(text: str, *arguments: object) -> bytes:
    return name(text) + operation(arguments) + b"R"


def dtype(code: str, *state: object) -> bytes:
    """A dtype with a state, by default that of a simple one."""
    state = state or (3, "|", None, None, None, -1, -1, 0)
    return call("numpy.dtype", code, False, True) + operation(state) + b"b"


def array(shape: tuple[object, ...], kind: bytes, items: bytes) -> bytes:
    new = call("numpy.core.multiarray._reconstruct", name("numpy.ndarray"), (0,), raw(b"b"))
    return new + operation((1, shape, kind, False, items)) + b"b"


def fields(offset: int, inner: bytes, size: int, flags: int = 0) -> bytes:
    state = (3, "|", None, ("a",), b"}" + operation("a") + operation((inner, offset)) + b"s")
    return dtype(f"V{size}", *state, size, 1, flags)


ADDRESS = b"\x08" + bytes(7)
FLOAT = dtype("f8")
HUGE = 2**40
FORGED: dict[str, bytes] = {
    "scalar of objects": call("numpy.core.multiarray.scalar", dtype("O8"), raw(ADDRESS)),
    "scalar of a field of objects": call(
        "numpy.core.multiarray.scalar", fields(0, dtype("O8"), 8, 0), raw(ADDRESS)
    ),
    "array of objects": array((1,), dtype("O8"), raw(ADDRESS)),
    "objects without their flag": array(
        (1,), dtype("O8", 3, "|", None, None, None, -1, -1, 0), raw(ADDRESS)
    ),
    "objects by Python 2": array((1,), dtype("O"), operation(ADDRESS.decode("latin-1"))),
    "object array shorter than its list": array((3,), dtype("O8"), b"]"),
    "field of objects": array((1,), fields(0, dtype("O8"), 8, 0), raw(ADDRESS)),
    "array of objects in a field": array(
        (1,),
        fields(0, dtype("V8", 3, "|", (dtype("O8"), (1,)), None, None, 8, 1, 0), 8),
        raw(ADDRESS),
    ),
    "buffer of objects": call(
        "numpy.core.numeric._frombuffer", raw(ADDRESS), dtype("O8"), (1,), "C"
    ),
    "array on a buffer": call("numpy.ndarray", (1,), dtype("O8"), raw(ADDRESS)),
    "array on a negative offset": call("numpy.ndarray", (1,), FLOAT, raw(bytes(16)), -8),
    "negative offset of a field": array((1,), fields(-64, FLOAT, 8), raw(bytes(8))),
    "field outside of the item": array((1,), fields(1 << 20, FLOAT, 8), raw(bytes(8))),
    "larger item than its code": array(
        (1,), dtype("V8", 3, "|", None, None, None, 1 << 20, 1, 0), raw(bytes(8))
    ),
    "size for a number": array((1,), dtype("f8", 3, "<", None, None, None, 4, 1, 0), raw(bytes(4))),
    "title": array(
        (1,),
        dtype(
            "V8",
            3,
            "|",
            None,
            ("a",),
            b"}" + operation("a") + operation((FLOAT, 0, "t")) + b"s",
            8,
            1,
            0,
        ),
        raw(bytes(8)),
    ),
    "metadata": array(
        (1,), dtype("f8", 4, "<", None, None, None, -1, -1, 0, {"vlen": str}), raw(bytes(8))
    ),
    "more items than bytes": array((1000,), FLOAT, raw(bytes(8))),
    "fewer items than bytes": array((1,), FLOAT, raw(bytes(16))),
    "negative shape": array((-1,), FLOAT, raw(bytes(8))),
    "shape that overflows": array((2**32, 2**32), FLOAT, raw(b"")),
    "empty array of huge shape": array((0, 2**61), FLOAT, raw(b"")),
    "items without bytes": array((HUGE,), dtype("U0"), raw(b"")),
    "unknown order": call("numpy.core.numeric._frombuffer", raw(bytes(8)), FLOAT, (1,), "A"),
    "state on a finished array": array((1,), FLOAT, raw(bytes(8)))
    + operation((1, (1,), FLOAT, False, raw(bytes(8))))
    + b"b",
    "array whose memory moves": b"\x96"
    + struct.pack("<Q", 8)
    + bytes(8)
    + b"q\0"
    + call("numpy.core.numeric._frombuffer", b"h\0", FLOAT, (1,), "C")
    + b"h\0("
    + b"K\x42" * 1000
    + b"e",
    "item for changeable bytes": b"\x96" + struct.pack("<Q", 1) + b"AK\x42a",
    "huge number in the memo": b"]p4294967296\n",
    "keyword arguments": name("numpy.ndarray") + b")]\x92",
    "many distant numbers": operation(dict.fromkeys(range(0, 500_000, 100))),
    "many distant items": b"\x8f(" + b"".join(operation(100 * k) for k in range(5000)) + b"\x90",
    "many floats": operation(dict.fromkeys(map(float, range(5000)))),
    "state on a list": b"](K\x01tb",
    "state on a name": name("chumpy.ch.Ch") + b"}b",
    "dtype by a name": call("numpy.dtype", name("builtins.object"), False, True),
    "dtype by a comma": call("numpy.dtype", "O,O", False, True),
    "impossible booleans": array((2,), dtype("b1"), raw(b"\x01\xff")),
    "impossible characters": array((1,), dtype("U1"), raw(b"\xff\xff\xff\x7f")),
    "call of a text": operation("text") + b")R",
    "array that contains itself": name("numpy.core.multiarray._reconstruct")
    + b"("
    + name("numpy.ndarray")
    + b"(K\0tC\x01btRq\x07(K\x01(K\x01t"
    + dtype("O8")
    + b"\x89](h\x07etb",
    "huge frame and text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62),
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", HUGE),
    "huge changeable bytes": b"\x80\x05\x96" + struct.pack("<Q", HUGE),
    "huge number": b"\x80\x02\x8b" + struct.pack("<I", 2**31 - 1),
    "number of many digits": b"I" + b"9" * 100_000 + b"\n",
    "matrix of huge shape": name("scipy.sparse.coo_matrix")
    + b")\x81"
    + operation({"_shape": (2**31, 2**31), "data": 0})
    + b"b",
    "list that contains itself": b"]q\0h\0a",
    "dictionary that contains itself": b"}q\0K\x01h\0s",
    "deep lists": b"]" * 5000 + b"a" * 4999,
    "deep tuples": b")" + b"\x85" * 100_000,
    "deep key": b"})" + b"\x85" * 100_000 + b"Ns",
    "key that takes forever": b"})" + b"2\x86" * 60 + b"Ns",
    "laughter": b")" + b"2\x86" * 60,
    "shared in many copies": operation((*([0] * 2000),))
    + b"q\0"
    + b"".join(name("builtins.set") + b"h\0\x85R" for _ in range(2000)),
    "buffers out of band": b"\x80\x05\x97",
    "persistent name": b"P1\n",
    "extension": b"\x82\x01",
    "protocol 6": b"\x80\x06N",
    "tuple of nothing": b"\x85",
    "mark of nothing": b"t",
    "keys without values": b"}(K\x01u",
    "text that is not UTF-8": b"X\x02\0\0\0\xff\xff",
    "string without quotes": b"Sa\n",
    "memo of nothing": b"h\x07",
    "no end": b"K\x01",
}


@pytest.mark.parametrize("form", FORGED)
@pytest.mark.parametrize("within", [load_pickle, load_npy])
def test_forged_values_are_refused(
    tmp_path: Path, form: str, within: Callable[[Path], object]
) -> None:
    stream = FORGED[form] + (b"." if form != "no end" else b"")
    if within is load_npy:
        stream = npy_header("{'descr': '|O', 'fortran_order': False, 'shape': ()}") + stream
    message = refusal(tmp_path / "body.pkl", stream, within)
    assert len(message) < 400


def refusal(path: Path, content: bytes, load: Callable[[Path], object]) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        load(path)
    message = str(refused.value)
    assert message.isprintable()
    assert not isinstance(refused.value.__cause__, MemoryError)
    return message


def test_function_by_its_address_is_not_called(tmp_path: Path) -> None:
    """A number whose bytes are the address of a function was that function."""
    mark = tmp_path / "mark"
    address = raw(struct.pack("<Q", id(os.system)))
    function = call("numpy.core.multiarray.scalar", dtype("O8"), address)
    stream = function + operation((f"touch '{mark}'",)) + b"R."
    assert "objects made of bytes" in refusal(tmp_path / "body.pkl", stream, load_pickle)
    assert not mark.exists()


def test_names_in_messages_fit_on_a_line(tmp_path: Path) -> None:
    stream = operation("a\n\x1b[31m") + operation("b" * 10_000) + b"\x93."
    message = refusal(tmp_path / "body.pkl", stream, load_pickle)
    assert "refused to run 'a??[31m.bbb" in message
    assert len(message) < 400


def test_dtypes_of_all_kinds(tmp_path: Path) -> None:
    arrays = [
        np.array([1, 2], ">i2"),
        np.array(["a", "bc"], ">U2"),
        np.array([True, False]),
        np.array([1 + 2j, np.nan]),
        np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
        np.zeros((0, 3), "<f4"),
        np.array(3.0),
    ]
    for protocol in range(6):
        read: Any = load_pickle(write(tmp_path / "a.pkl", [*arrays, *arrays], protocol))
        for found, wanted in zip(read, [*arrays, *arrays], strict=True):
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype or found.dtype.newbyteorder() == wanted.dtype
            assert protocol == 5 or found.flags.writeable
    np.savez(tmp_path / "a.npz", *arrays)
    for found, wanted in zip(load_npz(tmp_path / "a.npz").values(), arrays, strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == wanted.dtype


@pytest.mark.parametrize(
    "array",
    [
        np.array([(1, (2, 3), "x")], [("a", ">f4"), ("b", "<i2", (2,)), ("c", "U1")]),
        np.array(["2026-01-02"], "M8[D]"),
        np.array([5], "m8[10us]"),
        np.zeros(2, "V4"),
    ],
    ids=str,
)
def test_arrays_with_fields_or_dates_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", a=array)
    with pytest.raises(UserError, match=r"of an unknown kind|not that of an array"):
        load_npz(tmp_path / "a.npz")
    for protocol in range(6):
        with pytest.raises(UserError, match="an array of an unknown kind"):
            load_pickle(write(tmp_path / "a.pkl", array, protocol))


def test_long_content_crosses_the_window(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lengths = [2**20 - 40, 3 * 2**20, 5, 2**20 + 1, 0, 700_000, 700_000]
    content = [
        *(rng.integers(0, 256, length).astype(np.uint8) for length in lengths),
        *(chr(97 + i % 26) * (i % 600) for i in range(20_000)),
        "ö" * 2**21,
        b"b" * (2**21 + 3),
    ]
    for protocol in range(6):
        path = write(tmp_path / "a.pkl", content, protocol)
        np.savez(tmp_path / "a.npz", objects=np.array([*content, None], dtype=object))
        for read in (load_pickle(path), list(load_npz(tmp_path / "a.npz")["objects"][:-1])):
            assert isinstance(read, list)
            for found, wanted in zip(read, content, strict=True):
                np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("protocol", range(6))
def test_long_lists_of_one_kind(tmp_path: Path, protocol: int) -> None:
    shared = ["male", "female", "n\u00e9utre"]
    content = {
        "bytes": list(range(256)) * 5,
        "short numbers": list(range(300, 5000)),
        "all numbers": [(-7) ** (k % 12) * (k % 300) for k in range(3000)],
        "floats": [k / 7 for k in range(1500)],
        "texts": [f"image_{k}.jpg" for k in range(3000)],
        "other texts": ["\u00e4" * (k % 300) + "\ud800" * (k % 2) for k in range(1200)],
        "texts that look like operations": ["\x8c\x02ab", "", "h", "K\x01K\x01"] * 500,
        "references": [shared[k % 3] for k in range(2500)],
        "mixed": [k if k % 10 else str(k) for k in range(2500)],
        "few": [[1, 2, 3], [1.5] * 9, ["a"], ["a", 1], [300] * 9, [70_000] * 9, [None] * 9],
        "flags": [k % 3 == 0 for k in range(1500)],
    }
    assert load_pickle(write(tmp_path / "a.pkl", content, protocol)) == content
    np.savez(tmp_path / "a.npz", meta=np.array(content))
    assert load_npz(tmp_path / "a.npz")["meta"].item() == content


def test_strings_of_python_2(tmp_path: Path) -> None:
    floats = np.arange(300.0)
    text = floats.tobytes().decode("latin-1")
    binary = b"T" + struct.pack("<I", len(text)) + floats.tobytes()
    quoted = (
        b"S'"
        + floats.tobytes().replace(b"\\", b"\\\\").replace(b"'", b"\\'").replace(b"\n", b"\\n")
        + b"'\n"
    )
    for items in (binary, quoted):
        (tmp_path / "a.pkl").write_bytes(array((300,), FLOAT, items) + b".")
        np.testing.assert_array_equal(load_pickle(tmp_path / "a.pkl"), floats)
    (tmp_path / "a.pkl").write_bytes(b"(lp0\nI01\naL12L\naF1.5\naVa\\u00e4\naU\x01\xe4a.")
    assert load_pickle(tmp_path / "a.pkl") == [True, 12, 1.5, "aä", "ä"]


def test_shared_values_stay_shared(tmp_path: Path) -> None:
    row = [np.zeros(3), {"a": 1}]
    read: Any = load_pickle(write(tmp_path / "a.pkl", {"one": row, "other": row}))
    assert read["one"] is read["other"]


# ---- arrays and archives that lie


def npy_header(text: str, version: int = 1) -> bytes:
    content = text.encode("utf-8" if version == 3 else "latin-1")
    length = struct.pack("<H" if version == 1 else "<I", len(content))
    return b"\x93NUMPY" + bytes([version, 0]) + length + content


def npy(descr: str = "'<f8'", shape: str = "(1,)", rest: str = "") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, {rest}}}"
    return npy_header(header) + bytes(64)


WRONG_ARRAYS: dict[str, bytes] = {
    "negative shape": npy(shape="(-1,)"),
    "larger than the file": npy(shape="(1000000000000,)"),
    "shape that overflows": npy(shape="(4294967296, 4294967296, 2)"),
    "empty of huge shape": npy(shape="(0, 9223372036854775807)"),
    "huge number": npy(shape=f"({'9' * 5000},)"),
    "many dimensions": npy(shape=f"({'1, ' * 65})"),
    "items without bytes": npy("'<U0'", "(1000000000000,)"),
    "shape that is no tuple": npy(shape="3"),
    "shape of booleans": npy(shape="(True,)"),
    "objects in a field": npy("[('a', '|O')]"),
    "objects with others": npy("[('a', '<f8'), ('b', 'O8')]"),
    "title": npy("[(('title', 'a'), '<f8')]"),
    "equal names": npy("[('a', '<f4'), ('a', '<f4')]"),
    "offsets": npy("{'names': ['a'], 'formats': ['<f8'], 'offsets': [-8]}"),
    "unknown code": npy("'<q9'"),
    "comma": npy("'f8,O'"),
    "huge item": npy("'V99999999999'"),
    "huge array in a field": npy("[('a', '<f8', (2147483647, 2147483647))]"),
    "impossible booleans": npy_header("{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }")
    + b"\x02\xff",
    "another key": npy(rest="'more': 1"),
    "missing key": npy_header("{'descr': '<f8', 'shape': (1,)}") + bytes(8),
    "not closed": npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1,"),
    "string not closed": npy_header("{'descr': '<f8"),
    "spaces": npy_header(" " * 65_000),
    "comma without a number": npy(shape="(1,,)"),
    "call": npy_header("{'descr': __import__('os').system('true')}"),
    "deep": npy_header("(" * 60_000),
    "deep signs": npy_header("{'shape': " + "-" * 60_000 + "1}"),
    "null": npy_header("\0"),
    "empty": npy_header(""),
    "long header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
    "unknown version": b"\x93NUMPY\x09\x00\x10\x00" + bytes(64),
    "no array": b"PK" + bytes(64),
}


@pytest.mark.parametrize("form", WRONG_ARRAYS)
def test_wrong_arrays_are_refused(tmp_path: Path, form: str) -> None:
    assert "damaged" in refusal(tmp_path / "a.npy", WRONG_ARRAYS[form], load_npy)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", WRONG_ARRAYS[form])
    with pytest.raises(UserError, match="damaged"):
        load_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_all_versions(tmp_path: Path, version: int) -> None:
    two = "2" if version == 3 else "2L"  # as Python 2 wrote numbers
    for descr, order, shape in (("'>i2'", True, f"({two}, 3)"), ("'|S4'", False, "(3,)")):
        header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}   \n"
        (tmp_path / "a.npy").write_bytes(npy_header(header, version) + bytes(range(12)))
        with (tmp_path / "a.npy").open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the numbers of Python 2
            expected = np.lib.format.read_array(file)
        read = load_npy(tmp_path / "a.npy")
        assert read.dtype == expected.dtype
        np.testing.assert_array_equal(read, expected)


def archive_of(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of the same name
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for member, content in members:
                archive.writestr(member, content)
    return buffer.getvalue()


def patched(content: bytes, offset: int, value: bytes) -> bytes:
    """An archive of one member with other bytes in its entry of the index."""
    at = content.index(b"PK\x01\x02") + offset
    return content[:at] + value + content[at + len(value) :]


ARRAY = npy(shape="(8,)")
ZIP = archive_of([("a.npy", ARRAY)])
STORED = archive_of([("a.npy", ARRAY)], zipfile.ZIP_STORED)
WRONG_ARCHIVES: dict[str, bytes] = {
    "larger than it can be": patched(ZIP, 24, struct.pack("<I", 2**31)),
    "larger than it is": patched(ZIP, 24, struct.pack("<I", 4096)),
    "smaller than it is": patched(ZIP, 24, struct.pack("<I", 70)),
    "stored and larger": patched(STORED, 24, struct.pack("<I", 4096)),
    "behind the end": patched(STORED, 20, struct.pack("<II", 2**30, 2**30)),
    "encrypted": patched(ZIP, 8, b"\x01\x00"),
    "unknown compression": patched(ZIP, 10, b"\x63\x00"),
    "bz2": archive_of([("a.npy", ARRAY)], zipfile.ZIP_BZIP2),
    "lzma": archive_of([("a.npy", ARRAY)], zipfile.ZIP_LZMA),
    "said to be lzma": patched(ZIP, 10, b"\x0e\x00"),
    "damaged": ZIP.replace(ZIP[40:60], bytes(20)),
    "wrong checksum": patched(ZIP, 16, b"abcd"),
    "elsewhere": patched(ZIP, 42, struct.pack("<I", 2**31)),
    "twice": archive_of([("a.npy", ARRAY), ("a.npy", ARRAY)]),
    "twice in other words": archive_of([("a.npy", ARRAY), ("a", ARRAY)]),
    "name of two lines": archive_of([("a\n\x1b[31m.npy", ARRAY)]),
    "folder": archive_of([("a/", b"")]),
    "overlapping": (
        lambda two: (
            two[: two.rindex(b"PK\x01\x02") + 42] + bytes(4) + two[two.rindex(b"PK\x01\x02") + 46 :]
        )
    )(archive_of([("a.npy", ARRAY), ("b.npy", ARRAY)])),
    "no archive": ARRAY,
    "nothing": b"",
}


@pytest.mark.parametrize("form", WRONG_ARCHIVES)
def test_wrong_archives_are_refused(tmp_path: Path, form: str) -> None:
    refusal(tmp_path / "a.npz", WRONG_ARCHIVES[form], load_npz)


def test_zeros_that_deflate_well_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2_000_000))
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    assert not load_npz(tmp_path / "a.npz")["a"].any()


@pytest.mark.parametrize("load", [load_pickle, load_npz, load_npy])
def test_only_files_are_opened(tmp_path: Path, load: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UserError, match="cannot read"):
            load(path)


def test_hostile_files() -> None:
    """The benchmark with its 20 000 files, shortened."""
    outcome = hostile_files.attack(300, seed=1)
    assert outcome.others == []
    assert outcome.counts["read"] > 10
    assert outcome.counts["read"] + outcome.counts["refused"] == 300
