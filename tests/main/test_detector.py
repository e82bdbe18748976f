"""Where people are: boxes from files, the whole image, and YOLO itself with random weights."""

import json
import os

import numpy as np
import pytest
import torch

from configs.schema import DetectionConfig
from main.detector import BoxFileDetector, WholeImageDetector, YoloDetector, import_ultralytics
from utils.box import Box
from utils.errors import UserError
from utils.image import read_image

IMAGE = np.zeros((120, 160, 3), np.uint8)


def test_whole_image():
    ((box, score),) = WholeImageDetector()(0, IMAGE)
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
    ("text", "message"),
    [
        ("", "not readable as JSON"),
        ("[[1, 2, 3, 4]]", "expected"),
        ("{}", "no box in it"),
        ('{"0": []}', "no box in it"),
        ('{"first": [[1, 2, 3, 4]]}', "'first' is no frame number"),
        ('{"0": [1, 2, 3, 4]}', "frame 0 is no list"),
        ('{"0": [[1, 2, 3]]}', "frame 0 is no list"),
        ('{"0": [[1, 2, 3, "4"]]}', "frame 0 is no list"),
        ('{"0": [[1, 2, 3, 4], [1]]}', "frame 0 is no list"),
        ('{"0": [[1, 2, 3, null]]}', "frame 0 is no list"),
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
    for box, score in detections:
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
    assert not caplog.messages


def test_yolo_is_given_bgr(yolo_weights, monkeypatch):
    config = DetectionConfig(model_path=str(yolo_weights))
    detector = YoloDetector(config, torch.device("cpu"))
    given = []
    original = detector.model.predict
    monkeypatch.setattr(
        detector.model, "predict", lambda image, **kw: given.append(image) or original(image, **kw)
    )
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
