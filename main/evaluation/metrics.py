"""Error metrics of meshes and joints, computed in batches on the device.

Names of metrics: "pa_" is after similarity (Procrustes) alignment, otherwise the root joint of the
part is aligned; "mpvpe" is the mean over vertices, "mpjpe" over joints; then follows the part. All
are in millimetres.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from configs.schema import Protocol
from human_models.files import (
    ModelFolder,
    read_body,
    read_hand_vertices,
    read_head_vertices,
    read_j14_regressor,
    read_smplx_to_smpl,
)
from human_models.joints import (
    HAND_KEYPOINTS,
    RIG_JOINTS,
    SIDES,
    SMPL_JOINTS,
    SMPLX_SURFACE_VERTICES,
    joint_places,
)
from utils.geometry import (
    CentredPoints,
    align_similarity,
    aligned_distances,
    centred_in_place,
    exact_products,
    rooted_distances,
)

PARTS: Final = {
    "mpvpe": ("all", "l_hand", "r_hand", "hand", "face"),
    "mpjpe": ("body", "l_hand", "r_hand", "hand"),
}
_KINDS: Final = tuple(f"{alignment}{kind}" for alignment in ("", "pa_") for kind in PARTS)
SMPLX_METRICS: Final = tuple(
    f"{alignment}{kind}_{part}"
    for kind, parts in PARTS.items()
    for alignment in ("pa_", "")
    for part in parts
)
# Ground truth of SMPL has no fingers and no face.
SMPL_METRICS: Final = ("pa_mpvpe_all", "mpvpe_all", "pa_mpjpe_body", "mpjpe_body")
# Hand datasets put hands, centred at the wrist, on a body in its rest pose, so that errors relative
# to joints of this body are meaningless.
HAND_SET_METRICS: Final = tuple(
    name for name in SMPLX_METRICS if name.startswith("pa_") and name.endswith("_hand")
)
MILLIMETRES: Final = 1000.0
_ROOTS: Final = ("pelvis", "neck", "left_wrist", "right_wrist")
_PART_ROOTS: Final = {
    "all": "pelvis",
    "body": "pelvis",
    "face": "neck",
    "l_hand": "left_wrist",
    "r_hand": "right_wrist",
}
_HANDS: Final = {"l_hand": "left", "r_hand": "right"}
# Joints of SMPL, after the pelvis, that are compared if the truth is a mesh of SMPL (3DPW).
# fmt: off
_SMPL_COMPARED: Final = (
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "neck", "head", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)
# fmt: on
_OUTLIER_MM: Final = 100.0
"""PA-MPJPE above which the published code leaves out a hand."""


class SampleErrors(NamedTuple):
    """One metric of a batch; it is 0 and not valid for samples without it (a missing hand)."""

    error_mm: Float[Tensor, " B"]
    valid: Bool[Tensor, " B"]


class MeanAndCount(TypedDict):
    """Mean over `count` samples; None if no sample has the metric."""

    mean: float | None
    count: int


Means = Mapping[str, MeanAndCount]
"""Means by name of the metric."""


def means_of(batches: Iterable[Mapping[str, SampleErrors]]) -> dict[str, MeanAndCount]:
    """Means over the valid samples of all batches.

    The result contains every metric of the batches, also those without a valid sample.
    """
    totals: defaultdict[str, float] = defaultdict(float)
    counts: defaultdict[str, int] = defaultdict(int)
    for batch in batches:
        for name, (error, valid) in batch.items():
            totals[name] += float(error.double().where(valid, 0.0).sum())
            counts[name] += int(valid.sum())
    return {
        name: {"mean": totals[name] / count if count else None, "count": count}
        for name, count in counts.items()
    }


Visibility = Callable[[Float[Tensor, "B N 3"]], Bool[Tensor, "B N"]]
"""Function from points (metres, camera frame) to whether each one counts."""


class Evaluator(nn.Module):
    """Computes errors of meshes by the rules of a protocol.

    Both meshes are in metres in the same frame. Points are compared in float32 relative to their
    centroids, and centroids and roots in float64. Errors are within 0.001 mm of those computed in
    float64, at any distance to the camera, also under mixed precision.
    """

    left_hand: Int[Tensor, "778"]
    right_hand: Int[Tensor, "778"]
    head: Int[Tensor, "5023"]
    smplx_to_smpl: Float[Tensor, "6890 10475"]  # sparse

    def __init__(self, folder: ModelFolder, protocol: Protocol = "correct") -> None:
        """Raises UserError if a file of the folder is missing or damaged.

        The protocol "published" repeats two faults of the published code. For "mpjpe" of the hands,
        only the prediction is made relative to its wrist, so that the error is about the distance
        to the camera. Hands whose "pa_mpjpe" is above 100 mm are left out of its means; if the left
        hand is, so is the right hand.
        """
        super().__init__()
        self.published = protocol == "published"
        for side, vertices in read_hand_vertices(folder).items():
            self.register_buffer(f"{side}_hand", torch.from_numpy(vertices))
        self.register_buffer("head", torch.from_numpy(read_head_vertices(folder)))

        rig = read_body(folder, "smplx").joint_regressor
        rows = {
            "roots": _rig_rows(rig, _ROOTS),
            "body": read_j14_regressor(folder),
            **{part: _rig_rows(rig, HAND_KEYPOINTS[side][1:]) for part, side in _HANDS.items()},
        }
        self.smplx_joints = nn.ModuleDict({name: _Regressor(group) for name, group in rows.items()})

        smpl = read_body(folder, "smpl").joint_regressor
        compared = [SMPL_JOINTS.index(name) for name in ("pelvis", *_SMPL_COMPARED)]
        self.smpl_joints = _Regressor(smpl[compared])
        matrix = read_smplx_to_smpl(folder).astype(np.float64)
        sparse = torch.sparse_coo_tensor(
            torch.from_numpy(np.stack(matrix.nonzero()).astype(np.int64)),
            torch.from_numpy(matrix.data[matrix.data != 0]),
            matrix.shape,
            check_invariants=True,
        ).coalesce()
        self.register_buffer("smplx_to_smpl", sparse)

    def smplx(
        self,
        predicted_vertices: Float[Tensor, "B 10475 3"],
        true_vertices: Float[Tensor, "B 10475 3"],
        left_hand_valid: Shaped[Tensor, " B"],
        right_hand_valid: Shaped[Tensor, " B"],
        only: Collection[str] = SMPLX_METRICS,
        in_view: Visibility | None = None,
    ) -> dict[str, SampleErrors]:
        """The metrics in `only`, where the truth is a mesh of SMPL-X.

        Args:
            left_hand_valid, right_hand_valid: not zero if the truth contains the hand.
            only: names of metrics; `HAND_SET_METRICS` for datasets of hands.
            in_view: which true points are inside the image; only these count (UBody). Roots and
                alignments still use all points, and a part out of view is not valid.

        Raises:
            ValueError: a point is not finite, or a metric is unknown.
        """
        unknown = sorted(set(only) - set(SMPLX_METRICS))
        if unknown:
            raise ValueError(f"no such metric: {', '.join(unknown)}")
        needed = _with_components(only, published=self.published)
        hands_valid = {"l_hand": left_hand_valid.bool(), "r_hand": right_hand_valid.bool()}
        meshes = (predicted_vertices.contiguous(), true_vertices.contiguous())
        result: dict[str, SampleErrors] = {}
        with exact_products(meshes[0].device):
            predicted_roots, true_roots = (self.smplx_joints["roots"](mesh) for mesh in meshes)
            for kind, part in ((kind, part) for kind, parts in PARTS.items() for part in parts):
                wanted = {p for p in ("", "pa_") if f"{p}{kind}_{part}" in needed}
                if part == "hand" or not wanted:
                    continue
                predicted, true = (self._points(mesh, kind, part) for mesh in meshes)
                shown = None if in_view is None else in_view((true.points + true.centroid).mT)
                k = _ROOTS.index(_PART_ROOTS[part])
                root = (predicted_roots[..., k, None], true_roots[..., k, None])
                if kind == "mpjpe" and part in _HANDS and self.published:
                    root = (root[0], torch.zeros_like(root[1]))
                for prefix in wanted:
                    if prefix:
                        distances = aligned_distances(predicted, true)
                    else:
                        distances = rooted_distances(predicted, true, root)
                    errors = _mean(distances, shown)
                    if part in _HANDS:
                        known = hands_valid[part] & errors.valid
                        errors = SampleErrors(errors.error_mm.where(known, 0.0), known)
                    result[f"{prefix}{kind}_{part}"] = errors
        for metric in _KINDS:
            if {f"{metric}_{hand}" for hand in _HANDS} <= result.keys():
                self._add_both_hands(result, metric)
        return {name: result[name] for name in SMPLX_METRICS if name in only}

    def smpl(
        self,
        predicted_vertices: Float[Tensor, "B 10475 3"],
        true_vertices: Float[Tensor, "B 6890 3"],
    ) -> dict[str, SampleErrors]:
        """`SMPL_METRICS`, where the truth is a mesh of SMPL.

        The prediction is moved to the true pelvis and converted to a mesh of SMPL; joints are those
        of SMPL's rig for both.

        Raises:
            ValueError: a point is not finite.
        """
        predicted, true = predicted_vertices.contiguous(), true_vertices.contiguous()
        with exact_products(predicted.device):
            joints_and_pelvis = self.smpl_joints(true)
            true_pelvis, true_joints = joints_and_pelvis.split((1, len(_SMPL_COMPARED)), dim=2)
            pelvis = self.smplx_joints["roots"](predicted)[..., :1]
            placed = predicted.double() + (true_pelvis - pelvis).mT
            converted = self.smplx_to_smpl @ placed.transpose(0, 1).flatten(1)
            converted = converted.unflatten(1, (-1, 3)).transpose(0, 1).contiguous()

            joints = (self.smpl_joints(converted)[..., 1:], true_joints)
            meshes = (_planar(converted), _planar(true))
            result = {}
            for name, pair in (("mpvpe_all", meshes), ("mpjpe_body", joints)):
                ours, theirs = (centred_in_place(points) for points in pair)
                result[f"pa_{name}"] = _mean(aligned_distances(ours, theirs))
                distances = rooted_distances(ours, theirs, (true_pelvis, true_pelvis))
                result[name] = _mean(distances)
        return result

    def _points(self, mesh: Float[Tensor, "B 10475 3"], kind: str, part: str) -> CentredPoints:
        if kind == "mpjpe":
            return centred_in_place(self.smplx_joints[part](mesh))
        if part == "all":
            return centred_in_place(_planar(mesh))
        vertices = {"l_hand": self.left_hand, "r_hand": self.right_hand, "face": self.head}[part]
        return centred_in_place(_picked(mesh, vertices))

    def _add_both_hands(self, result: dict[str, SampleErrors], metric: str) -> None:
        """Add the mean of each sample's valid hands, and remove the outliers of the protocol."""
        left, right = result[f"{metric}_l_hand"], result[f"{metric}_r_hand"]
        errors = torch.stack([left.error_mm, right.error_mm])
        valid = torch.stack([left.valid, right.valid])
        keep = valid
        if metric == "pa_mpjpe" and self.published:
            left_ends_sample, right_ends_sample = valid & (errors > _OUTLIER_MM)
            valid = valid & ~left_ends_sample & ~right_ends_sample
            keep = keep & (errors < _OUTLIER_MM)
            keep[1] &= ~left_ends_sample
        mean = (errors * valid).sum(0) / valid.sum(0).clamp(min=1)
        result[f"{metric}_l_hand"], result[f"{metric}_r_hand"] = (
            SampleErrors(error.where(kept, 0.0), kept)
            for error, kept in zip(errors, keep, strict=True)
        )
        result[f"{metric}_hand"] = SampleErrors(mean, valid.any(0))


