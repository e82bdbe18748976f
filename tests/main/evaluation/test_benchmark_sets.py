"""Each kind of benchmark by the command, on tiny files of its form."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from configs.schema import DataConfig
from datasets.cache import open_dataset
from datasets.sample import true_mesh
from datasets.sources import SOURCES, find_source
from human_models.body import BodyLibrary
from human_models.files import find_model_folder
from main.evaluation.benchmark import visibility
from main.evaluation.metrics import HAND_SET_METRICS, SMPL_METRICS, SMPLX_METRICS
from main.evaluation.run import PRIMARY_METRICS, mean_primary_error
from main.test import main

PARITY = Path(__file__).parents[2] / "parity"
WEIGHTS = PARITY / "snapshot_fp16.pth.tar"
FULL = PARITY / "data" / "annot" / "EgoBody_Kinect.npz"
SMPL = PARITY / "data" / "annot" / "PW3D_test.npz"
IMAGES = sorted((PARITY / "data" / "img" / "set").iterdir())
INTERVAL = 3  # two rows of six


@pytest.fixture
def put(tmp_path):
    """Put a dataset's files into data/, copies of one file whose entries may be changed."""
    (tmp_path / "annot").mkdir()

    def put_dataset(name, file=FULL, **changes):
        source = SOURCES[name]
        for annotation in source.files("test"):
            entries = dict(np.load(file, allow_pickle=True)) | changes
            np.savez(tmp_path / "annot" / annotation.replace("*", "x"), **entries)
        folder = tmp_path / "img" / source.images / "set"
        if not folder.is_dir():
            folder.mkdir(parents=True)
            for image in IMAGES:
                (folder / image.name).symlink_to(image)
        return folder

    return put_dataset


@pytest.fixture
def run(tmp_path, random_body_folder):
    def run_benchmarks(datasets, *arguments, output="out"):
        overrides = {
            "data.data_dir": tmp_path,
            "model.human_model_path": random_body_folder,
            "test.test_batch_size": 4,
            "train.num_thread": 0,
            **{f"data.test_sample_interval.{name}": INTERVAL for name in datasets.split(",")},
        }
        sets = [f"--set={key}={value}" for key, value in overrides.items()]
        folder = str(tmp_path / output)
        return main([datasets, str(WEIGHTS), *arguments, *sets, "--output", folder])

    return run_benchmarks


def report_in(folder):
    return json.loads((folder / "result" / "result.json").read_text())


def means_in(folder):
    return {name: mean["mean"] for name, mean in report_in(folder)["metrics"].items()}


def test_five_primary_sets_have_a_mean(put, run, tmp_path, capsys):
    for name in PRIMARY_METRICS:
        put(name, SMPL if name == "PW3D" else FULL)
    assert run(",".join(PRIMARY_METRICS), "--worst", "0") == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {*PRIMARY_METRICS, "MPE"}
    errors = [means_in(out / name)[metric] for name, metric in PRIMARY_METRICS.items()]
    report = report_in(out / "MPE")
    assert report["metrics"] == {"mpe": {"mean": pytest.approx(np.mean(errors)), "count": 5}}
    assert report["datasets"] == list(PRIMARY_METRICS)
    assert report_in(out / "PW3D")["ground_truth"] == "SMPL parameters"
    assert set(means_in(out / "PW3D")) == set(SMPL_METRICS)
    assert set(means_in(out / "AGORA")) == set(SMPLX_METRICS)
    shown = capsys.readouterr()
    assert f"(MPE): {np.mean(errors):.2f} mm" in shown.err
    assert shown.err.count("model snapshot_fp16") == 1
    log = (out / "EHF" / "log" / "test.log").read_text()
    assert "EHF, test: 2 people" in log
    assert "model snapshot_fp16" in log
    assert "UBody" not in log


def test_others_are_evaluated_where_one_is_missing(put, run, tmp_path, capsys):
    put("EHF")
    put("SHAPY", smplx=None)
    assert run("SynHand,EHF,SHAPY", "--worst", "0") == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"EHF"}
    errors = [k for k in capsys.readouterr().err.splitlines() if k.startswith("error: ")]
    assert len(errors) == 2
    assert errors[0].startswith("error: SynHand: ")
    assert "no body parameters" in errors[1]


def test_only_what_the_image_of_ubody_shows_counts(put, run, tmp_path):
    put("UBody")
    put("EgoBody_Kinect")
    assert run("UBody,EgoBody_Kinect", "--worst", "0") == 0
    visible, everything = (means_in(tmp_path / "out" / k) for k in ("UBody", "EgoBody_Kinect"))
    assert visible["mpvpe_all"] != pytest.approx(everything["mpvpe_all"], rel=1e-6)
    assert run("UBody,EgoBody_Kinect", "--worst", "0", "--protocol", "published", output="p") == 0
    published = [means_in(tmp_path / "p" / k) for k in ("UBody", "EgoBody_Kinect")]
    assert published[0] == pytest.approx(published[1])


def test_visible_is_what_the_virtual_camera_puts_inside_the_image():
    """By way of the network's input, the crop and the map to the image, as it is published."""
    rng = np.random.default_rng(0)
    points = rng.uniform([-1, -1, 30], [1, 1, 50], (500, 3))
    to_image = np.array([[0.7, 0, -60], [0, 0.7, -40]])
    focal, princpt = np.array([5000, 5000]), np.array([96, 128])
    inputs = points[:, :2] / (points[:, 2:] + 1e-4) * focal + princpt
    crop = inputs / [192, 256] * [384, 512]
    pixels = crop @ to_image[:, :2].T + to_image[:, 2]
    expected = ((pixels > 0) & (pixels < [180, 150])).all(axis=1)
    batch = {
        "meta_focal": focal * 2 * 0.7,
        "meta_principal_pt": princpt * 2 * 0.7 + to_image[:, 2],
        "meta_image_size": np.array([180, 150]),
    }
    tensors = {key: torch.from_numpy(value)[None].double() for key, value in batch.items()}
    found = visibility(tensors, torch.device("cpu"))(torch.from_numpy(points)[None])
    assert found[0].tolist() == expected.tolist()
    assert 50 < expected.sum() < 450


