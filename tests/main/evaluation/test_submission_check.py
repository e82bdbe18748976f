"""The checker lets right submissions pass and reports every known mistake in wrong ones."""

import copy
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from main.evaluation.servers import AGORA, BEDLAM, SERVERS, check_record, check_submission
from main.evaluation.submission import pickled
from utils.errors import UserError

VECTORS = {
    "transl": 3,
    "global_orient": 3,
    "body_pose": 63,
    "left_hand_pose": 45,
    "right_hand_pose": 45,
    "jaw_pose": 3,
    "leye_pose": 3,
    "reye_pose": 3,
    "expression": 10,
    "betas": 10,
}
STEMS = {"agora": "ag_testset_1", "bedlam": "scene_6fps_frameID_seq_0_0010"}


def agora_record():
    rng = np.random.default_rng(0)
    return {
        "params": {name: rng.random((1, n), np.float32) for name, n in VECTORS.items()},
        "joints": rng.uniform([1400, 100], [3000, 2100], (24, 2)).astype(np.float32),
    }


def mesh_record():
    """A body of 1.8 m, five metres away."""
    rng = np.random.default_rng(0)
    low, high = np.array([[-0.4, -0.9, 4.8], [0.4, 0.9, 5.2]], np.float32)
    vertices = rng.uniform(low, high, (10475, 3)).astype(np.float32)
    vertices[:2] = low, high
    return {
        "joints": rng.uniform([400, 100], [900, 700], (24, 2)).astype(np.float32),
        "verts": vertices,
        "allSmplJoints3d": rng.uniform(low, high, (127, 3)).astype(np.float32),
    }


RECORDS = {"agora": agora_record(), "bedlam": mesh_record()}


def name(server, k=0, stem=None):
    return f"predictions/{stem or STEMS[server.name]}_personId_{k}.pkl"


def write(path, members):
    """A zip of (name, content); a content that is no bytes is pickled."""
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members:
            content = content if isinstance(content, bytes) else pickled(content)
            archive.writestr(member, content)
    return path


def problems(record, server=AGORA):
    return [f"{level}: {what}" for level, what in check_record(record, server)]


def changed(record, **changes):
    """A copy; None takes a key away, `params_x` changes a parameter."""
    record = copy.deepcopy(record)
    for key, value in changes.items():
        holder, key = (
            (record["params"], key.removeprefix("params_"))
            if key.startswith("params_")
            else (record, key)
        )
        if value is None:
            del holder[key]
        else:
            holder[key] = value
    return record


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
@pytest.mark.parametrize("form", ["zip", "folder", "folder above"])
def test_right_submissions_pass(server, form, tmp_path):
    record = RECORDS[server.name]
    stem = STEMS[server.name]
    members = [(name(server, k, stem + s), record) for s in ("", "b") for k in (1, 0)]
    path = write(tmp_path / "a.zip", members)
    if form != "zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "unpacked")
        path = tmp_path / "unpacked" / ("predictions" if form == "folder" else "")
    check = check_submission(path, server)
    assert check == (2, 4, [])
    assert check.errors == 0


