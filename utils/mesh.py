"""Triangle meshes: normals, merging of vertices, and .ply, .obj and animated .glb files.

A .glb file (binary glTF 2.0) contains a skeleton, skinned surfaces, morph targets and motion, in
metres and glTF's frame: right-handed, y up, counter-clockwise faces.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from utils.errors import UserError
from utils.files import read_input
from utils.geometry import align_signs

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


def cross(a: Float[np.ndarray, "3 F"], b: Float[np.ndarray, "3 F"]) -> Float[np.ndarray, "3 F"]:
    """Cross products of columns, several times as fast as `np.cross` of rows."""
    return np.stack(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    )


def length(vectors: Float[np.ndarray, "3 V"]) -> Float[np.ndarray, " V"]:
    """Euclidean norms of columns."""
    return np.sqrt((vectors * vectors).sum(axis=0))


def vertex_normals(
    points: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> Float[np.ndarray, "V 3"]:
    """Unit normals: means of the adjacent faces' normals, weighted by area, in the points' dtype.

    They are zero for vertices without faces.
    """
    xyz, corners = np.ascontiguousarray(points.T), np.ascontiguousarray(faces.T)
    a, b, c = (xyz.take(corner, axis=1) for corner in corners)
    normals = np.empty_like(xyz)
    for axis, face in enumerate(cross(b - a, c - a)):
        normals[axis] = np.bincount(corners.ravel(), np.tile(face, 3), len(points))
    return np.ascontiguousarray((normals / np.maximum(length(normals), 1e-12)).T)


def merge_vertices(
    faces: Int[np.ndarray, "F 3"],
    groups: Int[np.ndarray, " V"],
    rank: Float[np.ndarray, " V"] | None = None,
) -> Int[np.ndarray, "f 3"]:
    """Coarser faces over the same vertices, in which one vertex replaces each group.

    Collapsed faces are removed.

    Args:
        groups: number of each vertex's group, from 0 without gaps.
        rank: the vertex with the lowest rank replaces its group; None: the first one.
    """
    order = np.argsort(groups, kind="stable") if rank is None else np.lexsort((rank, groups))
    chosen = order[np.searchsorted(groups[order], np.arange(groups.max() + 1))]
    merged = chosen[groups][faces]
    a, b, c = merged.T
    return merged[(a != b) & (b != c) & (c != a)]


def obj_maker(faces: Int[np.ndarray, "F 3"]) -> Callable[[Float32[np.ndarray, "V 3"]], bytes]:
    """A function from vertices to the content of an .obj file with these faces and six decimals.

    The faces are formatted only once, because this takes half of the time.
    """
    end = "".join(f"f {a} {b} {c}\n" for a, b, c in (faces + 1).tolist())

    def make(vertices: Float32[np.ndarray, "V 3"]) -> bytes:
        rows = "".join(f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in vertices.tolist())
        return (rows + end).encode("ascii")

    return make


def ply_maker(faces: Int[np.ndarray, "F 3"]) -> Callable[[Float32[np.ndarray, "V 3"]], bytes]:
    """A function from vertices to the content of a .ply file (binary, little-endian)."""
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
    """The vertices of a .ply mesh, in the unit and frame of the file.

    Raises:
        UserError: the file is missing, truncated, or not a .ply file that begins with vertices.
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
                raise ValueError(f"it has only {len(rows)} of {header.vertices} vertices")
        else:
            if len(body) < header.vertices * header.row.itemsize:
                raise ValueError(f"it has fewer than {header.vertices} vertices")
            table = np.frombuffer(body, header.row, header.vertices)
            columns = [table[axis].astype(np.float32) for axis in "xyz"]
    except (ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"'{path}' is not a readable .ply mesh: {error}; export it again"
        ) from error
    return np.stack(columns, axis=1)


def _read_header(content: bytes) -> _Header:
    """Parse the header; raises ValueError, KeyError or IndexError if it is not that of a mesh."""
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


_MAGIC, _VERSION, _JSON, _BIN = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
_VERTICES, _INDICES = 34962, 34963  # targets of buffer views
_COMPONENT: Final = {"u1": 5121, "u2": 5123, "u4": 5125, "f4": 5126}
_SHAPES: Final = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_MOVED_M: Final = 1e-6
"""Displacements by morph targets below this are stored as zero."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Joints of the rest pose, parents before children, with axes parallel to the world's."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    """Index of each joint's parent; -1 for the root, which is the first joint."""
    positions_m: Float[np.ndarray, "J 3"]

    @property
    def offsets_m(self) -> Float[np.ndarray, "J 3"]:
        """Position of each joint relative to its parent; of the root, to the origin."""
        origins = self.positions_m[list(self.parents)]
        origins[0] = 0
        return self.positions_m - origins