@pytest.fixture
def meshes(put, tmp_path, random_body_folder):
    """The meshes that EHF's parameters stand for, in the order of its images, and their folder."""
    folder = put("EHF")
    bodies = BodyLibrary(find_model_folder(random_body_folder))
    source = find_source("EHF", DataConfig())
    table = open_dataset(source, "test", tmp_path)
    return [true_mesh(person, folder.parent, bodies) for person in table], folder


def write_ply(path, vertices):
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\nend_header\n"
    )
    path.write_bytes(header.encode() + vertices.astype("<f4").tobytes())


def test_meshes_of_scans_are_the_truth_of_ehf_where_wanted(meshes, run, tmp_path):
    truths, folder = meshes
    turn = cv2.Rodrigues(np.array([-2.98747896, 0.01172457, -0.05704687]))[0]
    for image, mesh in zip(IMAGES, truths, strict=True):
        write_ply(folder / f"{image.stem}_align.ply", mesh @ turn)
    assert run("EHF", "--worst", "1", "--gt", "meshes") == 0
    assert report_in(tmp_path / "out")["ground_truth"] == "meshes of scans"
    assert run("EHF", "--worst", "0", output="parameters") == 0
    assert report_in(tmp_path / "parameters")["ground_truth"] == "SMPL-X parameters"
    expected = means_in(tmp_path / "parameters")
    assert means_in(tmp_path / "out") == pytest.approx(expected, rel=1e-4)


def test_wrong_meshes_are_refused(meshes, run, capsys):
    _, folder = meshes
    assert run("EHF", "--gt", "meshes") == 2
    assert "000000_align.ply" in capsys.readouterr().err
    write_ply(folder / "000000_align.ply", np.zeros((100, 3)))
    assert run("EHF", "--gt", "meshes") == 2
    assert "100 vertices" in capsys.readouterr().err


def test_vertices_are_the_truth_of_arctic(meshes, put, run, tmp_path):
    truths, _ = meshes
    paths = np.array([f"set/{image.stem}.npy" for image in IMAGES])
    arctic = put("ARCTIC", vertices3d_path=paths)
    for name, mesh in zip(paths, truths, strict=True):
        np.save(arctic.parent / name, mesh)
    assert run("ARCTIC,EHF", "--worst", "1") == 0
    report = report_in(tmp_path / "out" / "ARCTIC")
    assert (report["ground_truth"], report["interval"], report["samples"]) == (
        "vertices",
        INTERVAL,
        2,
    )
    expected = means_in(tmp_path / "out" / "EHF")
    assert means_in(tmp_path / "out" / "ARCTIC") == pytest.approx(expected, rel=1e-5)


def test_wrong_vertices_are_refused(put, run, capsys):
    folder = put("ARCTIC", vertices3d_path=np.array(["set/v.npy"] * 6))
    np.save(folder / "v.npy", np.zeros((778, 3)))
    assert run("ARCTIC") == 2
    assert "(778, 3)" in capsys.readouterr().err


def test_hand_sets_are_judged_by_their_hands(put, run, tmp_path):
    entries = np.load(FULL, allow_pickle=True)["smplx"].item()
    left = np.zeros_like(entries["left_hand_pose"])
    root = np.ones((6, 1, 3), np.float32)
    names = ("FreiHand", "InterHand", "BlurHand", "HanCo")
    for name in names:
        put(name, smplx=entries | {"left_hand_pose": left, "rhand_root": root})
    assert run(",".join(names), "--worst", "1") == 0
    for folder in (tmp_path / "out" / name for name in names):
        metrics = report_in(folder)["metrics"]
        assert set(metrics) == set(HAND_SET_METRICS)
        assert metrics["pa_mpvpe_r_hand"]["count"] == metrics["pa_mpvpe_hand"]["count"] == 2
        assert metrics["pa_mpvpe_l_hand"] == {"mean": None, "count": 0}
        text = (folder / "result" / "result.txt").read_text()
        assert "PA MPVPE (L-Hands): not measured in any sample" in text
        assert len(list((folder / "result" / "worst").iterdir())) == 1


MEANS = {
    name: {metric: {"mean": 50.0 + k, "count": 10}, "pa_mpvpe_all": {"mean": 1.0, "count": 10}}
    for k, (name, metric) in enumerate(PRIMARY_METRICS.items())
}


def test_mean_of_five():
    assert mean_primary_error(MEANS) == {"mean": pytest.approx(52.0), "count": 5}
    more = MEANS | {"SynHand": {"mpvpe_all": {"mean": 900.0, "count": 1}}}
    assert mean_primary_error(more) == mean_primary_error(MEANS)


def test_no_mean_of_fewer():
    for name in PRIMARY_METRICS:
        assert mean_primary_error({k: v for k, v in MEANS.items() if k != name}) is None
    empty = MEANS | {"EHF": {"mpvpe_all": {"mean": None, "count": 0}}}
    assert mean_primary_error(empty) is None


def test_primary_errors_are_of_our_sets_and_metrics():
    assert set(PRIMARY_METRICS) <= set(SOURCES)
    assert set(PRIMARY_METRICS.values()) <= set(SMPLX_METRICS)
