"""Finding and reading the files of body models."""

import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from human_models import files
from human_models.files import (
    GENDERS,
    STAND_IN,
    STAND_IN_NAME,
    Gender,
    ModelFolder,
    find_model_folder,
    read_body,
    read_hand_vertices,
    read_head_vertices,
    read_j14_regressor,
    read_smplx_to_smpl,
)
from human_models.joints import RIG_PARENTS, SMPL_PARENTS
from utils.errors import UserError


@pytest.fixture(scope="module")
def folder(random_body_folder: Path) -> ModelFolder:
    return ModelFolder(random_body_folder, "SMPL-X")


@pytest.fixture(scope="module")
def smpl_content(random_body_folder: Path) -> dict[str, np.ndarray]:
    with (random_body_folder / "smpl" / "SMPL_MALE.pkl").open("rb") as file:
        content: dict[str, np.ndarray] = pickle.load(file)
    return content


def put(folder: Path, rig: str, name: str, content: object) -> ModelFolder:
    path = folder / rig / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        path.symlink_to(content)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, 2))
    elif isinstance(content, dict):
        np.savez(path, **content)
    return ModelFolder(folder, "SMPL-X")


# ---- body models


def test_smplx(folder: ModelFolder) -> None:
    body = read_body(folder, "smplx", "female")
    with np.load(folder.path / "smplx" / "SMPLX_FEMALE.npz") as content:
        np.testing.assert_array_equal(body.template, content["v_template"].astype(np.float32))
        directions = content["shapedirs"].astype(np.float32)
        np.testing.assert_array_equal(body.shape_directions, directions[..., :10])
        np.testing.assert_array_equal(body.expression_directions, directions[..., 10:20])
        np.testing.assert_array_equal(body.hands_mean["right"], np.float32(content["hands_meanr"]))
        assert body.landmarks is not None
        assert body.contour is not None
        np.testing.assert_array_equal(
            body.landmarks.corners, content["f"][content["lmk_faces_idx"]]
        )
        np.testing.assert_array_equal(
            body.contour.corners, content["f"][content["dynamic_lmk_faces_idx"]]
        )
    assert body.contour.barycentrics.shape == (79, 17, 3)
    assert body.parents == RIG_PARENTS, "the root's parent is written as 4294967295"
    assert (body.name, body.rig, body.gender) == ("SMPL-X", "smplx", "female")
    assert body.source == folder.path / "smplx" / "SMPLX_FEMALE.npz"
    arrays = [value for value in vars(body).values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 7
    assert {array.dtype for array in arrays} == {np.dtype("f4"), np.dtype("i8")}


def test_smpl(folder: ModelFolder) -> None:
    body = read_body(folder, "smpl", "male")
    assert body.template.shape == (6890, 3)
    assert body.shape_directions.shape == (6890, 3, 10)
    assert body.expression_directions.shape == (6890, 3, 0)
    assert body.parents == SMPL_PARENTS
    assert body.name == "SMPL"
    assert body.hands_mean == {}
    assert body.landmarks is None


@pytest.mark.parametrize(
    ("gender", "name"),
    [
        ("neutral", "SMPL_NEUTRAL.pkl"),
        ("neutral", "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl"),
        ("neutral", "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl"),
        ("male", "basicmodel_m_lbs_10_207_0_v1.0.0.pkl"),
        ("male", "basicmodel_m_lbs_10_207_0_v1.1.0.pkl"),
        ("female", "basicModel_f_lbs_10_207_0_v1.0.0.pkl"),
    ],
)
def test_smpl_under_the_names_of_its_downloads(
    tmp_path: Path, random_body_folder: Path, gender: Gender, name: str
) -> None:
    folder = put(tmp_path, "smpl", name, random_body_folder / "smpl" / "SMPL_MALE.pkl")
    assert read_body(folder, "smpl", gender).source.name == name
    for other in set(GENDERS) - {gender}:
        with pytest.raises(UserError):
            read_body(folder, "smpl", other)


def test_npz_and_sparse_regressor(tmp_path: Path, smpl_content: dict[str, np.ndarray]) -> None:
    dense = read_body(put(tmp_path / "npz", "smpl", "SMPL_MALE.npz", smpl_content), "smpl", "male")
    sparse = smpl_content | {"J_regressor": scipy.sparse.csc_matrix(smpl_content["J_regressor"])}
    other = read_body(put(tmp_path / "pkl", "smpl", "SMPL_MALE.pkl", sparse), "smpl", "male")
    np.testing.assert_array_equal(dense.joint_regressor, other.joint_regressor)
    np.testing.assert_array_equal(dense.pose_directions, other.pose_directions)


def test_smplx_pickle(tmp_path: Path, folder: ModelFolder) -> None:
    with np.load(folder.path / "smplx" / "SMPLX_NEUTRAL.npz") as content:
        pickled = put(tmp_path, "smplx", "SMPLX_NEUTRAL.pkl", dict(content))
    body, same = read_body(folder, "smplx"), read_body(pickled, "smplx")
    np.testing.assert_array_equal(body.pose_directions, same.pose_directions)


def test_missing_file_says_which_where_and_whence(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path, "SMPL-X")
    with pytest.raises(UserError, match=r"smpl\.is\.tue\.mpg\.de") as error:
        read_body(folder, "smpl", "female")
    assert str(tmp_path / "smpl" / "SMPL_FEMALE.pkl") in str(error.value)
    with pytest.raises(UserError, match=r"SMPLX_MALE\.npz is missing.*smpl-x\.is\.tue\.mpg\.de"):
        read_body(folder, "smplx", "male")


@pytest.mark.parametrize(("count", "found"), [(9, "9 shape"), (13, "3 expression")])
def test_too_few_components(tmp_path: Path, folder: ModelFolder, count: int, found: str) -> None:
    with np.load(folder.path / "smplx" / "SMPLX_NEUTRAL.npz") as content:
        fewer = {**content, "shapedirs": content["shapedirs"][..., :count]}
    fewer_folder = put(tmp_path, "smplx", "SMPLX_NEUTRAL.npz", fewer)
    with pytest.raises(UserError, match=f"has {found} components, but 10 are needed"):
        read_body(fewer_folder, "smplx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"f": c["f"]}, "lacks the array 'shapedirs'"),
        (lambda c: c | {"weights": np.array(["a"])}, "has no numbers in 'weights'"),
        (lambda c: c | {"v_template": c["v_template"][:100]}, "is not an SMPL model of 6890"),
        (lambda c: c | {"kintree_table": c["kintree_table"][:, ::-1]}, "is not an SMPL model of"),
        (lambda c: c | {"posedirs": c["posedirs"][..., :9]}, "is not an SMPL model of 6890"),
        (lambda c: [1, 2], "contains no dictionary"),
    ],
)
def test_wrong_content(
    tmp_path: Path,
    smpl_content: dict[str, np.ndarray],
    change: Callable[[dict[str, np.ndarray]], object],
    message: str,
) -> None:
    folder = put(tmp_path, "smpl", "SMPL_MALE.pkl", change(smpl_content))
    with pytest.raises(UserError, match=message):
        read_body(folder, "smpl", "male")


