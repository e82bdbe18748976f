"""Joint sets of SMPL-X, SMPL and of the training data.

All indices are derived from names, which are those of the SMPL-X release ("left_hip",
"right_index1"). Tips of fingers continue the numbering ("left_index4"), and the 72 points of the
face are "face1" to "face72".
Sets, in the order in which networks and files hold them:

    RIG_JOINTS       55   joints with a rotation: body 22, jaw, eyes, left hand, right hand
    MODEL_JOINTS    144   output of the body model: rig, 21 surface points, face landmarks
    POSE_JOINTS      53   rotations of the training data: body 22, left hand, right hand, jaw
    JOINTS          137   joints of the training data and of the network's outputs
    SMPL_JOINTS      24   rig of SMPL
"""

from collections.abc import Sequence
from typing import Final

SIDES: Final = ("left", "right")
_FINGERS_RIG = ("index", "middle", "pinky", "ring", "thumb")  # order of the rig
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")  # order of the keypoint sets


def _hand(side: str, fingers: Sequence[str], knuckles: int) -> tuple[str, ...]:
    return tuple(f"{side}_{finger}{k}" for finger in fingers for k in range(1, knuckles + 1))


# fmt: off
BODY_JOINTS: Final = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2",
    "left_ankle", "right_ankle", "spine3", "left_foot", "right_foot", "neck",
    "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)
_BODY_PARENTS = (
    None, "pelvis", "pelvis", "pelvis", "left_hip", "right_hip", "spine1",
    "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle", "spine3",
    "spine3", "spine3", "neck", "left_collar", "right_collar",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
)
# fmt: on
HAND_JOINTS: Final = {side: _hand(side, _FINGERS_RIG, 3) for side in SIDES}
RIG_JOINTS: Final = (
    *BODY_JOINTS,
    *("jaw", "left_eye_smplhf", "right_eye_smplhf"),
    *(name for side in SIDES for name in HAND_JOINTS[side]),
)
SMPL_JOINTS: Final = (*BODY_JOINTS, "left_hand", "right_hand")
POSE_JOINTS: Final = (*BODY_JOINTS, *HAND_JOINTS["left"], *HAND_JOINTS["right"], "jaw")


def _parent_name(joint: str) -> str | None:
    if joint in BODY_JOINTS:
        return _BODY_PARENTS[BODY_JOINTS.index(joint)]
    if joint == "jaw" or "eye" in joint:
        return "head"
    knuckle = joint[-1]
    return joint.split("_")[0] + "_wrist" if knuckle in "1d" else f"{joint[:-1]}{int(knuckle) - 1}"


def _parents(joints: Sequence[str]) -> tuple[int, ...]:
    names = [_parent_name(joint) for joint in joints]
    return tuple(-1 if name is None else joints.index(name) for name in names)


RIG_PARENTS: Final = _parents(RIG_JOINTS)
SMPL_PARENTS: Final = _parents(SMPL_JOINTS)

# Points on the surface that the body model returns after its rig, and their vertex ids.
# fmt: off
SMPLX_SURFACE_VERTICES: Final = {
    "nose": 9120, "right_eye": 9929, "left_eye": 9448, "right_ear": 616, "left_ear": 6,
    "left_big_toe": 5770, "left_small_toe": 5780, "left_heel": 8846,
    "right_big_toe": 8463, "right_small_toe": 8474, "right_heel": 8635,
    "left_thumb4": 5361, "left_index4": 4933, "left_middle4": 5058,
    "left_ring4": 5169, "left_pinky4": 5286,
    "right_thumb4": 8079, "right_index4": 7669, "right_middle4": 7794,
    "right_ring4": 7905, "right_pinky4": 8022,
}
SMPL_SURFACE_VERTICES: Final = {
    "nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583,
    "left_big_toe": 3216, "left_small_toe": 3226, "left_heel": 3387,
    "right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787,
    "left_thumb4": 2746, "left_index4": 2319, "left_middle4": 2445,
    "left_ring4": 2556, "left_pinky4": 2673,
    "right_thumb4": 6191, "right_index4": 5782, "right_middle4": 5905,
    "right_ring4": 6016, "right_pinky4": 6133,
}
# fmt: on
_LANDMARKS = tuple(f"face{k}" for k in range(5, 73))  # 51 fixed points, then 17 of the contour
MODEL_JOINTS: Final = (*RIG_JOINTS, *SMPLX_SURFACE_VERTICES, *_LANDMARKS)

# fmt: off
JOINTS: Final = (
    "pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "neck", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    "left_wrist", "right_wrist", "left_big_toe", "left_small_toe", "left_heel",
    "right_big_toe", "right_small_toe", "right_heel", "left_ear", "right_ear",
    "left_eye", "right_eye", "nose",
    *_hand("left", _FINGERS, 4),
    *_hand("right", _FINGERS, 4),
    *(f"face{k}" for k in range(1, 73)),
)
# fmt: on
# The first four face points are joints and surface points of the head with other names.
# The order of the eyes differs between the network (left, right) and HumanData (right, left).
_FACE_ALIASES = {"face1": "jaw", "face2": "head", "face3": "left_eye", "face4": "right_eye"}
_HUMANDATA_ALIASES = {**_FACE_ALIASES, "face3": "right_eye", "face4": "left_eye"}

# Keypoint sets of other programs, in their order, by the names of JOINTS.
# fmt: off
COCO_KEYPOINTS: Final = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)
# fmt: on
HAND_KEYPOINTS: Final = {side: (f"{side}_wrist", *_hand(side, _FINGERS, 4)) for side in SIDES}
FACE_KEYPOINTS: Final = tuple(f"face{k}" for k in (*range(56, 73), *range(5, 56)))
"""The 68 points of iBUG: contour, brows, nose, eyes, mouth."""


