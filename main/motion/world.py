"""The motion of people in a world that does not move with the camera.

`solve_world` takes people in the camera of the clip and the camera's motion. It moves people along
their lines of sight, where their positions are least certain, so that feet that touch the ground
stay in place, and then bends their legs by what is left.

Lengths are metres. Everything is solved in the frame of the camera in the first frame of the clip
(x right, y down, z forward). The world has y up, the floor at y = 0, and the first camera above its
origin.
"""

import copy
import logging
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import label
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from human_models.body import BodyModel
from human_models.joints import SIDES
from main.motion.camera import PELVIS, CameraMotion, Clip, scaled
from main.motion.ground import (
    Ground,
    Plane,
    common_level,
    fit_ground,
    nearest_level,
    world_from_camera,
)
from main.motion.legs import REACH, bend_leg, leg_moves
from main.motion.rows import WORLD_ROW, FinalRows, WorldRows
from main.motion.standing import (
    ANKLES,
    FEET,
    HIPS,
    KNEES,
    MAX_SAMPLES,
    NEAR_M,
    Observations,
    Solution,
    find_contacts,
    find_scale,
    first_solution,
    observe,
    segments_of,
    soles_of,
    up_direction,
    zoom_or_dolly,
)
from main.motion.trajectories import pose_joints
from utils.geometry import smooth

log = logging.getLogger(__name__)

_WINDOW, _OVERLAP = 1500, 150
"""Frames that are solved together, and further frames on each side that are solved with them."""
_ROUNDS, _ROUNDS_WITH_SCALE = 2, 5
"""Alternating solutions of trajectories, contacts and ground before the last one, with a known
and an unknown scale of the camera's motion."""
_MIN_CONTACTS: Final = 4
"""Least number of contacts from which the ground is estimated."""
_MAX_APPROACH: Final = 0.5
"""Share of the distance from the camera by which people come nearer, to stand on the ground, at
most."""
# Standard deviations of the terms of the least squares.
_ACROSS_PX: Final = 1.0
"""Of the position across the line of sight, in pixels."""
_DISTANCE_SIGMA: Final = 0.012
"""Of a person's distance, relative to the distance; such errors last for `_LASTING_S`."""
_LASTING_S: Final = 0.5
_ACCELERATION_M_S2: Final = 3.0
_FOOT_M: Final = 0.04
"""Of a foot in contact relative to the pelvis, along each axis."""
_GROUND_M: Final = 0.02
"""Of the ground from a level."""
_REACH_M: Final = 0.02
"""Of the distance by which a foot in contact is farther away than the leg is long."""
_SCALE_SIGMA, _NO_SIGMA = 0.1, 1e-6
"""Of the scale of the camera's motion from that of the round before: unknown, and known."""
_PASSES: Final = 3
"""Passes of reweighted least squares."""


class World(NamedTuple):
    """The world of a clip.

    Attributes:
        motion: the camera's motion in metres.
        plane: the floor, in the first camera's frame.
        levels: heights of further levels of the ground over the floor, such as steps; those of
            levels below it are negative.
    """

    motion: CameraMotion
    plane: Plane
    levels: Float[np.ndarray, " L"]

    def describe(self) -> dict[str, object]:
        """Entries for the summary of a result."""
        return {"camera": self.motion.kind, "levels_m": [round(x, 4) for x in self.levels.tolist()]}


def solve_world(
    rows: FinalRows,
    clip: Clip,
    motion: CameraMotion,
    body: BodyModel,
    world: WorldRows,
    *,
    kind_is_certain: bool = False,
) -> World:
    """Append the world row of each final row to `world`.

    Args:
        rows: at least one.
        motion: the camera's motion in all frames of the clip. If its scale is unknown, it is found
            from people's feet.
        kind_is_certain: whether a zoom is certainly one; otherwise it may be motion ahead.
    """
    soles = soles_of(rows, body)
    if not kind_is_certain:
        motion = zoom_or_dolly(rows, motion, soles, clip.fps)
    open_scale = not motion.scale_known
    if open_scale:
        motion = scaled(motion, find_scale(observe(rows, motion, soles), clip.fps).scale)
    seen, up = observe(rows, motion, soles), up_direction(rows, motion)
    solution = first_solution(seen, up, clip.fps)
    ground = _find_ground(seen, solution, up)
    for _ in range(_ROUNDS_WITH_SCALE if open_scale else _ROUNDS):
        # Terms of the ground would draw feet to a wrong one while it is not known well.
        solution, scale = _solve(seen, solution, None, clip, open_scale=open_scale)
        if open_scale:
            motion = scaled(motion, scale)
            seen = observe(rows, motion, soles)
        solution = solution._replace(contacts=find_contacts(seen, solution, ground, clip.fps))
        ground = _find_ground(seen, solution, up)
    lifted = _lifted(seen, ground, clip.fps)
    solution = solution._replace(pelvis=solution.pelvis + lifted.pelvis - seen.pelvis)
    solution = solution._replace(contacts=find_contacts(lifted, solution, ground, clip.fps))
    solution, _ = _solve(lifted, solution, ground, clip, open_scale=False)
    if (solution.contacts & ~seen.hidden[:, None]).sum() < _MIN_CONTACTS:
        log.warning("no visible foot ever stands still: the ground is put at the lowest feet")
    solved = World(motion, *ground)
    _write(rows, solved, seen, solution, clip.fps, body, world)
    return solved


