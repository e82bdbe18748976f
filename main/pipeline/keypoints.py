"""Where the joints of people are in their images: four small networks, from box to fingertips.

Body by MoveNet Thunder, feet by BlazePose, hands and face by networks of their own, each on a
square that is cut out of the image where the step before says. In the next frame the squares are
where the keypoints of the last one say, so that each network runs once and not twice.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from human_models.joints import (
    COCO_KEYPOINTS,
    FACE_KEYPOINTS,
    HAND_KEYPOINTS,
    JOINTS,
    SIDES,
    joint_places,
)
from main.motion.kinematics import DEPTH_JOINTS
from main.motion.rows import Keypoints, KeypointSource
from main.pipeline.networks import (
    FACE_OF_MESH,
    SURE,
    Body,
    SmallNetwork,
    Square,
    angle_of,
    face_after,
    hand_after,
    is_one_hand,
    is_same_body,
    misfit,
    paint_over,
    without_shared_limbs,
)
from utils.camera import Box

Image = UInt8[np.ndarray, "H W 3"]
Pose = Float[np.ndarray, "39 4"]
"""BlazePose's points: x, y, visibility, depth in metres relative to the middle of the hips."""

_BODY_MARGIN: Final = 1.25
"""Side of the body's square, in units of the longer side of the box."""
_MIN_SCORE: Final = 0.1
"""Least score of MoveNet's keypoints; others are treated as unknown."""
_PRESENT: Final = 0.5
"""Least probability that a foot, hand or face is present."""
_FAINT: Final = 0.2
"""The same for a faint hand, which is small, blurred or gloved, at a known wrist."""
_FAINT_SCORE: Final = 0.25
"""Score of the keypoints of a faint hand; their errors are two to three times those of others."""
_FAINT_WRIST: Final = 0.25
"""Least score of the wrist of a faint hand."""
_HAND_SIZES: Final = (0.2, 1.1)
"""Smallest and largest size of a faint hand, relative to the longest upper arm or forearm."""
_SEARCH_ANGLE: Final = 0.6
"""Radians by which the square is turned for the second search for a hand that was not found."""
_MAX_DISAGREEMENT: Final = 0.1
"""Largest mean distance of the points of both searches from their mean, in sizes of the hand, at
which the searches agree: the points then follow the image and not the square."""
_SEARCH_EVERY: Final = 10
"""Number of frames after which a second search is made again."""
_MIN_SIDE: Final = 8
"""Least side of the square of a hand or face, in pixels."""
_MAX_WRIST_DISTANCE: Final = 0.35
"""Largest distance of the hand's wrist from the body's wrist, in sides of the hand's square."""
_LEG_RATIO: Final = 2.0
"""Distance from the hips to the feet, relative to that from the hips to the neck."""
_HEAD_RATIO: Final = 1.15
"""Distance from the hips to the top of the head, relative to that from the hips to the nose."""
_MAX_HIP_DISTANCE: Final = 0.15
"""Largest distance of BlazePose's hips from the body's, in sides of its square of about 2.3 m: the
width of a pelvis. Beyond it, BlazePose has found another person."""
_HAND_AHEAD: Final = 0.4
"""Distance from the wrist to the middle of the hand, relative to the forearm."""
_HAND_SIDE: Final = 1.6
"""Side of a hand's square relative to the forearm: twice the hand's size, as in `hand_after`."""
_MAX_NOSE_DISTANCE: Final = 0.4
"""Largest distance of the middle of a face from the body's nose, in sides of the square."""

_BODY: Final = joint_places(COCO_KEYPOINTS)
_HANDS: Final = [joint_places(HAND_KEYPOINTS[side][1:]) for side in SIDES]
"""Without the wrists, which MoveNet finds more precisely."""
_FACE: Final = joint_places(FACE_KEYPOINTS)
_FEET: Final = joint_places(("left_heel", "right_heel", "left_big_toe", "right_big_toe"))
SOURCES: Final = np.zeros(len(JOINTS), np.uint8)
"""The `KeypointSource` of each joint."""
for _places, _source in (
    (_BODY, KeypointSource.BODY),
    (_FEET, KeypointSource.FEET),
    (_FACE, KeypointSource.FACE),
    (_HANDS[0], KeypointSource.HAND),
    (_HANDS[1], KeypointSource.HAND),
):
    SOURCES[list(_places)] = _source
