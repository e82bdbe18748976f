"""Legs that are bent so that feet stand where they should."""

from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.spatial.transform import Rotation

from human_models.joints import BODY_JOINTS, JOINTS
from main.motion.ground import Plane
from main.motion.standing import ANKLES, HIPS, KNEES, Observations, Solution

_FADE_S: Final = 0.5
"""Time after the last contact in which a correction fades out, and before the next, fades in."""
_MAX_STRETCH: Final = 0.9998
"""Largest distance of an ankle from the hip, relative to the length of the leg."""
_HINGE: Final = np.array([1.0, 0.0, 0.0])
"""The axis about which a knee bends, in the thigh's frame."""
REACH: Final = 0.9985
"""Distance of an ankle from the hip, relative to the length of the leg, from which the pelvis is
lowered."""
_LOWERING_S, _MAX_LOWERING_M = 0.1, 0.15
"""Time before and after in which the pelvis is lowered, and by how much at most."""


class LegMoves(NamedTuple):
    """Corrections of both legs, left and right, in the first camera's frame.

    Attributes:
        turns: rotation vectors of the feet about their ankles.
        shifts: of the ankles in metres, relative to the pelvis.
        drop: how far the pelvis is lowered, in metres.
    """

    turns: Float[np.ndarray, "T 2 3"]
    shifts: Float[np.ndarray, "T 2 3"]
    drop: Float[np.ndarray, " T"]


class _Foot(NamedTuple):
    """Positions of heel and toe of a foot, and what `Observations` and `Solution` say of them."""

    points: Float[np.ndarray, "T 2 3"]
    soles: Float[np.ndarray, "T 2"]
    contacts: Bool[np.ndarray, "T 2"]
    anchors: Float[np.ndarray, "T 2 3"]
    levels: Float[np.ndarray, "T 2"]

    @property
    def stands(self) -> Bool[np.ndarray, " T"]:
        return np.asarray(self.contacts.any(axis=1))


def leg_moves(
    seen: Observations, solution: Solution, run: Int[np.ndarray, " T"], plane: Plane, fps: float
) -> LegMoves:
    """Corrections with which feet stay in place while they touch the ground.

    Between contacts, corrections change smoothly from one to the next. The pelvis is lowered where
    a leg would be too short.

    Args:
        run: numbers of rows of consecutive frames of one person.
    """
    limbs = solution.pelvis[run, None] + seen.limbs[run]
    turns, shifts = np.zeros((2, len(run), 2, 3))
    missing = np.zeros((len(run), 2))
    for leg in range(2):
        ends = slice(2 * leg, 2 * leg + 2)
        ankle, knee, hip = (limbs[:, joints][:, leg] for joints in (ANKLES, KNEES, HIPS))
        of_solution = (values[run, ends] for values in solution[1:])
        foot = _Foot(limbs[:, ends], seen.soles[run, ends], *of_solution)
        turn = _foot_turns(foot, plane, fps)
        points = np.einsum("tij,tkj->tki", turn.as_matrix(), foot.points - ankle[:, None])
        foot = foot._replace(points=ankle[:, None] + points)
        turns[:, leg], shifts[:, leg] = turn.as_rotvec(), _foot_shifts(foot, plane, fps)
        length = np.linalg.norm(hip - knee, axis=1) + np.linalg.norm(knee - ankle, axis=1)
        offset = hip - ankle - shifts[:, leg]
        upward = offset @ plane.up
        aside = np.sqrt(np.maximum((offset**2).sum(axis=1) - upward**2, 0))
        highest = np.sqrt(np.maximum((REACH * length) ** 2 - aside**2, 0))
        missing[:, leg] = np.where(foot.stands, np.maximum(upward - highest, 0), 0)
    reach = max(1, round(_LOWERING_S * fps))
    drop = maximum_filter1d(missing.max(axis=1), 2 * reach + 1)
    drop = np.minimum(gaussian_filter1d(drop, reach / 2, mode="nearest"), _MAX_LOWERING_M)
    return LegMoves(turns, shifts + drop[:, None, None] * plane.up, drop)


def _foot_turns(foot: _Foot, plane: Plane, fps: float) -> Rotation:
    """Rotations about the ankle with which heel and toe have the directions of their anchors."""
    points, contacts, anchors = foot.points, foot.contacts, foot.anchors
    turns = rotation_between(points[:, 1] - points[:, 0], anchors[:, 1] - anchors[:, 0])
    flat = contacts[:, 0] & contacts[:, 1]
    turned = Rotation.from_rotvec(_filled(turns, flat, fps))
    # Where one end stands, the other one may be on the ground, but not below it.
    for end in range(2):
        lever = turned.apply(points[:, 1 - end] - points[:, end])
        ground = foot.levels[:, end] + foot.soles[:, 1 - end]
        sunk = ground - plane.height_of(anchors[:, end] + lever)
        sunk = np.where(contacts[:, end] & ~contacts[:, 1 - end], np.maximum(sunk, 0), 0)
        lifted = lever + sunk[:, None] * plane.up
        turned = Rotation.from_rotvec(rotation_between(lever, lifted)) * turned
    return turned


