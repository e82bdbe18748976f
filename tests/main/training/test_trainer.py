"""What training does when something is wrong, and what it logs."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from configs.reader import load_config
from main.training import recipes
from main.training.validation import joint_pictures
from models.losses import training_losses
from tests.main.training.conftest import CONFIG, PARITY, make_data


def error_line(capsys):
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    return line


def test_what_a_run_leaves(plain, data_dir):
    assert {path.name for path in plain.folder.iterdir()} == {
        *("log", "model_dump", "code", "result", "config_base.py")
    }
    assert plain.dump() == {"snapshot_0.pth.tar", "snapshot_1.pth.tar"}
    assert json.loads((plain.folder / "code" / "run.json").read_text())["command"]
    line = plain.lines()[-1]
    assert (line["epoch"], line["iteration"]) == (1, 2)
    terms = [k for k in line if k.startswith(("smplx_", "joint_", "hand_"))]
    assert len(terms) == 9
    assert line["loss"] == pytest.approx(sum(line[k] for k in terms), rel=1e-5)
    assert 0 <= line["data_wait"] <= 1
    assert line["seconds_left"] == 0
    assert plain.lines()[0]["lr"] == 1e-3
    text = plain.log()
    for word in ("smplx_pose", "samples/s", "waiting for data", "MiB", "left"):
        assert word in text


def test_event_file_has_losses_by_dataset_and_a_picture(plain):
    events = EventAccumulator(str(plain.folder / "log")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    losses = [line["loss"] for line in plain.lines()]
    logged = [event.value for event in events.Scalars("train/loss")]
    assert logged == pytest.approx(losses, rel=1e-6)
    assert "EgoBody_Kinect/joint_cam" in events.Tags()["scalars"]
    images = events.Images("joints")
    assert [image.step for image in images] == [2, 4]
    picture = cv2.imdecode(np.frombuffer(images[0].encoded_image_string, np.uint8), 1)
    assert picture.shape == (2 * 256, 4 * 192, 3)
    crops, predicted = picture[:256].astype(int), picture[256:].astype(int)
    assert (crops != predicted).any(axis=2).mean() > 0.01  # truth above, prediction below


def test_wild_loss_stops_and_its_batch_is_kept(train_here, tmp_path, capsys):
    run = train_here(tmp_path, "train.bad_loss_above=1e-3", status=2)
    line = error_line(capsys)
    assert "epoch 0, iteration 0" in line
    assert "bad_0_0_rank0.pt" in line
    (batch,) = torch.load(run.folder / "model_dump" / "bad_0_0_rank0.pt", weights_only=True)
    assert batch["input_img"].shape == (4, 256, 192, 3)
    assert not (run.folder / "log" / "metrics.jsonl").exists()


def test_wild_loss_is_skipped(train_here, plain, tmp_path):
    limit = 0.9 * plain.losses()[0]["loss"]  # the first iteration alone is above
    skipping = ("train.bad_loss=skip", f"train.bad_loss_above={limit}", "train.lr=1e-3")
    run = train_here(tmp_path, *skipping)
    assert "skipped" in run.log()
    assert "bad_0_0_rank0.pt" in run.dump()
    assert (run.losses()[0]["epoch"], run.losses()[0]["iteration"]) == (0, 2)
    assert run.losses()[0]["loss"] != plain.losses()[1]["loss"]  # nothing was learned before
    steps = {
        value["step"].item() for value in run.snapshot("snapshot_1")["optimizer"]["state"].values()
    }
    assert steps == {len(run.losses())}


def test_always_bad_is_no_training(train_here, tmp_path, capsys):
    bad = ("train.bad_loss=skip", "train.bad_loss_above=1e-3", "train.end_epoch=9")
    train_here(tmp_path, *bad, "train.train_batch_size=1", status=2)
    assert "10th bad one in a row" in error_line(capsys)


@pytest.fixture
def nan_gradients(monkeypatch):
    """From the third batch on a term of the loss is 0 and its gradient NaN, in float32 at least."""
    batches = []

    def losses(heads, *arguments):
        terms = training_losses(heads, *arguments)
        batches.append(terms)
        if len(batches) > 2:
            terms["smplx_shape"] = (0 * heads.body_shape.float()).sum(1).sqrt()
        return terms

    monkeypatch.setattr(recipes, "training_losses", losses)


def weights_of(run, name):
    return torch.cat([value.flatten() for value in run.snapshot(name)["network"].values()])


@pytest.mark.usefixtures("nan_gradients")
def test_bad_gradients_of_a_good_loss_are_no_step(train_here, tmp_path, capsys):
    run = train_here(tmp_path, "train.remove_checkpoint=True", status=2)
    line = error_line(capsys)
    assert "gradients of norm nan (loss " in line
    assert "epoch 1, iteration 0; its batch is in" in line
    assert len(run.losses()) == 2
    assert run.dump() == {"bad_1_0_rank0.pt", "snapshot_0.pth.tar", "state_0_1.pth.tar"}
    assert weights_of(run, "snapshot_0").isfinite().all()


@pytest.mark.usefixtures("nan_gradients")
def test_bad_gradients_are_skipped(train_here, tmp_path):
    run = train_here(tmp_path, "train.remove_checkpoint=True", "train.bad_loss=skip")
    good = {"snapshot_1.pth.tar", "state_0_1.pth.tar"}
    assert run.dump() == good | {f"bad_1_{k}_rank0.pt" for k in range(2)}
    assert weights_of(run, "snapshot_1").isfinite().all()
    steps = {v["step"].item() for v in run.snapshot("snapshot_1")["optimizer"]["state"].values()}
    assert steps == {2}


@pytest.fixture
def damaged_images(tmp_path):
    """One of EgoBody_Kinect's six images is missing."""
    images = tmp_path / "images"
    shutil.copytree(PARITY / "img", images)
    (images / "set" / "000002.png").unlink()
    return f"data.data_dir={make_data(tmp_path / 'data', images)}"


