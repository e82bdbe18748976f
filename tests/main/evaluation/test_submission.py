"""Submissions of tiny splits: what is written is right and passes the check."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from configs.reader import load_config
from datasets.cache import open_dataset
from datasets.sample import evaluation_sample, read_pixels
from datasets.sources import SOURCES
from human_models.body import BodyLibrary
from human_models.files import STAND_IN, find_model_folder
from human_models.joints import JOINTS, MODEL_JOINTS
from human_models.safe_pickle import load_pickle
from main.evaluation.submission import people_of_table
from main.pipeline import detection
from main.pipeline.detection import Detection
from main.pipeline.estimator import Estimator
from main.submit import main
from models.checkpoint import load_network
from utils.camera import Box, Camera

PARITY = Path(__file__).parents[2] / "parity"
WEIGHTS = PARITY / "snapshot_fp16.pth.tar"
SIZE = (320, 180)
BOXES = [(60, 20, 70, 140), (180, 30, 60, 120)]
SHARED = [name for name in MODEL_JOINTS[:24] if name in JOINTS]
IN_RECORD = [MODEL_JOINTS.index(name) for name in SHARED]
IN_PERSON = [JOINTS.index(name) for name in SHARED]


def write_image(path, seed):
    """A smooth picture, so that every network input differs."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 10, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.resize(small, SIZE))


def humandata(paths, boxes):
    """A test split's file: nobody's body is known."""
    return {
        "image_path": np.array(paths),
        "bbox_xywh": np.array([[*box, 1] for box in boxes], np.float32),
    }


@pytest.fixture
def data_dir(tmp_path):
    """data/ as a user has it: rows of two images, in no order."""
    (tmp_path / "annot").mkdir()
    for source, file, images in (
        ("AGORA_test", "agora_test_1.npz", ("ag_1.png", "ag_2.png")),
        ("BEDLAM_test", "bedlam_test.npz", ("s_6fps/png/q_0/q_0_01.png", "t/png/q_0/q_0_01.png")),
    ):
        for seed, image in enumerate(images):
            write_image(tmp_path / "img" / SOURCES[source].images / image, seed)
        rows = humandata([images[0], images[1], images[0]], [BOXES[0], BOXES[1], BOXES[1]])
        np.savez(tmp_path / "annot" / file, **rows)
    return tmp_path


@pytest.fixture
def run(tmp_path, data_dir):
    def run_submit(server, *arguments):
        overrides = {
            "data.data_dir": data_dir,
            "model.human_model_path": STAND_IN,
            "test.test_batch_size": 2,
        }
        sets = [f"--set={key}={value}" for key, value in overrides.items()]
        output = ("--output", tmp_path / "out" / "upload.zip")
        return main([server, *sets, *map(str, (*output, WEIGHTS, *arguments))])

    return run_submit


@pytest.fixture(scope="module")
def estimator():
    config = load_config(PARITY / "config_base.py", [f"model.human_model_path={STAND_IN}"])
    bodies = BodyLibrary(find_model_folder(STAND_IN))
    return Estimator(config, load_network(config.model, WEIGHTS), bodies, torch.device("cpu"))


def records(path):
    """Content of the pickles of a zip by their names."""
    folder = path.parent / "unpacked"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
        return {name: load_pickle(folder / name) for name in archive.namelist()}


def write_boxes(path, boxes):
    path.write_text(json.dumps(boxes))
    return path


def test_agora_from_a_folder_of_images(run, tmp_path, estimator):
    images = [tmp_path / "test" / f"ag_{i}_1280x720.png" for i in (1, 2, 10)]
    for seed, image in enumerate(images):
        write_image(image, seed)
    boxes = write_boxes(tmp_path / "boxes.json", {"0": BOXES, "1": [], "2": BOXES[:1]})
    assert run("agora", "--images", tmp_path / "test", "--boxes", boxes) == 0
    found = records(tmp_path / "out" / "upload.zip")
    assert list(found) == [
        *("predictions/ag_1_personId_0.pkl", "predictions/ag_1_personId_1.pkl"),
        "predictions/ag_10_personId_0.pkl",
    ]
    expected = [*estimator(read_pixels(images[0]), BOXES)]
    expected += estimator(read_pixels(images[2]), BOXES[:1])
    for record, person in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(
            record["joints"][IN_RECORD], person.joints_2d_px[IN_PERSON] * 12, atol=0.05
        )
        for name in ("transl", "body_pose", "betas", "left_hand_pose"):
            np.testing.assert_allclose(
                record["params"][name][0], getattr(person, name), atol=1e-4, err_msg=name
            )


def test_the_detector_finds_people_where_no_boxes_are_given(run, tmp_path, monkeypatch):
    def found(index, image):
        assert image.shape == (*SIZE[::-1], 3)
        return [Detection(Box(*box), 0.9) for box in BOXES[index:]]

    monkeypatch.setattr(detection, "MoveNetDetector", lambda config: found)
    monkeypatch.setattr(detection, "YoloDetector", lambda config, device: found)
    for i in range(3):
        write_image(tmp_path / "test" / f"ag_{i}.png", i)
    assert run("agora", "--images", tmp_path / "test") == 0
    names = ["ag_0_personId_0.pkl", "ag_0_personId_1.pkl", "ag_1_personId_0.pkl"]
    assert [Path(name).name for name in records(tmp_path / "out" / "upload.zip")] == names


