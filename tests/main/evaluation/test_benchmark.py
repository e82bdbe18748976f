"""The benchmark command on a tiny dataset, against the published test loop's own numbers."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.reader import load_config
from datasets.sources import SOURCES
from human_models.joints import POSE_PARTS
from main.evaluation import run as benchmark_run
from main.evaluation.benchmark import DetectionMatch, break_down, match_detections, read_detections
from main.evaluation.metrics import HAND_SET_METRICS, SMPLX_METRICS
from main.test import main
from utils.errors import UserError
from utils.image import read_image

ROOT = Path(__file__).parents[3]
PARITY = ROOT / "tests" / "parity"
WEIGHTS = PARITY / "snapshot_fp16.pth.tar"
PUBLISHED = json.loads((PARITY / "benchmark.json").read_text())


@pytest.fixture
def data_dir(tmp_path):
    """data/ as a user has it, with six rows of one dataset."""
    source = SOURCES["EgoBody_Kinect"]
    (tmp_path / "annot").mkdir()
    for name in source.files("test"):
        content = (PARITY / "data" / "annot" / "EgoBody_Kinect.npz").read_bytes()
        (tmp_path / "annot" / name).write_bytes(content)
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / source.images).symlink_to(PARITY / "data" / "img")
    return tmp_path


@pytest.fixture
def command(tmp_path, data_dir, random_body_folder):
    """The command line behind `main.test`, with results in the folder `output`."""

    def command_line(*arguments, output="out", **changes):
        overrides = {
            "data.data_dir": data_dir,
            "model.human_model_path": random_body_folder,
            "test.test_batch_size": 4,
            "train.num_thread": 0,
        } | {key.replace("__", "."): value for key, value in changes.items()}
        sets = [f"--set={key}={value}" for key, value in overrides.items()]
        return [*map(str, arguments), *sets, "--output", str(tmp_path / output)]

    return command_line


@pytest.fixture
def run(command):
    return lambda *arguments, **changes: main(command(*arguments, **changes))


def report_in(folder):
    return json.loads((folder / "result" / "result.json").read_text())


def error_lines(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


def test_published_protocol_gives_the_published_numbers(run, tmp_path):
    assert run("EgoBody_Kinect", WEIGHTS, "--protocol", "published", "--worst", "0") == 0
    report = report_in(tmp_path / "out")
    assert report["dataset"] == "EgoBody_Kinect"
    assert report["protocol"] == "published"
    assert report["checkpoint"] == str(WEIGHTS)
    errors = dict(np.load(tmp_path / "out" / "result" / "errors_mm.npz"))
    for name, expected in PUBLISHED.items():
        found = report["metrics"][name]
        assert found["count"] == expected["count"], name
        if expected["count"]:
            assert found["mean"] == pytest.approx(expected["mean"], rel=2e-3), name
            kept = errors[name][np.isfinite(errors[name])]
            np.testing.assert_allclose(kept, expected["values"], rtol=2e-3, err_msg=name)
    lines = (tmp_path / "out" / "result" / "result.txt").read_text().splitlines()
    assert lines[0] == "EgoBody_Kinect, published protocol"
    mean = report["metrics"]["pa_mpvpe_all"]["mean"]
    assert lines[1] == f"PA MPVPE (All): {mean:.2f} mm (6 samples)"
    assert [line.split(":")[0] for line in lines[2:6]] == [
        f"PA MPVPE ({part})" for part in ("L-Hands", "R-Hands", "Hands", "Face")
    ]
    assert lines[12] == "PA MPJPE (L-Hands): not measured in any sample"
    assert len(lines) == 1 + len(SMPLX_METRICS) + 1
    numbers = lines[-1].split(",")
    assert numbers[:2] == [f"{report['metrics'][k]['mean']:.2f}" for k in SMPLX_METRICS[:2]]
    assert numbers[11] == ""
    assert "nan" not in "".join(lines)
    assert not (tmp_path / "out" / "result" / "worst").exists()


def test_everything_that_a_result_holds(run, tmp_path, capsys):
    assert run("EgoBody_Kinect", WEIGHTS, "--worst", "3") == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"log", "result"}
    assert "EgoBody_Kinect, test: 6 people" in (out / "log" / "test.log").read_text()
    report = report_in(out)
    assert (report["samples"], report["interval"]) == (6, 1)
    assert report["files"] == list(SOURCES["EgoBody_Kinect"].files("test"))
    assert report["ground_truth"] == "SMPL-X parameters"
    errors = dict(np.load(out / "result" / "errors_mm.npz"))
    assert errors["row"].tolist() == list(range(6))
    assert errors["image_path"].tolist() == [f"set/{i:06d}.png" for i in range(6)]
    assert report["metrics"]["mpvpe_all"]["mean"] == pytest.approx(errors["mpvpe_all"].mean())
    assert load_config(out / "result" / "config_base.py").test.test_batch_size == 4
    pictures = sorted((out / "result" / "worst").iterdir())
    worst = sorted(errors["mpvpe_all"], reverse=True)[:3]
    assert [picture.name for picture in pictures] == [
        f"{k:02d}_{error:.0f}mm.jpg" for k, error in enumerate(worst, start=1)
    ]
    assert read_image(pictures[0]).shape == (536, 3 * 384, 3)
    shown = capsys.readouterr().out
    assert "EgoBody_Kinect, correct protocol" in shown
    assert "published" not in shown


def test_only_what_the_run_makes_is_replaced(run, tmp_path):
    mine, former = tmp_path / "out" / "mine.txt", tmp_path / "out" / "result" / "former.txt"
    former.parent.mkdir(parents=True)
    for file in (mine, former):
        file.write_text("keep")
    assert run("EgoBody_Kinect", WEIGHTS, "--worst", "0") == 0
    assert mine.read_text() == "keep"
    assert not former.exists()


def test_snapshot_of_a_run(run, tmp_path):
    folder = tmp_path / "run"
    (folder / "model_dump").mkdir(parents=True)
    (folder / "model_dump" / "snapshot_3.pth.tar").write_bytes(WEIGHTS.read_bytes())
    (folder / "config_base.py").write_text((PARITY / "config_base.py").read_text())
    assert run("EgoBody_Kinect", folder, 3, "--worst", "0") == 0
    assert report_in(tmp_path / "out")["checkpoint"].endswith("snapshot_3.pth.tar")
    assert run("EgoBody_Kinect", folder, 4) == 2


def test_any_humandata_file(run, tmp_path):
    assert run("EgoBody_Kinect", WEIGHTS, "--worst", "0") == 0
    file = tmp_path / "mine 1.npz"
    file.write_bytes((PARITY / "data" / "annot" / "EgoBody_Kinect.npz").read_bytes())
    arguments = ("--humandata", file, "--images", PARITY / "data" / "img", "--model", WEIGHTS)
    assert run(*arguments, output="own") == 0
    table, own = report_in(tmp_path / "out"), report_in(tmp_path / "own")
    assert own["dataset"] == "mine 1"
    assert own["metrics"] == table["metrics"]


def test_results_have_a_folder_of_their_own(command, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark_run, "OUTPUTS", tmp_path / "outputs")
    assert main(command("EgoBody_Kinect", WEIGHTS, "--worst", "0")[:-2]) == 0
    (folder,) = (tmp_path / "outputs").iterdir()
    assert folder.name.startswith("test_EgoBody_Kinect_epnone_20")
    assert (folder / "result" / "result.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("EgoBody_Kinectt", WEIGHTS), "EgoBody_Kinect"),
        (("EgoBody_Kinect,EgoBody_Kinectt", WEIGHTS), "EgoBody_Kinect"),
        (("SynHand", WEIGHTS), "synhand"),
        (("EgoBody_Kinect", "no_such_model"), "no such model"),
        (("EgoBody_Kinect", "no_such_run", 3), "no training run"),
        (("SynHand", "no_such_run", 5), "no_such_run/model_dump/snapshot_5.pth.tar is missing"),
        (("EgoBody_Kinect", WEIGHTS, "--protocol", "mine"), "protocol"),
        (("EgoBody_Kinect", WEIGHTS, "--gt", "meshes"), "no meshes"),
        (("EgoBody_Kinect", WEIGHTS, "--worst", "-1"), "-1"),
        (("EgoBody_Kinect",), "MODEL_DIR"),
        (("EgoBody_Kinect", WEIGHTS, "--images", "."), "--humandata"),
        (("--humandata", "none.npz", "--images", "."), "--model"),
        (("--humandata", "none.npz", "--images", ".", "--model", WEIGHTS), "none.npz"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, capsys, arguments, message):
    assert run(*arguments) == 2
    (line,) = error_lines(capsys.readouterr().err)
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.fixture
def incomplete_images(data_dir, tmp_path):
    """The last row's image is missing."""
    folder = tmp_path / "img" / "EgoBody"
    folder.unlink()
    (folder / "set").mkdir(parents=True)
    for image in (PARITY / "data" / "img" / "set").iterdir():
        if image.name != "000005.png":
            (folder / "set" / image.name).symlink_to(image)


