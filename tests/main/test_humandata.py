"""The HumanData tool as a user runs it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from datasets.cache import open_dataset
from datasets.humandata.file import read_entries
from datasets.humandata.merge import same
from datasets.humandata.parameters import joints_of_smplx
from datasets.humandata.reader import read_humandata
from datasets.humandata.writer import write_humandata
from datasets.sources import Source
from human_models.body import BodyLibrary
from human_models.files import STAND_IN, find_model_folder
from human_models.joints import HANDS_MEAN, JOINTS, JOINTS_FROM_MODEL, MODEL_JOINTS
from main import humandata
from main.motion.camera import Clip, ClipCamera
from main.motion.results import write_results
from main.motion.rows import FinalRows
from main.pipeline.estimator import Person
from utils.image import read_image
from utils.video_write import VideoWriter

PARITY = Path(__file__).parents[1] / "parity" / "data"
IMAGES = PARITY / "img"
ANNOTATION = PARITY / "annot" / "EgoBody_Kinect.npz"
SIZE = (160, 120)
CLIP = Clip(ClipCamera((200.0, 200.0), (79.5, 59.5), "test"), SIZE, 10.0)
WHOLE = Source("mine", ("a.npz",), None, "")


class Done(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> Done:
        status = humandata.main([str(argument) for argument in arguments])
        return Done(status, *capfd.readouterr())

    return run


def fails(done: Done, *message: str) -> None:
    """The one line about it, and nothing else."""
    assert done.status == 2
    assert "Traceback" not in done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    for word in message:
        assert word in line


def person(seed: int, box: list[float]) -> Person:
    """A person of random values, three metres away, seen by the camera of a crop."""
    rng = np.random.default_rng(seed)
    sizes = {"global_orient": 3, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45}
    sizes |= {"jaw_pose": 3, "betas": 10, "expression": 10, "transl": 3}
    joints = rng.uniform(-0.3, 0.3, (137, 3)) + np.array([0, 0, 3])
    focal, princpt = np.float32([150, 150]), np.float32([box[0] + 20, box[1] + 30])
    values = {name: rng.normal(0, 0.2, size).astype(np.float32) for name, size in sizes.items()}
    return Person(
        box_xywh=np.array(box, np.float32),
        **values | {"transl": np.float32([0, 0, 3])},
        focal=focal,
        princpt=princpt,
        joints_3d_m=joints.astype(np.float32),
        joints_2d_px=(joints[:, :2] / joints[:, 2:] * focal + princpt).astype(np.float32),
        vertices_m=None,
    )


@pytest.fixture
def results(
    tmp_path: Path,
    final_rows_of: Callable[..., np.ndarray],
    row_file: Callable[[np.ndarray], FinalRows],
) -> Callable[..., Path]:
    """Two people in frames 1 and 3, one of them sure; of an input of four frames."""

    def write(name: str, frames: tuple[int, ...] = (1, 3), count: int = 4) -> Path:
        people = []
        for frame in frames:
            people.append((1, frame, 0.9, person(frame, [40, 10, 50, 100])))
            people.append((2, frame, 0.3, person(10 + frame, [90, 20, 40, 90])))
        about = {"input": name, "frames": count, "body_model": "x", "flat_hand_mean": False}
        folder = tmp_path / "result"
        folder.mkdir(exist_ok=True)
        rows = row_file(final_rows_of(people))
        write_results(folder, rows, CLIP, about, chosen={1, 2})
        return folder

    return write


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "images" / "walk"
    folder.mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", SIZE, (60 * i, 0, 0)).save(folder / f"{i}.png")
    return folder


def test_check(command: Command, tmp_path: Path) -> None:
    done = command("check", ANNOTATION, "--images", IMAGES)
    assert done.status == 0
    assert "1 warning" in done.out
    entries = read_entries(ANNOTATION)
    entries["smplx"]["transl"][2] = np.nan
    write_humandata(tmp_path / "bad.npz", entries)
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04")
    assert command("check", ANNOTATION, tmp_path / "bad.npz").status == 1
    done = command("check", tmp_path / "damaged.npz", tmp_path / "bad.npz", ANNOTATION, "--json")
    fails(done, "damaged.npz")
    damaged, bad, good = json.loads(done.out)
    assert "damaged" in damaged["unreadable"]
    assert bad["findings"][0] == {
        "severity": "error",
        "entry": "smplx.transl",
        "what": "NaN or infinite",
        "advice": "correct these rows or take them out",
        "rows": 1,
        "first_rows": [2],
    }
    assert good["file"] == str(ANNOTATION)


def test_stats(command: Command) -> None:
    done = command("stats", ANNOTATION, PARITY / "annot" / "UBody.npz", "--json")
    one, other = json.loads(done.out)
    assert one["rows"] == 6
    assert "keypoints3d_smplx" not in other["keypoints"]
    done = command("stats", ANNOTATION)
    assert done.status == 0
    assert "hands from flat hand" in done.out


def test_slices_merge_to_the_whole(command: Command, tmp_path: Path) -> None:
    names = [tmp_path / f"{i}.npz" for i in range(3)]
    for name, rows in zip(names, (":2", "2:3", "3:"), strict=True):
        assert command("convert", "slice", ANNOTATION, "--rows", rows, "--output", name).status == 0
    assert (
        command("convert", "slice", ANNOTATION, "--rows=:", "--output", tmp_path / "w.npz").status
        == 0
    )
    assert command("convert", "merge", *names, "--output", tmp_path / "m.npz").status == 0
    assert same(read_entries(tmp_path / "m.npz"), read_entries(tmp_path / "w.npz"))
    command("convert", "slice", ANNOTATION, "--rows=::-2", "--output", tmp_path / "s.npz")
    backwards = read_entries(tmp_path / "s.npz")["image_path"].tolist()
    assert backwards == [f"set/00000{i}.png" for i in (5, 3, 1)]


def test_subset(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "s.npz"
    arguments = ("convert", "subset", ANNOTATION, "--output", out)
    assert command(*arguments, "--images-matching", "set/*[24].png").status == 0
    assert read_entries(out)["image_path"].tolist() == ["set/000002.png", "set/000004.png"]
    chosen = []
    for seed in (1, 1, 2):
        command(*arguments, "--sample", 3, "--seed", seed)
        chosen.append(read_entries(out)["image_path"].tolist())
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(chosen[0]) == 3
    fails(command(*arguments, "--images-matching", "*.jpg"), "*.jpg", "set/000000.png")


def test_results_become_a_dataset(
    command: Command, tmp_path: Path, results: Callable[..., Path], frames: Path
) -> None:
    out = tmp_path / "annot" / "a.npz"
    done = command(
        *("convert", "from-results", results("walk"), "--images", frames.parent, "--output", out)
    )
    assert done.status == 0, done.err
    people = list(open_dataset(WHOLE, "train", tmp_path))
    assert [one.image_path for one in people] == ["walk/1.png"] * 2 + ["walk/3.png"] * 2
    expected = [person(seed, [0] * 4) for seed in (1, 11, 3, 13)]
    for read, made in zip(people, expected, strict=True):
        pose = [made.global_orient, made.body_pose, made.left_hand_pose, made.right_hand_pose]
        np.testing.assert_array_equal(read.pose.ravel(), np.concatenate([*pose, made.jaw_pose]))
        for name in ("betas", "expression", "transl"):
            np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
        assert read.pose_valid.all()
        assert read.expression_valid
        assert read.image_size == SIZE
    np.testing.assert_allclose(people[0].body_box, [35, 0, 60, 120], atol=1e-4)  # padded
    np.testing.assert_allclose(people[1].body_box, [86, 11, 48, 108], atol=1e-4)
    assert command("check", out, "--images", frames.parent).status == 0


def test_joints_of_results_are_at_their_places(
    command: Command, tmp_path: Path, results: Callable[..., Path], frames: Path
) -> None:
    out = tmp_path / "a.npz"
    command("convert", "from-results", results("walk"), "--images", frames.parent, "--output", out)
    entries = read_entries(out)
    made = person(1, [40, 10, 50, 100])
    for name in ("left_eye", "right_eye", "left_wrist", "right_pinky4"):
        place = MODEL_JOINTS.index(name)
        sources = [i for i, joint in enumerate(JOINTS_FROM_MODEL) if joint == place]
        np.testing.assert_array_equal(
            entries["keypoints3d_smplx"][0, place, :3], made.joints_3d_m[sources[-1]]
        )
    assert entries["keypoints2d_smplx_mask"].sum() == len(set(JOINTS_FROM_MODEL))
    read = read_humandata(out).columns["joints_2d"][0]
    body = slice(JOINTS.index("face5"))
    eyes = [JOINTS.index(f"{side}_eye") for side in ("left", "right")]
    kept = [i for i in range(len(JOINTS))[body] if JOINTS[i] not in ("face3", "face4")]
    kept = [i for i in kept if i not in eyes]
    np.testing.assert_array_equal(read[kept], made.joints_2d_px[kept])
    np.testing.assert_array_equal(entries["meta"]["focal_length"][0], made.focal)
    np.testing.assert_array_equal(entries["meta"]["principal_point"][0], made.princpt)
    assert entries["misc"]["flat_hand_mean"] is False


def test_least_score(
    command: Command, tmp_path: Path, results: Callable[..., Path], frames: Path
) -> None:
    folder, out = results("walk"), tmp_path / "a.npz"
    arguments = ("convert", "from-results", folder, "--images", frames.parent, "--output", out)
    assert command(*arguments, "--min-score", 0.5).status == 0
    np.testing.assert_allclose(read_entries(out)["bbox_xywh"][:, 4], [0.9, 0.9])
    fails(command(*arguments, "--min-score", 0.99), "nobody", "--min-score")


def test_frames_of_a_video(command: Command, tmp_path: Path, results: Callable[..., Path]) -> None:
    with VideoWriter(tmp_path / "walk.mp4", fps=10) as writer:
        for i in range(4):
            writer.write(np.full((SIZE[1], SIZE[0], 3), 60 * i, np.uint8))
    folder, out, images = results("walk.mp4"), tmp_path / "a.npz", tmp_path / "frames"
    arguments = ("convert", "from-results", folder, "--output", out)
    fails(command(*arguments), "walk.mp4", "--input")
    fails(command(*arguments, "--input", tmp_path / "walk.mp4"), "is a video", "--extract-frames")
    done = command(*arguments, "--input", tmp_path / "walk.mp4", "--extract-frames", images)
    assert done.status == 0, done.err
    assert sorted(path.name for path in (images / "walk").iterdir()) == ["000001.jpg", "000003.jpg"]
    assert (
        read_entries(out)["image_path"].tolist()
        == ["walk/000001.jpg"] * 2 + ["walk/000003.jpg"] * 2
    )
    assert read_image(images / "walk" / "000003.jpg").mean() == pytest.approx(180, abs=4)
    assert command("check", out, "--images", images).status == 0
    late = results("walk.mp4", frames=(9,), count=10)
    arguments = ("convert", "from-results", late, "--output", out, "--extract-frames", images)
    fails(command(*arguments, "--input", tmp_path / "walk.mp4"), "no frame 9")
    results("walk.mp4", frames=(9,))
    fails(command(*arguments, "--input", tmp_path / "walk.mp4"), "no frame 9 in a clip of 4 frames")


def test_photograph(command: Command, tmp_path: Path, results: Callable[..., Path]) -> None:
    folder, out = results("one.jpg", frames=(0,)), tmp_path / "a.npz"
    assert command("convert", "from-results", folder, "--output", out).status == 0
    assert read_entries(out)["image_path"].tolist() == ["one.jpg"] * 2
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "one.jpg", exif=exif)
    arguments = ("convert", "from-results", folder, "--images", tmp_path, "--output", out)
    fails(command(*arguments), "EXIF", "--extract-frames")
    assert command(*arguments, "--extract-frames", tmp_path / "upright").status == 0
    assert read_image(tmp_path / "upright" / "one" / "000000.jpg").shape[1::-1] == SIZE


def test_folders_that_are_no_results(
    command: Command, tmp_path: Path, results: Callable[..., Path], frames: Path
) -> None:
    out = tmp_path / "a.npz"
    fails(command("convert", "from-results", tmp_path, "--output", out), "summary.json")
    folder = results("walk")
    (frames / "0.png").unlink()
    arguments = ("convert", "from-results", folder, "--images", frames.parent, "--output", out)
    fails(command(*arguments), "has 3 images", "results are of 4")
    np.savez(folder / "person_002.npz", frame_index=np.arange(2))
    fails(command(*arguments), "person_002.npz lacks")
    (folder / "summary.json").write_text("[]")
    fails(command(*arguments), "summary.json")
    assert not out.exists()


@pytest.mark.parametrize("name", ["/etc/passwd.jpg", "../one.jpg", ".."])
def test_an_input_that_is_a_path_is_not_followed(
    command: Command, tmp_path: Path, results: Callable[..., Path], name: str
) -> None:
    folder, out = results(name, frames=(0,)), tmp_path / "a.npz"
    arguments = ("convert", "from-results", folder, "--images", tmp_path, "--output", out)
    fails(command(*arguments), name, "--input")
    Image.new("RGB", SIZE).save(tmp_path / "one.jpg")
    assert command(*arguments, "--input", tmp_path / "one.jpg").status == 0
    assert read_entries(out)["image_path"].tolist() == ["one.jpg"] * 2
    late = results("one.jpg", frames=(3,))
    arguments = ("convert", "from-results", late, "--images", tmp_path, "--output", out)
    fails(command(*arguments), "one.jpg has no frame 3")


def parameters(**changes: Any) -> dict[str, Any]:
    """Somebody standing upright, four metres before a camera, with relaxed hands."""
    values = {
        "global_orient": [np.pi, 0, 0],
        "body_pose": [0.0] * 63,
        "left_hand_pose": [0.1] * 45,
        "right_hand_pose": [0.0] * 45,
        "jaw_pose": [0.1, 0, 0],
        "betas": [0.5] * 10,
        "expression": [0.0] * 10,
        "transl": [0.1, 0.3, 4],
        "focal": 150,
        "princpt": [80, 60],
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", SIZE, (90, 120, 90)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def from_params(command: Command, tmp_path: Path, pictures: Path) -> Callable[..., Done]:
    def convert(*files: Path) -> Done:
        arguments = (
            "--images",
            pictures,
            "--body-folder",
            STAND_IN,
            "--output",
            tmp_path / "a.npz",
        )
        return command("convert", "from-params", *files, *arguments)

    return convert


def save(path: Path, content: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_parameters_become_a_dataset(
    from_params: Callable[..., Done], command: Command, tmp_path: Path, pictures: Path
) -> None:
    flat = (np.float32([0.1] * 45) + np.ravel(HANDS_MEAN["left"])).tolist()
    mean = np.ravel(HANDS_MEAN["right"]).tolist()
    folder = tmp_path / "params"
    save(folder / "a.json", parameters())
    two = [
        parameters(transl=[-0.4, 0.3, 4], bbox_xywh=[40, 20, 50, 60]),
        parameters(flat_hand_mean=True, left_hand_pose=flat, right_hand_pose=mean),
    ]
    save(folder / "b.json", two)
    np.savez(folder / "z.npz", **parameters(image="c.png", betas=[[0.5] * 10]))
    done = from_params(folder)
    assert done.status == 0, done.err
    entries = read_entries(tmp_path / "a.npz")
    assert entries["image_path"].tolist() == ["a.png", "b.png", "b.png", "c.png"]
    for name, rows in entries["smplx"].items():
        if name != "transl":
            np.testing.assert_allclose(rows, rows[:1].repeat(4, axis=0), atol=1e-6, err_msg=name)
    bodies = BodyLibrary(find_model_folder(STAND_IN))
    one = {key: np.float32([parameters()[key]]) for key in entries["smplx"]}
    joints = joints_of_smplx(bodies, one)[0]
    np.testing.assert_allclose(entries["keypoints3d_smplx"][0, :144, :3], joints, atol=1e-5)
    pixels = joints[:, :2] / joints[:, 2:] * 150 + [80, 60]
    np.testing.assert_allclose(entries["keypoints2d_smplx"][0, :144, :2], pixels, atol=0.01)
    x, y, width, height, _ = entries["bbox_xywh"][0]
    middle = (pixels.min(axis=0) + pixels.max(axis=0)) / 2
    np.testing.assert_allclose([x + width / 2, y + height / 2], middle, atol=0.1)
    np.testing.assert_allclose([width, height], np.ptp(pixels, axis=0) * 1.2, rtol=1e-3)
    np.testing.assert_allclose(entries["bbox_xywh"][1, :4], [35, 14, 60, 72], rtol=1e-5)
    assert (entries["face_bbox_xywh"][0, 2:] > 0).all()
    assert command("check", tmp_path / "a.npz", "--images", pictures).status == 0


def test_several_people_of_an_npz(from_params: Callable[..., Done], tmp_path: Path) -> None:
    rows = {key: np.array([value] * 2) for key, value in parameters().items()}
    rows["transl"][1] = [0.2, 0.3, 5]
    rows |= {"focal": np.float32([150, 150]), "princpt": np.float32([80, 60])}  # of both
    np.savez(tmp_path / "b.npz", **rows)
    assert from_params(tmp_path / "b.npz").status == 0
    entries = read_entries(tmp_path / "a.npz")
    np.testing.assert_allclose(entries["smplx"]["transl"][:, 2], [4, 5])
    assert entries["meta"]["focal_length"].tolist() == [[150, 150]] * 2


def test_hands_that_nobody_knows(from_params: Callable[..., Done], tmp_path: Path) -> None:
    unknown = parameters(left_hand_pose=None, flat_hand_mean=True)
    assert from_params(save(tmp_path / "a.json", [parameters(), unknown])).status == 0
    hands = read_entries(tmp_path / "a.npz")["smplx"]["left_hand_pose"]
    assert hands[0].all()
    assert not hands[1].any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (parameters(focal=None), "person 0: 'focal' is missing"),
        (parameters(transl=None), "'transl' is missing"),
        ([parameters(), parameters(betas=[1])], "person 1: 'betas' has 1 numbers, expected 10"),
        (parameters(betas=["x"] * 10), "'betas' is not made of numbers"),
        (parameters(transl=[0, 0, float("nan")]), "NaN is not a JSON number"),
        (parameters(transl=[0, 0, 1e300]), "'transl' is not finite"),
        ([parameters(), parameters(expression=None)], "lacks jaw_pose or expression"),
        (parameters(image="d.png"), "d.png is missing"),
        (parameters(image="../a.png"), "within"),
        ([1], "expected a dictionary"),
        (parameters(transl=[0, 0.3, -4]), "nobody is inside an image"),
    ],
)
def test_wrong_parameters(
    from_params: Callable[..., Done], tmp_path: Path, content: Any, message: str
) -> None:
    file = save(tmp_path / "a.json", content)
    named = () if "nobody" in message else ("a.json",)
    fails(from_params(file), message, *named)
    assert not (tmp_path / "a.npz").exists()


def test_parameters_without_an_image(from_params: Callable[..., Done], tmp_path: Path) -> None:
    fails(from_params(save(tmp_path / "d.json", parameters())), "d.json", "no image", '"image"')
    (tmp_path / "a.json").write_text("{")
    fails(from_params(tmp_path / "a.json"), "a.json: not readable as JSON")


def test_show_draws_the_body(
    from_params: Callable[..., Done], command: Command, tmp_path: Path, pictures: Path
) -> None:
    for name in ("a", "b"):
        save(tmp_path / "params" / f"{name}.json", parameters())
    from_params(tmp_path / "params")
    arguments = ("--images", pictures, "--body-folder", STAND_IN, "--output", tmp_path / "shown")
    done = command("show", tmp_path / "a.npz", *arguments)
    assert done.status == 0, done.err
    names = sorted(path.name for path in (tmp_path / "shown").iterdir())
    assert names == ["contact_sheet.jpg", "row_000000.jpg", "row_000001.jpg"]
    drawn = read_image(tmp_path / "shown" / "row_000000.jpg").astype(int)
    assert drawn.shape == (SIZE[1], SIZE[0], 3)
    box = read_entries(tmp_path / "a.npz")["bbox_xywh"][0].astype(int)
    changed = np.abs(drawn - [90, 120, 90]).max(axis=2) > 25
    inside = changed[box[1] + 2 : box[1] + box[3] - 2, box[0] + 2 : box[0] + box[2] - 2]
    assert 0.1 < inside.mean() < 0.7  # a body with its surroundings
    assert not changed[:, : box[0] - 3].any()


def test_show_without_a_camera_draws_keypoints(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "shown"
    done = command("show", ANNOTATION, "--images", IMAGES, "--output", out, "--rows", "1,3-4")
    assert done.status == 0, done.err
    assert "the body is not drawn" in done.err
    names = sorted(path.name for path in out.glob("row*"))
    assert names == [f"row_00000{i}.jpg" for i in (1, 3, 4)]
    plain = read_image(IMAGES / "set" / "000001.png").astype(int)
    assert (np.abs(read_image(out / "row_000001.jpg") - plain).max(axis=2) > 60).mean() > 0.01
    for rows, message in (
        ("6", "rows 0 to 5"),
        ("4-2", "rows 0 to 5"),
        ("x", "'x' is not a row"),
        ("3-", "is not a row"),
    ):
        arguments = ("show", ANNOTATION, "--images", IMAGES, "--output", out, "--rows", rows)
        fails(command(*arguments), message)
    fails(command("show", ANNOTATION, "--images", tmp_path, "--output", out), "000000.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required"),
        (("check",), "FILE"),
        (("stats", "nowhere.npz"), "nowhere.npz"),
        (("convert", "slice", ANNOTATION, "--rows", "1", "--output", "a.npz"), "START:STOP"),
        (("convert", "slice", ANNOTATION, "--rows", "1:2:0", "--output", "a.npz"), "START:STOP"),
        (("convert", "slice", ANNOTATION, "--rows", "9:", "--output", "a.npz"), "no such rows"),
        (("convert", "merge", ANNOTATION, "--output", "a.txt"), "ends in .npz"),
        (("show", ANNOTATION, "--images", IMAGES, "--output", "b", "--sample", "0"), "1 or more"),
        (("convert", "subset", ANNOTATION, "--output", "a.npz", "--seed", "-1"), "seed"),
    ],
)
def test_wrong_words_are_one_line(
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[Any, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(command(*arguments), message)
    assert not list(tmp_path.iterdir())


def test_merge_of_a_file_with_itself_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "link.npz").symlink_to(ANNOTATION)
    for again in (ANNOTATION, tmp_path / "link.npz"):
        done = command("convert", "merge", ANNOTATION, again, "--output", tmp_path / "m.npz")
        fails(done, again.name, "is given twice")


def test_merge_of_different_bodies_is_refused(command: Command, tmp_path: Path) -> None:
    smpl = shutil.copy(PARITY / "annot" / "PW3D_test.npz", tmp_path)
    done = command("convert", "merge", ANNOTATION, smpl, "--output", tmp_path / "m.npz")
    fails(done, "PW3D_test.npz has parameters of smpl", "merge files of one kind")
