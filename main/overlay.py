"""Drawing people over their frames, and the file that the frames go to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from human_models.body import BodyModel
from human_models.joints import JOINTS, edges
from main.estimator import Person
from main.flow import EstimatedPerson
from utils.camera import DEPTH_EPSILON
from utils.draw import draw_skeleton, draw_vertices, person_colour
from utils.image import write_image
from utils.media import MediaSource
from utils.render import MeshRenderer, PlacedMesh
from utils.video_write import VideoWriter

OVERLAYS: Final = ("mesh", "vertices", "skeleton")


class Overlay:
    """Draws the people of a frame, far ones first; one renderer a run."""

    def __init__(self, mode: str, body: BodyModel) -> None:
        self.mode = mode
        self.needs_vertices = mode != "skeleton"
        self.renderer = MeshRenderer(body.faces.cpu().numpy(), body.vertex_count)
        self.bones = edges(JOINTS)

    def draw(
        self, image: UInt8[np.ndarray, "H W 3"], people: Sequence[EstimatedPerson]
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A new image; each identity keeps its colour."""
        if self.mode == "mesh":
            return self.renderer.overlay(image, [_placed(one) for one in people])
        for identity, _, person in sorted(people, key=lambda one: -_apparent_depth(one.person)):
            colour = person_colour(identity)
            if self.mode == "vertices":
                image = draw_vertices(image, _vertices_px(person), colour)
            else:
                image = draw_skeleton(image, person.joints_2d_px, self.bones, colour)
        return image


def _placed(one: EstimatedPerson) -> PlacedMesh:
    person = one.person
    assert person.vertices_m is not None
    return PlacedMesh(
        vertices_cam_m=person.vertices_m,
        focal_px=(float(person.focal[0]), float(person.focal[1])),
        princpt_px=(float(person.princpt[0]), float(person.princpt[1])),
        colour=person_colour(one.identity),
    )


def _apparent_depth(person: Person) -> float:
    """Depth by apparent size, which compares people whose crops have cameras of their own."""
    return float(person.transl[2] / person.focal[1])


def _vertices_px(person: Person) -> np.ndarray:
    assert person.vertices_m is not None
    depth = person.vertices_m[:, 2:] + DEPTH_EPSILON
    return person.vertices_m[:, :2] / depth * person.focal + person.princpt


@runtime_checkable
class OverlayFile(Protocol):
    def write(self, image: UInt8[np.ndarray, "H W 3"]) -> None: ...


class _ImageFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.image: UInt8[np.ndarray, "H W 3"] | None = None

    def write(self, image: UInt8[np.ndarray, "H W 3"]) -> None:
        self.image = image


@contextmanager
def open_overlay(media: MediaSource, stem: Path) -> Iterator[OverlayFile]:
    """What drawn frames are written to: `stem`.mp4 for frames, `stem`.jpg or .png for one image.

    The file appears when the block ends well, and not at all else. A video keeps its sound.
    """
    if media.info.kind == "image":
        suffix = media.path.suffix.lower()
        path = stem.with_name(stem.name + (suffix if suffix in (".jpg", ".png") else ".jpg"))
        drawn = _ImageFile(path)
        yield drawn
        if drawn.image is not None:
            write_image(path, drawn.image)
        return
    audio = media.path if media.info.has_audio else None
    with VideoWriter(stem.with_name(stem.name + ".mp4"), media.info.fps, audio) as writer:
        yield writer
