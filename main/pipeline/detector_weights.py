"""Weights of ultralytics' person detectors, read as numbers and a description of layers.

Exports as ONNX are read as well: they hold numbers and operations, and onnxruntime runs them.

Ultralytics publishes whole pickled networks. Reading them as such lets a file choose which
constructors and attributes are used, even where only classes of ultralytics may be named: some of
those fetch or unpickle further files. Here every class in a file becomes an inert placeholder. Of
what it holds two things are used: the description of the layers, from which ultralytics builds the
network as it does for training, and the numbers, which are put into it.
"""

import logging
import re
from ast import literal_eval
from collections.abc import Iterator, Mapping
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from models.checkpoint import Placeholder, check_archive, is_stored, load_inert
from models.deployment import read_description
from utils.files import require_regular_file

log = logging.getLogger(__name__)


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
    "OBBModel": Kind("OBBModel", "obb", "models.yolo.obb.OBBPredictor"),
}
"""Kinds that find people, by the names of their classes in files."""

_EXPORTS: Final = {
    ".engine": "a TensorRT engine",
    ".torchscript": "a TorchScript program",
    ".mlpackage": "a Core ML model",
    ".mlmodel": "a Core ML model",
    ".mnn": "an MNN model",
    ".pb": "a TensorFlow model",
    ".tflite": "a TensorFlow Lite model",
    ".xml": "an OpenVINO model",
    ".bin": "an OpenVINO model",
    "_openvino_model": "an OpenVINO model",
    "_saved_model": "a TensorFlow model",
    "_ncnn_model": "an NCNN model",
    "_paddle_model": "a PaddlePaddle model",
}
"""Other export formats of ultralytics, by the ends of the names of files and folders."""
_PERSON: Final = "person"
_MOST_NAMED: Final = 20
"""Largest number of classes in a message."""

_NAMES: Final = re.compile(
    r"(ultralytics(\.\w+)*|torch\.nn\.modules(\.\w+)*|pathlib(\._local)?|numpy\._?core\.multiarray)"
    r"\.\w+|numpy\.dtype|builtins\.(getattr|set|slice)|__builtin__\.(getattr|set|slice)"
)
"""Classes and functions that ultralytics' files name, besides PyTorch's tensors."""
_TORCH_LAYERS: Final = frozenset(
    {"Upsample", "Identity", "ConvTranspose2d", "BatchNorm2d", "MaxPool2d", "ZeroPad2d"}
)
_NO_LAYERS: Final = frozenset({"TorchVision"})
"""Excluded layers: this one downloads networks by their names."""
_ACTIVATION: Final = re.compile(r"(torch\.)?nn\.[A-Z]\w*\((inplace=)?(True|False|[\d.]*)\)")
_MOST_ROWS: Final = 500
_MOST_REPEATS: Final = 100
_LARGEST_NUMBER: Final = 10_000
_LARGEST_MULTIPLE: Final = 10
_TEXT: Final = re.compile(r"(?!.*\d{5})[\w.,\[\] ]{1,40}")
"""Allowed text in arguments of layers: names, or numbers as text."""
_IMAGE_SIZES: Final = range(32, 4097)


class DetectorFile(NamedTuple):
    """The parts of a detector's file that are used."""

    kind: Kind
    layers: dict[str, Any]
    """As in ultralytics' model .yaml files."""
    numbers: dict[str, Tensor]
    names: dict[int, str]
    """Of the classes that the network distinguishes, by their numbers."""
    image_size: int
    """Pixels of the longer side for which the network was trained."""


