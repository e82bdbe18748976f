"""A result against the truth of its video."""

import json
from pathlib import Path

import numpy as np
import pytest

from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from main.evaluation import scoring
from main.score import main

TRUTH = Path(__file__).parents[3] / "demo" / "test_video_truth.npz"


@pytest.fixture(scope="module")
def bodies():
    return BodyLibrary(find_model_folder(Path("no_such_folder")))


@pytest.fixture(scope="module")
def truth():
    """The first frames of the bundled video."""
    people = scoring.read_truth(TRUTH)
    kept = people.frames < 4
    parameters = {name: values[kept] for name, values in people.parameters.items()}
    return scoring.PersonRows(people.frames[kept], people.boxes[kept], parameters)


def changed(people, **parameters):
    return people._replace(parameters={**people.parameters, **parameters})


def test_the_truth_is_perfect(truth, bodies):
    found = scoring.score(truth, truth, bodies)
    assert (found.recall, found.precision) == (1, 1)
    assert found.metrics["mpvpe_all"] == {
        "mean": pytest.approx(0, abs=1e-3),
        "count": len(truth.frames),
    }


def test_a_wrong_pose_costs_and_people_are_not_mixed_up(truth, bodies):
    bent = truth.parameters["body_pose"] + 0.3
    assert (
        scoring.score(changed(truth, body_pose=bent), truth, bodies).metrics["mpvpe_all"]["mean"]
        > 50
    )
    order = np.random.default_rng(0).permutation(len(truth.frames))
    shuffled = scoring.PersonRows(
        truth.frames[order],
        truth.boxes[order],
        {name: values[order] for name, values in truth.parameters.items()},
    )
    assert scoring.score(shuffled, truth, bodies).metrics["mpvpe_all"]["mean"] < 1e-2


def test_missed_and_invented_people_are_counted(truth, bodies):
    seen = truth.frames > 0
    fewer = scoring.PersonRows(
        truth.frames[seen],
        truth.boxes[seen],
        {name: values[seen] for name, values in truth.parameters.items()},
    )
    assert scoring.score(fewer, truth, bodies).recall == pytest.approx(seen.mean())
    far = truth._replace(boxes=np.where(truth.frames[:, None] == 1, 9000.0, truth.boxes))
    found = scoring.score(far, truth, bodies)
    assert found.recall == found.precision == pytest.approx((truth.frames != 1).mean())


def test_command(tmp_path, truth, capsys):
    result = tmp_path / "result"
    result.mkdir()
    # One file per person: the people of a frame are distributed in the order of their rows.
    order = np.argsort(truth.frames, kind="stable")
    frames = truth.frames[order]
    numbers = np.arange(len(frames)) - np.searchsorted(frames, frames)
    for number in np.unique(numbers):
        rows = order[numbers == number]
        np.savez(
            result / f"person_{number + 1:03d}.npz",
            frame_index=truth.frames[rows],
            box_xywh=truth.boxes[rows],
            **{name: values[rows] for name, values in truth.parameters.items()},
        )
    assert main([str(result), str(TRUTH)]) == 0
    written = json.loads((result / "score.json").read_text())
    rows = len(scoring.read_truth(TRUTH).frames)
    assert written["recall"] == pytest.approx(len(truth.frames) / rows)
    assert "mpvpe_all" in capsys.readouterr().out
    assert main([str(tmp_path), str(TRUTH)]) == 2
    assert main([str(result), str(result / "person_001.npz")]) == 2
