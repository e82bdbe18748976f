"""Formats of the test servers of AGORA and BEDLAM, and checks of submissions.

The servers accept one pickle per person in a zip. Names and contents follow
docs/prediction_format.md of agora_evaluation and docs/leaderboard.md of BEDLAM. A submission is
checked by the rules of the servers before it is uploaded. An error is something that the server
refuses or would evaluate wrongly, a warning something that is probably a mistake.
"""

import lzma
import re
import tempfile
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from utils.errors import UserError, escape_controls, first_line
from utils.files import open_input, read_input
from utils.iteration import with_progress

FOLDER: Final = "predictions"
"""Folder of the pickles in the zip."""
MATCHED_JOINTS: Final = 24
"""Number of first SMPL-X joints by whose pixels people are matched with the truth."""
SCORED_JOINTS: Final = 127
"""Number of first SMPL-X joints whose errors are measured."""
CROP_MARKS: Final = ("_pid_", "_ann_id_", "_1280x720")
"""Beginnings of the suffixes that AGORA's crops and small images add to the image's name."""
EYES: Final = ("leye_pose", "reye_pose")

Record = dict[str, Any]
"""Content of a pickle: arrays, and dictionaries of arrays."""


class Prediction(NamedTuple):
    """One person of an image, in metres in the camera frame (x right, y down, z forward)."""

    image_path: Path
    image_size: tuple[int, int]
    """Width and height in pixels."""
    parameters: dict[str, Float[np.ndarray, " N"]]
    """Fields of `models.smplest_x.BodyParameters`."""
    joints_2d_px: Float[np.ndarray, "144 2"]
    """Joints of `human_models.joints.MODEL_JOINTS` in pixels of the whole image."""
    joints_3d_m: Float[np.ndarray, "144 3"]
    vertices_m: Float[np.ndarray, "10475 3"] | None


class Server(NamedTuple):
    """A test server: its images, and the format of a person."""

    name: str
    source: str
    """Name of the dataset in datasets/sources.py."""
    image_size: tuple[int, int]
    """Width and height of the images to which the pixels of `joints` refer."""
    takes_parameters: bool
    """Whether SMPL-X parameters are accepted instead of vertices and 3D joints."""
    stem: Callable[[Path], str]
    """First part of the names of an image's pickles."""
    stem_pattern: str
    """Regular expression that all stems match."""
    record: Callable[[Prediction], Record]
    """Content of a person's pickle."""


def agora_stem(image_path: Path) -> str:
    """The name of an image without `CROP_MARKS`, what follows them, and the suffix."""
    return re.split("|".join(CROP_MARKS), image_path.stem)[0]


def agora_record(prediction: Prediction) -> Record:
    """SMPL-X parameters, from which the server builds neutral bodies, and joints (24, 2).

    Joints are in pixels of 3840x2160 for any size of image. Parameters have a first axis of length
    1; rotations are axis-angle vectors (radians), those of hands relative to the mean hand.

    Raises:
        UserError: the image is not 16:9, so it is only a part of one of AGORA's.
    """
    width, height = prediction.image_size
    wanted_width, wanted_height = AGORA.image_size
    if abs(width * wanted_height - height * wanted_width) > wanted_width:  # more than one row
        raise UserError(
            f"{prediction.image_path} ({width}x{height}) is not a whole image of AGORA, which has "
            f"{wanted_width}x{wanted_height} or 1280x720 pixels; give whole images, not crops"
        )
    scale = np.array([wanted_width / width, wanted_height / height])
    parameters = {name: value[None] for name, value in prediction.parameters.items()}
    parameters |= {name: np.zeros((1, 3), np.float32) for name in EYES}
    joints = prediction.joints_2d_px[:MATCHED_JOINTS] * scale
    return {"params": parameters, "joints": joints.astype(np.float32)}


