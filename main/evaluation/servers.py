"""What the test servers of AGORA and BEDLAM take: one pickle per person, its name and content.

Formats: docs/prediction_format.md of agora_evaluation, docs/leaderboard.md of BEDLAM.
"""

import pickle
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float

from utils.errors import UserError

FOLDER: Final = "predictions"
"""Folder in the zip that holds the pickles."""
MATCHED_JOINTS: Final = 24
"""First joints of SMPL-X: by their pixels people are matched with the truth."""
SCORED_JOINTS: Final = 127
"""First joints of SMPL-X: those whose errors are measured."""
CROP_MARKS: Final = ("_pid_", "_ann_id_", "_1280x720")
"""What AGORA's crops and small images have in their names behind the image's own name."""
EYES: Final = ("leye_pose", "reye_pose")

Record = dict[str, Any]
"""Content of a pickle: arrays, and dictionaries of arrays."""


class Prediction(NamedTuple):
    """One person of an image. Metres in the crop's camera frame (x right, y down, z forward)."""

    image_path: Path
    image_size: tuple[int, int]
    """Width and height in pixels."""
    parameters: dict[str, Float[np.ndarray, " N"]]
    """Names and values of `models.smplest_x.BodyParameters`."""
    joints_2d_px: Float[np.ndarray, "144 2"]
    """`human_models.joints.MODEL_JOINTS` in pixels of the whole image."""
    joints_3d_m: Float[np.ndarray, "144 3"]
    vertices_m: Float[np.ndarray, "10475 3"] | None


class Server(NamedTuple):
    """A test server: which images it is about, and in which form it takes a person."""

    name: str
    source: str
    """Row of datasets/sources.py."""
    image_size: tuple[int, int]
    """Width and height of the image in whose pixels `joints` are wanted."""
    takes_parameters: bool
    """Whether SMPL-X parameters are accepted instead of vertices and 3D joints."""
    stem: Callable[[Path], str]
    """What the pickles of an image's people begin with."""
    stem_pattern: str
    """Regular expression that all stems match."""
    record: Callable[[Prediction], Record]
    needs_vertices: bool


def agora_stem(image_path: Path) -> str:
    """The whole image's name without its ending; `CROP_MARKS` and what follows them are cut off."""
    return re.split("|".join(CROP_MARKS), image_path.stem)[0]


def agora_record(prediction: Prediction) -> Record:
    """SMPL-X parameters, from which the server builds neutral bodies, and joints (24, 2).

    The joints are in pixels of 3840x2160, whatever the size of the image. Parameters have a first
    axis of one person; rotations are axis-angle vectors, those of hands relative to the mean hand.

    Raises:
        UserError: the image is no 16:9 image, so it is a part of one.
    """
    width, height = prediction.image_size
    wanted_width, wanted_height = AGORA.image_size
    if abs(width * wanted_height - height * wanted_width) > wanted_width:  # over a row of pixels
        raise UserError(
            f"{prediction.image_path} ({width}x{height}) is no whole image of AGORA, which has "
            f"{wanted_width}x{wanted_height} or 1280x720 pixels; give whole images, not crops"
        )
    scale = np.array([wanted_width / width, wanted_height / height])
    parameters = {name: value[None] for name, value in prediction.parameters.items()}
    parameters |= {name: np.zeros((1, 3), np.float32) for name in EYES}
    joints = prediction.joints_2d_px[:MATCHED_JOINTS] * scale
    return {"params": parameters, "joints": joints.astype(np.float32)}


def bedlam_stem(image_path: Path) -> str:
    """SCENE_frameID_IMAGE of .../SCENE/png/SEQUENCE/IMAGE.png.

    Raises:
        UserError: the path is not of that form, so the scene is unknown.
    """
    parts = image_path.parts
    if len(parts) < 4 or parts[-3] != "png":
        raise UserError(
            f"{image_path}: the scene is unknown; keep BEDLAM's folders SCENE/png/SEQUENCE/IMAGE"
        )
    return f"{parts[-4]}_frameID_{image_path.stem}"


def bedlam_record(prediction: Prediction) -> Record:
    """Vertices (10475, 3), joints (127, 3) in the same frame, metres; joints (24, 2) in pixels."""
    assert prediction.vertices_m is not None
    return {
        "joints": prediction.joints_2d_px[:MATCHED_JOINTS],
        "verts": prediction.vertices_m,
        "allSmplJoints3d": prediction.joints_3d_m[:SCORED_JOINTS],
    }


AGORA: Final = Server(
    "agora",
    source="AGORA_test",
    image_size=(3840, 2160),
    takes_parameters=True,
    stem=agora_stem,
    stem_pattern=f"(?!.*({'|'.join(CROP_MARKS)})).+",
    record=agora_record,
    needs_vertices=False,
)
BEDLAM: Final = Server(
    "bedlam",
    source="BEDLAM_test",
    image_size=(1280, 720),
    takes_parameters=False,
    stem=bedlam_stem,
    stem_pattern=".+_frameID_.+",
    record=bedlam_record,
    needs_vertices=True,
)
SERVERS: Final = {server.name: server for server in (AGORA, BEDLAM)}


def person_name(stem: str, k: int) -> str:
    """File name of the k-th person (from 0) of an image with this stem."""
    return f"{stem}_personId_{k}.pkl"


class PersonNames:
    """File names of a submission: the people of an image are numbered from 0 as they come."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.images: dict[str, Path] = {}
        self.people: Counter[str] = Counter()

    def next(self, image_path: Path) -> str:
        """Name for one more person of an image.

        Raises:
            UserError: another image has the same name for the server.
        """
        stem = self.server.stem(image_path)
        other = self.images.setdefault(stem, image_path)
        if other != image_path:
            raise UserError(
                f"{image_path} and {other} are both '{stem}' for the server; leave one out"
            )
        self.people[stem] += 1
        return person_name(stem, self.people[stem] - 1)


def pickled(record: Record) -> bytes:
    """A pickle that NumPy 1 reads too.

    The servers' tools ask for Python 3.8, whose NumPy has no `numpy._core`. In this protocol a
    function's name is plain text in front of the first array's numbers.
    """
    return pickle.dumps(record, protocol=3).replace(b"cnumpy._core.", b"cnumpy.core.", 1)
