"""What smoothing does to estimates whose truth is known, with walkers in place of a network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import smoothing
from benchmarks.smoothing import Series, compare, errors_of, series_of, table_of
from benchmarks.tracking import fill_rows
from benchmarks.walkers import CAMERA, FPS, draw_clips, estimates, video_of, walkers
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from main.motion.rows import RawRows
from synthetic.production import SynthesisOptions


class StandIn:
    """An estimator of which only the body is asked for."""

    body = BodyLibrary(find_model_folder(Path("absent"))).smplx()


@pytest.fixture(scope="module")
def clip():
    """Two people of 40 frames, and what is seen of them."""
    rng = np.random.default_rng(5)
    people = walkers(StandIn.body, rng, 2, 40, crossing=False)
    return people, estimates(StandIn.body, rng, people)


def test_errors_of_a_known_motion():
    truth = np.random.default_rng(0).normal(size=(1, 25, 3)).repeat(6, axis=0)
    ours = 1.1 * truth + [0.3, 0, 0]
    ours[3:] += [0.01, 0, 0]
    errors = errors_of(Series(np.arange(6), ours, truth))
    assert errors.pa.max() < 1e-9
    from_pelvis = np.linalg.norm(truth - truth[:, :1], axis=-1)
    np.testing.assert_allclose(errors.pose, 100 * from_pelvis.ravel(), atol=1e-9)
    assert errors.place.mean() > 300
    assert errors.jitter.max() < 1e-9
    # A jump of a centimetre is an acceleration before it and one behind, of four.
    assert errors.jitter_in_place.mean() == pytest.approx(10 * 2 / 4)


def test_accelerations_are_those_of_consecutive_frames():
    joints = np.zeros((5, 25, 3))
    joints[2:] += 1.0
    errors = errors_of(Series(np.array([0, 1, 5, 6, 7]), joints, np.zeros((5, 25, 3))))
    assert errors.jitter_in_place.shape == (25,)
    assert errors.jitter_in_place.max() == 0


def test_rows_are_compared_with_their_own_person(clip, tmp_path):
    people, seen = clip
    given, rows = RawRows(tmp_path), RawRows(tmp_path)
    fill_rows(given, seen, 40)
    rows.append(given.take(np.arange(len(given))[::-1]))
    joints = np.stack([people[one.walker].joints[one.frame] for one in seen])[::-1]
    found = list(series_of(rows, joints, people))
    assert sum(len(one.frames) for one in found) > 0.8 * len(seen)
    for one in found:
        np.testing.assert_array_equal(one.ours, one.truth)
        assert (np.diff(one.frames) > 0).all()


def test_smoothing_is_told_beside_raw_values(clip, monkeypatch, tmp_path):
    people, seen = clip

    def estimate(estimator, video, people, camera, rows):
        fill_rows(rows, seen, 40)
        return float(FPS)

    monkeypatch.setattr(smoothing, "estimate", estimate)
    found = {}
    for word, errors in compare(StandIn(), tmp_path / "none.mp4", people, CAMERA):
        found.setdefault(word, []).append(errors)
    assert list(found) == ["raw", "off", "0.5", "auto", "2"]
    means = {k: [np.concatenate(v).mean() for v in zip(*e, strict=True)] for k, e in found.items()}
    pa, pose, _, jitter, in_place = zip(*(means[word] for word in ("off", "auto")), strict=True)
    assert pa[1] < pa[0]
    assert pose[1] < pose[0]
    assert jitter[1] < 0.5 * jitter[0]
    assert in_place[1] < 0.5 * in_place[0]
    raw = [column._cells[0] for column in table_of(found).columns]
    assert raw[0] == "raw"
    assert raw[3] == raw[5] == ""


def test_video_of_an_annotation_file(tmp_path):
    file = tmp_path / "annot" / "a_set_test_clip_003.npz"
    file.parent.mkdir()
    np.savez(file, image_path=np.array(["test/clip_003/000000.jpg"]))
    assert video_of(file) == tmp_path / "img" / "a_set" / "test" / "clip_003.mp4"


def test_clips_that_are_there_are_not_drawn_again(tmp_path, monkeypatch):
    drawn = []

    def synthesize(order, data, workers):
        drawn.append(order)
        for number in range(order.picture_count()):
            (data / "annot").mkdir(exist_ok=True)
            (data / "annot" / f"{order.name}_{order.split}_clip_{number:03d}.npz").touch()
            yield 1

    monkeypatch.setattr("benchmarks.walkers.synthesize", synthesize)
    options = SynthesisOptions("clips", "some", "test", 31, 6, (320, 180), 20)
    first = draw_clips(options, tmp_path)
    assert first == draw_clips(options, tmp_path)
    assert len(first) == drawn[0].picture_count() > 1
    assert len(drawn) == 1
    draw_clips(replace(options, name="other"), tmp_path)
    assert len(drawn) == 2
