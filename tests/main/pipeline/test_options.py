"""Options are checked when they are made."""

import dataclasses

import pytest

from main.inference import make_parser, options_of
from main.pipeline.options import InferenceOptions, parse_person
from utils.errors import UserError


@pytest.mark.parametrize(
    ("focal_px", "fov_deg"),
    [(0.0, None), (1e-300, None), (-5.0, None), (None, 0.0), (None, 1e-300), (None, 180.0)],
)
def test_wrong_cameras_are_refused(focal_px, fov_deg):
    with pytest.raises(UserError, match="--f"):
        InferenceOptions("m", focal_px=focal_px, fov_deg=fov_deg)
    with pytest.raises(UserError, match="--focal and --fov: give only one of them"):
        InferenceOptions("m", focal_px=900, fov_deg=60)


def test_one_rate_can_be_given():
    with pytest.raises(UserError, match="FPS and --fps: give only one of them"):
        options_of(make_parser().parse_args(["m", "FILE", "10", "--fps", "20"]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"person": (0,)}, "--person"),
        ({"person": ()}, "--person"),
        ({"smoothing": 21.0}, "--smooth 21"),
        ({"smoothing": -1.0}, "--smooth -1"),
        ({"smoothing": float("nan")}, "--smooth nan"),
        ({"fps": -1.0}, "--fps -1: give a rate from 0.00001 to 1000"),
        ({"fps": 0.0}, "--fps 0: "),
        ({"fps": float("nan")}, "--fps nan: "),
        ({"fps": float("inf")}, "--fps inf: "),
        ({"keep_longest": 0}, "--keep-longest 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"export": ("glb", "fbx")}, "fbx"),
        ({"camera": "moving"}, "--camera moving needs --world"),
    ],
)
def test_wrong_values_are_refused(values, message):
    options = InferenceOptions("m")
    with pytest.raises(UserError, match=message):
        dataclasses.replace(options, **values)


def test_a_command_line_without_flags_gives_the_defaults():
    assert options_of(make_parser().parse_args(["m", "FILE"])) == InferenceOptions("m")


def test_every_flag_has_its_option():
    command = "m FILE 25 --boxes b.json --detector yolo --person 1,3 --keep-longest 2 --preview"
    command += " --smooth 0.5 --fov 60 --export glb,bvh --backend onnx --batch-size 3"
    command += (
        " --camera moving --world --no-overlay --download --keypoints k.json --refine"
        " --set a.b=1 --precision bf16"
        " --device cpu"
    )
    options = options_of(make_parser().parse_args(command.split()))
    defaults = InferenceOptions("m")
    same = [name for name, value in vars(defaults).items() if getattr(options, name) == value]
    assert same == ["model_dir", "reuse", "focal_px"]
    assert options.person == (1, 3)
    assert options.export == ("glb", "bvh")
    assert options.overlay is None
    assert options.refine is True
    assert options_of(make_parser().parse_args(["m", "FILE", "--no-refine"])).refine is False


def test_the_floor_is_the_world_of_a_camera_that_stands_still():
    parse = make_parser().parse_args
    for command in ("m FILE --floor", "m FILE --floor --world", "m FILE --floor --camera static"):
        options = options_of(parse(command.split()))
        assert (options.world, options.camera) == (True, "static")
    with pytest.raises(UserError, match="--floor means --world --camera static; leave"):
        options_of(parse(["m", "FILE", "--floor", "--world", "--camera", "moving"]))


@pytest.mark.parametrize("text", ["9" * 5000, "1,", "0", "-1", "\u0661", "1.5", "", "first"])
def test_people_that_are_no_numbers(text):
    with pytest.raises(UserError, match="give largest, or numbers from 1") as caught:
        parse_person(text)
    assert len(str(caught.value)) < 200


def test_people_by_their_numbers():
    assert parse_person("largest") == "largest"
    assert parse_person("1, 03,12") == (1, 3, 12)
