"""Writes a result as a single page that works offline: viewer.html."""

import base64
import html
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np

from human_models.body import BodyModel
from human_models.files import STAND_IN_NAME, BodyData
from human_models.joints import RIG_JOINTS
from main.characters.options import MEDIA_TYPES, ExportOptions, Space
from main.characters.scene import (
    Pack,
    ViewedPerson,
    camera_path,
    describe_people,
    encoded,
    read_viewed,
    world_of,
)
from main.motion.result_reader import Result, Summary, find_input
from utils.files import atomic_path

log = logging.getLogger(__name__)

PAGE_BYTES: Final = 38_000_000
"""Size of the page up to which pictures and exports are embedded; others are linked."""
_PARTS: Final = Path(__file__).parent / "page"
_PLACEHOLDER: Final = re.compile(r"\{\{(\w+)\}\}")
_OVERLAYS: Final = (".mp4", ".jpg", ".png")
_LABELS: Final = {
    ".glb": "Animated character, glTF",
    ".bvh": "Skeleton and motion, BVH",
    ".usdc": "Animated character, USD",
    "_amass.npz": "Parameters, AMASS",
    "_obj": "One mesh per frame, OBJ",
    "_ply": "One mesh per frame, PLY",
    ".npz": "Parameters, SMPL-X",
    ".json": "Summary",
}
_OFFERED: Final = re.compile(r"person_[0-9]+(_[a-z]+)?(\.[a-z]+)?|summary\.json")
"""Names of files that inference and export write."""


def write_viewer(
    path: Path,
    result: Result,
    data: BodyData,
    body: BodyModel,
    *,
    options: ExportOptions,
    source: Path | None = None,
) -> None:
    """Write the page of a folder of results.

    Args:
        source: the video or image of the results; None: see `_find_source`.

    Raises:
        UserError: a file of results is unreadable or incomplete.
    """
    people = [read_viewed(result, number) for number in result.files]
    summary, folder = result.require_summary(), result.folder
    pack = Pack()
    about = _about_clip(folder, people, summary, data, options.space or "camera", pack)
    about |= describe_people(people, data, body, pack, options)
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
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        # Piece by piece, because the data of a long clip have hundreds of megabytes.
        for number, piece in enumerate(_PLACEHOLDER.split(_part("page.html"))):
            file.write(parts[piece] if number % 2 else piece)


def _about_clip(
    folder: Path,
    people: list[ViewedPerson],
    summary: Summary,
    data: BodyData,
    space: Space,
    pack: Pack,
) -> dict[str, Any]:
    content = people[0].content
    last_frame = max(int(person.content["frame_index"][-1]) for person in people)
    frames = max(last_frame + 1, summary.frames or 0)
    cameras = None
    if space == "world":
        world, estimated = np.eye(4), True
        poses, zooms = camera_path(people, frames)
        cameras = {"poses": pack.exact(poses.transpose(0, 2, 1)), "zooms": pack.exact(zooms)}
    else:
        world, estimated = world_of(people)
    return {
        "name": _valid_text(folder.resolve().name.removeprefix("result_")),
        "fps": float(content["fps"]),
        "frames": frames,
        "size": content["image_size"].tolist(),
        "focal": content["focal"][0].tolist(),
        "center": content["princpt"][0].tolist(),
        "world": world.ravel().tolist(),
        "cameras": cameras,
        "floor": estimated,
        "joints": list(RIG_JOINTS),
        "model": summary.model,
        "body": data.name,
        "licence": "CC0" if data.name == STAND_IN_NAME else f"the licence of {data.name}",
        "camera": summary.camera.origin if summary.camera else None,
        "smoothed": summary.smoothing_s is not None,
    }


def _find_source(folder: Path, summary: Summary) -> Path | None:
    """The input that the summary names, if it is beside the result folder or in demo/."""
    found = find_input(folder, summary.input)
    if found is None and summary.input:
        message = "%s: the input %s is not beside this folder; to show it, give --input FILE"
        log.info(message, folder, summary.input)
    return found


def _embed(
    page: Path, folder: Path, source: Path | None, room: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Descriptions of pictures and exports, and page elements with those that fit."""
    elements: list[str] = []

    def place(file: PageFile, *, deflate: bool) -> dict[str, Any]:
        nonlocal room
        about = file.describe(page) | {"embedded": None}
        if about["bytes"] is None or about["bytes"] > room:
            return about
        content = file.path.read_bytes()
        text = encoded(content) if deflate else base64.b64encode(content).decode("ascii")
        if len(text) <= room:
            about["embedded"] = f"file{len(elements)}"
            tag = f'<script type="application/octet-stream" id="{about["embedded"]}">'
            elements.append(f"{tag}{text}</script>")
            room -= len(text)
        return about

    found = find_pictures(folder, source)
    pictures = [place(file, deflate=False) for file in found[:1]]
    pictures += [file.describe(page) | {"embedded": None} for file in found[1:]]
    exports = find_exports(folder)
    described = {
        file.path: place(file, deflate=True)
        for file in sorted(exports, key=lambda file: file.path.stat().st_size)
    }
    return pictures, [described[file.path] for file in exports], elements


class PageFile(NamedTuple):
    """A file, or a folder of meshes, that the page shows or offers for download."""

    path: Path
    label: str

    def describe(self, page: Path) -> dict[str, Any]:
        """As JSON; `path` is relative to the page."""
        away = Path(os.path.relpath(self.path, page.parent)).as_posix()
        is_folder = self.path.is_dir()
        return {
            "name": _valid_text(self.path.name),
            "label": self.label,
            "type": MEDIA_TYPES.get(self.path.suffix.lower(), "application/octet-stream"),
            "path": quote(os.fsencode(away)) + ("/" if is_folder else ""),
            "bytes": None if is_folder else self.path.stat().st_size,
            "files": sum(1 for _ in self.path.iterdir()) if is_folder else None,
        }


def find_pictures(folder: Path, source: Path | None) -> list[PageFile]:
    """The overlay beside the folder, then the source, if they exist and browsers can show them."""
    folder = folder.resolve()
    beside = [folder.with_name(folder.name + suffix) for suffix in _OVERLAYS]
    found = [PageFile(path, "overlay") for path in beside if _is_within(path, folder.parent)]
    if source is not None:
        found.append(PageFile(source, "source"))
    return [one for one in found if one.path.is_file() and one.path.suffix.lower() in MEDIA_TYPES]


def find_exports(folder: Path) -> list[PageFile]:
    """The exports, and the result files themselves."""
    return [*_offered(folder / "export", folder), *_offered(folder, folder)]


def _offered(folder: Path, result: Path) -> Iterator[PageFile]:
    for path in sorted(folder.glob("person_*")) + sorted(folder.glob("summary.json")):
        label = next((_LABELS[end] for end in _LABELS if path.name.endswith(end)), None)
        if label is not None and _OFFERED.fullmatch(path.name) and _is_within(path, result):
            yield PageFile(path, label)


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a file or folder exists in `folder` and is not a link to somewhere else."""
    there = path.is_file() or path.is_dir()  # neither a pipe nor a device
    return there and path.resolve().is_relative_to(folder.resolve())


def _valid_text(name: str) -> str:
    """The name of a file as valid UTF-8; invalid bytes become '?'."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _script_safe(about: Mapping[str, Any]) -> str:
    """JSON for a script element, escaped so that it cannot end the element."""
    return json.dumps(about, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")
