"""The health check says what is missing, and its exit status what can run."""

import pytest

from main import doctor
from main.pipeline import health


@pytest.fixture
def examine(tmp_path, capsys, untrained):
    """Runs the command with no body files, datasets or detector; gives status and report."""

    def examine_with(*flags, model_dir=str(untrained)):
        nowhere = [
            f"--set=model.human_model_path={tmp_path / 'bodies'}",
            f"--set=data.data_dir={tmp_path / 'data'}",
            f"--set=inference.detection.model_path={tmp_path / 'person.pt'}",
        ]
        status = doctor.main([model_dir, *nowhere, *flags])
        return status, " ".join(capsys.readouterr().out.split())

    return examine_with


def test_inference_runs_with_the_stand_in(examine, tmp_path):
    status, report = examine()
    assert status == health.TASKS["training"] + health.TASKS["evaluation"]
    assert "inference: can run" in report
    assert "takes the place of SMPL-X" in report
    assert "reference outputs: reproduced" in report


def test_missing_files_are_named_with_page_and_place(examine):
    _, report = examine()
    for name in ("SMPLX_NEUTRAL", "SMPL_MALE", "SMPLX_to_J14.pkl", "smplx2smpl.pkl"):
        assert name in report
    assert "smpl-x.is.tue.mpg.de" in report
    assert "smpl.is.tue.mpg.de" in report


def test_licensed_files_are_found(examine, random_body_folder):
    _, report = examine(f"--set=model.human_model_path={random_body_folder}")
    assert "SMPL-X neutral: readable" in report
    assert "SMPL female: readable" in report
    assert "takes the place of SMPL-X" not in report


def test_datasets_enable_evaluation(examine, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "set.npz").touch()
    status, report = examine()
    assert status == 0
    assert "evaluation: can run" in report


def test_missing_network_blocks_inference(examine, tmp_path):
    status, report = examine(model_dir="no_such_model")
    assert status & health.TASKS["inference"]
    assert "inference: cannot run" in report


def test_wrong_numbers_are_noticed(examine, monkeypatch):
    monkeypatch.setattr(health, "reference_error", lambda *_: 0.5)
    status, report = examine()
    assert status & health.WRONG_NUMBERS
    assert "not reproduced this device computes wrong numbers (error 5.0e-01)" in report


def test_bf16_has_reference_outputs_too(examine):
    _, report = examine("--precision", "bf16")
    assert "reference outputs: reproduced (bf16" in report


def test_a_missing_encoder_comes_with_where_it_is_from(examine, tmp_path):
    for name, source in (
        ("vitpose_small.pth", "ViTPose weights"),
        ("vit_demo_keypoints.pth", "the encoder.pth of scripts/pretrain.sh"),
    ):
        path = tmp_path / name
        status, report = examine(f"--set=model.encoder_pretrained_model_path={path}")
        assert status & health.TASKS["training"]
        assert (
            f"put {source} at {path}, or start from random weights: --set model.encoder_pre"
            in report
        )


@pytest.mark.parametrize(("models", "chosen"), [(("mine", "yours"), "mine"), ((), "smplest_x_h")])
def test_default_is_a_folder_with_a_model(tmp_path, monkeypatch, models, chosen):
    (tmp_path / "detectors").mkdir()
    for name in models:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config_base.py").touch()
    monkeypatch.setattr(doctor, "PRETRAINED", tmp_path)
    assert doctor.make_parser().parse_args([]).model_dir == chosen
