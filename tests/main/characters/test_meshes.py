import numpy as np
import pytest
import torch

from main.characters.character import read_character
from main.characters.formats import write_meshes
from utils.mesh import read_ply_vertices


@pytest.fixture(scope="module")
def character(result, body):
    return read_character(result / "person_001.npz", body)


@pytest.fixture(scope="module")
def expected(character, body):
    row = character.frame_index.tolist().index(24)
    parameters = {name: value[[row]] for name, value in character.body_parameters(body).items()}
    with torch.inference_mode():
        return body(**parameters).vertices[0].numpy()


def test_obj_files_hold_the_whole_body_and_are_numbered_as_the_video(
    character, body, expected, tmp_path
):
    write_meshes(tmp_path / "obj", character, body, "obj", every=12)
    files = sorted((tmp_path / "obj").iterdir())
    assert [file.name for file in files] == [f"frame_{k:06d}.obj" for k in (0, 12, 24, 36)]
    rows = [line.split() for line in files[2].read_text().splitlines()]
    vertices = np.array([row[1:] for row in rows if row[0] == "v"], float)
    faces = np.array([row[1:] for row in rows if row[0] == "f"], int)
    assert vertices == pytest.approx(expected, abs=1e-6)
    assert np.array_equal(faces - 1, body.faces.numpy())


def test_ply_files_hold_the_same(character, body, expected, tmp_path):
    write_meshes(tmp_path / "ply", character, body, "ply", every=24)
    file = tmp_path / "ply" / "frame_000024.ply"
    assert read_ply_vertices(file) == pytest.approx(expected)
    content = file.read_bytes()
    faces = content[content.index(b"end_header\n") + 11 + 12 * len(expected) :]
    rows = np.frombuffer(faces, np.dtype([("count", "u1"), ("corners", "<i4", (3,))]))
    assert (rows["count"] == 3).all()
    assert np.array_equal(rows["corners"], body.faces.numpy())


def test_frames_without_the_person_have_no_file(character, body, tmp_path):
    write_meshes(tmp_path / "ply", character, body, "ply", every=7)
    numbers = [int(file.stem.split("_")[1]) for file in sorted((tmp_path / "ply").iterdir())]
    assert numbers == [0, 7, 14, 28, 35, 42]  # 21 lies in the gap