def bedlam_stem(image_path: Path) -> str:
    """SCENE_frameID_IMAGE for a path .../SCENE/png/SEQUENCE/IMAGE.png.

    Raises:
        UserError: the path has another form, so the scene is unknown.
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
)
BEDLAM: Final = Server(
    "bedlam",
    source="BEDLAM_test",
    image_size=(1280, 720),
    takes_parameters=False,
    stem=bedlam_stem,
    stem_pattern=".+_frameID_.+",
    record=bedlam_record,
)
SERVERS: Final = {server.name: server for server in (AGORA, BEDLAM)}


Level = Literal["error", "warning"]
"""error: the server refuses it or would evaluate it wrongly; warning: probably a mistake."""
Problem = tuple[Level, str]
_NAME: Final = re.compile(r"(?P<stem>.+)_personId_(?P<k>0|[1-9]\d*)\.pkl")
_SMALL_IMAGE: Final = (1280, 720)
_MANY_IMAGES: Final = 10
_MOST_BYTES: Final = 64 << 20
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    EOFError,
)
"""Exceptions that reading a damaged or encrypted zip raises."""
_MOST_PEOPLE: Final = 10_000
"""Largest number of people in an image."""
_MOST_LISTED: Final = 20
"""Largest number of people that a finding lists."""
_VERTICES: Final = 10475
_VECTORS: Final[dict[str, tuple[int, ...]]] = {
    "transl": (1, 3),
    "expression": (1, 10),
    "global_orient": (1, 3),
    "body_pose": (1, 63),
    "jaw_pose": (1, 3),
    "left_hand_pose": (1, 45),
    "right_hand_pose": (1, 45),
    **dict.fromkeys(EYES, (1, 3)),
}
"""Shapes of params if pose2rot is True; that of betas depends on num_betas."""
_MATRICES: Final = _VECTORS | {
    name: (1, shape[1] // 3, 3, 3)
    for name, shape in _VECTORS.items()
    if name.endswith(("pose", "orient"))
}
"""Shapes of params if pose2rot is False."""
_CHOICES: Final[dict[str, Sequence[object]]] = {
    "gender": ("neutral", "male", "female"),
    "age": ("adult", "kid"),
    "kid_flag": (False, True),
    "pose2rot": (True, False),
    "num_betas": range(10, 300),
}
"""Allowed values of optional keys; the first one is the default."""
_KID_BETAS: Final = 11
_MARGIN: Final = 0.25
"""Largest distance of joints from the vertices' box, over the longest side of the box."""
_BODY_SIDE_M: Final = (0.3, 3.0)
"""Range of the longest side of the box around a body in any pose."""


class Finding(NamedTuple):
    """An error or a warning, and the file or image that it concerns."""

    level: Level
    where: str
    what: str

    def __str__(self) -> str:
        return escape_controls(f"{self.level}: {self.where}: {self.what}")


class Check(NamedTuple):
    """Findings in a submission, and its numbers of images and people."""

    images: int
    people: int
    findings: list[Finding]

    @property
    def errors(self) -> int:
        return sum(finding.level == "error" for finding in self.findings)


class _Member(NamedTuple):
    name: str
    size: int
    read: Callable[[], bytes]


def check_submission(path: Path, server: Server) -> Check:
    """Check a zip, or the folder to be zipped, reading one person at a time.

    Raises:
        UserError: the file or folder does not exist, or is not a zip.
    """
    findings: list[Finding] = []
    people: dict[str, list[int]] = defaultdict(list)
    farthest = np.full(2, -np.inf)

    def add(where: str, problems: Iterable[Problem]) -> None:
        findings.extend(Finding(level, where, what) for level, what in problems)

    for member in with_progress(_members(path), None, "files"):
        add(member.name, _check_name(member.name, server))
        if not member.name.endswith(".pkl"):
            continue
        if named := _NAME.fullmatch(PurePosixPath(member.name).name):
            people[named["stem"]].append(_number(named["k"]))
        try:
            record, numpy_2 = _load(member)
        except UserError as error:
            add(member.name, [("error", str(error))])
            continue
        add(member.name, check_record(record, server))
        if numpy_2:
            add(member.name, [("warning", "refers to numpy._core, which only NumPy 2 has")])
        farthest = np.fmax(farthest, _farthest_joint(record))
    for stem, indices in people.items():
        add(stem, _check_indices(indices))
    add(str(path), _check_whole(people, farthest, server))
    return Check(len(people), sum(map(len, people.values())), findings)


def _members(path: Path) -> Iterator[_Member]:
    if path.is_dir():
        # The path may be the folder `predictions` or its parent.
        base = path.parent if path.name == FOLDER else path
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            name = file.relative_to(base).as_posix()
            yield _Member(name, file.stat().st_size, partial(read_input, file, _MOST_BYTES))
        return
    with open_input(path, "file; name the zip, or the folder to be zipped") as content:
        try:
            archive = zipfile.ZipFile(content)
        except _DAMAGE as error:
            raise UserError(f"{path} is not a zip ({first_line(error)}); write it again") from None
        with archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield _Member(info.filename, info.file_size, partial(_unzip, archive, info))


