"""What the test servers of AGORA and BEDLAM take, and whether a submission is that.

They take one pickle per person in a zip: its name and content are formats of
docs/prediction_format.md of agora_evaluation and docs/leaderboard.md of BEDLAM. A submission is
checked by the servers' own rules before it is uploaded: first as a whole, then what one person's
pickle must hold. Errors are what a server refuses or would measure wrongly, warnings what is
probably a mistake.
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

from utils.errors import UserError, first_line
from utils.files import open_input, read_input
from utils.iteration import with_progress

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
            f"{prediction.image_path} ({width}x{height}) is not a whole image of AGORA, which has "
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
"""error: the server refuses it or would measure it wrongly; warning: it is probably a mistake."""
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
"""What reading a member of a damaged or encrypted zip raises."""
_MOST_PEOPLE: Final = 10_000
"""In an image; numbers of people count from 0."""
_MOST_NAMED: Final = 20
"""Numbers of people that a finding lists."""
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
"""Shapes of params where pose2rot is True; that of betas depends on num_betas."""
_MATRICES: Final = _VECTORS | {
    name: (1, shape[1] // 3, 3, 3)
    for name, shape in _VECTORS.items()
    if name.endswith(("pose", "orient"))
}
"""Shapes of params where pose2rot is False."""
_CHOICES: Final[dict[str, Sequence[object]]] = {
    "gender": ("neutral", "male", "female"),
    "age": ("adult", "kid"),
    "kid_flag": (False, True),
    "pose2rot": (True, False),
    "num_betas": range(10, 300),
}
"""Keys that may be left out; their first value then holds."""
_KID_BETAS: Final = 11
_MARGIN: Final = 0.25
"""Joints may lie outside the vertices' box by this part of its longest side."""
_BODY_SIDE_M: Final = (0.3, 3.0)
"""Longest side of the box around a body in any pose."""


class Finding(NamedTuple):
    level: Level
    where: str
    what: str

    def __str__(self) -> str:
        line = f"{self.level}: {self.where}: {self.what}"
        return "".join(c if c.isprintable() else "?" for c in line)  # names may hold line breaks


