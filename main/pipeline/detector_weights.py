"""Weights of ultralytics' person detectors, read as numbers and a description of layers.

Ultralytics publishes whole pickled networks. Reading them as such lets a file choose which
constructors and attributes are used, even where only classes of ultralytics may be named: some of
those fetch or unpickle further files. Here every class in a file becomes an inert placeholder. Of
what it holds two things are used: the description of the layers, from which ultralytics builds the
network as it does for training, and the numbers, which are put into it.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from models.checkpoint import Placeholder, check_archive, is_stored, load_inert
from utils.files import require_regular_file


class Kind(NamedTuple):
    """A kind of network, by ultralytics' names for its parts."""

    network: str
    task: str
    predictor: str


_DETECTION: Final = Kind("DetectionModel", "detect", "models.yolo.detect.DetectionPredictor")
KINDS: Final = {
    "DetectionModel": _DETECTION,
    "YOLOv10DetectionModel": _DETECTION,
    "RTDETRDetectionModel": Kind(
        "RTDETRDetectionModel", "detect", "models.rtdetr.predict.RTDETRPredictor"
    ),
    "SegmentationModel": Kind(
        "SegmentationModel", "segment", "models.yolo.segment.SegmentationPredictor"
    ),
    "PoseModel": Kind("PoseModel", "pose", "models.yolo.pose.PosePredictor"),
}
"""Kinds that find people, by the names of their classes in files."""

_NAMES: Final = re.compile(
    r"(ultralytics(\.\w+)*|torch\.nn\.modules(\.\w+)*|pathlib(\._local)?|numpy\._?core\.multiarray)"
    r"\.\w+|numpy\.dtype|builtins\.(getattr|set|slice)|__builtin__\.(getattr|set|slice)"
)
"""What ultralytics' own files name beside PyTorch's tensors."""
_TORCH_LAYERS: Final = frozenset(
    {"Upsample", "Identity", "ConvTranspose2d", "BatchNorm2d", "MaxPool2d", "ZeroPad2d"}
)
_NO_LAYERS: Final = frozenset({"TorchVision"})
"""Of ultralytics' layers: it fetches networks by their names."""
_ACTIVATION: Final = re.compile(r"(torch\.)?nn\.[A-Z]\w*\((inplace=)?(True|False|[\d.]*)\)")
_MOST_ROWS: Final = 500
_MOST_REPEATS: Final = 100
_LARGEST_NUMBER: Final = 10_000
_LARGEST_MULTIPLE: Final = 10
_TEXT: Final = re.compile(r"(?!.*\d{5})[\w.,\[\] ]{1,40}")
"""What arguments of layers are where they are no numbers: names, or numbers after all."""
_IMAGE_SIZES: Final = range(32, 4097)


class DetectorFile(NamedTuple):
    """What is used of a file."""

    kind: Kind
    layers: dict[str, Any]
    """As in ultralytics' model .yaml files."""
    numbers: dict[str, Tensor]
    image_size: int
    """Pixels of the longer side for which the network was trained."""


def read_detector(path: Path) -> DetectorFile:
    """Read a .pt file of ultralytics; nothing that it names is loaded.

    Raises:
        UserError, RuntimeError, ValueError, TypeError, KeyError, pickle.UnpicklingError, ...: it is
            missing, damaged, or holds something else. The caller adds what to do.
    """
    require_regular_file(path)
    check_archive(path)
    content = load_inert(path, _NAMES)
    if not isinstance(content, dict):
        raise ValueError("it holds no dictionary; is it a file of ultralytics?")
    network = content.get("ema") or content.get("model")
    if not isinstance(network, Placeholder):
        raise ValueError("there is no network of ultralytics in it")
    name = type(network).__name__
    if name not in KINDS:
        raise ValueError(f"a {name} detects no people; give one of {', '.join(KINDS)}")
    numbers = dict(_numbers(network))
    if not all(map(is_stored, numbers.values())):
        raise ValueError("its tensors are larger than what is stored of them")
    options = content.get("train_args")
    size = options.get("imgsz") if isinstance(options, dict) else None
    return DetectorFile(
        KINDS[name],
        _checked(network.state.get("yaml")),
        numbers,
        size if isinstance(size, int) and size in _IMAGE_SIZES else 640,
    )


