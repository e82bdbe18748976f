"""People drawn over their frames, and the sheet of people to choose from."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from human_models.body import BodyModel
from human_models.joints import JOINTS, edges, joint_places
from main.motion.camera import PELVIS
from main.motion.rows import FinalRows
from main.motion.trajectories import confidence, pose_vertices
from main.pipeline.stages import READ_AHEAD
from utils.camera import Box, Camera, project
from utils.image import write_image
from utils.iteration import parallel_map, prefetch, with_progress
from utils.render import MeshRenderer, PlacedMesh, draw_skeleton, draw_vertices, person_colour
from utils.source import Frame, FrameSource
from utils.video_write import Picture, VideoWriter

OVERLAY_SUFFIXES: Final = (".mp4", ".jpg", ".png")
_TRUNK: Final = ("left_shoulder", "right_shoulder", "right_hip", "left_hip")
"""Keypoints whose outline is drawn as the trunk; there are none on the spine."""
_DRAWN_SCORE: Final = 0.2
"""Least score of keypoints that are drawn."""
_POSED_AT_ONCE: Final = 16
"""Largest number of people, and of frames, whose meshes are computed together."""

# The sheet of people, in pixels.
_WIDTH, _HEIGHT, _CAPTION = 200, 280, 44
_COLUMNS: Final = 6
_MOST: Final = 60
"""Largest number of people on a sheet; those with the most frames are shown."""
_MARGIN: Final = 0.1
_BACKGROUND: Final = 32


class PosedPerson(NamedTuple):
    """A person in one frame: the final row, and the mesh in the clip's camera if it is drawn."""

    row: np.void
    vertices_m: Float[np.ndarray, "V 3"] | None


