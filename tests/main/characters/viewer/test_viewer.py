"""The pages in headless Chromium, opened from the disk, offline: one run for all tests."""

import base64
import json
import shutil
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
import torch

from human_models.body import (
    BodyModel,
    forward_kinematics,
    linear_blend_skinning,
    skinning_transforms,
)
from human_models.joints import JOINTS
from human_models.safe_pickle import load_npz
from main.characters import viewer as viewing
from main.characters.character import read_character
from main.characters.export import export_result
from main.characters.surfaces import make_layers, make_morphs, make_skeleton, strongest

FRAMES, FPS = 30, 20.0
ASIDE = np.array([0.1, 0, 0])
"""The fixture's final people stand so far beside the joints in their files, metres."""


@pytest.fixture(scope="module")
def found(result, page, photograph, run_web, tmp_path_factory):
    """What tests/web/view_pages.mjs saw of a whole page, one without its files, a photograph."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copy(page, folder / "whole.html")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(viewing, "PAGE_BYTES", 0)
        (alone,) = export_result(result, ["viewer"], output=folder / "away")
    alone.rename(folder / "alone.html")
    (photo,) = export_result(photograph, ["viewer"])
    shutil.copy(photo, folder / "photo.html")
    run_web("view_pages.mjs", folder, folder / "found.json")
    return json.loads((folder / "found.json").read_text())


def test_pages_open_from_the_disk_without_errors_or_requests(found):
    assert found["errors"] == []
    assert {urlparse(url).scheme for url in found["requests"]} <= {"file", "blob", "data"}


def grey_frame(shade: int) -> int:
    """Which frame of the video is so bright; the codec is not exact."""
    return round((shade - 20) / 7)


def test_it_plays_and_the_scene_shows_the_videos_frame(found):
    played = found["played"]
    assert not played["playing"]
    assert 4 <= played["frame"] < FRAMES
    assert grey_frame(played["shade"]) == played["frame"]


@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_the_first_view_has_everybody_in_it(found, screen):
    outermost = np.array(found["framing"][screen])
    assert (outermost < 0.98).all()
    assert outermost.max() > 0.6


def test_the_cameras_view_shows_joints_where_the_picture_has_them(found, result):
    content = load_npz(result / "person_001.npz")
    names = ("neck", "right_wrist", "left_ankle")
    joints = content["joints_3d_m"][7, [JOINTS.index(name) for name in names]] + ASIDE
    expected = joints[:, :2] / joints[:, 2:] * content["focal"][7] + content["princpt"][7]
    assert np.array(found["recorded"]) == pytest.approx(expected, abs=0.5)


def test_without_a_graphics_card_it_plays_one_coarse_surface_of_the_same_shape(found):
    assert found["played"]["meshes"] == 1
    coarse = found["coarse"]
    assert coarse["parts"] == ["skin", "shirt", "trousers", "shoes", "hair"]
    assert coarse["away"] < 1e-4
    assert 0.3 < coarse["shown"] < 0.7  # what faces away is left out


def test_a_paused_page_draws_nothing(found):
    assert found["played"]["idle"] == 0


def test_it_seeks_and_the_video_follows_to_the_frame(found):
    assert [one["frame"] for one in found["sought"]] == [0, 3, 23, 22, 29, 10]
    assert [grey_frame(one["shade"]) for one in found["sought"]] == [0, 3, 23, 22, 29, 10]


def posed(data, body: BodyModel, character, frame, points, weights):
    rest = torch.from_numpy(make_skeleton(data, character.betas).positions_m)[None]
    rotations = torch.from_numpy(character.rotations[[frame]])
    world = forward_kinematics(rotations, rest, body.parents_but_root, body.steps)
    moves = skinning_transforms(world, rest)
    moved = linear_blend_skinning(
        torch.from_numpy(points.T)[None], moves, torch.from_numpy(weights.T)
    )
    return moved[0].numpy().T + character.pelvis_m[frame] - rest[0, 0].numpy()


def dense(joints, kept):
    weights = np.zeros((len(joints), 55))
    np.add.at(weights, (np.arange(len(joints))[:, None], joints), kept)
    return weights


def test_vertices_in_the_scene_are_the_body_models(found, result, data, body):
    character = read_character(result / "person_001.npz", body)
    morphs = make_morphs(character.expression)
    layers, shaped = make_layers(data, character.betas, 1, morphs, clothes=True)
    count = len(data.template)
    assert len(found["geometry"]["frames"]) == 3
    for seen in found["geometry"]["frames"]:
        frame = seen["frame"]
        points = shaped.positions_m + shaped.expressions_m @ character.expression[frame]
        weights = dense(*strongest(shaped.weights[:count]))
        expected = [posed(data, body, character, frame, points[:count], weights)]
        for layer in layers[1:]:
            surface = layer.surface
            worn = dense(surface.joints, surface.weights)
            expected.append(posed(data, body, character, frame, surface.positions_m, worn))
        names = [mesh["name"] for mesh in seen["meshes"]]
        assert names == ["body", *(layer.surface.name for layer in layers[1:])]
        for mesh, places in zip(seen["meshes"], expected, strict=True):
            drawn = np.frombuffer(base64.b64decode(mesh["places"]), "<f4").reshape(-1, 3)
            assert np.linalg.norm(drawn - places, axis=1).max() < 0.001


def test_charts_show_where_the_joint_is_and_how_fast(found, result):
    content = load_npz(result / "person_001.npz")
    wrist = content["joints_3d_m"][:, JOINTS.index("right_wrist")]
    series = found["geometry"]["series"]
    assert np.array(series["across"]) == pytest.approx(wrist[:, 0] + ASIDE[0], abs=0.003)
    assert np.array(series["distance"]) == pytest.approx(wrist[:, 2], abs=0.003)
    moved = np.linalg.norm(wrist[2:] - wrist[:-2], axis=1) * FPS / 2
    assert np.array(series["speed"])[1:-1] == pytest.approx(moved, abs=0.05)


def test_every_control_changes_what_is_shown(found):
    seen = found["controls"]
    for name in ("view camera", "view picture", "surface body", "surface none", "motion raw"):
        group, option = name.split()
        assert seen[name]["state"][group] == option
    shown = {name: one["shown"] for name, one in seen.items() if isinstance(one, dict)}
    assert shown["start"]["names"] == ["skin", "shirt", "trousers", "shoes", "hair"]
    assert shown["surface body"]["names"] == ["body"]
    assert shown["surface none"]["names"] == []
    assert shown["motion both"]["drawn"] > shown["motion smoothed"]["drawn"]
    assert "bones" in shown["skeleton"]["names"]
    assert shown["floor"]["drawn"] < shown["start"]["drawn"]
    for name in ("follow", "loop", "sound", "dark"):
        assert seen[name]["state"][name] != seen["start"]["state"][name]
    assert not shown["hidden"]["group"]
    assert seen["color"] == "123456"
    assert seen["chosen"]["state"]["speed"] == 0.25
    assert seen["value"].endswith("°")
    assert seen["help"] == 1


def test_what_is_saved_is_what_lies_in_the_folder(found, result):
    saved = {name: base64.b64decode(text) for name, text in found["downloads"].items()}
    for name in ("export/person_002.glb", "export/person_002.bvh", "person_001.npz"):
        path = result / name
        assert saved[path.name] == path.read_bytes()
    video = result.with_name("result_walk.mp4")
    assert saved[video.name] == video.read_bytes()
    assert saved["walk_scene.png"].startswith(b"\x89PNG")
    chart = saved["walk_chart.csv"].decode().splitlines()
    assert len(chart) == FRAMES + 1
    assert chart[0].startswith("frame,time (s),person 1 right_elbow angle")


def test_it_fits_a_phone_in_light_and_follows_the_systems_wish(found):
    assert found["phone"] == {"overflow": 0, "dark": False, "playing": True}
    assert found["first"]["dark"]


def test_a_photograph_is_shown_and_does_not_play(found):
    assert found["photo"] == {"image": 320, "disabled": True, "overflow": 0}


def test_a_page_without_its_files_says_so_and_plays_the_scene(found):
    assert "result_walk.mp4 is not there" in found["alone"]["message"]
    assert found["alone"]["frame"] > 2
    assert any(link.endswith("export/person_002.glb") for link in found["alone"]["links"])


def test_the_committed_bundle_is_what_its_sources_give(run_web, tmp_path):
    run_web("build_viewer.mjs", tmp_path / "bundle.js")
    committed = Path(viewing.__file__).parent / "page" / "bundle.js"
    assert committed.read_bytes() == (tmp_path / "bundle.js").read_bytes()
