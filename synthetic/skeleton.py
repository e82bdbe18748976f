"""Inverse kinematics of arms and legs, and penetration of limbs.

Frames are those of the body model's rest pose: x to the left, y up, z forward, arms along x.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import Final, NamedTuple, TypeVar

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int

from human_models.joints import BODY_JOINTS, RIG_PARENTS, SIDES

T = TypeVar("T")
Rotation = Float[np.ndarray, "3 3"]
Vector = Float[np.ndarray, "3"]
SIGN: Final = {"left": 1.0, "right": -1.0}
JOINT: Final = {name: i for i, name in enumerate(BODY_JOINTS)}


def turn(axis: str, degrees: float) -> Rotation:
    """Rotation about a coordinate axis by the right-hand rule."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if axis == "x":
        return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])
    if axis == "y":
        return np.array([[c, 0, s], [0, 1.0, 0], [-s, 0, c]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def rotation_about(axis: Vector, angle: float) -> Rotation:
    """Rotation matrix of an angle (radians) about a unit vector."""
    return cv2.Rodrigues(np.asarray(axis, np.float64) * angle)[0]


def axis_angle(rotation: Rotation) -> Vector:
    """Axis-angle vector (radians) of a rotation matrix."""
    return cv2.Rodrigues(np.asarray(rotation, np.float64))[0].ravel()


def clamp(value: float, low: float, high: float) -> float:
    """np.clip for one number, at a hundredth of its cost."""
    return min(max(value, low), high)


def ease(share: float) -> float:
    """Cubic easing (smoothstep) from 0 to 1; values outside are clamped."""
    share = clamp(share, 0.0, 1.0)
    return share * share * (3 - 2 * share)


def pick(rng: np.random.Generator, chances: Mapping[T, float]) -> T:
    """A random key, with a probability proportional to its value."""
    remaining = rng.random() * sum(chances.values())
    for key, chance in chances.items():
        remaining -= chance
        if remaining < 0:
            return key
    return key


def unit(vector: Vector) -> Vector:
    return vector / max(math.sqrt(float(vector @ vector)), 1e-9)


def cross(a: Vector, b: Vector) -> Vector:
    """np.cross for two vectors, at a tenth of its cost."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def _align(start: Vector, end: Vector) -> Rotation:
    """The smallest rotation from one unit vector to another; their angle is below 90 degrees."""
    axis = cross(start, end)
    return rotation_about(unit(axis), math.asin(min(1.0, math.sqrt(float(axis @ axis)))))


class Limb(NamedTuple):
    """Two bones in the rest pose, such as upper arm and forearm."""

    direction: Vector
    """Unit vector along the first bone."""
    second_direction: Vector
    hinge: Vector
    """Axis about which the middle joint bends."""
    first_m: float
    second_m: float
    rest_bend: float
    """Angle between the bones at rest, radians."""
    rest_frame: Rotation


class Skeleton:
    """The 22 body joints of a body in the rest pose, and its arms and legs."""

    def __init__(self, rest_joints: Float32[np.ndarray, "55 3"]) -> None:
        self.rest = rest_joints[: len(BODY_JOINTS)].astype(np.float64)
        self.parents = RIG_PARENTS[: len(BODY_JOINTS)]
        self.offsets = self.rest.copy()
        for joint, parent in enumerate(self.parents[1:], start=1):
            self.offsets[joint] -= self.rest[parent]
        self.limbs = {
            (side, part): self._limb(f"{side}_{middle}", f"{side}_{end}", np.array(hinge))
            for side, sign in SIGN.items()
            for part, middle, end, hinge in (
                ("arm", "elbow", "wrist", (0.0, -sign, 0.0)),
                ("leg", "knee", "ankle", (1.0, 0.0, 0.0)),
            )
        }

    def _limb(self, middle: str, end: str, hinge: Vector) -> Limb:
        first = self.offsets[JOINT[middle]]
        second = self.offsets[JOINT[end]]
        along = unit(first)
        across = unit(hinge - along * (hinge @ along))
        lengths = (float(np.linalg.norm(first)), float(np.linalg.norm(second)))
        after = unit(second)
        bend = math.atan2(float(cross(along, after) @ across), float(along @ after))
        frame = np.stack([along, across, cross(along, across)], axis=1)
        return Limb(along, after, across, *lengths, bend, frame)

    def reach(self, limb: Limb, target: Vector, pole: Vector) -> tuple[Rotation, Rotation]:
        """Analytic inverse kinematics: rotations of a limb's first and middle joint.

        Args:
            target: position of the limb's end relative to its root, in the frame of the root's
                parent, metres. If it cannot be reached, the limb points towards it.
            pole: direction towards which the middle joint points.
        """
        l1, l2 = limb.first_m, limb.second_m
        length = math.sqrt(float(target @ target))
        distance = clamp(length, abs(l1 - l2) + 0.03, (l1 + l2) * 0.995)
        toward = unit(target)
        side = unit(pole - toward * (pole @ toward))
        cosine = (l1 * l1 + distance * distance - l2 * l2) / (2 * l1 * distance)
        first = cosine * toward + math.sqrt(max(1 - cosine * cosine, 0.0)) * side
        second = unit((toward * distance - l1 * first) / l2)
        normal = unit(cross(first, second))
        wanted = np.stack([first, normal, cross(first, normal)], axis=1)
        bend = math.acos(clamp(float(first @ second), -1.0, 1.0))
        rotation = wanted @ limb.rest_frame.T
        bent = rotation_about(limb.hinge, bend - limb.rest_bend)
        return rotation, _align(bent @ limb.second_direction, rotation.T @ second) @ bent

    def world(
        self, rotations: Float[np.ndarray, "22 3 3"]
    ) -> tuple[Float[np.ndarray, "22 3 3"], Float[np.ndarray, "22 3"]]:
        """Forward kinematics: global rotations and positions (metres) of the joints.

        The pelvis stays at its position in the rest pose.
        """
        turned = np.empty((len(rotations), 3, 3))
        places = np.empty((len(rotations), 3))
        turned[0], places[0] = rotations[0], self.rest[0]
        for joint in range(1, len(rotations)):
            parent = self.parents[joint]
            turned[joint] = turned[parent] @ rotations[joint]
            places[joint] = places[parent] + turned[parent] @ self.offsets[joint]
        return turned, places


# Capsules: joint at the start, joint at the end or offset from the start (metres), radius (metres).
_BONES: Final[dict[str, tuple[str, str | tuple[float, float, float], float]]] = {
    "belly": ("pelvis", "spine3", 0.115),
    "chest": ("spine3", "neck", 0.105),
    "head": ("head", (0.0, 0.08, 0.02), 0.095),
    **{
        f"{side}_{name}": (
            f"{side}_{start}",
            end if isinstance(end, tuple) else f"{side}_{end}",
            radius,
        )
        for side, sign in SIGN.items()
        for name, start, end, radius in (
            ("arm", "shoulder", "elbow", 0.045),
            ("forearm", "elbow", "wrist", 0.036),
            ("hand", "wrist", (0.11 * sign, 0.0, 0.0), 0.032),
            ("thigh", "hip", "knee", 0.07),
            ("shin", "knee", "ankle", 0.05),
            ("foot", "ankle", (0.03 * sign, -0.05, 0.13), 0.04),
        )
    },
}
_NAMES: Final = list(_BONES)
_RADII: Final = np.array([radius for _, _, radius in _BONES.values()])


@cache
def _pairs() -> Int[np.ndarray, "2 K"]:
    """Indices of the pairs of capsules that are tested for penetration."""
    pairs = []
    for side, other in (SIDES, SIDES[::-1]):
        fixed = ["belly", "chest", "head", f"{other}_arm", f"{other}_thigh", f"{side}_thigh"]
        for part in ("forearm", "hand"):
            pairs += [
                (f"{side}_{part}", name) for name in (*fixed, f"{side}_shin", f"{other}_shin")
            ]
    for part in ("forearm", "hand"):
        pairs += [(f"left_{part}", f"right_{other}") for other in ("forearm", "hand")]
    for part in ("thigh", "shin", "foot"):
        pairs += [(f"left_{part}", f"right_{other}") for other in ("shin", "foot")]
    return np.array([[_NAMES.index(name) for name in pair] for pair in pairs]).T


def penetration(rotations: Float[np.ndarray, "22 3 3"], places: Float[np.ndarray, "22 3"]) -> float:
    """The deepest penetration of two capsules, metres; negative if none touch.

    Args:
        rotations: global rotations of the joints.
        places: positions of the joints, metres.
    """
    starts, ends = np.empty((len(_BONES), 3)), np.empty((len(_BONES), 3))
    for i, (start, end, _) in enumerate(_BONES.values()):
        joint = JOINT[start]
        starts[i] = places[joint]
        ends[i] = (
            places[JOINT[end]] if isinstance(end, str) else places[joint] + rotations[joint] @ end
        )
    one, other = _pairs()
    distance = _segment_distances(starts[one], ends[one], starts[other], ends[other])
    return float((_RADII[one] + _RADII[other] - distance).max())


def _segment_distances(
    a: Float[np.ndarray, "K 3"],
    b: Float[np.ndarray, "K 3"],
    c: Float[np.ndarray, "K 3"],
    d: Float[np.ndarray, "K 3"],
) -> Float[np.ndarray, " K"]:
    """Distances between segments ab and cd (Ericson, Real-Time Collision Detection, 5.1.9)."""
    ab, cd, ca = b - a, d - c, a - c
    aa, bb, ff = (ab * ab).sum(1), (ab * cd).sum(1), (cd * cd).sum(1)
    ac, fc = (ab * ca).sum(1), (cd * ca).sum(1)
    denominator = aa * ff - bb * bb
    s = np.where(denominator > 1e-12, (bb * fc - ac * ff) / np.maximum(denominator, 1e-12), 0).clip(
        0, 1
    )
    t = ((bb * s + fc) / ff).clip(0, 1)
    s = ((t * bb - ac) / aa).clip(0, 1)
    return np.linalg.norm(ca + s[:, None] * ab - t[:, None] * cd, axis=1)
