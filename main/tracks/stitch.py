"""Who is who, decided when the video is over: pieces of tracks become people.

1. Tracks are cut where the tracker may have erred (pieces.py).
2. Each piece may have one successor, at most 3 s later. The links with the largest sum of
   evidence are chosen together (minimum-cost bipartite matching, each piece also against "no
   successor"); motion, pose and shape give the evidence.
3. The chains that come of it are linked once more over any absence, by shape and place, and more
   strictly.
4. People are numbered by their first frame.
"""

from typing import Final

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from main.tracks.camera import ClipCamera
from main.tracks.evidence import (
    Pairs,
    motion_evidence,
    pose_evidence,
    shape_evidence,
    shape_spread,
)
from main.tracks.pieces import Pieces, Sightings, cut_tracks, describe, read_sightings

SOON_S: Final = 3.0
"""Longest absence over which motion says anything."""
_SAME_TRACK, _SAME_TRACK_UNBROKEN = 1.0, 3.0
"""What the tracker's own opinion adds: after an absence, and where it never lost the person."""
_UNBROKEN_S: Final = 0.1
_RETURN_PRIOR: Final = -1.0
"""Somebody who appears after a long absence is rather somebody new."""
_LEAST_ROWS: Final = 8.0
"""Confident rows that a chain needs to be recognised by its shape."""
_MOST_CHAINS: Final = 2000
_BASE: Final = 100.0
"""Makes all costs positive, as the matching demands; the same for each piece, so it decides
nothing."""


def stitch(rows: np.ndarray, camera: ClipCamera, fps: float) -> Int[np.ndarray, " T"]:
    """A person's number for every row, from rows with the tracker's numbers.

    Args:
        rows: placed in the clip's camera; a number has one row a frame at most.
    """
    seen = read_sightings(rows)
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
    identities = np.empty(len(rows), np.int32)
    for identity, person in enumerate(people, start=1):
        identities[person] = identity
    return identities


def _variance_within(pieces: Pieces, seen: Sightings) -> Float[np.ndarray, "10"]:
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
    gain = np.where(absence <= _UNBROKEN_S * fps, _SAME_TRACK_UNBROKEN, _SAME_TRACK)
    return gain * (pieces.track[first] == pieces.track[then])


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