def test_agora_takes_a_mesh_and_matrices_too():
    assert problems(changed(mesh_record(), joints=agora_record()["joints"])) == []
    record = agora_record()
    for key, value in record["params"].items():
        if key.endswith(("pose", "orient")):
            record["params"][key] = np.zeros((1, value.shape[1] // 3, 3, 3), np.float32)
    assert problems(changed(record, pose2rot=False)) == []
    assert len(problems(record)) == 7  # said to be vectors, and are not


def test_options_of_agora():
    kid = {"kid_flag": True, "num_betas": 11, "params_betas": np.zeros((1, 11))}
    assert problems(changed(agora_record(), gender="male", age="kid", **kid)) == []
    assert problems(changed(agora_record(), num_betas=np.array(10), pose2rot=np.True_)) == []


ONE = np.zeros((1, 144, 2), np.float32)
NAN = np.full((24, 2), np.nan, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joints": ONE}, "error: joints are (1, 144, 2), not (24, 2)"),
        ({"joints": np.ones((22, 2), np.float32)}, "error: joints are (22, 2), not"),
        ({"joints": None}, "error: joints is missing"),
        ({"joints": NAN}, "error: joints has NaN"),
        ({"joints": [[0.0, 0.0]] * 24}, "error: joints is a list, not a NumPy array"),
        ({"joints": np.array([["a", "b"]] * 24)}, "error: joints is of type"),
        ({"joints": np.full((144, 2), 1500.0)}, "warning: joints are (144, 2): the box uses all"),
        ({"joints": np.full((24, 2), -1.0)}, "warning: no joint lies in the image of 3840x2160"),
        ({"joints": np.full((24, 2), 1e5)}, "warning: joints lie far outside"),
        ({"params": None}, "error: neither params nor verts with allSmplJoints3d"),
        ({"params": []}, "error: params is a list"),
        ({"params_betas": None}, "error: params: betas is missing"),
        ({"params_transl": np.zeros(3)}, "error: params: transl is (3,), not (1, 3)"),
        ({"params_body_pose": np.zeros((1, 21, 3))}, "error: params: body_pose is (1, 21, 3)"),
        ({"params_jaw_pose": np.full((1, 3), np.inf)}, "error: params: jaw_pose has NaN"),
        ({"params_lhand_pose": np.zeros((1, 45))}, "warning: params: 'lhand_pose' is ignored"),
        ({"verts": np.zeros((10475, 3))}, "error: verts and allSmplJoints3d are both required"),
        ({"gender": "woman"}, "error: gender is woman, allowed: neutral, male, female"),
        ({"num_betas": 300}, "error: num_betas is 300, allowed: 10 to 299"),
        ({"num_betas": 16}, "error: params: betas is (1, 10), not (1, 16)"),
        ({"kid_flag": True}, "error: a kid needs num_betas 11"),
        ({"kid_flag": "yes"}, "error: kid_flag is yes"),
        ({"age": "kid"}, "warning: age is kid without kid_flag"),
        ({"vertices": np.zeros(3)}, "warning: 'vertices' is ignored"),
    ],
)
def test_mistakes_in_parameters_are_reported(changes, message):
    found = problems(changed(agora_record(), **changes))
    assert [line for line in found if line.startswith(message)], found


MESH = mesh_record()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verts": MESH["verts"][:6890]}, "error: verts are (6890, 3), not (10475, 3)"),
        ({"verts": MESH["verts"][:, :2]}, "error: verts are (10475, 2)"),
        ({"verts": None}, "error: verts and allSmplJoints3d are both required"),
        ({"allSmplJoints3d": MESH["allSmplJoints3d"][:55]}, "error: allSmplJoints3d are (55, 3)"),
        (
            {"allSmplJoints3d": np.tile(MESH["allSmplJoints3d"], (2, 1))[:144]},
            "warning: allSmplJoints3d: 144, the first 127 count",
        ),
        (
            {"allSmplJoints3d": MESH["allSmplJoints3d"] - MESH["allSmplJoints3d"][0]},
            "error: joints are",
        ),
        ({"verts": MESH["verts"] - MESH["verts"].mean(0)}, "error: joints are 4.99"),
        (
            {"verts": MESH["verts"] * 1000, "allSmplJoints3d": MESH["allSmplJoints3d"] * 1000},
            "warning: the body measures 1800; verts must be in metres",
        ),
        ({"params": {}}, "warning: params are not checked"),
        ({"joints": ONE}, "error: joints are (1, 144, 2)"),
    ],
)
def test_mistakes_in_meshes_are_reported(changes, message):
    found = problems(changed(MESH, **changes), BEDLAM)
    assert len(found) == 1
    assert found[0].startswith(message)


def test_bedlam_takes_no_parameters():
    (found,) = problems(changed(agora_record(), joints=MESH["joints"]), BEDLAM)
    assert found == "error: params: bedlam accepts only verts and allSmplJoints3d"


def findings_of(path, server=AGORA):
    return [str(finding) for finding in check_submission(path, server).findings]


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 1, 3], "error: ag_testset_1: personId 2 is missing; count from 0"),
        ([1, 2], "error: ag_testset_1: personId 0 is missing; count from 0"),
        ([0, 1, 1], "error: ag_testset_1: personId 1 appears more than once"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_people_who_overwrote_each_other_are_reported(indices, message, tmp_path):
    members = [(name(AGORA, k), RECORDS["agora"]) for k in indices]
    assert findings_of(write(tmp_path / "a.zip", members)) == [message]


def test_one_person_in_every_image_is_reported(tmp_path):
    members = [(name(AGORA, 0, f"ag_{i}"), RECORDS["agora"]) for i in range(10)]
    (finding,) = findings_of(write(tmp_path / "a.zip", members))
    assert "warning" in finding
    assert "no image has a second person" in finding


def test_pixels_of_the_small_image_are_reported(tmp_path):
    small = changed(agora_record(), joints=agora_record()["joints"] / 3)
    (finding,) = findings_of(write(tmp_path / "a.zip", [(name(AGORA), small)]))
    assert finding.endswith("all joints lie within 1280x720; they must be pixels of 3840x2160")
    one_large = [(name(AGORA), small), (name(AGORA, 1), RECORDS["agora"])]
    assert findings_of(write(tmp_path / "b.zip", one_large)) == []


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("a_personId_0.pkl", "error: a_personId_0.pkl: is not directly in"),
        ("predictions/x/a_personId_0.pkl", "error: predictions/x/a_personId_0.pkl: is not"),
        ("predictions/a_person_0.pkl", "error: predictions/a_person_0.pkl: is not called"),
        ("predictions/a_personId_00.pkl", "error: predictions/a_personId_00.pkl: is not called"),
        ("predictions/a_personId_0.npz", "error: predictions/a_personId_0.npz: is not called"),
        (
            "predictions/a_1280x720_personId_0.pkl",
            "error: predictions/a_1280x720_personId_0.pkl: 'a_1280x720' is not an image name",
        ),
        (
            "predictions/a_pid_3_personId_0.pkl",
            "error: predictions/a_pid_3_personId_0.pkl: 'a_pid_3' is not an image name",
        ),
        ("__MACOSX/predictions/._a", "warning: __MACOSX/predictions/._a: the server ignores this"),
        ("predictions/.DS_Store", "warning: predictions/.DS_Store: the server ignores this"),
    ],
)
def test_names_and_places_are_reported(member, message, tmp_path):
    path = write(tmp_path / "a.zip", [(name(AGORA), RECORDS["agora"]), (member, RECORDS["agora"])])
    (found,) = findings_of(path)
    assert found.startswith(message)