# ---- which folder


def test_licensed_files_are_preferred(
    random_body_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_model_folder(random_body_folder)
    assert found == ModelFolder(random_body_folder, "SMPL-X")
    assert not caplog.records


def test_stand_in_where_licensed_files_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_model_folder(tmp_path / "absent")
    assert found == ModelFolder(STAND_IN, STAND_IN_NAME)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "absent" in caplog.text
    assert STAND_IN_NAME in caplog.text
    assert read_body(found, "smpl", "male").name == STAND_IN_NAME


def test_stand_in_given_as_the_folder_keeps_its_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = find_model_folder(STAND_IN)
    assert found.name == STAND_IN_NAME
    assert not caplog.records


def test_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "STAND_IN", tmp_path / "other")
    with pytest.raises(UserError, match=r"SMPLX_NEUTRAL\.npz is missing"):
        find_model_folder(tmp_path / "one")


OTHER_PLACES = {
    "as the archive unpacks": "files/models/smplx/SMPLX_NEUTRAL.npz",
    "with the archive's own folder": "files/smplx/models_smplx_v1_1/models/smplx/SMPLX_NEUTRAL.npz",
    "without a folder": "files/SMPLX_NEUTRAL.npz",
    "in lower case": "files/smplx/smplx_neutral.npz",
    "in mixed case": "files/smplx/SMPLX_Neutral.npz",
    "of 2020": "files/smplx/SMPLX_NEUTRAL_2020.npz",
    "beside the folder": "smplx/SMPLX_NEUTRAL.npz",
    "unpacked beside the folder": "models/smplx/SMPLX_NEUTRAL.npz",
}


