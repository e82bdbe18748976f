import base64
import json
import os
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from main.characters import viewer as viewing
from main.characters.character import make_character
from main.characters.export import export_result
from main.characters.options import ExportOptions
from main.characters.scene import Pack, raw_character, read_viewed, simplified_faces, world_of
from main.characters.viewer import PageFile, find_exports, find_pictures
from main.export import main
from main.motion.result_reader import open_result, read_person
from utils.errors import UserError

ASIDE_M = 0.1
SECRET = b"\x89PNG and what nobody else should see"


def about_of(page: Path) -> dict:
    return json.loads(element(page, "about"))


def element(page: Path, name: str) -> str:
    text = page.read_text(encoding="utf-8")
    return re.search(rf'<script type="[a-z/-]+" id="{name}">(.*?)</script>', text, re.S)[1]


def unpacked(page: Path, reference: dict) -> np.ndarray:
    content = zlib.decompress(base64.b64decode(element(page, "data")))
    kind, offset, length, scale = reference["$"]
    return np.frombuffer(content, f"<{kind}", length, offset) * scale


def test_numbers_come_back_from_the_pack():
    pack = Pack()
    angles = np.random.default_rng(0).normal(size=(50, 4))
    references = [
        pack.rounded(angles),
        pack.exact(np.array([0, 70_000, -1])),
        pack.exact(np.array([True, False])),
        pack.exact(angles),
        pack.exact(angles.copy()),
    ]
    content = zlib.decompress(base64.b64decode(pack.encoded()))

    def read(reference):
        kind, offset, length, scale = reference["$"]
        return np.frombuffer(content, f"<{kind}", length, offset) * scale

    assert read(references[0]) == pytest.approx(angles.ravel(), abs=np.abs(angles).max() / 60_000)
    assert read(references[1]).tolist() == [0, 70_000, -1]
    assert read(references[2]).tolist() == [1, 0]
    assert references[3] == references[4]
    assert all(reference["$"][1] % 4 == 0 for reference in references)


def test_coarse_surfaces_keep_to_their_vertices_and_joints():
    side = np.linspace(0, 0.4, 21)
    positions = np.stack([*np.meshgrid(side, side, indexing="ij"), np.zeros((21, 21))], axis=-1)
    number = np.arange(441).reshape(21, 21)
    corners = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    a, b, c, d = (corner.ravel() for corner in corners)
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    joints = np.where(positions.reshape(-1, 3)[:, 0] < 0.2, 4, 7)
    coarse = simplified_faces(positions.reshape(-1, 3), faces, joints)
    assert 0 < len(coarse) < len(faces) / 3
    assert np.ptp(positions.reshape(-1, 3)[coarse.ravel()], axis=0)[:2].min() > 0.36
    crossing = (joints[coarse] == 4).any(axis=1) & (joints[coarse] == 7).any(axis=1)
    assert crossing.any()  # the two sides hang together, though no vertices of both were merged


def test_raw_motion_is_placed_as_the_results_were(result, body):
    content = read_person(result / "person_001.npz")
    raw = raw_character("one", content, body)
    final = make_character("one", content, body)
    assert raw.rotations == pytest.approx(final.rotations, abs=1e-5)
    aside = np.array([ASIDE_M, 0, 0])
    assert raw.pelvis_m + aside == pytest.approx(final.pelvis_m, abs=2e-3)
    without = {name: value for name, value in content.items() if not name.startswith("raw_")}
    assert raw_character("one", without, body) is None
    beside = content | {"raw_transl": np.full_like(content["raw_transl"], np.nan)}
    with pytest.raises(UserError, match=r"one\.npz: 'raw_transl'"):
        raw_character("one", beside, body)


def test_the_floor_is_the_results_or_where_feet_are(result):
    person = read_viewed(open_result(result), 1)
    world, estimated = world_of([person])
    assert not estimated
    camera_up = person.content["joints_3d_m"] * [1, -1, -1]
    assert -0.2 < np.median((camera_up[..., 1] + world[1, 3]).min(axis=1)) < 0.05
    floored = read_viewed(open_result(result), 1)
    floored.content["world_from_camera"] = np.diag([1.0, -1, -1, 1])[None]
    world, estimated = world_of([floored])
    assert estimated
    assert world == pytest.approx(np.eye(4))