def open_detector(path: Path, ultralytics: ModuleType, **settings: object) -> Any:
    """Ultralytics' predictor for the network of a file; raises what `read_detector` does.

    Args:
        settings: of the predictor, by ultralytics' names.
    """
    file = read_detector(path)
    module, _, name = file.kind.predictor.rpartition(".")
    predictor = getattr(import_module(f"ultralytics.{module}"), name)(
        overrides={
            # What ultralytics itself sets when it is asked for people in an image.
            "mode": "predict",
            "batch": 1,
            "rect": True,
            "save": False,
            "task": file.kind.task,
            "imgsz": file.image_size,
            **settings,
        }
    )
    predictor.setup_model(model=_build(file, ultralytics), verbose=False)
    return predictor


def _build(file: DetectorFile, ultralytics: ModuleType) -> nn.Module:
    """The network of a file, on the CPU, in evaluation mode."""
    tasks = ultralytics.nn.tasks
    _check_layers(file.layers, ultralytics)
    channels = file.layers.get("channels", file.layers.get("ch", 3))
    if channels != 3:
        raise ValueError(f"it takes images of {channels} channels, not of 3")
    with torch.device("meta"):  # so that no memory is taken which the file does not fill
        layers = tasks.parse_model(deepcopy(file.layers), ch=3, verbose=False)[0]
    numbers = {}
    for name, wanted in nn.ModuleDict({"model": layers}).state_dict().items():
        given = file.numbers.get(name)
        if given is None or given.shape != wanted.shape:
            found = "missing" if given is None else f"of shape {tuple(given.shape)}"
            raise ValueError(f"its {name} is {found}, expected {tuple(wanted.shape)}")
        numbers[name] = given
    network: nn.Module = getattr(tasks, file.kind.network)(file.layers, verbose=False)
    network.load_state_dict(numbers)
    return network.eval()


def _numbers(module: Placeholder, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a pickled module and of those in it; RecursionError in a loop."""
    state = module.state
    for name, value in {**state.get("_parameters", {}), **state.get("_buffers", {})}.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value.detach()
    for name, child in state.get("_modules", {}).items():
        if isinstance(child, Placeholder):
            yield from _numbers(child, f"{prefix}{name}.")


def _checked(layers: object) -> dict[str, Any]:
    """The description of layers, if it is one in form; its rows are [from, repeats, name, args]."""
    if not isinstance(layers, dict):
        raise ValueError("the description of its layers is missing")
    layers = deepcopy(layers)
    for value in _leaves(layers):
        if isinstance(value, int | float) and not -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER:
            raise ValueError("a number in the description of its layers is too large")
    activation = layers.get("activation")
    if activation is not None and not _ACTIVATION.fullmatch(str(activation)):
        raise ValueError(f"its activation is no layer of PyTorch: {str(activation)[:60]!r}")
    multiples = [layers.get(f"{name}_multiple", 1) for name in ("depth", "width")]
    multiples += [value for scale in layers.get("scales", {}).values() for value in scale[:2]]
    rows = [*layers["backbone"], *layers["head"]]
    if (
        not 0 < len(rows) <= _MOST_ROWS
        or any(row[1] > _MOST_REPEATS for row in rows)
        or any(value > _LARGEST_MULTIPLE for value in multiples)
    ):
        raise ValueError("it has too many layers, or too large ones")
    for row in rows:
        if row[2] == "Silence":  # of YOLOv9, which ultralytics has removed
            row[2] = "nn.Identity"
        for text in _leaves(row[3]):
            if isinstance(text, str) and not _TEXT.fullmatch(text):
                raise ValueError(f"an argument of a layer is {text[:60]!r}")
    return layers


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif value is None or isinstance(value, str | int | float):
        yield value
    else:
        raise ValueError(f"the description of its layers holds a {type(value).__name__}")


def _check_layers(layers: Mapping[str, Any], ultralytics: ModuleType) -> None:
    modules = ultralytics.nn.modules
    for row in (*layers["backbone"], *layers["head"]):
        name = str(row[2])
        ours = getattr(modules, name, None) if name not in _NO_LAYERS else None
        of_torch = name.removeprefix("nn.") in _TORCH_LAYERS and name.startswith("nn.")
        if not of_torch and not (isinstance(ours, type) and issubclass(ours, nn.Module)):
            raise ValueError(f"{name[:60]!r} is no layer of a detector")
