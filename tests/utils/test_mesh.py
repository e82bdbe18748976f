"""Vertices of .ply files, written here by hand, and merging."""

import numpy as np
import pytest

from utils.errors import UserError
from utils.mesh import merge_vertices, read_ply_vertices

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
    [
        ("binary_little_endian", binary("<")),
        ("binary_big_endian", binary(">")),
        ("ascii", text()),
    ],
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