@pytest.mark.parametrize("place", OTHER_PLACES)
def test_licensed_files_in_other_places_are_found(
    tmp_path: Path, random_body_folder: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / OTHER_PLACES[place]
    put(file.parent, "", file.name, random_body_folder / "smplx" / "SMPLX_NEUTRAL.npz")
    found = find_model_folder(tmp_path / "files")
    assert found.name == "SMPL-X"
    assert read_body(found, "smplx").source == file
    if file.parent != tmp_path / "files" / "smplx":
        assert str(file.parent) in caplog.text
    assert ("later model" in caplog.text) == ("2020" in file.name)


def test_licensed_file_of_the_usual_name_goes_first(
    tmp_path: Path, random_body_folder: Path
) -> None:
    known = random_body_folder / "smplx" / "SMPLX_NEUTRAL.npz"
    for place in OTHER_PLACES.values():
        put((tmp_path / place).parent, "", Path(place).name, known)
    usual = put(tmp_path / "files", "smplx", "SMPLX_NEUTRAL.npz", known)
    found = find_model_folder(tmp_path / "files")
    assert found == usual
    assert read_body(found, "smplx").source == usual.path / "smplx" / "SMPLX_NEUTRAL.npz"


def test_licensed_files_of_other_bodies_are_not_replaced(
    tmp_path: Path, random_body_folder: Path
) -> None:
    put(tmp_path, "smplx", "SMPLX_MALE.npz", random_body_folder / "smplx" / "SMPLX_MALE.npz")
    with pytest.raises(UserError, match=r"SMPLX_NEUTRAL\.npz is missing"):
        read_body(find_model_folder(tmp_path), "smplx")


def test_archive_that_is_not_unpacked_is_named(tmp_path: Path) -> None:
    (tmp_path / "models_smplx_v1_1.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"models_smplx_v1_1\.zip is not unpacked"):
        find_model_folder(tmp_path)


def test_tables_are_found_where_the_body_is(tmp_path: Path, random_body_folder: Path) -> None:
    name = "SMPLX_to_J14.pkl"
    folder = put(tmp_path, "models/smplx", name, random_body_folder / "smplx" / name)
    assert read_j14_regressor(folder).shape == (14, 10475)


# ---- regressor and vertex tables


def test_regressor_and_vertex_tables(folder: ModelFolder) -> None:
    j14 = read_j14_regressor(folder)
    assert j14.shape == (14, 10475)
    np.testing.assert_allclose(j14.sum(1), 1, rtol=1e-6)
    hands = read_hand_vertices(folder)
    assert hands["left"].shape == hands["right"].shape == (778,)
    assert not np.array_equal(hands["left"], hands["right"])
    assert read_head_vertices(folder).shape == (5023,)


@pytest.mark.parametrize("place", ["smplx", ""])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_matrix, scipy.sparse.coo_array])
def test_smplx_to_smpl(
    tmp_path: Path, place: str, form: Callable[[np.ndarray], np.ndarray]
) -> None:
    matrix = np.array([[0, 0.5, 0.5], [1, 0, 0]])
    folder = put(tmp_path, place, "smplx2smpl.pkl", {"matrix": form(matrix)})
    read = read_smplx_to_smpl(folder)
    assert isinstance(read, scipy.sparse.csr_matrix)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read.toarray(), matrix)


def test_missing_auxiliary_file(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path, "SMPL-X")
    for read in (read_j14_regressor, read_hand_vertices, read_head_vertices, read_smplx_to_smpl):
        with pytest.raises(UserError, match=r"is missing; get it from https://smpl-x\."):
            read(folder)


def test_auxiliary_file_without_a_matrix(tmp_path: Path) -> None:
    folder = put(tmp_path, "smplx", "smplx2smpl.pkl", {"else": 1})
    with pytest.raises(UserError, match="lacks the array 'matrix'"):
        read_smplx_to_smpl(folder)
