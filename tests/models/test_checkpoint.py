"""Weights in every form they come in, and files that are refused."""

import argparse
import errno
import os
import pickle
import resource
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch
from safetensors import safe_open

from configs.reader import load_config
from models.checkpoint import (
    Placeholder,
    load_network,
    read_network,
    read_torch,
    save_safetensors,
    save_torch,
    small_state,
    to_published,
)
from models.smplest_x import SMPLestX
from utils.errors import UserError

CONFIG = load_config(Path(__file__).parents[2] / "configs" / "config_debug.py").model


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(3)
    return SMPLestX(CONFIG).state_dict()


def write(path, state, prefix="module.", **more):
    network = {prefix + key: value for key, value in to_published(state).items()}
    torch.save({"epoch": 4, "network": network, **more}, path)
    return path


def assert_holds(network, state):
    loaded = network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_published_form(tmp_path, state):
    moments = {"state": {0: {"exp_avg": torch.zeros(1000)}}, "param_groups": []}
    path = write(tmp_path / "x.pth.tar", state, optimizer=moments)
    network = load_network(CONFIG, path)
    assert_holds(network, state)
    assert not network.training


def test_form_without_prefix_and_with_buffers_of_the_body(tmp_path, state):
    path = tmp_path / "x.pth.tar"
    network = {**to_published(state), "smplx_layer.faces_tensor": torch.zeros(3)}
    torch.save({"network": network}, path)
    assert_holds(load_network(CONFIG, path), state)


def test_form_from_before_zip_archives(tmp_path, state):
    path = tmp_path / "x.pth.tar"
    torch.save({"network": to_published(state)}, path, _use_new_zipfile_serialization=False)
    assert_holds(load_network(CONFIG, path), state)


def test_safetensors_carry_published_names(tmp_path, state):
    save_safetensors(state, tmp_path / "x.safetensors", {"source": "here"})
    assert_holds(load_network(CONFIG, tmp_path / "x.safetensors"), state)


def test_half_precision_file_loads_as_fp32(tmp_path, state):
    path = write(tmp_path / "x.pth.tar", {k: v.half() for k, v in state.items()})
    network = load_network(CONFIG, path)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_parameters_are_the_pages_of_the_file(tmp_path, state):
    path = write(tmp_path / "x.pth.tar", state)
    network = load_network(CONFIG, path)
    address = network.encoder.pos_embed.data_ptr()
    mapped = [
        line for line in Path("/proc/self/maps").read_text().splitlines() if "x.pth.tar" in line
    ]
    ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in mapped]
    assert any(start <= address < end for start, end in ranges)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, state):
    path = write(tmp_path / "x.pth.tar", state, optimizer=Payload(tmp_path / "ran"))
    with pytest.raises(UserError, match="more than weights"):
        read_network(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["x.pth.tar", "x.safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_damaged_file_is_one_line(tmp_path, state, name, keep):
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_safetensors(state, path, {})
    else:
        write(path, state)
    size = int(keep * path.stat().st_size) if isinstance(keep, float) else keep
    os.truncate(path, size)
    with pytest.raises(UserError, match=r"damaged or not a checkpoint|more than weights") as error:
        read_network(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"network": 3}])
def test_other_content_is_named(tmp_path, content):
    torch.save(content, tmp_path / "x.pth.tar")
    with pytest.raises(UserError, match=r"no 'network'|no dictionary"):
        read_network(tmp_path / "x.pth.tar")


def test_missing_file(tmp_path):
    for name in ("x.pth.tar", "x.safetensors"):
        with pytest.raises(UserError, match="no such checkpoint"):
            read_network(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("encoder.pos_embed"), "1 missing .*pos_embed"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 unknown .*extra"),
        (lambda s: s.update({"encoder.pos_embed": torch.zeros(1, 2, 3)}), "1 of another shape"),
    ],
)
def test_weights_of_another_config_are_refused(tmp_path, state, change, message):
    changed = dict(state)
    change(changed)
    path = write(tmp_path / "x.pth.tar", changed)
    with pytest.raises(UserError, match=message):
        load_network(CONFIG, path)


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def tensor_of(offset, size, stride):
    """A tensor over ten stored numbers, which may say that it has others."""
    storage = torch.storage.TypedStorage(
        wrap_storage=torch.arange(10.0).untyped_storage(), dtype=torch.float32, _internal=True
    )
    hooks = OrderedDict()
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, hooks)


