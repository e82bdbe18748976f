"""Tracks cut into pieces that show one person each, and what is known at both ends of a piece.

A tracker goes wrong where people cover each other or are lost for a while. Cut there, what is left
are short stretches that can be trusted; stitch.py finds which of them belong together.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from main.tracks.camera import PELVIS
from main.tracks.rows import blocks, frames_of, people_of, read_column
from main.tracks.shape import CONFIDENCE, confidence, fuse_shape

CUT_GAP_S: Final = 0.5
"""A person who was lost for longer may have been found as somebody else."""
COVERED: Final = 0.3
"""Share of a box in another one from which position and shape are doubtful."""
_FIT_S: Final = 0.5
"""What is known at an end is fitted to so much of the piece."""
_POSITION_NOISE_M: Final = np.array([0.05, 0.05, 0.2])
_SPEED_M_S: Final = 1.0


class Sightings(NamedTuple):
    """What stitching needs of all rows; small enough to stay in memory (120 bytes a row)."""

    track: Int[np.ndarray, " T"]
    frame: Int[np.ndarray, " T"]
    position: Float[np.ndarray, "T 3"]  # of the pelvis, metres, in the clip's camera
    betas: Float[np.ndarray, "T 10"]
    confidence: Float[np.ndarray, " T"]
    overlap: Float[np.ndarray, " T"]  # share of the smaller of two boxes that is in the other
    clean: Bool[np.ndarray, " T"]  # nobody nearer covers much, and most is in the image


class Ends(NamedTuple):
    """One end of every piece: the row that shows it best, when that was, place and velocity."""

    row: Int[np.ndarray, " P"]
    time_s: Float[np.ndarray, " P"]
    position: Float[np.ndarray, "P 3"]
    velocity: Float[np.ndarray, "P 3"]


class Pieces(NamedTuple):
    rows: list[Int[np.ndarray, " _"]]
    track: Int[np.ndarray, " P"]
    first_frame: Int[np.ndarray, " P"]
    last_frame: Int[np.ndarray, " P"]
    start: Ends
    end: Ends
    betas: Float[np.ndarray, "P 10"]
    betas_rows: Float[np.ndarray, " P"]  # how many rows' worth of evidence the shape has


def read_sightings(rows: np.ndarray) -> Sightings:
    """What stitching needs of rows that are placed in the clip's camera."""
    position = np.empty((len(rows), 3))
    for block in blocks(rows):
        position[block] = rows["joints_3d_m"][block, PELVIS]
    overlap, hidden = _overlaps(rows, position[:, 2])
    return Sightings(
        read_column(rows, "person"),
        read_column(rows, "frame_index"),
        position,
        read_column(rows, "raw_betas"),
        confidence({name: read_column(rows, name) for name in CONFIDENCE}) * (1 - hidden) ** 2,
        overlap,
        (hidden < COVERED) & (read_column(rows, "truncation") < 0.5),
    )


def _overlaps(
    rows: np.ndarray, depth_m: Float[np.ndarray, " T"]
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
    """Shares that boxes have in common: of the smaller one, and of one's own with a nearer one."""
    boxes = read_column(rows, "box_xywh").astype(np.float64)
    start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    area = np.maximum(boxes[:, 2] * boxes[:, 3], 1e-9)
    overlap, hidden = np.zeros(len(rows)), np.zeros(len(rows))
    for _, mine in frames_of(rows):
        if len(mine) > 1:
            sides = np.minimum(end[mine, None], end[mine]) - np.maximum(
                start[mine, None], start[mine]
            )
            shared = np.prod(np.clip(sides, 0, None), axis=-1)
            np.fill_diagonal(shared, 0)
            overlap[mine] = (shared / np.minimum(area[mine, None], area[mine])).max(axis=1)
            nearer = depth_m[mine] < depth_m[mine, None]
            hidden[mine] = (shared * nearer / area[mine, None]).max(axis=1)
    return overlap, hidden


def cut_tracks(rows: np.ndarray, seen: Sightings, fps: float) -> list[Int[np.ndarray, " _"]]:
    """Rows of each piece: tracks cut at gaps, and in the middle of each covering by another box."""
    gap = max(1, round(CUT_GAP_S * fps))
    pieces = []
    for mine in people_of(rows).values():
        breaks = set((np.flatnonzero(np.diff(seen.frame[mine]) > gap) + 1).tolist())
        breaks |= set(_coverings(seen.overlap[mine]))
        pieces += np.split(mine, sorted(breaks - {0}))
    return sorted(pieces, key=lambda piece: (seen.frame[piece[0]], piece[0]))


def _coverings(overlap: Float[np.ndarray, " T"]) -> Iterator[int]:
    """Where each stretch of covering is worst."""
    covered = np.concatenate([[False], overlap >= COVERED, [False]])
    edges = np.flatnonzero(np.diff(covered.astype(np.int8)))
    for start, end in edges.reshape(-1, 2).tolist():
        yield start + int(overlap[start:end].argmax())


def describe(pieces: list[Int[np.ndarray, " _"]], seen: Sightings, fps: float) -> Pieces:
    """What is known of each piece."""
    betas, worth = [], []
    for piece in pieces:
        weights = seen.confidence[piece]
        betas.append(fuse_shape(seen.betas[piece], weights))
        worth.append(float(weights.sum()))
    return Pieces(
        pieces,
        np.array([seen.track[piece[0]] for piece in pieces]),
        np.array([seen.frame[piece[0]] for piece in pieces]),
        np.array([seen.frame[piece[-1]] for piece in pieces]),
        _ends([piece[::-1] for piece in pieces], seen, fps),
        _ends(pieces, seen, fps),
        np.array(betas).reshape(-1, 10),
        np.array(worth),
    )


def _ends(pieces: list[Int[np.ndarray, " _"]], seen: Sightings, fps: float) -> Ends:
    """A straight line through the last rows, clean ones if there are any, by least squares.

    A velocity that few rows determine is drawn to zero: its prior deviation is a walk's, 1 m/s.
    """
    found = []
    for piece in pieces:
        near = piece[np.abs(seen.frame[piece] - seen.frame[piece[-1]]) <= _FIT_S * fps]
        near = near[seen.clean[near]] if seen.clean[near].any() else near
        last = near[-1]
        times = seen.frame[near] / fps
        late = times - times.mean()
        position = seen.position[near]
        centre = position.mean(axis=0)
        slope = late @ (position - centre)
        velocity = slope / (late @ late + (_POSITION_NOISE_M / _SPEED_M_S) ** 2)
        time = seen.frame[last] / fps
        found.append((last, time, centre + velocity * (time - times.mean()), velocity))
    row, time_s, places, velocities = (np.array(one) for one in zip(*found, strict=True))
    return Ends(row, time_s, places, velocities)
