"""The worst samples: which are kept, and what their pictures show."""

import numpy as np
import pytest
import torch

from configs.reader import load_config
from human_models.body import BodyLibrary
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder, read_hand_vertices
from main.evaluation.metrics import SampleErrors
from main.evaluation.worst import WorstSample, draw_worst, worst_of_all, worst_of_batch
from utils.files import ROOT
from utils.image import read_image
from utils.render import person_colour

FOLDER = ModelFolder(STAND_IN, STAND_IN_NAME)
CONFIG = load_config(ROOT / "configs" / "config_debug.py")
GREY = 60


@pytest.fixture(scope="module")
def body():
    """A person some 15 metres away, upright in the camera's frame."""
    turn = torch.tensor([[torch.pi, 0, 0]])
    posed = BodyLibrary(FOLDER).smplx()(
        global_orient=turn,
        body_pose=torch.zeros(1, 63),
        betas=torch.zeros(1, 10),
        transl=torch.tensor([[0.0, 0.3, 40.0]]),
    )
    return posed.vertices[0].numpy(force=True)


def kept(errors, valid, count, batch=3):
    """Places and errors of those kept; every sample is marked by the grey of its crop."""
    found = []
    for start in range(0, len(errors), batch):
        part = slice(start, start + batch)
        places = list(range(len(errors)))[part]
        of_batch = worst_of_batch(
            count,
            places,
            {
                "mpvpe_face": SampleErrors(torch.ones(len(places)), torch.ones(len(places)) > 0),
                "mpvpe_all": SampleErrors(torch.tensor(errors[part]), torch.tensor(valid[part])),
            },
            torch.tensor(places)[:, None, None, None].expand(-1, 8, 6, 3) + 0.5,
            torch.zeros(len(places), 10475, 3),
            torch.zeros(len(places), 10475, 3),
            torch.ones(len(places), 2, dtype=torch.bool),
        )
        found = worst_of_all([found, of_batch], count)
    assert all((sample.pixels == sample.place).all() for sample in found)
    assert {sample.metric for sample in found} <= {"mpvpe_all"}
    return [(sample.place, round(sample.error_mm, 3)) for sample in found]


def test_the_worst_are_kept_over_all_batches():
    errors = [5.0, 1.0, 9.0, 0.0, 7.0, 9.5, 2.0, 8.0]
    everyone = [True] * 8
    assert kept(errors, everyone, 3) == [(5, 9.5), (2, 9.0), (7, 8.0)]
    assert kept(errors, everyone, 20) == sorted(enumerate(errors), key=lambda one: -one[1])
    assert kept(errors, everyone, 0) == []
    assert kept(errors, [True, True, False, True, True, False, True, True], 2) == [(7, 8), (4, 7)]


def test_the_worst_of_several_processes():
    def sample(error, place):
        mesh = np.zeros((10475, 3), np.float32)
        pixels = np.zeros((8, 6, 3), np.uint8)
        return WorstSample(error, place, "mpvpe_all", pixels, mesh, mesh, (True, True))

    parts = [[sample(9.0, 0), sample(3.0, 2)], [sample(9.0, 1), sample(5.0, 3)], []]
    assert [(one.error_mm, one.place) for one in worst_of_all(parts, 3)] == [
        (9.0, 1),
        (9.0, 0),
        (5.0, 3),
    ]


def panels_of(folder, prediction, truth, hands_valid=(True, True), hands_alone=False):
    """Crop, prediction and truth of the picture, without their captions."""
    folder.mkdir()
    pixels = np.full((*CONFIG.model.input_body_shape, 3), GREY, np.uint8)
    sample = WorstSample(12.3, 0, "mpvpe_all", pixels, prediction, truth, hands_valid)
    draw_worst(folder, [sample], ["row 7"], CONFIG.model, FOLDER, hands_alone=hands_alone)
    (path,) = folder.iterdir()
    assert path.name == "01_12mm.jpg"
    return np.split(read_image(path)[24:].astype(int), 3, axis=1)


def drawn(panel):
    return np.abs(panel - GREY).max(axis=2) > 25


def test_truth_is_drawn_at_the_predicted_pelvis(tmp_path, body):
    crop, prediction, truth = panels_of(tmp_path / "worst", body, body + np.float32([1, 2, -9]))
    assert not drawn(crop).any()
    assert drawn(prediction).mean() > 0.05
    assert (drawn(prediction) == drawn(truth)).mean() > 0.99
    colours = [panel[drawn(panel)].mean(axis=0) for panel in (prediction, truth)]
    assert np.argmax(colours[0]) == np.argmax(person_colour(0)) == 2
    assert np.argmax(colours[1]) == np.argmax(person_colour(2)) == 1


def test_of_hand_sets_only_known_hands_are_drawn(tmp_path, body):
    hands = read_hand_vertices(FOLDER)
    truth = body.copy()
    truth[hands["left"]] -= 30
    place = np.float32([0, 0, 40]) - body[[*hands["left"], *hands["right"]]].mean(axis=0)
    _, _, both = panels_of(tmp_path / "both", body + place, truth, hands_alone=True)
    _, _, right = panels_of(tmp_path / "right", body + place, truth, (False, True), True)
    assert 0 < drawn(right).sum() < 0.7 * drawn(both).sum() < 0.02 * right.size
