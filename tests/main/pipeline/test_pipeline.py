"""What the clips of one run share, and where their people come from."""

import json

import numpy as np
import pytest
from PIL import Image

from main.pipeline.options import InferenceOptions
from main.pipeline.pipeline import Tools, process_clip, process_photographs
from utils.image import list_images
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