def test_unreadable_images_up_to_a_share(train_here, tmp_path, damaged_images, capsys):
    epoch = ("train.end_epoch=1", "data.data_strategy=concat", damaged_images)
    run = train_here(tmp_path / "many", *epoch, "train.unreadable_share=0.5")
    assert "000002.png" in run.log()
    capsys.readouterr()
    again = train_here(tmp_path / "again", *epoch, "train.num_thread=1", status=2)
    line = error_line(capsys)
    assert "could not be read" in line
    assert "unreadable_share = 0.01" in line
    assert "000002.png" in again.log()
    assert again.losses() == run.losses()[: len(again.losses())]  # the same rows took its place


def test_long_gradients_are_cut(train_here, plain, tmp_path):
    """Adam's first step does not depend on the gradient's length, but by epsilon."""
    run = train_here(tmp_path, "train.clip_grad_norm=1e-9", "train.lr=1e-3", "train.end_epoch=1")
    key = "module.encoder.blocks.0.attn.qkv.weight"
    names = ["network", "optimizer"]
    cut, free = (
        dict(zip(names, map(r.snapshot("snapshot_0").get, names), strict=True))
        for r in (run, plain)
    )
    moments = [
        max(float(v["exp_avg"].abs().max()) for v in one["optimizer"]["state"].values())
        for one in (cut, free)
    ]
    assert moments[0] < 1e-9 < moments[1]
    assert not cut["network"][key].equal(free["network"][key])


def test_truth_is_above_and_prediction_below_at_their_places():
    config = load_config(CONFIG).model
    batch = {
        "input_img": torch.zeros(2, 256, 192, 3),
        "target_joint_img": torch.zeros(2, 137, 3),
        "meta_joint_trunc": torch.zeros(2, 137, 1),
    }
    batch["target_joint_img"][1, 5, :2] = torch.tensor([3.0, 10.0])  # of a grid of 12 by 16
    batch["meta_joint_trunc"][1, 5] = 1
    predicted = torch.full((2, 137, 2), torch.nan)
    predicted[0, 7] = torch.tensor([150.0, 20.0])
    picture = joint_pictures(batch, predicted, config).permute(1, 2, 0).numpy()
    assert picture.shape == (512, 384, 3)
    rows, columns = np.nonzero(picture.any(axis=2))
    above = rows < 256
    assert np.abs(rows[above] - 160).max() <= 2
    assert np.abs(columns[above] - (192 + 48)).max() <= 2
    assert np.abs(rows[~above] - (256 + 20)).max() <= 2
    assert np.abs(columns[~above] - 150).max() <= 2
    assert above.any()
    assert not above.all()
