"""Where people are: boxes from files, the whole image, and YOLO itself with random weights."""

import json
import os
from importlib import import_module

import numpy as np
import pytest
import torch

from configs.schema import DetectionConfig
from main.pipeline.detection import (
    BoxFileDetector,
    Detectors,
    MoveNetDetector,
    WholeImageDetector,
    YoloDetector,
    import_ultralytics,
)
from utils.camera import Box
from utils.errors import UserError
from utils.image import read_image

IMAGE = np.zeros((120, 160, 3), np.uint8)


def test_whole_image():
    ((box, score, _),) = WholeImageDetector()(0, IMAGE)
    assert box == Box(0, 0, 160, 120)
    assert score == 1


def test_box_file(tmp_path):
    path = tmp_path / "boxes of 'me'.json"
    path.write_text(json.dumps({"0": [[1, 2, 3, 4], [5.5, 6, 7, 8]], "2": []}))
    detector = BoxFileDetector(path)
    assert [d.box for d in detector(0, IMAGE)] == [Box(1, 2, 3, 4), Box(5.5, 6, 7, 8)]
    assert detector(1, IMAGE) == []
    assert detector(2, IMAGE) == []


@pytest.mark.parametrize(
    ("step", "frames"),
    [(1, [0, 1, 2, 3]), (3, [0, 3, 6, 9]), (0.5, [0, 0, 1, 1]), (30 / 29.97, [0, 1, 2, 3])],
)
def test_box_file_of_another_rate(tmp_path, step, frames):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({str(frame): [[frame, 0, 9, 9]] for frame in range(10)}))
    detector = BoxFileDetector(path, step)
    assert [detector(index, IMAGE)[0].box.x for index in range(4)] == frames


def test_flags_go_before_boxes_beside_the_input_and_those_before_yolo(tmp_path, caplog):
    caplog.set_level("INFO")
    video, folder = tmp_path / "a.b.mp4", tmp_path / "frames.1"
    folder.mkdir()
    config = DetectionConfig(model_path=str(tmp_path / "no_such_detector.pt"))

    def detectors(boxes=None, named="auto"):
        return Detectors(boxes, named, config, torch.device("cpu"))

    for name in ("a.b.boxes.json", "frames.1.boxes.json", "other.json"):
        (tmp_path / name).write_text(json.dumps({"0": [[len(name), 0, 9, 9]]}))
    assert detectors().for_source(video)(0, IMAGE)[0].box.x == len("a.b.boxes.json")
    assert caplog.messages == [f"people: boxes of {tmp_path / 'a.b.boxes.json'}"]
    assert detectors().for_source(folder)(0, IMAGE)[0].box.x == len("frames.1.boxes.json")
    assert detectors(boxes=tmp_path / "other.json").for_source(video)(0, IMAGE)[0].box.x == len(
        "other.json"
    )
    assert isinstance(detectors(named="whole-image").for_source(video), WholeImageDetector)
    with pytest.raises(UserError, match=r"NAME\.boxes\.json beside the input"):
        detectors(named="yolo")
    caplog.clear()
    built_in = detectors()
    assert isinstance(built_in.for_source(tmp_path / "c.mp4"), MoveNetDetector)
    assert built_in.for_source(tmp_path / "c.mp4") is built_in.for_source(tmp_path / "d.mp4")
    (message,) = caplog.messages  # one line for all clips
    assert "built-in detector" in message
    assert "--detector yolo" in message
    (tmp_path / "no_such_detector.pt").write_bytes(b"damaged")
    lazy = detectors()
    with pytest.raises(UserError) as first:
        lazy.for_source(tmp_path / "c.mp4")
    with pytest.raises(UserError) as second:
        lazy.for_source(tmp_path / "d.mp4")
    assert first.value is second.value  # it is not tried again for every clip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not readable as JSON"),
        ("[[1, 2, 3, 4]]", "expected"),
        ("{}", "no box in it"),
        ('{"0": []}', "no box in it"),
        ('{"first": [[1, 2, 3, 4]]}', "'first' is not a frame number"),
        ('{"0": [1, 2, 3, 4]}', "frame 0 is not a list"),
        ('{"0": [[1, 2, 3]]}', "frame 0 is not a list"),
        ('{"0": [[1, 2, 3, "4"]]}', "frame 0 is not a list"),
        ('{"0": [[true, 2, 3, 4]]}', "frame 0 is not a list"),
        ('{"0": [[1, 2, 3, 4]], "0": [[5, 6, 7, 8]]}', "the key '0' appears twice"),
        ('{"7": [[1, 2, 3, 4]], "07": [[5, 6, 7, 8]]}', "contains a frame twice"),
        ('{"0": [[1, 2, 1e308, 4]]}', r"frame 0 has a box of 1e\+308 pixels"),
        ('{"0": [[1, 2, 3, 4], [1]]}', "frame 0 is not a list"),
        ('{"0": [[1, 2, 3, null]]}', "frame 0 is not a list"),
    ],
)
def test_wrong_box_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "boxes.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        BoxFileDetector(path)
    assert "\n" not in str(error.value)


