"""Metrics against the published code's own values, and what must hold for any mesh."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder, read_body
from human_models.joints import RIG_JOINTS, SMPLX_SURFACE_VERTICES
from main.evaluation.metrics import (
    HAND_SET_METRICS,
    SMPL_METRICS,
    SMPLX_METRICS,
    Evaluator,
    SampleErrors,
    means_of,
)
from utils.geometry import align_similarity

DIGITS_MM = 1e-3
DATA = Path(__file__).parents[2] / "parity" / "data"


@pytest.fixture(scope="module")
def random_folder(random_body_folder):
    return ModelFolder(random_body_folder, "random")


@pytest.fixture(scope="module")
def published(random_folder):
    return Evaluator(random_folder, "published")


@pytest.fixture(scope="module")
def correct():
    return Evaluator(correct_folder())


@pytest.fixture(scope="module")
def meshes():
    """A true body of 5 people and predictions some centimetres off."""
    generator = torch.Generator().manual_seed(3)
    with np.load(STAND_IN / "smplx" / "SMPLX_NEUTRAL.npz") as body:
        template = torch.from_numpy(body["v_template"]).double()
    shifts = torch.tensor([0.0, 0.3, 4.0], dtype=torch.float64) + torch.rand(5, 1, 3).double()
    true = template + shifts
    return true + 0.03 * torch.randn(true.shape, generator=generator).double(), true


def correct_folder():
    return ModelFolder(STAND_IN, STAND_IN_NAME)


def both(count):
    return torch.ones(count, dtype=torch.bool), torch.ones(count, dtype=torch.bool)


def close(actual, wanted):
    torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=DIGITS_MM)


def kept(errors):
    return {name: error[valid].numpy() for name, (error, valid) in errors.items()}


def parity(name):
    with np.load(DATA / name) as file:
        return {key: file[key] for key in file.files}


def assert_as_expected(result, values):
    expected = {k.removeprefix("expected_"): v for k, v in values.items() if "expected" in k}
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, rtol=2e-4, err_msg=name)


def test_published_protocol_has_published_values(published):
    values = parity("eval_smplx.npz")
    mesh = (torch.from_numpy(values[key]) for key in ("pred", "gt"))
    valid = (torch.from_numpy(values[key]) for key in ("lhand_valid", "rhand_valid"))
    assert_as_expected(kept(published.smplx(*mesh, *valid)), values)


def test_published_values_for_smpl_truth(published):
    values = parity("eval_smpl.npz")
    mesh = (torch.from_numpy(values[key]) for key in ("pred", "gt"))
    result = published.smpl(*mesh)
    assert tuple(result) == SMPL_METRICS
    assert_as_expected(kept(result), values)


def test_protocols_differ_only_in_joints_of_hands(published, random_folder):
    values = parity("eval_smplx.npz")
    mesh = [torch.from_numpy(values[key]) for key in ("pred", "gt")]
    ours = kept(Evaluator(random_folder, "correct").smplx(*mesh, *both(6)))
    theirs = kept(published.smplx(*mesh, *both(6)))
    for name in SMPLX_METRICS:
        same = np.allclose(ours[name], theirs[name])
        assert same != (name.startswith("mpjpe") and name.endswith("hand")), name
    assert ours["mpjpe_hand"].max() < 100 < theirs["mpjpe_hand"].min()


def test_truth_has_no_error(correct, meshes):
    _, true = meshes
    for name, (error, valid) in correct.smplx(true, true, *both(5)).items():
        assert valid.all(), name
        assert error.abs().max() < DIGITS_MM, name


def test_hand_vertices_against_a_loop_over_their_definition(correct, meshes):
    """Vertices of the hand: wrist matched, mean distance."""
    predicted, true = (mesh.numpy() for mesh in meshes)
    with np.load(STAND_IN / "smplx" / "SMPLX_NEUTRAL.npz", allow_pickle=True) as body:
        regressor = body["J_regressor"]
        regressor = regressor.item().toarray() if regressor.dtype == object else regressor
    with (STAND_IN / "smplx" / "MANO_SMPLX_vertex_ids.pkl").open("rb") as file:
        hand = pickle.load(file)["right_hand"]
    result = correct.smplx(*meshes, *both(5))
    for k in range(5):
        offset = regressor[21] @ predicted[k] - regressor[21] @ true[k]
        distance = np.linalg.norm(predicted[k][hand] - true[k][hand] - offset, axis=1)
        expected = pytest.approx(1000 * distance.mean())
        assert result["mpvpe_r_hand"].error_mm[k].item() == expected


def test_aligned_errors_ignore_a_similarity(correct, meshes):
    predicted, true = meshes
    turn = torch.linalg.qr(torch.tensor([[1.0, 2, 3], [0, 1, 4], [5, 6, 0]]).double())[0]
    turn = turn * torch.linalg.det(turn)
    before = correct.smplx(predicted, true, *both(5))
    after = correct.smplx(1.7 * predicted @ turn + 2.0, true, *both(5))
    for name in SMPLX_METRICS:
        same = torch.allclose(before[name].error_mm, after[name].error_mm)
        assert same == name.startswith("pa_"), name


def test_rooted_errors_ignore_a_translation(correct, meshes):
    predicted, true = meshes
    before = correct.smplx(predicted, true, *both(5))
    after = correct.smplx(predicted - torch.tensor([3.0, -1.0, 20.0]), true, *both(5))
    for name in SMPLX_METRICS:
        assert torch.allclose(before[name].error_mm, after[name].error_mm), name


@pytest.mark.parametrize("count", [0, 1, 3])
def test_batches_equal_singles(correct, meshes, count):
    batch = correct.smplx(*(mesh[:count] for mesh in meshes), *both(count))
    for k in range(count):
        single = correct.smplx(*(mesh[k : k + 1] for mesh in meshes), *both(1))
        for name, (error, _) in single.items():
            close(batch[name].error_mm[k : k + 1], error)
    assert all(len(error) == count for error, _ in batch.values())


def test_absent_hands_are_left_out(correct, meshes):
    left, right = torch.tensor([1, 0, 1, 0, 1]), torch.tensor([1, 1, 0, 0, 1])
    result = correct.smplx(*meshes, left, right)
    everything = correct.smplx(*meshes, *both(5))
    for metric in ("mpvpe", "pa_mpvpe", "mpjpe", "pa_mpjpe"):
        hands = result[f"{metric}_hand"]
        lefts = everything[f"{metric}_l_hand"].error_mm
        rights = everything[f"{metric}_r_hand"].error_mm
        assert result[f"{metric}_l_hand"].valid.tolist() == left.bool().tolist()
        assert hands.valid.tolist() == [True, True, True, False, True]
        torch.testing.assert_close(hands.error_mm[0], (lefts[0] + rights[0]) / 2)
        torch.testing.assert_close(hands.error_mm[1], rights[1])
        torch.testing.assert_close(hands.error_mm[2], lefts[2])
    assert all(error.isfinite().all() for error, _ in result.values())
    assert result["mpvpe_all"].valid.all()


def test_left_outlier_takes_the_right_hand_with_it(meshes):
    """But a right outlier leaves the left hand in."""
    folder = correct_folder()
    evaluator = Evaluator(folder, "published")
    predicted, true = (mesh[:4].clone() for mesh in meshes)
    generator = torch.Generator().manual_seed(0)
    for sample, hand in ((0, evaluator.left_hand), (1, evaluator.right_hand)):
        predicted[sample, hand] += torch.randn(778, 3, generator=generator)
    predicted[2, evaluator.left_hand] = predicted[0, evaluator.left_hand]
    # Outlying joints need a truth as large: similarity shrinks the prediction otherwise.
    true[:3] = true[:3] * 20
    predicted[:3] = predicted[:3] * 20
    left_valid = torch.tensor([True, True, False, True])
    right_valid = torch.ones(4, dtype=torch.bool)
    limited = evaluator.smplx(predicted, true, left_valid, right_valid)
    unlimited = Evaluator(folder, "correct").smplx(predicted, true, left_valid, right_valid)
    large = {
        hand: (unlimited[f"pa_mpjpe_{hand}"].error_mm > 100).tolist()
        for hand in ("l_hand", "r_hand")
    }
    assert large["l_hand"][0]
    assert large["r_hand"][1]
    assert not large["l_hand"][3]
    left, right, hand = (limited[f"pa_mpjpe_{p}"].valid for p in ("l_hand", "r_hand", "hand"))
    for k in range(4):
        left_out = large["l_hand"][k] and bool(left_valid[k])
        assert bool(left[k]) == (bool(left_valid[k]) and not left_out)
        assert bool(right[k]) == (not left_out and not large["r_hand"][k])
        assert bool(hand[k]) == (not left_out and not large["r_hand"][k])
    assert limited["pa_mpvpe_hand"].valid.all()
    for name in HAND_SET_METRICS:
        alone = evaluator.smplx(predicted, true, left_valid, right_valid, only=[name])
        assert list(alone) == [name]
        assert all(map(torch.equal, alone[name], limited[name])), name


def test_hand_sets_ask_for_what_means_something(correct, meshes):
    everything = correct.smplx(*meshes, *both(5))
    result = correct.smplx(*meshes, *both(5), only=HAND_SET_METRICS)
    assert set(result) == {
        f"pa_{kind}_{part}" for kind in ("mpvpe", "mpjpe") for part in ("l_hand", "r_hand", "hand")
    }
    for name, (error, _) in result.items():
        assert torch.equal(error, everything[name].error_mm)


def test_one_metric_alone(correct, meshes):
    assert list(correct.smplx(*meshes, *both(5), only=["mpvpe_hand"])) == ["mpvpe_hand"]
    with pytest.raises(ValueError, match="pve_all"):
        correct.smplx(*meshes, *both(5), only=["pve_all"])


def test_only_points_in_view_count(correct, meshes):
    predicted, true = meshes
    everything = correct.smplx(predicted, true, *both(5))
    middle = true[:, :, :1].mean(1, keepdim=True) + 1e-3  # no vertex lies there exactly
    halves = [
        correct.smplx(
            predicted, true, *both(5), in_view=lambda p, s=side: s * (p - middle)[..., 0] > 0
        )
        for side in (1, -1)
    ]
    assert [half["mpvpe_l_hand"].valid.all().item() for half in halves] != [True, True]
    share = (true[..., 0] > middle[..., 0]).double().mean(1)
    whole = halves[0]["mpvpe_all"].error_mm * share + halves[1]["mpvpe_all"].error_mm * (1 - share)
    close(whole, everything["mpvpe_all"].error_mm)
    seen = next(half for half in halves if half["mpvpe_l_hand"].valid.all())
    close(seen["mpvpe_hand"].error_mm, everything["mpvpe_l_hand"].error_mm)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("only", [SMPLX_METRICS, ["mpvpe_l_hand"], ["mpjpe_l_hand"]])
def test_predictions_that_are_no_numbers_are_reported(correct, meshes, only, value):
    predicted = meshes[0].clone()
    predicted[2, SMPLX_SURFACE_VERTICES["left_thumb4"]] = value
    for in_view in (None, lambda points: torch.zeros_like(points[..., 0], dtype=torch.bool)):
        with pytest.raises(ValueError, match="finite"):
            correct.smplx(predicted, meshes[1], *both(5), only=only, in_view=in_view)
    with pytest.raises(ValueError, match="finite"):
        correct.smpl(predicted, meshes[1][:, :6890])


def test_digits_are_those_of_float64_far_from_the_camera(correct, meshes):
    """Against the definitions, one sample at a time in float64."""
    predicted, true = ((mesh + torch.tensor([5.0, -8.0, 30.0])).float() for mesh in meshes)
    predicted = predicted + torch.tensor([0.3, 0.2, -4.0])
    result = correct.smplx(predicted, true, *both(5))
    predicted, true = predicted.double(), true.double()
    rig = torch.from_numpy(read_body(correct_folder(), "smplx").joint_regressor).double()
    for part, root, vertices in (
        ("all", "pelvis", torch.arange(10475)),
        ("face", "neck", correct.head),
        ("r_hand", "right_wrist", correct.right_hand),
    ):
        row = rig[RIG_JOINTS.index(root)] / rig[RIG_JOINTS.index(root)].sum()
        offset = row @ predicted - row @ true
        differences = {
            "mpvpe": predicted - offset[:, None] - true,
            "pa_mpvpe": align_similarity(predicted[:, vertices], true[:, vertices]),
        }
        differences["pa_mpvpe"] -= true[:, vertices]
        differences["mpvpe"] = differences["mpvpe"][:, vertices]
        for name, difference in differences.items():
            expected = 1000 * difference.norm(dim=2).mean(1)
            found = result[f"{name}_{part}"].error_mm
            torch.testing.assert_close(found, expected, rtol=0, atol=DIGITS_MM)


def test_mixed_precision_changes_no_digit(correct, meshes):
    predicted, true = (mesh.float() for mesh in meshes)
    expected = correct.smplx(predicted, true, *both(5))
    with torch.autocast("cpu", torch.bfloat16):
        found = correct.smplx(predicted, true, *both(5))
    for name, (error, _) in found.items():
        assert torch.equal(error, expected[name].error_mm), name


def test_meshes_are_left_as_they_are(correct, meshes):
    """Also where their memory is not in the order of their axes."""
    rows = [mesh.float() for mesh in meshes]
    planar = [mesh.mT.contiguous().mT for mesh in rows]
    results = []
    for given in (rows, planar):
        copies = [mesh.clone() for mesh in given]
        results.append(correct.smplx(*given, *both(5)))
        correct.smpl(given[0], given[1][:, :6890])
        assert all(map(torch.equal, given, copies))
    for name, (error, _) in results[0].items():
        assert torch.equal(error, results[1][name].error_mm), name


def sample_errors(errors, valid):
    return SampleErrors(torch.tensor(errors), torch.tensor(valid))


def test_means_weigh_samples_not_batches():
    batches = [
        {"all": sample_errors([1.0, 2.0, 3.0], [True] * 3)},
        {"all": sample_errors([10.0], [True])},
    ]
    assert means_of(batches) == {"all": {"mean": 4.0, "count": 4}}


def test_means_leave_out_and_say_what_has_no_samples():
    batches = [
        {"hand": sample_errors([1.0, 9.0], [True, False])},
        {"face": sample_errors([float("nan")], [False])},
    ]
    assert means_of(batches) == {
        "hand": {"mean": 1.0, "count": 1},
        "face": {"mean": None, "count": 0},
    }


def test_means_of_batches_of_several_processes():
    own = {"all": sample_errors([1.0, 2.0], [True, True])}
    other = {"all": sample_errors([6.0], [True]), "hand": sample_errors([5.0], [True])}
    arrived = pickle.loads(pickle.dumps(other))
    assert means_of([own, arrived]) == {
        "all": {"mean": 3.0, "count": 3},
        "hand": {"mean": 5.0, "count": 1},
    }
