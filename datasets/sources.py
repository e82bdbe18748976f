"""The known datasets: where their files are, and how they differ.

They are the rows of `sources.csv`. The name of an annotation file may be a pattern with *, if the
exact name of the published file is not known.
"""

import csv
import difflib
import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool

from configs.schema import DataConfig
from datasets.humandata.reader import Columns
from utils.errors import UserError

Fix = Callable[[Columns], Columns]


def keep(columns: Columns, kept: Bool[np.ndarray, " N"]) -> Columns:
    """Only the marked rows."""
    if kept.all():
        return columns
    return {name: column[kept] for name, column in columns.items()}


def keep_usable(columns: Columns) -> Columns:
    """For all datasets with ground truth: drop rows that the content of the file makes unusable.

    AGORA marks unreliable annotations; COCO and UBody mark groups, people without keypoints, and
    (UBody) failed labels. Ten betas cannot describe children, who have further ones. Rows with NaN
    or infinity among their 3D joints are dropped as well.
    """
    kept = np.ones(len(columns["row"]), bool)
    marks = ["annot_valid"]
    if "iscrowd" in columns or "valid_label" in columns:
        marks += ["num_keypoints", "valid_label"]
    for name in marks:
        kept &= columns.get(name, kept) != 0
    for name in ("iscrowd", "betas_extra"):
        kept &= columns.get(name, ~kept) == 0
    if "joints_3d" in columns:
        kept &= np.logical_and.reduce(np.isfinite(columns["joints_3d"]), axis=(1, 2))
    return keep(columns, kept)


def use_neutral_betas(columns: Columns) -> Columns:
    """Use betas fitted to the neutral body, if the file has them."""
    return {
        **columns,
        "betas": columns.get("betas_neutral", columns.get("betas", _no_betas(columns))),
    }


def zero_betas(columns: Columns) -> Columns:
    """For people whose shape has no betas of SMPL-X (a template mesh, or betas of SMPL)."""
    return {**columns, "betas": _no_betas(columns)}


def hands_only(columns: Columns) -> Columns:
    """Datasets of hands contain no shape, orientation or body pose."""
    count = len(columns["row"])
    return {
        **columns,
        "betas": _no_betas(columns),
        "global_orient": np.zeros((count, 3), np.float32),
        "body_pose": np.zeros((count, 21, 3), np.float32),
    }


def strip_leading_slash(columns: Columns) -> Columns:
    """For paths that look absolute but are relative to the folder of images."""
    return {**columns, "image_path": np.strings.lstrip(columns["image_path"], "/")}


def forget_image_size(columns: Columns) -> Columns:
    """For files with wrong image sizes; the table has the right one."""
    return {name: column for name, column in columns.items() if name != "image_size"}


def _no_betas(columns: Columns) -> np.ndarray:
    return np.zeros((len(columns["row"]), 10), np.float32)


Split = Literal["train", "test"]


class Scans(NamedTuple):
    """The location and orientation of the meshes of a dataset."""

    ending: str
    """Replaces the last _word of the image's name: 01_img.jpg -> 01_align.ply."""
    to_camera: tuple[float, float, float]
    """Axis-angle rotation (radians) from the scanner's frame into the camera's."""

    def path_for(self, image: Path) -> Path:
        return image.with_name((image.stem.rpartition("_")[0] or image.stem) + self.ending)


class Source(NamedTuple):
    """A dataset with its published files."""

    name: str
    train: tuple[str, ...] | None
    """Annotation files in the folder `annot`, or patterns of them; None: no such split."""
    test: tuple[str, ...] | None
    images: str
    """Folder in the folder `img`."""
    image_size: tuple[int, int] | None = None
    """Width and height of all images; sizes in a file have priority."""
    train_interval: int = 1
    """Every k-th row is used unless the config says otherwise."""
    test_interval: int = 1
    flat_hands: bool = False
    """Hand poses are relative to the flat hand; a statement in the file has priority."""
    fixes: tuple[Fix, ...] = ()
    test_families: tuple[str, ...] = ("smplx", "smpl", "smplh")
    """Body parameters of the test split, in order of preference; this is the order of training."""
    without_truth: bool = False
    """Files need no body parameters and no keypoints, and every row is used: the truth is on a test
    server, or is not a body."""
    joints_from_body: bool = False
    """3D training targets are the joints of the body model instead of those in the files."""
    visible_only: bool = False
    """Evaluation counts only what the image shows."""
    scans: Scans | None = None
    """Meshes beside the images, with which a test can compare instead of the parameters."""

    @property
    def hands_alone(self) -> bool:
        """The dataset contains only hands."""
        return hands_only in self.fixes

    def files(self, split: Split) -> tuple[str, ...]:
        """The files of a split.

        Raises:
            UserError: the dataset has no such split.
        """
        files = self.train if split == "train" else self.test
        if files is None:
            raise UserError(f"{self.name} has no {split} split; choose another dataset")
        return files

    def interval(self, split: Split) -> int:
        return self.train_interval if split == "train" else self.test_interval


