"""What lies around a result folder and belongs into its page: the picture, exports."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

_TYPES: Final = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""What browsers show, by the files' endings."""
_OVERLAYS: Final = (".mp4", ".jpg", ".png")
_LABELS: Final = {
    ".glb": "Animated character, glTF",
    ".bvh": "Skeleton and motion, BVH",
    ".usdc": "Animated character, USD",
    "_amass.npz": "Parameters, AMASS",
    "_obj": "A mesh a frame, OBJ",
    "_ply": "A mesh a frame, PLY",
    ".npz": "Parameters, SMPL-X",
    ".json": "Summary",
}


_OFFERED: Final = re.compile(r"person_[0-9]+(_[a-z]+)?(\.[a-z]+)?|summary\.json")
"""Names of what inference and export write."""


class Surrounding(NamedTuple):
    """A file, or a folder of meshes, that the page shows or offers."""

    path: Path
    label: str

    @property
    def kind(self) -> str:
        """Its media type."""
        return _TYPES.get(self.path.suffix.lower(), "application/octet-stream")

    def describe(self, page: Path) -> dict[str, Any]:
        """As JSON; `path` leads there from the page."""
        away = Path(os.path.relpath(self.path, page.parent)).as_posix()
        is_folder = self.path.is_dir()
        return {
            "name": valid_text(self.path.name),
            "label": self.label,
            "type": self.kind,
            "path": quote(os.fsencode(away)) + ("/" if is_folder else ""),
            "bytes": None if is_folder else self.path.stat().st_size,
            "files": sum(1 for _ in self.path.iterdir()) if is_folder else None,
        }


def valid_text(name: str) -> str:
    """A file's name as text that UTF-8 can hold; bytes of the name that are none become '?'."""
    return name.encode("utf-8", "replace").decode("utf-8")


def find_pictures(folder: Path, source: Path | None) -> list[Surrounding]:
    """The overlay beside the folder, then the source, if they are there and browsers show them."""
    folder = folder.resolve()
    beside = [(folder.with_name(folder.name + suffix), "overlay") for suffix in _OVERLAYS]
    found = [Surrounding(*one) for one in beside if _is_within(one[0], folder.parent)]
    if source is not None:
        found.append(Surrounding(source, "source"))
    return [one for one in found if one.path.is_file() and one.path.suffix.lower() in _TYPES]


def find_exports(folder: Path) -> list[Surrounding]:
    """What was exported, and the parameters themselves."""
    return [*_offered(folder / "export", folder), *_offered(folder, folder)]


def _offered(folder: Path, result: Path) -> Iterator[Surrounding]:
    for path in sorted(folder.glob("person_*")) + sorted(folder.glob("summary.json")):
        label = next((_LABELS[end] for end in _LABELS if path.name.endswith(end)), None)
        if label is not None and _OFFERED.fullmatch(path.name) and _is_within(path, result):
            yield Surrounding(path, label)


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a file or folder is there and lies in `folder`, not as a link to somewhere else."""
    there = path.is_file() or path.is_dir()  # neither a pipe nor a device
    return there and path.resolve().is_relative_to(folder.resolve())
