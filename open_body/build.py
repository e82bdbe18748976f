"""Builds the files of the open body: `python -m open_body.build [--out DIR]`.

The same sources give the same bytes: random numbers are seeded, sums are computed by one thread,
lengths are rounded to a micrometre, and numerical libraries use no instructions beyond AVX2.

Two parts are fitted by least squares. The joint regressor gives joints as convex combinations of
vertices, over many adults. Pose correctives distribute the twist of wrist, shoulder and hip along
the limb: linear blend skinning collapses a twisted limb (candy-wrapper artefact), and the offsets
to a skinning whose twist grows along the limb are fitted as linear functions of SMPL's pose
features, the elements of (R_joint - I) (Loper et al., SMPL, 2015, eq. 9).
"""

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from scipy import sparse
from scipy.optimize import nnls

from human_models.files import STAND_IN
from human_models.joints import RIG_JOINTS, RIG_PARENTS
from open_body import assets, formats
from open_body.adults import (
    MIRROR_X,
    PELVIS_ORIGIN_M,
    AdultModel,
    ShapeSpace,
    random_adults,
    shape_space,
    symmetric,
)
from open_body.face import closed_eyes, expression_directions, landmark_arrays, moved_by_expression
from open_body.formats import write_npz, write_pickle
from open_body.skeleton import (
    MIRRORED_JOINTS,
    axis_rotations,
    clothes_weights,
    joint_weights,
    normalized,
)
from open_body.topology import FLAME_REGIONS, Topology, read_topology
from utils.errors import UserError
from utils.files import atomic_path

log = logging.getLogger(__name__)

# Largest distance of a joint's vertices. MakeHuman's trunk joints move relative to the skin, so
# they need a wide choice; joints that are not listed are those of fingers.
_RADII_M: Final = {
    **dict.fromkeys(("pelvis", "spine"), 0.30),
    "hip": 0.25,
    **dict.fromkeys(("neck", "head", "jaw", "collar", "shoulder"), 0.16),
    "knee": 0.14,
    **dict.fromkeys(("ankle", "foot", "elbow"), 0.10),
    "wrist": 0.06,
}
_FINGER_RADIUS_M: Final = 0.035
_CANDIDATES: Final = 240
_LEAST_JOINT_WEIGHT: Final = 0.05  # skinning weight of joint and parent together, of a candidate
_PELVIS_NEIGHBOURS: Final = ("left_hip", "right_hip", "spine1")
_SUM_WEIGHT: Final = 10.0  # weight of the residual that draws the sum of the weights to 1
_JOINT_RIDGE: Final = 0.1 * np.sqrt(0.03)
_SMALLEST_CONVEX_WEIGHT: Final = 1e-4


def fit_joint_regressor(
    vertices: Float64[np.ndarray, "n N 3"],
    joints: Float64[np.ndarray, "n 55 3"],
    weights: Float64[np.ndarray, "N 55"],
    mirror: Int64[np.ndarray, " N"],
    forbidden: Bool[np.ndarray, " N"],
) -> Float64[np.ndarray, "55 N"]:
    """The joint regressor, whose rows sum to 1; left joints are fitted and mirrored to the right.

    Args:
        vertices: of n adults in the T-pose, metres.
        joints: of the same adults, metres.
        weights: skinning weights.
        mirror: index of the mirror image of each vertex.
        forbidden: vertices that expressions move, on which joints must not depend.
    """
    regressor = np.zeros((len(RIG_JOINTS), vertices.shape[1]))
    for joint, name in enumerate(RIG_JOINTS):
        twin = MIRRORED_JOINTS[joint]
        if name.startswith("right_"):
            continue
        if "eye" in name:
            eyeball = np.flatnonzero((weights[:, joint] > 0.99) & ~forbidden)
            regressor[joint, eyeball] = 1 / len(eyeball)
        else:
            chosen = _candidates(joint, vertices.mean(0), joints.mean(0), weights, forbidden)
            if twin == joint:
                chosen = np.unique(np.concatenate([chosen, mirror[chosen]]))
            regressor[joint, chosen] = _convex_weights(vertices[:, chosen], joints[:, joint])
        if twin == joint:
            regressor[joint] = 0.5 * (regressor[joint] + regressor[joint][mirror])
        else:
            regressor[twin] = regressor[joint][mirror]
    return regressor