_FIXES: Final = {
    fix.__name__: fix for fix in (forget_image_size, hands_only, strip_leading_slash, zero_betas)
}
_EHF_SCANS: Final = Scans("_align.ply", (-2.98747896, 0.01172457, -0.05704687))
_MORE: Final[dict[str, dict[str, Any]]] = {
    "PW3D": {"test_families": ("smpl",)},
    "EHF": {"scans": _EHF_SCANS},
    "EHF (AiOS)": {"scans": _EHF_SCANS},
}
"""Properties of single datasets that are not in the table."""


def _read_table(path: Path) -> dict[str, Source]:
    """The rows of sources.csv by their names; docs/datasets.md explains its columns."""
    with path.open(encoding="utf-8", newline="") as file:
        sources = [_source(**row) for row in csv.DictReader(file)]
    return {source.name: source for source in sources}


def _source(
    name: str, images: str, image_size: str, properties: str, fixes: str, **row: str
) -> Source:
    width, _, height = image_size.partition("x")
    more: dict[str, Any] = dict.fromkeys(properties.split(), True) | _MORE.get(name, {})
    return Source(
        name=name,
        train=_files(row["train"]),
        test=_files(row["test"]),
        images=images.removeprefix("."),
        image_size=(int(width), int(height)) if image_size else None,
        train_interval=int(row["train_interval"] or 1),
        test_interval=int(row["test_interval"] or 1),
        fixes=tuple(_FIXES[fix] for fix in fixes.split()),
        **more,
    )


def _files(cell: str) -> tuple[str, ...] | None:
    """File names, separated by spaces; part{1..3}.npz stands for three names. None: no file."""
    names: list[str] = []
    for name in cell.split():
        slices = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", name)
        if slices is None:
            names.append(name)
        else:
            before, first, last, behind = slices.groups()
            names += [f"{before}{i}{behind}" for i in range(int(first), int(last) + 1)]
    return tuple(names) or None


SOURCES: Final = _read_table(Path(__file__).with_name("sources.csv"))


def find_source(name: str, config: DataConfig) -> Source:
    """The dataset of this name, with the files and intervals of the config.

    Raises:
        UserError: the name is neither in the table nor in `config.datasets`, or an entry there is
            incomplete.
    """
    entry = config.datasets.get(name)
    like = name if entry is None or entry.like is None else entry.like
    if like in SOURCES:
        source = SOURCES[like]._replace(name=name)
    elif entry is not None and entry.like is not None:
        raise UserError(
            f"data.datasets: '{name}' is like '{like}', which datasets/sources.csv lacks"
        )
    elif entry is None:
        known = [*SOURCES, *config.datasets]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        advice = f"did you mean '{near[0]}'?" if near else f"choose one of: {', '.join(known)}"
        raise UserError(f"unknown dataset '{name}'; {advice}")
    elif entry.images is None or (entry.train is None and entry.test is None):
        raise UserError(
            f"data.datasets: '{name}' needs 'images', and files as 'train' or 'test' or both"
        )
    else:
        source = Source(name, None, None, entry.images)
    changes = {} if entry is None else entry.model_dump(exclude_none=True, exclude={"like"})
    for split, intervals in (
        ("train", config.train_sample_interval),
        ("test", config.test_sample_interval),
    ):
        if name in intervals:
            changes[f"{split}_interval"] = intervals[name]
    return source._replace(**changes)


def source_of_file(path: Path) -> Source | None:
    """The dataset to which a file belongs by its name; None if none, or if it is ambiguous."""
    found = [
        source
        for source in SOURCES.values()
        if any(fnmatch(path.name, name) for name in (*(source.train or ()), *(source.test or ())))
    ]
    agree = len({source.flat_hands for source in found}) == 1
    return found[0] if agree else None


def assumed_flat_hands(path: Path) -> bool:
    """Whether hand poses of a file are relative to the flat hand, if the file does not say so."""
    source = source_of_file(path)
    return source is not None and source.flat_hands