class Check(NamedTuple):
    """What was found in a submission, and how many images and people it has."""

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
    """All findings in a zip, or in the folder to be zipped; memory holds one person at a time.

    Raises:
        UserError: there is no such file or folder, or it is not a zip.
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
            add(member.name, [("warning", "names numpy._core, which Python 3.8's NumPy lacks")])
        farthest = np.fmax(farthest, _farthest_joint(record))
    for stem, indices in people.items():
        add(stem, _check_indices(indices))
    add(str(path), _check_whole(people, farthest, server))
    return Check(len(people), sum(map(len, people.values())), findings)


def _members(path: Path) -> Iterator[_Member]:
    if path.is_dir():
        # The folder `predictions` itself may be named, or the one that holds it.
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
    """A member that is as long as it says, or an error of _DAMAGE."""
    with archive.open(info) as member:
        content = member.read(info.file_size + 1)
    if len(content) != info.file_size:
        raise zipfile.BadZipFile(f"{len(content)} of {info.file_size} bytes are there")
    return content


def _load(member: _Member) -> tuple[object, bool]:
    """Content of a pickle, and whether only NumPy 2 can read it.

    Raises UserError, without the file's name.
    """
    from human_models.safe_pickle import load_pickle  # SciPy is not loaded for --help

    if member.size > _MOST_BYTES:
        raise UserError(f"{member.size >> 20} MiB are too much for one person")
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
        yield "warning", "the server does not look at it"
    elif path.parts[:-1] != (FOLDER,):
        yield "error", f"lies not directly in the folder {FOLDER}/"
    elif named is None:
        yield "error", "is not called IMAGE_personId_0.pkl (or 1, 2, ...)"
    elif not re.fullmatch(server.stem_pattern, named["stem"]):
        yield "error", f"'{named['stem']}' is not a name that {server.name} gives an image"


def _farthest_joint(record: object) -> Float[np.ndarray, "2"]:
    """Largest x and y of the joints that are matched; minus infinity where there are none."""
    joints = record.get("joints") if isinstance(record, dict) else None
    if isinstance(joints, np.ndarray) and joints.dtype.kind in "fiu" and joints.shape[-1:] == (2,):
        points = joints.reshape(-1, 2)[:MATCHED_JOINTS].astype(np.float64)
        return points.max(axis=0, initial=-np.inf)
    return np.full(2, -np.inf)


def _check_indices(indices: list[int]) -> Iterator[Problem]:
    """People of an image who overwrote each other leave gaps or come twice."""
    last = max(indices)
    if last >= _MOST_PEOPLE:
        yield "error", f"a personId is over {_MOST_PEOPLE}; count the people of an image from 0"
        return
    twice = sorted(k for k, count in Counter(indices).items() if count > 1)
    missing = sorted(set(range(last + 1)) - set(indices))
    if twice:
        yield "error", f"personId {_listed(twice)} comes more than once"
    if missing:
        yield "error", f"personId {_listed(missing)} is missing; count from 0"


def _listed(numbers: Sequence[int]) -> str:
    more = len(numbers) - _MOST_NAMED
    return ", ".join(map(str, numbers[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def _number(digits: str) -> int:
    """The number of a person; _MOST_PEOPLE for all that are larger."""
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
        yield "warning", f"all joints lie within 1280x720; they must be of {width}x{height} pixels"


def check_record(record: object, server: Server) -> Iterator[Problem]:
    """What is wrong with the content of one person's pickle."""
    if not isinstance(record, dict):
        yield "error", f"holds a {type(record).__name__}, not a dictionary"
        return
    mesh = [key for key in ("verts", "allSmplJoints3d") if key in record]
    if len(mesh) == 1:
        yield "error", "verts and allSmplJoints3d go together, only one is there"
    elif mesh:
        yield from _check_mesh(record)
        if "params" in record:
            yield "warning", "params are not checked where there are verts"
    elif "params" not in record:
        yield "error", "neither verts with allSmplJoints3d nor params are there"
    elif not server.takes_parameters:
        yield "error", f"params: {server.name} takes verts and allSmplJoints3d alone"
    else:
        yield from _check_parameters(record)
    yield from _check_joints(record, server)
    for key in record.keys() - {"params", "joints", "verts", "allSmplJoints3d", *_CHOICES}:
        yield "warning", f"'{key}' means nothing to the server"


def _numbers(values: dict[Any, Any], key: str) -> Shaped[np.ndarray, "..."]:
    """Raises UserError where it is not an array of finite numbers."""
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
        yield "error", f"joints lie {outside:.2f} m off the vertices: they need the same origin"
    if not _BODY_SIDE_M[0] < side < _BODY_SIDE_M[1]:
        yield "warning", f"the body measures {side:.4g}; verts are wanted in metres"


def _check_parameters(record: dict[Any, Any]) -> Iterator[Problem]:
    choices = {key: allowed[0] for key, allowed in _CHOICES.items()}
    for key, allowed in _CHOICES.items():
        value = record.get(key, allowed[0])
        choices[key] = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        if choices[key] not in allowed:
            known = "10 to 299" if isinstance(allowed, range) else ", ".join(map(str, allowed))
            yield "error", f"{key} is {str(choices[key])[:80]}, possible are {known}"
    if choices["kid_flag"] and choices["num_betas"] != _KID_BETAS:
        yield "error", f"a kid needs num_betas {_KID_BETAS} and as many betas"
    if choices["age"] == "kid" and not choices["kid_flag"]:
        yield "warning", "age is kid, but the server's tools go by kid_flag"
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
        yield "warning", f"params: '{key}' means nothing to the server"


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
        yield "warning", f"joints are {joints.shape}: all set the person's box, 24 are matched"
    size = np.array(server.image_size)
    points = joints[:MATCHED_JOINTS, :2]
    if (points.min(axis=0) < -size).any() or (points.max(axis=0) > 2 * size).any():
        yield "warning", f"joints lie far outside the image of {size[0]}x{size[1]} pixels"
    elif (points.max(axis=0) < 0).any() or (points.min(axis=0) > size).any():
        yield "warning", f"no joint lies in the image of {size[0]}x{size[1]} pixels"
