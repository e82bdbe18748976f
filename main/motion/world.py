"""The world that people move in: the ground, feet that stand on it, and everybody's way over it.

`solve_world` takes people in the camera of the clip and the camera's motion, and moves people:
along their lines of sight, which an image says least about, so that feet that touch the ground
stand still on it; then it bends their legs by what is left.

Lengths are metres. "First" is the frame of the camera in the first frame of the clip, in which
everything is solved; the world has y up, the floor at y = 0 and the first camera above its origin.
"""

import logging
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import gaussian_filter1d, label, maximum_filter1d
from scipy.spatial.transform import Rotation

from human_models.body import BodyModel
from human_models.joints import SIDES
from main.motion.camera import PELVIS, CameraMotion, Clip, scaled
from main.motion.legs import bend_leg, between, of_nearest, turn_between
from main.motion.rows import BLOCK, WORLD_ROW, FinalRows, WorldRows
from main.motion.standing import (
    LEAST_POINTS,
    MOST_POINTS,
    NEAR_M,
    Equations,
    Plane,
    Seen,
    common_level,
    find_scale,
    fit_ground,
    lasting,
    means_of,
    nearest_level,
    observe,
    segments_of,
    slow_points,
    soles_of,
    upright,
    world_from_camera,
    zoom_or_dolly,
)
from main.motion.trajectories import pose_joints
from utils.geometry import smooth

log = logging.getLogger(__name__)


_WINDOW: Final = 1500
"""Frames that are solved at once, and _OVERLAP on both sides that only lead up to them."""
_OVERLAP: Final = 150
_ROUNDS, _ROUNDS_WITH_SCALE = 2, 5
"""Contacts, ground and ways are found in turns, and so is the camera's scale where it is open."""
_SCALE_ERROR, _NO_ERROR = 0.1, 1e-6
"""Deviation of the scale in a round from that in the round before: where it is open, and where it
is known."""
_MISPLACED_PX: Final = 1.0
"""Deviation across the line of sight, in pixels at the person's distance."""
_MISJUDGED: Final = 0.012
"""Deviation of a person's distance, as a share; it lasts for _LASTING_S."""
_LASTING_S: Final = 0.5
_FARTHEST: Final = 0.5
"""Nobody is brought nearer by this share of the distance or more to stand on the ground."""
_UNPLANTED_M: Final = 0.04
"""Deviation of a foot that stands, relative to the pelvis, along each axis."""
_UNEVEN_M: Final = 0.02
"""Deviation of the ground from a level."""
_UNREACHED_M: Final = 0.02
"""Deviation of a foot that stands out of the leg's reach."""
_PASSES: Final = 3
"""Of reweighted least squares."""
_ACCELERATION_M_S2: Final = 3.0
_FIRST_SLOW_M_S: Final = 0.6
"""As SLOW_M_S, before distances are known better."""
_STANDING_M_S: Final = 0.6
_LOWEST_M: Final = 0.12
"""Before the ground is known, a point so far above a person's lowest one is not on it."""
_REACH: Final = 0.9985
"""Of a leg's length, how far it reaches; the pelvis goes down for the rest, within _SINKING_S."""
_SINKING_S, _MOST_SINKING_M = 0.1, 0.15


class World(NamedTuple):
    """What all people of a clip share in the world.

    Attributes:
        motion: the camera's, in metres.
        plane: the ground, in the first camera's frame.
        levels: heights of further grounds over it, such as steps; of lower ones, negative.
    """

    motion: CameraMotion
    plane: Plane
    levels: Float[np.ndarray, " L"]

    @property
    def from_first(self) -> Float[np.ndarray, "4 4"]:
        return world_from_camera(self.plane)

    def describe(self) -> dict[str, object]:
        """For the summary of a result."""
        return {"camera": self.motion.kind, "levels_m": [round(x, 4) for x in self.levels.tolist()]}


