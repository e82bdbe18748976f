"""Who is who, decided when the video is over: pieces of tracks become people.

1. Tracks are cut where the tracker may have erred: where people cover each other, or are lost for a
   while. What is left are short stretches that can be trusted.
2. Each piece may have one successor, at most 3 s later. The links with the largest sum of
   evidence are chosen together (minimum-cost bipartite matching, each piece also against "no
   successor"); motion, pose and shape give the evidence.
3. The chains that come of it are linked once more over any absence, by shape and place, and more
   strictly.
4. People are numbered by their first frame.

Evidence is the logarithm of a likelihood ratio, "the same person" over "two people of this clip": 0
says nothing, positive speaks for the same. What is known weakens with the time between the pieces.
"""

import logging
import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial.transform import Rotation

from main.motion.camera import ClipCamera
from main.motion.rows import RawRows
from main.motion.trajectories import confidence, fuse_shape
from utils.camera import shared_areas

log = logging.getLogger(__name__)

# Cutting tracks.
CUT_GAP_S: Final = 0.5
"""A person who was lost for longer may have been found as somebody else."""
COVERED: Final = 0.3
"""Share of a box in another one from which position and shape are doubtful."""
_FIT_S: Final = 0.5
"""What is known at an end is fitted to so much of the piece."""
_POSITION_NOISE_M: Final = np.array([0.05, 0.05, 0.2])
_SPEED_M_S: Final = 1.0

# Linking pieces.
SOON_S: Final = 3.0
"""Longest absence over which motion says anything."""
_SAME_TRACK, _SAME_TRACK_UNBROKEN = 1.0, 3.0
"""What the tracker's own opinion adds: after an absence, and where it never lost the person."""
_UNBROKEN_S: Final = 0.1
_NOBODY_LEFT: Final = 5.0
"""Where tracks are cut but go on, people neither leave nor come, though somebody who is covered may
be placed metres away. It counts for all ways to link their ends: it does not say who is who."""
_RETURN_PRIOR: Final = -1.0
"""Somebody who appears after a long absence is rather somebody new."""
_LEAST_ROWS: Final = 8.0
"""Confident rows that a chain needs to be recognised by its shape."""
_MOST_CHAINS: Final = 2000
_BASE: Final = 100.0
"""Makes all costs positive, as the matching demands; the same for each piece, so it decides
nothing."""

# Evidence.
# Deviation of a place (x, y, z) after dt seconds: the estimate's noise, and what motion adds.
_PLACE_M: Final = np.array([0.12, 0.10, 0.20])
_DEPTH_SHARE: Final = 0.04
_ONE_PLACE: Final = 2.0
"""Two bodies that are not so many of these deviations apart may be one, in the boxes of two."""
_DRIFT_M_S: Final = np.array([0.5, 0.15, 0.5])
_VELOCITY_LASTS_S: Final = 1.0
# Where somebody else might be: deviations about the middle of what is seen.
_ELSEWHERE_YZ_M: Final = (0.3, 1.5)

# Mean angle between two poses: of one person at once, of two people; both as (mean, deviation).
_POSE_SAME, _POSE_OTHER, _POSE_LASTS_S = (0.10, 0.06), (0.30, 0.10), 0.4
_HEADING_SAME, _HEADING_OTHER, _HEADING_LASTS_S = (0.15, 0.15), (1.40, 0.80), 1.5
_MOST: Final = 4.0
"""No single kind of evidence says more for a pair than this; against it, twice as much."""

_SHAPE_COMMON: Final = 0.25
"""Share of a shape's variance in a track that more frames do not average out."""
_SHAPE_ROWS: Final = 12.0
"""As many rows in sequence are worth one independent one."""
_SHAPE_TRUST: Final = 0.6
"""Components of a shape err together, so their evidence does not quite add up."""

Pairs = tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]
"""Numbers of the earlier and of the later piece."""


