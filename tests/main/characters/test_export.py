import json

import numpy as np
import pytest

from configs.reader import load_config, save_config
from human_models.files import STAND_IN, STAND_IN_NAME, ModelFolder
from human_models.safe_pickle import load_npz
from main.characters.character import CHARACTER_FIELDS, make_character
from main.characters.export import export_result
from main.characters.formats import write_amass, write_bvh, write_glb
from main.characters.options import ExportOptions, parse_formats
from main.export import main
from main.motion.result_reader import read_person
from utils.errors import UserError
from utils.files import ROOT


def test_the_command_writes_every_format_for_the_person(result, tmp_path):
    flags = ["--format", "amass,glb,bvh,obj,ply", "--person", "2", "--every", "2"]
    assert main([str(result), *flags, "--output", str(tmp_path / "out")]) == 0
    names = {path.name.removeprefix("person_002") for path in (tmp_path / "out").iterdir()}
    assert names == {".glb", ".bvh", "_amass.npz", "_obj", "_ply"}
    assert len(list((tmp_path / "out" / "person_002_obj").iterdir())) == 2


def test_amass_is_z_up_and_the_others_y_up_unless_it_is_said(result, tmp_path):
    (z_up,) = export_result(result, ["amass"], persons=[2], output=tmp_path)
    assert str(load_npz(z_up)["up_axis"]) == "z"
    options = ExportOptions(up="y", origin="person")
    (y_up,) = export_result(result, ["amass"], persons=[2], output=tmp_path, options=options)
    assert str(load_npz(y_up)["up_axis"]) == "y"
    assert np.abs(load_npz(y_up)["trans"][0, [0, 2]]).max() < 0.1


def test_everyone_is_exported_unless_people_are_named(result, tmp_path):
    written = export_result(result, ["bvh"], output=tmp_path)
    assert [path.name for path in written] == ["person_001.bvh", "person_002.bvh"]


@pytest.mark.parametrize(
    ("formats", "arguments", "message"),
    [
        (["fbx"], {}, "^export format 'fbx' is unknown; choose from"),
        (["glb"], {"persons": [7]}, "--person 7: .* has 1, 2"),
        (["glb"], {"options": ExportOptions(up="z")}, "always have y up"),
        ([], {}, "choose from amass,glb"),
    ],
)
def test_what_cannot_be_had_is_reported_before_anything_is_written(
    result, tmp_path, formats, arguments, message
):
    with pytest.raises(UserError, match=message):
        export_result(result, formats, output=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_result_is_an_error_of_one_line(tmp_path, capsys):
    assert main([str(tmp_path), "--format", "glb"]) == 2
    assert "give a folder of results" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 2


def test_results_of_the_licensed_body_want_its_files(result, tmp_path):
    content = load_npz(result / "person_002.npz") | {"body_model": np.array("SMPL-X")}
    np.savez(tmp_path / "person_001.npz", **content)
    overrides = [f"model.human_model_path={tmp_path}"]
    config = load_config(ROOT / "configs" / "config_debug.py", overrides)
    save_config(config, tmp_path / "config_base.py")
    with pytest.raises(UserError, match="was made with SMPL-X, whose files are not in"):
        export_result(tmp_path, ["glb"])
    with pytest.raises(UserError, match=f"whose files are not in {tmp_path}"):
        export_result(tmp_path, ["glb"], bodies=tmp_path)


def test_a_config_names_no_bodies_outside_the_project(result, tmp_path, monkeypatch):
    """A stranger's config could make this machine open any place."""
    content = load_npz(result / "person_002.npz") | {"body_model": np.array("SMPL-X")}
    np.savez(tmp_path / "person_001.npz", **content)
    looked_at = []

    def find(path):
        looked_at.append(path)
        return ModelFolder(STAND_IN, STAND_IN_NAME)

    monkeypatch.setattr("main.characters.export.find_model_folder", find)
    default = ROOT / "human_models" / "human_model_files"
    for named, expected in (
        ("/srv/bodies", default),
        ("../bodies", default),
        ("outputs/bodies", ROOT / "outputs" / "bodies"),
    ):
        overrides = [f"model.human_model_path={named}"]
        config = load_config(ROOT / "configs" / "config_debug.py", overrides)
        save_config(config, tmp_path / "config_base.py")
        with pytest.raises(UserError, match="--body-folder"):
            export_result(tmp_path, ["glb"])
        assert looked_at.pop() == expected


def test_people_of_two_bodies_are_no_result(result, tmp_path):
    for number, name in ((1, "SMPL-X"), (2, STAND_IN_NAME)):
        content = load_npz(result / "person_002.npz") | {"body_model": np.array(name)}
        np.savez(tmp_path / f"person_{number:03d}.npz", **content)
    with pytest.raises(UserError, match="have different body models"):
        export_result(tmp_path, ["glb"])


def test_usd_without_its_package_says_what_to_install(result, tmp_path, monkeypatch):
    monkeypatch.setattr("main.characters.formats.Usd", None)
    with pytest.raises(UserError, match="pip install usd-core"):
        export_result(result, ["glb", "usd"], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_are_the_formats_that_need_no_extra_package(result, tmp_path, capsys):
    simple = ("amass", "glb", "bvh", "obj", "ply", "viewer")
    assert parse_formats("all") == simple
    assert parse_formats("usd, all,glb") == ("usd", *simple)
    flags = ["--format", "all", "--person", "2", "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "all (those without extra packages)" in " ".join(capsys.readouterr().out.split())
    content = load_npz(result / "person_002.npz")
    assert "focal" not in content  # what only the viewer needs
    assert main([str(result), *flags]) == 2
    assert "lacks 'focal'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_forged_name_stays_a_value(result, data, body, tmp_path):
    """The model's name is the only text of a result that reaches a character."""
    forged = 'SMPL-X"}}],"nodes":[{"uri":"file:///etc/passwd"}] </script>\u202e{}'
    content = read_person(result / "person_002.npz", CHARACTER_FIELDS)
    honest = make_character("person_002", content, body)
    marked = make_character("person_002", content | {"body_model": np.array(forged)}, body)
    documents = []
    for character in (honest, marked):
        path = tmp_path / "one.glb"
        write_glb(path, character, data, 2)
        glb = path.read_bytes()
        documents.append(json.loads(glb[20 : 20 + int.from_bytes(glb[12:16], "little")]))
    assert documents[1]["asset"]["extras"].pop("body_model") == forged
    assert documents[0]["asset"]["extras"].pop("body_model") == STAND_IN_NAME
    assert documents[0] == documents[1]
    for name, character in (("honest.bvh", honest), ("marked.bvh", marked)):
        write_bvh(tmp_path / name, character, data)
    assert (tmp_path / "marked.bvh").read_bytes() == (tmp_path / "honest.bvh").read_bytes()
    write_amass(tmp_path / "marked.npz", marked, data)
    assert str(load_npz(tmp_path / "marked.npz")["body_model"]) == forged
