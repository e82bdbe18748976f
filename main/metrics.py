"""Errors of predicted meshes against true ones: batched, on the device, in millimetres."""

from collections.abc import Callable, Collection, Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from human_models.files import (
    ModelFolder,
    read_body,
    read_hand_vertices,
    read_head_vertices,
    read_j14_regressor,
    read_smplx_to_smpl,
)
from human_models.joints import (
    JOINT_PARTS,
    JOINTS,
    RIG_JOINTS,
    SIDES,
    SMPL_JOINTS,
    SMPLX_SURFACE_VERTICES,
)
from main.metric_table import SampleErrors
from main.protocol import CORRECT, PARTS, SMPLX_METRICS, Protocol
from utils.alignment import centred, similarity_of_centred

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
# Joints of SMPL that are compared where the truth is a mesh of SMPL (3DPW), behind the pelvis.
# fmt: off
_SMPL_COMPARED: Final = (
    "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "neck", "head", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)
# fmt: on

Visibility = Callable[[Float[Tensor, "B N 3"]], Bool[Tensor, "B N"]]
_Pair = tuple[Float[Tensor, "B 3 N"], Float[Tensor, "B 3 N"]]  # predicted and true points
_Roots = tuple[Float[Tensor, "B 3 1"], Float[Tensor, "B 3 1"]]


class Evaluator(nn.Module):
    """Compares meshes by the rules of a protocol; it has buffers only and moves with `.to`.

    Meshes are in metres, in any frame that both share. All is computed in float64, so neither
    mixed precision nor the distance to the camera changes a digit that is reported.
    """

    left_hand: Int[Tensor, "778"]
    right_hand: Int[Tensor, "778"]
    head: Int[Tensor, "5023"]
    smplx_to_smpl: Float[Tensor, "6890 10475"]  # sparse

    def __init__(self, folder: ModelFolder, protocol: Protocol = CORRECT) -> None:
        """Raises UserError where a file of the folder is missing or damaged."""
        super().__init__()
        self.protocol = protocol
        for side, vertices in read_hand_vertices(folder).items():
            self.register_buffer(f"{side}_hand", torch.from_numpy(vertices))
        self.register_buffer("head", torch.from_numpy(read_head_vertices(folder)))

        rig = read_body(folder, "smplx").joint_regressor
        hands = {side: _hand_joints(side, protocol.hand_joints) for side in SIDES}
        rows = {
            "roots": _rig_rows(rig, _ROOTS),
            "body": read_j14_regressor(folder),
            **{part: _rig_rows(rig, hands[side]) for part, side in _HANDS.items()},
        }
        self._joint_groups = {name: len(group) for name, group in rows.items()}
        self.smplx_joints = _Regressor(np.concatenate(list(rows.values())))

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
        """The metrics named in `only` (`protocol.HAND_SET_METRICS` for sets of hands alone).

        The hands' validity is true (or not zero) where the truth has that hand. With `in_view`,
        which says of true points whether the image shows them, only those count (UBody): roots
        and alignments still come from all points, and a part out of view is left out.

        Raises ValueError where a point to align is not a finite number or a metric is unknown.
        """
        _check_names(only, SMPLX_METRICS)
        hands_valid = {"l_hand": left_hand_valid.bool(), "r_hand": right_hand_valid.bool()}
        predicted, true = _planar(predicted_vertices), _planar(true_vertices)
        joints = (self._named_joints(predicted), self._named_joints(true))
        roots = {
            name: (joints[0]["roots"][..., k, None], joints[1]["roots"][..., k, None])
            for k, name in enumerate(_ROOTS)
        }

        result: dict[str, SampleErrors] = {}
        for kind, parts in PARTS.items():
            for part in parts:
                name = f"{kind}_{part}"
                needed = {name, f"{kind}_hand"} if part in _HANDS else {name}
                wanted = {p for p in ("", "pa_") if any(p + n in only for n in needed)}
                if part == "hand" or not wanted:
                    continue
                if kind == "mpvpe":
                    points = (self._part(predicted, part), self._part(true, part))
                else:
                    points = (joints[0][part], joints[1][part])
                shown = None if in_view is None else in_view(points[1].mT)
                root = roots[_PART_ROOTS[part]]
                if kind == "mpjpe" and part in _HANDS and not self.protocol.gt_wrist_relative:
                    root = (root[0], torch.zeros_like(root[1]))
                for prefix in wanted:
                    distances = _aligned_error(points) if prefix else _rooted_error(points, root)
                    errors = _mean(distances, shown)
                    if part in _HANDS:
                        errors = errors._replace(valid=errors.valid & hands_valid[part])
                    result[prefix + name] = errors
            for prefix in ("", "pa_"):
                if {f"{prefix}{kind}_{hand}" for hand in _HANDS} <= result.keys():
                    self._add_both_hands(result, prefix + kind)
        return {name: result[name] for name in SMPLX_METRICS if name in only}

    def smpl(
        self,
        predicted_vertices: Float[Tensor, "B 10475 3"],
        true_vertices: Float[Tensor, "B 6890 3"],
    ) -> dict[str, SampleErrors]:
        """`protocol.SMPL_METRICS`, where the truth is a mesh of SMPL.

        The prediction is moved to the true pelvis, then converted to a mesh of SMPL; joints are
        those of SMPL's rig on both. Raises ValueError where a point is not a finite number.
        """
        predicted, true = _planar(predicted_vertices), _planar(true_vertices)
        true_pelvis, true_joints = self.smpl_joints(true).split((1, len(_SMPL_COMPARED)), dim=2)
        pelvis = self._named_joints(predicted)["roots"][..., :1]
        moved = predicted - pelvis + true_pelvis
        converted = (self.smplx_to_smpl @ moved.flatten(0, 1).mT).mT.unflatten(0, (-1, 3))

        meshes = (converted, true)
        joints = (self.smpl_joints(converted)[..., 1:], true_joints)
        matched = (true_pelvis, true_pelvis)
        return {
            "pa_mpvpe_all": _mean(_aligned_error(meshes)),
            "mpvpe_all": _mean(_rooted_error(meshes, matched)),
            "pa_mpjpe_body": _mean(_aligned_error(joints)),
            "mpjpe_body": _mean(_rooted_error(joints, matched)),
        }

    def _part(self, mesh: Float[Tensor, "B 3 10475"], part: str) -> Float[Tensor, "B 3 N"]:
        if part == "all":
            return mesh
        vertices = {"l_hand": self.left_hand, "r_hand": self.right_hand, "face": self.head}[part]
        return mesh.index_select(2, vertices)

    def _named_joints(self, mesh: Float[Tensor, "B 3 10475"]) -> dict[str, Tensor]:
        groups = self.smplx_joints(mesh).split(list(self._joint_groups.values()), dim=2)
        return dict(zip(self._joint_groups, groups, strict=True))

    def _add_both_hands(self, result: dict[str, SampleErrors], metric: str) -> None:
        """Add the mean of a sample's valid hands; the protocol's outliers go from all three."""
        left, right = result[f"{metric}_l_hand"], result[f"{metric}_r_hand"]
        errors = torch.stack([left.error_mm, right.error_mm])
        valid = torch.stack([left.valid, right.valid])
        keep = valid
        limit = self.protocol.pa_outlier_mm
        if metric == "pa_mpjpe" and limit is not None:
            left_ends_sample, right_ends_sample = valid & (errors > limit)
            valid = valid & ~left_ends_sample & ~right_ends_sample
            keep = keep & (errors < limit)
            keep[1] &= ~left_ends_sample
        mean = (errors * valid).sum(0) / valid.sum(0).clamp(min=1)
        result[f"{metric}_l_hand"], result[f"{metric}_r_hand"] = (
            SampleErrors(error.where(kept, 0.0), kept)
            for error, kept in zip(errors, keep, strict=True)
        )
        result[f"{metric}_hand"] = SampleErrors(mean, valid.any(0))


class _Regressor(nn.Module):
    """Joints as weighted sums of vertices; only vertices with a weight are read."""

    vertices: Int[Tensor, " U"]
    weights: Float[Tensor, "U K"]

    def __init__(self, matrix: Float[np.ndarray, "K V"]) -> None:
        super().__init__()
        used = np.flatnonzero(matrix.any(axis=0))
        self.register_buffer("vertices", torch.from_numpy(used))
        weights = np.ascontiguousarray(matrix[:, used].T, dtype=np.float64)
        self.register_buffer("weights", torch.from_numpy(weights))

    def forward(self, mesh: Float[Tensor, "B 3 V"]) -> Float[Tensor, "B 3 K"]:
        return mesh.index_select(2, self.vertices) @ self.weights


def _hand_joints(side: str, count: int) -> tuple[str, ...]:
    joints = (f"{side}_wrist", *JOINTS[JOINT_PARTS[f"{side}_hand"]])
    return joints[-count:]


def _rig_rows(
    regressor: Float[np.ndarray, "55 10475"], names: Sequence[str]
) -> Float[np.ndarray, "K 10475"]:
    """Rows for joints of the rig, and for the tips of fingers, which are vertices."""
    rows = np.zeros((len(names), regressor.shape[1]), np.float32)
    for row, name in zip(rows, names, strict=True):
        if name in RIG_JOINTS:
            row[:] = regressor[RIG_JOINTS.index(name)]
        else:
            row[SMPLX_SURFACE_VERTICES[name]] = 1
    return rows


def _check_names(names: Collection[str], known: Collection[str]) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"no such metric: {', '.join(unknown)}")