def stitch(rows: RawRows, camera: ClipCamera, fps: float) -> Int[np.ndarray, " T"]:
    """A person's number for every row, from the tracker's numbers.

    Args:
        rows: placed in `camera`; a track has one row per frame at most.
    """
    seen = observe(rows)
    pieces = describe(cut_tracks(rows, seen, fps), seen, fps)
    within = _variance_within(pieces, seen)
    spread = shape_spread(pieces.betas, pieces.betas_rows, within)

    pairs = _pairs_soon(pieces, fps)
    evidence = (
        motion_evidence(pieces, pairs, camera)
        + pose_evidence(pieces, pairs, rows)
        + shape_evidence(pieces, pairs, spread)
        + _trackers_opinion(pieces, pairs, fps)
    )
    chains = describe(_linked(pieces, pairs, evidence), seen, fps)

    pairs = _pairs_ever(chains)
    spread = shape_spread(chains.betas, chains.betas_rows, within)
    evidence = (
        motion_evidence(chains, pairs, camera)
        + shape_evidence(chains, pairs, spread)
        + _RETURN_PRIOR
    )
    people = _linked(chains, pairs, evidence)

    people.sort(key=lambda person: (seen.frame[person[0]], seen.track[person[0]]))
    log.info("people: %d, tracks: %d", len(people), len(rows.by_identity()))
    identities = np.empty(len(rows), np.int32)
    for identity, person in enumerate(people, start=1):
        identities[person] = identity
    return identities


class Observations(NamedTuple):
    """What stitching needs of all rows; small enough to stay in memory (120 bytes per row)."""

    track: Int[np.ndarray, " T"]
    frame: Int[np.ndarray, " T"]
    position: Float[np.ndarray, "T 3"]  # of the pelvis, metres, in the clip's camera
    betas: Float[np.ndarray, "T 10"]
    confidence: Float[np.ndarray, " T"]
    overlap: Float[np.ndarray, " T"]  # share of the smaller of two boxes that is in the other
    clean: Bool[np.ndarray, " T"]  # nobody nearer covers much, and most is in the image
    doubled: Bool[np.ndarray, " T"]  # an overlapping box has its body at the same place


class Ends(NamedTuple):
    """One end of every piece: the row that shows it best, when that was, place and velocity.

    They are not `known` if the rows may all show somebody else.
    """

    row: Int[np.ndarray, " P"]
    time_s: Float[np.ndarray, " P"]
    position: Float[np.ndarray, "P 3"]
    velocity: Float[np.ndarray, "P 3"]
    known: Bool[np.ndarray, " P"]


class Pieces(NamedTuple):
    rows: list[Int[np.ndarray, " _"]]
    track: Int[np.ndarray, " P"]
    first_frame: Int[np.ndarray, " P"]
    last_frame: Int[np.ndarray, " P"]
    start: Ends
    end: Ends
    betas: Float[np.ndarray, "P 10"]
    betas_rows: Float[np.ndarray, " P"]  # how many rows' worth of evidence the shape has


def observe(rows: RawRows) -> Observations:
    """What stitching needs of rows that are placed in the clip's camera."""
    boxes, truncation = rows.column("box_xywh"), rows.column("truncation")
    position = rows.column("placed_pelvis_m").astype(np.float64)
    overlap, hidden, doubled = _overlaps(rows, boxes.astype(np.float64), position)
    return Observations(
        rows.column("track"),
        rows.column("frame_index"),
        position,
        rows.column("betas"),
        confidence(rows.column("score"), boxes, truncation) * (1 - hidden) ** 2 * ~doubled,
        overlap,
        (hidden < COVERED) & (truncation < 0.5) & ~doubled,
        doubled,
    )


