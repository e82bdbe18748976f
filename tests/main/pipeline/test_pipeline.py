"""What the clips of one run share, and where their people come from."""

import json
import socket
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from human_models.joints import COCO_KEYPOINTS, JOINTS
from main.motion.result_reader import read_person
from main.pipeline.detection import boxes_beside
from main.pipeline.options import InferenceOptions
from main.pipeline.pipeline import Tools, process_clip, process_input, process_photographs
from utils.image import list_images, read_image
from utils.source import open_source
from utils.video_write import Picture, VideoWriter

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tools(untrained):
    return Tools.load(InferenceOptions(str(untrained)))


def load(path):
    with np.load(path) as file:
        return dict(file)


def test_photographs_use_the_boxes_beside_their_folder(tools, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    Image.new("RGB", (160, 120)).save(folder / "a.png")
    Image.new("RGB", (120, 160)).save(folder / "b.png")
    boxes = {"0": [[10, 10, 50, 90]], "1": [[20, 20, 40, 80]]}
    (tmp_path / "photos.boxes.json").write_text(json.dumps(boxes))
    process_photographs(folder, list_images(folder), out, tools)
    for name, frame in (("a", "0"), ("b", "1")):
        found = load(out / f"result_{name}" / "person_001.npz")["box_xywh"]
        np.testing.assert_allclose(found, boxes[frame])


def test_results_do_not_depend_on_the_number_of_workers(tools, tmp_path, monkeypatch):
    video = tmp_path / "walk.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(video, fps=10) as writer:
        for _ in range(10):
            writer.write(rng.integers(0, 255, (120, 160, 3), dtype=np.uint8))
    boxes = {k: [[10 + k, 10, 50, 90], [80, 5, 60, 110]] for k in range(10)}
    video.with_suffix(".boxes.json").write_text(json.dumps(boxes))
    monkeypatch.setattr(tools, "batch_size", 4)
    pictures: list[np.ndarray] = []
    write = VideoWriter.write

    def keep_and_write(self: VideoWriter, picture: Picture) -> None:
        pictures.append(picture.frame.to_ndarray().copy())
        write(self, picture)

    monkeypatch.setattr(VideoWriter, "write", keep_and_write)
    results = []
    for workers in (1, 3):
        monkeypatch.setattr(tools, "workers", workers)
        with open_source(video) as media:
            found = process_clip(media, tmp_path / str(workers) / "result_walk", tools)
        assert found == (10, 2)
        folder = tmp_path / str(workers)
        results.append(load(folder / "result_walk" / "person_002.npz"))
    for key, value in results[0].items():
        np.testing.assert_array_equal(value, results[1][key])
    # What the encoder is given; its own bytes may differ from run to run.
    np.testing.assert_array_equal(pictures[:10], pictures[10:])


def test_photographs_that_fail_are_named_and_give_status_1(tools, tmp_path, caplog):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    Image.new("RGB", (160, 120)).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"broken")
    (folder / "clip.mp4").touch()
    (tmp_path / "photos.boxes.json").write_text(json.dumps({"0": [[10, 10, 50, 90]]}))
    assert process_photographs(folder, list_images(folder), out, tools) == 1
    assert [path.name for path in out.glob("result_*/")] == ["result_a"]
    for said in (
        "skipped, because they are not images: 1 .mp4",
        "b.png",
        "1 of 2 images gave no result",
    ):
        assert said in caplog.text
    (folder / "b.png").unlink()
    assert process_photographs(folder, list_images(folder), out, tools) == 0


def test_boxes_follow_photographs_that_are_reduced(tools, tmp_path, monkeypatch):
    photo = tmp_path / "huge.jpg"
    Image.new("L", (12000, 9000), 90).save(photo, quality=30)
    (tmp_path / "huge.boxes.json").write_text(json.dumps({"0": [[1000, 800, 600, 1200]]}))
    monkeypatch.setattr(tools, "options", replace(tools.options, overlay=None))
    with open_source(photo) as source:
        process_clip(source, tmp_path / "result_huge", tools)
    found = load(tmp_path / "result_huge" / "person_001.npz")
    np.testing.assert_allclose(found["box_xywh"], [[500, 400, 300, 600]])
    assert found["image_size"].tolist() == [6000, 4500]