def _planar(vertices: Float[Tensor, "B V 3"]) -> Float[Tensor, "B 3 V"]:
    """In float64, coordinates first: sums over points then run along the memory."""
    return vertices.mT.to(torch.float64, memory_format=torch.contiguous_format)


def _rooted_error(points: _Pair, roots: _Roots) -> Float[Tensor, "B N"]:
    """Distances between points when both are relative to their root."""
    return _lengths((points[0] - points[1]) - (roots[0] - roots[1]))


def _aligned_error(points: _Pair) -> Float[Tensor, "B N"]:
    """Distances between points after the best similarity."""
    predicted, true = centred(points[0]), centred(points[1])
    return _lengths(torch.baddbmm(true, similarity_of_centred(predicted, true), predicted, beta=-1))


def _lengths(vectors: Float[Tensor, "B 3 N"]) -> Float[Tensor, "B N"]:
    x, y, z = vectors.unbind(1)
    return (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_()


def _mean(
    distances: Float[Tensor, "B N"], counted: Bool[Tensor, "B N"] | None = None
) -> SampleErrors:
    """Mean in millimetres of the distances (metres) that count, 0 and not valid where none does."""
    if counted is None:
        valid = torch.ones(len(distances), dtype=torch.bool, device=distances.device)
        return SampleErrors(distances.mean(1) * MILLIMETRES, valid)
    count = counted.sum(1)
    total = distances.where(counted, 0.0).sum(1)
    return SampleErrors(total / count.clamp(min=1) * MILLIMETRES, count > 0)