def _overlaps(
    rows: RawRows, boxes: Float[np.ndarray, "T 4"], position: Float[np.ndarray, "T 3"]
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"], Bool[np.ndarray, " T"]]:
    """Shares that boxes have in common: of the smaller one, and of one's own with a nearer one.

    Also whether an overlapping box has its body at the same place: where somebody is mostly
    covered, a network may see the person in front in both boxes.
    """
    area = np.maximum(boxes[:, 2] * boxes[:, 3], 1e-9)
    overlap, hidden, doubled = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows), bool)
    for _, mine in rows.by_frame():
        if len(mine) > 1:
            shared = shared_areas(boxes[mine], boxes[mine])
            np.fill_diagonal(shared, 0)
            shares = shared / np.minimum(area[mine, None], area[mine])
            overlap[mine] = shares.max(axis=1)
            offset = position[mine, None] - position[mine]
            hidden[mine] = (shared * (offset[..., 2] > 0) / area[mine, None]).max(axis=1)
            deviation = _PLACE_M + [[0, 0, _DEPTH_SHARE]] * position[mine, None, 2:]
            near = np.linalg.norm(offset / deviation, axis=-1) < _ONE_PLACE
            doubled[mine] = (near & (shares >= COVERED)).any(axis=1)
    return overlap, hidden, doubled


def cut_tracks(rows: RawRows, seen: Observations, fps: float) -> list[Int[np.ndarray, " _"]]:
    """Rows of each piece: tracks cut at gaps, and in the middle of each covering by another box."""
    gap = max(1, round(CUT_GAP_S * fps))
    pieces = []
    for mine in rows.by_identity().values():
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


def describe(pieces: list[Int[np.ndarray, " _"]], seen: Observations, fps: float) -> Pieces:
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


def _ends(pieces: list[Int[np.ndarray, " _"]], seen: Observations, fps: float) -> Ends:
    """A straight line through the last rows, clean ones if there are any, by least squares.

    A velocity that few rows determine is drawn to zero: its prior deviation is a walk's, 1 m/s.
    """
    found = []
    for piece in pieces:
        near = piece[np.abs(seen.frame[piece] - seen.frame[piece[-1]]) <= _FIT_S * fps]
        clean = seen.clean[near]
        known = clean.any() or not seen.doubled[near].any()
        near = near[clean] if clean.any() else near
        last = near[-1]
        times = seen.frame[near] / fps
        late = times - times.mean()
        position = seen.position[near]
        centre = position.mean(axis=0)
        slope = late @ (position - centre)
        velocity = slope / (late @ late + (_POSITION_NOISE_M / _SPEED_M_S) ** 2)
        time = seen.frame[last] / fps
        found.append((last, time, centre + velocity * (time - times.mean()), velocity, known))
    return Ends(*(np.array(one) for one in zip(*found, strict=True)))


class ShapeSpread(NamedTuple):
    """Variances of betas: within a track, and between people."""

    within: Float[np.ndarray, "10"]
    between: Float[np.ndarray, "10"]


def motion_evidence(pieces: Pieces, pairs: Pairs, camera: ClipCamera) -> Float[np.ndarray, " N"]:
    """Place and velocity, in space: the clip's camera makes them comparable."""
    first, then = pairs
    known = pieces.end.known[first] & pieces.start.known[then]
    dt = pieces.start.time_s[then] - pieces.end.time_s[first]
    lasting = _VELOCITY_LASTS_S * -np.expm1(-dt / _VELOCITY_LASTS_S)
    velocity = (pieces.end.velocity[first] + pieces.start.velocity[then]) / 2
    error = pieces.start.position[then] - pieces.end.position[first] - velocity * lasting[:, None]
    depth = np.maximum(pieces.end.position[first, 2], 0.5)
    deviation = _PLACE_M + _DRIFT_M_S * dt[:, None]
    deviation[:, 2] += _DEPTH_SHARE * depth
    width = 2 * camera.princpt[0] / camera.focal[0] * depth
    elsewhere = np.stack(
        [width / math.sqrt(12), *(np.full_like(depth, s) for s in _ELSEWHERE_YZ_M)], axis=1
    )
    # After a long time one may be anywhere that others are.
    deviation = np.minimum(deviation, elsewhere * math.sqrt(2))
    same = -0.5 * (error / deviation) ** 2 - np.log(deviation)
    other = -0.5 * (error / (elsewhere * math.sqrt(2))) ** 2 - np.log(elsewhere * math.sqrt(2))
    return _limited(known * (same - other).sum(axis=1), 2 * _MOST)


