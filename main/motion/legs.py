"""Legs that bend so that feet come to stand where they should."""

from typing import Final

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from human_models.joints import BODY_JOINTS, JOINTS

_FADE_S: Final = 0.5
"""A leg's correction is gone so long after the last contact, and comes so long before the next."""
_STRETCHED: Final = 0.9998
"""Of a leg's length, the farthest that an ankle is from the hip."""
_HINGE: Final = np.array([1.0, 0.0, 0.0])
"""The axis about which a knee bends, in the thigh's frame."""


def turn_between(
    start: Float[np.ndarray, "T 3"], end: Float[np.ndarray, "T 3"]
) -> Float[np.ndarray, "T 3"]:
    """The smallest rotation vectors that bring directions to others."""
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=1)
    angle = np.arctan2(sine, (start * end).sum(axis=1))
    return axis * (angle / np.maximum(sine, 1e-12))[:, None]


def between(
    values: Float[np.ndarray, "T 3"], known: Bool[np.ndarray, " T"], fps: float
) -> Float[np.ndarray, "T 3"]:
    """Values where they are known; between them smoothly from one to the next, and over long
    gaps and at the ends to zero.
    """
    places = np.flatnonzero(known)
    if not len(places):
        return np.zeros_like(values)
    times = np.arange(len(values))
    after = np.searchsorted(places, times)
    right, left = places[np.minimum(after, len(places) - 1)], places[np.maximum(after - 1, 0)]
    left = np.where(known, times, left)
    share = np.clip((times - left) / np.maximum(right - left, 1), 0, 1)
    share = (share**2 * (3 - 2 * share))[:, None]
    filled = (1 - share) * values[left] + share * values[right]
    away = np.minimum(np.abs(times - left), np.abs(right - times)) / (_FADE_S * fps)
    long = (right - left > 2 * _FADE_S * fps) | (times < places[0]) | (times > places[-1])
    faded = np.clip(1 - away, 0, 1)
    return np.where(known, 1.0, np.where(long, faded**2 * (3 - 2 * faded), 1.0))[:, None] * filled


def of_nearest(
    values: Float[np.ndarray, " T"], known: Bool[np.ndarray, " T"]
) -> Float[np.ndarray, " T"]:
    """The known value that is nearest in time; 0 where none is."""
    places = np.flatnonzero(known)
    if not len(places):
        return np.zeros_like(values)
    times = np.arange(len(values))
    middle = (places[1:] + places[:-1]) / 2
    return values[places[np.searchsorted(middle, times)]]


def bend_leg(
    orient: Rotation,
    body_pose: Float[np.ndarray, "T 63"],
    joints: Float[np.ndarray, "T 137 3"],
    side: str,
    shift: Float[np.ndarray, "T 3"],
    turn: Rotation,
) -> Float[np.ndarray, "T 63"]:
    """Body poses whose ankle is moved by `shift` and whose foot is turned by `turn`.

    The knee bends about its hinge until the ankle is as far from the hip as asked, the leg turns
    about the hip as little as it can, and the foot keeps its direction but for `turn`. Ankles
    that are farther than the leg is long are brought as near as it reaches.

    Args:
        orient: of the root, T rotations in the frame of `joints`, `shift` and `turn`.
    """
    hip, knee, ankle = (
        joints[:, JOINTS.index(f"{side}_{name}")] for name in ("hip", "knee", "ankle")
    )
    numbers = [BODY_JOINTS.index(f"{side}_{name}") - 1 for name in ("hip", "knee", "ankle")]
    local = body_pose.reshape(len(body_pose), 21, 3)
    chain = [Rotation.from_rotvec(local[:, number]) for number in numbers]
    thigh = orient * chain[0]
    shin = thigh * chain[1]
    foot = turn * shin * chain[2]
    upper, lower = hip - knee, ankle - knee
    long, short = np.linalg.norm(upper, axis=1), np.linalg.norm(lower, axis=1)
    wanted = ankle + shift - hip
    reach = np.linalg.norm(wanted, axis=1)
    reach = np.clip(reach, np.abs(long - short) + 0.01, (long + short) * _STRETCHED)
    # |upper - Rot(hinge, angle) lower| = reach: a cos(angle) + b sin(angle) + c is known.
    hinge = thigh.apply(_HINGE)
    level = (lower * hinge).sum(axis=1, keepdims=True) * hinge
    swung = lower - level
    a, c = (upper * swung).sum(axis=1), (upper * level).sum(axis=1)
    b = (upper * np.cross(hinge, swung)).sum(axis=1)
    rest = (long**2 + short**2 - reach**2) / 2 - c
    cosine = np.clip(rest / np.maximum(np.hypot(a, b), 1e-9), -1, 1)
    # Of the two solutions, the one in which the knee bends forward.
    angle = np.arctan2(b, a) - np.arccos(cosine)
    bent = Rotation.from_rotvec(angle[:, None] * hinge)
    swing = Rotation.from_rotvec(turn_between(bent.apply(lower) - upper, wanted))
    new_thigh, new_shin = swing * thigh, swing * bent * shin
    result = local.copy()
    result[:, numbers[0]] = (orient.inv() * new_thigh).as_rotvec()
    result[:, numbers[1]] = (new_thigh.inv() * new_shin).as_rotvec()
    result[:, numbers[2]] = (new_shin.inv() * foot).as_rotvec()
    return result.reshape(body_pose.shape)
