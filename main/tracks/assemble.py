"""When the last frame is estimated: from rows of single frames to people.

placed in the clip's camera -> stitched -> short gaps filled -> one shape, smoothed -> flagged.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from human_models.body import BodyModel
from main.tracks.camera import ClipCamera
from main.tracks.flags import flag_rows
from main.tracks.gaps import fill_gaps
from main.tracks.placing import place_rows
from main.tracks.refine import Refiner, Strengths
from main.tracks.rows import RowFile, blocks, people_of, read_column
from main.tracks.stitch import stitch
from utils.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """What all people of a clip share.

    Attributes:
        image_size: width and height in pixels.
        strengths: of the smoothing; zeros: nothing is smoothed.
    """

    camera: ClipCamera
    image_size: tuple[int, int]
    fps: float
    strengths: Strengths


def assemble_people(file: RowFile, body: BodyModel, clip: Clip) -> None:
    """Give rows with a tracker's numbers and raw values their people and final values."""
    rows = file.view()
    place_rows(rows, clip.camera, clip.image_size)
    tracks = len(people_of(rows))
    people = stitch(rows, clip.camera, clip.fps)
    for block in blocks(rows):
        rows["person"][block] = people[block]
    log.info("%d people, from %d tracks", len(np.unique(people)), tracks)
    fill_gaps(file, clip.fps)
    rows = file.view()
    Refiner(body, clip.camera, clip.image_size, clip.fps, clip.strengths)(rows)
    flag_rows(rows)


def check_person_flag(person: str | None) -> None:
    """Raises UserError where --person is neither "largest" nor numbers from 1."""
    if person is None or person == "largest":
        return
    if not all(word.strip().isdecimal() and int(word) > 0 for word in person.split(",")):
        raise UserError(f"--person {person}: say largest, or numbers from 1, as in 1,3")


def choose_people(
    rows: np.ndarray, person: str | None, keep_longest: int | None
) -> Collection[int]:
    """The people that --person and --keep-longest ask for.

    "largest" is whoever's boxes cover the most in all frames together.

    Raises:
        UserError: nobody has a number that is asked for.
    """
    people = people_of(rows)
    if person == "largest":
        sides = read_column(rows, "box_xywh")[:, 2:]
        area = {
            one: float(np.prod(sides[mine], axis=1, dtype=np.float64).sum())
            for one, mine in people.items()
        }
        people = {(one := max(area, key=lambda key: area[key])): people[one]}
    elif person is not None:
        wanted = [int(word) for word in person.split(",")]
        absent = sorted(set(wanted) - people.keys())
        if absent:
            there = ", ".join(map(str, list(people)[:20]))
            raise UserError(f"--person {absent[0]}: nobody found by that number; there are {there}")
        people = {one: people[one] for one in wanted}
    longest = sorted(people, key=lambda one: (-len(people[one]), one))
    return set(longest[:keep_longest])