class _Regressor(nn.Module):
    """Joints (float64) as weighted sums of the vertices with non-zero weights."""

    vertices: Int[Tensor, " U"]
    weights: Float[Tensor, "U K"]
    sums: Float[Tensor, " K"]

    def __init__(self, matrix: Float[np.ndarray, "K V"]) -> None:
        super().__init__()
        used = np.flatnonzero(matrix.any(axis=0))
        weights = np.ascontiguousarray(matrix[:, used].T, dtype=np.float32)
        self.register_buffer("vertices", torch.from_numpy(used))
        self.register_buffer("weights", torch.from_numpy(weights))
        self.register_buffer("sums", torch.from_numpy(weights.sum(0, dtype=np.float64)))

    def forward(self, mesh: Float[Tensor, "B V 3"]) -> Float[Tensor, "B 3 K"]:
        vertices = centred_in_place(_picked(mesh, self.vertices))
        return vertices.points @ self.weights + vertices.centroid * self.sums


def _rig_rows(
    regressor: Float[np.ndarray, "55 10475"], names: Sequence[str]
) -> Float[np.ndarray, "K 10475"]:
    """Regressor rows for joints of the rig and for fingertips, which are vertices."""
    rows = np.zeros((len(names), regressor.shape[1]), np.float32)
    for row, name in zip(rows, names, strict=True):
        if name in RIG_JOINTS:
            row[:] = regressor[RIG_JOINTS.index(name)]
        else:
            row[SMPLX_SURFACE_VERTICES[name]] = 1
    return rows


