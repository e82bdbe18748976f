"""The command that draws synthetic people: independent of workers, readable by the project."""

import filecmp
import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from datasets.cache import open_dataset
from datasets.humandata.file import read_entries
from datasets.sources import Source
from human_models.body import BodyModel
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder, read_body
from main.synthesize import _CAMERAS, main
from synthetic import demo, hall, shots
from synthetic.motion import Block
from synthetic.production import SynthesisOptions
from synthetic.production import synthesize as draw_set
from synthetic.rendering import Stage, full_camera
from utils.errors import UserError

ROOT = Path(__file__).parents[2]

SOURCE = Source("OpenPeople", ("tiny_train.npz",), ("tiny_test.npz",), "tiny")


def files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def synthesize(out, *flags):
    arguments = ["--out", str(out), "--name", "tiny", "--seed", "3", *flags]
    assert main(arguments) == 0


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    synthesize(out, "--people", "18", "--crops", "--size", "96x128")
    return out


def test_same_bytes_with_two_workers(crops, tmp_path):
    synthesize(tmp_path, "--people", "18", "--crops", "--size", "96x128", "--workers", "2")
    names = files(crops)
    assert names == files(tmp_path)
    assert len(names) == 19
    for name in names:
        assert filecmp.cmp(crops / name, tmp_path / name, shallow=False), name


def test_stopped_run_goes_on(crops, tmp_path):
    options = SynthesisOptions("crops", "tiny", "train", 3, 18, (96, 128))
    counts = draw_set(options, tmp_path, workers=1)
    assert [next(counts), next(counts)] == [0, 16]
    counts.close()  # as if stopped after the first batch
    assert not (tmp_path / "annot" / "tiny_train.npz").exists()
    assert list(draw_set(options, tmp_path, workers=1)) == [16, 2]
    assert files(crops) == files(tmp_path)
    name = "annot/tiny_train.npz"
    assert filecmp.cmp(crops / name, tmp_path / name, shallow=False)


def test_set_opens_as_a_dataset(crops, tmp_path):
    (tmp_path / "annot").symlink_to(crops / "annot")
    table = open_dataset(SOURCE, "train", tmp_path)
    assert len(table) == 18
    for person in table:
        assert (crops / "img" / "tiny" / person.image_path).is_file()
        assert person.image_size == (96, 128)
        assert person.pose_valid.all()
        assert person.joints_valid.all()
        assert person.has_joints_3d
        assert person.joints_3d[0, 2] > 0.5
        assert np.abs(person.betas).max() <= 2.5


def test_test_split_has_other_people(crops, tmp_path):
    shutil.copytree(crops, tmp_path, dirs_exist_ok=True)
    synthesize(tmp_path, "--people", "4", "--crops", "--size", "96x128", "--split", "test")
    train, test = (open_dataset(SOURCE, name, tmp_path) for name in ("train", "test"))
    assert len(test) == 4
    assert not np.isclose(train[0].betas, test[0].betas).any()


def test_scenes(tmp_path):
    synthesize(tmp_path, "--people", "6", "--size", "320x180")
    table = open_dataset(SOURCE, "train", tmp_path)
    assert 2 <= len(table) <= 11
    assert table[0].image_size == (320, 180)


@pytest.mark.parametrize(
    "flags",
    [
        ["--people", "0"],
        ["--people", "2", "--workers", "0"],
        ["--people", "2", "--size", "12x99999"],
        ["--people", "2", "--name", "../up"],
        ["--people", "2", "--seed", "-1"],
        ["--people", "3", "--camera", "pan"],  # no clip
    ],
)
def test_wrong_flags_are_one_line(flags, tmp_path, capsys):
    assert main(["--out", str(tmp_path), *flags]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in printed if line.startswith("error:")]) == 1
    assert not list(tmp_path.iterdir())


def test_clips_name_the_people(tmp_path):
    synthesize(tmp_path, "--people", "2", "--video", "--frames", "6", "--size", "160x90")
    assert [path.name for path in tmp_path.glob("img/tiny/train/*")] == ["clip_000.mp4"]
    with av.open(tmp_path / "img/tiny/train/clip_000.mp4") as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert [frame.shape for frame in frames] == [(90, 160, 3)] * 6
    (path,) = tmp_path.glob("annot/*.npz")
    entries = read_entries(path)
    meta = entries["meta"]
    person, frame = np.asarray(meta["person"]), np.asarray(meta["frame_index"])
    assert set(frame) <= set(range(6))
    assert len({*zip(person.tolist(), frame.tolist(), strict=True)}) == len(person)
    assert entries["image_path"][0] == f"train/clip_000/{frame[0]:06d}.jpg"
    joints = entries["keypoints3d_smplx"][..., :3]
    betas = np.asarray(entries["smplx"]["betas"])
    for who in np.unique(person):
        steps = np.linalg.norm(np.diff(joints[person == who][:, :22], axis=0), axis=2)
        assert steps.max() < 0.25  # metres a frame: a swinging foot is at most so fast
        assert (betas[person == who] == betas[person == who][0]).all()


OPTIONS = SynthesisOptions("crops", "tiny", "train", 3, 18, (96, 128))
KILLED = """
import os, shutil, sys
from pathlib import Path
from synthetic import production
from utils import files

removed = shutil.rmtree
def killed(path, **how):
    # As if killed when a part of the staging is gone: its rows of the first batch.
    for rows in sorted(Path(path).rglob("rows/*.npz"))[:1]:
        rows.unlink()
        os._exit(9)
    removed(path, **how)
shutil.rmtree = files.shutil.rmtree = killed
options = production.SynthesisOptions("crops", "tiny", "train", 3, 18, (96, 128))
list(production.synthesize(options, Path(sys.argv[1]), workers=1))
"""