def test_the_page_holds_people_flags_pictures_and_exports(result, page):
    about = about_of(page)
    assert [person["number"] for person in about["people"]] == [1, 2]
    assert about["frames"] == 30
    flags = about["people"][0]["flags"]
    assert unpacked(page, flags["interpolated"]).nonzero()[0].tolist() == [8]
    assert unpacked(page, flags["out_of_range"]).nonzero()[0].tolist() == [20]
    assert unpacked(page, flags["occlusion"])[24:].tolist() == [0, 50, 50, 50, 50, 50]
    assert unpacked(page, about["people"][1]["frames"]).tolist() == list(range(5, 15))
    overlay, source = about["pictures"]
    assert base64.b64decode(element(page, overlay["embedded"])) == (
        result.with_name("result_walk.mp4").read_bytes()
    )
    assert source["embedded"] is None
    assert {one["name"] for one in about["exports"] if one["embedded"]} == {
        *("person_002.glb", "person_002.bvh", "person_001.npz", "person_002.npz", "summary.json")
    }


def test_what_does_not_fit_stays_beside_the_page(result, page, tmp_path, monkeypatch):
    full = page.stat().st_size
    monkeypatch.setattr(viewing, "PAGE_BYTES", full - 100_000)
    (page,) = export_result(result, ["viewer"], output=tmp_path)
    assert page.stat().st_size <= full - 100_000
    about = about_of(page)
    beside = [one["name"] for one in about["exports"] if not one["embedded"]]
    assert beside == ["person_002.glb"]
    assert about["pictures"][0]["embedded"]


def test_one_person_undressed(result, tmp_path):
    options = ExportOptions(clothes=False)
    (page,) = export_result(result, ["viewer"], persons=[2], output=tmp_path, options=options)
    about = about_of(page)
    assert [person["number"] for person in about["people"]] == [2]
    assert about["template"]["uncovered"] is None
    assert about["people"][0]["garments"] == []


