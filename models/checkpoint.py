"""Loads and saves the weights of networks; nothing from a file is executed.

Files contain the published names of weights, which the key table translates to those of our
modules. Two formats are read: the published one (`torch.save` of {'epoch', 'network', 'optimizer'})
and safetensors. Both are mapped into memory, not copied: of an 8.2 GB training checkpoint, only the
pages of the network are read, and only once.
"""

import logging
import mmap
import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.serialization import (
    add_safe_globals,
    clear_safe_globals,
    get_safe_globals,
    get_unsafe_globals_in_checkpoint,
    safe_globals,
)

from configs.schema import ModelConfig
from models.smplest_x import SMPLestX
from utils.errors import UserError, first_line
from utils.files import atomic_path, require_regular_file, wrong_download

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_PRECISIONS: Final = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_FLOAT8: Final = (
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
)
_SCALE: Final = ".scale"
"""Suffix of the name of the scales of a weight in 8 bits."""
_BYTEARRAY: Final = b"bytearray"
_BESIDE_WEIGHTS: Final = re.compile(
    r"numpy\.(_?core\.multiarray\.(scalar|_reconstruct)|ndarray|dtype|dtypes\.\w+)"
    r"|argparse\.Namespace|pathlib(\._local)?\.\w*Path"
)
"""Values that training runs save beside weights: NumPy numbers, arguments, paths."""
_NETWORK_NAMES: Final = (
    *("network", "state_dict", "model_state_dict", "model"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema"),
)
"""Names of the weights in files, in order of preference."""


class Placeholder:
    """Stands for an object of a class that is not loaded, with its state."""

    def __new__(cls, *_: object) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        """Accept and ignore the arguments of any constructor."""

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    state: Mapping[str, Any] = {}


# Parts of keys that wrappers (data parallel, torch.compile, FSDP, checkpointing) add.
_WRAPPERS: Final = re.compile(
    r"^((module|_orig_mod)\.)+|(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
# Older files -> the published form.
_OLD_PREFIXES: Final = (
    ("backbone.", "encoder."),
    ("body_rotation_net.", "body_regressor."),
    ("hand_rotation_net.", "hand_regressor."),
)
# Buffers of the body model, which are read from its own files.
_NOT_WEIGHTS: Final = ("smplx_layer.",)

# (published, ours), one-to-one, so that saved files have the published names. The first rule that
# matches the beginning of a key applies; {i} is the index of a decoder layer.
_LAYER: Final = "decoder.transformer.transformer.layers.{i}."
KEY_TABLE: Final = (
    (_LAYER + "0.norm.", "decoder.layers.{i}.self_norm."),
    (_LAYER + "0.fn.to_out.0.", "decoder.layers.{i}.self_attention.to_out."),
    (_LAYER + "0.fn.", "decoder.layers.{i}.self_attention."),
    (_LAYER + "1.norm.", "decoder.layers.{i}.cross_norm."),
    (_LAYER + "1.fn.to_out.0.", "decoder.layers.{i}.cross_attention.to_out."),
    (_LAYER + "1.fn.", "decoder.layers.{i}.cross_attention."),
    (_LAYER + "2.norm.", "decoder.layers.{i}.feed_forward_norm."),
    (_LAYER + "2.fn.net.0.", "decoder.layers.{i}.feed_forward.0."),
    (_LAYER + "2.fn.net.3.", "decoder.layers.{i}.feed_forward.2."),
    ("decoder.transformer.pos_embedding", "decoder.pos_embedding"),
    ("decoder.transformer.to_token_embedding.", "decoder.to_token_embedding."),
    ("decoder.token_conv.", "decoder.token_projection."),
    ("decoder.dec_", "heads."),
)


def read_torch(path: Path) -> dict[str, Any]:
    """The content of a file of `torch.save`, on the CPU, mapped from the file; weights only.

    Raises:
        UserError: the file is missing, damaged, not a dictionary, or would execute code.
    """
    with _damage_reported(path):
        require_regular_file(path, "checkpoint")
        # Files from before PyTorch 1.6 are not zip archives and cannot be mapped.
        mappable = zipfile.is_zipfile(path)
        if mappable:
            check_archive(path)
        else:
            _check_stream(path)
        content = load_inert(path, _BESIDE_WEIGHTS, mmap=mappable)
    if not isinstance(content, dict):
        raise UserError(f"{path}: contains no dictionary of weights; is it a checkpoint?")
    return content


def load_inert(path: Path, names: re.Pattern[str], *, mmap: bool = False) -> Any:
    """The content of a file of `torch.save`, with `Placeholder`s for objects of other classes.

    Nothing that the file names is loaded or called, except for making tensors.

    Args:
        names: classes and functions that the file may name.

    Raises:
        pickle.UnpicklingError: the file names another one.
        RuntimeError, ValueError, ...: the file is damaged, see `DAMAGE`.
    """
    others = get_safe_globals()  # registered by libraries for the whole process
    clear_safe_globals()
    try:
        found = get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
        strange = sorted(name for name in found if not names.fullmatch(name))
        if strange:
            raise pickle.UnpicklingError(f"it names {strange[0][:80]}")
        placeholders: list[Any] = [
            (type(name.rpartition(".")[2], (Placeholder,), {}), name) for name in found
        ]
        with safe_globals(placeholders), warnings.catch_warnings():
            # These warn of pickles with other protocols than that of torch.save; errors are enough.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    finally:
        add_safe_globals(others)


def read_network(path: str | Path) -> dict[str, Tensor]:
    """State dict of a checkpoint under our key names, on the CPU, mapped from the file.

    Raises:
        UserError: the file is missing, damaged, not a checkpoint, or would execute code.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        require_regular_file(path, "checkpoint")
        with _damage_reported(path), safe_open(path, framework="pt") as file:
            published = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return from_published(_scaled(published))
    return from_published(require_weights(path, _network_in(path, read_torch(path))))


def _network_in(path: Path, content: dict[Any, Any]) -> dict[Any, Any]:
    """The weights of a network in the content of a file, or the whole content."""
    for name in _NETWORK_NAMES:
        if isinstance(content.get(name), dict) and content[name]:
            if name != "network":
                log.info("%s: using the weights in its '%s'", path, name)
            return content[name]
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return content
    held = ", ".join(str(key)[:40] for key in list(content)[:8])
    raise UserError(
        f"{path}: there is no 'network' in it, but: {held or 'nothing'}; "
        "is it a SMPLest-X checkpoint?"
    )


def require_weights(path: Path, state: dict[Any, Any]) -> dict[str, Tensor]:
    """Check that values from a file are weights.

    Raises:
        UserError: a key is not a name, or a value is not a plain tensor entirely in the file.
    """
    for key, value in state.items():
        if not isinstance(key, str) or not is_stored(value):
            raise UserError(f"{path}: {str(key)[:80]} is not a plain tensor; is it a checkpoint?")
    return state


def is_stored(value: object) -> bool:
    """Whether a value is a dense tensor whose numbers were all in the file."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def check_archive(path: Path) -> None:
    """Refuse content that `torch.save` never writes and `torch.load` does not read safely.

    Compressed numbers would be read as numbers when mapped, and may be a million times as long as
    the file. A bytearray is allocated with the length that the file gives, whatever it contains.

    Raises:
        ValueError: the file has such content.
        BadZipFile: the file is not an archive, or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("it is compressed, which torch.save never does")
            if member.filename.endswith(".pkl") and _BYTEARRAY in archive.read(member):
                raise ValueError("it names bytearray")


def _check_stream(path: Path) -> None:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content.find(_BYTEARRAY) >= 0:
                    raise ValueError("it names bytearray")


DAMAGE: Final = (
    SafetensorError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    struct.error,
)
"""Errors that PyTorch and safetensors raise for damaged or malicious files."""


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    """Turn errors of reading a file into a UserError of one line."""
    try:
        yield
    except (pickle.UnpicklingError, *DAMAGE) as error:
        instead = wrong_download(path)
        if instead is not None:
            raise UserError(f"{path}: {instead}") from None
        if isinstance(error, pickle.UnpicklingError):
            raise UserError(
                f"{path}: not read, it is damaged or holds more than weights "
                f"({_refusal(error)}); nothing of it was executed"
            ) from None
        raise UserError(
            f"{path}: damaged or not a checkpoint ({first_line(error)}); download it again"
        ) from None


def _refusal(error: pickle.UnpicklingError) -> str:
    """Why a pickle was refused, without PyTorch's advice to load it unsafely."""
    text = str(error)
    named = re.search(r"GLOBAL (\S{1,80})", text)
    if named:
        return f"it names {named[1]}"
    return "no weights" if "weights_only" in text else first_line(error)


def _mismatch(network: SMPLestX, state: dict[str, Tensor]) -> str | None:
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    both = expected.keys() & given.keys()
    wrong_shape = [k for k in both if expected[k] != given[k]]
    wrong_type = [k for k in both if state[k].dtype not in _PRECISIONS]
    problems = {
        "missing": sorted(expected.keys() - given.keys()),
        "unknown": sorted(given.keys() - expected.keys()),
        "of another shape": sorted(wrong_shape),
        "no floating-point numbers": sorted(wrong_type),
    }
    found = [f"{len(keys)} {what} (e.g. {keys[0]})" for what, keys in problems.items() if keys]
    return ", ".join(found) if found else None


def small_state(network: SMPLestX) -> dict[str, Tensor]:
    """The weights of a network in fp16, and 1 x 1 convolutions that are never trained in 8 bits.

    Weights in 8 bits have a scale for each output channel, with `.scale` after their name.
    """
    state = {key: value.half() for key, value in network.state_dict().items()}
    for name, module in network.named_modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1):
            continue
        if module.weight.requires_grad:
            continue
        weight = module.weight.detach().float()
        scale = weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-9) / 127
        state[f"{name}.weight"] = (weight / scale).round().to(torch.int8)
        state[f"{name}.weight{_SCALE}"] = scale
    return state


