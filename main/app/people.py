"""Validation of what a job is asked for: options, chosen people, corrected boxes.

Boxes are x, y, width, height in pixels of the file, and frames count from 0, as in files of boxes.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from main.inference import make_parser, options_of
from utils.errors import UserError
from utils.source import open_source

Boxes = dict[int, dict[int, list[float]]]
"""The box in each frame, by the number of the person."""

FINDING: Final = ("--fps", "--detector", "--conf")
"""Options that decide which boxes are found, and in which frames."""
_WITH_VALUE: Final = (
    *(*FINDING, "--smooth", "--focal", "--fov", "--keep-longest", "--export"),
    *("--overlay", "--keypoints", "--precision", "--device", "--batch-size"),
)
_SWITCHES: Final = ("--refine", "--no-refine", "--world", "--floor", "--no-overlay")
_CONFIDENCE: Final = "inference.detection.conf"
_MOST_EDITS: Final = 10_000
_LONGEST_STEM: Final = 120
"""Bytes in UTF-8; names of results add a suffix, and file systems allow 255."""

Side = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Number = Annotated[int, Field(ge=1, lt=10**6)]
Flags = dict[str, Annotated[str, Field(max_length=100)]]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Edit(Strict):
    """A drawn or corrected box in one frame."""

    person: Number
    frame: Annotated[int, Field(ge=0, lt=10**7)]
    box: tuple[Coordinate, Coordinate, Side, Side]


class Choice(Strict):
    """The chosen people, by the numbers of those found; the numbers of drawn people follow."""

    people: Literal["all", "largest"] | Annotated[list[Number], Field(max_length=1000)] = "all"
    edits: Annotated[list[Edit], Field(max_length=_MOST_EDITS)] = []

    @property
    def needs_boxes(self) -> bool:
        return isinstance(self.people, list) or bool(self.edits)


def flags_of(flags: Mapping[str, str], names: Sequence[str] | None = None) -> list[str]:
    """Options as arguments of `main.inference`; no value can act as another option.

    Args:
        names: names of the options to include; None: all.

    Raises:
        UserError: the app has no such option.
    """
    arguments = []
    for name, value in flags.items():
        if name not in (*_WITH_VALUE, *_SWITCHES):
            raise UserError(f"{name}: the app has no such option")
        if name == "--keypoints" and value != "built-in":
            raise UserError(f"--keypoints {value}: only built-in can be chosen here")
        if name == "--detector" and value == "yolo":
            raise UserError("--detector yolo: use auto, which chooses YOLO if its weights exist")
        if name == "--conf" and not re.fullmatch(r"0?\.[0-9]{1,6}|[01]", value):
            raise UserError(f"--conf {value}: give a number from 0 to 1")
        if names is None or name in names:
            option = f"--set={_CONFIDENCE}" if name == "--conf" else name
            arguments.append(option if name in _SWITCHES else f"{option}={value}")
    return arguments


def check(arguments: Sequence[str]) -> None:
    """Raise the UserError that `main.inference` would raise for these arguments."""
    options_of(make_parser().parse_args(list(arguments)))


def boxes_of(found: Boxes, choice: Choice, step: int) -> Boxes:
    """The boxes of the chosen people, with corrections.

    A correction also moves the found boxes in the frames around it, less with distance, up to the
    next frame that can be corrected. Between two frames in which a box was drawn for the same
    person, the box moves in a straight line.

    Args:
        step: distance between frames that the app shows and that can be corrected.

    Raises:
        UserError: nobody is chosen, or a chosen number does not exist.
    """
    edits: Boxes = {}
    for edit in choice.edits:
        edits.setdefault(edit.person, {})[edit.frame] = list(edit.box)
    people: Boxes = {
        number: _corrected(found[number], edits.get(number, {}), step)
        if number in found
        else _between(edits[number])
        for number in sorted({*found, *edits})
    }
    if isinstance(choice.people, list):
        if absent := sorted(set(choice.people) - people.keys()):
            raise UserError(f"--person {absent[0]}: nobody has this number")
        people = {number: people[number] for number in choice.people}
    if not people:
        raise UserError("nobody is chosen: choose somebody, or draw a box")
    return people


def _corrected(
    found: Mapping[int, list[float]], edits: Mapping[int, list[float]], step: int
) -> dict[int, list[float]]:
    boxes = dict(found)
    for frame, box in edits.items():
        if frame not in found:
            boxes[frame] = box
            continue
        shift = [new - old for new, old in zip(box, found[frame], strict=True)]
        for other in range(frame - step + 1, frame + step):
            if other in found:
                share = 1 - abs(other - frame) / step
                boxes[other] = [
                    side + share * by for side, by in zip(boxes[other], shift, strict=True)
                ]
    return {
        frame: [*box[:2], *(max(1.0, side) for side in box[2:])] for frame, box in boxes.items()
    }


def _between(edits: Mapping[int, list[float]]) -> dict[int, list[float]]:
    boxes = dict(edits)
    for first, last in pairwise(sorted(edits)):
        for frame in range(first + 1, last):
            share = (frame - first) / (last - first)
            ends = zip(edits[first], edits[last], strict=True)
            boxes[frame] = [(1 - share) * start + share * end for start, end in ends]
    return boxes


def as_box_file(people: Boxes) -> dict[str, list[list[float]]]:
    """Boxes in the format of --boxes."""
    frames: dict[int, list[list[float]]] = {}
    for boxes in people.values():
        for frame, box in boxes.items():
            frames.setdefault(frame, []).append([round(side, 2) for side in box])
    return {str(frame): frames[frame] for frame in sorted(frames)}


def safe_name(name: str, suffixes: Sequence[str]) -> str:
    """A name for an uploaded file that is safe in folders, pages and command lines.

    Raises:
        UserError: its suffix is not that of a video or an image.
    """
    path = Path(name.replace("\\", "/"))
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        shown = path.name[:60] or "a file without a name"
        raise UserError(f"{shown}: give a video or a photograph, one of {' '.join(suffixes)}")
    # Keep letters, marks and numbers of any alphabet. Control characters, quotation marks,
    # separators and changes of the writing direction are in other Unicode categories.
    composed = unicodedata.normalize("NFC", path.stem)
    kept = (c if c in "-_" or unicodedata.category(c)[0] in "LMN" else "_" for c in composed)
    stem = "".join(kept).strip("-_").encode()[:_LONGEST_STEM].decode(errors="ignore")
    return (stem or "clip") + suffix


def require_pictures(path: Path) -> None:
    """Raise a UserError, which gives the name of the file without folders, if it is unreadable."""
    try:
        # With a fixed frame rate, as the user can choose one if that of the file is out of range.
        open_source(path, fps=30.0).close()
    except UserError as error:
        raise UserError(str(error).replace(f"{path.parent}/", "")) from None
