import numpy as np
import pytest
import smplx
import torch

from human_models.files import STAND_IN
from main.characters.character import read_character, without_gaps
from main.characters.formats import write_amass

PARTS = (
    *("global_orient", "body_pose", "jaw_pose", "leye_pose", "reye_pose"),
    *("left_hand_pose", "right_hand_pose"),
)


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
    parts = dict(
        zip(
            PARTS,
            poses.split([3, 63, 3, 3, 3, 45, 45], dim=1),
            strict=True,
        )
    )
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