class _Ways(NamedTuple):
    """People in the first camera's frame: what the solution says of every row.

    Attributes:
        anchors: where `FOOT_JOINTS` stand while they are in contact.
        level: height of the ground under each foot's point over the plane.
    """

    pelvis: Float[np.ndarray, "N 3"]
    contacts: Bool[np.ndarray, "N 4"]
    anchors: Float[np.ndarray, "N 4 3"]
    level: Float[np.ndarray, "N 4"]


def solve_world(
    rows: FinalRows,
    clip: Clip,
    motion: CameraMotion,
    body: BodyModel,
    world: WorldRows,
    *,
    kind_is_certain: bool = False,
) -> World:
    """Append everybody in the world to `world`, a row for each final row.

    Args:
        motion: of every frame of the clip. Where its scale is not known, it is found from feet.
        kind_is_certain: what looks like a zoom is one; else it may be motion ahead.
    """
    soles = soles_of(rows, body)
    if not kind_is_certain:
        motion = zoom_or_dolly(rows, motion, soles, clip.fps)
    open_scale = not motion.scale_known
    if open_scale:
        scale, _ = find_scale(observe(rows, motion, soles), clip.fps)
        motion = scaled(motion, scale)
    seen = observe(rows, motion, soles)
    feet = seen.pelvis[:, None] + seen.limbs[:, :4]
    contacts = np.zeros(feet.shape[:2], bool)
    for run in seen.runs:
        feet_smooth = smooth(feet[run], 0.25 * clip.fps)
        contacts[run] = slow_points(feet_smooth, clip.fps, _FIRST_SLOW_M_S)
    expected_up = upright(rows, motion)
    lowest = (feet @ -expected_up).max(axis=1, keepdims=True) + feet @ expected_up
    contacts &= lowest < _LOWEST_M
    ways = _Ways(seen.pelvis, contacts, feet, np.zeros(feet.shape[:2]))
    plane, levels = _ground(seen, ways, expected_up)
    # Where the ground is not settled yet, feet must not be drawn to a wrong one.
    for _ in range(_ROUNDS_WITH_SCALE if open_scale else _ROUNDS):
        ways, scale = _solve(seen, ways, plane, None, clip, open_scale=open_scale)
        if open_scale:
            motion = scaled(motion, scale)
            seen = observe(rows, motion, soles)
        ways = ways._replace(contacts=_touching(seen, ways, plane, levels, clip.fps))
        plane, levels = _ground(seen, ways, expected_up)
    lifted = _lifted(seen, plane, levels, clip.fps)
    ways = ways._replace(pelvis=ways.pelvis + lifted.pelvis - seen.pelvis)
    ways = ways._replace(contacts=_touching(lifted, ways, plane, levels, clip.fps))
    ways, _ = _solve(lifted, ways, plane, levels, clip, open_scale=False)
    if (ways.contacts & ~seen.hidden[:, None]).sum() < LEAST_POINTS:
        log.warning("no visible foot ever stands still: the ground is put at the lowest feet")
    solved = World(motion, plane, levels)
    _write(rows, solved, seen, ways, clip.fps, body, world)
    return solved


def _touching(
    seen: Seen, ways: _Ways, plane: Plane, levels: Float[np.ndarray, " L"], fps: float
) -> Bool[np.ndarray, "N 4"]:
    """Feet that are slow and near a level of the ground."""
    feet = ways.pelvis[:, None] + seen.limbs[:, :4]
    height = plane.height_of(feet) - seen.soles
    near = np.abs(height - nearest_level(height, levels)) < NEAR_M
    contacts = np.zeros(near.shape, bool)
    for run in seen.runs:
        slow = slow_points(feet[run], fps, _STANDING_M_S)
        contacts[run] = lasting(slow & near[run], fps)
    return contacts


