"""Bodies moved onto keypoints: the most likely body given the network's estimate and 2D points.

Both err. The network's errors are those that were measured (`NetworkErrors`); keypoints err by
their source, their score and the person's size (`keypoint_errors`), and some are wrong altogether.
The most likely body is found by damped Gauss-Newton, for many frames at once; docs/refinement.md
has the formulas, and the measurements that the constants come from.
"""

import copy
import math
import zipfile
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import normalize

from human_models.body import BodyModel
from human_models.joints import JOINT_PARTS, JOINTS, RIG_JOINTS, SIDES
from main.motion.camera import Clip, ClipCamera, truncation
from main.motion.kinematics import (
    BETAS,
    DEEP,
    NEAREST_M,
    PLACE,
    ROTATING,
    SHAPE,
    TURNED,
    TURNED_NAMES,
    TURNS,
    VARIABLES,
    Observed,
    Posed,
    Skeleton,
    joint_limits,
)
from main.motion.neighbours import doubted, joined_over_time, judged_frames, own_keypoints
from main.motion.rows import BLOCK, KeypointSource, RawRows
from main.motion.trajectories import confidence, fuse_shape
from utils.errors import UserError
from utils.files import atomic_path, open_input
from utils.geometry import matrix_to_axis_angle
from utils.iteration import parallel_map

ERRORS_NAME: Final = "errors.npz"
"""A model's measured errors, beside its weights."""

_SOFTENED: Final = (0.15, 0.1, 0.08, 0.06, 0.04, 0.03, 0.02, 0.01)
"""Added to the keypoints' errors in the first steps, in longer sides of the box: what is far off
shall draw, too."""
_MOST_STEPS: Final = 16
_DAMPING: Final = 0.05
_LARGEST_TURN: Final = 0.8
"""Radians that a joint turns in one step."""
_AT_REST: Final = 0.01
"""Radians and other units of the error vector; whoever moves less in a step is done."""
_LIMIT_SIGMA: Final = math.radians(6)
"""How far joints go beyond their limits."""
_JAW: Final = 3 * TURNED_NAMES.index("jaw")
"""Entry of the error vector that opens the mouth."""
_LEAST_JAW_DEVIATION: Final = 0.2
"""Radians; synthetic people hardly open their mouths."""
_AT_ONCE: Final = 64
"""Frames that are solved together, each time by one thread."""
_SHAPE_FRAMES: Final = 64
"""Frames that somebody's shape is made of."""
_HAND_REACH: Final = 1.0
"""From a hand's middle to its wrist, in the longer side of the hand's keypoints: own hands are
nearer."""


class _SourceErrors(NamedTuple):
    """How keypoints of one source err; the first and the last are divided by the score."""

    sigma: float
    """Standard deviation of those that are right, in longer sides of the box; of the face's
    keypoints, in longer sides of theirs, since their network looks at the face alone."""
    least_sigma: float
    wrong: float
    """Share of keypoints that are anywhere in the box."""


_SOURCES: Final = {
    KeypointSource.BODY: _SourceErrors(0.015, 0.02, 0.045),
    KeypointSource.FEET: _SourceErrors(0.045, 0.045, 0.13),
    KeypointSource.HAND: _SourceErrors(0.0375, 0.03, 0.08),
    KeypointSource.FACE: _SourceErrors(0.2, 0.16, 0.08),
    KeypointSource.FILE: _SourceErrors(0.015, 0.015, 0.04),
}
_VAGUE: Final = {"hip": 2.5, "shoulder": 2.0}
"""How much larger the errors of joints are of which keypoint networks have another idea than the
body model."""
_VAGUENESS: Final = np.array([_VAGUE.get(joint.split("_")[-1], 1.0) for joint in JOINTS])
_USUAL_DISTANCE: Final = 0.04
"""Median distance of keypoints of the body from the demo network's on OpenPeople, in longer sides
of the box."""
_LOOSENESS: Final = (0.5, 2.0)
_EDGE: Final = 0.05
"""From a keypoint to the image's edge, in longer sides of the box, up to which the joint may be
beyond it: keypoint networks move what they cannot see into the image."""
_DEPTH_SIGMA_M: Final = torch.tensor([0.18, 0.18, 0.22, 0.22, 0.33, 0.33])
"""Of the depths of `DEEP`: twice what was measured, because they err together."""
_DEPTH_CHANCE: Final = 0.03
"""Density of wrong depths, 0.1 of them within a metre, over the largest one of right ones."""
_LEAST_RIGHT: Final = 0.4
"""Share of somebody's keypoints that must be right: others are of somebody else or of nobody."""
_MOST_WRONG: Final = 0.5


