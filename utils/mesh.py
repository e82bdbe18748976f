"""Triangle meshes: .ply (Stanford polygon files) and .obj files, and merging of vertices."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from utils.errors import UserError
from utils.files import read_input

# fmt: off
_TYPES: Final = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}
# fmt: on
_ORDERS: Final = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_LONGEST_HEADER: Final = 65536
_LARGEST_FILE: Final = 1 << 30
"""Bytes."""
_HEADER_END: Final = b"end_header"


def merge_vertices(
    faces: Int[np.ndarray, "F 3"],
    groups: Int[np.ndarray, " V"],
    rank: Float[np.ndarray, " V"] | None = None,
) -> Int[np.ndarray, "f 3"]:
    """Coarser faces over the same vertices: one vertex stands for its whole group.

    Faces that collapse are left out.

    Args:
        groups: numbers from 0 without a gap; vertices of the same number are merged.
        rank: the vertex of the lowest stands for the group; None: the first one does.
    """
    order = np.argsort(groups, kind="stable") if rank is None else np.lexsort((rank, groups))
    chosen = order[np.searchsorted(groups[order], np.arange(groups.max() + 1))]
    merged = chosen[groups][faces]
    a, b, c = merged.T
    return merged[(a != b) & (b != c) & (c != a)]


def obj_maker(faces: Int[np.ndarray, "F 3"]) -> Callable[[Float32[np.ndarray, "V 3"]], bytes]:
    """A function that gives .obj files of these faces, with six decimals, for other vertices each.

    What the files share is made once, since it takes half of the time.
    """
    end = "".join(f"f {a} {b} {c}\n" for a, b, c in (faces + 1).tolist())

    def make(vertices: Float32[np.ndarray, "V 3"]) -> bytes:
        rows = "".join(f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in vertices.tolist())
        return (rows + end).encode("ascii")

    return make


def ply_maker(faces: Int[np.ndarray, "F 3"]) -> Callable[[Float32[np.ndarray, "V 3"]], bytes]:
    """The same for .ply files, binary and little-endian."""
    rows = np.empty(len(faces), np.dtype([("count", "u1"), ("corners", "<i4", (3,))]))
    rows["count"], rows["corners"] = 3, faces

    def make(vertices: Float32[np.ndarray, "V 3"]) -> bytes:
        header = (
            "ply\nformat binary_little_endian 1.0\n"
            f"element vertex {len(vertices)}\n"
            "property float x\nproperty float y\nproperty float z\n"
            f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
        )
        return header.encode("ascii") + vertices.astype("<f4").tobytes() + rows.tobytes()

    return make


class _Header(NamedTuple):
    encoding: str
    vertices: int
    row: np.dtype
    size: int
    """Bytes of the header; the vertices follow."""


def read_ply_vertices(path: Path) -> Float32[np.ndarray, "N 3"]:
    """The vertices of a mesh in the file's own unit and frame; all else in it is skipped.

    Raises:
        UserError: the file is missing, no .ply whose first element are vertices, or cut short.
    """
    content = read_input(path, _LARGEST_FILE)
    try:
        header = _read_header(content)
        body = content[header.size :]
        if header.encoding == "ascii":
            lines = body.decode("ascii").split("\n", header.vertices)[: header.vertices]
            rows = [dict(zip(header.row.names or (), line.split(), strict=True)) for line in lines]
            columns = [np.array([row[axis] for row in rows], np.float32) for axis in "xyz"]
            if len(rows) < header.vertices:
                raise ValueError(f"{len(rows)} of {header.vertices} vertices are there")
        else:
            if len(body) < header.vertices * header.row.itemsize:
                raise ValueError(f"fewer than the {header.vertices} vertices of its header")
            table = np.frombuffer(body, header.row, header.vertices)
            columns = [table[axis].astype(np.float32) for axis in "xyz"]
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(f"'{path}' is not a readable .ply mesh ({error}); get it anew") from error
    return np.stack(columns, axis=1)


def _read_header(content: bytes) -> _Header:
    """Raises ValueError, KeyError or IndexError where it is not the header of a mesh."""
    end = content.find(_HEADER_END, 0, _LONGEST_HEADER)
    if not content.startswith(b"ply") or end < 0:
        raise ValueError("its header is missing")
    size = content.index(b"\n", end) + 1
    lines = [line.split() for line in content[:end].decode("ascii").splitlines()[1:]]
    statements = [line for line in lines if line and line[0] not in ("comment", "obj_info")]
    encoding = {line[0]: line for line in statements}["format"][1]
    elements = [k for k, line in enumerate(statements) if line[0] == "element"]
    if not elements or statements[elements[0]][1] != "vertex":
        raise ValueError("its first element is not 'vertex'")
    first, after = elements[0], (*elements[1:], len(statements))[0]
    fields = []
    for _, kind, name in statements[first + 1 : after]:  # lists have more fields
        fields.append((name, _ORDERS[encoding] + _TYPES[kind]))
    row = np.dtype(fields)
    if not {"x", "y", "z"} <= set(row.names or ()):
        raise ValueError("its vertices have no x, y and z")
    count = int(statements[first][2])
    if count < 0:
        raise ValueError(f"it has {count} vertices")
    return _Header(encoding, count, row, size)
