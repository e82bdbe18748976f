"""Scripted motion of people: footsteps are planned first, and the body follows them.

A `Script` collects actions, one after the other; `Script.play` makes a `Motion` of them. Feet do
not slide while they stand, and roll over heel and ball. The pelvis moves smoothly between the feet,
as high as the legs reach; legs are solved by inverse kinematics on the person's own skeleton.

The world has y up, x to the right and z towards the camera; the floor is at y = 0. A person at yaw
0 faces z.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d, minimum_filter1d

from human_models.joints import SIDES
from synthetic.arms import SHAPES, Arm, hand_pose, place_arm
from synthetic.poses import Rotations, still, swung_arm, trunk
from synthetic.skeleton import JOINT, SIGN, Rotation, Skeleton, Vector, clamp, ease, turn

FPS: Final = 30
_PADDING: Final = 30
"""Additional frames before the first and after the last one, for smoothing."""
_STEP_M, _STEP_S, _SWING_SHARE = 0.64, 0.54, 0.74
_TURN_STEP_DEG: Final = 60.0
_LANDING_DEG, _LEAVING_DEG, _LANDING_S, _LEAVING_S = 12.0, 36.0, 0.12, 0.26
"""Pitch of the foot (toes up) at heel strike and (toes down) at toe-off; duration of each."""
_CLEARANCE_M, _ANKLE_ON_TREAD_M = 0.05, 0.07
_STRETCHED: Final = 0.9945
"""Longest distance from hip to ankle over the leg's length; less than `Skeleton.reach` allows."""
_SEAT_BELOW_PELVIS_M: Final = 0.105
_SIT_S: Final = 1.5
Rng = np.random.Generator
T = TypeVar("T")


class Physique(NamedTuple):
    """The dimensions of a person on which motion depends."""

    skeleton: Skeleton
    ankle_m: float
    """Height of the ankle above the sole."""
    heel_m: float
    """Distance from the ankle back to the heel."""


class Block(NamedTuple):
    """A box on the floor that a motion needs: a seat or a step."""

    middle: tuple[float, float]
    """World x and z, metres."""
    size: tuple[float, float, float]
    """Extent along x, y and z before the rotation, metres."""
    yaw_deg: float
    is_seat: bool = False


class Motion(NamedTuple):
    """The pose of a person in every frame, at 30 frames per second."""

    rotations: Float[np.ndarray, "T 22 3 3"]
    """Rotations of the body joints relative to their parents, that of the pelvis in the world."""
    pelvis: Float[np.ndarray, "T 3"]
    """Position in the world, metres."""
    hands: dict[str, Float[np.ndarray, "T 15 3"]]
    """Axis-angle in radians relative to the mean hand, by side."""
    jaw_rad: Float[np.ndarray, " T"]
    smile: Float[np.ndarray, " T"]
    """0 to 1."""
    blocks: tuple[Block, ...]


class Step(NamedTuple):
    """One step of one foot."""

    side: str
    lifted_s: float
    landed_s: float
    place: Vector
    """Point of the sole below the ankle, in the world, metres."""
    yaw_deg: float
    reach: float
    """Relative length: 0 for a small step with a level foot, 1 for a long step forward."""


class Foot(NamedTuple):
    """A foot in one frame, in the world."""

    ankle: Vector
    turned: Rotation
    toes_deg: float
    """Upward bend of the toes."""
    ground: Vector
    """Point of the sole below the ankle if the foot were level, metres."""
    yaw_deg: float
    lifted: float
    """1 while the foot is in the air, else 0."""


class Feet(NamedTuple):
    """Both feet (left, right) in every frame; see `Foot`."""

    ankle: Float[np.ndarray, "T 2 3"]
    turned: Float[np.ndarray, "T 2 3 3"]
    toes_deg: Float[np.ndarray, "T 2"]
    ground: Float[np.ndarray, "T 2 3"]
    yaw_deg: Float[np.ndarray, "T 2"]
    lifted: Float[np.ndarray, "T 2"]


