"""Identities: after the last frame, pieces of tracks are linked to people.

1. Tracks are cut into pieces where the tracker may have made a mistake: where people cover each
   other, or are lost for a while.
2. Each piece has at most one successor, at most 3 s later. The links with the largest sum of
   evidence are a minimum-cost bipartite matching, in which each piece may also have no successor.
   Motion, pose, shape and the tracker give the evidence.
3. The resulting chains are linked once more over absences of any length, by shape and position,
   with a prior against links.
4. People are numbered by their first frame.

Evidence is the logarithm of a likelihood ratio: the same person against two people of this clip. It
becomes weaker with the time between two pieces.
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
_MAX_GAP_S: Final = 0.5
"""Longest absence within a piece."""
COVERED: Final = 0.3
"""Share of a box in another one from which position and shape are unreliable."""
_FIT_S: Final = 0.5
"""Duration of the end of a piece to which position and velocity are fitted."""
_POSITION_SIGMA_M: Final = np.array([0.05, 0.05, 0.2])
_SPEED_SIGMA_M_S: Final = 1.0

# Linking pieces.
_MAX_ABSENCE_S: Final = 3.0
"""Longest absence over which motion gives evidence."""
_SAME_TRACK, _SAME_TRACK_UNBROKEN = 1.0, 3.0
"""Evidence of the tracker: after an absence, and where it never lost the person."""
_UNBROKEN_S: Final = 0.1
_NOBODY_LEFT: Final = 5.0
"""Evidence for all links between ends at which tracks are cut but continue: people neither leave
nor enter there, although somebody who is covered may be placed metres away."""
_RETURN_PRIOR: Final = -1.0
"""Log odds that somebody who appears after a long absence has been seen before."""
_MIN_CHAIN_ROWS: Final = 8.0
"""Sum of the confidence of a chain's rows from which it can be recognised by its shape."""
_MAX_CHAINS: Final = 2000
_BASE_COST: Final = 100.0
"""Added to all costs, because the matching requires positive ones; each piece has one cost."""

# Evidence.
# Standard deviations of the difference of positions (x, y, z), and their growth with time.
_PLACE_SIGMA_M: Final = np.array([0.12, 0.10, 0.20])
_DEPTH_SIGMA: Final = 0.04
"""Further standard deviation of the depth, relative to the depth."""
_DRIFT_M_S: Final = np.array([0.5, 0.15, 0.5])
_SAME_PLACE: Final = 2.0
"""Distance in these standard deviations up to which two bodies may be one, in two boxes."""
_VELOCITY_LASTS_S: Final = 1.0
_ELSEWHERE_YZ_M: Final = (0.3, 1.5)
"""Standard deviations of the positions of other people."""

# Mean angle in radians between two poses (mean, standard deviation): of one person without a pause,
# and of two people; and the time constant with which the first becomes the second.
_POSE_SAME, _POSE_OTHER, _POSE_LASTS_S = (0.10, 0.06), (0.30, 0.10), 0.4
_HEADING_SAME, _HEADING_OTHER, _HEADING_LASTS_S = (0.15, 0.15), (1.40, 0.80), 1.5
_MAX_EVIDENCE: Final = 4.0
"""Largest evidence of one kind for a link; against a link, it may be twice as large."""

_SHAPE_COMMON: Final = 0.25
"""Share of the variance of shapes that more frames of a track do not average out."""
_SHAPE_ROWS: Final = 12.0
"""Number of consecutive rows that are worth one independent row."""
_SHAPE_WEIGHT: Final = 0.6
"""Weight of the evidence of shapes, because errors of their components are correlated."""

Pairs = tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]
"""Numbers of the earlier and of the later piece of each pair."""