def test_an_overlay_of_an_older_result_goes(tools, tmp_path, monkeypatch):
    photo = tmp_path / "a.jpg"
    Image.new("RGB", (160, 120)).save(photo)
    (tmp_path / "a.boxes.json").write_text(json.dumps({"0": [[10, 10, 50, 90]]}))
    (tmp_path / "result_a.mp4").touch()
    for overlay, left in (("mesh", ["result_a", "result_a.jpg"]), (None, ["result_a"])):
        monkeypatch.setattr(tools, "options", replace(tools.options, overlay=overlay))
        with open_source(photo) as source:
            process_clip(source, tmp_path / "result_a", tools)
        assert sorted(path.name for path in tmp_path.glob("result_*")) == left


def test_boxes_beside_a_link_are_seen(tmp_path):
    target = tmp_path / "a" / "video.mp4"
    target.parent.mkdir()
    target.touch()
    link = tmp_path / "cam1.mp4"
    link.symlink_to(target)
    assert boxes_beside(link) is None
    (tmp_path / "a" / "video.boxes.json").touch()
    assert boxes_beside(link) == tmp_path / "a" / "video.boxes.json"
    (tmp_path / "cam1.boxes.json").touch()
    assert boxes_beside(link) == tmp_path / "cam1.boxes.json"


ASTRONAUT = Path(find_spec("skimage").origin).parent / "data" / "astronaut.png"


def test_a_photograph_without_weights_of_yolo_and_without_a_network(
    untrained, tmp_path, monkeypatch, caplog
):
    """A fresh clone on a machine that reaches nothing."""
    caplog.set_level("INFO")
    monkeypatch.setattr(socket, "socket", None)
    weights = f"inference.detection.model_path={tmp_path / 'absent.pt'}"
    options = InferenceOptions(str(untrained), overrides=(weights,), overlay="keypoints")
    process_input(str(ASTRONAUT), tmp_path, options)
    assert sum("built-in detector" in message for message in caplog.messages) == 1
    picture = read_image(tmp_path / "result_astronaut.png")
    assert 0.005 < (picture != read_image(ASTRONAUT)).any(axis=-1).mean() < 0.2
    person = read_person(tmp_path / "result_astronaut" / "person_001.npz")
    assert person["keypoints_px"].shape == (1, 137, 2)
    nose = person["keypoints_px"][0, JOINTS.index("nose")]
    np.testing.assert_allclose(nose, [224.6, 126.4], atol=3)
    assert not person["keypoints_px"][person["keypoint_score"] == 0].any()


def test_keypoints_of_others_are_written_and_not_those_of_frames_in_between(tools, tmp_path):
    video = tmp_path / "walk.mp4"
    with VideoWriter(video, fps=10) as writer:
        for _ in range(4):
            writer.write(np.zeros((120, 160, 3), np.uint8))
    boxes = {k: [[10 + k, 10, 50, 90]] for k in (0, 1, 3)}
    video.with_suffix(".boxes.json").write_text(json.dumps(boxes))
    points = [[20.0 + k, 20.0 + 4 * k] for k in range(17)]
    one = {"keypoints": points, "keypoint_scores": [0.5] * 17}
    frames = [{"frame_id": k, "instances": [one]} for k in range(3)]
    (tmp_path / "mmpose.json").write_text(json.dumps(frames))
    options = InferenceOptions(
        tools.options.model_dir, keypoints=tmp_path / "mmpose.json", overlay="keypoints"
    )
    with open_source(video) as media:
        process_clip(media, tmp_path / "result_walk", Tools(tools.estimator, options))
    person = read_person(tmp_path / "result_walk" / "person_001.npz")
    assert person["interpolated"].tolist() == [False, False, True, False]
    known = person["keypoint_score"].any(axis=1).tolist()
    assert known == [True, True, False, False]  # the file ends, and no frame is made up
    np.testing.assert_allclose(person["keypoints_px"][1, JOINTS.index("right_ankle")], points[16])
    assert (tmp_path / "result_walk.mp4").is_file()