def test_missing_box_file(tmp_path):
    with pytest.raises(UserError, match="no such file of boxes"):
        BoxFileDetector(tmp_path / "gone.json")


@pytest.fixture(scope="module")
def yolo_weights(tmp_path_factory):
    """A YOLO nano with random weights, in ultralytics' own file format."""
    path = tmp_path_factory.mktemp("yolo") / "person.pt"
    torch.manual_seed(0)
    import_ultralytics().YOLO("yolov8n.yaml").save(path)
    return path


def test_yolo_boxes_lie_in_the_image_and_are_scored(yolo_weights):
    config = DetectionConfig(model_path=str(yolo_weights), conf=0.0, iou_thr=0.5)
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    detections = YoloDetector(config, torch.device("cpu"))(0, image)
    assert detections, "random weights see people everywhere at confidence 0"
    for box, score, _ in detections:
        assert 0 <= score <= 1
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= 160.01
        assert box.y + box.height <= 120.01


def test_damaged_images_are_still_user_errors_beside_yolo(yolo_weights, tmp_path, caplog):
    YoloDetector(DetectionConfig(model_path=str(yolo_weights)), torch.device("cpu"))
    (tmp_path / "x.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="cannot read the image"):
        read_image(tmp_path / "x.jpg")
    assert caplog.messages == [
        "the detector's weights name no classes; class 0 is taken for a person"
    ]


def test_yolo_is_given_bgr(yolo_weights, monkeypatch):
    config = DetectionConfig(model_path=str(yolo_weights))
    detector = YoloDetector(config, torch.device("cpu"))
    given = []
    original = detector.predictor
    monkeypatch.setattr(detector, "predictor", lambda image: given.append(image) or original(image))
    image = IMAGE.copy()
    image[..., 0] = 200  # red
    detector(0, image)
    assert given[0][0, 0].tolist() == [0, 0, 200]


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize(
    "content", [b"", b"no weights at all", None], ids=["empty", "text", "code"]
)
def test_unusable_yolo_weights_are_one_line_and_run_nothing(tmp_path, content):
    path = tmp_path / "person.pt"
    if content is None:
        torch.save({"model": Payload(tmp_path / "ran")}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="person detector") as error:
        YoloDetector(DetectionConfig(model_path=str(path)), torch.device("cpu"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


class Called:
    """Pickled as a call of what a module has under a name."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def forged(change):
    """Weights of ultralytics with something in them that is not a network's."""

    def forge(path, yolo_weights):
        content = torch.load(yolo_weights, weights_only=False)
        change(content["model"], content, path)
        torch.save(content, path)

    return forge


def constructed(model, content, path):
    """The constructor of a class that ultralytics itself allows; it would read a second file."""
    distillation = import_module("ultralytics.nn.distill_model").DistillationModel
    second = path.with_name("second.pt")
    torch.save({"model": Called(os.mkdir, str(path.with_name("ran")))}, second)
    content["ema"] = Called(distillation, str(second), str(second))


def fetched(model, content, path):
    content["ema"] = Called(type(model), "https://127.0.0.1:9/yolov8n.yaml")


def layer(name, *arguments):
    def change(model, content, path):
        model.yaml["backbone"][0] = [-1, 1, name, list(arguments)]

    return change


def setting(**values):
    return lambda model, content, path: model.yaml.update(values)


def looped(model, content, path):
    model.model[0].loop = model.model[0]


def expanded(model, content, path):
    convolution = model.model[0].conv
    convolution.weight = torch.nn.Parameter(torch.zeros(1).expand(convolution.weight.shape))


FORGERIES = {
    "constructor": forged(constructed),
    "address": forged(fetched),
    "function": forged(layer("torch_safe_load", "second.pt")),
    "fetching layer": forged(layer("TorchVision", 64, "resnet18", "DEFAULT")),
    "argument": forged(layer("Conv", "__import__('os')", 3, 2)),
    "activation": forged(setting(activation="__import__('os').mkdir('ran')")),
    "activation of calls": forged(setting(activation="nn.ReLU(exit())")),
    "depth": forged(setting(depth_multiple=1000, scales={})),
    "width": forged(setting(width_multiple=1000, scales={})),
    "many layers": forged(lambda model, content, path: model.yaml["head"].extend([1] * 1000)),
    "infinite": forged(setting(nc=float("inf"))),
    "no description": forged(lambda model, content, path: delattr(model, "yaml")),
    "loop": forged(looped),
    "tensor beyond its storage": forged(expanded),
    "lacking layer": forged(lambda model, content, path: model.model.pop(3)),
    "other class": forged(
        lambda model, content, path: content.update(model=torch.nn.Conv2d(1, 1, 1))
    ),
    "old form": lambda path, yolo_weights: torch.save(
        {"model": Payload(path.with_name("ran"))}, path, _use_new_zipfile_serialization=False
    ),
    "script": lambda path, yolo_weights: torch.jit.script(torch.nn.ReLU()).save(path),
    "pipe": lambda path, yolo_weights: os.mkfifo(path),
    "folder": lambda path, yolo_weights: path.mkdir(),
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.filterwarnings("ignore")
def test_forged_yolo_weights_are_one_line_and_run_nothing(
    forgery, yolo_weights, tmp_path, monkeypatch
):
    import_ultralytics()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("reaches for the network"))
    path = tmp_path / "person.pt"
    FORGERIES[forgery](path, yolo_weights)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="person detector") as error:
        YoloDetector(DetectionConfig(model_path=str(path)), torch.device("cpu"))
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["person.yaml", "person.torchscript", "person.onnx", "person"])
def test_other_forms_of_yolo_are_refused(name, yolo_weights, tmp_path):
    path = tmp_path / name
    path.write_text("nc: 80\nbackbone: []\nhead: []\n")
    with pytest.raises(UserError, match="person detector"):
        YoloDetector(DetectionConfig(model_path=str(path)), torch.device("cpu"))


def test_network_of_a_file_is_what_ultralytics_makes_of_it(yolo_weights):
    ultralytics = import_ultralytics()
    image = np.random.default_rng(1).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    theirs = ultralytics.YOLO(yolo_weights).predict(
        image[..., ::-1], conf=0.0, iou=0.5, classes=[0], verbose=False, save=False
    )
    config = DetectionConfig(model_path=str(yolo_weights), conf=0.0, iou_thr=0.5)
    ours = YoloDetector(config, torch.device("cpu"))(0, image)
    boxes = theirs[0].boxes.xywh.numpy()
    assert len(ours) == len(boxes) > 0
    for (box, score, _), other, confidence in zip(ours, boxes, theirs[0].boxes.conf, strict=True):
        assert score == pytest.approx(float(confidence))
        assert box.x + box.width / 2 == pytest.approx(float(other[0]), abs=1e-3)
        assert box.height == pytest.approx(float(other[3]), abs=1e-3)


# ---- detectors of other kinds


def load(path):
    config = DetectionConfig(model_path=str(path), conf=0.0, iou_thr=0.5)
    return YoloDetector(config, torch.device("cpu"))


def saved(path, description, names=None):
    torch.manual_seed(0)
    model = import_ultralytics().YOLO(description)
    if names is not None:
        model.model.names = names
    model.save(path)
    return path


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        ({0: "helmet", 1: "person", 2: "vest"}, [1]),
        (["helmet", " Person"], [1]),
        ({0: "person", 1: "head", 2: "Person"}, [0, 2]),
        ({0: "swimmer"}, [0]),
        ({0: "0", 1: "1"}, [0]),
        ({}, [0]),
    ],
)
def test_class_of_people_is_the_one_called_person_or_the_only_one(names, classes, tmp_path, caplog):
    detector = load(saved(tmp_path / "x.pt", "yolo11n.yaml", names))
    assert detector.predictor.args.classes == classes
    if "swimmer" in str(names):
        assert "only class, 'swimmer', is taken for a person" in caplog.text
    elif "person" not in str(names).casefold():
        assert "class 0 is taken for a person" in caplog.text
    else:
        assert not caplog.messages


