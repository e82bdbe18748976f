"""Meshes: vertices merged and read back, and glTF files, byte by byte."""

import json
import struct

import numpy as np
import pygltflib
import pytest
from scipy.spatial.transform import Rotation

from utils.errors import UserError
from utils.geometry import align_signs
from utils.mesh import (
    Material,
    Motion,
    Skeleton,
    Surface,
    make_glb,
    merge_vertices,
    read_ply_vertices,
)

VERTICES = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


def header(encoding: str, count: int = 7, extra: str = "") -> bytes:
    return (
        f"ply\nformat {encoding} 1.0\ncomment a scan\nelement vertex {count}\n"
        f"property float x\nproperty float y\nproperty float z\n{extra}"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    ).encode()


def binary(order: str) -> bytes:
    rows = np.zeros(7, np.dtype([("xyz", f"{order}f4", 3), ("red", "u1")]))
    rows["xyz"] = VERTICES
    return rows.tobytes() + bytes([3]) + np.array([0, 1, 2], f"{order}i4").tobytes()


def text() -> bytes:
    rows = [" ".join(map(str, [*vertex, 255])) for vertex in VERTICES.tolist()]
    return ("\n".join([*rows, "3 0 1 2"]) + "\n").encode()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("binary_little_endian", binary("<")), ("binary_big_endian", binary(">")), ("ascii", text())],
)
def test_vertices_of_every_encoding(tmp_path, encoding, body):
    path = tmp_path / "mesh.ply"
    path.write_bytes(header(encoding, extra="property uchar red\n") + body)
    np.testing.assert_allclose(read_ply_vertices(path), VERTICES, rtol=1e-6)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n", header(encoding).count(b"\n") + 1))
    np.testing.assert_allclose(read_ply_vertices(path), VERTICES, rtol=1e-6)


LITTLE = "binary_little_endian"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"solid no ply",
        b"ply\nformat ascii 1.0\n",
        b"ply\nend_header\n",
        header(LITTLE),
        header(LITTLE, count=10**15) + binary("<"),
        header(LITTLE, count=-1) + binary("<"),
        header("ascii") + b"1 2 3\n",
        header("ascii", count=1) + b"1 2 what\n",
        header("ascii", count=1) + b"\xff\n",
        header("binary_other") + binary("<"),
        header(LITTLE, extra="property list uchar int more\n") + binary("<"),
        header(LITTLE, extra="property quad w\n") + binary("<"),
        header(LITTLE, extra="property float x\n") + binary("<"),
        header(LITTLE).replace(b"float z", b"float w") + binary("<"),
        header(LITTLE).replace(b"element vertex 7", b"element vertex") + binary("<"),
        header(LITTLE).replace(b"element vertex", b"element edge") + binary("<"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "mesh.ply"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"mesh\.ply") as refusal:
        read_ply_vertices(path)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.ply"):
        read_ply_vertices(tmp_path / "none.ply")


def test_a_vertex_stands_for_its_group_and_collapsed_faces_go():
    faces = np.array([[0, 1, 2], [2, 1, 3], [3, 4, 2]])
    groups = np.array([0, 1, 1, 2, 0])
    assert merge_vertices(faces, groups).tolist() == [[3, 0, 1]]
    rank = np.array([1.0, 0.5, 0.2, 0.0, 0.9])
    assert merge_vertices(faces, groups, rank).tolist() == [[3, 4, 2]]


TYPES = {5121: "u1", 5123: "u2", 5125: "u4", 5126: "f4"}
WIDTH = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


@pytest.fixture
def parts():
    skeleton = Skeleton(("hip", "knee"), (-1, 0), np.array([[0, 1.0, 0], [0, 0.5, 0.1]]))
    nose = np.zeros((4, 3))
    nose[2] = [0, 0, 0.02]
    surface = Surface(
        name="leg",
        positions_m=np.array([[0, 1.0, 0], [0.1, 0.5, 0], [-0.1, 0.5, 0], [0, 0, 0]]),
        normals=np.tile([0.0, 0, 1], (4, 1)),
        faces=np.array([[0, 2, 1], [1, 2, 3]]),
        joints=np.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]]),
        weights=np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [1.0, 0, 0, 0]]),
        material=Material((0.5, 0.2, 0.1), double_sided=True),
        texture_coordinates=np.zeros((4, 2)),
        colors=np.full((4, 3), 0.5),
        morphs_m={"nose": nose, "nothing": np.zeros((4, 3))},
    )
    turns = Rotation.from_euler("x", [[0], [170], [190]], degrees=True).as_quat(scalar_first=True)
    rotations = np.tile([1.0, 0, 0, 0], (3, 2, 1))
    rotations[:, 1] = turns * np.sign(turns[:, :1] + 1e-12)  # w >= 0, as most functions give them
    motion = Motion(
        times_s=np.array([0.5, 0.6, 1.0]),
        rotations=rotations,
        root_m=np.array([[0, 1.0, 0], [0, 1, 1], [0, 1, 2]]),
        morphs=np.array([[0, 0], [0.5, 0], [1.0, 0]]),
    )
    return skeleton, surface, motion


