import numpy as np
import pytest
import torch

from main.characters.character import make_layers, make_morphs, read_character
from main.characters.formats import write_usd

pxr = pytest.importorskip("pxr", reason="usd-core is optional: pip install usd-core")


def test_usd_itself_bakes_the_vertices_of_the_body_model(result, data, body, tmp_path):
    from pxr import Gf, Usd, UsdGeom, UsdSkel

    character = read_character(result / "person_001.npz", body)
    write_usd(tmp_path / "one.usdc", character, data, 1)
    stage = Usd.Stage.Open(str(tmp_path / "one.usdc"))
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0, 47)
    assert stage.GetTimeCodesPerSecond() == 24
    root = UsdSkel.Root(stage.GetDefaultPrim())
    assert UsdSkel.BakeSkinning(root, Gf.Interval(0, 30))
    layers, _ = make_layers(
        data, character.betas, 1, make_morphs(character.expression), clothes=True
    )
    for frame in (0, 9, 30):
        row = character.frame_index.tolist().index(frame)
        parameters = {name: value[[row]] for name, value in character.body_parameters(body).items()}
        with torch.inference_mode():
            expected = body(**parameters).vertices[0].numpy()[layers[0].points]
        mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/person_001/body"))
        baked = np.array(mesh.GetPointsAttr().Get(frame))
        apart = np.linalg.norm(baked - expected, axis=1)
        # Pose correctives and a fifth joint are not in it.
        assert apart.mean() < 0.0005
        assert np.percentile(apart, 99.5) < 0.005
    assert stage.GetPrimAtPath("/person_001/shirt").IsValid()