def test_names_are_kept_from_ending_the_script(result, tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    parts = {
        name: (Path(viewing.__file__).parent / "page" / name).read_text(encoding="utf-8")
        for name in ("page.html", "bundle.js", "style.css")
    }
    folder = tmp_path / f"result_{evil.replace('/', '')}<!--"
    folder.mkdir()
    content = read_person(result / "person_002.npz")
    np.savez(folder / "person_002.npz", **content)
    (folder / "export" / f"person_002{evil.replace('/', '')}.glb").mkdir(parents=True)
    summary = json.loads((result / "summary.json").read_text())
    summary |= {"model": evil, "camera": {"origin": evil}, "input": evil, "smoothing_s": {evil: 1}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (page,) = export_result(folder, ["viewer"], output=tmp_path)
    about, text = about_of(page), page.read_text(encoding="utf-8")
    assert about["model"] == about["camera"] == evil
    assert about["name"] == f"{evil.replace('/', '')}<!--"
    assert "<script>alert" not in text
    assert "<img src" not in text.replace(parts["bundle.js"], "")
    embedded = [one for one in about["exports"] + about["pictures"] if one["embedded"]]
    assert [one["name"] for one in embedded] == ["person_002.npz", "summary.json"]
    own = sum(part.count("</script>") for part in parts.values())
    assert text.count("</script>") == own + len(embedded)
    assert text.count("<!--") == sum(part.count("<!--") for part in parts.values())


@pytest.fixture
def copied(result, tmp_path):
    """A result of one person in a folder of its own, and a private picture elsewhere."""
    folder = tmp_path / "results" / "result_walk"
    folder.mkdir(parents=True)
    for name in ("person_002.npz", "summary.json"):
        shutil.copy(result / name, folder / name)
    (tmp_path / "private.png").write_bytes(SECRET)
    return folder


def named(folder: Path, name: str) -> None:
    summary = json.loads((folder / "summary.json").read_text()) | {"input": name}
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize("name", ["{}", "../private.png", "../../private.png", "link.png"])
def test_an_input_elsewhere_is_embedded_only_where_the_user_says_so(copied, tmp_path, capsys, name):
    private = tmp_path / "private.png"
    (copied.parent / "link.png").symlink_to(private)
    named(copied, name.format(private))
    assert main([str(copied), "--format", "viewer"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "--input" in line]
    assert "give --input FILE" in line
    page = copied / "viewer.html"
    assert about_of(page)["pictures"] == []
    assert base64.b64encode(SECRET).decode() not in page.read_text()
    assert main([str(copied), "--format", "viewer", "--input", str(private)]) == 0
    (picture,) = about_of(page)["pictures"]
    assert base64.b64decode(element(page, picture["embedded"])) == SECRET
    assert main([str(copied), "--format", "viewer", "--input", str(tmp_path / "no.png")]) == 2


def test_an_input_beside_the_folder_is_embedded(copied, capsys):
    (copied.parent / "walk.png").write_bytes(SECRET)
    named(copied, "walk.png")
    assert main([str(copied), "--format", "viewer"]) == 0
    assert "--input" not in capsys.readouterr().err
    (picture,) = about_of(copied / "viewer.html")["pictures"]
    assert (picture["label"], picture["path"]) == ("source", "../walk.png")
    assert picture["embedded"]


def test_links_out_of_the_folder_and_pipes_are_not_offered(copied, tmp_path):
    private = tmp_path / "private.png"
    (copied.parent / "result_walk.png").symlink_to(private)
    (copied / "export").mkdir()
    (copied / "export" / "person_002.glb").symlink_to(private)
    (copied / "person_002_amass.npz").symlink_to(private)
    os.mkfifo(copied / "person_003.glb")
    assert main([str(copied), "--format", "viewer"]) == 0
    page = copied / "viewer.html"
    assert about_of(page)["pictures"] == []
    assert {one["name"] for one in about_of(page)["exports"]} == {"person_002.npz", "summary.json"}
    (copied / "export" / "person_002.glb").unlink()
    (copied / "export").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (copied / "export").symlink_to(tmp_path / "elsewhere")
    assert main([str(copied), "--format", "bvh"]) == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_names_that_are_no_text(copied, tmp_path):
    folder = copied.rename(os.fsdecode(os.fsencode(tmp_path) + b"/result_na\xefve"))
    overlay = Path(f"{folder}.png")
    overlay.write_bytes(SECRET)
    (page,) = export_result(folder, ["viewer"])
    assert about_of(page)["name"] == "na?ve"
    assert about_of(page)["pictures"][0]["path"] == "../result_na%EFve.png"


def test_surroundings_are_found_beside_the_folder(tmp_path):
    folder = tmp_path / "result_my clip #1"
    (folder / "export" / "person_001_obj").mkdir(parents=True)
    (folder / "export" / "person_001_obj" / "frame_000000.obj").touch()
    (folder / "export" / "person_001.glb").touch()
    (folder / "export" / "notes.txt").touch()
    (tmp_path / "result_my clip #1.mp4").touch()
    (tmp_path / "my clip #1.avi").touch()
    assert [one.label for one in find_pictures(folder, tmp_path / "my clip #1.avi")] == ["overlay"]
    assert [one.path.name for one in find_exports(folder)] == ["person_001.glb", "person_001_obj"]
    overlay = PageFile(tmp_path / "result_my clip #1.mp4", "overlay")
    assert overlay.describe(folder / "viewer.html")["path"] == "../result_my%20clip%20%231.mp4"


def test_what_is_wrong_is_reported_in_one_line(result, tmp_path, capsys):
    assert main([str(result), "--format", "viewer", "--up", "z"]) == 2
    assert "--up z" in capsys.readouterr().err
    broken = tmp_path / "result_broken"
    broken.mkdir()
    content = read_person(result / "person_002.npz")
    np.savez(broken / "person_001.npz", **{k: v for k, v in content.items() if k != "focal"})
    with pytest.raises(UserError, match="lacks 'focal'"):
        export_result(broken, ["viewer"])
    np.savez(broken / "person_001.npz", **content)
    with pytest.raises(UserError, match=r"summary\.json cannot be read"):
        export_result(broken, ["viewer"])
    assert not (broken / "viewer.html").exists()


def test_the_page_asks_nobody_and_keeps_the_licence():
    parts = Path(viewing.__file__).parent / "page"
    bundle = (parts / "bundle.js").read_text(encoding="utf-8")
    licence = (parts / "three_LICENSE.txt").read_text(encoding="utf-8")
    assert licence.strip() in bundle
    assert "default-src 'none'" in (parts / "page.html").read_text(encoding="utf-8")
    for source in parts.glob("*.js"):
        if source.name != "bundle.js":
            text = source.read_text(encoding="utf-8")
            assert len(text.splitlines()) <= 300
            assert not re.search(r"https?://|\beval\(|\bfetch\(|XMLHttpRequest|new Function", text)