@dataclass(frozen=True)
class Material:
    """Reflection of a surface; the colour is multiplied with those of the vertices."""

    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Linear RGB, 0 to 1."""
    roughness: float = 0.8
    double_sided: bool = False


@dataclass(frozen=True, eq=False)
class Surface:
    """A skinned mesh with four joints per vertex, whose weights sum to 1."""

    name: str
    positions_m: Float[np.ndarray, "V 3"]
    """In the rest pose."""
    normals: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    joints: Int[np.ndarray, "V 4"]
    weights: Float[np.ndarray, "V 4"]
    material: Material = Material()
    texture_coordinates: Float[np.ndarray, "V 2"] | None = None
    """u to the right and v down from the upper left corner of the texture."""
    colors: Float[np.ndarray, "V 3"] | None = None
    """Linear RGB, 0 to 1."""
    morphs_m: Mapping[str, Float[np.ndarray, "V 3"]] = field(default_factory=dict)
    """Displacements of the vertices by each morph target at weight 1, ordered as in the motion."""


@dataclass(frozen=True, eq=False)
class Motion:
    """Keyframes, between which players interpolate (rotations along the shortest arc)."""

    times_s: Float[np.ndarray, " T"]
    rotations: Float[np.ndarray, "T J 4"]
    """Unit quaternions (w, x, y, z) of each joint relative to its parent."""
    root_m: Float[np.ndarray, "T 3"]
    """Position of the root joint."""
    morphs: Float[np.ndarray, "T M"]
    """Weights of the morph targets."""


def make_glb(
    name: str,
    skeleton: Skeleton,
    surfaces: Sequence[Surface],
    motion: Motion,
    extras: Mapping[str, Any] | None = None,
) -> bytes:
    """The content of a .glb file with one character.

    The skeleton is below a node called `name`; the surfaces are beside this node, as the standard
    requires for skinned meshes. Morph targets are stored sparsely and without normals.

    Args:
        extras: JSON values for `asset.extras`.
    """
    buffer = _Buffer()
    joint_count = len(skeleton.names)
    nodes = [*_joint_nodes(skeleton), {"name": name, "children": [0]}]
    meshes: list[dict[str, Any]] = []
    materials: list[dict[str, Any]] = []
    mesh_nodes = []
    for surface in surfaces:
        mesh_nodes.append(len(nodes))
        nodes.append({"name": surface.name, "mesh": len(meshes), "skin": 0})
        meshes.append(_mesh(surface, len(materials), buffer))
        materials.append(_material(surface))
    morphing = [
        node for node, surface in zip(mesh_nodes, surfaces, strict=True) if surface.morphs_m
    ]
    document = {
        "asset": {"version": "2.0", "generator": "SMPLest-X", "extras": dict(extras or {})},
        "scene": 0,
        "scenes": [{"name": name, "nodes": [joint_count, *mesh_nodes]}],
        "nodes": nodes,
        "meshes": meshes,
        "materials": materials,
        "skins": [
            {
                "name": name,
                "joints": list(range(joint_count)),
                "skeleton": 0,
                "inverseBindMatrices": buffer.add(_inverse_bind_matrices(skeleton)),
            }
        ],
        "animations": [_animation(name, motion, morphing, buffer)],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": len(buffer.content)}],
    }
    return _container(document, bytes(buffer.content))


def _joint_nodes(skeleton: Skeleton) -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = []
    offsets = _float32(skeleton.offsets_m).tolist()
    for joint, (name, parent) in enumerate(zip(skeleton.names, skeleton.parents, strict=True)):
        nodes.append({"name": name, "translation": offsets[joint]})
        if parent >= 0:
            nodes[parent].setdefault("children", []).append(joint)
    return nodes


def _inverse_bind_matrices(skeleton: Skeleton) -> Float[np.ndarray, "J 16"]:
    matrices = np.tile(np.eye(4, dtype=np.float32), (len(skeleton.names), 1, 1))
    matrices[:, 3, :3] = -skeleton.positions_m  # column-major order
    return matrices.reshape(-1, 16)


def _mesh(surface: Surface, material: int, buffer: "_Buffer") -> dict[str, Any]:
    # The format requires unit length, also for vertices whose faces have no area.
    is_zero = ~surface.normals.any(axis=1, keepdims=True)
    normals = np.where(is_zero, [0.0, 1.0, 0.0], surface.normals)
    attributes = {
        "POSITION": buffer.add(_float32(surface.positions_m), _VERTICES, bounds=True),
        "NORMAL": buffer.add(_float32(normals), _VERTICES),
        "JOINTS_0": buffer.add(surface.joints.astype(np.uint8), _VERTICES),
        "WEIGHTS_0": buffer.add(_float32(surface.weights), _VERTICES),
    }
    if surface.texture_coordinates is not None:
        attributes["TEXCOORD_0"] = buffer.add(_float32(surface.texture_coordinates), _VERTICES)
    if surface.colors is not None:
        opaque = np.pad(surface.colors, ((0, 0), (0, 1)), constant_values=1.0)
        levels = np.rint(np.clip(opaque, 0, 1) * 65535).astype(np.uint16)
        attributes["COLOR_0"] = buffer.add(levels, _VERTICES, normalized=True)
    indices = surface.faces.reshape(-1, 1).astype(_index_type(len(surface.positions_m)))
    primitive: dict[str, Any] = {
        "attributes": attributes,
        "indices": buffer.add(indices, _INDICES),
        "material": material,
    }
    mesh: dict[str, Any] = {"name": surface.name, "primitives": [primitive]}
    if surface.morphs_m:
        moves = [_float32(move) for move in surface.morphs_m.values()]
        primitive["targets"] = [{"POSITION": buffer.add_sparse(move)} for move in moves]
        mesh["weights"] = [0.0] * len(moves)
        mesh["extras"] = {"targetNames": list(surface.morphs_m)}
    return mesh


def _material(surface: Surface) -> dict[str, Any]:
    material = surface.material
    return {
        "name": surface.name,
        "doubleSided": material.double_sided,
        "pbrMetallicRoughness": {
            "baseColorFactor": [*material.color, 1.0],
            "metallicFactor": 0.0,
            "roughnessFactor": material.roughness,
        },
    }


def _animation(
    name: str, motion: Motion, morphing: Sequence[int], buffer: "_Buffer"
) -> dict[str, Any]:
    times = buffer.add(_float32(motion.times_s)[:, None], bounds=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def add(node: int, path: str, values: int) -> None:
        channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
        samplers.append({"input": times, "interpolation": "LINEAR", "output": values})

    add(0, "translation", buffer.add(_float32(motion.root_m)))
    quaternions = _float32(align_signs(motion.rotations)[..., [1, 2, 3, 0]])
    for joint in range(quaternions.shape[1]):
        add(joint, "rotation", buffer.add(quaternions[:, joint]))
    if morphing:
        morphs = buffer.add(_float32(motion.morphs).reshape(-1, 1))
        for node in morphing:
            add(node, "weights", morphs)
    return {"name": name, "samplers": samplers, "channels": channels}


def _index_type(count: int) -> type[np.unsignedinteger]:
    return np.uint32 if count > 65535 else np.uint16


def _float32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)


class _Buffer:
    """The binary part of the file, with its buffer views and accessors."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(
        self,
        rows: np.ndarray,
        target: int | None = None,
        *,
        bounds: bool = False,
        normalized: bool = False,
    ) -> int:
        """Append an array and return the index of its accessor."""
        accessor = self._describe(rows, bounds) | {"bufferView": self._view(rows, target)}
        if normalized:
            accessor["normalized"] = True
        return self._append(accessor)

    def add_sparse(self, rows: Float[np.ndarray, "V 3"]) -> int:
        """Append an array whose rows are mostly zero, and return the index of its accessor."""
        changed = np.flatnonzero(np.abs(rows).max(axis=1, initial=0) > _MOVED_M)
        if not len(changed):
            changed = np.zeros(1, np.int64)  # the standard requires at least one
        kept = np.zeros_like(rows)
        kept[changed] = rows[changed]
        indices = changed.astype(_index_type(len(rows)))[:, None]
        component = _COMPONENT[indices.dtype.str[1:]]
        sparse = {
            "count": len(changed),
            "indices": {"bufferView": self._view(indices), "componentType": component},
            "values": {"bufferView": self._view(kept[changed])},
        }
        return self._append(self._describe(kept, bounds=True) | {"sparse": sparse})

    def _describe(self, rows: np.ndarray, bounds: bool) -> dict[str, Any]:
        accessor: dict[str, Any] = {
            "componentType": _COMPONENT[rows.dtype.str[1:]],
            "count": len(rows),
            "type": _SHAPES[rows.shape[1]],
        }
        if bounds:
            accessor |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        return accessor

    def _append(self, accessor: dict[str, Any]) -> int:
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def _view(self, rows: np.ndarray, target: int | None = None) -> int:
        content = rows.astype(rows.dtype.newbyteorder("<")).tobytes()
        view: dict[str, Any] = {
            "buffer": 0,
            "byteOffset": len(self.content),
            "byteLength": len(content),
        }
        self.views.append(view if target is None else view | {"target": target})
        self.content += content + b"\0" * (-len(content) % 4)
        return len(self.views) - 1


def _container(document: Mapping[str, Any], content: bytes) -> bytes:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    encoded = text.encode("utf-8")
    encoded += b" " * (-len(encoded) % 4)
    chunks = b"".join(
        struct.pack("<II", len(part), kind) + part
        for part, kind in ((encoded, _JSON), (content, _BIN))
    )
    return struct.pack("<III", _MAGIC, _VERSION, 12 + len(chunks)) + chunks