def _candidates(
    joint: int,
    vertices: Float64[np.ndarray, "N 3"],
    joints: Float64[np.ndarray, "55 3"],
    weights: Float64[np.ndarray, "N 55"],
    forbidden: Bool[np.ndarray, " N"],
) -> Int64[np.ndarray, " c"]:
    """Evenly spread vertices near a joint that move with it or with its parent."""
    name = RIG_JOINTS[joint]
    family = [joint, max(RIG_PARENTS[joint], 0)]
    if name == "pelvis":
        family = [joint, *(RIG_JOINTS.index(neighbour) for neighbour in _PELVIS_NEIGHBOURS)]
    follows = weights[:, np.unique(family)].sum(axis=1) >= _LEAST_JOINT_WEIGHT
    kind = re.sub(r"(left|right)_|\d", "", name)
    distances = np.linalg.norm(vertices - joints[joint], axis=1)
    near = distances < _RADII_M.get(kind, _FINGER_RADIUS_M)
    usable = np.flatnonzero(follows & near & ~forbidden)
    usable = usable[np.argsort(distances[usable], kind="stable")]
    return usable[_farthest_points(vertices[usable], min(_CANDIDATES, len(usable)))]


def _farthest_points(points: Float64[np.ndarray, "c 3"], count: int) -> list[int]:
    """Farthest-point sampling that starts with the first point."""
    chosen = [0]
    distances = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(distances)))
        distances = np.minimum(distances, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def _convex_weights(
    vertices: Float64[np.ndarray, "n c 3"], joint: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, " c"]:
    """Non-negative least squares with a weak ridge; the weights are normalised to sum to 1."""
    count = vertices.shape[1]
    scale = 1 / np.sqrt(joint.size)
    design = np.swapaxes(vertices, 1, 2).reshape(-1, count) * scale
    design = np.concatenate(
        [design, np.full((1, count), _SUM_WEIGHT), _JOINT_RIDGE * np.eye(count)]
    )
    wanted = np.concatenate([joint.ravel() * scale, [_SUM_WEIGHT], np.zeros(count)])
    weights, _ = nnls(design, wanted, maxiter=5000)
    weights[weights < _SMALLEST_CONVEX_WEIGHT] = 0
    return weights / weights.sum()


# Pose correctives.

_POSE_FEATURES: Final = 9 * (len(RIG_JOINTS) - 1)
_ROTATIONS: Final = 300
_CORRECTIVE_RIDGE: Final = 0.05 * _ROTATIONS / 100
_TWIST_EXPONENT: Final = 1.1
_LEAST_WEIGHT: Final = 1e-3
_LIMB_WEIGHT: Final = 0.3
_SMALLEST_CORRECTIVE_M: Final = 1e-5


class _Limb(NamedTuple):
    """A joint and the limb along which its twist is distributed.

    Attributes:
        start, end: joints at the limb's ends.
        start_share: share of the twist at the start of the limb; at the end it is 1.
        twist_deg, swing_deg: ranges of the rotations for the fit.
        before: whether the limb is proximal to the joint (forearm and wrist) or distal to it
            (upper arm and shoulder).
    """

    joint: str
    start: str
    end: str
    start_share: float
    twist_deg: float
    swing_deg: float
    before: bool


_LIMBS: Final = (
    _Limb("wrist", "elbow", "wrist", 0.0, 80, 55, before=True),
    _Limb("shoulder", "shoulder", "elbow", 0.35, 75, 80, before=False),
    _Limb("hip", "hip", "knee", 0.35, 50, 90, before=False),
)


def fit_correctives(
    vertices: Float64[np.ndarray, "N 3"],
    joints: Float64[np.ndarray, "55 3"],
    weights: Float64[np.ndarray, "N 55"],
    mirror: Int64[np.ndarray, " N"],
) -> Float64[np.ndarray, "N 3 486"]:
    """SMPL-X's posedirs in metres; features are (R - I) in row-major order of joints 1 to 54."""
    correctives = np.zeros((len(vertices), 3, _POSE_FEATURES))
    rng = np.random.default_rng(0)
    for limb in _LIMBS:
        moved, left = _fit_limb(limb, vertices, joints, weights, rng)
        correctives[moved, :, _features(f"left_{limb.joint}")] = left
        # A mirrored rotation is M R M, so its feature (a, b) changes sign with M_a M_b.
        signs = MIRROR_X[:, None] * np.outer(MIRROR_X, MIRROR_X).ravel()
        correctives[mirror[moved], :, _features(f"right_{limb.joint}")] = left * signs
    correctives[np.abs(correctives) < _SMALLEST_CORRECTIVE_M] = 0
    return correctives


def _features(joint: str) -> slice:
    first = 9 * (RIG_JOINTS.index(joint) - 1)
    return slice(first, first + 9)


def _fit_limb(
    limb: _Limb,
    vertices: Float64[np.ndarray, "N 3"],
    joints: Float64[np.ndarray, "55 3"],
    weights: Float64[np.ndarray, "N 55"],
    rng: np.random.Generator,
) -> tuple[Int64[np.ndarray, " m"], Float64[np.ndarray, "m 3 9"]]:
    """Vertices of the left limb that need correctives, and the correctives, metres."""
    index, first, last = (
        RIG_JOINTS.index(f"left_{name}") for name in (limb.joint, limb.start, limb.end)
    )
    axis = normalized(joints[last] - joints[first])
    length = np.linalg.norm(joints[last] - joints[first])
    weight = weights[:, _descendants(index)].sum(axis=1)
    along = np.clip((vertices - joints[first]) @ axis / length, 0, 1)
    share = limb.start_share + (1 - limb.start_share) * along**_TWIST_EXPONENT
    near = weight > _LEAST_WEIGHT
    if limb.before:
        near |= weights[:, first] > _LIMB_WEIGHT
        blended = (weight > _LEAST_WEIGHT) & (weight < 1 - _LEAST_WEIGHT)
        differs = (share < 1 - 1e-6) | blended
    else:
        differs = np.abs(share - 1) > 1e-6
    moved = np.flatnonzero(near & differs)

    features, offsets = [], []
    for _ in range(_ROTATIONS):
        twist = np.radians(rng.uniform(-limb.twist_deg, limb.twist_deg))
        swing_axis = rng.normal(size=3)
        swing_axis -= swing_axis @ axis * axis
        swing = axis_rotations(swing_axis, np.radians(rng.uniform(0, limb.swing_deg)))
        rotation = swing @ axis_rotations(axis, np.array(twist))
        local = vertices[moved] - joints[index]
        twisted = _rotated(local, axis, share[moved] * twist)
        offset = _offsets(local, twisted, weight[moved, None], swing, rotation, limb.before)
        features.append((rotation - np.eye(3)).ravel())
        offsets.append(offset.ravel())
    A, b = np.array(features), np.array(offsets)
    solution = np.linalg.solve(A.T @ A + _CORRECTIVE_RIDGE * np.eye(9), A.T @ b)
    return moved, np.moveaxis(solution.reshape(9, -1, 3), 0, -1)


def _descendants(joint: int) -> list[int]:
    """The joint and its descendants; parents come before children in the rig."""
    found = [joint]
    for child, parent in enumerate(RIG_PARENTS):
        if parent in found:
            found.append(child)
    return found


def _rotated(
    points: Float64[np.ndarray, "m 3"],
    axis: Float64[np.ndarray, "3"],
    angles: Float64[np.ndarray, " m"],
) -> Float64[np.ndarray, "m 3"]:
    """Points rotated about an axis through the origin, each by its own angle (radians)."""
    parallel = (points @ axis)[:, None] * axis
    perpendicular = points - parallel
    cosines, sines = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return parallel + cosines * perpendicular + sines * np.cross(axis, perpendicular)


def _offsets(
    local: Float64[np.ndarray, "m 3"],
    twisted: Float64[np.ndarray, "m 3"],
    weight: Float64[np.ndarray, "m 1"],
    swing: Float64[np.ndarray, "3 3"],
    rotation: Float64[np.ndarray, "3 3"],
    before: bool,
) -> Float[np.ndarray, "m 3"]:
    """Rest-pose offsets with which linear blend skinning gives the limb with distributed twist.

    The joint is at the origin.
    """
    unmoved = twisted if before else local
    target = (1 - weight) * unmoved + weight * (twisted @ swing.T)
    skinned = (1 - weight) * local + weight * (local @ rotation.T)
    blended = (1 - weight)[..., None] * np.eye(3) + weight[..., None] * rotation
    return np.linalg.solve(blended, (target - skinned)[..., None])[..., 0]


_ADULTS: Final = {"neutral": 400, "male": 300, "female": 300}
_REGRESSOR_STEP: Final = 3  # every third neutral adult is enough for the joint regressor
# With instructions beyond AVX2, sums would have another order and other last bits.
_SAME_EVERYWHERE: Final = {
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=STAND_IN, help="folder for the files")
    options = parser.parse_args(arguments)
    if any(os.environ.get(name) != value for name, value in _SAME_EVERYWHERE.items()):
        # Numerical libraries read these variables when they are loaded, so a new process is needed.
        again = [sys.executable, "-m", "open_body.build"]
        again += sys.argv[1:] if arguments is None else arguments
        return subprocess.run(again, env=os.environ | _SAME_EVERYWHERE, check=False).returncode
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        build_stand_in(options.out, read_topology())
    except UserError as error:
        log.error("%s", error)
        return 1
    return 0


def build_stand_in(folder: Path, topology: Topology) -> None:
    """Write all files of the open body into `folder`."""
    mesh = assets.read_base_mesh()
    rig = assets.read_rig(mesh)
    face_units = assets.read_face_units(len(mesh.vertices))
    clothes = assets.read_clothes(mesh)
    body = len(topology)
    model = AdultModel(
        sparse.vstack([topology.selection, clothes.selection]).tocsr(),
        body,
        mesh,
        rig,
        assets.read_macro_targets(len(mesh.vertices)),
        topology.rigid_rows(),
    )
    weights = joint_weights(model.bone_weights[:body], rig, topology.mirror)
    weights_of_clothes = clothes_weights(model.bone_weights[body:], rig)
    expression = expression_directions(topology.selection, face_units)

    mirror = np.concatenate([topology.mirror, body + clothes.mirror])
    spaces, regressor = _shape_spaces(model, mirror, weights, moved_by_expression(expression))
    template = spaces["neutral"].mean[:body]
    shared = formats.SharedParts(
        weights=weights,
        regressor=regressor,
        expression=expression,
        correctives=fit_correctives(template, regressor @ template, weights, topology.mirror),
        landmarks=landmark_arrays(template, topology, weights[:, RIG_JOINTS.index("jaw")]),
    )
    blink = closed_eyes(topology.selection, face_units)
    for gender, space in spaces.items():
        body_space = ShapeSpace(space.mean[:body], space.directions[:body])
        clothes_space = ShapeSpace(space.mean[body:], space.directions[body:])
        smplx = formats.smplx_arrays(topology, body_space, shared)
        smpl = formats.smpl_arrays(topology, body_space, shared, blink)
        outfit = formats.outfit_arrays(clothes, weights_of_clothes, clothes_space)
        write_npz(folder / f"smplx/SMPLX_{gender.upper()}.npz", smplx)
        write_npz(folder / f"smpl/SMPL_{gender.upper()}.npz", smpl)
        write_npz(folder / f"outfit/OUTFIT_{gender.upper()}.npz", outfit)
    joints14 = formats.joints14_regressor(regressor, template, topology.mirror)
    write_pickle(folder / "smplx/SMPLX_to_J14.pkl", joints14)
    write_pickle(folder / "smplx/MANO_SMPLX_vertex_ids.pkl", formats.mano_vertex_ids())
    write_pickle(folder / "smplx/smplx2smpl.pkl", formats.smplx_to_smpl(topology))
    with atomic_path(folder / "smplx/SMPL-X__FLAME_vertex_ids.npy") as partial:  # head and eyes
        np.save(partial, topology.in_regions(*FLAME_REGIONS), allow_pickle=False)
    with atomic_path(folder / "build.json") as partial:
        partial.write_text(json.dumps(build_environment(), indent=2) + "\n")


def _shape_spaces(
    model: AdultModel,
    mirror: Int64[np.ndarray, " R"],
    weights: Float64[np.ndarray, "N 55"],
    moved: Bool[np.ndarray, " N"],
) -> tuple[dict[str, ShapeSpace], Float64[np.ndarray, "55 N"]]:
    """Shape space of every gender (rows of the body, then the clothes), and the joint regressor.

    `moved` marks the vertices that expressions move.
    """
    body = len(weights)
    spaces: dict[str, ShapeSpace] = {}
    regressor = np.empty((0, body))
    for seed, (gender, count) in enumerate(_ADULTS.items()):
        log.info("%s: %d adults", gender, count)
        adults = random_adults(gender, count, np.random.default_rng(seed))
        vertices, joints = model.posed(adults)
        vertices = symmetric(vertices, mirror)
        if gender == "neutral":
            some = np.s_[::_REGRESSOR_STEP]
            regressor = fit_joint_regressor(
                vertices[some, :body],
                symmetric(joints[some], np.array(MIRRORED_JOINTS)),
                weights,
                mirror[:body],
                moved,
            )
        space = shape_space(vertices, mirror, body)
        # x is exactly 0 by symmetry.
        to_origin = (PELVIS_ORIGIN_M - regressor[0] @ space.mean[:body]) * [0, 1, 1]
        spaces[gender] = space._replace(mean=space.mean + to_origin)
    return spaces, regressor


def build_environment() -> dict[str, str]:
    """Versions of everything that can change the bytes of the files."""
    return {
        **{name: importlib.metadata.version(name) for name in ("numpy", "scipy", "anny")},
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