def test_detector_of_other_things_lists_its_classes(tmp_path):
    path = saved(tmp_path / "x.pt", "yolo11n.yaml", {0: "helmet", 1: "vest"})
    with pytest.raises(UserError, match=r"classes is called person; .* helmet, vest"):
        load(path)


@pytest.mark.parametrize("kind", ["-obb", "-seg", "-pose"])
def test_other_kinds_find_people_in_upright_boxes(kind, tmp_path):
    detector = load(saved(tmp_path / "x.pt", f"yolo11n{kind}.yaml", {0: "person"}))
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    detections = detector(0, image)
    assert detections
    assert all(box.width >= 0 and box.height >= 0 for box, *_ in detections)


def test_classifier_is_one_line(tmp_path):
    path = saved(tmp_path / "x.pt", "yolo11n-cls.yaml")
    with pytest.raises(UserError, match="a ClassificationModel detects no people"):
        load(path)


@pytest.fixture(scope="module")
def onnx_weights(tmp_path_factory):
    """The same network as a .pt and an .onnx file."""
    folder = tmp_path_factory.mktemp("onnx")
    names = {0: "person"}
    path = saved(folder / "x.pt", "yolo11n.yaml", names)
    model = import_ultralytics().YOLO(path)
    model.model.names = names
    model.export(format="onnx", dynamic=True, simplify=False, imgsz=64, verbose=False)
    return path