def make(parts, **extras):
    skeleton, surface, motion = parts
    return make_glb("someone", skeleton, [surface], motion, extras)


def values(gltf, number):
    accessor = gltf.accessors[number]
    assert accessor.sparse is None
    view = gltf.bufferViews[accessor.bufferView]
    blob = gltf.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    return np.frombuffer(blob, "<" + TYPES[accessor.componentType]).reshape(
        accessor.count, WIDTH[accessor.type]
    )


def test_the_container_is_aligned_and_says_its_length(parts):
    content = make(parts, note="größer")
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    json_length, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON"
    assert json_length % 4 == 0
    document = json.loads(content[20 : 20 + json_length])
    assert document["asset"]["extras"] == {"note": "größer"}
    binary_length, kind = struct.unpack_from("<I4s", content, 20 + json_length)
    assert kind == b"BIN\0"
    assert binary_length == document["buffers"][0]["byteLength"]


def test_another_reader_finds_skeleton_skin_and_morphs(parts):
    gltf = pygltflib.GLTF2.load_from_bytes(make(parts))
    hip, knee = gltf.nodes[:2]
    assert (hip.name, knee.name, hip.children) == ("hip", "knee", [1])
    assert knee.translation == pytest.approx([0, -0.5, 0.1])
    skin = gltf.skins[0]
    inverse = values(gltf, skin.inverseBindMatrices).reshape(2, 4, 4).transpose(0, 2, 1)
    assert inverse[1] @ [0, 0.5, 0.1, 1] == pytest.approx([0, 0, 0, 1], abs=1e-6)
    primitive = gltf.meshes[0].primitives[0]
    assert values(gltf, primitive.attributes.WEIGHTS_0).sum(axis=1) == pytest.approx(1)
    assert gltf.accessors[primitive.attributes.POSITION].max == pytest.approx([0.1, 1, 0])
    assert gltf.meshes[0].extras["targetNames"] == ["nose", "nothing"]
    sparse = gltf.accessors[primitive.targets[0]["POSITION"]].sparse
    assert sparse.count == 1
    view = gltf.bufferViews[sparse.values.bufferView]
    moved = np.frombuffer(gltf.binary_blob()[view.byteOffset :][:12], "<f4")
    assert moved == pytest.approx([0, 0, 0.02])


def test_the_animation_moves_root_joints_and_morphs_at_its_own_times(parts):
    gltf = pygltflib.GLTF2.load_from_bytes(make(parts))
    animation = gltf.animations[0]
    outputs = {}
    for channel in animation.channels:
        sampler = animation.samplers[channel.sampler]
        assert values(gltf, sampler.input)[:, 0] == pytest.approx([0.5, 0.6, 1.0])
        outputs[channel.target.node, channel.target.path] = values(gltf, sampler.output)
    assert outputs.keys() == {(0, "translation"), (0, "rotation"), (1, "rotation"), (3, "weights")}
    assert outputs[0, "translation"][2] == pytest.approx([0, 1, 2])
    assert outputs[3, "weights"].ravel() == pytest.approx([0, 0, 0.5, 0, 1, 0])
    knee = outputs[1, "rotation"]
    assert Rotation.from_quat(knee).as_euler("xyz", degrees=True)[1] == pytest.approx([170, 0, 0])
    assert (knee[1:] * knee[:-1]).sum(axis=1).min() > 0, "a player would take the long way"


def test_quaternions_without_jumps_are_the_same_rotations():
    rng = np.random.default_rng(0)
    smooth = Rotation.from_rotvec(np.linspace([0, 0, 0], [0, 9, 0], 50)).as_quat()[:, None]
    flipped = smooth * rng.choice([-1, 1], (50, 1, 1))
    found = align_signs(flipped)
    assert np.abs((found * smooth).sum(-1)) == pytest.approx(1)
    assert (found[1:] * found[:-1]).sum(-1).min() > 0.9