def _find_ground(seen: Observations, solution: Solution, up: Float[np.ndarray, "3"]) -> Ground:
    """The ground below the contacts of visible feet; without contacts, below the lowest feet.

    Args:
        up: expected normal of the ground, of length 1.
    """
    contacts = np.argwhere(solution.contacts & ~seen.hidden[:, None])
    contacts = contacts[:: max(1, len(contacts) // MAX_SAMPLES)]
    if len(contacts) < _MIN_CONTACTS:
        feet = solution.pelvis[:, None] + seen.limbs[:, FEET]
        lowest = (feet @ up - seen.soles).min(axis=1)
        return Ground(Plane(up, float(np.quantile(lowest, 0.05))), np.zeros(0))
    row, point = contacts.T
    points = solution.anchors[row, point] - seen.soles[row, point][:, None] * up
    fit = fit_ground(points, seen.person[row], up)
    floor = common_level(fit.heights, seen.person[row], fit.levels)
    plane = Plane(fit.plane.up, fit.plane.height + floor)
    return Ground(plane, fit.levels[fit.levels != floor] - floor)


def _lifted(seen: Observations, ground: Ground, fps: float) -> Observations:
    """Bring people nearer whose heels are too far below all levels to touch the ground.

    A network often estimates a person who sits as one who stands farther away. Feet that are
    visible are then where the image shows them on the ground, and the pelvis comes nearer by half
    as much, because the pelvis of somebody who sits is behind the feet. If feet are hidden for a
    while, the network took what is visible for the whole body, and the person comes nearer until
    the feet are on the ground.
    """
    plane = ground.plane
    feet = seen.pelvis[:, None] + seen.limbs[:, FEET]
    bottom = ground.levels.min(initial=0.0)
    below = bottom - (plane.height_of(feet) - seen.soles)[:, ::2].min(axis=1)
    sunk, unseen = below > NEAR_M, np.zeros(len(below), bool)
    for run in seen.runs:
        stretch, _ = label(sunk[run])
        hidden = np.bincount(stretch, seen.hidden[run])
        unseen[run] = sunk[run] & (hidden[stretch] > _LASTING_S * fps)
    ray = seen.pelvis - seen.centre
    # How far the pelvis, or else the lower heel, would rise on the way to the camera.
    drop = np.where(unseen, -ray @ plane.up, plane.height_of(seen.centre) - bottom + below)
    share = np.where(sunk & (below < _MAX_APPROACH * drop), below, 0.0) / np.maximum(drop, 1e-6)
    shares = np.stack([share * ~unseen, share * unseen], axis=1)
    for run in seen.runs:
        shares[run] = smooth(shares[run], _LASTING_S * fps)
    of_feet, of_all = shares[:, :1], shares[:, 1:]
    limbs = seen.limbs.copy()
    limbs[:, FEET] -= of_feet[..., None] * (limbs[:, FEET] + ray[:, None] / 2)
    return seen._replace(pelvis=seen.pelvis - (of_feet / 2 + of_all) * ray, limbs=limbs)


def _solve(
    seen: Observations,
    solution: Solution,
    ground: Ground | None,
    clip: Clip,
    *,
    open_scale: bool,
) -> tuple[Solution, float]:
    """Solve all trajectories with the contacts of `solution`, window after window.

    Args:
        ground: the ground that feet stand on, within the reach of legs; None: any height.
        open_scale: whether the scale of the camera's motion is an unknown; otherwise it is 1.

    Returns:
        The new solution, and the mean scale.
    """
    solved = Solution(*(values.copy() for values in solution))
    scales, lengths = [], []
    for run in seen.runs:
        for start in range(0, len(run), _WINDOW):
            first = max(0, start - _OVERLAP)
            part = run[first : start + _WINDOW + _OVERLAP]
            kept = slice(start - first, start - first + _WINDOW)
            window, scale = _solve_window(seen, solution, part, ground, clip, open_scale)
            scales.append(scale)
            lengths.append(len(part))
            for values, found in zip(solved, window, strict=True):
                values[part[kept]] = found[kept]
        _settle(seen, solved, run)
    return solved, float(np.average(scales, weights=lengths))


def _settle(seen: Observations, solution: Solution, run: Int[np.ndarray, " T"]) -> None:
    """Give each contact one anchor, in place, and anchors of a whole foot the foot's length."""
    contacts, segment = solution.contacts[run], segments_of(solution.contacts[run])
    row, point = np.nonzero(contacts)
    if not len(row):
        return
    owner = segment[row, point]
    means = _means_of(solution.anchors[run[row], point], owner)
    limbs = seen.limbs[run]
    for heel in (0, 2):
        flat = contacts[:, heel] & contacts[:, heel + 1]
        for pair in np.unique(segment[flat, heel : heel + 2], axis=0):
            mine = flat & (segment[:, heel] == pair[0])
            length = np.linalg.norm(limbs[mine, heel + 1] - limbs[mine, heel], axis=1).mean()
            half = means[pair[1]] - means[pair[0]]
            half *= length / 2 / max(float(np.linalg.norm(half)), 1e-6)
            means[pair] = means[pair].mean(axis=0) + np.array([[-1.0], [1.0]]) * half
    solution.anchors[run[row], point] = means[owner]


def _means_of(
    values: Float[np.ndarray, "C D"], owner: Int[np.ndarray, " C"]
) -> Float[np.ndarray, "S D"]:
    """Mean of the values of each owner, 0 to S - 1, all of whom have some."""
    sums = [np.bincount(owner, column) for column in values.T]
    return np.stack(sums, axis=1) / np.bincount(owner)[:, None]


class _Equations:
    """Linear equations of a few unknowns each, which are solved by least squares."""

    def __init__(self, unknowns: int) -> None:
        self.unknowns = unknowns
        self.normal = csc_array((unknowns, unknowns))
        self.right = np.zeros(unknowns)

    def add(
        self,
        columns: Int[np.ndarray, "N _ K"],
        values: Float[np.ndarray, "N R K"],
        right: Float[np.ndarray, "N R"],
    ) -> None:
        """Add equations sum_k values[n, r, k] * unknown[columns[n, r, k]] = right[n, r]."""
        columns = np.broadcast_to(columns, values.shape)
        rows = np.broadcast_to(np.arange(right.size).reshape(*right.shape, 1), values.shape)
        entries = (values.ravel(), (rows.ravel(), columns.ravel()))
        matrix = coo_array(entries, shape=(right.size, self.unknowns)).tocsc()
        self.normal = self.normal + matrix.T @ matrix
        self.right = self.right + matrix.T @ right.ravel()

    def solve(self) -> Float[np.ndarray, " U"]:
        return np.asarray(spsolve(self.normal.tocsc(), self.right))


class _Contacts(NamedTuple):
    """C points of feet that touch the ground in a window, in S uninterrupted contacts.

    Attributes:
        row, point: numbers in the window and in `FOOT_JOINTS`.
        segment: number of the contact, from 0 to S - 1.
        foot: observed position relative to the pelvis.
        soles: mean height of each contact's point over the sole.
        hip: what is added to pelvis minus anchor to give hip minus ankle, if the ankle is above the
            anchor as it is observed above the foot.
        reach: largest distance of the hip from the ankle.
    """

    row: Int[np.ndarray, " C"]
    point: Int[np.ndarray, " C"]
    segment: Int[np.ndarray, " C"]
    foot: Float[np.ndarray, "C 3"]
    soles: Float[np.ndarray, " S"]
    hip: Float[np.ndarray, "C 3"]
    reach: Float[np.ndarray, " C"]


def _contacts_of(seen: Observations, solution: Solution, part: Int[np.ndarray, " T"]) -> _Contacts:
    """The contacts of `solution` in the rows `part`."""
    contacts, limbs = solution.contacts[part], seen.limbs[part]
    row, point = np.nonzero(contacts)
    segment = segments_of(contacts)[row, point]
    foot = limbs[row, point]
    ankle, knee, hip = (limbs[:, joints][row, point // 2] for joints in (ANKLES, KNEES, HIPS))
    length = np.linalg.norm(hip - knee, axis=1) + np.linalg.norm(knee - ankle, axis=1)
    soles = _means_of(seen.soles[part][row, point][:, None], segment)[:, 0]
    return _Contacts(row, point, segment, foot, soles, hip - ankle + foot, REACH * length)


def _solve_window(
    seen: Observations,
    solution: Solution,
    part: Int[np.ndarray, " T"],
    ground: Ground | None,
    clip: Clip,
    open_scale: bool,
) -> tuple[Solution, float]:
    """Solve the rows `part` and the scale of the camera's motion; arguments are as in `_solve`.

    The unknowns of the reweighted least squares are the positions of the pelvis in all rows, the
    anchor of each contact, and the scale. The pelvis is where the image shows the body, about as
    far away as its size says, and accelerates little. Feet in contact do not move, stand on a
    level of the ground, and are no farther from the hips than legs are long.
    """
    feet = _contacts_of(seen, solution, part)
    pelvis = solution.pelvis[part]
    anchors = _means_of(pelvis[feet.row] + feet.foot, feet.segment)
    fixed = _pelvis_equations(seen, part, len(anchors), clip, open_scale)
    columns = np.arange(3 * (len(part) + len(anchors))).reshape(-1, 3)
    anchor_columns = columns[len(part) :]
    both = np.stack([columns[feet.row], anchor_columns[feet.segment]], axis=-1)
    for _ in range(_PASSES):
        equations = copy.copy(fixed)
        offset = pelvis[feet.row] - anchors[feet.segment]
        error = np.linalg.norm(offset + feet.foot, axis=1)
        weight = 1 / _FOOT_M / np.sqrt(1 + (error / (2 * _FOOT_M)) ** 2)
        values = weight[:, None, None] * np.broadcast_to([1.0, -1.0], both.shape)
        equations.add(both, values, -weight[:, None] * feet.foot)
        if ground is not None:
            _add_reach(equations, feet, offset, both)
            _add_levels(equations, feet, anchors, anchor_columns, ground)
        unknowns = equations.solve()
        pelvis, anchors = np.split(unknowns[:-1].reshape(-1, 3), [len(part)])
    placed = pelvis[:, None] + seen.limbs[part, FEET]
    levels = np.zeros(placed.shape[:2])
    if ground is not None:
        height = ground.plane.height_of(anchors) - feet.soles
        level = nearest_level(height, ground.levels)
        anchors = anchors - (height - level)[:, None] * ground.plane.up
        levels[feet.row, feet.point] = level[feet.segment]
    placed[feet.row, feet.point] = anchors[feet.segment]
    return Solution(pelvis, solution.contacts[part], placed, levels), float(unknowns[-1])


def _add_reach(
    equations: _Equations,
    feet: _Contacts,
    offset: Float[np.ndarray, "C 3"],
    columns: Int[np.ndarray, "C 3 2"],
) -> None:
    """Legs that would be too long are as long as they reach: |offset + hip| = reach, linearised.

    Args:
        offset: present position of the pelvis relative to the anchor.
        columns: unknowns of the pelvis and of the anchor.
    """
    leg = offset + feet.hip
    distance = np.linalg.norm(leg, axis=1)
    far = distance > feet.reach
    along = (leg / distance[:, None])[far, None] / _REACH_M
    values = np.stack([along, -along], axis=-1).reshape(-1, 1, 6)
    right = feet.reach[far, None] / _REACH_M - (along @ feet.hip[far, :, None])[..., 0]
    equations.add(columns[far].reshape(-1, 1, 6), values, right)


def _add_levels(
    equations: _Equations,
    feet: _Contacts,
    anchors: Float[np.ndarray, "S 3"],
    columns: Int[np.ndarray, "S 3"],
    ground: Ground,
) -> None:
    """Anchors are at the height of the nearest level of the ground, with Cauchy's weights."""
    up, ground_height = ground.plane
    height = ground.plane.height_of(anchors) - feet.soles
    level = nearest_level(height, ground.levels)
    weight = np.sqrt(np.bincount(feet.segment)) / _GROUND_M
    weight /= np.sqrt(1 + ((height - level) / NEAR_M) ** 2)
    right = (weight * (ground_height + level + feet.soles))[:, None]
    equations.add(columns[:, None, :], (weight[:, None] * up)[:, None, :], right)


def _pelvis_equations(
    seen: Observations, part: Int[np.ndarray, " T"], segments: int, clip: Clip, open_scale: bool
) -> _Equations:
    """The equations of the image, of acceleration, and of the scale of the camera's motion.

    The unknowns are the positions of the pelvis in each row of `part`, the anchors of a number of
    `segments`, and the scale.
    """
    count = len(part)
    scale_column = 3 * (count + segments)
    system = _Equations(scale_column + 1)
    ray = seen.ray[part]
    distance = np.maximum(np.linalg.norm(seen.pelvis[part] - seen.centre[part], axis=1), 0.2)
    trust = np.sqrt(seen.weight[part])
    across = trust * clip.camera.focal[0] / (_ACROSS_PX * distance)
    along = trust / (_DISTANCE_SIGMA * distance * max(1.0, np.sqrt(_LASTING_S * clip.fps)))
    weights = across[:, None, None] * np.eye(3)
    weights += (along - across)[:, None, None] * ray[:, :, None] * ray[:, None, :]
    pelvis_columns = np.arange(3 * count).reshape(-1, 3)
    # weights @ (pelvis - scale * camera centre) = weights @ (observed pelvis - camera centre)
    centre = (weights @ seen.centre[part, :, None])[..., 0]
    columns = np.concatenate([pelvis_columns, np.full((count, 1), scale_column)], axis=1)[:, None]
    values = np.concatenate([weights, -centre[..., None]], axis=2)
    system.add(columns, values, (weights @ seen.pelvis[part, :, None])[..., 0] - centre)
    scale_weight = np.array([[[1 / (_SCALE_SIGMA if open_scale else _NO_SIGMA)]]])
    system.add(np.array([[[scale_column]]]), scale_weight, scale_weight[0])
    if count > 2:
        bend = clip.fps**2 / _ACCELERATION_M_S2 * np.array([1.0, -2.0, 1.0])
        columns = np.stack([pelvis_columns[:-2], pelvis_columns[1:-1], pelvis_columns[2:]], axis=-1)
        system.add(columns, np.broadcast_to(bend, columns.shape), np.zeros(columns.shape[:2]))
    return system


def _write(
    rows: FinalRows,
    solved: World,
    seen: Observations,
    solution: Solution,
    fps: float,
    body: BodyModel,
    world: WorldRows,
) -> None:
    """Append the world rows of all final rows, in blocks."""
    moves = np.zeros((len(rows), 2, 2, 3), np.float32)  # leg; turn and shift
    lowered = solution.pelvis.copy()
    for run in seen.runs:
        turns, shifts, drop = leg_moves(seen, solution, run, solved.plane, fps)
        moves[run] = np.stack([turns, shifts], axis=2)
        lowered[run] -= drop[:, None] * solved.plane.up
    to_world = world_from_camera(solved.plane)
    first_from_camera = np.linalg.inv(solved.motion.camera_from_first)
    for block, view in rows.blocks():
        final, result = view.copy(), np.zeros(len(view), WORLD_ROW)
        frames = final["frame_index"]
        for name in ("person", "frame_index"):
            result[name] = final[name]
        camera = to_world @ first_from_camera[frames]
        result["world_from_camera"] = camera
        result["camera_zoom"] = solved.motion.zoom[frames]
        result["camera_confidence"] = solved.motion.confidence[frames]
        result["foot_contact"] = solution.contacts[block]
        # Legs are bent in the clip's camera, because the contour of a face depends on the view.
        rotation, orient = camera[:, :3, :3], Rotation.from_rotvec(final["global_orient"])
        into_camera = rotation.transpose(0, 2, 1) @ to_world[:3, :3]
        for leg, side in enumerate(SIDES):
            turn, shift = np.einsum("nij,nkj->kni", into_camera, moves[block, leg])
            pose, joints = final["body_pose"], final["joints_3d_m"].astype(np.float64)
            turned = Rotation.from_rotvec(turn)
            final["body_pose"] = bend_leg(orient, pose, joints, side, shift, turned)
        joints = pose_joints(body, final)
        pelvis = lowered[block] @ to_world[:3, :3].T + to_world[:3, 3]
        result["world_global_orient"] = (Rotation.from_matrix(rotation) * orient).as_rotvec()
        result["world_body_pose"] = final["body_pose"]
        result["world_transl"] = pelvis - joints[:, PELVIS]
        joints -= joints[:, PELVIS, None]
        result["world_joints_3d_m"] = np.einsum("nij,nkj->nki", rotation, joints) + pelvis[:, None]
        world.append(result)