class NetworkErrors(NamedTuple):
    """How a network errs: the covariance of its error vector, basis @ basis.T.

    `kinematics` says what the error vector is.
    """

    basis: Float[Tensor, "182 K"]

    @classmethod
    def read(cls, path: Path, scale: float = 1.0) -> "NetworkErrors":
        """Measured errors, `scale` times as large.

        Raises:
            UserError: the file is missing, cannot be read or is none of these.
        """
        try:
            with open_input(path) as file, np.load(file, allow_pickle=False) as content:
                basis = np.asarray(content["basis"], np.float32)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise UserError(
                f"{path}: not a file of a network's errors; measure them again"
            ) from None
        if basis.ndim != 2 or len(basis) != VARIABLES or not np.isfinite(basis).all():
            raise UserError(f"{path}: 'basis' must be ({VARIABLES}, K) finite numbers")
        return cls(torch.from_numpy(basis * np.float32(scale)))

    @classmethod
    def measured(
        cls, errors: Float[np.ndarray, "N 182"], explained: float = 0.98
    ) -> "NetworkErrors":
        """Of error vectors with known truth.

        Each entry is divided by its standard deviation; of the correlations, the principal axes
        are kept that together explain a share `explained`.
        """
        covariance = errors.T @ errors / len(errors)
        deviation = np.sqrt(np.diag(covariance)) + 1e-9
        values, axes = np.linalg.eigh(covariance / deviation[:, None] / deviation)
        values, axes = values[::-1].clip(0), axes[:, ::-1]
        kept = int(np.searchsorted(np.cumsum(values) / values.sum(), explained)) + 1
        deviation[_JAW] = max(deviation[_JAW], _LEAST_JAW_DEVIATION)
        basis = deviation[:, None] * axes[:, :kept] * np.sqrt(values[:kept])
        return cls(torch.from_numpy(basis.astype(np.float32)))

    def write(self, path: Path) -> None:
        """Half precision, which is far below what can be measured."""
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file, allow_pickle=False, basis=self.basis.numpy().astype(np.float16)
            )

    def with_shape_known(self) -> "NetworkErrors":
        """The same where the betas are right."""
        basis = self.basis.clone()
        basis[SHAPE.start : SHAPE.start + BETAS] = 0
        return NetworkErrors(basis)


