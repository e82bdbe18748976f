"""A character's motion without a mesh: as .bvh, and as SMPL-X parameters the way AMASS has them.

Both formats have a fixed frame rate, so frames that are missing are filled in. BVH (Biovision
hierarchy) is a skeleton of offsets and Euler angles per frame; it defines neither unit nor axes.
"""

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float

from human_models.files import BodyData
from human_models.joints import RIG_JOINTS, SMPLX_SURFACE_VERTICES
from main.characters.character import TO_WORLD, Character, without_gaps
from main.characters.surfaces import make_skeleton
from utils.files import atomic_path

_CENTIMETRES: Final = 100.0
_TIPS: Final = {
    f"{side}_{joint}": f"{side}_{tip}"
    for side in ("left", "right")
    for joint, tip in (
        ("foot", "big_toe"),
        ("eye_smplhf", "eye"),
        *((f"{finger}3", f"{finger}4") for finger in ("thumb", "index", "middle", "ring", "pinky")),
    )
}
"""Points of the surface at which the last bones end."""


def write_bvh(path: Path, character: Character, body: BodyData) -> None:
    """Write 55 joints with fingers, in centimetres, from the person's first frame to the last.

    The rest pose stands upright in the character's world; without a gap in the frames the n-th
    row is the n-th keyframe.
    """
    character = without_gaps(character)
    # The rest pose is y up; all frames of the skeleton are turned alike.
    turn = np.array(TO_WORLD[character.up]) @ np.array(TO_WORLD["y"]).T
    skeleton = make_skeleton(body, character.betas)
    ends = _ends(body, character.betas, skeleton.positions_m, skeleton.offsets_m)
    rotations = turn @ character.rotations @ turn.T
    rotations[:, 0] = character.rotations[:, 0] @ turn.T
    text = make_bvh(
        skeleton.names,
        skeleton.parents,
        skeleton.offsets_m @ turn.T * _CENTIMETRES,
        ends @ turn.T * _CENTIMETRES,
        character.pelvis_m * _CENTIMETRES,
        rotations,
        1 / character.fps,
    )
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="ascii")


def _ends(
    body: BodyData,
    betas: Float[np.ndarray, " S"],
    joints: Float[np.ndarray, "55 3"],
    offsets: Float[np.ndarray, "55 3"],
) -> Float[np.ndarray, "55 3"]:
    """Where bones without a further joint end, from their joint.

    The jaw's, which has no point at its end, continues the bone above it.
    """
    ends = offsets.copy()
    for joint, tip in _TIPS.items():
        vertex, number = SMPLX_SURFACE_VERTICES[tip], RIG_JOINTS.index(joint)
        tip_position = body.template[vertex] + body.shape_directions[vertex] @ betas
        ends[number] = tip_position - joints[number]
    return ends


def write_amass(path: Path, character: Character, body: BodyData) -> None:
    """Write parameters (SMPL-X with N frames per file, stageii) from the first frame to the last.

    The SMPL-X add-on for Blender reads the file as it is; docs/animation.md says what other
    readers take from it. Poses are absolute, as in AMASS: they contain the mean hand, so they are
    for a model with flat_hand_mean=True. `trans` is what moves the model, as `transl` of the smplx
    package.
    """
    character = without_gaps(character)
    pelvis = make_skeleton(body, character.betas).positions_m[0]
    poses = character.poses
    count = len(poses)
    arrays = {
        "trans": character.pelvis_m - pelvis,
        "poses": poses,
        "root_orient": poses[:, :3],
        "pose_body": poses[:, 3:66],
        "pose_jaw": poses[:, 66:69],
        "pose_eye": poses[:, 69:75],
        "pose_hand": poses[:, 75:],
        "betas": character.betas,
        "num_betas": np.int64(len(character.betas)),
        "expression": character.expression,
        "gender": np.array(body.gender),
        "surface_model_type": np.array("smplx"),
        "mocap_frame_rate": np.float64(character.fps),
        "mocap_framerate": np.float64(character.fps),  # the older name, which some readers want
        "mocap_time_length": np.float64(count / character.fps),
        # Beyond AMASS.
        "frame_index": character.frame_index,
        "interpolated": character.interpolated,
        "up_axis": np.array(character.up),
        "flat_hand_mean": np.bool_(True),
        "body_model": np.array(character.body_model),
    }
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