def _with_components(only: Collection[str], *, published: bool) -> set[str]:
    """The requested metrics and those from which they are computed."""
    needed = set(only)
    for metric in _KINDS:
        hands = {f"{metric}_{hand}" for hand in _HANDS}
        drops_outliers = metric == "pa_mpjpe" and published
        if f"{metric}_hand" in needed or (drops_outliers and needed & hands):
            needed |= hands
    return needed


def _planar(mesh: Float[Tensor, "B V 3"]) -> Float[Tensor, "B 3 V"]:
    """A copy with the coordinates in the first dimension."""
    return mesh.mT.clone(memory_format=torch.contiguous_format)


def _picked(mesh: Float[Tensor, "B V 3"], vertices: Int[Tensor, " N"]) -> Float[Tensor, "B 3 N"]:
    """The given vertices with the coordinates first; `gather` is faster than indexing."""
    axes = torch.arange(3, device=vertices.device)[:, None]
    elements = (3 * vertices + axes).flatten().expand(len(mesh), -1)
    return mesh.flatten(1).gather(1, elements).unflatten(1, (3, -1))


def _mean(
    distances: Float[Tensor, "B N"], counted: Bool[Tensor, "B N"] | None = None
) -> SampleErrors:
    """Mean in millimetres of the distances (metres) that count; 0 and not valid if none does."""
    if counted is None:
        valid = torch.ones(len(distances), dtype=torch.bool, device=distances.device)
        return SampleErrors(distances.mean(1).double() * MILLIMETRES, valid)
    count = counted.sum(1)
    total = distances.where(counted, 0.0).sum(1).double()
    return SampleErrors(total / count.clamp(min=1) * MILLIMETRES, count > 0)