def pose_evidence(pieces: Pieces, pairs: Pairs, rows: RawRows) -> Float[np.ndarray, " N"]:
    """Pose and heading at the two ends."""
    first, then = pairs
    known = pieces.end.known[first] & pieces.start.known[then]
    dt = pieces.start.time_s[then] - pieces.end.time_s[first]
    ends, starts = pieces.end.row[first], pieces.start.row[then]
    pose = _mean_angle(rows.take(ends, "body_pose"), rows.take(starts, "body_pose"))
    heading = _mean_angle(rows.take(ends, "placed_orient"), rows.take(starts, "placed_orient"))
    return known * (
        _fading(pose, dt, _POSE_SAME, _POSE_OTHER, _POSE_LASTS_S)
        + _fading(heading, dt, _HEADING_SAME, _HEADING_OTHER, _HEADING_LASTS_S)
    )


def _mean_angle(
    one: Float[np.ndarray, "N J3"], other: Float[np.ndarray, "N J3"]
) -> Float[np.ndarray, " N"]:
    if not len(one):
        return np.zeros(0)
    a, b = (Rotation.from_rotvec(pose.reshape(-1, 3)) for pose in (one, other))
    return (a.inv() * b).magnitude().reshape(len(one), -1).mean(axis=1)


def _fading(
    angle: Float[np.ndarray, " N"],
    dt: Float[np.ndarray, " N"],
    same: tuple[float, float],
    other: tuple[float, float],
    lasts_s: float,
) -> Float[np.ndarray, " N"]:
    """Two normal distributions, of which the first becomes the second in time."""
    fresh = np.exp(-dt / lasts_s)
    mean, deviation = (fresh * s + (1 - fresh) * o for s, o in zip(same, other, strict=True))
    ratio = -0.5 * ((angle - mean) / deviation) ** 2 - np.log(deviation)
    return _limited(ratio + 0.5 * ((angle - other[0]) / other[1]) ** 2 + math.log(other[1]), _MOST)


def shape_spread(
    betas: Float[np.ndarray, "P 10"],
    rows_worth: Float[np.ndarray, " P"],
    within: Float[np.ndarray, "10"],
) -> ShapeSpread:
    """How much people of this clip differ: variance of the pieces less that of their errors.

    A network that sees the same shape in everybody gives a variance near 0, and then shape is no
    evidence.
    """
    weights = np.minimum(rows_worth, 60.0)
    if len(betas) < 2 or weights.sum() <= 0:
        return ShapeSpread(within, np.zeros(10))
    mean = np.average(betas, axis=0, weights=weights)
    effective = weights.sum() ** 2 / (weights**2).sum()
    variance = np.average((betas - mean) ** 2, axis=0, weights=weights)
    variance *= effective / max(effective - 1, 0.5)
    error = np.average(_error(within, rows_worth), axis=0, weights=weights)
    return ShapeSpread(within, np.maximum(variance - error, 0.0))


def shape_evidence(pieces: Pieces, pairs: Pairs, spread: ShapeSpread) -> Float[np.ndarray, " N"]:
    """Betas of the same person differ by their errors, those of two people by much more."""
    first, then = pairs
    error = _error(spread.within, pieces.betas_rows)
    noise = np.maximum(error[first] + error[then], 1e-6)
    wide = noise + 2 * spread.between
    squared = (pieces.betas[first] - pieces.betas[then]) ** 2
    ratio = 0.5 * (squared / wide - squared / noise + np.log(wide / noise))
    return _limited(_SHAPE_TRUST * ratio.sum(axis=1), 2 * _MOST)