def _scaled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in 8 bits multiplied by their scales, see `small_state`."""
    scales = {
        key: state[key + _SCALE]
        for key, value in state.items()
        if value.dtype == torch.int8 and key + _SCALE in state
    }
    of_weights = {key + _SCALE for key in scales}
    return {
        key: value * scales[key] if key in scales else value
        for key, value in state.items()
        if key not in of_weights
    }


def load_network(
    config: ModelConfig, path: str | Path, precision: torch.dtype = torch.float32
) -> SMPLestX:
    """The network of `config` with the weights of a checkpoint, strictly, in evaluation mode.

    In the precision of the file, the parameters are pages of the file (copied on write); another
    precision or device copies them one by one. In both cases, memory contains the network once.

    Raises:
        UserError: as `read_network`, or the weights do not fit `config`.
    """
    with torch.device("meta"):  # weights without memory
        network = SMPLestX(config)
    state = _fitting(read_network(path), network, path)
    network.load_state_dict(state, strict=True, assign=True)
    return network.to_precision(precision).eval()


def load_weights(network: SMPLestX, path: str | Path) -> None:
    """Copy the weights of a checkpoint into a network, strictly.

    Raises:
        UserError: as `load_network`.
    """
    network.load_state_dict(_fitting(read_network(path), network, path), strict=True)


def _fitting(state: dict[str, Tensor], network: SMPLestX, path: str | Path) -> dict[str, Tensor]:
    state = {key: v.float() if v.dtype in _FLOAT8 else v for key, v in state.items()}
    mismatch = _mismatch(network, state)
    if mismatch:
        raise UserError(
            f"{path}: does not fit the config beside it: {mismatch}; "
            "use the config that belongs to these weights"
        )
    return state


def save_safetensors(state: dict[str, Tensor], path: str | Path, metadata: dict[str, str]) -> None:
    """Write a state dict (our names) under the published names, atomically."""
    published = {key: value.contiguous() for key, value in to_published(state).items()}
    with atomic_path(Path(path)) as partial:
        partial.touch()
        usual_mode = partial.stat().st_mode
        try:
            save_file(published, partial, metadata={"format": "pt", **metadata})
        except SafetensorError as error:
            raise _not_written(error, path) from error
        partial.chmod(usual_mode)  # the library makes it readable only by its owner


def save_torch(content: Any, path: Path, *, durable: bool = False) -> None:
    """Write a file that `torch.load` can read with weights_only, atomically.

    Args:
        durable: see `atomic_path`.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    with atomic_path(path, durable=durable) as partial:
        try:
            with partial.open("wb") as file:
                torch.save(content, file)
        except (RuntimeError, OSError) as error:
            raise _not_written(error, path) from error