def test_killed_while_it_clears_up_and_started_again(crops, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    for _ in range(2):
        list(draw_set(OPTIONS, tmp_path, workers=1))
        names = files(crops)
        assert files(tmp_path) == names
        for name in names:
            assert filecmp.cmp(crops / name, tmp_path / name, shallow=False), name


def test_two_at_once_on_one_set_are_refused(crops, tmp_path):
    first = draw_set(OPTIONS, tmp_path, workers=1)
    assert next(first) == 0
    with pytest.raises(UserError, match="another process draws"):
        next(draw_set(OPTIONS, tmp_path, workers=1))
    other = SynthesisOptions("crops", "tiny", "train", 4, 18, (96, 128))
    with pytest.raises(UserError, match="another process draws"):
        next(draw_set(other, tmp_path, workers=1))
    assert sum(first) == 18
    assert files(tmp_path) == files(crops)


def test_demo_clip(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_RAYS", 2)
    monkeypatch.setattr(hall, "_SAMPLES", 1)
    flags = "--demo --people 3 --split test --name demo --frames 2 --size 96x54"
    assert main([*flags.split(), "--out", str(tmp_path)]) == 0
    rows = read_entries(tmp_path / "annot" / "demo_test_clip_000.npz")
    assert len(rows["bbox_xywh"]) == 6
    boxes = json.loads((tmp_path / "img/demo/test/clip_000.boxes.json").read_text())
    assert [len(each) for each in boxes.values()] == [3, 3]
    with av.open(str(tmp_path / "img/demo/test/clip_000.mp4")) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(images) == 2
    assert 60 < images[0].mean() < 200  # a lit room


def test_clip_with_a_camera_that_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(shots, "_RAYS", 1)
    monkeypatch.setattr(shots, "_TEXEL_M", 0.1)
    flags = "--video --camera walk-along --people 3 --name moving --frames 4 --size 96x54"
    assert main([*flags.split(), "--out", str(tmp_path)]) == 0
    file = tmp_path / "annot" / "moving_train_clip_000.npz"
    rows = read_entries(file)
    meta, frame = rows["meta"], np.asarray(rows["meta"]["frame_index"])
    poses = np.asarray(meta["world_from_camera"])
    assert poses.shape == (len(frame), 4, 4)
    np.testing.assert_allclose(
        poses[frame == 0, :3, 3], [[0, 1.5, 0]] * (frame == 0).sum(), atol=0.1
    )
    assert np.abs(poses[frame == 0, 1, 0]).max() < 0.1  # x is to the right
    way = poses[frame == 3][0, :3, 3] - poses[frame == 0][0, :3, 3]
    np.testing.assert_allclose(way, [0.9 * 3 / 30, 0, 0], atol=0.02)
    # Parameters in the world are those in the camera, seen from there.
    body = BodyModel(read_body(ModelFolder(STAND_IN, STAND_IN_NAME), "smplx", "neutral")).eval()
    given = {name: torch.from_numpy(np.asarray(rows["smplx"][name], np.float32))
             for name in ("body_pose", "betas")}  # fmt: skip
    given["body_pose"] = given["body_pose"].flatten(1)
    world = body(
        **given,
        global_orient=torch.from_numpy(np.asarray(meta["world_global_orient"])),
        transl=torch.from_numpy(np.asarray(meta["world_transl"])),
    )
    seen = rows["keypoints3d_smplx"][:, :22, :3]
    moved = np.einsum("nij,nkj->nki", poses[:, :3, :3], seen) + poses[:, None, :3, 3]
    np.testing.assert_allclose(world.joints[:, :22].numpy(), moved, atol=1e-3)
    assert world.vertices[..., 1].min() > -0.05
    assert world.vertices[:, :, 1].amin(dim=1).max() < 0.3  # everybody is on floor or a step
    boxes = json.loads((tmp_path / "img/moving/train/clip_000.boxes.json").read_text())
    assert sum(len(each) for each in boxes.values()) == len(frame)


def test_every_camera_is_offered():
    assert set(_CAMERAS) == set(shots.CAMERAS)


def test_baked_hall_looks_like_the_traced_one(monkeypatch):
    monkeypatch.setattr(hall, "_SAMPLES", 1)
    monkeypatch.setattr(shots, "_TEXEL_M", 0.04)
    rng = np.random.default_rng(0)
    step = Block((-1.5, -5.5), (1.4, 0.3, 1.0), 30.0)
    room = hall.Hall(rng, [step], rays=1)
    turned = shots.camera_rotations(np.array([25.0]), np.array([10.0]), np.array([3.0]))[0]
    stage, shape = Stage(29.0, 1.4, turned, (-1.0, -0.5)), (54, 96)
    base, sunny, depth_m, ((_, floor),) = room.photograph(
        rng, stage, full_camera(29.0, shape), shape
    )
    bare = shots.BakedHall(room, [0.3]).photograph(stage, shape)
    assert np.mean(np.abs(bare.depth_m / depth_m - 1) < 0.02) > 0.95
    assert np.abs(bare.base + bare.sunny - base - sunny).mean() < 0.12
    (low, seen), *_ = bare.grounds
    assert low == 0
    assert np.mean(seen == floor) > 0.97
