"""The body layers against the `smplx` package, on a random body that shows every mistake."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import smplx
import torch
from torch import Tensor

import human_models.body
from human_models.body import BodyLibrary, BodyModel, BodyOutput, contour_row
from human_models.files import ModelFolder, read_body
from human_models.joints import MODEL_JOINTS
from utils.geometry import axis_angle_to_matrix

SIZES = {
    "smplx": {
        "global_orient": 3,
        "body_pose": 63,
        "jaw_pose": 3,
        "leye_pose": 3,
        "reye_pose": 3,
        "left_hand_pose": 45,
        "right_hand_pose": 45,
        "betas": 10,
        "expression": 10,
        "transl": 3,
    },
    "smpl": {"global_orient": 3, "body_pose": 69, "betas": 10, "transl": 3},
}


def random_parameters(rig: str, batch: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    parameters = {}
    for name, size in SIZES[rig].items():
        scale = 0.4 if name.endswith("pose") else 1.0
        parameters[name] = scale * torch.randn(batch, size, generator=generator)
    return parameters


def reference(
    folder: Path, rig: str, gender: str, dtype: torch.dtype = torch.float32
) -> torch.nn.Module:
    settings = {
        "gender": gender,
        "ext": "npz" if rig == "smplx" else "pkl",
        "use_pca": False,
        "flat_hand_mean": False,
        "use_face_contour": True,
        "num_betas": 10,
        "num_expression_coeffs": 10,
        "dtype": dtype,
    }
    return smplx.create(str(folder), rig, **settings)


@pytest.fixture(scope="module")
def library(random_body_folder: Path) -> BodyLibrary:
    return BodyLibrary(ModelFolder(random_body_folder, "SMPL-X"))


@pytest.fixture(scope="module")
def references(random_body_folder: Path) -> dict[str, torch.nn.Module]:
    return {
        "smplx": reference(random_body_folder, "smplx", "neutral"),
        "smpl": reference(random_body_folder, "smpl", "male"),
    }


@pytest.fixture(params=["smplx", "smpl"])
def rig(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(library: BodyLibrary, rig: str) -> BodyModel:
    return library.smplx("neutral") if rig == "smplx" else library.smpl("male")


def assert_close(ours: Tensor | None, theirs: Tensor, tolerance: float = 1e-5) -> None:
    assert ours is not None
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < tolerance


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_equals_the_reference(
    model: BodyModel, references: dict[str, torch.nn.Module], rig: str, batch: int
) -> None:
    parameters = random_parameters(rig, batch)
    with torch.no_grad():
        ours, theirs = model(**parameters), references[rig](**parameters)
    assert_close(ours.vertices, theirs.vertices)
    assert_close(ours.joints, theirs.joints)
    assert ours.vertices.is_contiguous()
    assert ours.joints.is_contiguous()


def test_number_of_joints(library: BodyLibrary) -> None:
    smplx_output = library.smplx()(**random_parameters("smplx", 2))
    smpl_output = library.smpl("male")(**random_parameters("smpl", 2))
    assert smplx_output.joints.shape == (2, len(MODEL_JOINTS), 3)
    assert smpl_output.joints.shape == (2, 24 + 21, 3)


def weighted_sum(output: BodyOutput) -> Tensor:
    """A number that depends on each coordinate differently."""
    total = torch.zeros(())
    for points in (output.vertices, output.joints):
        if points is not None:
            total = total + (points * torch.linspace(-1, 1, points.numel()).view_as(points)).sum()
    return total


def test_gradients_equal_those_of_the_reference(
    model: BodyModel, references: dict[str, torch.nn.Module], rig: str
) -> None:
    parameters = {n: p.requires_grad_() for n, p in random_parameters(rig, 3).items()}
    names, values = list(parameters), list(parameters.values())
    ours = torch.autograd.grad(weighted_sum(model(**parameters)), values)
    theirs = torch.autograd.grad(weighted_sum(references[rig](**parameters)), values)
    for name, our, their in zip(names, ours, theirs, strict=True):
        assert their.abs().max() > 0, name
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5 * float(their.abs().max()))


def test_joints_alone_are_the_same(model: BodyModel, rig: str) -> None:
    parameters = {n: p.requires_grad_() for n, p in random_parameters(rig, 4).items()}
    alone = model(**parameters, want_vertices=False)
    full = model(**parameters)
    assert alone.vertices is None
    assert_close(alone.joints, full.joints, 1e-6)

    values = list(parameters.values())
    of_alone = torch.autograd.grad(weighted_sum(alone), values)
    of_full = torch.autograd.grad(weighted_sum(BodyOutput(None, full.joints)), values)
    for one, other in zip(of_alone, of_full, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_left_out_parameters_are_zero(
    model: BodyModel, references: dict[str, torch.nn.Module], rig: str
) -> None:
    required = ("global_orient", "body_pose", "betas")
    parameters = random_parameters(rig, 1)
    parameters = {n: p if n in required else torch.zeros_like(p) for n, p in parameters.items()}
    with torch.no_grad():
        ours = model(**{name: parameters[name] for name in required})
        theirs = references[rig](**parameters)
    assert_close(ours.vertices, theirs.vertices)


def test_zero_pose_has_finite_gradients(model: BodyModel, rig: str) -> None:
    parameters = {
        n: torch.zeros_like(p).requires_grad_() for n, p in random_parameters(rig, 2).items()
    }
    values = list(parameters.values())
    for gradient in torch.autograd.grad(weighted_sum(model(**parameters)), values):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_contour_follows_every_turn_of_the_head(
    library: BodyLibrary, references: dict[str, torch.nn.Module]
) -> None:
    parameters = {n: torch.zeros(145, s) for n, s in SIZES["smplx"].items()}
    # Half a degree off the whole degrees' edges, where rounding decides.
    parameters["body_pose"][:, 34] = torch.deg2rad(torch.linspace(-89.7, 89.8, 145))
    with torch.no_grad():
        ours = library.smplx()(**parameters, want_vertices=False)
        theirs = references["smplx"](**parameters)
    assert_close(ours.joints, theirs.joints)


def test_contour_rows() -> None:
    degrees = torch.tensor([0.0, -0.4, -20, -39, -60, 1, 20, 39, 41, 80, 180])
    turns = torch.stack([torch.zeros(11), torch.deg2rad(degrees), torch.zeros(11)], dim=1)
    rows = contour_row(axis_angle_to_matrix(turns), 79)
    assert rows.tolist() == [0, 0, 20, 39, 39, 40, 59, 78, 78, 78, 0]
    assert contour_row(torch.full((1, 3, 3), torch.nan), 79).tolist() == [0]


def test_double_precision(random_body_folder: Path) -> None:
    folder = ModelFolder(random_body_folder, "SMPL-X")
    ours = BodyModel(read_body(folder, "smpl", "female")).to(torch.float64)
    theirs = reference(random_body_folder, "smpl", "female", dtype=torch.float64)
    parameters = {n: p.double() for n, p in random_parameters("smpl", 2).items()}
    output = ours(**parameters)
    assert output.vertices.dtype == output.joints.dtype == torch.float64
    assert_close(output.vertices, theirs(**parameters).vertices, 2e-6)
    for name, buffer in ours.named_buffers():
        assert buffer.dtype in (torch.float64, torch.int64), name


def test_everything_moves_to_another_device(
    random_body_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The "meta" device computes shapes only, and refuses to meet a tensor left on the CPU."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # has none
    folder = ModelFolder(random_body_folder, "SMPL-X")
    model = BodyModel(read_body(folder, "smplx")).to("meta")
    parameters = {n: p.to("meta") for n, p in random_parameters("smplx", 2).items()}
    output = model(**parameters)
    assert output.vertices.device.type == output.joints.device.type == "meta"
    assert {buffer.device.type for buffer in model.buffers()} == {"meta"}


def test_precision_is_kept_under_autocast(model: BodyModel, rig: str) -> None:
    parameters = random_parameters(rig, 2)
    halves = {n: p.to(torch.bfloat16) for n, p in parameters.items()}
    rounded = {n: p.float() for n, p in halves.items()}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(**halves)
    assert output.joints.dtype == torch.float32
    with torch.no_grad():
        assert_close(output.vertices, model(**rounded).vertices, 1e-6)


def test_has_nothing_to_learn_or_to_save(model: BodyModel) -> None:
    assert not list(model.parameters())
    assert not model.state_dict()


def test_wrong_shapes_are_named(library: BodyLibrary) -> None:
    parameters = random_parameters("smplx", 2)
    model = library.smplx()
    for name in parameters:
        if name == "global_orient":  # it sets the batch size
            continue
        # In the tests the check of signatures speaks first, with a TypeError, where it can.
        with pytest.raises((ValueError, TypeError), match=name):
            model(**(parameters | {name: parameters[name][:, :-1]}))
        with pytest.raises((ValueError, TypeError), match=name):
            model(**(parameters | {name: parameters[name][:1]}))
    with pytest.raises(ValueError, match="smpl has no jaw_pose"):
        library.smpl("male")(**random_parameters("smpl", 2), jaw_pose=torch.zeros(2, 3))


def test_files_with_all_components(tmp_path: Path, random_body_folder: Path) -> None:
    """The large files have 300 + 100 columns; the expressions' first is number 300."""
    with np.load(random_body_folder / "smplx" / "SMPLX_NEUTRAL.npz") as file:
        content = dict(file)
    rng = np.random.default_rng(3)
    content["shapedirs"] = 0.01 * rng.standard_normal((10475, 3, 400), dtype=np.float32)
    (tmp_path / "smplx").mkdir()
    np.savez(tmp_path / "smplx" / "SMPLX_NEUTRAL.npz", **content)

    ours = BodyLibrary(ModelFolder(tmp_path, "SMPL-X")).smplx()
    theirs = reference(tmp_path, "smplx", "neutral")
    parameters = random_parameters("smplx", 1)
    with torch.no_grad():
        output, expected = ours(**parameters), theirs(**parameters)
    assert_close(output.vertices, expected.vertices)
    assert_close(output.joints, expected.joints)


def test_rest_joints_are_the_joints_of_the_unposed_body(library: BodyLibrary) -> None:
    parameters = random_parameters("smplx", 2)
    shape = {name: parameters[name] for name in ("betas", "expression")}
    unposed = {n: torch.zeros(2, SIZES["smplx"][n]) for n in ("global_orient", "body_pose")}
    model = library.smplx()
    posed = model(**shape, **unposed, want_vertices=False).joints[:, :22]
    assert_close(model.rest_joints(**shape)[:, :22], posed, 1e-6)


def test_library_reads_a_model_when_it_is_used(
    random_body_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def counting(*arguments: object, **options: int) -> object:
        read.append(arguments[1:])
        return read_body(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(human_models.body, "read_body", counting)
    library = BodyLibrary(ModelFolder(random_body_folder, "SMPL-X"))
    assert read == []
    male = library.smpl("male")
    assert library.smpl("male") is male
    assert library.smpl("female") is not male
    assert read == [("smpl", "male"), ("smpl", "female")]
