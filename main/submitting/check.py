"""Checks a submission to AGORA or BEDLAM by the servers' own rules, before it is uploaded.

Errors are what a server refuses or would measure wrongly, warnings what is hardly meant. What one
person's pickle must hold is told in submission_record_check.py.
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
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float

from human_models.safe_pickle import load_pickle
from main.submitting.record_check import Level, Problem, check_record
from main.submitting.records import FOLDER, MATCHED_JOINTS, Server
from utils.errors import UserError, first_line
from utils.files import open_input, read_input
from utils.progress import with_progress

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


class Finding(NamedTuple):
    level: Level
    where: str
    what: str

    def __str__(self) -> str:
        line = f"{self.level}: {self.where}: {self.what}"
        return "".join(c if c.isprintable() else "?" for c in line)  # names may hold line breaks


class Check(NamedTuple):
    """What was found in a submission of so many images and people."""

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
        UserError: there is no such file or folder, or it is no zip.
    """
    findings: list[Finding] = []
    people: dict[str, list[int]] = defaultdict(list)
    farthest = np.full(2, -np.inf)

    def tell(where: str, problems: Iterable[Problem]) -> None:
        findings.extend(Finding(level, where, what) for level, what in problems)

    for member in with_progress(_members(path), None, "files"):
        tell(member.name, _check_name(member.name, server))
        if not member.name.endswith(".pkl"):
            continue
        if named := _NAME.fullmatch(PurePosixPath(member.name).name):
            people[named["stem"]].append(_number(named["k"]))
        try:
            record, numpy_2 = _load(member)
        except UserError as error:
            tell(member.name, [("error", str(error))])
            continue
        tell(member.name, check_record(record, server))
        if numpy_2:
            tell(member.name, [("warning", "names numpy._core, which Python 3.8's NumPy lacks")])
        farthest = np.fmax(farthest, _farthest_joint(record))
    for stem, indices in people.items():
        tell(stem, _check_indices(indices))
    tell(str(path), _check_whole(people, farthest, server))
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
            raise UserError(f"{path} is no zip ({first_line(error)}); write it again") from None
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
            raise UserError(f"no pickle of plain arrays ({reason})") from None


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
        yield "error", f"'{named['stem']}' is no name that {server.name} gives an image"


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
