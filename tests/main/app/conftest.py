"""A short clip in which the bundled detector finds three people."""

from itertools import islice

import cv2
import pytest

from utils.files import DEMO
from utils.source import open_source
from utils.video_write import VideoWriter


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "three people.mp4"
    frames = open_source(DEMO / "test_video.mp4")
    with frames, VideoWriter(path, 30.0) as video:
        for frame in islice(frames, 150, 162):
            video.write(cv2.resize(frame.image, (640, 360), interpolation=cv2.INTER_AREA))
    return path