_FOOT_POINTS: Final = slice(29, 33)
"""Numbers of BlazePose's points for `_FEET`."""
_DEPTH_POINTS: Final = [11, 12, 25, 26, 27, 28]
"""Numbers of BlazePose's points for `DEPTH_JOINTS`, the last two of which are the ankles."""
_MAX_JOINT_DISTANCE: Final = 0.05
"""Largest distance of BlazePose's points from the body's joints, in sides of its square."""
_HAND_POINTS: Final = ((15, 19, 17), (16, 20, 18))
"""BlazePose's wrist, index finger and little finger of each side."""


class Part(NamedTuple):
    """A hand or face: its points, the probability of its presence, its square in the next frame."""

    points: Float[np.ndarray, "N 2"]
    score: float
    following: Square


class FoundPerson(NamedTuple):
    """Keypoints, and where to look for them in the next frame."""

    keypoints: Keypoints
    body: Body
    """COCO's keypoints: x, y, score."""
    feet: Square | None
    hands: tuple[Part | None, Part | None]
    face: Square | None
    frames: int = 0
    """Number of frames for which the person has been followed."""


class KeypointFinder:
    """Finds keypoints with four networks, for any number of people at a time."""

    def __init__(self, workers: int) -> None:
        """Load the networks.

        Args:
            workers: number of threads for people, and of further threads for their hands.

        Raises:
            UserError: a network's file is missing or damaged.
        """
        self.body_network = SmallNetwork("movenet_thunder")
        self.feet_network = SmallNetwork("blazepose_full")
        self.hand_network = SmallNetwork("hand_landmark")
        self.face_network = SmallNetwork("face_landmark")
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="keypoints")
        # People's threads wait for those of their hands; in one pool, they could block each other.
        self.hands_pool = ThreadPoolExecutor(workers, thread_name_prefix="hands")

    def __call__(
        self, image: Image, boxes: Sequence[Box], before: Sequence[FoundPerson | None]
    ) -> list[FoundPerson]:
        """Find the keypoints of the people in some boxes.

        Args:
            before: the same people in the last frame; None: unknown.
        """
        squares = [Square(box.center, _BODY_MARGIN * max(box.width, box.height)) for box in boxes]
        bodies = list(self.pool.map(lambda square: self._body(image, square), squares))
        last = [None if one is None else one.body for one in before]
        bodies = self._each_body_once(image, squares, bodies, last)
        found = self.pool.map(lambda one: self._find(image, *one), zip(bodies, before, strict=True))
        return _each_hand_once(list(found))

    def _each_body_once(
        self,
        image: Image,
        squares: Sequence[Square],
        bodies: Sequence[Body],
        last: Sequence[Body | None],
    ) -> list[Body]:
        """Where two people have one and the same body, it belongs to whom it fits better.

        The other one, whom it covers, is looked for once more with that body painted over, and is
        unknown if that finds nobody else.

        Args:
            last: bodies of the same people in the last frame.
        """
        fits = [misfit(*one) for one in zip(bodies, squares, last, strict=True)]
        result = list(bodies)
        placed: list[int] = []
        for one in np.argsort(fits, kind="stable").tolist():
            others = [result[other] for other in placed]
            if in_front := [other for other in others if is_same_body(result[one], other)]:
                again = self._body(image, squares[one], in_front)
                is_new = not any(is_same_body(again, other) for other in others)
                sure = again[:, 2].mean() > SURE
                result[one] = again if is_new and sure else np.zeros_like(again)
            result[one] = without_shared_limbs(result[one], others)
            placed.append(one)
        return result

    def _find(self, image: Image, body: Body, before: FoundPerson | None) -> FoundPerson:
        keypoints = Keypoints.unknown()
        known = np.where(body[:, 2] >= _MIN_SCORE, body[:, 2], 0)
        keypoints.enter(_BODY, body[:, :2], known, KeypointSource.BODY)

        pose, feet = self._pose(image, body, None if before is None else before.feet)
        if pose is not None and feet is not None:
            _enter_pose(keypoints, pose, _MAX_JOINT_DISTANCE * feet.side)

        frames = 0 if before is None else before.frames + 1
        # In parallel with the face, so that one person alone occupies several cores.
        searches = [
            self.hands_pool.submit(
                self._hand,
                image,
                _Arm.of(body, side),
                _hand_square(body, pose, side),
                None if before is None else before.hands[side],
                searches_twice=frames % _SEARCH_EVERY == 0,
            )
            for side in range(2)
        ]
        face = self._face(image, body, pose, None if before is None else before.face)
        hands = _without_shared([search.result() for search in searches], body)
        for places, hand in zip(_HANDS, hands, strict=True):
            if hand is not None:
                scores = np.full(len(places), hand.score)
                keypoints.enter(places, hand.points[1:], scores, KeypointSource.HAND)

        if face is not None:
            points = face.points[FACE_OF_MESH]
            keypoints.enter(_FACE, points, np.full(len(_FACE), face.score), KeypointSource.FACE)
        following = None if face is None else face.following
        return FoundPerson(keypoints, body, feet, (hands[0], hands[1]), following, frames)

    def _body(self, image: Image, square: Square, hidden: Sequence[Body] = ()) -> Body:
        """The body in a square, where bodies of other people are painted over."""
        network = self.body_network
        pixels = square.cut(image, network.side)
        to_crop = square.to_crop(network.side)
        for other in hidden:
            points = other[:, :2] @ to_crop[:, :2].T + to_crop[:, 2]
            paint_over(pixels, points, other[:, 2] > SURE)
        rows = network(pixels)[0][0, 0].astype(np.float64)
        points = square.in_image(rows[:, [1, 0]] * network.side, network.side)
        body = np.column_stack([points, rows[:, 2]])
        return np.where(np.isfinite(body).all(axis=1, keepdims=True), body, 0)

    def _pose(
        self, image: Image, body: Body, before: Square | None
    ) -> tuple[Pose | None, Square | None]:
        """BlazePose's points, and its square in the next frame.

        BlazePose is inaccurate where its square is not centred on the hips, so without a square of
        the last frame it runs a second time, on the square found by the first run.
        """
        square, network = before or _trunk_square(body), self.feet_network
        for _ in range(1 if before is not None else 2):
            if square is None or not square.is_usable:
                return None, None
            rows, presence, space = network(square.cut(image, network.side))
            values = rows.reshape(39, 5).astype(np.float64)
            points = square.in_image(values[:, :2], network.side)
            up = points[34] - points[33]
            side = 2 * _BODY_MARGIN * float(np.linalg.norm(up))
            square = Square((points[33][0], points[33][1]), side, angle_of(up))
        if not presence.item() > _PRESENT or not np.isfinite([*values.flat, *space.flat]).all():
            return None, None
        visible = 1 / (1 + np.exp(-values[:, 3]))
        pose = np.column_stack([points, visible, space.reshape(39, 3)[:, 2]])
        return pose, square if _near_hips(square, body) else None

    def _hand(
        self,
        image: Image,
        arm: "_Arm",
        start: Square | None,
        before: Part | None,
        *,
        searches_twice: bool,
    ) -> Part | None:
        """Find the hand of an arm where it was in the last frame, or else in the square `start`.

        Args:
            before: the hand in the last frame. A faint one is kept at any probability until the
                next frame that `searches_twice`.
            searches_twice: whether to search for a hand that is not found in a turned square as
                well; it is faint if both searches agree.
        """
        if before is not None:
            found = self._part(self.hand_network, image, before.following, 1, hand_after)
            is_trusted = before.score <= _FAINT_SCORE and not searches_twice
            if hand := arm.accepted(found, 0.0 if is_trusted else _FAINT):
                return hand
        found = self._part(self.hand_network, image, start, 2, hand_after)
        hand = arm.accepted(found, _FAINT)
        if hand is not None or found is None or start is None or not searches_twice:
            return hand
        again = self._part(self.hand_network, image, start.rotated(_SEARCH_ANGLE), 3, hand_after)
        if again is None or again.score > _FAINT:
            return arm.accepted(again, _FAINT)
        middle = (found.points + again.points) / 2
        apart = float(np.linalg.norm(found.points - middle, axis=1).mean())
        if apart > _MAX_DISAGREEMENT * np.ptp(middle, axis=0).max():
            return None
        return arm.accepted(Part(middle, again.score, hand_after(middle)), 0.0)

    def _face(
        self, image: Image, body: Body, pose: Pose | None, before: Square | None
    ) -> Part | None:
        """Find the face where it was in the last frame, or else by the body's keypoints."""
        found = self._part(self.face_network, image, before, 1, face_after)
        if not _is_face(found, body):
            start = _face_square(body, pose)
            found = self._part(self.face_network, image, start, 2, face_after)
        return found if _is_face(found, body) else None

    def _part(
        self,
        network: SmallNetwork,
        image: Image,
        square: Square | None,
        runs: int,
        following: Callable[[np.ndarray], Square],
    ) -> Part | None:
        """Find a hand or face in a square; further runs use the square that the last one found."""
        part = None
        for _ in range(runs):
            if square is None or not square.is_usable or square.side < _MIN_SIDE:
                return None
            rows, presence = network(square.cut(image, network.side))[:2]
            score = presence.item()
            if network is self.face_network:
                score = 1 / (1 + np.exp(-score))
            crop_points = rows.reshape(-1, 3)[:, :2].astype(np.float64)
            if not np.isfinite([score, *crop_points.flat]).all():
                return None
            points = square.in_image(crop_points, network.side)
            square = following(points)
            part = Part(points, float(score), square)
        return part


