"""A result against the truth of its video."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from human_models.joints import JOINTS
from main.evaluation import scoring
from main.evaluation import truth as truth_files
from main.evaluation.metrics import world_errors
from main.pipeline.detection import Detection
from main.pipeline.pipeline import Tools
from main.score import main
from main.test import main as main_test
from utils.camera import Box

TRUTH = Path(__file__).parents[3] / "demo" / "test_video_truth.npz"


@pytest.fixture(scope="module")
def bodies():
    return BodyLibrary(find_model_folder(Path("no_such_folder")))


@pytest.fixture(scope="module")
def truth():
    """The first frames of the bundled video."""
    people = truth_files.read_truth(TRUTH)
    kept = people.frames < 4
    parameters = {name: values[kept] for name, values in people.parameters.items()}
    return truth_files.PersonRows(people.frames[kept], people.boxes[kept], parameters)


def changed(people, **parameters):
    return people._replace(parameters={**people.parameters, **parameters})


def test_the_truth_is_perfect(truth, bodies):
    found = scoring.score(truth, truth, bodies)
    assert (found.recall, found.precision) == (1, 1)
    assert found.metrics["mpvpe_all"] == {
        "mean": pytest.approx(0, abs=1e-3),
        "count": len(truth.frames),
    }


def test_a_wrong_pose_costs_and_people_are_not_mixed_up(truth, bodies):
    bent = truth.parameters["body_pose"] + 0.3
    assert (
        scoring.score(changed(truth, body_pose=bent), truth, bodies).metrics["mpvpe_all"]["mean"]
        > 50
    )
    order = np.random.default_rng(0).permutation(len(truth.frames))
    shuffled = truth_files.PersonRows(
        truth.frames[order],
        truth.boxes[order],
        {name: values[order] for name, values in truth.parameters.items()},
    )
    assert scoring.score(shuffled, truth, bodies).metrics["mpvpe_all"]["mean"] < 1e-2


def test_missed_and_invented_people_are_counted(truth, bodies):
    seen = truth.frames > 0
    fewer = truth_files.PersonRows(
        truth.frames[seen],
        truth.boxes[seen],
        {name: values[seen] for name, values in truth.parameters.items()},
    )
    assert scoring.score(fewer, truth, bodies).recall == pytest.approx(seen.mean())
    far = truth._replace(boxes=np.where(truth.frames[:, None] == 1, 9000.0, truth.boxes))
    found = scoring.score(far, truth, bodies)
    assert found.recall == found.precision == pytest.approx((truth.frames != 1).mean())


def test_command(tmp_path, truth, capsys):
    result = tmp_path / "result"
    result.mkdir()
    # One file per person: the people of a frame are distributed in the order of their rows.
    order = np.argsort(truth.frames, kind="stable")
    frames = truth.frames[order]
    numbers = np.arange(len(frames)) - np.searchsorted(frames, frames)
    for number in np.unique(numbers):
        rows = order[numbers == number]
        np.savez(
            result / f"person_{number + 1:03d}.npz",
            frame_index=truth.frames[rows],
            box_xywh=truth.boxes[rows],
            **{name: values[rows] for name, values in truth.parameters.items()},
        )
    assert main([str(result), str(TRUTH)]) == 0
    written = json.loads((result / "score.json").read_text())
    rows = len(truth_files.read_truth(TRUTH).frames)
    assert written["recall"] == pytest.approx(len(truth.frames) / rows)
    assert "mpvpe_all" in capsys.readouterr().out
    assert main([str(tmp_path), str(TRUTH)]) == 2
    assert main([str(result), str(result / "person_001.npz")]) == 2


@pytest.fixture
def walk(bodies):
    """Someone who moves in the world for 120 frames: parameters of SMPL-X, and joints."""
    times = np.arange(120, dtype=np.float32) / 30
    given = {
        "global_orient": np.zeros((120, 3), np.float32),
        "body_pose": np.zeros((120, 63), np.float32),
        "betas": np.zeros((120, 10), np.float32),
        "transl": np.stack([times, np.sin(times), np.zeros(120, np.float32)], axis=1),
    }
    tensors = {name: torch.from_numpy(values) for name, values in given.items()}
    return given, truth_files._track(
        np.arange(120), np.full((120, 4), np.nan), tensors, bodies
    ).joints


def write_world(folder, joints, frames=None):
    count = len(joints)
    np.savez(
        folder / "person_001.npz",
        frame_index=np.arange(count) if frames is None else frames,
        box_xywh=np.tile(np.float32([10, 20, 30, 40]), (count, 1)),
        fps=np.array(30.0),
        world_joints_3d_m=joints.astype(np.float32),
    )


def world_means(folder):
    written = json.loads((folder / "score.json").read_text())["world"]
    return {name: value["mean"] for name, value in written.items()}


def test_world_metrics_do_what_they_say(walk):
    _, joints = walk
    same = world_errors(joints, joints, 30)
    assert max(same[name] for name in ("wa_mpjpe", "w_mpjpe", "rte")) < 1e-3
    # Another world, another scale: only the rigid alignment of the way notices.
    turn = Rotation.from_rotvec([0.3, 1.0, 0.2]).as_matrix()
    moved = world_errors(1.1 * joints @ turn.T + [5, 0, 2], joints, 30)
    assert max(moved["wa_mpjpe"], moved["w_mpjpe"]) < 1e-3
    assert 1 < moved["rte"] < 10
    # A drift of 1 cm per frame: the first two frames say nothing of it, all frames most.
    drift = world_errors(joints + np.arange(120)[:, None, None] * [0, 0, 0.01], joints, 30)
    assert drift["w_mpjpe"] > 2 * drift["wa_mpjpe"] > 10
    still = np.repeat(joints[:1], 120, axis=0)
    slid = world_errors(still + np.arange(120)[:, None, None] * [0.002, 0, 0], still, 30)
    assert slid["foot_sliding"] == pytest.approx(6, rel=1e-3)
    assert np.isnan(slid["rte"])


def test_a_result_against_rich(tmp_path, walk, capsys):
    given, joints = walk
    write_world(tmp_path, joints)
    sequence = tmp_path / "sequence"
    for frame in range(120):
        folder = sequence / f"{frame + 7:05d}"
        folder.mkdir(parents=True)
        content = {name: values[frame : frame + 1] for name, values in given.items()}
        (folder / "012.pkl").write_bytes(pickle.dumps(content))
    assert main([str(tmp_path), str(sequence)]) == 0
    assert world_means(tmp_path)["wa_mpjpe"] < 0.1
    (sequence / "00008" / "012.pkl").write_bytes(pickle.dumps({"transl": np.zeros((1, 4))}))
    assert main([str(tmp_path), str(sequence)]) == 2
    reason = "00008/012.pkl: 'global_orient' is not an array of shape (1, 3)"
    assert reason in capsys.readouterr().err


def emdb_content(good):
    """Someone who glides to the right, as a file of EMDB has them."""
    count = len(good)
    return {
        "gender": "neutral",
        "emdb2": True,
        "good_frames_mask": good,
        "camera": {"intrinsics": np.array([[210.0, 0, 80], [0, 210, 60], [0, 0, 1]])},
        "smpl": {
            "poses_root": np.zeros((count, 3)),
            "poses_body": np.zeros((count, 69)),
            "trans": np.stack([np.arange(count) / 30, np.zeros(count), np.zeros(count)], axis=1),
            "betas": np.zeros(10),
        },
        "bboxes": {"bboxes": np.tile([10.0, 20, 40, 60], (count, 1))},
    }


def test_a_result_against_emdb(tmp_path, bodies, capsys):
    good = np.arange(110) != 50
    content = emdb_content(good)
    path = tmp_path / "P0_00_data.pkl"
    path.write_bytes(pickle.dumps(content))
    (track,) = truth_files.read_world_truth(path, bodies)
    assert len(track.frames) == good.sum()
    np.testing.assert_array_equal(track.boxes[0], [10, 20, 30, 40])
    assert not np.isfinite(track.joints[0, JOINTS.index("face20")]).any()
    ours = np.nan_to_num(track.joints)
    write_world(tmp_path, ours, track.frames)
    assert main([str(tmp_path), str(path)]) == 0
    assert world_means(tmp_path)["w_mpjpe"] < 0.1
    path.write_bytes(pickle.dumps(content | {"gender": "os.system"}))
    assert main([str(tmp_path), str(path)]) == 2
    path.write_bytes(pickle.dumps(content | {"bboxes": print}))
    assert main([str(tmp_path), str(path)]) == 2
    path.write_bytes(pickle.dumps(content))
    np.savez(tmp_path / "person_001.npz", frame_index=[0], box_xywh=np.ones((1, 4)), fps=30.0)
    assert main([str(tmp_path), str(path)]) == 2
    assert "has no world coordinates; run inference with --world" in capsys.readouterr().err


@pytest.fixture
def world_benchmark(untrained, tmp_path):
    """Run main.test on a dataset under tmp_path; exit status and result.json."""

    def run(dataset, *flags):
        data = f"--set=data.data_dir={tmp_path}"
        given = (dataset, untrained, "--output", tmp_path / "out", data, *flags)
        status = main_test([str(one) for one in given])
        path = tmp_path / "out" / "result" / "result.json"
        return status, json.loads(path.read_text()) if path.is_file() else None

    return run


def write_images(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        Image.new("RGB", (160, 120), (90, 90, 90)).save(folder / name)


def put_into_world(result, joints):
    """Make the world of a result folder's only person that of the truth."""
    with np.load(result / "person_001.npz") as file:
        content = dict(file)
    content["world_joints_3d_m"] = np.nan_to_num(joints).astype(np.float32)
    np.savez(result / "person_001.npz", **content)
    return content


