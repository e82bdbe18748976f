"""The formats and options of exports; quick to import."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal

from utils.errors import UserError

UpAxis = Literal["y", "z"]
Origin = Literal["camera", "person"]
Space = Literal["camera", "world"]

VIEWER: Final = "viewer"
"""One page of all people; every other format has one file or folder per person."""
ENDINGS: Final = {
    "amass": "_amass.npz",
    "glb": ".glb",
    "bvh": ".bvh",
    "obj": "_obj",
    "ply": "_ply",
    "usd": ".usdc",
}
"""What follows the name of a person in the name of the file or folder, by format."""
FORMATS: Final = (*ENDINGS, VIEWER)
ALL: Final = "all"
"""Stands for all formats that need no package beyond those of requirements.txt."""
_NEEDS_A_PACKAGE: Final = ("usd",)
_Y_UP: Final = {"glb", "usd", VIEWER}

MEDIA_TYPES: Final = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""Types of files that browsers show, by their suffixes."""


@dataclass(frozen=True)
class ExportOptions:
    """Options other than the formats."""

    up: UpAxis | None = None
    """Vertical axis; None: see `default_up`."""
    origin: Origin = "camera"
    """person: the pelvis starts above the origin, with the feet at height 0."""
    space: Space | None = None
    """Coordinates of the camera, or the world coordinates of --world; None: world coordinates if
    the result has them."""
    every: int = 1
    """Step between the frames of obj and ply."""
    clothes: bool = True
    """Dress the open body in glb, usd and the viewer."""


DEFAULTS: Final = ExportOptions()


def default_up(name: str) -> UpAxis:
    """The vertical axis that readers of a format expect."""
    return "z" if name == "amass" else "y"


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats of a list such as "glb,bvh" or "all", each of them once, not yet checked."""
    every = [name for name in FORMATS if name not in _NEEDS_A_PACKAGE]
    lists = [every if name.strip() == ALL else [name.strip()] for name in text.split(",")]
    return tuple(dict.fromkeys(chain.from_iterable(lists)))


def check_formats(formats: Sequence[str], options: ExportOptions = DEFAULTS) -> None:
    """Raises UserError if a format is unknown or cannot be written with these options."""
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        choices = ",".join((*FORMATS, ALL))
        raise UserError(f"export format '{','.join(unknown)}' is unknown; choose from {choices}")
    if options.up == "z" and _Y_UP & set(formats):
        raise UserError("--up z: glb, usd and the viewer always have y up; leave out --up")
    if "usd" in formats:
        from main.characters.formats import (
            require_usd,  # loads what the other formats do not need
        )

        require_usd()
