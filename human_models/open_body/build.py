"""Builds the files of the open body: `python -m human_models.open_body.build [--out DIR]`.

The same sources give the same bytes: random numbers are seeded, one thread adds up sums, lengths
are rounded to a micrometre, and processors are held to the instructions that all of them know.
"""

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse

from human_models.files import STAND_IN
from human_models.joints import RIG_JOINTS
from human_models.open_body import assets, formats
from human_models.open_body.adults import (
    PELVIS_ORIGIN_M,
    AdultModel,
    ShapeSpace,
    random_adults,
    shape_space,
    symmetric,
)
from human_models.open_body.face import (
    closed_eyes,
    expression_directions,
    landmark_arrays,
    moved_by_expression,
)
from human_models.open_body.fitting import fit_correctives, fit_joint_regressor
from human_models.open_body.formats import write_npy, write_npz, write_pickle
from human_models.open_body.skeleton import MIRRORED_JOINTS, clothes_weights, joint_weights
from human_models.open_body.topology import (
    TOPOLOGY_FILE,
    Topology,
    build_topology,
    read_topology,
    topology_arrays,
)
from utils.errors import UserError
from utils.files import atomic_path

log = logging.getLogger(__name__)

_ADULTS: Final = {"neutral": 400, "male": 300, "female": 300}
_REGRESSOR_STEP: Final = 3  # every third neutral adult is enough for the joints
# Instructions beyond AVX2 would add up in another order on processors that have them.
_SAME_EVERYWHERE: Final = {
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=STAND_IN, help="folder for the files")
    parser.add_argument(
        "--topology-from-scratch",
        action="store_true",
        help=f"simplify MakeHuman's mesh again and replace {TOPOLOGY_FILE.name}",
    )
    options = parser.parse_args(arguments)
    if any(os.environ.get(name) != value for name, value in _SAME_EVERYWHERE.items()):
        return _restart_with_environment(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        if options.topology_from_scratch:
            write_npz(TOPOLOGY_FILE, topology_arrays(build_topology()))
        build_stand_in(options.out, read_topology())
    except UserError as error:
        log.error("%s", error)
        return 1
    return 0


def _restart_with_environment(arguments: list[str]) -> int:
    """Numerical libraries read their settings when they load, so a new process has to."""
    command = [sys.executable, "-m", "human_models.open_body.build", *arguments]
    return subprocess.run(command, env=os.environ | _SAME_EVERYWHERE, check=False).returncode


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
    write_npy(folder / "smplx/SMPL-X__FLAME_vertex_ids.npy", formats.flame_vertex_ids(topology))
    with atomic_path(folder / "build.json") as partial:
        partial.write_text(json.dumps(build_environment(), indent=2) + "\n")


def _shape_spaces(
    model: AdultModel,
    mirror: Int64[np.ndarray, " R"],
    weights: Float64[np.ndarray, "N 55"],
    moved: Bool[np.ndarray, " N"],
) -> tuple[dict[str, ShapeSpace], Float64[np.ndarray, "55 N"]]:
    """Shape space of every gender (body, then clothes), and the joint regressor of all."""
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
        # x stays 0 by symmetry, to the last bit.
        to_origin = (PELVIS_ORIGIN_M - regressor[0] @ space.mean[:body]) * [0, 1, 1]
        spaces[gender] = space._replace(mean=space.mean + to_origin)
    return spaces, regressor


def build_environment() -> dict[str, str]:
    """Versions of all that the bytes of the files depend on."""
    return {
        **{name: importlib.metadata.version(name) for name in ("numpy", "scipy", "anny")},
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