def test_a_network_on_emdb(tmp_path, bodies, world_benchmark, capsys):
    good = np.arange(8) != 3
    for name, chosen in (("09_walk", True), ("10_talk", False)):
        folder = tmp_path / "img" / "EMDB" / "P0" / name
        write_images(folder / "images", [f"{k:05d}.jpg" for k in range(8)])
        content = emdb_content(good) | {"emdb2": chosen}
        (folder / f"P0_{name}_data.pkl").write_bytes(pickle.dumps(content))
    status, found = world_benchmark("EMDB")
    assert status == 0, capsys.readouterr().err
    assert found["frames"] == 7
    assert list(found["sequences"]) == ["P0_09_walk"]  # the other one is not of EMDB 2
    assert found["metrics"]["wa_mpjpe"]["count"] == 7
    assert "of 7 frames" in capsys.readouterr().out
    result = tmp_path / "out" / "sequences" / "result_P0_09_walk"
    truth = tmp_path / "img" / "EMDB" / "P0" / "09_walk" / "P0_09_walk_data.pkl"
    (track,) = truth_files.read_world_truth(truth, bodies)
    joints = np.repeat(track.joints, [1, 1, 2, 1, 1, 1, 1], axis=0)  # the bad frame is filled in
    content = put_into_world(result, joints)
    np.testing.assert_array_equal(content["frame_index"], np.arange(8))
    np.testing.assert_array_equal(content["box_xywh"][0], [10, 20, 30, 40])
    assert content["focal"][0] == pytest.approx([210, 210])
    # What is there is not estimated again.
    status, found = world_benchmark("EMDB")
    assert status == 0
    assert found["metrics"]["wa_mpjpe"]["mean"] < 0.1
    for flags, reason in (
        (("--protocol", "published"), "--gt, --detections and --worst are for other datasets"),
        (("--worst", "1"), "--protocol, --gt, --detections and --worst are for other datasets"),
        (("--set=data.data_dir=/absent",), "no sequence of EMDB 2"),
    ):
        assert world_benchmark("EMDB", *flags)[0] == 2
        assert reason in capsys.readouterr().err
    assert world_benchmark("EMDB,EHF")[0] == 2
    assert "give one of them alone" in capsys.readouterr().err


