"""A result as one page that opens from the disk, offline: viewer.html."""

import base64
import html
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from human_models.body import BodyModel
from human_models.files import STAND_IN_NAME, BodyData
from human_models.joints import RIG_JOINTS
from main.motion.result_reader import Result, Summary, find_input
from main.viewing.pack import Pack, encoded
from main.viewing.people import (
    ViewedPerson,
    describe_people,
    frame_count,
    read_viewed,
    world_of,
)
from main.viewing.surroundings import Surrounding, find_exports, find_pictures, valid_text
from utils.files import atomic_path

log = logging.getLogger(__name__)

PAGE_BYTES: Final = 38_000_000
"""Of a page at most, for the sake of pictures and exports: what does not fit stays beside it."""
_PARTS: Final = Path(__file__).parent / "page"
_MARK: Final = re.compile(r"\{\{(\w+)\}\}")


def write_viewer(
    path: Path,
    result: Result,
    data: BodyData,
    body: BodyModel,
    *,
    source: Path | None = None,
    clothes: bool = True,
) -> None:
    """Write the page of a folder of results.

    Args:
        result: with the people to show.
        data: the body they were made with.
        source: the video or image that the results are of; None: see `_find_source`.
        clothes: whether the open body can be dressed there.

    Raises:
        UserError: a file of results is unreadable or lacks something.
    """
    people = [read_viewed(result, number) for number in result.files]
    summary, folder = result.require_summary(), result.folder
    pack = Pack()
    about = _about_clip(folder, people, summary, data)
    about |= describe_people(people, data, body, pack, clothes=clothes)
    parts = {
        "title": html.escape(about["name"]),
        "style": _part("style.css"),
        "script": _part("bundle.js"),
        "data": pack.encoded(),
    }
    room = PAGE_BYTES - sum(map(len, parts.values())) - len(_part("page.html"))
    pictures, exports, embedded = _embed(
        path, folder, source or _find_source(folder, summary), room
    )
    about |= {"pictures": pictures, "exports": exports}
    parts |= {"about": _script_safe(about), "embedded": "\n".join(embedded)}
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for piece in _filled(_part("page.html"), parts):
            file.write(piece)


def _about_clip(
    folder: Path, people: list[ViewedPerson], summary: Summary, data: BodyData
) -> dict[str, Any]:
    content = people[0].content
    world, estimated = world_of(people)
    return {
        "name": valid_text(folder.resolve().name.removeprefix("result_")),
        "fps": float(content["fps"]),
        "frames": frame_count(people, summary.frames),
        "size": content["image_size"].tolist(),
        "focal": content["focal"][0].tolist(),
        "center": content["princpt"][0].tolist(),
        "world": world.ravel().tolist(),
        "floor": estimated,
        "joints": list(RIG_JOINTS),
        "model": summary.model,
        "body": data.name,
        "licence": "CC0" if data.name == STAND_IN_NAME else f"the licence of {data.name}",
        "camera": summary.camera.origin if summary.camera else None,
        "smoothed": summary.smoothing_s is not None,
    }


def _find_source(folder: Path, summary: Summary) -> Path | None:
    """What the summary names as the input, if it lies where results of it are put."""
    found = find_input(folder, summary.input)
    if found is None and summary.input:
        told = "%s: its input %s is not in the page: it is not beside the folder; say --input FILE"
        log.info(told, folder, summary.input)
    return found


def _embed(
    page: Path, folder: Path, source: Path | None, room: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Descriptions of pictures and exports, and those that fit as elements of the page."""
    elements: list[str] = []

    def place(one: Surrounding, *, deflate: bool) -> dict[str, Any]:
        nonlocal room
        about = one.describe(page) | {"embedded": None}
        if about["bytes"] is None or about["bytes"] > room:
            return about
        content = one.path.read_bytes()
        text = encoded(content) if deflate else base64.b64encode(content).decode("ascii")
        if len(text) <= room:
            about["embedded"] = f"file{len(elements)}"
            elements.append(_element(about["embedded"], text))
            room -= len(text)
        return about

    found = find_pictures(folder, source)
    pictures = [place(one, deflate=False) for one in found[:1]]
    pictures += [one.describe(page) | {"embedded": None} for one in found[1:]]
    exports = find_exports(folder)
    described = {
        one.path: place(one, deflate=True)
        for one in sorted(exports, key=lambda one: one.path.stat().st_size)
    }
    return pictures, [described[one.path] for one in exports], elements


def _element(name: str, text: str) -> str:
    return f'<script type="application/octet-stream" id="{name}">{text}</script>'


def _script_safe(about: Mapping[str, Any]) -> str:
    """JSON inside a script element, which nothing in it can end."""
    return json.dumps(about, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")


def _filled(template: str, parts: Mapping[str, str]) -> Iterator[str]:
    """The template with each {{mark}} replaced."""
    for number, piece in enumerate(_MARK.split(template)):
        yield parts[piece] if number % 2 else piece