def _lifted(seen: Seen, plane: Plane, levels: Float[np.ndarray, " L"], fps: float) -> Seen:
    """People, of whom those whose heels are too far below all ground to touch it come nearer.

    A network often takes a person who sits for one who stands farther away. Then feet are where
    the image shows them on the ground, and the pelvis comes nearer by half as much, because who
    sits has it behind the feet. Where feet are hidden for a while, the network took what it saw
    for the whole body: the person comes nearer until the feet below the pelvis are on the ground.
    """
    feet = seen.pelvis[:, None] + seen.limbs[:, :4]
    bottom = levels.min(initial=0.0)
    below = bottom - (plane.height_of(feet) - seen.soles)[:, ::2].min(axis=1)
    sunk, unseen = below > NEAR_M, np.zeros(len(below), bool)
    for run in seen.runs:
        stretch, _ = label(sunk[run])
        hidden = np.bincount(stretch, seen.hidden[run])
        unseen[run] = sunk[run] & (hidden[stretch] > _LASTING_S * fps)
    ray = seen.pelvis - seen.centre
    drop = np.where(unseen, -ray @ plane.up, plane.height_of(seen.centre) - bottom + below)
    share = np.where(sunk & (below < _FARTHEST * drop), below, 0.0) / np.maximum(drop, 1e-6)
    shares = np.stack([share * ~unseen, share * unseen], axis=1)
    for run in seen.runs:
        shares[run] = smooth(shares[run], _LASTING_S * fps)
    of_feet, of_all = shares[:, :1], shares[:, 1:]
    moved = (of_feet / 2 + of_all) * ray
    limbs = seen.limbs.copy()
    limbs[:, :4] -= of_feet[..., None] * (limbs[:, :4] + ray[:, None] / 2)
    return seen._replace(pelvis=seen.pelvis - moved, limbs=limbs)