def stitch(rows: RawRows, camera: ClipCamera, fps: float) -> Int[np.ndarray, " T"]:
    """The number of the person of each row, from 1.

    Args:
        rows: rows that are placed in `camera`, with at most one row per frame and track.
    """
    seen = observe(rows)
    pieces = describe(cut_tracks(rows, seen, fps), seen, fps)
    within = _variance_within(pieces, seen)
    spread = shape_spread(pieces.betas, pieces.betas_rows, within)

    pairs = _close_pairs(pieces, fps)
    evidence = (
        motion_evidence(pieces, pairs, camera)
        + pose_evidence(pieces, pairs, rows)
        + shape_evidence(pieces, pairs, spread)
        + _tracker_evidence(pieces, pairs, fps)
    )
    chains = describe(_linked(pieces, pairs, evidence), seen, fps)

    pairs = _distant_pairs(chains)
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
    """What stitching needs of T rows; it stays in memory (120 bytes per row).

    Attributes:
        position: of the pelvis in metres, in the clip's camera.
        overlap: largest share that a box has in common with another one, of the smaller of both.
        clean: whether no nearer person covers much of the box, and most of it is in the image.
        doubled: whether the body in an overlapping box is at the same place.
    """

    track: Int[np.ndarray, " T"]
    frame: Int[np.ndarray, " T"]
    position: Float[np.ndarray, "T 3"]
    betas: Float[np.ndarray, "T 10"]
    confidence: Float[np.ndarray, " T"]
    overlap: Float[np.ndarray, " T"]
    clean: Bool[np.ndarray, " T"]
    doubled: Bool[np.ndarray, " T"]


class Ends(NamedTuple):
    """One end of each of P pieces: its best row, with position and velocity in metres.

    `known` is false where all rows near the end may show somebody else.
    """

    row: Int[np.ndarray, " P"]
    time_s: Float[np.ndarray, " P"]
    position: Float[np.ndarray, "P 3"]
    velocity: Float[np.ndarray, "P 3"]
    known: Bool[np.ndarray, " P"]


class Pieces(NamedTuple):
    """P pieces of tracks, or chains of them.

    Attributes:
        betas: robust mean of the rows' betas.
        betas_rows: number of fully confident rows that these are worth.
    """

    rows: list[Int[np.ndarray, " _"]]
    track: Int[np.ndarray, " P"]
    first_frame: Int[np.ndarray, " P"]
    last_frame: Int[np.ndarray, " P"]
    start: Ends
    end: Ends
    betas: Float[np.ndarray, "P 10"]
    betas_rows: Float[np.ndarray, " P"]