def test_onnx_export_finds_what_its_network_finds(onnx_weights):
    image = np.random.default_rng(0).integers(0, 255, (128, 160, 3), dtype=np.uint8)
    ours, theirs = load(onnx_weights)(0, image), load(onnx_weights.with_suffix(".onnx"))(0, image)
    assert len(ours) == len(theirs) > 0
    best, other = (max(found, key=lambda one: one.score) for found in (ours, theirs))
    assert other.score == pytest.approx(best.score, abs=1e-4)
    assert other.box == pytest.approx(best.box, abs=0.1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("names", "{0: 'helmet', 1: 'vest'}", "none of its classes .* helmet, vest"),
        ("names", "__import__('os').mkdir('ran')", "names of its classes are not readable"),
        ("task", "classify", "a network to classify detects no people"),
        ("forward", "x", "says 'forward' of itself"),
    ],
)
def test_strange_onnx_detector_is_one_line(onnx_weights, tmp_path, key, value, message):
    onnx = import_module("onnx")
    model = onnx.load(onnx_weights.with_suffix(".onnx"))
    known = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**known, key: value})
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "x.onnx")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.engine", "a TensorRT engine is not read; give the .pt"),
        ("x.torchscript", "a TorchScript program is not read"),
        ("x_openvino_model", "an OpenVINO model is not read"),
        ("x.onnx", "no ONNX file"),
    ],
)
def test_other_exports_are_named(name, message, tmp_path):
    path = tmp_path / name
    path.mkdir() if "." not in name else path.write_text("x")
    with pytest.raises(UserError, match=message):
        load(path)


def test_web_page_instead_of_a_detector_is_named(tmp_path):
    (tmp_path / "yolov8x.pt").write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(UserError, match="a web page"):
        load(tmp_path / "yolov8x.pt")


def test_broken_fetch_of_a_detector_leaves_nothing(tmp_path, monkeypatch):
    import_ultralytics()

    def break_off(path):
        path.write_bytes(b"half")
        raise ConnectionError("broken off")

    monkeypatch.setattr("ultralytics.utils.downloads.attempt_download_asset", break_off)
    with pytest.raises(UserError, match=r"person detector .*broken off"):
        load(tmp_path / "yolov8x.pt")
    assert list(tmp_path.iterdir()) == []


def test_too_many_boxes_in_a_frame_are_one_line(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"0": [[1, 2, 3, 4]] * 1000, "7": [[1, 2, 3, 4]] * 1001}))
    with pytest.raises(UserError, match="frame 7 has 1001 boxes; at most 1000 are allowed"):
        BoxFileDetector(path)