def _ground(
    seen: Seen, ways: _Ways, expected_up: Float[np.ndarray, "3"]
) -> tuple[Plane, Float[np.ndarray, " L"]]:
    """The floor, and heights of further levels of the ground over it; negative below it."""
    resting = np.argwhere(ways.contacts & ~seen.hidden[:, None])
    resting = resting[:: max(1, len(resting) // MOST_POINTS)]
    if len(resting) < LEAST_POINTS:
        feet = ways.pelvis[:, None] + seen.limbs[:, :4]
        lowest = (feet @ expected_up - seen.soles).min(axis=1)
        return Plane(expected_up, float(np.quantile(lowest, 0.05))), np.zeros(0)
    places = tuple(resting.T)
    points = ways.anchors[places] - seen.soles[places][:, None] * expected_up
    owners = seen.person[places[0]]
    plane, levels, heights, _ = fit_ground(points, owners, expected_up)
    floor = common_level(heights, owners, levels)
    return Plane(plane.up, plane.height + floor), levels[levels != floor] - floor


def _solve(
    seen: Seen,
    ways: _Ways,
    plane: Plane,
    levels: Float[np.ndarray, " L"] | None,
    clip: Clip,
    *,
    open_scale: bool,
) -> tuple[_Ways, float]:
    """Everybody's way with the contacts of `ways`, window after window, and the camera's scale.

    Args:
        levels: grounds over the plane; None: feet may stand at any height.
        open_scale: the way of the camera may be longer or shorter by a factor; else that is 1.
    """
    solved = _Ways(*(values.copy() for values in ways))
    scales, lengths = [], []
    for run in seen.runs:
        for start in range(0, len(run), _WINDOW):
            first = max(0, start - _OVERLAP)
            part = run[first : start + _WINDOW + _OVERLAP]
            kept = slice(start - first, start - first + _WINDOW)
            window, scale = _solve_window(seen, ways, part, plane, levels, clip, open_scale)
            scales.append(scale)
            lengths.append(len(part))
            for values, found in zip(solved, window, strict=True):
                values[part[kept]] = found[kept]
        _settle(seen, solved, run)
    return solved, float(np.average(scales, weights=lengths))


def _settle(seen: Seen, ways: _Ways, run: Int[np.ndarray, " T"]) -> None:
    """Give each point of a foot one place while the foot stands, and both the foot's length."""
    contacts, segment = ways.contacts[run], segments_of(ways.contacts[run])
    when, point = np.nonzero(contacts)
    if not len(when):
        return
    owner = segment[when, point]
    means = means_of(ways.anchors[run[when], point], owner)
    limbs = seen.limbs[run]
    for heel in (0, 2):
        flat = contacts[:, heel] & contacts[:, heel + 1]
        pairs = np.unique(segment[flat, heel : heel + 2], axis=0)
        for pair in pairs:
            mine = flat & (segment[:, heel] == pair[0])
            length = np.linalg.norm(limbs[mine, heel + 1] - limbs[mine, heel], axis=1).mean()
            half = means[pair[1]] - means[pair[0]]
            half *= length / 2 / max(float(np.linalg.norm(half)), 1e-6)
            means[pair] = means[pair].mean(axis=0) + np.array([[-1.0], [1.0]]) * half
    ways.anchors[run[when], point] = means[owner]


def _solve_window(
    seen: Seen,
    ways: _Ways,
    part: Int[np.ndarray, " T"],
    plane: Plane,
    levels: Float[np.ndarray, " L"] | None,
    clip: Clip,
    open_scale: bool,
) -> tuple[_Ways, float]:
    """Find the places of the pelvis and of feet that stand, and the scale of the camera's way, by
    reweighted least squares.

    The body is where the image shows it, and about as far away as its size says; it accelerates
    as people do; feet do not move while they are in contact, stand on a level of the ground, and
    are no farther from the hips than legs are long.
    """
    pelvis, contacts, limbs = ways.pelvis[part], ways.contacts[part], seen.limbs[part]
    segment = segments_of(contacts)
    when, point = np.nonzero(contacts)
    owner = segment[when, point]
    foot = limbs[when, point]
    anchors = means_of(pelvis[when] + foot, owner)
    soles = means_of(seen.soles[part][when, point][:, None], owner)[:, 0]
    ankle, knee, hip = (limbs[when, first + point // 2] for first in (4, 6, 8))
    hip_from_ankle = hip - ankle + foot  # if the ankle is over a foot that stands as it is seen
    reach = _REACH * (np.linalg.norm(hip - knee, axis=1) + np.linalg.norm(knee - ankle, axis=1))
    system = _equations_of_pelvis(seen, part, len(anchors), clip, open_scale)
    of_row, of_anchor = np.split(np.arange(system.unknowns - 1).reshape(-1, 3), [len(part)])
    columns = np.stack([of_row[when], of_anchor[owner]], axis=-1)
    for _ in range(_PASSES):
        equations = system.copy()
        apart = pelvis[when] - anchors[owner]
        off = np.linalg.norm(apart + foot, axis=1)
        weight = 1 / _UNPLANTED_M / np.sqrt(1 + (off / (2 * _UNPLANTED_M)) ** 2)
        values = weight[:, None, None] * np.broadcast_to([1.0, -1.0], columns.shape)
        equations.add(columns, values, -weight[:, None] * foot)
        if levels is not None:
            # |apart + hip_from_ankle| = reach, linearized, where it is more.
            leg = apart + hip_from_ankle
            distance = np.linalg.norm(leg, axis=1)
            far = distance > reach
            along = (leg / distance[:, None])[far, None] / _UNREACHED_M
            values = np.stack([along, -along], axis=-1).reshape(-1, 1, 6)
            right = reach[far, None] / _UNREACHED_M - (along @ hip_from_ankle[far, :, None])[..., 0]
            equations.add(columns[far].reshape(-1, 1, 6), values, right)
            height = plane.height_of(anchors) - soles
            level = nearest_level(height, levels)
            weight = np.sqrt(np.bincount(owner)) / _UNEVEN_M
            weight /= np.sqrt(1 + ((height - level) / NEAR_M) ** 2)
            equations.add(
                of_anchor[:, None, :],
                (weight[:, None] * plane.up)[:, None, :],
                (weight * (plane.height + level + soles))[:, None],
            )
        every = equations.solve()
        pelvis, anchors = np.split(every[:-1].reshape(-1, 3), [len(part)])
    placed, levels_under = pelvis[:, None] + limbs[:, :4], np.zeros(contacts.shape)
    if levels is not None:
        height = plane.height_of(anchors) - soles
        level = nearest_level(height, levels)
        anchors = anchors - (height - level)[:, None] * plane.up
        levels_under[when, point] = level[owner]
    placed[when, point] = anchors[owner]
    return _Ways(pelvis, contacts, placed, levels_under), float(every[-1])


def _equations_of_pelvis(
    seen: Seen, part: Int[np.ndarray, " T"], segments: int, clip: Clip, open_scale: bool
) -> Equations:
    """What the image and acceleration say of the pelvis, and what is known of the scale.

    The unknowns are the places of the pelvis in each row of `part`, those of `segments` feet that
    stand, and the scale of the camera's way.
    """
    count = len(part)
    of_scale = 3 * (count + segments)
    system = Equations(of_scale + 1)
    ray = seen.ray[part]
    distance = np.maximum(np.linalg.norm(seen.pelvis[part] - seen.centre[part], axis=1), 0.2)
    trust = np.sqrt(seen.weight[part])
    across = trust * clip.camera.focal[0] / (_MISPLACED_PX * distance)
    along = trust / (_MISJUDGED * distance * max(1.0, np.sqrt(_LASTING_S * clip.fps)))
    weights = across[:, None, None] * np.eye(3)
    weights += (along - across)[:, None, None] * ray[:, :, None] * ray[:, None, :]
    of_row = np.arange(3 * count).reshape(-1, 3)
    # weights @ (pelvis - scale * centre of the camera) = weights @ (pelvis - centre), as seen
    centre = (weights @ seen.centre[part, :, None])[..., 0]
    columns = np.concatenate([of_row, np.full((count, 1), of_scale)], axis=1)[:, None]
    values = np.concatenate([weights, -centre[..., None]], axis=2)
    system.add(columns, values, (weights @ seen.pelvis[part, :, None])[..., 0] - centre)
    scale_weight = np.array([[[1 / (_SCALE_ERROR if open_scale else _NO_ERROR)]]])
    system.add(np.array([[[of_scale]]]), scale_weight, scale_weight[0])
    if count > 2:
        bend = clip.fps**2 / _ACCELERATION_M_S2 * np.array([1.0, -2.0, 1.0])
        columns = np.stack([of_row[:-2], of_row[1:-1], of_row[2:]], axis=-1)
        system.add(columns, np.broadcast_to(bend, columns.shape), np.zeros(columns.shape[:2]))
    return system


def _write(
    rows: FinalRows,
    solved: World,
    seen: Seen,
    ways: _Ways,
    fps: float,
    body: BodyModel,
    world: WorldRows,
) -> None:
    """World rows of all final rows, in blocks."""
    moves = np.zeros((len(rows), 2, 6), np.float32)
    pelvis_first = ways.pelvis.copy()
    for run in seen.runs:
        moves[run], drop = _leg_moves(seen, ways, run, solved.plane, fps)
        pelvis_first[run] -= drop[:, None] * solved.plane.up
    to_world = solved.from_first
    first_from_camera = np.linalg.inv(solved.motion.camera_from_first)
    for start in range(0, len(rows), BLOCK):
        part = np.arange(start, min(start + BLOCK, len(rows)))
        final = rows.take(part)
        result = np.zeros(len(part), WORLD_ROW)
        frames = final["frame_index"]
        for name in ("person", "frame_index"):
            result[name] = final[name]
        camera = to_world @ first_from_camera[frames]
        result["world_from_camera"] = camera
        result["camera_zoom"] = solved.motion.zoom[frames]
        result["camera_confidence"] = solved.motion.confidence[frames]
        result["foot_contact"] = ways.contacts[part]
        # Legs are bent in the clip's camera, because the contour of a face depends on the view.
        turned, orient = camera[:, :3, :3], Rotation.from_rotvec(final["global_orient"])
        into_camera = turned.transpose(0, 2, 1) @ to_world[:3, :3]
        for k, side in enumerate(SIDES):
            turn, shift = np.einsum("nij,nkj->kni", into_camera, moves[part, k].reshape(-1, 2, 3))
            final["body_pose"] = bend_leg(
                *(orient, final["body_pose"], final["joints_3d_m"].astype(np.float64), side),
                *(shift, Rotation.from_rotvec(turn)),
            )
        joints = pose_joints(body, final)
        pelvis = pelvis_first[part] @ to_world[:3, :3].T + to_world[:3, 3]
        result["world_global_orient"] = (Rotation.from_matrix(turned) * orient).as_rotvec()
        result["world_body_pose"] = final["body_pose"]
        result["world_transl"] = pelvis - joints[:, PELVIS]
        joints -= joints[:, PELVIS, None]
        result["world_joints_3d_m"] = np.einsum("nij,nkj->nki", turned, joints) + pelvis[:, None]
        world.append(result)


def _leg_moves(
    seen: Seen, ways: _Ways, run: Int[np.ndarray, " T"], plane: Plane, fps: float
) -> tuple[Float[np.ndarray, "T 2 6"], Float[np.ndarray, " T"]]:
    """How each foot turns about its ankle, how the ankle moves, and how far the pelvis goes down.

    Feet then stand still; between contacts they move smoothly from one place to the next. The
    pelvis goes down where a leg would not reach.
    """
    result = np.zeros((len(run), 2, 6))
    missing = np.zeros((len(run), 2))
    limbs = ways.pelvis[run, None] + seen.limbs[run]
    for k in range(2):
        ends, ankle = slice(2 * k, 2 * k + 2), limbs[:, 4 + k]
        contacts, anchors = ways.contacts[run, ends], ways.anchors[run, ends]
        foot = limbs[:, ends]
        flat = contacts[:, 0] & contacts[:, 1]
        turns = turn_between(foot[:, 1] - foot[:, 0], anchors[:, 1] - anchors[:, 0])
        turns = between(turns, flat, fps)
        turned = Rotation.from_rotvec(turns)
        # Where one end stands, the other one may be on the ground, but not in it.
        for end in range(2):
            lever = turned.apply(foot[:, 1 - end] - foot[:, end])
            ground = ways.level[run, ends][:, end] + seen.soles[run, ends][:, 1 - end]
            sunk = ground - plane.height_of(anchors[:, end] + lever)
            sunk = np.where(contacts[:, end] & ~contacts[:, 1 - end], np.maximum(sunk, 0), 0)
            lifted = lever + sunk[:, None] * plane.up
            turned = Rotation.from_rotvec(turn_between(lever, lifted)) * turned
        turns = turned.as_rotvec()
        foot = ankle[:, None] + np.einsum("tij,tkj->tki", turned.as_matrix(), foot - ankle[:, None])
        shares = contacts / np.maximum(contacts.sum(axis=1, keepdims=True), 1)
        shifts = ((anchors - foot) * shares[..., None]).sum(axis=1)
        stands = contacts[:, 0] | contacts[:, 1]
        shifts = between(shifts, stands, fps)
        # Only a point that touches the ground has its level; other points have 0.
        level = np.where(contacts, ways.level[run, ends], -np.inf).max(axis=1)
        level = of_nearest(level, stands)
        below = (plane.height_of(foot + shifts[:, None]) - seen.soles[run, ends]).min(axis=1)
        lift = np.where(stands, 0.0, np.maximum(level - below, 0.0))
        shifts += lift[:, None] * plane.up
        result[:, k, :3], result[:, k, 3:] = turns, shifts
        knee, hip = limbs[:, 6 + k], limbs[:, 8 + k]
        length = np.linalg.norm(hip - knee, axis=1) + np.linalg.norm(knee - ankle, axis=1)
        leg = hip - ankle - shifts
        upward = leg @ plane.up
        aside = np.sqrt(np.maximum((leg**2).sum(axis=1) - upward**2, 0))
        highest = np.sqrt(np.maximum((_REACH * length) ** 2 - aside**2, 0))
        missing[:, k] = np.where(stands, np.maximum(upward - highest, 0), 0)
    reach = max(1, round(_SINKING_S * fps))
    drop = maximum_filter1d(missing.max(axis=1), 2 * reach + 1)
    drop = np.minimum(gaussian_filter1d(drop, reach / 2, mode="nearest"), _MOST_SINKING_M)
    result[:, :, 3:] += drop[:, None, None] * plane.up
    return result, drop