WORLD_JOINTS: Final = joint_places(("pelvis", *(n for n in _SMPL_COMPARED if n != "head")))
"""Indices in JOINTS of the joints that SMPL and SMPL-X have in common."""
FOOT_POINTS: Final = joint_places(
    [f"{side}_{end}" for side in SIDES for end in ("heel", "big_toe")]
)
WORLD_UNITS: Final = {
    "wa_mpjpe": "mm",
    "w_mpjpe": "mm",
    "rte": "%",
    "foot_sliding": "cm/s",
    "jitter": "10 m/s^3",
}
_SEGMENT: Final = 100
"""Number of frames that are aligned together."""
_STANDING_M: Final = 0.01
"""A true foot that moves less than this between frames is standing."""


def world_errors(
    predicted: Float[np.ndarray, "T 137 3"], true: Float[np.ndarray, "T 137 3"], fps: float
) -> dict[str, float]:
    """The metrics of `WORLD_UNITS` of one person; joints are in metres in two different worlds.

    As in WHAM (Shin et al., CVPR 2024) and its successors, segments of 100 frames are aligned by a
    similarity transform on all frames (WA-MPJPE) or on the first two (W-MPJPE). RTE is the mean
    error of the root after a rigid alignment of the whole path, over the length of the path. Foot
    sliding is the speed of feet whose true speed is below 1 cm per frame. A metric without any
    measurement is NaN.
    """
    estimated, actual = (np.asarray(joints, np.float64) for joints in (predicted, true))
    wa_mpjpe: list[float] = []
    w_mpjpe: list[float] = []
    for start in range(0, max(len(estimated) - _SEGMENT, 0) + 1, _SEGMENT):
        segment = slice(start, start + _SEGMENT)
        a, b = estimated[segment][:, WORLD_JOINTS], actual[segment][:, WORLD_JOINTS]
        for errors, count in ((wa_mpjpe, len(a)), (w_mpjpe, 2)):
            errors.append(np.linalg.norm(_aligned(a, b, count) - b, axis=-1).mean())
    root, true_root = estimated[:, WORLD_JOINTS[:1]], actual[:, WORLD_JOINTS[:1]]
    length = np.linalg.norm(np.diff(true_root, axis=0), axis=-1).sum()
    aligned_root = _aligned(root, true_root, len(root), with_scale=False)
    root_error = np.linalg.norm(aligned_root - true_root, axis=-1).mean()
    steps, true_steps = (
        np.linalg.norm(np.diff(joints[:, FOOT_POINTS], axis=0), axis=-1)
        for joints in (estimated, actual)
    )
    standing = true_steps < _STANDING_M
    third = np.diff(estimated[:, WORLD_JOINTS], n=3, axis=0) * fps**3
    return {
        "wa_mpjpe": MILLIMETRES * float(np.mean(wa_mpjpe)),
        "w_mpjpe": MILLIMETRES * float(np.mean(w_mpjpe)),
        "rte": 100 * float(root_error / length) if length > 0 else math.nan,
        "foot_sliding": 100 * fps * float(steps[standing].mean()) if standing.any() else math.nan,
        "jitter": float(np.linalg.norm(third, axis=-1).mean()) / 10 if len(third) else math.nan,
    }


def _aligned(
    points: Float[np.ndarray, "T K 3"],
    target: Float[np.ndarray, "T K 3"],
    frames: int,
    *,
    with_scale: bool = True,
) -> Float[np.ndarray, "T K 3"]:
    """All points, transformed by the best alignment of the first `frames` frames."""
    source, goal = (torch.from_numpy(p[:frames].reshape(1, -1, 3)) for p in (points, target))
    every = torch.from_numpy(points.reshape(1, -1, 3))
    moved = align_similarity(source, goal, every, with_scale=with_scale)
    return moved.numpy().reshape(points.shape)