class Solver:
    """Damped Gauss-Newton over the principal axes of a network's errors."""

    def __init__(self, skeleton: Skeleton, errors: NetworkErrors, camera: ClipCamera) -> None:
        self.skeleton, self.basis, self.camera = skeleton, errors.basis, camera
        self.limits = joint_limits()

    def __call__(self, seen: Observed) -> tuple[Float[Tensor, "B 182"], Float[Tensor, "B 182"]]:
        """The most likely error vectors, and the variance of each entry.

        Where no step makes more likely, the estimate stays, and its variance.
        """
        axes = self.basis.shape[1]
        result = self.basis.new_zeros(len(seen.size_px), axes)
        loose = self.looseness(seen)
        moving = torch.nonzero(seen.sigma_px.isfinite().any(dim=1))[:, 0]
        for number in range(_MOST_STEPS):
            if not len(moving):
                break
            now, softened = seen.take(moving), number < len(_SOFTENED)
            extra = _SOFTENED[number] if softened else 0.0
            factor, down = self._linearised(now, result[moving], loose[moving], extra)
            step = -torch.cholesky_solve(down[..., None], factor)[..., 0]
            moved = (step @ self.basis.T).abs()
            largest = moved[:, TURNS].amax(dim=1)
            step = step * (_LARGEST_TURN / largest.clamp(min=_LARGEST_TURN))[:, None]
            result[moving] += step
            if not softened:
                moving = moving[moved.amax(dim=1) > _AT_REST]
        cost, share = self.judged(seen, result, loose)
        before, _ = self.judged(seen, torch.zeros_like(result), loose)
        better = (cost < before) & (share > _LEAST_RIGHT)
        result = torch.where(better[:, None], result, 0.0)
        factor, _ = self._linearised(seen, result, loose, 0.0)
        spread = torch.linalg.solve_triangular(factor, self.basis.T, upper=False)
        known = spread.square().sum(dim=1)
        variances = torch.where(better[:, None], known, self.variances * loose[:, None] ** 2)
        return result @ self.basis.T, variances

    @property
    def variances(self) -> Float[Tensor, " 182"]:
        """Of the entries of the error vector without any keypoint."""
        return self.basis.square().sum(dim=1)

    def looseness(self, seen: Observed) -> Float[Tensor, " B"]:
        """How much larger than usual somebody's errors are, by the keypoints' distances."""
        posed = self.skeleton.pose(
            seen, seen.shape.new_zeros(len(seen.shape), VARIABLES), self.camera
        )
        off = self._offsets_px(seen, posed).norm(dim=-1)
        off = torch.where(seen.sigma_px.isfinite(), off / seen.size_px[:, None], math.nan)
        usual = off[:, JOINT_PARTS["body"]].nanmedian(dim=1).values / _USUAL_DISTANCE
        return usual.nan_to_num(1.0).clamp(*_LOOSENESS)

    def judged(
        self, seen: Observed, axes: Float[Tensor, "B K"], loose: Float[Tensor, " B"]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Minus the logarithm of the probability, but for a constant; share of right keypoints."""
        view = self._view(seen, axes, 0.0)
        known = seen.sigma_px[:, view.points].isfinite()
        right = (-view.residuals.square().sum(dim=-1) / 2).exp()
        surprise = _surprise(right, view.chance) * known
        deeper = _surprise((-view.deeper.square() / 2).exp(), _DEPTH_CHANCE)
        beyond = (view.beyond / _LIMIT_SIGMA).square().sum(dim=1)
        cost = (axes.square().sum(dim=1) / loose**2 + beyond) / 2
        cost = cost + surprise.sum(dim=1) + deeper.sum(dim=1)
        trusted = torch.where(known, right / (right + view.chance), 0.0).sum(dim=1)
        return cost, trusted / known.sum(dim=1).clamp(min=1)

    def _view(self, seen: Observed, axes: Float[Tensor, "B K"], softened: float) -> "_View":
        posed = self.skeleton.pose(seen, axes @ self.basis.T, self.camera)
        points = torch.nonzero(seen.sigma_px.isfinite().any(dim=0))[:, 0]
        sigma = seen.sigma_px[:, points]
        offsets = self._offsets_px(seen, posed)[:, points]
        wrong = seen.wrong[:, points]
        share = sigma.nan_to_num(posinf=0.0) / seen.size_px[:, None]
        chance = 2 * math.pi * wrong / (1 - wrong) * share.square()
        bends = matrix_to_axis_angle(posed.rotations[:, TURNED]).flatten(1)[:, self.limits.entries]
        beyond = bends - bends.clamp(self.limits.least, self.limits.most)
        sigma = torch.hypot(sigma, softened * seen.size_px[:, None])[..., None]
        away = normalize(posed.pelvis_m, dim=1)
        depth = (posed.joints_m[:, DEEP] - posed.pelvis_m[:, None]) @ away[..., None]
        deeper = (depth[..., 0] - seen.depth_m) / _DEPTH_SIGMA_M * (seen.depth_m != 0)
        return _View(posed, points, offsets / sigma, sigma, chance, beyond, away, deeper)

    def _offsets_px(self, seen: Observed, posed: Posed) -> Float[Tensor, "B 137 2"]:
        """From keypoints to joints; 0 across an edge of the image beyond which the joint may be."""
        focal, princpt = map(seen.shape.new_tensor, (self.camera.focal, self.camera.princpt))
        depth = posed.joints_m[..., 2:].clamp(min=NEAREST_M)
        offsets = posed.joints_m[..., :2] / depth * focal + princpt - seen.keypoints_px
        return torch.where(offsets * seen.outward > 0, 0.0, offsets)

    def _linearised(
        self,
        seen: Observed,
        axes: Float[Tensor, "B K"],
        loose: Float[Tensor, " B"],
        softened: float,
    ) -> tuple[Float[Tensor, "B K K"], Float[Tensor, "B K"]]:
        """The Cholesky factor of the damped normal matrix, and the gradient."""
        view = self._view(seen, axes, softened)
        right = (-view.residuals.square().sum(dim=-1) / 2).exp()
        known = view.sigma[..., 0].isfinite()
        weights = torch.where(known, right / (right + view.chance), 0.0).sqrt()[..., None]

        joints = view.posed.joints_m[:, view.points]
        focal, depth = joints.new_tensor(self.camera.focal), joints[..., 2:].clamp(min=NEAREST_M)
        rays = (focal / depth)[..., None] * torch.eye(2, 3)
        rays[..., 2] = -focal * joints[..., :2] / depth**2
        rays = rays * (weights / view.sigma * (view.residuals != 0))[..., None]
        units = seen.size_px[:, None] / focal * view.posed.pelvis_m[:, 2:]
        points = view.points.repeat_interleave(2)
        slopes = self.skeleton.derivatives(view.posed, rays.flatten(1, 2), points, units)
        residuals = (view.residuals * weights).flatten(1)

        right = (-view.deeper.square() / 2).exp()
        weights = (right / (right + _DEPTH_CHANCE)).sqrt()
        rays = (weights * (view.deeper != 0) / _DEPTH_SIGMA_M)[..., None] * view.away[:, None]
        deeper = self.skeleton.derivatives(view.posed, rays, torch.tensor(DEEP), units)
        deeper[..., PLACE] = 0  # they count from the pelvis
        slopes = torch.cat([slopes, deeper], dim=1) @ self.basis
        residuals = torch.cat([residuals, view.deeper * weights], dim=1)[:, None]

        stiff = (view.beyond != 0) / _LIMIT_SIGMA
        bends = self.basis[self.limits.entries] * stiff[..., None]
        normal = slopes.transpose(1, 2) @ slopes + bends.transpose(1, 2) @ bends
        normal.diagonal(dim1=1, dim2=2).add_((loose**-2 + _DAMPING)[:, None])
        down = residuals @ slopes + (view.beyond / _LIMIT_SIGMA)[:, None] @ bends
        return torch.linalg.cholesky(normal), down[:, 0] + axes / loose[:, None] ** 2


class _View(NamedTuple):
    """Bodies, and how far they are from what was seen."""

    posed: Posed
    points: Int[Tensor, " P"]
    """Keypoints that somebody has, of JOINTS."""
    residuals: Float[Tensor, "B P 2"]
    """In units of `sigma`; 0 where the keypoint is unknown, and outward where the joint may be."""
    sigma: Float[Tensor, "B P 1"]
    """Pixels."""
    chance: Float[Tensor, "B P"]
    """Density of wrong keypoints over the largest one of right ones."""
    beyond: Float[Tensor, "B L"]
    """Radians beyond the limits."""
    away: Float[Tensor, "B 3"]
    """From the camera to the pelvis, as a unit vector."""
    deeper: Float[Tensor, "B D"]
    """How much deeper the joints `DEEP` are than expected, in standard deviations; 0: unknown."""


def _surprise(right: Tensor, chance: Tensor | float) -> Tensor:
    """Minus the logarithm of the probability of what was found, but for a constant."""
    return -torch.log((right + chance) / (1 + chance))


def keypoint_errors(
    rows: np.ndarray,
) -> tuple[Float[np.ndarray, "T 137"], Float[np.ndarray, "T 137"]]:
    """Pixels that keypoints of raw rows are off, infinite where unknown, and share of wrong ones.

    The keypoints of a hand that is not at its own wrist are taken to be of another hand: unknown.
    """
    score = rows["keypoint_score"].astype(np.float64)
    sigmas, wrong = np.full(score.shape, np.inf), np.zeros(score.shape)
    for source, errors in _SOURCES.items():
        mine = (rows["keypoint_source"] == source) & (score > 0)
        sigmas[mine] = np.maximum(errors.sigma / score[mine], errors.least_sigma)
        wrong[mine] = np.minimum(errors.wrong / score[mine], _MOST_WRONG)
    own = rows["keypoint_source"] != KeypointSource.FILE
    sigmas *= np.where(own, _VAGUENESS, 1.0)
    is_face = ((rows["keypoint_source"] == KeypointSource.FACE) & (score > 0))[..., None]
    first, last = (np.where(is_face, rows["keypoints_px"], end) for end in (np.inf, -np.inf))
    face, box = last.max(axis=1) - first.min(axis=1), rows["box_xywh"][:, 2:]
    sizes = np.where(is_face, face.clip(min=1)[:, None], box[:, None])
    sigmas *= sizes.max(axis=2)
    for side in SIDES:
        part = JOINT_PARTS[f"{side}_hand"]
        wrist = JOINTS.index(f"{side}_wrist")
        hand = np.where(np.isfinite(sigmas[:, part, None]), rows["keypoints_px"][:, part], np.nan)
        has_both = np.isfinite(sigmas[:, part]).any(axis=1) & np.isfinite(sigmas[:, wrist])
        mine = np.flatnonzero(has_both)
        least, most = np.nanmin(hand[mine], axis=1), np.nanmax(hand[mine], axis=1)
        apart = np.linalg.norm((least + most) / 2 - rows["keypoints_px"][mine, wrist], axis=1)
        strange = mine[apart > _HAND_REACH * (most - least).max(axis=1) + sigmas[mine, wrist]]
        sigmas[strange, part] = np.inf
    return sigmas, wrong


class Refinement:
    """What moves the people of a clip onto their keypoints."""

    def __init__(
        self, body: BodyModel, errors: NetworkErrors, clip: Clip, workers: int = 1
    ) -> None:
        """Prepare for a clip, whose frames are solved by `workers` threads."""
        # The matrices are so small that a GPU would wait for its orders.
        self.body = body if body.faces.device.type == "cpu" else copy.deepcopy(body).cpu()
        self.clip, self.skeleton, self.workers = clip, Skeleton(self.body), workers
        self.of_frames = Solver(self.skeleton, errors, clip.camera)
        self.of_shape = Solver(self.skeleton, errors.with_shape_known(), clip.camera)

    def refine(self, raw: RawRows, people: Int[np.ndarray, " N"], refined: RawRows) -> int:
        """Append all rows to `refined`, those that have keypoints moved; the number of those.

        A person's shape is found first, from some frames that show much; then every frame with it.
        People who have no keypoints at all keep what the network says.

        Args:
            people: the person's number of each raw row.
        """
        confident = confidence(*(raw.column(name) for name in ("score", "box_xywh", "truncation")))
        judged = judged_frames(raw)
        usable = np.zeros(len(raw), bool)
        for block, rows in raw.blocks():
            own = own_keypoints(rows, self.clip.image_size)
            usable[block] = own["keypoint_score"].any(axis=1)
        usable &= ~judged.has_anothers
        shapes = np.full((len(raw), BETAS), np.nan, np.float32)
        for person in np.unique(people[usable]):
            mine = np.flatnonzero(people == person)
            best = mine[usable[mine]]
            best = best[np.linspace(0, len(best) - 1, min(len(best), _SHAPE_FRAMES)).astype(int)]
            moved, _ = self.move(raw.take(best), self.of_frames)
            shapes[mine] = fuse_shape(moved["betas"], confident[best])
        variances = np.tile(_by_joint(self.of_shape.variances[None]), (len(raw), 1))
        for start in range(0, len(raw), BLOCK):
            part = np.arange(start, min(start + BLOCK, len(raw)))
            rows, shape, move = raw.take(part), shapes[part], np.flatnonzero(usable[part])
            known = np.isfinite(shape[:, 0])
            rows["betas"][known] = shape[known]
            rows[move], variances[part[move]] = self.move(rows[move], self.of_shape)
            refined.append(rows)
        variances = doubted(variances, judged.covered)
        for person in np.unique(people[usable]):
            mine = np.flatnonzero(people == person)
            if len(mine) > 1:
                for part, rows in joined_over_time(refined, mine, variances, self.clip.fps):
                    refined.put(part, self._posed(rows))
        return int(usable.sum())

    def move(self, rows: np.ndarray, solver: Solver) -> tuple[np.ndarray, Float[np.ndarray, "T C"]]:
        """Rows with keypoints, moved onto them in place, and the variances of `_by_joint`."""
        threads = max(1, torch.get_num_threads() // self.workers)

        def solve(part: np.ndarray) -> Float[np.ndarray, "B C"]:
            torch.set_num_threads(threads)  # of this thread
            with torch.inference_mode():
                seen = observed(part, self.body, self.clip.image_size)
                errors, spread = solver(seen)
                posed = self.skeleton.pose(seen, errors, self.clip.camera)
                _write(part, posed, self.body, self.clip)
            return _by_joint(spread)

        parts = [rows[first : first + _AT_ONCE] for first in range(0, len(rows), _AT_ONCE)]
        none = np.zeros((0, len(TURNED) + 3), np.float32)
        return rows, np.concatenate([none, *parallel_map(solve, parts, self.workers)])

    def _posed(self, rows: np.ndarray) -> np.ndarray:
        """Rows whose pose was changed, with the pixels of their joints, in place."""
        with torch.inference_mode():
            for first in range(0, len(rows), _AT_ONCE):
                part = rows[first : first + _AT_ONCE]
                seen = observed(part, self.body, self.clip.image_size)
                still = seen.shape.new_zeros(len(part), VARIABLES)
                posed = self.skeleton.pose(seen, still, self.clip.camera)
                _show(part, posed, self.clip)
        return rows


def _by_joint(variances: Float[Tensor, "B 182"]) -> Float[np.ndarray, "B C"]:
    """Variances of an axis of each turned joint, then those of the place."""
    turns = variances[:, TURNS].unflatten(1, (-1, 3)).mean(dim=-1)
    return torch.cat([turns, variances[:, PLACE]], dim=1).numpy()


def outward(rows: np.ndarray, image_size: tuple[int, int]) -> Float[np.ndarray, "T 137 2"]:
    """Where keypoints are at the image's edge, and the joint may be beyond it, see `Observed`.

    Keypoints of a file are taken as they are: whoever made them may know what is outside.
    """
    near = _EDGE * rows["box_xywh"][:, 2:].max(axis=1)[:, None, None]
    may_be_outside = (rows["keypoint_source"] != KeypointSource.FILE)[..., None]
    px = rows["keypoints_px"]
    ends = (px > np.array(image_size) - 1 - near).astype(np.float32) - (px < near)
    return np.where(may_be_outside, ends, 0.0)


def observed(rows: np.ndarray, body: BodyModel, image_size: tuple[int, int]) -> Observed:
    """Raw rows as the solver takes them."""
    rows = own_keypoints(rows, image_size)
    rotations = np.tile(np.eye(3), (len(rows), len(RIG_JOINTS), 1, 1))
    vectors = np.concatenate([rows[name] for name in ROTATING], axis=1).reshape(-1, 3)
    vectors = vectors + np.tile(body.mean_pose[TURNED].numpy(), (len(rows), 1))
    matrices = Rotation.from_rotvec(vectors).as_matrix()
    rotations[:, TURNED] = matrices.reshape(len(rows), len(TURNED), 3, 3)
    values = (
        rotations,
        np.concatenate([rows["betas"], rows["expression"]], axis=1),
        rows["placed_pelvis_m"],
        rows["box_xywh"][:, 2:].max(axis=1),
        np.nan_to_num(rows["keypoints_px"]),
        *keypoint_errors(rows),
        outward(rows, image_size),
        rows["keypoint_depth_m"][:, DEEP],
    )
    return Observed(*(torch.from_numpy(np.array(value, np.float32, order="C")) for value in values))


def _write(rows: np.ndarray, posed: Posed, body: BodyModel, clip: Clip) -> None:
    """Bodies into raw rows, in place."""
    matrices = posed.rotations[:, TURNED].flatten(0, 1).double().numpy()
    vectors = Rotation.from_matrix(matrices).as_rotvec().reshape(len(rows), -1, 3)
    vectors = (vectors - body.mean_pose[TURNED].numpy()).reshape(len(rows), -1)
    first = 0
    for name, joints in ROTATING.items():
        rows[name] = vectors[:, first : first + 3 * len(joints)]
        first += 3 * len(joints)
    rows["betas"], rows["expression"] = np.split(posed.shape.numpy(), [BETAS], axis=1)
    rows["placed_pelvis_m"] = posed.pelvis_m.numpy()
    _show(rows, posed, clip)


def _show(rows: np.ndarray, posed: Posed, clip: Clip) -> None:
    """Where the camera sees bodies, in place."""
    rows["joints_2d_px"] = clip.camera.project(posed.joints_m.numpy())
    rows["truncation"] = truncation(rows["joints_2d_px"], clip.image_size)