WRONG_TENSORS = {
    "beyond its storage": tensor_of(0, (2 * 10**9,), (1,)),
    "behind its storage": tensor_of(10**6, (10,), (1,)),
    "before its storage": tensor_of(-5, (10,), (1,)),
    "backwards": tensor_of(9, (10,), (-1,)),
    "of negative size": tensor_of(0, (-10,), (1,)),
    "of overflowing stride": tensor_of(2**62, (10,), (2**62,)),
    "expanded": tensor_of(0, (10**12,), (0,)),
    "sparse": torch.eye(3).to_sparse(),
    "sparse of wrong indices": Call(
        torch._utils._rebuild_sparse_tensor,
        torch.sparse_coo,
        (torch.tensor([[0, 100]]), torch.ones(2), torch.Size([3]), False),
    ),
    "nowhere": torch.zeros(3, device="meta"),
    "number": 3,
    "long bytes": Call(bytearray, 2**40),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", WRONG_TENSORS)
@pytest.mark.filterwarnings("ignore")
def test_wrong_tensor_is_one_line(tmp_path, kind, zipped):
    path = tmp_path / "x.pth.tar"
    content = {"network": {"a": WRONG_TENSORS[kind]}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError) as error:
        read_network(path)
    assert "\n" not in str(error.value)


def test_keys_that_are_no_names_are_refused(tmp_path):
    torch.save({"network": {3: torch.zeros(3)}}, tmp_path / "x.pth.tar")
    with pytest.raises(UserError, match="3 is not a plain tensor"):
        read_network(tmp_path / "x.pth.tar")


def test_integers_are_no_weights(tmp_path, state):
    changed = {**state, "encoder.pos_embed": state["encoder.pos_embed"].int()}
    with pytest.raises(UserError, match=r"1 no floating-point numbers .*pos_embed"):
        load_network(CONFIG, write(tmp_path / "x.pth.tar", changed))


def replace_members(path, method=zipfile.ZIP_STORED, pickled=None):
    """Write an archive anew, compressed or with another pickle in it."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            changed = name.endswith("data.pkl") and pickled is not None
            archive.writestr(name, pickled if changed else content)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_numbers_are_refused(tmp_path, state, method):
    path = write(tmp_path / "x.pth.tar", state)
    replace_members(path, method)
    with pytest.raises(UserError, match="compressed"):
        read_network(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80\x02.",
        b"\x80\x02a.",
        b"\x80\x02s.",
        b"\x80\x02}}b.",
        b"\x80\x02}}K\x01s.",
        b"\x80\x02}h\x09.",
        b"\x80\x02K\x05Q.",
        b"\x80\x02X\xf0\xff\xff\xff.",
        b"\x80\x02X\x01\x00\x00\x00\xff.",
        b"\x80\x02(X\x07\x00\x00\x00storageK\x01K\x02K\x03K\x04tQ.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR.",
        b"\x80\x02ctorch\ndevice\n(X\x03\x00\x00\x00abctR.",
        b"\x80\x02ccollections\nOrderedDict\n(K\x05tR.",
        b"\x80\x02ctorch._utils\n_rebuild_parameter\n(K\x01K\x01K\x01tR.",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    ],
    ids=range(16),
)
def test_damaged_pickle_is_one_line(tmp_path, pickled):
    path = tmp_path / "x.pth.tar"
    torch.save({"network": {}}, path)
    replace_members(path, pickled=pickled)
    with pytest.raises(UserError) as error:
        read_network(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ("{}", 2**62),
        ("{}", 10**8),
        ('{"x":{"dtype":"F32","shape":[10],"data_offsets":[0,40]}}', None),
        ('{"x":{"dtype":"F32","shape":[-10],"data_offsets":[0,4]}}', None),
        ('{"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', None),
        ('{"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', None),
        ("[" * 100_000, None),
    ],
)
def test_lying_safetensors_are_one_line(tmp_path, header, length):
    path = tmp_path / "x.safetensors"
    size = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + header.encode() + b"1234")
    with pytest.raises(UserError, match="damaged or not a checkpoint") as error:
        read_network(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x.pth.tar", "x.safetensors"])
def test_pipes_and_folders_are_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="named pipe"):
        read_network(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="a folder"):
        read_network(tmp_path / name)


INSTEAD = {
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 8\n",
    "a web page": b"\n <!DOCTYPE html><html>Too many requests</html>",
}


@pytest.mark.parametrize("name", ["x.pth.tar", "x.safetensors"])
@pytest.mark.parametrize("what", INSTEAD)
def test_failed_download_is_named(tmp_path, name, what):
    (tmp_path / name).write_bytes(INSTEAD[what])
    with pytest.raises(UserError, match=what) as error:
        read_network(tmp_path / name)
    assert "\n" not in str(error.value)


def test_no_message_advises_to_read_without_restriction(tmp_path, state):
    files = [write(tmp_path / "code.pth.tar", state, optimizer=Payload(tmp_path / "ran"))]
    for name, content in (("text", b"hello"), ("empty", b""), ("pickle", b"\x80\x02}.")):
        files.append(tmp_path / f"{name}.pth.tar")
        files[-1].write_bytes(content)
    legacy = tmp_path / "legacy.pth.tar"
    torch.save({"x": Payload(tmp_path / "ran")}, legacy, _use_new_zipfile_serialization=False)
    for path in [*files, legacy]:
        with pytest.raises(UserError) as error:
            read_network(path)
        assert "weights_only" not in str(error.value)
        assert str(error.value).isprintable()
    assert not (tmp_path / "ran").exists()


BESIDE = {
    "number of NumPy": np.int64(3),
    "other number of NumPy": np.float32(1.5),
    "array of NumPy": np.arange(3.0),
    "arguments": argparse.Namespace(lr=np.float64(1e-4), output=PurePosixPath("/x")),
    "path": Path("/x"),
    "path of Windows": PureWindowsPath("C:/x"),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_what_runs_keep_beside_weights_does_no_harm(tmp_path, state, kind):
    path = write(tmp_path / "x.pth.tar", state, best=BESIDE[kind], args={"all": [BESIDE[kind]]})
    assert_holds(load_network(CONFIG, path), state)
    assert type(read_torch(path)["best"]).__mro__[1] is Placeholder


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module.module.", "module._orig_mod.", "_orig_mod.module.", "module.backbone"],
)
def test_names_of_wrappers_are_taken_off(tmp_path, state, prefix):
    path = tmp_path / "x.pth.tar"
    if prefix == "module.backbone":
        network = {
            f"module.{key.replace('encoder.', 'backbone._orig_mod.', 1)}": value
            for key, value in to_published(state).items()
        }
        torch.save({"network": network}, path)
    else:
        write(path, state, prefix)
    assert_holds(load_network(CONFIG, path), state)


@pytest.mark.parametrize("name", [None, "state_dict", "model", "ema", "ema_state_dict"])
def test_weights_under_other_names(tmp_path, state, name):
    published = {f"module.{key}": value for key, value in to_published(state).items()}
    torch.save(published if name is None else {"epoch": 1, name: published}, tmp_path / "x.pth")
    assert_holds(load_network(CONFIG, tmp_path / "x.pth"), state)


def test_what_is_there_instead_of_weights_is_listed(tmp_path):
    torch.save({"optimizer": {}, "epoch": 3, 4: None}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="no 'network' in it, but: optimizer, epoch, 4;"):
        read_network(tmp_path / "x.pth")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("name", ["x.pth.tar", "x.safetensors"])
def test_other_precisions_load_as_fp32(tmp_path, state, dtype, name):
    given = {key: value.to(dtype) for key, value in state.items()}
    if name == "x.safetensors":
        save_safetensors(given, tmp_path / name, {})
    else:
        write(tmp_path / name, given)
    network = load_network(CONFIG, tmp_path / name)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert_holds(network, {key: value.float() for key, value in given.items()})


NO_WEIGHTS = {
    "None": None,
    "bool": True,
    "complex": torch.zeros(1, dtype=torch.complex64),
    "of bools": torch.zeros(1, dtype=torch.bool),
    "quantized": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("kind", NO_WEIGHTS)
@pytest.mark.filterwarnings("ignore")
def test_values_that_are_no_weights_are_one_line(tmp_path, state, kind):
    value = NO_WEIGHTS[kind]
    if kind in ("complex", "of bools"):
        value = value.expand(state["encoder.pos_embed"].shape).clone()
    path = write(tmp_path / "x.pth.tar", {**state, "encoder.pos_embed": value})
    with pytest.raises(UserError, match=r"pos_embed") as error:
        load_network(CONFIG, path)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(
    sys.platform != "linux",
    reason="elsewhere the limit on file sizes ends the process instead of refusing to write",
)
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_refused_writing_is_the_system_s_own_error(tmp_path, state, kind):
    """A limit on the size of files refuses to write like a full disk does."""
    path = tmp_path / f"a.{kind}"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            save_safetensors(state, path, {}) if kind == "safetensors" else save_torch(state, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert error.value.filename == str(path)
    assert not list(tmp_path.iterdir())


def test_convolutions_of_8_bits_have_a_scale_for_each_channel(tmp_path):
    config = load_config("configs/config_smplest_x_demo.py").model
    torch.manual_seed(0)
    network = SMPLestX(config)
    path = tmp_path / "small.safetensors"
    save_safetensors(small_state(network), path, {})
    found = load_network(config, path).state_dict()
    for key, wanted in network.state_dict().items():
        largest = wanted.abs().amax(dim=tuple(range(1, wanted.ndim)), keepdim=True)
        assert ((found[key] - wanted).abs() <= largest * (0.51 / 127)).all(), key
    one = "encoder.patch_embed.stages.3.1.expand.weight"
    with safe_open(path, framework="pt") as file:
        assert file.get_tensor(one).dtype == torch.int8
    assert not found[one].equal(network.state_dict()[one].half().float())
    assert all(value.dtype == torch.float32 for value in found.values())


def test_refusing_a_bare_pickle_of_a_newer_protocol_gives_one_error_without_warnings(
    tmp_path, recwarn
):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(CONFIG, protocol=4))
    with pytest.raises(UserError, match=str(path)):
        read_torch(path)
    assert not recwarn.list
