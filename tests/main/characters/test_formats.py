"""Files of BVH, AMASS, meshes and USD, as other programs read them; GLB has tests of its own."""

import numpy as np
import pybvh
import pytest
import smplx
import torch
from scipy.spatial.transform import Rotation

from human_models.files import STAND_IN
from human_models.joints import RIG_JOINTS
from main.characters.character import read_character, without_gaps
from main.characters.formats import (
    euler_zxy,
    make_bvh,
    write_amass,
    write_bvh,
    write_meshes,
    write_usd,
)
from main.characters.surfaces import make_layers, make_morphs
from utils.mesh import read_ply_vertices

NAMES = ("root", "left_leg", "right_leg", "left_foot", "spine")
PARENTS = (-1, 0, 0, 1, 0)
PARTS = (
    *("global_orient", "body_pose", "jaw_pose", "leye_pose", "reye_pose"),
    *("left_hand_pose", "right_hand_pose"),
)


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


@pytest.mark.parametrize("up", ["y", "z"])
def test_another_reader_finds_the_joints_to_a_millimetre(result, data, body, up, tmp_path):
    character = read_character(result / "person_001.npz", body, up)
    write_bvh(tmp_path / "one.bvh", character, data)
    bvh = pybvh.read_bvh_file(str(tmp_path / "one.bvh"))
    assert sorted(bvh.joint_names) == sorted(RIG_JOINTS)
    steady = without_gaps(character)
    assert bvh.frame_time == pytest.approx(1 / 24)
    assert bvh.frame_count == len(steady.frame_index) == 48
    with torch.inference_mode():
        joints = body(**steady.body_parameters(body), want_vertices=False).joints.numpy()
    found = bvh.node_positions()
    for number, name in enumerate(RIG_JOINTS):
        places_m = found[:, bvh.node_index[name]] / 100
        assert np.abs(places_m - joints[:, number]).max() < 0.001, name


def test_the_rest_pose_is_upright_and_fingers_end_at_their_tips(result, data, body, tmp_path):
    for up, height in (("y", 1), ("z", 2)):
        character = read_character(result / "person_002.npz", body, up)
        write_bvh(tmp_path / "one.bvh", character, data)
        bvh = pybvh.read_bvh_file(str(tmp_path / "one.bvh"))
        nodes = {node.name: node for node in bvh.nodes}
        assert nodes["head"].offset[height] > 5
        assert nodes["left_knee"].offset[height] < -25
        tip = nodes["left_index3"].children[0]
        assert 1 < np.linalg.norm(tip.offset) < 4


@pytest.mark.parametrize("up", ["y", "z"])
def test_the_smplx_package_with_flat_hands_gives_the_same_vertices(
    result, data, body, up, tmp_path
):
    character = read_character(result / "person_001.npz", body, up)
    write_amass(tmp_path / "one.npz", character, data)
    with np.load(tmp_path / "one.npz") as file:  # allow_pickle stays False
        content = dict(file)
    rows = [0, 9, 21, 47]
    poses = torch.from_numpy(content["poses"][rows]).float()
    parts = dict(zip(PARTS, poses.split([3, 63, 3, 3, 3, 45, 45], dim=1), strict=True))
    model = smplx.create(
        STAND_IN,
        model_type=str(content["surface_model_type"]),
        gender=str(content["gender"]),
        use_pca=False,
        flat_hand_mean=True,
        batch_size=len(rows),
    )
    with torch.inference_mode():
        theirs = model(
            **parts,
            betas=torch.from_numpy(content["betas"]).float().expand(len(rows), -1),
            expression=torch.from_numpy(content["expression"][rows]).float(),
            transl=torch.from_numpy(content["trans"][rows]).float(),
        ).vertices.numpy()
        parameters = without_gaps(character).body_parameters(body)
        ours = body(**{name: value[rows] for name, value in parameters.items()}).vertices.numpy()
    assert theirs == pytest.approx(ours, abs=5e-5)


def test_fields_are_those_of_amass(result, data, body, tmp_path):
    write_amass(tmp_path / "one.npz", read_character(result / "person_001.npz", body, "z"), data)
    with np.load(tmp_path / "one.npz") as file:
        content = dict(file)
    pieces = [content[name] for name in ("root_orient", "pose_body", "pose_jaw", "pose_eye")]
    joined = np.concatenate([*pieces, content["pose_hand"]], axis=1)
    assert np.array_equal(joined, content["poses"])
    assert content["poses"].shape == (48, 165)
    assert content["mocap_frame_rate"] == content["mocap_framerate"] == 24
    assert content["mocap_time_length"] == pytest.approx(2)
    assert content["gender"].dtype.kind == content["surface_model_type"].dtype.kind == "U"
    assert str(content["up_axis"]) == "z"
    assert bool(content["flat_hand_mean"])
    assert np.flatnonzero(content["interpolated"]).tolist() == [20, 21, 22]


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


def test_usd_itself_bakes_the_vertices_of_the_body_model(result, data, body, tmp_path):
    pytest.importorskip("pxr", reason="usd-core is optional: pip install usd-core")
    from pxr import Gf, Usd, UsdGeom, UsdSkel

    character = read_character(result / "person_001.npz", body)
    write_usd(tmp_path / "one.usdc", character, data, 1)
    stage = Usd.Stage.Open(str(tmp_path / "one.usdc"))
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0, 47)
    assert stage.GetTimeCodesPerSecond() == 24
    root = UsdSkel.Root(stage.GetDefaultPrim())
    assert UsdSkel.BakeSkinning(root, Gf.Interval(0, 30))
    layers, _ = make_layers(
        data, character.betas, 1, make_morphs(character.expression), clothes=True
    )
    for frame in (0, 9, 30):
        row = character.frame_index.tolist().index(frame)
        parameters = {name: value[[row]] for name, value in character.body_parameters(body).items()}
        with torch.inference_mode():
            expected = body(**parameters).vertices[0].numpy()[layers[0].points]
        mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/person_001/body"))
        baked = np.array(mesh.GetPointsAttr().Get(frame))
        apart = np.linalg.norm(baked - expected, axis=1)
        # Pose correctives and a fifth joint are not in it.
        assert apart.mean() < 0.0005
        assert np.percentile(apart, 99.5) < 0.005
    assert stage.GetPrimAtPath("/person_001/shirt").IsValid()