def joint_places(names: Sequence[str]) -> list[int]:
    """Indices of joints in JOINTS."""
    return [JOINTS.index(name) for name in names]


JOINTS_FROM_MODEL: Final = tuple(MODEL_JOINTS.index(_FACE_ALIASES.get(j, j)) for j in JOINTS)
JOINTS_FROM_HUMANDATA: Final = tuple(
    MODEL_JOINTS.index(_HUMANDATA_ALIASES.get(j, j)) for j in JOINTS
)


def _parts(joints: Sequence[str], starts: dict[str, str]) -> dict[str, slice]:
    """Slices of consecutive parts; `starts` gives the first joint of each part, in order."""
    begins = [joints.index(first) for first in starts.values()]
    ends = [*begins[1:], len(joints)]
    slices = map(slice, begins, ends)
    return dict(zip(starts, slices, strict=True))


POSE_PARTS: Final = _parts(
    POSE_JOINTS,
    {"body": "pelvis", "left_hand": "left_index1", "right_hand": "right_index1", "face": "jaw"},
)
POSE_PARAMETERS: Final = {
    "global_orient": slice(0, 1),
    "body_pose": slice(1, POSE_PARTS["body"].stop),
    "left_hand_pose": POSE_PARTS["left_hand"],
    "right_hand_pose": POSE_PARTS["right_hand"],
    "jaw_pose": POSE_PARTS["face"],
}
"""The part of POSE_JOINTS that each parameter of the body model rotates."""
JOINT_PARTS: Final = _parts(
    JOINTS,
    {"body": "pelvis", "left_hand": "left_thumb1", "right_hand": "right_thumb1", "face": "face1"},
)
# The joint that the joints of a part are relative to in errors of the part.
PART_ROOTS: Final = {
    "body": JOINTS.index("pelvis"),
    "left_hand": JOINTS.index("left_wrist"),
    "right_hand": JOINTS.index("right_wrist"),
    "face": JOINTS.index("neck"),
}

ROOTS_OF_JOINTS: Final = tuple(
    PART_ROOTS[part] for part, joints in JOINT_PARTS.items() for _ in JOINTS[joints]
)
"""For each of JOINTS, the root of its part."""

# Face points that are mirror images of each other.
# fmt: off
_FACE_PAIRS = {
    3: 4, 5: 14, 6: 13, 7: 12, 8: 11, 9: 10,  # eyes; brows
    19: 23, 20: 22,  # nostrils
    24: 33, 25: 32, 26: 31, 27: 30, 28: 35, 29: 34,  # lids
    36: 42, 37: 41, 38: 40, 43: 47, 44: 46,  # outer lips
    48: 52, 49: 51, 53: 55,  # inner lips
    56: 72, 57: 71, 58: 70, 59: 69, 60: 68, 61: 67, 62: 66, 63: 65,  # contour
}
# fmt: on


def _mirror(joint: str) -> str:
    for one, other in (SIDES, SIDES[::-1]):
        if joint.startswith(one):
            return other + joint.removeprefix(one)
    if joint.startswith("face"):
        k = int(joint.removeprefix("face"))
        both_ways = _FACE_PAIRS | {right: left for left, right in _FACE_PAIRS.items()}
        return f"face{both_ways.get(k, k)}"
    return joint


def mirror_permutation(joints: Sequence[str]) -> tuple[int, ...]:
    """Index of the mirror image of each joint in the same set (itself on the midline)."""
    return tuple(joints.index(_mirror(joint)) for joint in joints)


def edges(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Bones between joints of a set: from each joint to its nearest ancestor in the set."""
    pairs = []
    for joint in joints:
        parent = f"{joint[:-1]}3" if joint[-1] == "4" and "_" in joint else _rig_parent(joint)
        while parent is not None and parent not in joints:
            parent = _rig_parent(parent)
        if parent is not None:
            pairs.append((joints.index(parent), joints.index(joint)))
    return tuple(pairs)


_SURFACE_PARENTS = {"nose": "head", "eye": "head", "ear": "head", "toe": "ankle", "heel": "ankle"}


def _rig_parent(joint: str) -> str | None:
    if joint.startswith("face"):
        return None
    if joint in RIG_JOINTS:
        return _parent_name(joint)
    side = joint.split("_")[0]
    anchor = _SURFACE_PARENTS[joint.split("_")[-1]]
    return anchor if anchor == "head" else f"{side}_{anchor}"


# Mean hand pose of MANO in the rig of SMPL-X (15 joints, axis-angle, radians). Published parameters
# are relative to it (flat_hand_mean=False); the right hand mirrors the left one.
# fmt: off
_HANDS_MEAN_LEFT = (
    (0.11167871, 0.04289218, -0.41644183), (0.10881133, -0.06598568, -0.75622),
    (-0.09639297, -0.09091566, -0.18845929), (-0.11809504, 0.05094385, -0.5295845),
    (-0.14369841, 0.0552417, -0.7048571), (-0.01918292, -0.09233685, -0.3379135),
    (-0.45703298, -0.19628395, -0.6254575), (-0.21465237, -0.06599829, -0.50689423),
    (-0.36972436, -0.06034463, -0.07949023), (-0.1418697, -0.08585263, -0.63552827),
    (-0.3033416, -0.05788098, -0.6313892), (-0.17612089, -0.13209307, -0.37335458),
    (0.8509643, 0.27692273, -0.09154807), (-0.49983943, 0.02655647, 0.05288088),
    (0.5355592, 0.04596104, -0.27735803),
)
# fmt: on
HANDS_MEAN: Final = {
    "left": _HANDS_MEAN_LEFT,
    "right": tuple((x, -y, -z) for x, y, z in _HANDS_MEAN_LEFT),
}