def test_bedlam_from_a_folder_of_scenes(run, tmp_path, estimator):
    image = tmp_path / "test" / "s_6fps" / "png" / "q_0" / "q_0_01.png"
    write_image(image, 0)
    boxes = write_boxes(tmp_path / "boxes.json", {"0": BOXES})
    assert run("bedlam", "--images", tmp_path / "test", "--boxes", boxes) == 0
    found = records(tmp_path / "out" / "upload.zip")
    assert list(found) == [f"predictions/s_6fps_frameID_q_0_01_personId_{k}.pkl" for k in (0, 1)]
    for record, person in zip(found.values(), estimator(read_pixels(image), BOXES), strict=True):
        np.testing.assert_allclose(record["verts"], person.vertices_m, atol=1e-4)
        np.testing.assert_allclose(
            record["allSmplJoints3d"][IN_RECORD], person.joints_3d_m[IN_PERSON], atol=1e-4
        )
        np.testing.assert_allclose(
            record["joints"][IN_RECORD], person.joints_2d_px[IN_PERSON], atol=5e-3
        )


BEDLAM_STEMS = [("s_6fps", 0), ("t", 0), ("s_6fps", 1)]


@pytest.mark.parametrize(
    ("server", "names"),
    [
        ("agora", ["ag_1_personId_0", "ag_2_personId_0", "ag_1_personId_1"]),
        ("bedlam", [f"{scene}_frameID_q_0_01_personId_{k}" for scene, k in BEDLAM_STEMS]),
    ],
)
def test_from_humandata(run, tmp_path, caplog, server, names):
    assert run(server) == 0
    found = records(tmp_path / "out" / "upload.zip")
    assert list(found) == [f"predictions/{name}.pkl" for name in names]
    joints = [record["joints"] for record in found.values()]
    assert all((joints[i] != joints[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))
    assert "open body (stand-in)" in caplog.text
    assert f"upload.zip for {server}: 2 images, 3 people, 0 errors" in caplog.text


def test_rows_are_cut_out_as_for_a_benchmark(data_dir, estimator):
    source = SOURCES["AGORA_test"]
    table = open_dataset(source, "test", data_dir)
    folder = data_dir / "img" / source.images
    model = estimator.config.model
    people = list(people_of_table(table, folder, estimator))
    assert len(people) == 3
    for instance, person in zip(table, people, strict=True):
        sample = evaluation_sample(instance, folder, estimator.config, estimator.bodies)
        np.testing.assert_array_equal(person.crop.pixels, sample["input_img"])
        camera = Camera(model.focal, model.princpt)
        focal, princpt = camera.in_image(person.crop.box, model.input_body_shape)
        np.testing.assert_allclose(focal, sample["meta_focal"])
        np.testing.assert_allclose(princpt, sample["meta_principal_pt"])
        assert person.image_size == SIZE


def test_the_interval_of_a_config_does_not_thin_a_submission(run, tmp_path):
    assert run("agora", "--set=data.AGORA_test_test_sample_interval=2") == 0
    assert len(records(tmp_path / "out" / "upload.zip")) == 3


@pytest.mark.parametrize(
    ("server", "arguments", "message"),
    [
        ("agora", ("--images", "no_such_folder"), "no images in it"),
        ("agora", ("--boxes", "boxes.json"), "--images"),
        ("agora", ("--images", "{}/flat", "--boxes", "{}/other.json"), "nobody was found"),
        ("bedlam", ("--images", "{}/flat", "--boxes", "{}/boxes.json"), "SCENE/png/SEQUENCE"),
        ("agora", ("--images", "{}/crops", "--boxes", "{}/boxes.json"), "not a whole image"),
        ("agora", ("--set=data.data_dir=no_data",), "agora_test_"),
        ("agora", ("--output", "{}/upload.tar"), "end the name in"),
        ("agora", ("7",), "no training run"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    run, tmp_path, capsys, server, arguments, message
):
    write_image(tmp_path / "flat" / "a.png", 0)
    square = np.zeros((99, 99, 3), np.uint8)
    (tmp_path / "crops").mkdir()
    cv2.imwrite(str(tmp_path / "crops" / "a_pid_0.png"), square)
    write_boxes(tmp_path / "boxes.json", {"0": BOXES[:1]})
    write_boxes(tmp_path / "other.json", {"5": BOXES[:1]})
    assert run(server, *(word.format(tmp_path) for word in arguments)) == 2
    (line,) = [k for k in capsys.readouterr().err.splitlines() if k.startswith("error: ")]
    assert message in line
    assert not list(tmp_path.rglob("upload.*"))


def test_the_check_as_a_command(run, tmp_path, capsys):
    assert run("agora") == 0
    path = tmp_path / "out" / "upload.zip"
    assert main(["check", str(path), "--server", "agora", "--verbose"]) == 0
    capsys.readouterr()
    assert main(["check", str(path), "--server", "bedlam"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert sum("params: bedlam accepts only verts" in line for line in lines) == 3
    assert "2 images, 3 people, 6 errors" in lines[-1]  # those of the names too
    assert main(["check", str(tmp_path / "no.zip"), "--server", "agora"]) == 2
    assert main(["check", str(path)]) == 2
