"""Drawing people over their frames, and the file that the frames go to."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from human_models.body import BodyModel
from human_models.joints import JOINTS, edges
from main.tracks.camera import PELVIS
from main.tracks.refine import pose_vertices
from main.tracks.rows import frames_of, give_back, read_column
from utils.draw import draw_skeleton, draw_vertices, person_colour
from utils.image import write_image
from utils.media import Frame, MediaSource
from utils.render import MeshRenderer, PlacedMesh
from utils.video_write import VideoWriter

_POSED_AT_ONCE: Final = 16
"""People whose meshes are computed together; as many frames wait for it at most."""


class DrawnPerson(NamedTuple):
    """Final values of a person in one frame, in the clip's camera (metres, pixels)."""

    identity: int
    box: Float[np.ndarray, "4"]
    joints_2d_px: Float[np.ndarray, "137 2"]
    depth_m: float
    focal: Float[np.ndarray, "2"]
    princpt: Float[np.ndarray, "2"]
    vertices_m: Float[np.ndarray, "V 3"] | None


class Overlay:
    """Draws the people of a frame, far ones first; one renderer a run."""

    def __init__(self, mode: str, body: BodyModel) -> None:
        self.mode, self.body = mode, body
        self.renderer = MeshRenderer(body.faces.cpu().numpy(), body.vertex_count)
        self.bones = edges(JOINTS)

    def people(
        self, frames: Iterable[Frame], rows: np.ndarray, chosen: Collection[int]
    ) -> Iterator[tuple[Frame, list[DrawnPerson]]]:
        """Every frame with its people, their meshes computed in batches over frames."""
        of_chosen = np.isin(read_column(rows, "person"), list(chosen))
        rows_of = {frame: mine[of_chosen[mine]].tolist() for frame, mine in frames_of(rows)}
        waiting: list[tuple[Frame, list[int]]] = []
        for frame in frames:
            waiting.append((frame, rows_of.get(frame.index, [])))
            if max(len(waiting), sum(len(mine) for _, mine in waiting)) >= _POSED_AT_ONCE:
                yield from self._posed(waiting, rows)
                waiting = []
        yield from self._posed(waiting, rows)

    def _posed(
        self, waiting: list[tuple[Frame, list[int]]], rows: np.ndarray
    ) -> Iterator[tuple[Frame, list[DrawnPerson]]]:
        needed = rows[[row for _, mine in waiting for row in mine]]
        give_back(rows)
        vertices: Sequence[np.ndarray | None] = [None] * len(needed)
        if len(needed) and self.mode != "skeleton":
            vertices = list(pose_vertices(self.body, needed))
        people = iter(
            DrawnPerson(
                int(row["person"]),
                row["box_xywh"],
                row["joints_2d_px"],
                float(row["joints_3d_m"][PELVIS, 2]),
                row["focal"],
                row["princpt"],
                mesh,
            )
            for row, mesh in zip(needed, vertices, strict=True)
        )
        for frame, mine in waiting:
            yield frame, [next(people) for _ in mine]

    def draw(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        people: Sequence[DrawnPerson],
        *,
        with_numbers: bool,
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A new image; each person keeps their colour, and has their number above the head."""
        if self.mode == "mesh":
            result = self.renderer.overlay(image, [_placed(one) for one in people])
        else:
            result = image.copy()
            for one in sorted(people, key=lambda one: -one.depth_m):
                colour = person_colour(one.identity)
                if self.mode == "vertices":
                    result = draw_vertices(result, _vertices_px(one), colour)
                else:
                    result = draw_skeleton(result, one.joints_2d_px, self.bones, colour)
        if with_numbers:
            _write_numbers(result, people)
        return result


def _placed(one: DrawnPerson) -> PlacedMesh:
    assert one.vertices_m is not None
    return PlacedMesh(
        vertices_cam_m=one.vertices_m,
        focal_px=(float(one.focal[0]), float(one.focal[1])),
        princpt_px=(float(one.princpt[0]), float(one.princpt[1])),
        colour=person_colour(one.identity),
    )


def _vertices_px(one: DrawnPerson) -> Float[np.ndarray, "V 2"]:
    assert one.vertices_m is not None
    in_front = one.vertices_m[one.vertices_m[:, 2] > 0]
    return in_front[:, :2] / in_front[:, 2:] * one.focal + one.princpt


def _write_numbers(image: UInt8[np.ndarray, "H W 3"], people: Sequence[DrawnPerson]) -> None:
    scale = max(0.4, min(image.shape[:2]) / 900)
    thickness = max(1, round(2 * scale))
    font, smooth = cv2.FONT_HERSHEY_SIMPLEX, cv2.LINE_AA
    for one in people:
        text = str(one.identity)
        (across, height), _ = cv2.getTextSize(text, font, scale, thickness)
        x = int(np.clip(one.box[0] + one.box[2] / 2 - across / 2, 0, image.shape[1]))
        y = int(np.clip(one.box[1] - height / 2, height + 2, image.shape[0]))
        for colour, width in (((0, 0, 0), 2 + thickness), (person_colour(one.identity), thickness)):
            cv2.putText(image, text, (x, y), font, scale, colour, width, smooth)


@runtime_checkable
class OverlayFile(Protocol):
    def prepare(self, image: UInt8[np.ndarray, "H W 3"]) -> Any:
        """What `write` takes; in any thread."""

    def write(self, prepared: Any) -> None: ...


class _ImageFile:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.image: UInt8[np.ndarray, "H W 3"] | None = None

    @staticmethod
    def prepare(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        return image

    def write(self, prepared: UInt8[np.ndarray, "H W 3"]) -> None:
        self.image = prepared


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
