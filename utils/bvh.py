"""Motion as BVH (Biovision hierarchy): a skeleton of offsets, and Euler angles per frame.

The format defines neither unit nor axes; the caller's lengths are written as they are.
"""

from collections.abc import Sequence
from io import StringIO
from typing import Final

import numpy as np
from jaxtyping import Float

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