def _error(
    within: Float[np.ndarray, "10"], rows_worth: Float[np.ndarray, " P"]
) -> Float[np.ndarray, "P 10"]:
    """Variance of a piece's mean shape: neighbouring frames err alike, so it falls slowly."""
    independent = np.maximum(rows_worth / _SHAPE_ROWS, 0.5)
    return within * (_SHAPE_COMMON + (1 - _SHAPE_COMMON) / independent)[:, None]


def _limited(ratio: Float[np.ndarray, " N"], most: float) -> Float[np.ndarray, " N"]:
    return np.clip(ratio, -2 * most, most)


def _variance_within(pieces: Pieces, seen: Observations) -> Float[np.ndarray, "10"]:
    """Of betas about the mean of their piece."""
    squares, weights = np.zeros(10), 1e-9
    for piece, betas in zip(pieces.rows, pieces.betas, strict=True):
        if len(piece) > 1:
            trust = seen.confidence[piece]
            squares += trust @ (seen.betas[piece] - betas) ** 2
            weights += float(trust.sum()) * (1 - 1 / len(piece))
    return np.maximum(squares / weights, 1e-6)


def _trackers_opinion(pieces: Pieces, pairs: Pairs, fps: float) -> Float[np.ndarray, " N"]:
    first, then = pairs
    absence = pieces.first_frame[then] - pieces.last_frame[first] - 1
    is_short = absence <= _UNBROKEN_S * fps
    is_one = pieces.track[first] == pieces.track[then]
    goes_on, came_before = np.zeros((2, len(pieces.track)), bool)
    goes_on[first[is_short & is_one]] = came_before[then[is_short & is_one]] = True
    gain = np.where(is_short, _SAME_TRACK_UNBROKEN, _SAME_TRACK) * is_one
    return gain + _NOBODY_LEFT * (is_short & goes_on[first] & came_before[then])


def _pairs_soon(pieces: Pieces, fps: float) -> Pairs:
    """Pieces of which one begins after the other's end, not much later."""
    order = np.argsort(pieces.first_frame, kind="stable")
    starts = pieces.first_frame[order]
    low = np.searchsorted(starts, pieces.last_frame, side="right")
    high = np.searchsorted(starts, pieces.last_frame + round(SOON_S * fps), side="right")
    first = np.repeat(np.arange(len(order)), high - low)
    then = [order[a:b] for a, b in zip(low, high, strict=True)]
    return first, np.concatenate(then).astype(np.int64)


def _pairs_ever(chains: Pieces) -> Pairs:
    """Chains of which one begins after the other's end, if both are long enough to be known."""
    known = np.flatnonzero(chains.betas_rows >= _LEAST_ROWS)
    if len(known) > _MOST_CHAINS:
        known = known[np.argsort(-chains.betas_rows[known])[:_MOST_CHAINS]]
    first, then = np.nonzero(chains.last_frame[known, None] < chains.first_frame[known])
    return known[first], known[then]


def _linked(
    pieces: Pieces, pairs: Pairs, evidence: Float[np.ndarray, " N"]
) -> list[Int[np.ndarray, " _"]]:
    """Rows of pieces that follow each other, joined; links are those with the largest sum."""
    count = len(pieces.rows)
    good = evidence > 0
    first, then, gain = pairs[0][good], pairs[1][good], evidence[good]
    everyone = np.arange(count)
    costs = np.concatenate([_BASE - gain, np.full(count, _BASE)])
    rows, columns = np.concatenate([first, everyone]), np.concatenate([then, everyone + count])
    matrix = csr_array((costs, (rows, columns)), shape=(count, 2 * count))
    pieces_matched, matched = min_weight_full_bipartite_matching(matrix)
    successor = {
        int(one): int(next_one)
        for one, next_one in zip(pieces_matched, matched, strict=True)
        if next_one < count
    }
    chains = []
    for start in sorted(set(range(count)) - set(successor.values())):
        chain, current = [pieces.rows[start]], start
        while current in successor:
            current = successor[current]
            chain.append(pieces.rows[current])
        chains.append(np.concatenate(chain))
    return chains
