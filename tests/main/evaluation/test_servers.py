"""Names and contents of what the test servers take."""

import pickle
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import pytest

from human_models.safe_pickle import load_pickle
from main.evaluation.servers import (
    AGORA,
    BEDLAM,
    Prediction,
    agora_record,
    agora_stem,
    bedlam_record,
    bedlam_stem,
)
from main.evaluation.submission import person_name, pickled, write_submission
from utils.errors import UserError

SIZES = {
    "global_orient": 3,
    "body_pose": 63,
    "left_hand_pose": 45,
    "right_hand_pose": 45,
    "jaw_pose": 3,
    "betas": 10,
    "expression": 10,
    "transl": 3,
}


def prediction(path="a/b.png", size=(1280, 720), vertices=True):
    rng = np.random.default_rng(0)
    return Prediction(
        Path(path),
        size,
        {name: rng.random(count, np.float32) for name, count in SIZES.items()},
        rng.uniform(100, 700, (144, 2)).astype(np.float32),
        rng.random((144, 3), np.float32),
        rng.random((10475, 3), np.float32) if vertices else None,
    )


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("test/ag_testset_5_15_00001.png", "ag_testset_5_15_00001_personId_2.pkl"),
        ("test_crop/ag_testset_5_15_00001_pid_7.png", "ag_testset_5_15_00001_personId_2.pkl"),
        ("ag_validationset_5_15_00001_ann_id_31.png", "ag_validationset_5_15_00001_personId_2.pkl"),
        ("ag_validationset_5_15_00001_1280x720.png", "ag_validationset_5_15_00001_personId_2.pkl"),
    ],
)
def test_agora_names(image, name):
    assert person_name(agora_stem(Path(image)), 2) == name


def test_bedlam_names():
    image = Path("/data/20221019_scene_6fps/png/seq_000003/seq_000003_0010.png")
    name = "20221019_scene_6fps_frameID_seq_000003_0010_personId_0.pkl"
    assert person_name(bedlam_stem(image), 0) == name


@pytest.mark.parametrize("image", ["seq_3_0010.png", "scene/jpg/seq_3/a.png", "png/seq_3/a.png"])
def test_bedlam_images_out_of_their_folders_are_reported(image):
    with pytest.raises(UserError, match="SCENE/png/SEQUENCE"):
        bedlam_stem(Path(image))


def test_people_are_counted_by_image_in_whatever_order_they_come(tmp_path):
    people = [prediction(f"test/{image}.png", vertices=False) for image in "abaab"]
    write_submission(tmp_path / "a.zip", people, AGORA)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert [Path(name).name for name in archive.namelist()] == [
            *("a_personId_0.pkl", "b_personId_0.pkl", "a_personId_1.pkl"),
            *("a_personId_2.pkl", "b_personId_1.pkl"),
        ]


@pytest.mark.parametrize("other", ["test/a_1280x720.png", "copy/a.png"])
def test_two_images_of_one_name_are_reported(other, tmp_path):
    people = [prediction(image, vertices=False) for image in ("test/a.png", other)]
    with pytest.raises(UserError, match="leave one out"):
        write_submission(tmp_path / "a.zip", people, AGORA)


@pytest.mark.parametrize("size", [(1280, 720), (3840, 2160), (1920, 1080), (480, 270)])
def test_agora_joints_are_in_pixels_of_3840x2160(size):
    person = prediction(size=size)
    joints = agora_record(person)["joints"]
    assert joints.shape == (24, 2)
    np.testing.assert_allclose(joints, person.joints_2d_px[:24] * (3840 / size[0]), rtol=1e-6)


@pytest.mark.parametrize("size", [(256, 192), (720, 1280), (1280, 700)])
def test_agora_crops_are_reported(size):
    with pytest.raises(UserError, match="not a whole image"):
        agora_record(prediction(size=size))


def test_agora_parameters_have_an_axis_of_one_person_and_eyes():
    person = prediction(vertices=False)
    record = agora_record(person)
    assert record.keys() == {"params", "joints"}
    shapes = {name: value.shape for name, value in record["params"].items()}
    assert shapes == {n: (1, k) for n, k in {**SIZES, "leye_pose": 3, "reye_pose": 3}.items()}
    np.testing.assert_array_equal(record["params"]["body_pose"][0], person.parameters["body_pose"])
    assert not record["params"]["leye_pose"].any()


def test_bedlam_record_is_in_one_frame():
    person = prediction()
    record = bedlam_record(person)
    assert record.keys() == {"joints", "verts", "allSmplJoints3d"}
    np.testing.assert_array_equal(record["joints"], person.joints_2d_px[:24])
    np.testing.assert_array_equal(record["verts"], person.vertices_m)
    np.testing.assert_array_equal(record["allSmplJoints3d"], person.joints_3d_m[:127])


@pytest.mark.parametrize("server", [AGORA, BEDLAM])
def test_pickles_read_back_also_where_numpy_is_old(server, tmp_path):
    record = server.record(prediction())
    content = pickled(record)
    (tmp_path / "a.pkl").write_bytes(content)
    for found in (load_pickle(tmp_path / "a.pkl"), pickle.loads(content)):
        assert found.keys() == record.keys()
        np.testing.assert_array_equal(found["joints"], record["joints"])
        assert found["joints"].flags.writeable
    opcodes = list(pickletools.genops(content))
    assert max(opcode.proto for opcode, _, _ in opcodes) <= 3
    assert {argument for opcode, argument, _ in opcodes if opcode.name == "GLOBAL"} == {
        *("numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype")
    }