def _unzip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The content of a member; raises one of _DAMAGE if it is not as long as announced."""
    with archive.open(info) as member:
        content = member.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise zipfile.BadZipFile(f"{len(content)} of {info.file_size} bytes are present")
    return content


def _load(member: _Member) -> tuple[object, bool]:
    """Content of a pickle, and whether only NumPy 2 can read it.

    Raises:
        UserError: it is damaged or not a pickle of plain arrays; without the name of the file.
    """
    from human_models.safe_pickle import load_pickle  # SciPy is not loaded for --help

    if member.size > _MOST_BYTES:
        raise UserError(f"{member.size >> 20} MiB is too large for one person")
    try:
        content = member.read()
    except _DAMAGE as error:
        raise UserError(f"damaged in the zip ({first_line(error)})") from None
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            return load_pickle(Path(file.name)), b"numpy._core" in content
        except UserError as error:
            reason = str(error).replace(file.name, "").split(";")[0].strip(" :")
            raise UserError(f"not a pickle of plain arrays ({reason})") from None


def _check_name(name: str, server: Server) -> Iterator[Problem]:
    path = PurePosixPath(name)
    named = _NAME.fullmatch(path.name)
    if path.name.startswith(".") or (path.suffix != ".pkl" and path.parts[:-1] != (FOLDER,)):
        yield "warning", "the server ignores this file"
    elif path.parts[:-1] != (FOLDER,):
        yield "error", f"is not directly in the folder {FOLDER}/"
    elif named is None:
        yield "error", "is not called IMAGE_personId_0.pkl (or 1, 2, ...)"
    elif not re.fullmatch(server.stem_pattern, named["stem"]):
        yield "error", f"'{named['stem']}' is not an image name of {server.name}"


def _farthest_joint(record: object) -> Float[np.ndarray, "2"]:
    """Largest x and y of the joints for matching; minus infinity if there are none."""
    joints = record.get("joints") if isinstance(record, dict) else None
    if isinstance(joints, np.ndarray) and joints.dtype.kind in "fiu" and joints.shape[-1:] == (2,):
        points = joints.reshape(-1, 2)[:MATCHED_JOINTS].astype(np.float64)
        return points.max(axis=0, initial=-np.inf)
    return np.full(2, -np.inf)


def _check_indices(indices: list[int]) -> Iterator[Problem]:
    """Find gaps and repetitions, which result if people of an image overwrite each other."""
    last = max(indices)
    if last >= _MOST_PEOPLE:
        yield "error", f"a personId is over {_MOST_PEOPLE}; count the people of an image from 0"
        return
    twice = sorted(k for k, count in Counter(indices).items() if count > 1)
    missing = sorted(set(range(last + 1)) - set(indices))
    if twice:
        yield "error", f"personId {_listed(twice)} appears more than once"
    if missing:
        yield "error", f"personId {_listed(missing)} is missing; count from 0"


def _listed(numbers: Sequence[int]) -> str:
    more = len(numbers) - _MOST_LISTED
    return ", ".join(map(str, numbers[:_MOST_LISTED])) + (f" and {more} more" if more > 0 else "")


def _number(digits: str) -> int:
    """The number of a person, at most _MOST_PEOPLE."""
    return min(int(digits[: len(str(_MOST_PEOPLE)) + 1]), _MOST_PEOPLE)


def _check_whole(
    people: dict[str, list[int]], farthest: Float[np.ndarray, "2"], server: Server
) -> Iterator[Problem]:
    if not people:
        yield "error", f"no person's pickle is in the folder {FOLDER}/"
    if len(people) >= _MANY_IMAGES and max(map(max, people.values())) == 0:
        yield "warning", "no image has a second person; did people overwrite each other?"
    width, height = server.image_size
    if (
        np.isfinite(farthest).all()
        and (width, height) > _SMALL_IMAGE
        and (farthest <= _SMALL_IMAGE).all()
    ):
        yield "warning", f"all joints lie within 1280x720; they must be pixels of {width}x{height}"


def check_record(record: object, server: Server) -> Iterator[Problem]:
    """Find problems in the content of one person's pickle."""
    if not isinstance(record, dict):
        yield "error", f"contains a {type(record).__name__}, not a dictionary"
        return
    mesh = [key for key in ("verts", "allSmplJoints3d") if key in record]
    if len(mesh) == 1:
        yield "error", "verts and allSmplJoints3d are both required, one is missing"
    elif mesh:
        yield from _check_mesh(record)
        if "params" in record:
            yield "warning", "params are not checked, because there are verts"
    elif "params" not in record:
        yield "error", "neither params nor verts with allSmplJoints3d are present"
    elif not server.takes_parameters:
        yield "error", f"params: {server.name} accepts only verts and allSmplJoints3d"
    else:
        yield from _check_parameters(record)
    yield from _check_joints(record, server)
    for key in record.keys() - {"params", "joints", "verts", "allSmplJoints3d", *_CHOICES}:
        yield "warning", f"'{key}' is ignored by the server"