def observe(rows: RawRows) -> Observations:
    """Read what stitching needs of rows that are placed in the clip's camera."""
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
    """The overlap, the share that a nearer person's box covers, and whether the body is doubled.

    Where somebody is mostly covered, a network may see the person in front in both boxes.
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
            sigma = _PLACE_SIGMA_M + [[0, 0, _DEPTH_SIGMA]] * position[mine, None, 2:]
            near = np.linalg.norm(offset / sigma, axis=-1) < _SAME_PLACE
            doubled[mine] = (near & (shares >= COVERED)).any(axis=1)
    return overlap, hidden, doubled


def cut_tracks(rows: RawRows, seen: Observations, fps: float) -> list[Int[np.ndarray, " _"]]:
    """Rows of each piece: tracks are cut at gaps, and where another box overlaps most."""
    gap = max(1, round(_MAX_GAP_S * fps))
    pieces = []
    for mine in rows.by_identity().values():
        breaks = set((np.flatnonzero(np.diff(seen.frame[mine]) > gap) + 1).tolist())
        breaks |= set(_worst_overlaps(seen.overlap[mine]))
        pieces += np.split(mine, sorted(breaks - {0}))
    return sorted(pieces, key=lambda piece: (seen.frame[piece[0]], piece[0]))


def _worst_overlaps(overlap: Float[np.ndarray, " T"]) -> Iterator[int]:
    """Index of the largest value of each stretch of overlaps of at least `COVERED`."""
    covered = np.concatenate([[False], overlap >= COVERED, [False]])
    edges = np.flatnonzero(np.diff(covered.astype(np.int8)))
    for start, end in edges.reshape(-1, 2).tolist():
        yield start + int(overlap[start:end].argmax())


def describe(pieces: list[Int[np.ndarray, " _"]], seen: Observations, fps: float) -> Pieces:
    """Shape and ends of pieces, given by their rows."""
    betas = [fuse_shape(seen.betas[piece], seen.confidence[piece]) for piece in pieces]
    return Pieces(
        pieces,
        np.array([seen.track[piece[0]] for piece in pieces]),
        np.array([seen.frame[piece[0]] for piece in pieces]),
        np.array([seen.frame[piece[-1]] for piece in pieces]),
        _ends([piece[::-1] for piece in pieces], seen, fps),
        _ends(pieces, seen, fps),
        np.array(betas).reshape(-1, 10),
        np.array([float(seen.confidence[piece].sum()) for piece in pieces]),
    )


def _ends(pieces: list[Int[np.ndarray, " _"]], seen: Observations, fps: float) -> Ends:
    """Fit straight lines to the last rows of pieces, of which only clean ones if there are any.

    The velocity has a prior of zero with the standard deviation of walking, 1 m/s.
    """
    found = []
    for piece in pieces:
        near = piece[np.abs(seen.frame[piece] - seen.frame[piece[-1]]) <= _FIT_S * fps]
        clean = seen.clean[near]
        known = clean.any()
        near = near[clean] if known else near
        last = near[-1]
        times = seen.frame[near] / fps
        late = times - times.mean()
        position = seen.position[near]
        centre = position.mean(axis=0)
        slope = late @ (position - centre)
        velocity = slope / (late @ late + (_POSITION_SIGMA_M / _SPEED_SIGMA_M_S) ** 2)
        time = seen.frame[last] / fps
        found.append((last, time, centre + velocity * (time - times.mean()), velocity, known))
    return Ends(*(np.array(one) for one in zip(*found, strict=True)))


class ShapeSpread(NamedTuple):
    """Variances of betas within a track and between people."""

    within: Float[np.ndarray, "10"]
    between: Float[np.ndarray, "10"]


def motion_evidence(pieces: Pieces, pairs: Pairs, camera: ClipCamera) -> Float[np.ndarray, " N"]:
    """Evidence of positions and velocities in the clip's camera."""
    first, then = pairs
    known = pieces.end.known[first] & pieces.start.known[then]
    dt = pieces.start.time_s[then] - pieces.end.time_s[first]
    lasting = _VELOCITY_LASTS_S * -np.expm1(-dt / _VELOCITY_LASTS_S)
    velocity = (pieces.end.velocity[first] + pieces.start.velocity[then]) / 2
    error = pieces.start.position[then] - pieces.end.position[first] - velocity * lasting[:, None]
    depth = np.maximum(pieces.end.position[first, 2], 0.5)
    sigma = _PLACE_SIGMA_M + _DRIFT_M_S * dt[:, None]
    sigma[:, 2] += _DEPTH_SIGMA * depth
    width = 2 * camera.princpt[0] / camera.focal[0] * depth
    elsewhere = np.stack(
        [width / math.sqrt(12), *(np.full_like(depth, s) for s in _ELSEWHERE_YZ_M)], axis=1
    )
    elsewhere *= math.sqrt(2)  # of the difference between two people
    # After a long time, a person may be anywhere.
    sigma = np.minimum(sigma, elsewhere)
    same = -0.5 * (error / sigma) ** 2 - np.log(sigma)
    other = -0.5 * (error / elsewhere) ** 2 - np.log(elsewhere)
    return _limited(known * (same - other).sum(axis=1), 2 * _MAX_EVIDENCE)


def pose_evidence(pieces: Pieces, pairs: Pairs, rows: RawRows) -> Float[np.ndarray, " N"]:
    """Evidence of poses and headings at the two ends."""
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
    """Evidence of angles with two normal distributions, of which `same` becomes `other` in time."""
    fresh = np.exp(-dt / lasts_s)
    mean, sigma = (fresh * s + (1 - fresh) * o for s, o in zip(same, other, strict=True))
    ratio = -0.5 * ((angle - mean) / sigma) ** 2 - np.log(sigma)
    ratio = ratio + 0.5 * ((angle - other[0]) / other[1]) ** 2 + math.log(other[1])
    return _limited(ratio, _MAX_EVIDENCE)