@pytest.mark.usefixtures("incomplete_images")
def test_a_missing_image_found_by_a_worker_is_one_line(run, tmp_path, capsys):
    assert run("EgoBody_Kinect", WEIGHTS, train__num_thread=1) == 2
    error = capsys.readouterr().err
    assert len(error_lines(error)) == 1
    assert "000005.png" in error_lines(error)[0]
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def run_in_two_processes(arguments):
    return subprocess.run(
        ["sh", "scripts/test.sh", *arguments],
        cwd=ROOT,
        env=os.environ | {"NPROC": "2"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_two_processes_give_what_one_gives(run, command, tmp_path):
    changes = {"test__test_batch_size": 2}
    assert run("EgoBody_Kinect", WEIGHTS, **changes) == 0
    arguments = command("EgoBody_Kinect", WEIGHTS, "--device", "cpu", output="two", **changes)
    done = run_in_two_processes(arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("correct protocol") == 1
    assert done.stderr.count("model snapshot_fp16") == 1
    one, two = (dict(np.load(tmp_path / k / "result" / "errors_mm.npz")) for k in ("out", "two"))
    assert one.keys() == two.keys()
    for name, values in one.items():
        if name == "image_path":
            assert values.tolist() == two[name].tolist()
        else:
            np.testing.assert_allclose(two[name], values, rtol=1e-6, err_msg=name)
    means = report_in(tmp_path / "out")["metrics"]
    for name, mean in report_in(tmp_path / "two")["metrics"].items():
        assert mean["count"] == means[name]["count"]
        assert mean["mean"] == pytest.approx(means[name]["mean"], rel=1e-6)
    pictures = [sorted(p.name for p in (tmp_path / k).rglob("*.jpg")) for k in ("out", "two")]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 6


@pytest.mark.usefixtures("incomplete_images")
def test_two_processes_fail_together(command, tmp_path):
    arguments = command("EgoBody_Kinect", WEIGHTS, "--device", "cpu", test__test_batch_size=3)
    done = run_in_two_processes(arguments)
    assert done.returncode == 2
    (line,) = error_lines(done.stderr)
    assert "000005.png" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_sets_of_hands_alone_have_metrics_of_hands_alone(run, data_dir, tmp_path):
    source = SOURCES["FreiHand"]
    content = (PARITY / "data" / "annot" / "EgoBody_Kinect.npz").read_bytes()
    (data_dir / "annot" / "freihand_test_1.npz").write_bytes(content)
    (data_dir / "img" / source.images).symlink_to(PARITY / "data" / "img")
    assert run("FreiHand", WEIGHTS, "--worst", "1") == 0
    report = report_in(tmp_path / "out")
    assert set(report["metrics"]) == set(HAND_SET_METRICS)
    assert report["ground_truth"] == "hands"
    mean = report["metrics"]["pa_mpvpe_hand"]["mean"]
    (picture,) = (tmp_path / "out" / "result" / "worst").iterdir()
    assert float(picture.stem.removeprefix("01_").removesuffix("mm")) >= int(mean)


def test_a_detectors_boxes(run, tmp_path, capsys):
    boxes = np.load(PARITY / "data" / "annot" / "EgoBody_Kinect.npz")["bbox_xywh"][:, :4]
    tight = np.concatenate([boxes[:, :2] + boxes[:, 2:] / 12, boxes[:, 2:] / 1.2], axis=1)
    detections = {f"set/{i:06d}.png": [tight[i].tolist()] for i in range(5)}
    detections["set/000000.png"].append([0, 0, 4, 4])
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(detections))
    assert run("EgoBody_Kinect", WEIGHTS, "--detections", file) == 0
    assert run("EgoBody_Kinect", WEIGHTS, "--worst", "0", output="all") == 0
    found, everyone = (
        dict(np.load(tmp_path / k / "result" / "errors_mm.npz")) for k in ("out", "all")
    )
    assert found["row"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found["mpvpe_all"], everyone["mpvpe_all"][:5], rtol=1e-3)
    report = report_in(tmp_path / "out")
    detection = report["detection"]
    assert (detection["found"], detection["missed"], detection["false"]) == (5, 1, 1)
    assert detection["f1"] == pytest.approx(5 / 6)
    assert detection["nmve_all"] == pytest.approx(1.2 * report["metrics"]["mpvpe_all"]["mean"])
    assert "detection: f1 0.8333" in (tmp_path / "out" / "result" / "result.txt").read_text()
    capsys.readouterr()
    thinned = {"data__test_sample_interval__EgoBody_Kinect": 2}
    assert run("EgoBody_Kinect", WEIGHTS, "--detections", file, **thinned) == 2
    (line,) = error_lines(capsys.readouterr().err)
    assert "interval to be 1" in line


def test_a_network_of_no_numbers_is_reported(run, tmp_path, capsys):
    weights = torch.load(WEIGHTS, weights_only=True)
    for value in weights["network"].values():
        value.fill_(torch.nan)
    torch.save(weights, tmp_path / "broken.pth.tar")
    (tmp_path / "config_base.py").write_text((PARITY / "config_base.py").read_text())
    assert run("EgoBody_Kinect", tmp_path / "broken.pth.tar") == 2
    (line,) = error_lines(capsys.readouterr().err)
    assert "rows 0 to 3" in line


def test_breakdown_is_of_bent_hands_and_of_people_who_face_away():
    """One whose left hand alone is bent, one who is seen from the wrong side, one not known."""
    pose, known = np.zeros((3, 53, 3), np.float32), np.ones((3, 53), bool)
    pose[0, POSE_PARTS["left_hand"], 2] = np.deg2rad(30)
    pose[1, POSE_PARTS["right_hand"], 2] = np.deg2rad(10)
    pose[1, 0, 1] = np.pi
    known[2] = False
    pose[2, POSE_PARTS["left_hand"]] = 1
    errors = {"pa_mpvpe_l_hand": np.array([7.0, 1, 2]), "pa_mpvpe_r_hand": np.array([3.0, 4, 5])}
    found = break_down(errors, np.tile([0.0, 0.6, 0.8], (3, 1)), pose, known)
    assert found["PA MPVPE (bent hands)"] == {"mean": 7.0, "count": 1}
    assert found["facing away, %"] == {"mean": 50.0, "count": 2}
    nothing = break_down({}, np.ones((3, 3)), pose, np.zeros_like(known))
    assert [value["mean"] for value in nothing.values()] == [None, None]


A, B, C = [0.0, 0, 100, 100], [50.0, 0, 100, 100], [500.0, 0, 40, 80]


def boxes(*rows):
    return np.array(rows, float).reshape(-1, 4)


def padded(tight):
    """As in dataset files."""
    return np.concatenate([tight[:, :2] - 0.1 * tight[:, 2:], 1.2 * tight[:, 2:]], axis=1)


PEOPLE = (["1.jpg", "1.jpg", "2.jpg"], padded(boxes(A, B, C)).astype(np.float32))


def test_pairs_that_overlap_most_come_first():
    found = match_detections(*PEOPLE, {"1.jpg": boxes([45, 0, 100, 100], [10, 0, 100, 100])})
    assert list(found.boxes) == [0, 1]
    np.testing.assert_allclose(found.boxes[0], [0, -10, 120, 120])
    np.testing.assert_allclose(found.boxes[1], [35, -10, 120, 120])
    assert (found.missed, found.false) == (1, 0)


def test_everyone_is_found_once():
    twice = {"1.jpg": boxes(A, A, B), "2.jpg": boxes([0, 0, 10, 10]), "3.jpg": boxes(A)}
    found = match_detections(*PEOPLE, twice)
    assert list(found.boxes) == [0, 1]
    assert (found.missed, found.false) == (1, 2)  # images without people are no part of the set
    assert found.f1 == pytest.approx(2 / (2 + 0.5 * 3))


def test_least_overlap():
    assert list(match_detections(*PEOPLE, {"2.jpg": boxes([530, 0, 40, 80])}).boxes) == [2]  # 1/7
    with pytest.raises(UserError, match="image paths"):
        match_detections(*PEOPLE, {"2.jpg": boxes([534, 0, 40, 80])})


def test_normalised_errors():
    found = DetectionMatch({0: np.zeros(4), 1: np.zeros(4)}, missed=1, false=1)
    means = {"mpvpe_all": {"mean": 60.0, "count": 2}, "mpjpe_body": {"mean": None, "count": 0}}
    report = found.report(means)
    assert report == {
        "f1": pytest.approx(2 / 3),
        "found": 2,
        "missed": 1,
        "false": 1,
        "nmve_all": pytest.approx(90.0),
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"a": 1}',
        '{"a": [1, 2, 3, 4]}',
        '{"a": [[1, 2, 3]]}',
        '{"a": [[1, 2, "x", 4]]}',
        '{"a": [[1, 2, NaN, 4]]}',
        '{"a": [[1, 2, 0, 4]]}',
        '{"a": {"b": 1}}',
    ],
)
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "boxes.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"boxes\.json") as refusal:
        read_detections(path)
    assert "\n" not in str(refusal.value)


def test_files_of_boxes(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text('{"a b.jpg": [[1, 2, 3, 4], [5, 6, 7, 8]], "none.jpg": []}')
    detections = read_detections(path)
    assert detections["a b.jpg"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert detections["none.jpg"].shape == (0, 4)
    with pytest.raises(UserError, match=r"absent\.json"):
        read_detections(tmp_path / "absent.json")