_POSITION: Final = "Xposition Yposition Zposition"
_ROTATION: Final = "Zrotation Xrotation Yrotation"
_LOCKED: Final = 1 - 1e-9


def make_bvh(
    names: Sequence[str],
    parents: Sequence[int],
    offsets: Float[np.ndarray, "J 3"],
    ends: Float[np.ndarray, "J 3"],
    root_positions: Float[np.ndarray, "T 3"],
    rotations: Float[np.ndarray, "T J 3 3"],
    frame_seconds: float,
) -> str:
    """The text of a .bvh file.

    A joint's children follow it in the order of `names`. Angles are degrees, R = Rz Rx Ry, and run
    on past 180 instead of jumping.

    Args:
        names: without spaces.
        parents: -1 for the root, which is the first.
        offsets: from the parent's joint, in the rest pose; the root's is written as zero, since
            its channels are its whole position.
        ends: for joints without children, where their bone ends, from the joint.
        rotations: relative to the parent.
    """
    children: list[list[int]] = [[] for _ in names]
    for joint, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(joint)
    order: list[int] = []
    text = StringIO()
    text.write("HIERARCHY\n")

    def write_joint(joint: int, depth: int) -> None:
        order.append(joint)
        indent, inner = "\t" * depth, "\t" * (depth + 1)
        is_root = depth == 0
        channels = f"6 {_POSITION} {_ROTATION}" if is_root else f"3 {_ROTATION}"
        offset = np.zeros(3) if is_root else offsets[joint]
        text.write(f"{indent}{'ROOT' if is_root else 'JOINT'} {names[joint]}\n{indent}{{\n")
        text.write(f"{inner}OFFSET {_numbers(offset)}\n{inner}CHANNELS {channels}\n")
        for child in children[joint]:
            write_joint(child, depth + 1)
        if not children[joint]:
            text.write(f"{inner}End Site\n{inner}{{\n")
            text.write(f"{inner}\tOFFSET {_numbers(ends[joint])}\n{inner}}}\n")
        text.write(f"{indent}}}\n")

    write_joint(0, 0)
    angles = np.degrees(np.unwrap(euler_zxy(rotations[:, order]), axis=0))
    rows = np.concatenate([root_positions, angles.reshape(len(angles), -1)], axis=1)
    text.write(f"MOTION\nFrames: {len(rows)}\nFrame Time: {frame_seconds:.10f}\n")
    np.savetxt(text, rows, fmt="%.6f")
    return text.getvalue()


def euler_zxy(rotations: Float[np.ndarray, "*B 3 3"]) -> Float[np.ndarray, "*B 3"]:
    """Angles (z, x, y) in radians with R = Rz(z) Rx(x) Ry(y); x in [-pi/2, pi/2].

    Where x is a right angle only the sum of z and y (or their difference) counts: y is 0 there.
    """
    R = rotations.astype(np.float64)
    sine = np.clip(R[..., 2, 1], -1, 1)
    locked = np.abs(sine) > _LOCKED
    z = np.where(
        locked,
        np.arctan2(R[..., 1, 0], R[..., 0, 0]),
        np.arctan2(-R[..., 0, 1], R[..., 1, 1]),
    )
    y = np.where(locked, 0.0, np.arctan2(-R[..., 2, 0], R[..., 2, 2]))
    return np.stack([z, np.arcsin(sine), y], axis=-1)


def _numbers(values: Float[np.ndarray, "3"]) -> str:
    return " ".join(f"{value:.6f}" for value in values)