def _enter_pose(keypoints: Keypoints, pose: Pose, max_distance: float) -> None:
    """Enter BlazePose's feet, and its depths of joints near the body's keypoints or without these.

    The feet are moved by the offset of the body's ankles from BlazePose's, because the errors of
    both are similar. Where the ankles are farther apart than `max_distance`, feet are left out.
    """
    offsets = keypoints.px[DEPTH_JOINTS] - pose[_DEPTH_POINTS, :2]
    is_near = np.linalg.norm(offsets, axis=1) < max_distance
    is_known = keypoints.score[DEPTH_JOINTS] > 0
    keypoints.depth_m[DEPTH_JOINTS] = np.where(is_near | ~is_known, pose[_DEPTH_POINTS, 3], 0)
    points, visible = pose[_FOOT_POINTS, :2], pose[_FOOT_POINTS, 2]
    seen = (visible > _PRESENT) & np.tile((is_near & is_known)[-2:], 2)
    px = points + np.tile(offsets[-2:], (2, 1))
    keypoints.enter(_FEET, px, np.where(seen, visible, 0), KeypointSource.FEET)


def _trunk_square(body: Body) -> Square | None:
    """BlazePose's first square: centred on the hips, with the size of the person."""
    shoulders, hips = body[5:7], body[11:13]
    if min(shoulders[:, 2].max(), hips[:, 2].max()) < _MIN_SCORE:
        return None
    center, neck = hips[:, :2].mean(axis=0), shoulders[:, :2].mean(axis=0)
    reach = max(
        _LEG_RATIO * float(np.linalg.norm(neck - center)),
        _HEAD_RATIO * float(np.linalg.norm(body[0, :2] - center)),
    )
    return Square((center[0], center[1]), 2 * _BODY_MARGIN * reach)


