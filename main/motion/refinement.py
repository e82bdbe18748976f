"""Refinement: the most likely body, given the network's estimate and 2D keypoints.

The covariance of the network's errors is measured (`NetworkErrors`). The standard deviation of
keypoints depends on their source, their score and the person's size (`keypoint_errors`), and a
share of them are outliers. The most likely body is found with damped Gauss-Newton steps, for many
frames at once. docs/refinement.md has the formulas and the measurements behind the constants.
"""

import copy
import math
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import normalize

from human_models.body import BodyModel
from human_models.joints import JOINT_PARTS, JOINTS, RIG_JOINTS, SIDES
from main.motion.camera import Clip, ClipCamera, truncation
from main.motion.kinematics import (
    BETAS,
    DEPTH_JOINTS,
    MIN_DEPTH_M,
    POSITION,
    ROTATED,
    ROTATIONS,
    VARIABLES,
    NetworkErrors,
    Observed,
    Posed,
    Skeleton,
    joint_limits,
    read_rotations,
    write_rotations,
)
from main.motion.neighbours import (
    combine_frames,
    correct_keypoints,
    find_overlaps,
    inflate_variances,
)
from main.motion.rows import KeypointSource, RawRows, grouped
from main.motion.trajectories import confidence, fuse_shape
from utils.geometry import matrix_to_axis_angle
from utils.iteration import parallel_map

_EXTRA_SIGMAS: Final = (0.15, 0.1, 0.08, 0.06, 0.04, 0.03, 0.02, 0.01)
"""Added to the standard deviations of keypoints in the first steps, in units of the longer side of
the box, so that distant keypoints have influence, too."""
_MAX_STEPS: Final = 16
_DAMPING: Final = 0.05
_MAX_ROTATION: Final = 0.8
"""Largest rotation of a joint in one step, in radians."""
_CONVERGED: Final = 0.01
"""A body has converged when no entry of the error vector changes by more than this in a step."""
_LIMIT_SIGMA: Final = math.radians(6)
"""Standard deviation of the angle by which joints exceed their limits, in radians."""
_BATCH: Final = 64
"""Frames that are solved together, in one thread."""
_SHAPE_FRAMES: Final = 64
"""Largest number of frames from which a person's shape is determined."""
_MAX_WRIST_DISTANCE: Final = 1.0
"""Largest distance from the middle of a hand to the wrist of its arm, in units of the longer side
of the hand's keypoints."""


class _SourceErrors(NamedTuple):
    """Errors of the keypoints of one source.

    Attributes:
        sigma: standard deviation of inliers with a score of 1, inversely proportional to the
            score; in units of the longer side of the box, or for the face, whose network sees only
            the face, of the longer side of its keypoints.
        min_sigma: lower bound of the standard deviation.
        wrong: share of outliers, which are anywhere in the box; inversely proportional as well.
    """

    sigma: float
    min_sigma: float
    wrong: float


_SOURCE_ERRORS: Final = {
    KeypointSource.BODY: _SourceErrors(0.015, 0.02, 0.045),
    KeypointSource.FEET: _SourceErrors(0.045, 0.045, 0.13),
    KeypointSource.HAND: _SourceErrors(0.0375, 0.03, 0.08),
    KeypointSource.FACE: _SourceErrors(0.2, 0.16, 0.08),
    KeypointSource.FILE: _SourceErrors(0.015, 0.015, 0.04),
}
_JOINT_FACTORS: Final = {"hip": 2.5, "shoulder": 2.0}
"""Factors for the standard deviations of joints that keypoint networks and the body model place
differently."""
_SIGMA_FACTORS: Final = np.array(
    [_JOINT_FACTORS.get(joint.split("_")[-1], 1.0) for joint in JOINTS]
)
_USUAL_DISTANCE: Final = 0.04
"""Median distance of the body's keypoints from the demo network's joints on OpenPeople, in units of
the longer side of the box."""
_SCALE_RANGE: Final = (0.5, 2.0)
"""Bounds of the scale of a person's errors."""
_EDGE_DISTANCE: Final = 0.05
"""Distance of a keypoint from the image's edge, in units of the longer side of the box, up to which
the joint may be beyond the edge: keypoint networks place invisible joints inside the image."""
_DEPTH_SIGMA_M: Final = torch.tensor([0.18, 0.18, 0.22, 0.22, 0.33, 0.33])
"""Standard deviations of the depths of `DEPTH_JOINTS`: twice the measured values, because their
errors are correlated."""
_DEPTH_OUTLIER_DENSITY: Final = 0.03
"""Density of outliers, which are 0.1 of the depths, over the largest density of inliers."""
_MIN_INLIERS: Final = 0.4
"""Least share of inliers; with fewer, the keypoints show another person or none."""
_MAX_OUTLIERS: Final = 0.5
"""Upper bound of the probability that a keypoint is an outlier."""


