"""Pieces of tracks become people, by where they are and what they are like."""

import numpy as np
import pytest

from main.motion.camera import ClipCamera
from main.motion.rows import RAW_ROW
from main.motion.stitch import cut_tracks, observe, stitch

FPS = 30.0
CAMERA = ClipCamera((1300.0, 1300.0), (640.0, 360.0), "test")


@pytest.fixture
def people(row_file):
    """What stitching calls each track, one set per track."""

    def stitched(*tracks):
        rows = np.concatenate(tracks)
        identities = stitch(row_file(rows), CAMERA, FPS)
        ends = np.cumsum([len(one) for one in tracks])
        return [set(part.tolist()) for part in np.split(identities, ends[:-1])]

    return stitched


def track(number, frames, x, z, *, person, heading=0.0):
    """Rows of a track: places `x`, `z` (metres) in `frames`, the body of `person`."""
    rng = np.random.default_rng((number, person))
    looks = np.random.default_rng(person)
    frames = np.asarray(frames)
    rows = np.zeros(len(frames), RAW_ROW)
    rows["track"], rows["frame_index"], rows["score"] = number, frames, 0.9
    place = np.stack(np.broadcast_arrays(x, 0.6, z), axis=-1) * np.ones((len(frames), 1))
    rows["placed_pelvis_m"] = place + rng.normal(0, 0.02, place.shape)
    rows["betas"] = looks.normal(0, 1, 10) + rng.normal(0, 0.2, (len(frames), 10))
    rows["body_pose"] = looks.normal(0, 0.3, 63) + rng.normal(0, 0.03, (len(frames), 63))
    rows["placed_orient"] = [0, heading, 0]
    scale = 1300 / place[:, 2]
    size = np.stack([0.5 * scale, 1.75 * scale], axis=1)
    centre = place[:, :2] * scale[:, None] + [640, 360]
    rows["box_xywh"] = np.concatenate([centre - size / 2, size], axis=1)
    return rows


def test_one_track_is_one_person(people):
    frames = np.arange(60)
    assert people(track(7, frames, 0.02 * frames - 1, 4, person=1)) == [{1}]


def test_numbers_are_by_first_appearance(people):
    early, late = np.arange(0, 60), np.arange(30, 90)
    assert people(track(1, late, -1, 4, person=1), track(2, early, 1, 4, person=2)) == [{2}, {1}]


def test_short_absence_under_a_new_number(people):
    before, after = np.arange(0, 50), np.arange(80, 130)
    tracks = [
        track(1, before, 0.02 * before - 1, 4, person=1),
        track(2, after, 0.02 * after - 1, 4, person=1),
    ]
    assert people(*tracks) == [{1}, {1}]


def test_whoever_appears_elsewhere_is_somebody_else(people):
    before, after = np.arange(0, 50), np.arange(52, 130)
    tracks = [track(1, before, -1.5, 4, person=1), track(2, after, 1.5, 6, person=2, heading=2.5)]
    assert people(*tracks) == [{1}, {2}]


def test_people_seen_at_once_are_never_one(people):
    frames = np.arange(60)
    tracks = [track(n, frames, 0.4 * n - 1, 4, person=1) for n in (1, 2, 3)]
    assert people(*tracks) == [{1}, {2}, {3}]


@pytest.mark.parametrize("swapped", [False, True])
def test_crossing_after_which_the_tracker_may_have_swapped_numbers(swapped, row_file):
    """Two people pass each other at 4 and 5 m; the farther one is hidden for half a second."""
    near, far = np.arange(0, 120), np.concatenate([np.arange(52), np.arange(68, 120)])
    one = track(1, near, 0.02 * (near - 60), 4, person=1, heading=1.5)
    two = track(2, far, -0.025 * (far - 60), 5, person=2, heading=-1.5)
    rows = np.concatenate([one, two])
    if swapped:
        rows["track"] = np.where(rows["frame_index"] >= 62, 3 - rows["track"], rows["track"])
    identities = stitch(row_file(rows), CAMERA, FPS)
    clear = np.abs(rows["frame_index"] - 60) > 10
    truth = np.repeat([1, 2], [len(near), len(far)])
    np.testing.assert_array_equal(identities[clear], truth[clear])


def test_nobody_comes_or_leaves_where_people_cover_each_other(people):
    """The one behind is placed four metres too far from then on."""
    frames = np.arange(120)
    z = np.where(frames < 60, 5.0, 9.0)
    near = track(1, frames, 0.02 * (frames - 60), 4, person=1, heading=1.5)
    far = track(2, frames, -0.025 * (frames - 60) * z / 5, z, person=2)
    assert people(near, far) == [{1}, {2}]


def test_estimates_of_a_covered_person_are_no_evidence(people):
    """They may be anything, and change in the middle of the crossing, where tracks are cut."""
    frames = np.arange(120)
    front = track(1, frames, 0.0, 4, person=1)
    behind = track(2, frames, 0.012 * (frames - 60), 6, person=2)
    behind["betas"] = front["betas"]  # shapes are no evidence, either
    for wrong, side in ((slice(30, 60), 1), (slice(60, 90), -1)):
        behind["placed_pelvis_m"][wrong] += np.array([1.5 * side, 0.2 * side, side])
        behind["body_pose"][wrong] = 0.4 * side
        behind["placed_orient"][wrong, 1] = 1.4 * side
    assert people(front, behind) == [{1}, {2}]


def test_who_is_seen_as_the_person_in_front_stays_who_they_are(people):
    """Somebody walks out of view behind somebody who stands; a network then sees the one in front
    in both boxes."""
    standing, leaving = np.arange(90), np.arange(50)
    front = track(1, standing, 0.1, 4, person=1)
    behind = track(2, leaving, 1.6 - 0.035 * leaving, 6, person=2, heading=1.5)
    for name in ("placed_pelvis_m", "body_pose", "placed_orient", "betas"):
        behind[name][42:] = front[name][42:50]
    behind["placed_pelvis_m"][42:, 2] -= 0.1
    assert people(front, behind) == [{1}, {2}]


def test_return_after_a_long_absence_is_recognised_by_the_shape(people):
    first, second, later = np.arange(0, 90), np.arange(0, 400), np.arange(350, 450)
    tracks = [
        track(1, first, 0.03 * first, 4, person=1),
        track(2, second, -1, 5, person=2),
        track(3, later, 1.5, 4.5, person=1),
        track(4, later, -2, 4, person=3),
    ]
    assert people(*tracks) == [{1}, {2}, {1}, {3}]


def test_where_all_shapes_are_the_same_shape_says_nothing(people):
    first, later = np.arange(0, 90), np.arange(400, 490)
    tracks = [track(1, first, -1.5, 4, person=1), track(2, later, 1.0, 6, person=1)]
    for one in tracks:
        one["betas"] = 0
    assert people(*tracks) == [{1}, {2}]


def test_tracks_are_cut_where_people_cover_each_other_and_at_gaps(row_file):
    frames = np.concatenate([np.arange(40), np.arange(60, 120)])
    rows = np.concatenate(
        [
            track(1, frames, 0.02 * (frames - 90), 4, person=1),
            track(2, np.arange(120), 0.0, 5, person=2),
        ]
    )
    file = row_file(rows)
    pieces = cut_tracks(file, observe(file), FPS)
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(rows)))
    spans = [rows["frame_index"][piece[[0, -1]]].tolist() for piece in pieces]
    assert [0, 39] in spans
    cut = [start for start, _ in spans if 80 <= start <= 100]
    assert len(cut) == 2
