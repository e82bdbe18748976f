"""Result files: one .npz a person and a summary, written whole or not at all.

`main.result_schema` says what stands in them, and `main.result_files` reads them.
"""

import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int

from main.estimator import Person
from main.tracks.rows import COLUMNS as COLUMNS
from main.tracks.rows import FLAGS, RAW_COLUMNS, RowFile, blocks, give_back, people_of, row_of
from utils.files import atomic_path

FILE_COLUMNS: Final = ("frame_index", "score", *COLUMNS, *RAW_COLUMNS, *FLAGS)
"""What every file has a row of for each frame."""


class ResultWriter:
    """Collects rows and writes the files; see `open_results`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = RowFile(folder)

    @property
    def count(self) -> int:
        return self.rows.count

    def add(self, identity: int, frame_index: int, score: float, person: Person) -> None:
        self.rows.append(row_of(identity, frame_index, score, person))

    def finish(
        self,
        about: Mapping[str, Any],
        image_size: tuple[int, int],
        fps: float,
        *,
        chosen: Collection[int] | None = None,
        extra: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write person_001.npz, ... and summary.json.

        Args:
            about: what the summary tells beside the people; `body_model` goes into every file.
            image_size: width and height in pixels.
            chosen: people to write; None: everyone.
            extra: further entries of every file; with `world_from_camera` in it, the contacts of
                the feet are written, too.
        """
        rows = self.rows.view()
        constants: dict[str, np.ndarray] = {
            "fps": np.array(fps, np.float64),
            "image_size": np.array(image_size, np.int32),
            "body_model": np.array(about["body_model"]),
            "flat_hand_mean": np.array(False),
            **(extra or {}),
        }
        contacts = ("foot_contact",) if "world_from_camera" in constants else ()
        people = []
        for identity, mine in people_of(rows).items():
            if chosen is not None and identity not in chosen:
                continue
            name = f"person_{identity:03d}.npz"
            with zipfile.ZipFile(self.folder / name, "w") as archive:
                for column in (*FILE_COLUMNS, *contacts):
                    _write_column(archive, column, rows, mine)
                for entry, value in constants.items():
                    with archive.open(f"{entry}.npy", "w") as file:
                        np.lib.format.write_array(file, value, allow_pickle=False)
            people.append(_about_person(identity, name, rows, mine))
            give_back(rows)
        summary = {**about, "fps": fps, "image_size": list(image_size), "people": people}
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        (self.folder / "summary.json").write_text(text, encoding="utf-8")


def _write_column(
    archive: zipfile.ZipFile, column: str, rows: np.ndarray, mine: Int[np.ndarray, " T"]
) -> None:
    """One array, block after block: a person of a long video is never in memory as a whole."""
    kind, inner = rows.dtype[column].base, rows.dtype[column].shape
    header = {
        "descr": np.lib.format.dtype_to_descr(kind),
        "fortran_order": False,
        "shape": (len(mine), *inner),
    }
    with archive.open(f"{column}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks(mine):
            file.write(np.ascontiguousarray(rows[column][mine[block]]).tobytes())
            give_back(rows)


def _about_person(
    identity: int, name: str, rows: np.ndarray, mine: Int[np.ndarray, " T"]
) -> dict[str, Any]:
    frames, estimated = rows["frame_index"][mine], ~rows["interpolated"][mine]
    return {
        "person": identity,
        "file": name,
        "rows": len(mine),
        "interpolated": int((~estimated).sum()),
        "first_frame": int(frames[0]),
        "last_frame": int(frames[-1]),
        "mean_score": round(float(rows["score"][mine][estimated].mean()), 4),
    }


@contextmanager
def open_results(folder: Path) -> Iterator[ResultWriter]:
    """A writer whose files appear as `folder` when the block ends well, and not at all else."""
    with atomic_path(folder) as partial:
        partial.mkdir()
        writer = ResultWriter(partial)
        try:
            yield writer
        finally:
            writer.rows.close()