def _not_written(error: Exception, path: str | Path) -> OSError:
    """The OSError behind an error of a library, from its context or its text."""
    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else 0
    for cause in (error, error.__context__):
        if isinstance(cause, OSError) and cause.errno:
            number = cause.errno
    reason = os.strerror(number) if number else "could not be written whole"
    return OSError(number, reason, str(path))


def _translate(key: str, table: Iterable[tuple[str, str]]) -> str:
    for source, target in table:
        pattern = re.escape(source).replace(re.escape("{i}"), r"(?P<i>\d+)")
        match = re.match(pattern, key)
        if match:
            return target.format(**match.groupdict()) + key[match.end() :]
    return key


def from_published(state: Mapping[str, Value]) -> dict[str, Value]:
    """A published (or older) state dict under our names, without buffers of the body model."""
    ours = {}
    for key, value in state.items():
        key = _WRAPPERS.sub("", key)
        for old, new in _OLD_PREFIXES:
            if key.startswith(old):
                key = new + key.removeprefix(old)
        if not key.startswith(_NOT_WEIGHTS):
            ours[_translate(key, KEY_TABLE)] = value
    return ours


def to_published(state: Mapping[str, Value]) -> dict[str, Value]:
    """Our state dict under the published names, without a wrapper's `module.`."""
    inverse = [(ours, published) for published, ours in KEY_TABLE]
    return {_translate(key, inverse): value for key, value in state.items()}