def _numbers(values: dict[Any, Any], key: str) -> Shaped[np.ndarray, "..."]:
    """An array of finite numbers; raises UserError if the value is something else."""
    value = values.get(key)
    if value is None:
        raise UserError(f"{key} is missing")
    if not isinstance(value, np.ndarray):
        raise UserError(f"{key} is a {type(value).__name__}, not a NumPy array")
    if value.dtype.kind not in "fiu":
        raise UserError(f"{key} is of type {value.dtype}, not numbers")
    if not np.isfinite(value).all():
        raise UserError(f"{key} has NaN or infinity")
    return value


def _check_mesh(record: dict[Any, Any]) -> Iterator[Problem]:
    try:
        vertices = _numbers(record, "verts").squeeze()  # as the servers do
        joints = _numbers(record, "allSmplJoints3d").squeeze()
    except UserError as error:
        yield "error", str(error)
        return
    if vertices.shape != (_VERTICES, 3):
        yield "error", f"verts are {vertices.shape}, not ({_VERTICES}, 3)"
    if joints.ndim != 2 or joints.shape[1] != 3 or len(joints) < SCORED_JOINTS:
        yield "error", f"allSmplJoints3d are {joints.shape}, not ({SCORED_JOINTS}, 3)"
    elif len(joints) > SCORED_JOINTS:
        yield "warning", f"allSmplJoints3d: {len(joints)}, the first {SCORED_JOINTS} count"
    if vertices.ndim != 2 or joints.ndim != 2 or {vertices.shape[1], joints.shape[1]} != {3}:
        return
    if not len(vertices) or not len(joints):
        return
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    side = (high - low).max()
    outside = np.maximum(low - joints[:SCORED_JOINTS], joints[:SCORED_JOINTS] - high).max()
    if outside > _MARGIN * side:
        yield "error", f"joints are {outside:.2f} m outside the vertices; both need the same origin"
    if not _BODY_SIDE_M[0] < side < _BODY_SIDE_M[1]:
        yield "warning", f"the body measures {side:.4g}; verts must be in metres"


def _check_parameters(record: dict[Any, Any]) -> Iterator[Problem]:
    choices = {key: allowed[0] for key, allowed in _CHOICES.items()}
    for key, allowed in _CHOICES.items():
        value = record.get(key, allowed[0])
        choices[key] = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        if choices[key] not in allowed:
            known = "10 to 299" if isinstance(allowed, range) else ", ".join(map(str, allowed))
            yield "error", f"{key} is {str(choices[key])[:80]}, allowed: {known}"
    if choices["kid_flag"] and choices["num_betas"] != _KID_BETAS:
        yield "error", f"a kid needs num_betas {_KID_BETAS} and as many betas"
    if choices["age"] == "kid" and not choices["kid_flag"]:
        yield "warning", "age is kid without kid_flag, which the server uses"
    parameters = record["params"]
    if not isinstance(parameters, dict):
        yield "error", f"params is a {type(parameters).__name__}, not a dictionary"
        return
    shapes = _VECTORS if choices["pose2rot"] else _MATRICES
    for name, shape in {"betas": (1, choices["num_betas"]), **shapes}.items():
        try:
            found = _numbers(parameters, name).shape
        except UserError as error:
            yield "error", f"params: {error}"
            continue
        if found != shape:
            yield "error", f"params: {name} is {found}, not {shape}"
    for key in parameters.keys() - {"betas", *shapes}:
        yield "warning", f"params: '{key}' is ignored by the server"


def _check_joints(record: dict[Any, Any], server: Server) -> Iterator[Problem]:
    try:
        joints = _numbers(record, "joints")
    except UserError as error:
        yield "error", str(error)
        return
    if joints.ndim != 2 or joints.shape[1] < 2 or len(joints) < MATCHED_JOINTS:
        yield "error", f"joints are {joints.shape}, not ({MATCHED_JOINTS}, 2)"
        return
    if joints.shape != (MATCHED_JOINTS, 2):
        yield "warning", f"joints are {joints.shape}: the box uses all, the matching only 24"
    size = np.array(server.image_size)
    points = joints[:MATCHED_JOINTS, :2]
    if (points.min(axis=0) < -size).any() or (points.max(axis=0) > 2 * size).any():
        yield "warning", f"joints lie far outside the image of {size[0]}x{size[1]} pixels"
    elif (points.max(axis=0) < 0).any() or (points.min(axis=0) > size).any():
        yield "warning", f"no joint lies in the image of {size[0]}x{size[1]} pixels"