def _near_hips(square: Square | None, body: Body) -> bool:
    """Whether BlazePose follows the person whose body MoveNet found."""
    hips = body[11:13]
    if square is None or hips[:, 2].max() < SURE:
        return square is not None
    apart = np.linalg.norm(hips[:, :2].mean(axis=0) - square.center)
    return bool(apart < _MAX_HIP_DISTANCE * square.side)


def _hand_square(body: Body, pose: Pose | None, side: int) -> Square | None:
    """Square of a hand, by BlazePose's fingers if its wrist is the body's, else by the forearm."""
    elbow, wrist = body[7 + side], body[9 + side]
    if pose is not None:
        start, index, little = pose[list(_HAND_POINTS[side])]
        ahead = (2 * index[:2] + little[:2]) / 3 - start[:2]
        reach, apart = np.linalg.norm(ahead), np.linalg.norm(start[:2] - wrist[:2])
        if start[2] > _PRESENT and (wrist[2] < SURE or apart < reach):
            center = start[:2] + 1.2 * ahead
            return Square((center[0], center[1]), 4 * float(reach), angle_of(ahead))
    if elbow[2] < _MIN_SCORE or wrist[2] < SURE:
        return None
    ahead = wrist[:2] - elbow[:2]
    center = wrist[:2] + _HAND_AHEAD * ahead
    side_px = _HAND_SIDE * float(np.linalg.norm(ahead))
    return Square((center[0], center[1]), side_px, angle_of(ahead))