def read_detector(path: Path) -> DetectorFile:
    """Read a .pt file of ultralytics without loading any class that it names.

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
        raise ValueError(f"a {name[:40]} detects no people; give one of {', '.join(KINDS)}")
    numbers = dict(_numbers(network))
    if not all(map(is_stored, numbers.values())):
        raise ValueError("its tensors are larger than what is stored of them")
    options = content.get("train_args")
    size = options.get("imgsz") if isinstance(options, dict) else None
    return DetectorFile(
        KINDS[name],
        _checked(network.state.get("yaml")),
        numbers,
        _class_names(network.state.get("names")),
        size if isinstance(size, int) and size in _IMAGE_SIZES else 640,
    )


def open_detector(path: Path, ultralytics: ModuleType, **settings: object) -> Any:
    """Ultralytics' predictor of people for a .pt or .onnx file.

    Args:
        settings: of the predictor, by ultralytics' names.

    Raises:
        UserError, ValueError, ...: see `read_detector`; or no class of the network is a person.
    """
    name = path.name.lower()
    form = next((_EXPORTS[end] for end in _EXPORTS if name.endswith(end)), None)
    if form is not None and path.exists():
        raise ValueError(
            f"{form} is not read; give the .pt file it was made from, or export that as .onnx"
        )
    network: nn.Module | str
    if path.suffix.lower() == ".onnx":
        kind, names, network = *_read_onnx(path), str(path)
        image_size = 640  # for networks that take any size; others say theirs
    else:
        file = read_detector(path)
        kind, names, network = file.kind, file.names, _build(file, ultralytics)
        image_size = file.image_size
    module, _, name = kind.predictor.rpartition(".")
    predictor = getattr(import_module(f"ultralytics.{module}"), name)(
        overrides={
            # What ultralytics itself sets when it is asked for people in an image.
            "mode": "predict",
            "batch": 1,
            "rect": True,
            "save": False,
            "task": kind.task,
            "imgsz": image_size,
            "classes": person_classes(names),
            **settings,
        }
    )
    predictor.setup_model(model=network, verbose=False)
    return predictor


def _read_onnx(path: Path) -> tuple[Kind, dict[int, str]]:
    """The kind and the classes of a network that ultralytics exported."""
    require_regular_file(path)
    about = read_description(path)
    # Ultralytics makes each entry an attribute of what runs the network.
    backend = import_module("ultralytics.nn.backends.onnx").ONNXBackend
    strange = sorted(key for key in about if hasattr(backend, key))
    if strange:
        raise ValueError(f"it says {strange[0][:40]!r} of itself, as ultralytics' files do not")
    if "task" not in about:
        raise ValueError("it does not say what it does; is it a file that ultralytics exported?")
    kinds = {kind.task: kind for kind in reversed(KINDS.values())}
    if about["task"] not in kinds:
        raise ValueError(f"a network to {about['task'][:40]} detects no people")
    try:
        names = literal_eval(about.get("names", "{}"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError("the names of its classes are not readable") from None
    return kinds[about["task"]], _class_names(names)


def _class_names(given: object) -> dict[int, str]:
    """Names of classes as files give them: by numbers, or in order."""
    if isinstance(given, list | tuple):
        given = dict(enumerate(given))
    if not isinstance(given, dict):
        return {}
    return {number: str(name) for number, name in given.items() if isinstance(number, int)}


def person_classes(names: Mapping[int, str]) -> list[int]:
    """The classes that are people: those called person, else the only one there is.

    Raises:
        ValueError: there are several, and none is called so.
    """
    people = [number for number, name in names.items() if name.strip().casefold() == _PERSON]
    if people:
        return people
    if all(name == str(number) for number, name in names.items()):
        log.warning("the detector's weights name no classes; class 0 is taken for a person")
        return [0]
    if len(names) == 1:
        (number,) = names
        log.warning("the detector's only class, %r, is taken for a person", names[number][:40])
        return [number]
    shown = ", ".join(name[:40] for name in list(names.values())[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    raise ValueError(f"none of its classes is called person; they are: {shown}{more}")


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
    """Check the description of the layers, whose rows are [from, repeats, name, args]."""
    if not isinstance(layers, dict):
        raise ValueError("the description of its layers is missing")
    layers = deepcopy(layers)
    for value in _leaves(layers):
        if isinstance(value, int | float) and not -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER:
            raise ValueError("a number in the description of its layers is too large")
    activation = layers.get("activation")
    if activation is not None and not _ACTIVATION.fullmatch(str(activation)):
        raise ValueError(f"its activation is not a layer of PyTorch: {str(activation)[:60]!r}")
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
            raise ValueError(f"{name[:60]!r} is not a layer of a detector")