def shape_spread(
    betas: Float[np.ndarray, "P 10"],
    rows_worth: Float[np.ndarray, " P"],
    within: Float[np.ndarray, "10"],
) -> ShapeSpread:
    """Estimate how much people of this clip differ: variance of pieces minus that of their errors.

    If the network estimates the same shape for everybody, it is near 0, and shape is no evidence.
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
    """Evidence of betas, which differ by their errors, and between people also by their spread."""
    first, then = pairs
    error = _error(spread.within, pieces.betas_rows)
    noise = np.maximum(error[first] + error[then], 1e-6)
    wide = noise + 2 * spread.between
    squared = (pieces.betas[first] - pieces.betas[then]) ** 2
    ratio = 0.5 * (squared / wide - squared / noise + np.log(wide / noise))
    return _limited(_SHAPE_WEIGHT * ratio.sum(axis=1), 2 * _MAX_EVIDENCE)


def _error(
    within: Float[np.ndarray, "10"], rows_worth: Float[np.ndarray, " P"]
) -> Float[np.ndarray, "P 10"]:
    """Variance of the mean betas of pieces, whose errors are correlated in neighbouring frames."""
    independent = np.maximum(rows_worth / _SHAPE_ROWS, 0.5)
    return within * (_SHAPE_COMMON + (1 - _SHAPE_COMMON) / independent)[:, None]


def _limited(ratio: Float[np.ndarray, " N"], most: float) -> Float[np.ndarray, " N"]:
    return np.clip(ratio, -2 * most, most)


def _variance_within(pieces: Pieces, seen: Observations) -> Float[np.ndarray, "10"]:
    """Variance of betas about the mean of their piece."""
    squares, weights = np.zeros(10), 1e-9
    for piece, betas in zip(pieces.rows, pieces.betas, strict=True):
        if len(piece) > 1:
            trust = seen.confidence[piece]
            squares += trust @ (seen.betas[piece] - betas) ** 2
            weights += float(trust.sum()) * (1 - 1 / len(piece))
    return np.maximum(squares / weights, 1e-6)


def _tracker_evidence(pieces: Pieces, pairs: Pairs, fps: float) -> Float[np.ndarray, " N"]:
    """Evidence of track numbers."""
    first, then = pairs
    absence = pieces.first_frame[then] - pieces.last_frame[first] - 1
    is_short = absence <= _UNBROKEN_S * fps
    is_one = pieces.track[first] == pieces.track[then]
    goes_on, came_before = np.zeros((2, len(pieces.track)), bool)
    goes_on[first[is_short & is_one]] = came_before[then[is_short & is_one]] = True
    gain = np.where(is_short, _SAME_TRACK_UNBROKEN, _SAME_TRACK) * is_one
    return gain + _NOBODY_LEFT * (is_short & goes_on[first] & came_before[then])


def _close_pairs(pieces: Pieces, fps: float) -> Pairs:
    """Pairs of pieces of which one begins after the end of the other, at most 3 s later."""
    order = np.argsort(pieces.first_frame, kind="stable")
    starts = pieces.first_frame[order]
    low = np.searchsorted(starts, pieces.last_frame, side="right")
    high = np.searchsorted(starts, pieces.last_frame + round(_MAX_ABSENCE_S * fps), side="right")
    first = np.repeat(np.arange(len(order)), high - low)
    then = [order[a:b] for a, b in zip(low, high, strict=True)]
    return first, np.concatenate(then).astype(np.int64)


def _distant_pairs(chains: Pieces) -> Pairs:
    """Pairs of chains of which one begins after the end of the other, if both have enough rows."""
    known = np.flatnonzero(chains.betas_rows >= _MIN_CHAIN_ROWS)
    if len(known) > _MAX_CHAINS:
        known = known[np.argsort(-chains.betas_rows[known])[:_MAX_CHAINS]]
    first, then = np.nonzero(chains.last_frame[known, None] < chains.first_frame[known])
    return known[first], known[then]


def _linked(
    pieces: Pieces, pairs: Pairs, evidence: Float[np.ndarray, " N"]
) -> list[Int[np.ndarray, " _"]]:
    """Rows of the chains of pieces that the links with the largest sum of evidence give."""
    count = len(pieces.rows)
    good = evidence > 0
    first, then, gain = pairs[0][good], pairs[1][good], evidence[good]
    everyone = np.arange(count)
    costs = np.concatenate([_BASE_COST - gain, np.full(count, _BASE_COST)])
    # Columns are the pieces as successors, and then one "no successor" for each piece.
    rows, columns = np.concatenate([first, everyone]), np.concatenate([then, everyone + count])
    matrix = csr_array((costs, (rows, columns)), shape=(count, 2 * count))
    links = np.stack(min_weight_full_bipartite_matching(matrix), axis=1)
    successor = dict(links[links[:, 1] < count].tolist())
    chains = []
    for start in sorted(set(range(count)) - set(successor.values())):
        chain, current = [pieces.rows[start]], start
        while current in successor:
            current = successor[current]
            chain.append(pieces.rows[current])
        chains.append(np.concatenate(chain))
    return chains