class _Arm(NamedTuple):
    """Wrist and length of an arm, with which a hand must agree."""

    wrist: Float[np.ndarray, "3"]
    length: float
    """Length of the body's longest upper arm or forearm in pixels; 0: unknown."""

    @classmethod
    def of(cls, body: Body, side: int) -> "_Arm":
        lengths = [
            float(np.linalg.norm(body[end, :2] - body[start, :2]))
            for start, end in ((5, 7), (7, 9), (6, 8), (8, 10))
            if min(body[start, 2], body[end, 2]) >= SURE
        ]
        return cls(body[9 + side], max(lengths, default=0.0))

    def accepted(self, hand: Part | None, least: float) -> Part | None:
        """The hand if it is at the body's wrist, where that is known; else None.

        Args:
            least: least probability of a faint hand, whose size must fit the arm.
        """
        if hand is None or not hand.score >= least:
            return None
        apart = np.linalg.norm(hand.points[0] - self.wrist[:2])
        is_here = apart < _MAX_WRIST_DISTANCE * hand.following.side
        if hand.score > _PRESENT:
            return hand if is_here or self.wrist[2] < SURE else None
        size = float(np.ptp(hand.points, axis=0).max())
        fits = _HAND_SIZES[0] * self.length < size < _HAND_SIZES[1] * self.length
        is_faint = is_here and fits and self.wrist[2] >= _FAINT_WRIST
        return hand._replace(score=_FAINT_SCORE) if is_faint else None


def _without_shared(hands: list[Part | None], body: Body) -> list[Part | None]:
    """Assign a hand that was found from both wrists to the nearer one."""
    left, right = hands
    if left is None or right is None:
        return hands
    points, wrists = np.stack([left.points, right.points]), body[9:11]
    if not is_one_hand(points, max(left.following.side, right.following.side), wrists):
        return hands
    distances = np.linalg.norm(points[:, 0] - wrists[:, :2], axis=1)
    return [left, None] if distances[0] <= distances[1] else [None, right]


def _each_hand_once(people: list[FoundPerson]) -> list[FoundPerson]:
    """Assign a hand that was found for two people to the nearer wrist."""
    claims = [
        (number, side)
        for number, person in enumerate(people)
        for side in range(2)
        if person.keypoints.score[_HANDS[side][0]] > 0
    ]
    claims.sort(key=lambda claim: _distance_to_wrist(people[claim[0]], claim[1]))
    kept: list[tuple[int, int]] = []
    for number, side in claims:
        points = people[number].keypoints.px[_HANDS[side]]
        size = float(np.ptp(points, axis=0).max())
        others = (people[a].keypoints.px[_HANDS[b]] for a, b in kept if a != number)
        if any(np.linalg.norm(points - other, axis=1).mean() < size / 2 for other in others):
            people[number] = _without_hand(people[number], side)
        else:
            kept.append((number, side))
    return people


def _distance_to_wrist(person: FoundPerson, side: int) -> float:
    """Distance from the root of the thumb to the body's wrist, in pixels."""
    wrist = person.body[9 + side, :2]
    return float(np.linalg.norm(person.keypoints.px[_HANDS[side][0]] - wrist))


def _without_hand(person: FoundPerson, side: int) -> FoundPerson:
    """The person without a hand of somebody else, and without the wrist where it was found."""
    places = [JOINTS.index(f"{SIDES[side]}_wrist"), *_HANDS[side]]
    for values in person.keypoints:
        values[places] = 0
    left, right = person.hands
    return person._replace(hands=(None, right) if side == 0 else (left, None))


def _face_square(body: Body, pose: Pose | None) -> Square | None:
    """Square of the face, from BlazePose's eleven points of it, or MoveNet's five."""
    points, eyes = (body[:5], body[[2, 1]]) if pose is None else (pose[:11], pose[[5, 2]])
    if body[:3, 2].max() < _MIN_SCORE:
        return None
    across = eyes[1] - eyes[0]  # from the right eye to the left one
    center = points.mean(axis=0)
    return Square(
        (center[0], center[1]),
        1.7 * float(np.ptp(points[:, :2], axis=0).max()),
        float(np.arctan2(across[1], across[0])),
    )


def _is_face(face: Part | None, body: Body) -> bool:
    """Whether a face was found, and at the body's nose where that is known."""
    if face is None or not face.score > _PRESENT:
        return False
    nose = body[0]
    apart = np.linalg.norm(face.points.mean(axis=0) - nose[:2])
    return bool(nose[2] < SURE or apart < _MAX_NOSE_DISTANCE * face.following.side)