def test_keypoints_of_others_follow_photographs_by_number_and_reduction(tools, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    Image.new("L", (160, 120), 90).save(folder / "a.png")
    Image.new("L", (12000, 9000), 90).save(folder / "b.jpg", quality=30)
    boxes = {"0": [[10, 10, 50, 90]], "1": [[1000, 800, 600, 1200]]}
    (tmp_path / "photos.boxes.json").write_text(json.dumps(boxes))
    people = {0: (12.0, 20.0, 2.5), 1: (1050.0, 1000.0, 30.0)}
    frames = [
        {
            "frame_id": frame,
            "instances": [
                {
                    "keypoints": [[x + step * k, y + step * k] for k in range(17)],
                    "keypoint_scores": [0.5] * 17,
                }
            ],
        }
        for frame, (x, y, step) in people.items()
    ]
    (tmp_path / "mmpose.json").write_text(json.dumps(frames))
    options = InferenceOptions(
        tools.options.model_dir, keypoints=tmp_path / "mmpose.json", overlay=None
    )
    with_file = Tools(tools.estimator, options)
    assert process_photographs(folder, list_images(folder), out, with_file) == 0
    nose = JOINTS.index("nose")
    for name, expected in (("a", (12, 20)), ("b", (525, 500))):
        person = read_person(out / f"result_{name}" / "person_001.npz")
        np.testing.assert_allclose(person["keypoints_px"][0, nose], expected)


def test_bodies_move_onto_keypoints_where_that_is_asked_for(tools, tmp_path):
    image = tmp_path / "a.png"
    Image.new("RGB", (160, 120)).save(image)
    (tmp_path / "a.boxes.json").write_text(json.dumps({"0": [[40, 10, 60, 100]]}))
    plain = replace(tools.options, overlay=None, refine=False)

    def process(options, folder):
        with open_source(image) as source:
            process_clip(source, tmp_path / folder, Tools(tools.estimator, options))
        summary = json.loads((tmp_path / folder / "summary.json").read_text())
        return summary["refined"], read_person(tmp_path / folder / "person_001.npz")

    refined, network = process(plain, "network")
    assert not refined
    names = ("left_shoulder", "right_shoulder", "left_hip", "right_hip", "left_elbow", "nose")
    joints = [JOINTS.index(name) for name in names]
    wanted = network["joints_2d_px"][0, joints] + (4, 0)
    points, scores = np.zeros((17, 2)), np.zeros(17)
    rows = [COCO_KEYPOINTS.index(name) for name in names]
    points[rows], scores[rows] = wanted, 0.9
    person = {"keypoints": points.tolist(), "keypoint_scores": scores.tolist()}
    (tmp_path / "mmpose.json").write_text(json.dumps([{"frame_id": 0, "instances": [person]}]))
    options = replace(plain, keypoints=tmp_path / "mmpose.json", refine=True)
    refined, moved = process(options, "moved")
    assert refined

    def distance(one):
        return np.linalg.norm(one["joints_2d_px"][0, joints] - wanted, axis=1).mean()

    assert distance(moved) < distance(network) / 2
    np.testing.assert_array_equal(moved["raw_body_pose"], network["raw_body_pose"])


def test_files_without_keypoints_where_none_are_asked_for(tools, tmp_path):
    image = tmp_path / "a.png"
    Image.new("RGB", (160, 120)).save(image)
    (tmp_path / "a.boxes.json").write_text(json.dumps({"0": [[10, 10, 50, 90]]}))
    with open_source(image) as media:
        process_clip(media, tmp_path / "result_a", tools)
    assert "keypoints_px" not in load(tmp_path / "result_a" / "person_001.npz")


@pytest.mark.parametrize("speed", [0, 4])
def test_a_camera_that_turns_is_named_and_one_that_stands_changes_nothing(
    speed, untrained, tmp_path
):
    video = tmp_path / "hall.mp4"
    noise = np.random.default_rng(0).random((24, 60, 3), np.float32)
    wide = cv2.resize(255 * noise, (480, 192), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    with VideoWriter(video, fps=10) as writer:
        for number in range(6):
            writer.write(np.ascontiguousarray(wide[:, speed * number : speed * number + 320]))
    boxes = {k: [[100, 20, 60, 150]] for k in range(6)}
    video.with_suffix(".boxes.json").write_text(json.dumps(boxes))
    contents = {}
    for camera in ("auto", "static"):
        options = InferenceOptions(str(untrained), overlay=None, camera=camera, world=True)
        result = tmp_path / camera
        with open_source(video) as source:
            process_clip(source, result, Tools.load(options))
        contents[camera] = {path.name: path.read_bytes() for path in result.iterdir()}
    if speed:
        summaries = [json.loads(files["summary.json"]) for files in contents.values()]
        assert [summary["world"]["camera"] for summary in summaries] == ["rotating", "static"]
    else:
        assert contents["auto"] == contents["static"]


def test_people_are_placed_with_the_focal_length_that_turns_of_the_camera_show(
    untrained, tmp_path, caplog
):
    video, frames = tmp_path / "hall.mp4", 10
    noise = np.random.default_rng(0).random((60, 150, 3), np.float32)
    wide = cv2.resize(255 * noise, (1200, 480), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    outer = np.array([[250, 0, 600], [0, 250, 240], [0, 0, 1.0]])
    inner = np.array([[250, 0, 159.5], [0, 250, 95.5], [0, 0, 1.0]])
    with VideoWriter(video, fps=10) as writer:
        for angle in np.linspace(-0.4, 0.4, frames):
            turn = cv2.Rodrigues(np.array([0.0, angle, 0]))[0]
            seen = cv2.warpPerspective(wide, inner @ turn @ np.linalg.inv(outer), (320, 192))
            writer.write(seen.astype(np.uint8))
    boxes = {k: [[200, 20, 60, 150]] for k in range(frames)}
    video.with_suffix(".boxes.json").write_text(json.dumps(boxes))

    def process(**options):
        result = tmp_path / "result"
        given = InferenceOptions(str(untrained), overlay=None, **{"world": True} | options)
        with open_source(video) as source:
            process_clip(source, result, Tools.load(given))
        summary = json.loads((result / "summary.json").read_text())
        return summary["camera"], load(result / "person_001.npz")

    caplog.set_level("INFO")
    camera, found = process()
    assert camera["origin"] == "the camera's turns"
    assert camera["focal"] == pytest.approx([250, 250], rel=0.03)
    assert "its turns show a focal length of 2" in caplog.text
    assert process(reuse=True, world=False)[0] == camera
    for again, person in (process(reuse=True), process(focal_px=camera["focal"][0])):
        assert again["focal"] == camera["focal"]
        for name in ("transl", "global_orient", "world_transl", "world_from_camera"):
            np.testing.assert_allclose(person[name], found[name], atol=2e-4, err_msg=name)


@pytest.mark.parametrize("frames", [1, 40])
def test_a_world_of_one_frame_and_of_a_person_who_is_away_for_a_while(frames, untrained, tmp_path):
    video = tmp_path / "hall.mp4"
    with VideoWriter(video, fps=10) as writer:
        for _ in range(frames):
            writer.write(np.full((120, 160, 3), 90, np.uint8))
    boxes = {k: [[60, 10, 40, 100]] for k in range(frames) if not 10 < k < 30}
    video.with_suffix(".boxes.json").write_text(json.dumps(boxes))
    options = InferenceOptions(str(untrained), overlay=None, world=True, export=("glb", "viewer"))
    with open_source(video) as source:
        process_clip(source, tmp_path / "result", Tools.load(options))
    seen = len(boxes)
    person = load(tmp_path / "result" / "person_001.npz")
    assert person["world_from_camera"].shape == (seen, 4, 4)
    for name, values in person.items():
        if name.startswith(("world_", "camera_")):
            assert np.isfinite(values).all(), name
    # Nothing is behind the person that could show how the camera moves between frames.
    np.testing.assert_array_equal(person["camera_confidence"], float(frames == 1))
    assert (tmp_path / "result" / "viewer.html").is_file()
