"""What can be chosen of an export."""

from dataclasses import dataclass
from typing import Final, Literal

UpAxis = Literal["y", "z"]
Origin = Literal["camera", "person"]

VIEWER: Final = "viewer"
"""One page of all people; every other format has a file or folder a person."""
FORMATS: Final = ("amass", "glb", "bvh", "obj", "ply", "usd", VIEWER)


@dataclass(frozen=True)
class ExportOptions:
    """What can be chosen beside the formats."""

    up: UpAxis | None = None
    """None: as each format's readers expect it, z for amass, y for the others."""
    origin: Origin = "camera"
    """person: the pelvis starts above the origin, feet at height 0."""
    every: int = 1
    """Step between the frames of obj and ply."""
    clothes: bool = True
    """Dress the open body in glb and usd."""


DEFAULTS: Final = ExportOptions()
