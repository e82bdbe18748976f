"""Writing of results: one .npz per person and a summary, whose formats `result_reader` defines."""

import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Int

from main.motion.camera import Clip
from main.motion.rows import (
    BLOCK,
    COLUMNS,
    FLAGS,
    KEYPOINT_COLUMNS,
    RAW_COLUMNS,
    WORLD_COLUMNS,
    FinalRows,
    WorldRows,
)
from main.motion.world import World
from utils.errors import UserError

FILE_COLUMNS: Final = ("frame_index", "score", *COLUMNS, *RAW_COLUMNS, *FLAGS)
"""Columns of every file, with one row per frame."""


def choose_people(
    rows: FinalRows, person: Sequence[int] | Literal["largest"] | None, keep_longest: int | None
) -> Collection[int]:
    """The numbers of the requested people.

    Args:
        person: numbers; "largest": the person whose boxes have the largest total area; None: all.
        keep_longest: number of people to keep, those with the most frames; None: all.

    Raises:
        UserError: there is no person with a requested number.
    """
    people = rows.by_identity()
    if person == "largest":
        sides = rows.column("box_xywh", slice(2, 4))
        area = {
            one: float(np.prod(sides[mine], axis=1, dtype=np.float64).sum())
            for one, mine in people.items()
        }
        people = {(one := max(area, key=lambda key: area[key])): people[one]}
    elif person is not None:
        absent = sorted(set(person) - people.keys())
        if absent:
            there = ", ".join(map(str, list(people)[:20]))
            raise UserError(f"--person {absent[0]}: nobody has this number; there are {there}")
        people = {one: people[one] for one in person}
    longest = sorted(people, key=lambda one: (-len(people[one]), one))
    return set(longest[:keep_longest])


def write_results(
    folder: Path,
    rows: FinalRows,
    clip: Clip,
    about: Mapping[str, Any],
    *,
    chosen: Collection[int],
    world: tuple[World, WorldRows] | None = None,
    with_keypoints: bool = False,
) -> None:
    """Write person_001.npz, ... and summary.json.

    Args:
        about: entries of the summary besides the people; `body_model` goes into every file.
        chosen: people to write.
        world: description for the summary, and rows for the files.
        with_keypoints: whether keypoints were searched for and are written.
    """
    constants: dict[str, np.ndarray] = {
        "fps": np.array(clip.fps, np.float64),
        "image_size": np.array(clip.image_size, np.int32),
        "body_model": np.array(about["body_model"]),
        "flat_hand_mean": np.array(False),
    }
    if world is not None:
        about = {**about, "world": world[0].describe()}
    people = []
    for identity, mine in rows.by_identity().items():
        if identity not in chosen:
            continue
        name = f"person_{identity:03d}.npz"
        with zipfile.ZipFile(folder / name, "w") as archive:
            for column in (*FILE_COLUMNS, *(KEYPOINT_COLUMNS if with_keypoints else ())):
                _write_column(archive, column, rows, mine)
            if world is not None:
                for column in (*WORLD_COLUMNS, "foot_contact"):
                    _write_column(archive, column, world[1], mine)
            for entry, value in constants.items():
                _write_array(archive, entry, value)
        people.append(_about_person(identity, name, rows, mine))
    summary = {**about, "fps": clip.fps, "image_size": list(clip.image_size), "people": people}
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    (folder / "summary.json").write_text(text, encoding="utf-8")


def _write_column(
    archive: zipfile.ZipFile,
    column: str,
    rows: FinalRows | WorldRows,
    mine: Int[np.ndarray, " T"],
) -> None:
    """Write one array in blocks, so that memory does not grow with the length of a video."""
    kind = rows.row_type[column]
    header = {
        "descr": np.lib.format.dtype_to_descr(kind.base),
        "fortran_order": False,
        "shape": (len(mine), *kind.shape),
    }
    with archive.open(f"{column}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(mine), BLOCK):
            file.write(rows.take(mine[start : start + BLOCK], column).tobytes())


def _write_array(archive: zipfile.ZipFile, name: str, values: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w") as file:
        np.lib.format.write_array(file, values, allow_pickle=False)


def _about_person(
    identity: int, name: str, rows: FinalRows, mine: Int[np.ndarray, " T"]
) -> dict[str, Any]:
    frames, estimated = rows.take(mine, "frame_index"), ~rows.take(mine, "interpolated")
    return {
        "person": identity,
        "file": name,
        "rows": len(mine),
        "interpolated": int((~estimated).sum()),
        "first_frame": int(frames[0]),
        "last_frame": int(frames[-1]),
        "mean_score": round(float(rows.take(mine, "score")[estimated].mean()), 4),
    }
