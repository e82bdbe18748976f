import numpy as np
import pybvh
import pytest
from scipy.spatial.transform import Rotation

from main.characters.formats import euler_zxy, make_bvh

NAMES = ("root", "left_leg", "right_leg", "left_foot", "spine")
PARENTS = (-1, 0, 0, 1, 0)


def read(text, folder):
    file = folder / "motion.bvh"
    file.write_text(text)
    return pybvh.read_bvh_file(str(file))


@pytest.fixture
def motion():
    rng = np.random.default_rng(1)
    return {
        "names": NAMES,
        "parents": PARENTS,
        "offsets": rng.normal(size=(5, 3)),
        "ends": rng.normal(size=(5, 3)),
        "root_positions": rng.normal(size=(7, 3)),
        "rotations": Rotation.random(35, rng=rng).as_matrix().reshape(7, 5, 3, 3),
        "frame_seconds": 1 / 24,
    }


def test_another_reader_finds_every_joint_where_it_is(motion, tmp_path):
    bvh = read(make_bvh(**motion), tmp_path)
    assert bvh.joint_names == ["root", "left_leg", "left_foot", "right_leg", "spine"]
    assert bvh.frame_time == pytest.approx(1 / 24, abs=1e-9)
    found = bvh.node_positions()
    turned, places = {}, {}
    for joint, (name, parent) in enumerate(zip(NAMES, PARENTS, strict=True)):
        local = motion["rotations"][:, joint]
        if parent < 0:
            turned[joint], places[joint] = local, motion["root_positions"]
        else:
            turned[joint] = turned[parent] @ local
            places[joint] = places[parent] + turned[parent] @ motion["offsets"][joint]
        assert found[:, bvh.node_index[name]] == pytest.approx(places[joint], abs=1e-5)


def test_angles_run_on_instead_of_jumping(motion, tmp_path):
    turns = np.linspace(0, 720, 60)
    rotations = np.tile(np.eye(3), (60, 5, 1, 1))
    rotations[:, 1] = Rotation.from_euler("z", turns[:, None], degrees=True).as_matrix()
    motion |= {"rotations": rotations, "root_positions": np.zeros((60, 3))}
    rows = make_bvh(**motion).split("Frame Time")[1].splitlines()[1:]
    angles = np.array([row.split() for row in rows], float)
    assert angles[:, 6] == pytest.approx(turns, abs=1e-4)


def test_euler_angles_give_the_rotation_back_where_two_axes_coincide_too():
    angles = np.array([[20, 90, 30], [20, -90, 30], [-170, 89.9999, 12], [10, 20, 30], [0, 0, 180]])
    rotations = Rotation.from_euler("ZXY", angles, degrees=True).as_matrix()
    back = Rotation.from_euler("ZXY", euler_zxy(rotations)).as_matrix()
    assert back == pytest.approx(rotations, abs=1e-6)