class Solver:
    """Damped Gauss-Newton in coordinates along the principal axes of a network's errors."""

    def __init__(self, skeleton: Skeleton, errors: NetworkErrors, camera: ClipCamera) -> None:
        self.skeleton, self.basis, self.camera = skeleton, errors.basis, camera
        self.limits = joint_limits()

    def __call__(self, seen: Observed) -> tuple[Float[Tensor, "B 182"], Float[Tensor, "B 182"]]:
        """The most likely error vectors, and the variances of their entries.

        The error vector is zero, with the network's own variances, where the cost did not fall or
        too few keypoints are inliers.
        """
        result = self.basis.new_zeros(len(seen.size_px), self.basis.shape[1])
        scale = self.error_scale(seen)
        moving = torch.nonzero(seen.sigma_px.isfinite().any(dim=1))[:, 0]
        for number in range(_MAX_STEPS):
            if not len(moving):
                break
            has_extra = number < len(_EXTRA_SIGMAS)
            extra_sigma = _EXTRA_SIGMAS[number] if has_extra else 0.0
            factor, gradient = self._linearised(
                seen.take(moving), result[moving], scale[moving], extra_sigma
            )
            step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
            change = (step @ self.basis.T).abs()
            largest = change[:, ROTATIONS].amax(dim=1)
            result[moving] += step * (_MAX_ROTATION / largest.clamp(min=_MAX_ROTATION))[:, None]
            if not has_extra:
                moving = moving[change.amax(dim=1) > _CONVERGED]
        cost, inliers = self.cost(seen, result, scale)
        cost_before, _ = self.cost(seen, torch.zeros_like(result), scale)
        is_better = (cost < cost_before) & (inliers > _MIN_INLIERS)
        result = torch.where(is_better[:, None], result, 0.0)
        factor, _ = self._linearised(seen, result, scale, 0.0)
        roots = torch.linalg.solve_triangular(factor, self.basis.T, upper=False)
        posterior, prior = roots.square().sum(dim=1), self.variances * scale[:, None] ** 2
        return result @ self.basis.T, torch.where(is_better[:, None], posterior, prior)

    @property
    def variances(self) -> Float[Tensor, " 182"]:
        """The network's variances of the entries of the error vector."""
        return self.basis.square().sum(dim=1)

    def error_scale(self, seen: Observed) -> Float[Tensor, " B"]:
        """Scale of each person's errors, estimated from the distances of the keypoints."""
        posed = self.skeleton.pose(
            seen, seen.shape.new_zeros(len(seen.shape), VARIABLES), self.camera
        )
        distance = self._offsets_px(seen, posed).norm(dim=-1) / seen.size_px[:, None]
        distance = torch.where(seen.sigma_px.isfinite(), distance, math.nan)
        scale = distance[:, JOINT_PARTS["body"]].nanmedian(dim=1).values / _USUAL_DISTANCE
        return scale.nan_to_num(1.0).clamp(*_SCALE_RANGE)

    def cost(
        self, seen: Observed, axes: Float[Tensor, "B K"], scale: Float[Tensor, " B"]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Negative log likelihood up to a constant, and the share of inliers among keypoints."""
        view = self._residuals(seen, axes, 0.0)
        known = seen.sigma_px[:, view.points].isfinite()
        inlier = (-view.keypoints.square().sum(dim=-1) / 2).exp()
        of_keypoints = _robust_cost(inlier, view.outlier_density) * known
        of_depths = _robust_cost((-view.depths.square() / 2).exp(), _DEPTH_OUTLIER_DENSITY)
        of_limits = (view.excess / _LIMIT_SIGMA).square().sum(dim=1)
        cost = (axes.square().sum(dim=1) / scale**2 + of_limits) / 2
        cost = cost + of_keypoints.sum(dim=1) + of_depths.sum(dim=1)
        weights = torch.where(known, inlier / (inlier + view.outlier_density), 0.0)
        return cost, weights.sum(dim=1) / known.sum(dim=1).clamp(min=1)

    def _residuals(
        self, seen: Observed, axes: Float[Tensor, "B K"], extra_sigma: float
    ) -> "_Residuals":
        posed = self.skeleton.pose(seen, axes @ self.basis.T, self.camera)
        points = torch.nonzero(seen.sigma_px.isfinite().any(dim=0))[:, 0]
        sigma = seen.sigma_px[:, points]
        offsets = self._offsets_px(seen, posed)[:, points]
        wrong = seen.wrong[:, points]
        relative = sigma.nan_to_num(posinf=0.0) / seen.size_px[:, None]
        density = 2 * math.pi * wrong / (1 - wrong) * relative.square()
        bends = matrix_to_axis_angle(posed.rotations[:, ROTATED]).flatten(1)[:, self.limits.entries]
        excess = bends - bends.clamp(self.limits.low, self.limits.high)
        sigma = torch.hypot(sigma, extra_sigma * seen.size_px[:, None])[..., None]
        direction = normalize(posed.pelvis_m, dim=1)
        depth = (posed.joints_m[:, DEPTH_JOINTS] - posed.pelvis_m[:, None]) @ direction[..., None]
        depths = (depth[..., 0] - seen.depth_m) / _DEPTH_SIGMA_M * (seen.depth_m != 0)
        return _Residuals(posed, points, offsets / sigma, sigma, density, excess, direction, depths)

    def _offsets_px(self, seen: Observed, posed: Posed) -> Float[Tensor, "B 137 2"]:
        """Projected joints minus keypoints; 0 towards an edge beyond which the joint may be."""
        focal, princpt = map(seen.shape.new_tensor, (self.camera.focal, self.camera.princpt))
        depth = posed.joints_m[..., 2:].clamp(min=MIN_DEPTH_M)
        offsets = posed.joints_m[..., :2] / depth * focal + princpt - seen.keypoints_px
        return torch.where(offsets * seen.outward > 0, 0.0, offsets)

    def _linearised(
        self,
        seen: Observed,
        axes: Float[Tensor, "B K"],
        scale: Float[Tensor, " B"],
        extra_sigma: float,
    ) -> tuple[Float[Tensor, "B K K"], Float[Tensor, "B K"]]:
        """The Cholesky factor of the damped normal matrix, and the gradient."""
        view = self._residuals(seen, axes, extra_sigma)
        inlier = (-view.keypoints.square().sum(dim=-1) / 2).exp()
        known = view.sigma[..., 0].isfinite()
        weights = torch.where(known, inlier / (inlier + view.outlier_density), 0.0)
        weights = weights.sqrt()[..., None]

        joints = view.posed.joints_m[:, view.points]
        focal, depth = joints.new_tensor(self.camera.focal), joints[..., 2:].clamp(min=MIN_DEPTH_M)
        rays = (focal / depth)[..., None] * torch.eye(2, 3)
        rays[..., 2] = -focal * joints[..., :2] / depth**2
        rays = rays * (weights / view.sigma * (view.keypoints != 0))[..., None]
        units = seen.size_px[:, None] / focal * view.posed.pelvis_m[:, 2:]
        points = view.points.repeat_interleave(2)
        keypoint_rows = self.skeleton.derivatives(view.posed, rays.flatten(1, 2), points, units)
        residuals = (view.keypoints * weights).flatten(1)

        inlier = (-view.depths.square() / 2).exp()
        weights = (inlier / (inlier + _DEPTH_OUTLIER_DENSITY)).sqrt()
        rays = (weights * (view.depths != 0) / _DEPTH_SIGMA_M)[..., None] * view.direction[:, None]
        depth_rows = self.skeleton.derivatives(view.posed, rays, torch.tensor(DEPTH_JOINTS), units)
        depth_rows[..., POSITION] = 0  # these depths are relative to the pelvis
        jacobian = torch.cat([keypoint_rows, depth_rows], dim=1) @ self.basis
        residuals = torch.cat([residuals, view.depths * weights], dim=1)[:, None]

        limit_rows = self.basis[self.limits.entries]
        limit_rows = limit_rows * ((view.excess != 0) / _LIMIT_SIGMA)[..., None]
        normal = jacobian.transpose(1, 2) @ jacobian + limit_rows.transpose(1, 2) @ limit_rows
        normal.diagonal(dim1=1, dim2=2).add_((scale**-2 + _DAMPING)[:, None])
        gradient = residuals @ jacobian + (view.excess / _LIMIT_SIGMA)[:, None] @ limit_rows
        return torch.linalg.cholesky(normal), gradient[:, 0] + axes / scale[:, None] ** 2


class _Residuals(NamedTuple):
    """Bodies and their residuals.

    Attributes:
        points: numbers in `JOINTS` of the keypoints that at least one person has.
        keypoints: in units of `sigma`; 0 where the keypoint is unknown, and towards an edge of the
            image beyond which the joint may be.
        sigma: in pixels.
        outlier_density: density of wrong keypoints over the largest density of right ones.
        excess: radians by which joints exceed their limits.
        direction: unit vector from the camera to the pelvis.
        depths: of `DEPTH_JOINTS` relative to the pelvis, in standard deviations; 0: unknown.
    """

    posed: Posed
    points: Int[Tensor, " P"]
    keypoints: Float[Tensor, "B P 2"]
    sigma: Float[Tensor, "B P 1"]
    outlier_density: Float[Tensor, "B P"]
    excess: Float[Tensor, "B L"]
    direction: Float[Tensor, "B 3"]
    depths: Float[Tensor, "B D"]


def _robust_cost(inlier: Tensor, outlier_density: Tensor | float) -> Tensor:
    """Negative log likelihood of a mixture of inliers and outliers; 0 for a residual of 0."""
    return -torch.log((inlier + outlier_density) / (1 + outlier_density))


def keypoint_errors(
    rows: np.ndarray,
) -> tuple[Float[np.ndarray, "T 137"], Float[np.ndarray, "T 137"]]:
    """Standard deviations of the keypoints of raw rows in pixels, and probabilities of outliers.

    The standard deviation is infinite where the keypoint is unknown. Keypoints of a hand that is
    not at the wrist of its arm are treated as unknown.
    """
    px, score = rows["keypoints_px"], rows["keypoint_score"].astype(np.float64)
    source = rows["keypoint_source"]
    sigmas, wrong = np.full(score.shape, np.inf), np.zeros(score.shape)
    for number, errors in _SOURCE_ERRORS.items():
        chosen = (source == number) & (score > 0)
        sigmas[chosen] = np.maximum(errors.sigma / score[chosen], errors.min_sigma)
        wrong[chosen] = np.minimum(errors.wrong / score[chosen], _MAX_OUTLIERS)
    sigmas *= np.where(source != KeypointSource.FILE, _SIGMA_FACTORS, 1.0)
    is_face = ((source == KeypointSource.FACE) & (score > 0))[..., None]
    first, last = (np.where(is_face, px, end) for end in (np.inf, -np.inf))
    face, box = last.max(axis=1) - first.min(axis=1), rows["box_xywh"][:, 2:]
    sizes = np.where(is_face, face.clip(min=1)[:, None], box[:, None])
    sigmas *= sizes.max(axis=2)
    for side in SIDES:
        part, wrist = JOINT_PARTS[f"{side}_hand"], JOINTS.index(f"{side}_wrist")
        hand = np.where(np.isfinite(sigmas[:, part, None]), px[:, part], np.nan)
        has_both = np.isfinite(sigmas[:, part]).any(axis=1) & np.isfinite(sigmas[:, wrist])
        chosen = np.flatnonzero(has_both)
        low, high = np.nanmin(hand[chosen], axis=1), np.nanmax(hand[chosen], axis=1)
        distance = np.linalg.norm((low + high) / 2 - px[chosen, wrist], axis=1)
        limit = _MAX_WRIST_DISTANCE * (high - low).max(axis=1) + sigmas[chosen, wrist]
        sigmas[chosen[distance > limit], part] = np.inf
    return sigmas, wrong


class Refinement:
    """Moves the bodies of a clip onto their keypoints."""

    def __init__(
        self, body: BodyModel, errors: NetworkErrors, clip: Clip, workers: int = 1
    ) -> None:
        """Prepare for a clip, with `workers` threads to solve its frames."""
        # The matrices are too small for a GPU to be faster.
        self.body = body if body.faces.device.type == "cpu" else copy.deepcopy(body).cpu()
        self.clip, self.skeleton, self.workers = clip, Skeleton(self.body), workers
        self.solver = Solver(self.skeleton, errors, clip.camera)
        self.known_shape_solver = Solver(self.skeleton, errors.with_known_shape(), clip.camera)

    def refine(self, raw: RawRows, people: Int[np.ndarray, " N"], refined: RawRows) -> int:
        """Append all rows to `refined`, with their bodies moved; return the number of those moved.

        A person's shape is determined first, from some frames with keypoints; then all frames are
        solved with this shape and combined over time. People without any keypoints are not changed.

        Args:
            people: number of the person for each raw row.
        """
        overlaps = find_overlaps(raw)
        usable = np.zeros(len(raw), bool)
        for block, rows in raw.blocks():
            corrected = correct_keypoints(rows, self.clip.image_size)
            usable[block] = corrected["keypoint_score"].any(axis=1)
        usable &= ~overlaps.has_foreign_keypoints
        groups = [mine for _, mine in grouped(people, raw.column("frame_index"))]
        groups = [mine for mine in groups if usable[mine].any()]
        shapes = self._find_shapes(raw, usable, groups)
        variances = self._move_all(raw, usable, shapes, refined)
        variances = inflate_variances(variances, overlaps.covered)
        for mine in groups:
            if len(mine) > 1:
                for part, rows in combine_frames(refined, mine, variances, self.clip.fps):
                    self._project(rows)
                    refined.put(part, rows)
        return int(usable.sum())

    def _find_shapes(
        self, raw: RawRows, usable: Bool[np.ndarray, " N"], groups: list[Int[np.ndarray, " _"]]
    ) -> Float[np.ndarray, "N 10"]:
        """The betas of the person of each row, from a sample of the usable rows of each group.

        They are NaN in rows that are in no group.
        """
        weights = confidence(*(raw.column(name) for name in ("score", "box_xywh", "truncation")))
        shapes = np.full((len(raw), BETAS), np.nan, np.float32)
        for mine in groups:
            sample = mine[usable[mine]]
            count = min(len(sample), _SHAPE_FRAMES)
            sample = sample[np.linspace(0, len(sample) - 1, count).astype(int)]
            rows = raw.take(sample)
            self.move(rows, self.solver)
            shapes[mine] = fuse_shape(rows["betas"], weights[sample])
        return shapes

    def _move_all(
        self,
        raw: RawRows,
        usable: Bool[np.ndarray, " N"],
        shapes: Float[np.ndarray, "N 10"],
        refined: RawRows,
    ) -> Float[np.ndarray, "N C"]:
        """Append all rows to `refined`, the usable ones moved; their `_joint_variances`."""
        prior = _joint_variances(self.known_shape_solver.variances[None])
        variances = np.tile(prior, (len(raw), 1))
        for block, rows in raw.blocks():
            rows, shape, chosen = rows.copy(), shapes[block], np.flatnonzero(usable[block])
            known = np.isfinite(shape[:, 0])
            rows["betas"][known] = shape[known]
            moved = rows[chosen]
            variances[block][chosen] = self.move(moved, self.known_shape_solver)
            rows[chosen] = moved
            refined.append(rows)
        return variances

    def move(self, rows: np.ndarray, solver: Solver) -> Float[np.ndarray, "T C"]:
        """Move the bodies of rows onto their keypoints, in place; their `_joint_variances`."""
        threads = max(1, torch.get_num_threads() // self.workers)

        def solve(part: np.ndarray) -> Float[np.ndarray, "B C"]:
            torch.set_num_threads(threads)  # applies to this thread
            with torch.inference_mode():
                seen = observed(part, self.body, self.clip.image_size)
                errors, variances = solver(seen)
                posed = self.skeleton.pose(seen, errors, self.clip.camera)
                _write_bodies(part, posed, self.body, self.clip)
            return _joint_variances(variances)

        parts = [rows[first : first + _BATCH] for first in range(0, len(rows), _BATCH)]
        none = np.zeros((0, len(ROTATED) + 3), np.float32)
        return np.concatenate([none, *parallel_map(solve, parts, self.workers)])

    def _project(self, rows: np.ndarray) -> None:
        """Project the joints of rows with new poses, in place."""
        with torch.inference_mode():
            for first in range(0, len(rows), _BATCH):
                part = rows[first : first + _BATCH]
                seen = observed(part, self.body, self.clip.image_size)
                no_errors = seen.shape.new_zeros(len(part), VARIABLES)
                posed = self.skeleton.pose(seen, no_errors, self.clip.camera)
                _write_projection(part, posed, self.clip)


def _joint_variances(variances: Float[Tensor, "B 182"]) -> Float[np.ndarray, "B C"]:
    """Mean variance over the axes of each rotated joint, then the variances of the position."""
    rotations = variances[:, ROTATIONS].unflatten(1, (-1, 3)).mean(dim=-1)
    return torch.cat([rotations, variances[:, POSITION]], dim=1).numpy()


def outward(rows: np.ndarray, image_size: tuple[int, int]) -> Float[np.ndarray, "T 137 2"]:
    """Directions in which joints may be beyond the image's edge, see `Observed.outward`.

    They are 0 for keypoints of a file, which may be right outside the image.
    """
    near = _EDGE_DISTANCE * rows["box_xywh"][:, 2:].max(axis=1)[:, None, None]
    may_be_outside = (rows["keypoint_source"] != KeypointSource.FILE)[..., None]
    px = rows["keypoints_px"]
    ends = (px > np.array(image_size) - 1 - near).astype(np.float32) - (px < near)
    return np.where(may_be_outside, ends, 0.0)


def observed(rows: np.ndarray, body: BodyModel, image_size: tuple[int, int]) -> Observed:
    """The input of the solver for raw rows, with corrected keypoints."""
    rows = correct_keypoints(rows, image_size)
    rotations = np.tile(np.eye(3), (len(rows), len(RIG_JOINTS), 1, 1))
    vectors = read_rotations(rows) + body.mean_pose[ROTATED].numpy()
    matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix()
    rotations[:, ROTATED] = matrices.reshape(len(rows), len(ROTATED), 3, 3)
    values = (
        rotations,
        np.concatenate([rows["betas"], rows["expression"]], axis=1),
        rows["placed_pelvis_m"],
        rows["box_xywh"][:, 2:].max(axis=1),
        np.nan_to_num(rows["keypoints_px"]),
        *keypoint_errors(rows),
        outward(rows, image_size),
        rows["keypoint_depth_m"][:, DEPTH_JOINTS],
    )
    return Observed(*(torch.from_numpy(np.array(value, np.float32, order="C")) for value in values))


def _write_bodies(rows: np.ndarray, posed: Posed, body: BodyModel, clip: Clip) -> None:
    """Write bodies into raw rows, in place."""
    matrices = posed.rotations[:, ROTATED].flatten(0, 1).double().numpy()
    vectors = Rotation.from_matrix(matrices).as_rotvec().reshape(len(rows), -1, 3)
    write_rotations(rows, vectors - body.mean_pose[ROTATED].numpy())
    rows["betas"], rows["expression"] = np.split(posed.shape.numpy(), [BETAS], axis=1)
    rows["placed_pelvis_m"] = posed.pelvis_m.numpy()
    _write_projection(rows, posed, clip)


def _write_projection(rows: np.ndarray, posed: Posed, clip: Clip) -> None:
    """Write the pixels of the joints and the truncation into raw rows, in place."""
    rows["joints_2d_px"] = clip.camera.project(posed.joints_m.numpy())
    rows["truncation"] = truncation(rows["joints_2d_px"], clip.image_size)
