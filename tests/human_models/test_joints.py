"""The joint tables against the published facts (tests/parity/joints.json)."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from smplx.vertex_ids import vertex_ids

from human_models import joints

FACTS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "parity" / "joints.json").read_text()
)
SIDES = {"L": "left", "R": "right"}


def our_name(name: str) -> str:
    """ "L_Hip" -> "left_hip", "Spine_1" -> "spine1", "L_Thumb_1" -> "left_thumb1"."""
    side, _, rest = name.partition("_")
    lower = (f"{SIDES[side]}_{rest}" if side in SIDES else name).lower()
    return re.sub(r"_(\d+)$", r"\1", lower)


def flip_pairs(names: Sequence[str]) -> list[list[int]]:
    mirrored = joints.mirror_permutation(names)
    return [[i, j] for i, j in enumerate(mirrored) if i < j]


@pytest.mark.parametrize(
    ("ours", "fact"),
    [
        (joints.POSE_JOINTS, "smplx_param_joints_53"),
        (joints.JOINTS, "joints_137"),
        (joints.SMPL_JOINTS, "smpl_joints_24"),
    ],
)
def test_names(ours: tuple[str, ...], fact: str) -> None:
    assert list(ours) == [our_name(name) for name in FACTS[fact]]


@pytest.mark.parametrize(
    ("ours", "fact"),
    [
        (joints.POSE_JOINTS, "smplx_param_flip_pairs"),
        (joints.JOINTS, "joints_137_flip_pairs"),
        (joints.SMPL_JOINTS, "smpl_flip_pairs"),
    ],
)
def test_mirror(ours: tuple[str, ...], fact: str) -> None:
    assert flip_pairs(ours) == FACTS[fact]
    permutation = joints.mirror_permutation(ours)
    assert [permutation[i] for i in permutation] == list(range(len(ours)))


def test_mirror_of_the_rig() -> None:
    mirrored = joints.mirror_permutation(joints.RIG_JOINTS)
    names = [joints.RIG_JOINTS[i] for i in mirrored]
    assert names[:3] == ["pelvis", "right_hip", "left_hip"]
    assert names[23:25] == ["right_eye_smplhf", "left_eye_smplhf"]


@pytest.mark.parametrize(
    ("ours", "fact"),
    [
        (joints.POSE_PARTS, "smplx_param_parts"),
        (joints.JOINT_PARTS, "joints_137_parts"),
    ],
)
def test_parts(ours: dict[str, slice], fact: str) -> None:
    expected = {
        {"lhand": "left_hand", "rhand": "right_hand"}.get(part, part): slice(*bounds)
        for part, bounds in FACTS[fact].items()
        if part != "hand"  # both hands together, which no table of ours needs
    }
    assert ours == expected


def test_indices_into_the_model() -> None:
    assert list(joints.JOINTS_FROM_MODEL) == FACTS["joints_137_from_smplx_144"]
    assert list(joints.JOINTS_FROM_HUMANDATA) == FACTS["joints_137_from_humandata_144_or_190"]


def test_roots_of_parts() -> None:
    expected = {"body": "root", "left_hand": "lwrist", "right_hand": "rwrist", "face": "neck"}
    assert {part: FACTS[name] for part, name in expected.items()} == joints.PART_ROOTS


def test_rows_of_the_rig() -> None:
    names = {"pelvis": "pelvis", "lwrist": "left_wrist", "rwrist": "right_wrist", "neck": "neck"}
    rows = {fact: joints.RIG_JOINTS.index(name) for fact, name in names.items()}
    assert rows == FACTS["regressor_rows"]


@pytest.mark.parametrize("side", joints.SIDES)
def test_hand_joints_are_those_of_the_hand_regressors(side: str) -> None:
    """Wrist, then four points a finger: three of the rig and the tip, a vertex."""
    rows = FACTS[f"hand_regressor_{side}"]["rows"]
    names = [f"{side}_wrist", *joints.JOINTS[joints.JOINT_PARTS[f"{side}_hand"]]]
    ours = [
        f"v{joints.SMPLX_SURFACE_VERTICES[name]}"
        if name in joints.SMPLX_SURFACE_VERTICES
        else joints.RIG_JOINTS.index(name)
        for name in names
    ]
    assert ours == rows


def test_parents() -> None:
    assert list(joints.RIG_PARENTS[:22]) == FACTS["kinematic_parents_body_22"]
    assert list(joints.SMPL_PARENTS) == [*FACTS["kinematic_parents_body_22"], 20, 21]
    for joint, parent in enumerate(joints.RIG_PARENTS):
        assert parent < joint, "parents come first"
    for finger in ("index", "middle", "pinky", "ring", "thumb"):
        for side in joints.SIDES:
            first, second, third = (
                joints.RIG_JOINTS.index(f"{side}_{finger}{k}") for k in (1, 2, 3)
            )
            assert joints.RIG_PARENTS[first] == joints.RIG_JOINTS.index(f"{side}_wrist")
            assert joints.RIG_PARENTS[second] == first
            assert joints.RIG_PARENTS[third] == second


@pytest.mark.parametrize("side", joints.SIDES)
def test_mean_hands(side: str) -> None:
    assert [list(row) for row in joints.HANDS_MEAN[side]] == FACTS[f"hands_mean_{side}"]


def test_set_sizes() -> None:
    sizes = [
        len(s) for s in (joints.RIG_JOINTS, joints.MODEL_JOINTS, joints.POSE_JOINTS, joints.JOINTS)
    ]
    assert sizes == [55, 144, 53, 137]


def package_name(name: str) -> str:
    """ "left_ear" -> "lear", "left_thumb4" -> "lthumb", "left_big_toe" -> "LBigToe"."""
    side, _, rest = name.partition("_")
    if name == "nose" or rest in ("eye", "ear"):
        return side[0] + rest if rest else name
    if rest.endswith("4"):
        return side[0] + rest.removesuffix("4")
    return side[0].upper() + rest.title().replace("_", "")


@pytest.mark.parametrize(
    ("ours", "package"),
    [(joints.SMPLX_SURFACE_VERTICES, "smplx"), (joints.SMPL_SURFACE_VERTICES, "smplh")],
)
def test_surface_vertices_are_those_of_the_reference_package(
    ours: dict[str, int], package: str
) -> None:
    assert ours == {name: vertex_ids[package][package_name(name)] for name in ours}


def test_edges_join_neighbours() -> None:
    names = {(joints.JOINTS[a], joints.JOINTS[b]) for a, b in joints.edges(joints.JOINTS)}
    assert ("left_wrist", "left_index1") in names
    assert ("left_index3", "left_index4") in names
    assert ("left_ankle", "left_heel") in names
    assert ("pelvis", "neck") in names, "joints that the set lacks are passed over"