class Keys(Generic[T]):
    """A value that changes at given times, in eased transitions."""

    def __init__(self, first: T) -> None:
        self._keys = [(-1e9, first)]

    def change(self, at_s: float, value: T, seconds: float) -> None:
        """Go to `value` from `at_s`, within `seconds`."""
        self._keys += [(at_s, self._keys[-1][1]), (at_s + seconds, value)]

    def around(self, time: float) -> tuple[T, T, float]:
        """The values before and after a time, and the eased share of the way between them."""
        start = [key for key in self._keys if key[0] <= time][-1]
        end = next((key for key in self._keys if key[0] > time), None)
        if end is None:
            return start[1], start[1], 0.0
        return start[1], end[1], ease((time - start[0]) / (end[0] - start[0]))


def _interpolated(keys: Keys[float], times: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    around = (keys.around(time) for time in times)
    return np.array([one + share * (other - one) for one, other, share in around])


class Script:
    """A sequence of actions of one person. Times are seconds from the first frame."""

    def __init__(
        self, physique: Physique, x: float, z: float, yaw_deg: float, start_s: float = 0.0
    ) -> None:
        self.physique = physique
        self.time = start_s
        self.place, self.yaw = np.array([x, 0.0, z], np.float64), float(yaw_deg)
        self.steps: list[Step] = []
        self.blocks: list[Block] = []
        hips = physique.skeleton.offsets[JOINT["left_hip"]]
        self._half_width = float(abs(hips[0])) + 0.015
        self._feet = {side: self._beside(side, self.place, yaw_deg) for side in SIDES}
        self._first = dict(self._feet), self.yaw
        self._seated = Keys(0.0)
        """0 while standing, 1 while sitting."""
        self._seats: list[tuple[float, Vector]] = []
        """Start of sitting down, and position of the pelvis on the seat."""
        self._arms = {side: Keys[Arm | None](None) for side in SIDES}
        self._hands = {side: Keys("relaxed") for side in SIDES}
        self._smile = Keys(0.0)
        self._talks: list[tuple[float, float]] = []
        self._looks: list[tuple[float, Vector | None]] = []

    def _beside(self, side: str, place: Vector, yaw_deg: float) -> Vector:
        return place + turn("y", yaw_deg) @ np.array([SIGN[side] * self._half_width, 0, 0])

    def _add(self, side: str, seconds: float, place: Vector, yaw: float, reach: float) -> None:
        self.steps.append(Step(side, self.time, self.time + seconds, place, yaw, reach))
        self._feet[side] = place

    def wait(self, seconds: float) -> "Script":
        """Stand still."""
        self.time += seconds
        return self

    def turn_to(self, yaw_deg: float, pace: float = 1.0) -> "Script":
        """Turn on the spot to a direction in the world, the shorter way, in small steps."""
        change = (yaw_deg - self.yaw + 180) % 360 - 180
        count = math.ceil(abs(change) / _TURN_STEP_DEG)
        order = SIDES if change > 0 else SIDES[::-1]
        period = 0.95 * _STEP_S / pace
        for number in range(1, count + 1):
            yaw = self.yaw + change * number / count
            for side in order:
                self._add(side, 0.8 * period, self._beside(side, self.place, yaw), yaw, 0.0)
                self.time += period
        self.yaw += change
        return self

    def walk(
        self,
        points: Sequence[tuple[float, float]],
        pace: float = 1.0,
        heights: Callable[[float], float] | None = None,
        step_m: float = _STEP_M,
    ) -> "Script":
        """Walk through `points` (world x, z) with rounded corners, and stop with the feet together.

        `heights` is the floor's height (metres) at a distance along the path (metres).
        """
        line = _rounded_path([(self.place[0], self.place[2]), *points])
        along = np.r_[0, np.cumsum(np.hypot(*np.diff(line, axis=0).T))]
        count = max(round(along[-1] / step_m), 1)
        for number in range(1, count + 2):
            side = SIDES[(number - 1) % 2]
            at = min(number, count) / count * along[-1]
            place = [float(np.interp(at, along, axis)) for axis in line.T]
            ahead, behind = (
                np.array([np.interp(clamp(at + d, 0, along[-1]), along, axis) for axis in line.T])
                for d in (0.1, -0.1)
            )
            heading = ahead - behind
            yaw = math.degrees(math.atan2(heading[0], heading[1]))
            yaw = self.yaw + (yaw - self.yaw + 180) % 360 - 180
            middle = np.array([place[0], heights(at) if heights else 0.0, place[1]])
            landing = self._beside(side, middle, yaw)
            reach = float(np.linalg.norm(landing - self._feet[side])) / (2 * _STEP_M)
            period = _STEP_S / pace
            self._add(side, _SWING_SHARE * period, landing, yaw, clamp(reach, 0.15, 1.1))
            self.time += period
            self.yaw, self.place = yaw, middle
        return self

    def climb(self, distance_m: float, rise_m: float, tread_m: float) -> "Script":
        """Walk straight ahead for `distance_m` to two steps, and climb to the middle of the second
        one, which is a platform."""
        forward = turn("y", self.yaw)[:, 2]
        for number, deep in enumerate((tread_m, 1.4)):
            middle = self.place + forward * (distance_m + number * tread_m + deep / 2)
            size = (1.4, (number + 1) * rise_m, deep)
            self.blocks.append(Block((middle[0], middle[2]), size, self.yaw))
        # One foot stands on each tread, with the ankle near the edge, so that the toes have room.
        before = distance_m + _ANKLE_ON_TREAD_M - tread_m
        end = self.place + forward * before
        self.walk([(end[0], end[2])], 0.95)

        def height(distance: float) -> float:
            return rise_m * clamp(round(distance / tread_m), 0, 2)

        end = self.place + forward * tread_m * 3
        return self.walk([(end[0], end[2])], 0.8, height, tread_m)

    def sit(self, seconds: float, seat_m: float = 0.46) -> "Script":
        """Sit down on a seat behind the person, stay for `seconds`, and get up."""
        back = -turn("y", self.yaw)[:, 2]
        seat = self.place + back * 0.40
        seat[1] = seat_m + _SEAT_BELOW_PELVIS_M
        middle = self.place + back * 0.47
        self.blocks.append(Block((middle[0], middle[2]), (0.46, seat_m, 0.44), self.yaw, True))
        self._seats.append((self.time, seat))
        for share in (1.0, 0.0):
            self._seated.change(self.time, share, _SIT_S)
            self.time += _SIT_S + seconds * share
        return self

    def arms(
        self, left: Arm | None, right: Arm | None, at_s: float | None = None, seconds: float = 0.7
    ) -> "Script":
        """Move the arms to poses from `at_s` (None: now); None: they hang, or swing in walking."""
        at = self.time if at_s is None else at_s
        for side, arm in zip(SIDES, (left, right), strict=True):
            self._arms[side].change(at, arm, seconds)
            if arm is not None and arm.hand:
                self.hand(side, arm.hand, at, seconds)
        return self

    def hand(self, side: str, shape: str, at_s: float, seconds: float = 0.4) -> "Script":
        """Move a hand to one of `SHAPES`."""
        self._hands[side].change(at_s, shape, seconds)
        return self

    def face(self, at_s: float, smile: float, talk_s: float = 0.0) -> "Script":
        """Change the smile to a value from 0 to 1, and talk for `talk_s`."""
        self._smile.change(at_s, smile, 0.5)
        self._talks.append((at_s, at_s + talk_s))
        return self

    def look(self, at_s: float, target: tuple[float, float, float] | None) -> "Script":
        """Look at a point of the world (metres); None: straight ahead."""
        self._looks.append((at_s, None if target is None else np.array(target)))
        return self

    def play(self, rng: Rng, frames: int) -> Motion:
        """The motion of the script; `rng` adds small movements of trunk, head and fingers."""
        times = np.arange(-_PADDING, frames + _PADDING) / FPS
        feet = self._feet_at(times)
        heading = _smooth(feet.yaw_deg.mean(axis=1), 0.2)
        across = np.stack([turn("y", yaw)[:, 0] for yaw in heading])
        ahead = np.stack([turn("y", yaw)[:, 2] for yaw in heading])
        apart = feet.ground[:, 0] - feet.ground[:, 1]
        stands = _smooth(feet.lifted[:, 1] - feet.lifted[:, 0], 0.1)  # 1: on the left foot
        leads = _smooth((apart * ahead).sum(axis=1) / _STEP_M, 0.06)  # 1: the left foot is ahead
        seated, seats = _interpolated(self._seated, times), np.zeros((len(times), 3))
        for start, seat in self._seats:
            seats[times >= start] = seat
        sway = _drift(rng, len(times), 0.9, 6)

        middle = _smooth(feet.ground.mean(axis=1), 0.19)
        lateral = (apart * across).sum(axis=1) / 2
        middle += across * (stands * 0.3 * lateral + 0.012 * sway[:, 0])[:, None]
        moving = np.sin(np.pi * seated)
        lean = 3 + 2 * np.abs(leads) + 30 * moving + 1.2 * sway[:, 1]
        roots = np.stack(
            [
                turn("y", heading[t] - 5 * leads[t])
                @ turn("z", 3.5 * stands[t])
                @ turn("x", 0.55 * lean[t] - 6 * seated[t])
                for t in range(len(times))
            ]
        )
        pelvis = middle.copy()
        pelvis += (seats - pelvis) * seated[:, None] * (1, 0, 1)
        reach = self._highest(feet, roots, pelvis)
        pelvis[:, 1] = reach + seated * (np.minimum(seats[:, 1], reach) - reach)
        looks = self._looks_at(times, pelvis, heading)
        swings = _smooth(-leads, 0.05)
        bends = {side: self._hands_at(rng, times, side) for side in SIDES}

        rotations = np.empty((len(times), 22, 3, 3))
        for t, time in enumerate(times):
            pose = still()
            pose[0] = roots[t]
            trunk(pose, 0.45 * lean[t] + sway[t, 2], 1.2 * sway[t, 3] + 2.5 * stands[t],
                  8 * leads[t] + 1.5 * sway[t, 4])  # fmt: skip
            self._legs(pose, feet, t, pelvis[t])
            for side, swing in zip(SIDES, (swings[t], -swings[t]), strict=True):
                arm = self._arm_at(side, time, swung_arm(float(swing), 0.0))
                place_arm(self.physique.skeleton, pose, side, arm)
            half = turn("y", looks[t, 0] / 2) @ turn("x", looks[t, 1] / 2 + sway[t, 5])
            pose[JOINT["neck"]] = pose[JOINT["head"]] = half
            rotations[t] = pose
        shown = slice(_PADDING, len(times) - _PADDING)
        return Motion(
            rotations[shown],
            pelvis[shown],
            {side: bends[side][shown] for side in SIDES},
            self._jaw_at(rng, times)[shown],
            _interpolated(self._smile, times)[shown],
            tuple(self.blocks),
        )

    def _feet_at(self, times: Float[np.ndarray, " T"]) -> Feet:
        feet = [[self._foot_at(side, time) for side in SIDES] for time in times]
        columns = (zip(*pair, strict=True) for pair in feet)
        return Feet(*map(np.array, zip(*columns, strict=True)))

    def _foot_at(self, side: str, time: float) -> Foot:
        first, yaw = self._first
        steps = [step for step in self.steps if step.side == side]
        start = Step(side, -math.inf, -math.inf, first[side], yaw, 0.0)
        done = [start, *(step for step in steps if step.landed_s <= time)][-1]
        ahead = next((step for step in steps if step.landed_s > time), None)
        if ahead is None or ahead.lifted_s > time:
            return self._standing(time, done, ahead)
        return self._swinging(time, done, ahead)

    def _rolled(self, step: Step, pitch: float) -> tuple[Vector, Rotation]:
        """Ankle position and rotation of a foot that rolls over the ball or, toes up, the heel."""
        body, turned = self.physique, turn("y", step.yaw_deg)
        if pitch > 0:
            ball = body.skeleton.offsets[JOINT[f"{step.side}_foot"]]
            pivot = ball + np.array([0, body.ankle_m, 0])
        else:
            pivot = np.array([0, 0, -body.heel_m])
        rolled = turn("x", pitch)
        ankle = pivot + rolled @ (np.array([0, body.ankle_m, 0]) - pivot)
        return step.place + turned @ ankle, turned @ rolled

    def _standing(self, time: float, step: Step, ahead: Step | None) -> Foot:
        landing = 1 - ease((time - step.landed_s) / _LANDING_S)
        leaving = ease(1 + (time - ahead.lifted_s) / _LEAVING_S) if ahead else 0.0
        leaving *= leaving
        pitch = -_LANDING_DEG * landing * step.reach
        if leaving > 0 and ahead:
            pitch = _LEAVING_DEG * leaving * ahead.reach
        return Foot(*self._rolled(step, pitch), max(pitch, 0.0), step.place, step.yaw_deg, 0.0)

    def _swinging(self, time: float, step: Step, ahead: Step) -> Foot:
        u = (time - ahead.lifted_s) / (ahead.landed_s - ahead.lifted_s)
        leave, land = _LEAVING_DEG * ahead.reach, -_LANDING_DEG * ahead.reach
        start, end = self._rolled(step, leave)[0], self._rolled(ahead, land)[0]
        along = min(u / 0.94, 1.0)  # at the end, the foot moves straight down
        share = along**3 * (10 - 15 * along + 6 * along * along)
        ankle = start + share * (end - start)
        rise = float(ahead.place[1] - step.place[1])
        early = ease(u / 0.45) if rise > 0 else ease((u - 0.45) / 0.55)
        ankle[1] = start[1] + share * (end[1] - start[1] - rise) + early * rise
        ankle[1] += (_CLEARANCE_M + 0.3 * abs(rise)) * math.sin(math.pi * u) ** 0.8
        yaw = step.yaw_deg + share * (ahead.yaw_deg - step.yaw_deg)
        pitch = leave * (1 - ease(u / 0.75)) + land * ease((u - 0.55) / 0.45)
        turned, toes_deg = turn("y", yaw) @ turn("x", pitch), leave * (1 - ease(u / 0.6))
        return Foot(
            ankle, turned, toes_deg, step.place + share * (ahead.place - step.place), yaw, 1.0
        )

    def _highest(
        self, feet: Feet, roots: Float[np.ndarray, "T 3 3"], pelvis: Float[np.ndarray, "T 3"]
    ) -> Float[np.ndarray, " T"]:
        """The greatest height of the pelvis at which both legs reach their feet, smoothed."""
        limits = []
        for column, side in enumerate(SIDES):
            limb = self.physique.skeleton.limbs[side, "leg"]
            longest = _STRETCHED * (limb.first_m + limb.second_m)
            hip = roots @ self.physique.skeleton.offsets[JOINT[f"{side}_hip"]]
            offset = feet.ankle[:, column] - pelvis - hip
            rise = np.sqrt(np.maximum(longest**2 - offset[:, 0] ** 2 - offset[:, 2] ** 2, 0.01))
            limits.append(feet.ankle[:, column, 1] + rise - hip[:, 1])
        radius = 4
        lowest = minimum_filter1d(np.minimum(*limits), 2 * radius + 1, mode="nearest")
        return gaussian_filter1d(lowest, radius / 2, truncate=2, mode="nearest")

    def _legs(self, pose: Rotations, feet: Feet, t: int, pelvis: Vector) -> None:
        skeleton = self.physique.skeleton
        for column, side in enumerate(SIDES):
            hip, knee, ankle, foot = (
                JOINT[f"{side}_{name}"] for name in ("hip", "knee", "ankle", "foot")
            )
            target = pose[0].T @ (feet.ankle[t, column] - pelvis) - skeleton.offsets[hip]
            yaw = turn("y", feet.yaw_deg[t, column] + SIGN[side] * 4)
            pole = pose[0].T @ (yaw[:, 2] + 0.5 * pose[0][:, 2])
            limb = skeleton.limbs[side, "leg"]
            pose[hip], pose[knee] = skeleton.reach(limb, target, pole)
            pose[ankle] = (pose[0] @ pose[hip] @ pose[knee]).T @ feet.turned[t, column]
            pose[foot] = turn("x", -feet.toes_deg[t, column])

    def _arm_at(self, side: str, time: float, swing: Arm) -> Arm:
        before, after, share = self._arms[side].around(time)
        one, other = (swing if arm is None else arm for arm in (before, after))
        if share == 0 or one is other:
            return one
        mixed = [
            np.asarray(a) + share * (np.asarray(b) - np.asarray(a))
            for a, b in zip(one[:4], other[:4], strict=True)
        ]
        return Arm(mixed[0], mixed[1], float(mixed[2]), tuple(mixed[3].tolist()))

    def _hands_at(
        self, rng: Rng, times: Float[np.ndarray, " T"], side: str
    ) -> Float[np.ndarray, "T 15 3"]:
        drift = 4 * _drift(rng, len(times), 0.5, 20).reshape(-1, 5, 4) * (1, 1, 1, 0.5)
        poses = []
        for time, small in zip(times, drift, strict=True):
            before, after, share = self._hands[side].around(time)
            one, other = SHAPES[before], SHAPES[after]
            poses.append(hand_pose(one + share * (other - one) + small, side))
        return np.array(poses)

    def _looks_at(
        self,
        times: Float[np.ndarray, " T"],
        pelvis: Float[np.ndarray, "T 3"],
        heading: Float[np.ndarray, " T"],
    ) -> Float[np.ndarray, "T 2"]:
        """Yaw (to the left) and pitch (down) of the head relative to the body, degrees."""
        looks = np.zeros((len(times), 2))
        for t, time in enumerate(times):
            target = [None, *(point for start, point in self._looks if start <= time)][-1]
            if target is not None:
                ahead = target - pelvis[t] - (0, 0.62, 0)
                yaw = (math.degrees(math.atan2(ahead[0], ahead[2])) - heading[t] + 180) % 360 - 180
                pitch = -math.degrees(math.atan2(ahead[1], math.hypot(ahead[0], ahead[2])))
                looks[t] = clamp(yaw, -62, 62), clamp(pitch, -25, 35)
        return _smooth(looks, 0.16)

    def _jaw_at(self, rng: Rng, times: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
        """Angle of the jaw, radians: four or five syllables per second, grouped into phrases."""
        syllables = np.clip(_drift(rng, len(times), 0.055, 1)[:, 0] * 0.6 + 0.45, 0, 1.4)
        phrases = np.clip(1.2 + _drift(rng, len(times), 0.35, 1)[:, 0], 0.15, 1)
        talking = np.zeros(len(times))
        for start, end in self._talks:
            talking[(times >= start) & (times < end)] = 1
        return 0.02 + 0.11 * syllables * phrases * _smooth(talking, 0.06)


def _smooth(values: Float[np.ndarray, "T ..."], seconds: float) -> Float[np.ndarray, "T ..."]:
    return gaussian_filter1d(values, seconds * FPS, axis=0, mode="nearest")


def _drift(rng: Rng, count: int, seconds: float, columns: int) -> Float[np.ndarray, "T D"]:
    """Smooth noise of standard deviation 1 with a correlation time of about `seconds`."""
    noise = _smooth(rng.standard_normal((count, columns)), seconds)
    return noise * math.sqrt(2 * math.sqrt(math.pi) * seconds * FPS)


def _rounded_path(points: Sequence[tuple[float, float]]) -> Float[np.ndarray, "N 2"]:
    """Points 2 cm apart on a polyline whose corners are rounded; its ends are kept."""
    corners = np.array(points)
    along = np.r_[0, np.cumsum(np.hypot(*np.diff(corners, axis=0).T))]
    even = np.linspace(0, along[-1], max(int(along[-1] / 0.02), 2))
    line = np.stack([np.interp(even, along, axis) for axis in corners.T], axis=1)
    ends = line[[0]], line[[-1]]
    # Smoothing keeps the ends of a line that is continued by point reflection.
    padded = np.concatenate([2 * ends[0] - line[:0:-1], line, 2 * ends[1] - line[-2::-1]])
    return gaussian_filter1d(padded, 16, axis=0)[len(line) - 1 : 2 * len(line) - 1]