def test_bedlam_names_have_their_scene(tmp_path):
    path = write(tmp_path / "a.zip", [(name(BEDLAM, 0, "seq_0_0010"), RECORDS["bedlam"])])
    (found,) = findings_of(path, BEDLAM)
    assert "'seq_0_0010' is not an image name of bedlam" in found


class Rogue:
    def __reduce__(self):
        return eval, ("1",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Rogue()), "not a pickle of plain arrays (refused to run 'builtins.eval')"),
        (pickle.dumps({"joints": torch.zeros(24, 2)}), "refused to run 'torch._utils._rebuild"),
        (pickled(RECORDS["agora"])[:500], "not a pickle of plain arrays (is damaged"),
        (b"", "not a pickle of plain arrays (is damaged"),
        (pickle.dumps([1]), "contains a list, not a dictionary"),
        (pickle.dumps(RECORDS["agora"]), "refers to numpy._core"),
    ],
)
def test_what_is_no_plain_pickle_is_reported(content, message, tmp_path):
    (found,) = findings_of(write(tmp_path / "a.zip", [(name(AGORA), content)]))
    assert message in found
    assert "\n" not in found
    assert "/tmp" not in found.removeprefix(str(tmp_path))


def test_damage_in_the_zip_is_reported(tmp_path):
    path = write(tmp_path / "a.zip", [(name(AGORA), RECORDS["agora"])])
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)
    assert "damaged in the zip (Bad CRC-32" in findings_of(path)[0]


def test_nothing_to_check_is_reported(tmp_path):
    (found,) = findings_of(write(tmp_path / "a.zip", []))
    assert "no person's pickle is in the folder predictions/" in found
    with pytest.raises(UserError, match="no such file"):
        check_submission(tmp_path / "b.zip", AGORA)
    (tmp_path / "c.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="is not a zip"):
        check_submission(tmp_path / "c.zip", AGORA)


def test_absurd_numbers_of_people_are_reported_at_once(tmp_path):
    for digits in ("300000000", "9" * 200):
        path = write(tmp_path / "x.zip", [(name(AGORA, digits), RECORDS["agora"])])
        (finding,) = [line for line in findings_of(path) if "personId" in line.split(": ")[2]]
        assert "over 10000" in finding
    path = write(tmp_path / "x.zip", [(name(AGORA, 9999), RECORDS["agora"])])
    assert any("and 9979 more is missing" in line for line in findings_of(path))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_of_every_compression_is_reported(method, tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name(AGORA), pickled(RECORDS["agora"]))
        start = archive.start_dir
    content = bytearray(path.read_bytes())
    for place in range(80, start, 7):
        content[place] ^= 0x5A
    path.write_bytes(content)
    assert any("damaged in the zip" in line for line in findings_of(path))


def test_names_of_several_lines_and_upwards_are_one_line(tmp_path):
    path = write(tmp_path / "x.zip", [("a\nb.pkl", b""), ("../../up.pkl", b""), ("/abs.pkl", b"")])
    findings = findings_of(path)
    assert sum("is not directly in the folder" in line for line in findings) == 3
    assert not any("\n" in line for line in findings)
    assert not (tmp_path.parent.parent / "up.pkl").exists()


def test_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "x.zip")
    with pytest.raises(UserError, match="named pipe"):
        check_submission(tmp_path / "x.zip", AGORA)


def test_empty_meshes_are_reported():
    record = changed(mesh_record(), verts=np.zeros((0, 3)), allSmplJoints3d=np.zeros((0, 3)))
    assert any("verts are (0, 3)" in line for line in problems(record, BEDLAM))