def test_a_network_on_rich(tmp_path, walk, world_benchmark, monkeypatch, capsys):
    given, joints = walk
    root = tmp_path / "img" / "RICH"
    write_images(
        root / "images" / "test" / "Gym_010_x" / "cam_03", [f"{k:05d}_03.png" for k in range(7, 14)]
    )
    for k in range(5):  # from the third image on
        folder = root / "bodies" / "test" / "Gym_010_x" / f"{k + 9:05d}"
        folder.mkdir(parents=True)
        content = {name: values[k : k + 1] for name, values in given.items()}
        (folder / "010.pkl").write_bytes(pickle.dumps(content))
    calibration = root / "scan_calibration" / "Gym" / "calibration" / "003.xml"
    calibration.parent.mkdir(parents=True)
    calibration.write_text(
        "<opencv_storage><CameraMatrix><data>1. 0. 0. 0.</data></CameraMatrix>"
        '<Intrinsics type_id="opencv-matrix"><rows>3</rows><data>\n 190.5 0. 80.\n 0. 190.5 60.'
        "</data></Intrinsics></opencv_storage>"
    )
    status, found = world_benchmark("RICH", "--set=inference.detection.conf=0.2")
    assert status == 0, capsys.readouterr().err
    assert found["metrics"]["wa_mpjpe"] == {"mean": None, "count": 0}  # nobody is in grey images
    assert found["frames"] == 5

    class Whole:
        def __call__(self, index, image):
            return [Detection(Box(40, 5, 60, 110), 1.0)]

    monkeypatch.setattr(Tools, "detector_for", lambda *_: Whole())
    status, found = world_benchmark("RICH")
    assert status == 0
    assert found["metrics"]["wa_mpjpe"]["count"] == 5
    result = tmp_path / "out" / "sequences" / "result_Gym_010_x_cam_03"
    content = put_into_world(result, joints[[0, 0, 0, 1, 2, 3, 4]])
    assert content["focal"][0] == pytest.approx([190.5, 190.5])
    assert json.loads((result / "summary.json").read_text())["world"]["camera"] == "static"
    status, found = world_benchmark("RICH")
    assert found["metrics"]["wa_mpjpe"]["mean"] < 0.1
    calibration.write_text("<Intrinsics><data> none </data></Intrinsics>")
    assert world_benchmark("RICH")[0] == 2
    assert "003.xml: no focal length under Intrinsics" in capsys.readouterr().err
