import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from human_models.joints import RIG_JOINTS
from human_models.safe_pickle import load_npz
from main.characters.character import TO_WORLD, at_origin, read_character, without_gaps
from utils.errors import UserError

PARAMETERS = (
    *("global_orient", "body_pose", "left_hand_pose", "right_hand_pose"),
    *("jaw_pose", "betas", "expression", "transl"),
)


@pytest.fixture
def file(result):
    return result / "person_001.npz"


def changed(file, folder, **changes):
    path = folder / "person_003.npz"
    np.savez(path, **(load_npz(file) | changes))
    return path


@torch.inference_mode()
def vertices(body, parameters):
    return body(**{name: torch.as_tensor(value) for name, value in parameters.items()}).vertices


@pytest.mark.parametrize("up", ["y", "z"])
def test_the_character_stands_where_the_result_has_the_person(file, body, up):
    character = read_character(file, body, up)
    rows = slice(0, 48, 12)
    columns = {name: load_npz(file)[name][rows] for name in PARAMETERS}
    columns["betas"] = np.tile(character.betas, (len(columns["betas"]), 1)).astype(np.float32)
    # The pelvis stays where it was with the frame's own shape.
    own = torch.as_tensor(load_npz(file)["betas"][rows])
    shared = torch.as_tensor(columns["betas"])
    moved = (body.rest_joints(own) - body.rest_joints(shared))[:, 0].numpy()
    seen = vertices(body, columns).numpy() + moved[:, None]
    parameters = {name: value[rows] for name, value in character.body_parameters(body).items()}
    expected = seen @ np.array(TO_WORLD[up], np.float32).T
    assert vertices(body, parameters).numpy() == pytest.approx(expected, abs=2e-5)


def test_the_world_is_upright_and_faces_the_viewer(file, body):
    for up, height, toward_viewer in (("y", 1, [0, 0, 1]), ("z", 2, [0, -1, 0])):
        character = read_character(file, body, up)
        root = character.rotations[0, 0]
        assert root[:, 1] == pytest.approx(np.eye(3)[height], abs=1e-6), "the spine's direction"
        assert root[:, 2] == pytest.approx(toward_viewer, abs=1e-6), "the belly's direction"


def test_hands_are_absolute_whatever_the_file_counts_from(file, body, tmp_path):
    first_index = RIG_JOINTS.index("left_index1")
    character = read_character(file, body)
    content = load_npz(file)
    hand = content["left_hand_pose"][5, :3] + body.mean_pose[first_index].numpy()
    expected = Rotation.from_rotvec(hand).as_matrix()
    assert character.rotations[5, first_index] == pytest.approx(expected, abs=1e-6)
    flat = changed(file, tmp_path, flat_hand_mean=np.bool_(True))
    expected = Rotation.from_rotvec(content["left_hand_pose"][5, :3]).as_matrix()
    found = read_character(flat, body).rotations[5, first_index]
    assert found == pytest.approx(expected, abs=1e-6)


def test_one_shape_and_the_times_of_the_video(file, body):
    character = read_character(file, body)
    assert character.betas == pytest.approx(load_npz(file)["betas"].mean(axis=0), abs=1e-6)
    assert character.times_s[[0, 19, 20]] == pytest.approx([0, 19 / 24, 23 / 24])


def test_gaps_turn_along_the_shortest_arc(file, body):
    character = read_character(file, body)
    steady = without_gaps(character)
    assert steady.frame_index.tolist() == list(range(48))
    assert np.flatnonzero(steady.interpolated).tolist() == [20, 21, 22]
    assert steady.rotations[23] == pytest.approx(character.rotations[20], abs=1e-6)
    between = steady.pelvis_m[19] * 0.5 + steady.pelvis_m[23] * 0.5
    assert steady.pelvis_m[21] == pytest.approx(between)
    knee = RIG_JOINTS.index("left_knee")
    ends = Rotation.from_matrix(steady.rotations[[19, 23], knee])
    half = Rotation.from_matrix(steady.rotations[21, knee])
    whole = (ends[0].inv() * ends[1]).magnitude()
    assert (ends[0].inv() * half).magnitude() == pytest.approx(whole / 2)
    assert without_gaps(steady) is steady


@pytest.mark.parametrize(("up", "height"), [("y", 1), ("z", 2)])
def test_at_origin_the_feet_are_at_height_zero(file, body, up, height):
    character = at_origin(read_character(file, body, up), body)
    lowest = vertices(body, character.body_parameters(body))[..., height].min(dim=1).values
    assert abs(float(lowest.median())) < 0.01
    flat = [axis for axis in range(3) if axis != height]
    assert character.pelvis_m[0, flat] == pytest.approx([0, 0])


def test_what_is_wrong_with_a_file_is_reported_in_one_line(file, body, tmp_path):
    content = load_npz(file)
    bad = content["transl"].copy()
    bad[3] = np.nan
    for changes, message in (
        ({"transl": bad}, "'transl' is not"),
        ({"betas": content["betas"][:, :4]}, "'betas' is not"),
        ({"fps": np.float64(0)}, "not a frame rate"),
        ({"frame_index": np.zeros(45, np.int32)}, "a frame twice"),
    ):
        with pytest.raises(UserError, match=message) as error:
            read_character(changed(file, tmp_path, **changes), body)
        assert "\n" not in str(error.value)
    lacking = tmp_path / "person_004.npz"
    np.savez(lacking, **{name: content[name] for name in content if name != "jaw_pose"})
    with pytest.raises(UserError, match="lacks 'jaw_pose'"):
        read_character(lacking, body)