def _foot_shifts(foot: _Foot, plane: Plane, fps: float) -> Float[np.ndarray, "T 3"]:
    """Shifts that bring a turned foot to its anchors, and out of the ground between contacts."""
    shares = foot.contacts / np.maximum(foot.contacts.sum(axis=1, keepdims=True), 1)
    shifts = ((foot.anchors - foot.points) * shares[..., None]).sum(axis=1)
    shifts = _filled(shifts, foot.stands, fps)
    level = np.where(foot.contacts, foot.levels, -np.inf).max(axis=1)
    level = _nearest_in_time(level, foot.stands)
    below = (plane.height_of(foot.points + shifts[:, None]) - foot.soles).min(axis=1)
    lift = np.where(foot.stands, 0.0, np.maximum(level - below, 0.0))
    return np.asarray(shifts + lift[:, None] * plane.up)


def rotation_between(
    start: Float[np.ndarray, "T 3"], end: Float[np.ndarray, "T 3"]
) -> Float[np.ndarray, "T 3"]:
    """The smallest rotation vectors that take the directions `start` to `end`."""
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=1)
    angle = np.arctan2(sine, (start * end).sum(axis=1))
    return axis * (angle / np.maximum(sine, 1e-12))[:, None]


def _filled(
    values: Float[np.ndarray, "T 3"], known: Bool[np.ndarray, " T"], fps: float
) -> Float[np.ndarray, "T 3"]:
    """Values with unknown ones interpolated smoothly; they fade to 0 in long gaps and at ends."""
    places = np.flatnonzero(known)
    if not len(places):
        return np.zeros_like(values)
    times = np.arange(len(values))
    after = np.searchsorted(places, times)
    right, left = places[np.minimum(after, len(places) - 1)], places[np.maximum(after - 1, 0)]
    left = np.where(known, times, left)
    share = _smooth_step((times - left) / np.maximum(right - left, 1))[:, None]
    filled = (1 - share) * values[left] + share * values[right]
    away = np.minimum(np.abs(times - left), np.abs(right - times)) / (_FADE_S * fps)
    fades = (right - left > 2 * _FADE_S * fps) | (times < places[0]) | (times > places[-1])
    return np.where(fades & ~known, _smooth_step(1 - away), 1.0)[:, None] * filled


def _smooth_step(shares: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """A curve from 0 to 1 without a slope at its ends."""
    shares = np.clip(shares, 0, 1)
    return shares**2 * (3 - 2 * shares)


def _nearest_in_time(
    values: Float[np.ndarray, " T"], known: Bool[np.ndarray, " T"]
) -> Float[np.ndarray, " T"]:
    """The known value that is nearest in time; 0 if there is none."""
    places = np.flatnonzero(known)
    if not len(places):
        return np.zeros_like(values)
    middle = (places[1:] + places[:-1]) / 2
    return values[places[np.searchsorted(middle, np.arange(len(values)))]]


def bend_leg(
    orient: Rotation,
    body_pose: Float[np.ndarray, "T 63"],
    joints: Float[np.ndarray, "T 137 3"],
    side: str,
    shift: Float[np.ndarray, "T 3"],
    turn: Rotation,
) -> Float[np.ndarray, "T 63"]:
    """Body poses in which the ankle is moved by `shift` and the foot turned by `turn`.

    The knee bends about its hinge until the ankle has the right distance from the hip, the leg
    turns about the hip as little as possible, and the foot keeps its direction except for `turn`.
    An ankle that would be farther away than the leg is long comes as near as the leg reaches.

    Args:
        orient: T rotations of the root, in the frame of `joints`, `shift` and `turn`.
        joints: positions in metres with the poses `body_pose`.
        side: "left" or "right".
    """
    names = ("hip", "knee", "ankle")
    hip, knee, ankle = (joints[:, JOINTS.index(f"{side}_{name}")] for name in names)
    numbers = [BODY_JOINTS.index(f"{side}_{name}") - 1 for name in names]
    local = body_pose.reshape(len(body_pose), 21, 3)
    chain = [Rotation.from_rotvec(local[:, number]) for number in numbers]
    thigh = orient * chain[0]
    shin = thigh * chain[1]
    foot = turn * shin * chain[2]
    upper, lower = hip - knee, ankle - knee
    long, short = np.linalg.norm(upper, axis=1), np.linalg.norm(lower, axis=1)
    wanted = ankle + shift - hip
    reach = np.linalg.norm(wanted, axis=1)
    reach = np.clip(reach, np.abs(long - short) + 0.01, (long + short) * _MAX_STRETCH)
    # |upper - Rot(hinge, angle) lower| = reach: a cos(angle) + b sin(angle) + c is known.
    hinge = thigh.apply(_HINGE)
    along = (lower * hinge).sum(axis=1, keepdims=True) * hinge
    across = lower - along
    a, c = (upper * across).sum(axis=1), (upper * along).sum(axis=1)
    b = (upper * np.cross(hinge, across)).sum(axis=1)
    rest = (long**2 + short**2 - reach**2) / 2 - c
    cosine = np.clip(rest / np.maximum(np.hypot(a, b), 1e-9), -1, 1)
    # Of the two solutions, the one in which the knee bends forward.
    angle = np.arctan2(b, a) - np.arccos(cosine)
    bent = Rotation.from_rotvec(angle[:, None] * hinge)
    swing = Rotation.from_rotvec(rotation_between(bent.apply(lower) - upper, wanted))
    new_thigh, new_shin = swing * thigh, swing * bent * shin
    result = local.copy()
    result[:, numbers[0]] = (orient.inv() * new_thigh).as_rotvec()
    result[:, numbers[1]] = (new_thigh.inv() * new_shin).as_rotvec()
    result[:, numbers[2]] = (new_shin.inv() * foot).as_rotvec()
    return result.reshape(body_pose.shape)