class Renderer:
    """Draws the people of a frame, the farthest first; one renderer per run."""

    def __init__(self, mode: str, body: BodyModel) -> None:
        self.mode, self.body = mode, body
        self.renderer = MeshRenderer(body.faces.cpu().numpy(), body.vertex_count)
        self.bones = edges(JOINTS)
        trunk = joint_places(_TRUNK)
        self.keypoint_lines = (*self.bones, *zip(trunk, [*trunk[1:], trunk[0]], strict=True))

    def people(
        self, frames: Iterable[Frame], rows: FinalRows, chosen: Collection[int]
    ) -> Iterator[tuple[Frame, list[PosedPerson]]]:
        """Every frame with its people, their meshes computed in batches over frames."""
        of_chosen = np.isin(rows.column("person"), list(chosen))
        rows_of = {frame: mine[of_chosen[mine]].tolist() for frame, mine in rows.by_frame()}
        waiting: list[tuple[Frame, list[int]]] = []
        for frame in frames:
            waiting.append((frame, rows_of.get(frame.index, [])))
            if max(len(waiting), sum(len(mine) for _, mine in waiting)) >= _POSED_AT_ONCE:
                yield from self._posed(waiting, rows)
                waiting = []
        yield from self._posed(waiting, rows)

    def _posed(
        self, waiting: list[tuple[Frame, list[int]]], rows: FinalRows
    ) -> Iterator[tuple[Frame, list[PosedPerson]]]:
        needed = rows.take(np.array([row for _, mine in waiting for row in mine], np.int64))
        vertices: Sequence[np.ndarray | None] = [None] * len(needed)
        if len(needed) and self.mode in ("mesh", "vertices"):
            vertices = list(pose_vertices(self.body, needed))
        people = map(PosedPerson, needed, vertices)
        for frame, mine in waiting:
            yield frame, list(islice(people, len(mine)))

    def draw(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        people: Sequence[PosedPerson],
        *,
        with_numbers: bool,
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A copy of the image with the people drawn, each in their own colour."""
        if self.mode == "mesh":
            result = self.renderer.overlay(image, [_placed(one) for one in people])
        else:
            result = image.copy()
            for one in sorted(people, key=lambda one: -one.row["joints_3d_m"][PELVIS, 2]):
                row, colour = one.row, person_colour(int(one.row["person"]))
                if self.mode == "vertices":
                    result = draw_vertices(result, _vertices_px(one), colour)
                elif self.mode == "skeleton":
                    result = draw_skeleton(result, row["joints_2d_px"], self.bones, colour)
                else:
                    known = row["keypoint_score"][:, None] >= _DRAWN_SCORE
                    points = np.where(known, row["keypoints_px"], np.nan)
                    result = draw_skeleton(result, points, self.keypoint_lines, colour)
        if with_numbers:
            _write_numbers(result, people)
        return result


def _placed(one: PosedPerson) -> PlacedMesh:
    assert one.vertices_m is not None
    camera = Camera(tuple(one.row["focal"].tolist()), tuple(one.row["princpt"].tolist()))
    return PlacedMesh(one.vertices_m, camera, person_colour(int(one.row["person"])))


def _vertices_px(one: PosedPerson) -> Float[np.ndarray, "V 2"]:
    assert one.vertices_m is not None
    in_front = one.vertices_m[one.vertices_m[:, 2] > 0]
    return project(in_front, one.row["focal"], one.row["princpt"], depth_epsilon=0)


def _write_numbers(image: UInt8[np.ndarray, "H W 3"], people: Sequence[PosedPerson]) -> None:
    scale = max(0.4, min(image.shape[:2]) / 900)
    thickness = max(1, round(2 * scale))
    font, smooth = cv2.FONT_HERSHEY_SIMPLEX, cv2.LINE_AA
    for one in people:
        number, box = int(one.row["person"]), one.row["box_xywh"]
        text = str(number)
        (across, height), _ = cv2.getTextSize(text, font, scale, thickness)
        x = int(np.clip(box[0] + box[2] / 2 - across / 2, 0, image.shape[1]))
        y = int(np.clip(box[1] - height / 2, height + 2, image.shape[0]))
        for colour, width in (((0, 0, 0), 2 + thickness), (person_colour(number), thickness)):
            cv2.putText(image, text, (x, y), font, scale, colour, width, smooth)


def draw_overlay(
    source: FrameSource,
    rows: FinalRows,
    chosen: Collection[int],
    result: Path,
    renderer: Renderer,
    workers: int,
) -> None:
    """Read the source again and write it with people drawn over it, beside the folder `result`.

    The file appears only when it is complete. A video keeps its sound.

    Args:
        workers: number of frames that are drawn at a time.
    """
    path, info = overlay_path(source, result), source.info
    if info.kind == "image":
        for frame, people in renderer.people(source, rows, chosen):
            write_image(path, renderer.draw(frame.image, people, with_numbers=False))
        return
    threads = max(1, torch.get_num_threads() // workers)

    def pose() -> Iterator[tuple[Frame, list[PosedPerson]]]:
        torch.set_num_threads(threads)  # of prefetch's thread
        yield from renderer.people(prefetch(source, READ_AHEAD), rows, chosen)

    with VideoWriter(path, info.fps, source.path if info.has_audio else None) as writer:

        def draw(posed: tuple[Frame, list[PosedPerson]]) -> Picture:
            frame, people = posed
            return writer.prepare(renderer.draw(frame.image, people, with_numbers=True))

        with closing(parallel_map(draw, prefetch(pose(), READ_AHEAD), workers)) as pictures:
            for picture in with_progress(pictures, info.frame_count_estimate, "frames drawn"):
                writer.write(picture)


def overlay_path(media: FrameSource, result: Path) -> Path:
    """Path of the overlay of a source, beside the folder `result`."""
    if media.info.kind != "image":
        return result.with_name(f"{result.name}.mp4")
    suffix = media.path.suffix.lower()
    return result.with_name(result.name + (suffix if suffix in (".jpg", ".png") else ".jpg"))


def remove_stale_overlays(result: Path, media: FrameSource, *, drawn: bool) -> None:
    """Delete overlays of earlier results with this name.

    Args:
        drawn: whether `media` has a new overlay, which is kept.
    """
    kept = overlay_path(media, result) if drawn else None
    for suffix in OVERLAY_SUFFIXES:
        path = result.with_name(result.name + suffix)
        if path != kept:
            path.unlink(missing_ok=True)


class _Portrait(NamedTuple):
    identity: int
    frame: int
    box: Box
    caption: str


def contact_sheet(
    rows: FinalRows, frames: Iterable[Frame], chosen: Collection[int]
) -> UInt8[np.ndarray, "H W 3"]:
    """A sheet with each person's best view, number, and first and last frame.

    Args:
        rows: final rows.
        frames: of the clip, from the first.
    """
    portraits = _portraits(rows, chosen)
    wanted: dict[int, list[int]] = {}
    for place, one in enumerate(portraits):
        wanted.setdefault(one.frame, []).append(place)
    columns = min(_COLUMNS, len(portraits))
    lines = -(-len(portraits) // columns)
    shape = (lines * (_HEIGHT + _CAPTION), columns * _WIDTH, 3)
    sheet = np.full(shape, _BACKGROUND, np.uint8)
    last = max(wanted)
    for frame in frames:
        for place in wanted.get(frame.index, []):
            top, left = place // columns * (_HEIGHT + _CAPTION), place % columns * _WIDTH
            tile = sheet[top : top + _HEIGHT + _CAPTION, left : left + _WIDTH]
            _draw_portrait(tile, frame.image, portraits[place])
        if frame.index == last:
            break
    return sheet


def _portraits(rows: FinalRows, chosen: Collection[int]) -> list[_Portrait]:
    people = {one: mine for one, mine in rows.by_identity().items() if one in chosen}
    longest = sorted(people, key=lambda one: -len(people[one]))[:_MOST]
    boxes = rows.column("box_xywh")
    seen = confidence(rows.column("score"), boxes, rows.column("truncation"))
    seen *= 1 - 0.9 * rows.column("occlusion")
    # Confidence does not increase beyond the network's input size, but a larger portrait is better.
    quality = seen * np.sqrt(boxes[:, 3])
    frame_of = rows.column("frame_index")
    portraits = []
    for one in sorted(longest):
        mine = people[one]
        best, frames = mine[quality[mine].argmax()], frame_of[mine]
        caption = f"{frames[0]}-{frames[-1]} ({len(mine)})"
        portraits.append(_Portrait(one, int(frame_of[best]), Box(*boxes[best].tolist()), caption))
    return portraits


def _draw_portrait(
    tile: UInt8[np.ndarray, "h w 3"], image: UInt8[np.ndarray, "H W 3"], portrait: _Portrait
) -> None:
    x, y, width, height = portrait.box
    margin = _MARGIN * max(width, height)
    left, top = max(0, int(x - margin)), max(0, int(y - margin))
    right, bottom = int(x + width + margin) + 1, int(y + height + margin) + 1
    crop = np.ascontiguousarray(image[top:bottom, left:right])
    if crop.size:
        scale = min((_WIDTH - 8) / crop.shape[1], (_HEIGHT - 8) / crop.shape[0])
        size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = cv2.resize(crop, size, interpolation=way)
        start = ((_HEIGHT - size[1]) // 2, (_WIDTH - size[0]) // 2)
        tile[start[0] : start[0] + size[1], start[1] : start[1] + size[0]] = small
    colour = person_colour(portrait.identity)
    text = np.ascontiguousarray(tile[_HEIGHT:])
    font, smooth = cv2.FONT_HERSHEY_SIMPLEX, cv2.LINE_AA
    cv2.putText(text, str(portrait.identity), (8, 30), font, 1.0, colour, 2, smooth)
    right_of = 20 + 20 * len(str(portrait.identity))
    cv2.putText(text, portrait.caption, (right_of, 27), font, 0.45, (220,) * 3, 1, smooth)
    tile[_HEIGHT:] = text
