"""Result files: one .npz a person and a summary, written whole or not at all.

Rows wait in one file on the disk, so that memory does not grow with the length of a video.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Int

from main.estimator import Person
from utils.files import atomic_path

# Name and shape of the columns that people of all frames have.
COLUMNS: Final = {
    "global_orient": (3,),
    "body_pose": (63,),
    "left_hand_pose": (45,),
    "right_hand_pose": (45,),
    "jaw_pose": (3,),
    "betas": (10,),
    "expression": (10,),
    "transl": (3,),
    "focal": (2,),
    "princpt": (2,),
    "box_xywh": (4,),
    "joints_3d_m": (137, 3),
    "joints_2d_px": (137, 2),
}
_ROW: Final = np.dtype(
    [("person", "<i4"), ("frame_index", "<i4"), ("score", "<f4")]
    + [(name, "<f4", shape) for name, shape in COLUMNS.items()]
)


class ResultWriter:
    """Collects rows and writes the files; see `open_results`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Without a name: it goes when it is closed, or with the process.
        self.rows = tempfile.TemporaryFile(dir=folder, suffix=".rows")  # noqa: SIM115
        self.count = 0

    def add(self, identity: int, frame_index: int, score: float, person: Person) -> None:
        row = np.zeros((), _ROW)
        row["person"], row["frame_index"], row["score"] = identity, frame_index, score
        for name in COLUMNS:
            row[name] = getattr(person, name)
        self.rows.write(row.tobytes())
        self.count += 1

    def finish(self, about: dict[str, Any], image_size: tuple[int, int], fps: float) -> None:
        """Write person_001.npz, ... and summary.json.

        Args:
            about: what the summary tells beside the people; `body_model` goes into every file.
            image_size: width and height in pixels.
        """
        self.rows.flush()
        rows = np.memmap(self.rows, _ROW, mode="r", shape=(self.count,)) if self.count else None
        people = []
        for identity, mine in self._by_person(rows):
            assert rows is not None
            columns = {name: rows[name][mine] for name in ("frame_index", "score", *COLUMNS)}
            name = f"person_{identity:03d}.npz"
            np.savez(
                self.folder / name,
                **columns,
                fps=np.float64(fps),
                image_size=np.array(image_size, np.int32),
                body_model=np.array(about["body_model"]),
                flat_hand_mean=np.bool_(False),
            )
            frames = columns["frame_index"]
            people.append(
                {
                    "person": identity,
                    "file": name,
                    "rows": len(frames),
                    "first_frame": int(frames[0]),
                    "last_frame": int(frames[-1]),
                    "mean_score": round(float(columns["score"].mean()), 4),
                }
            )
        summary = {**about, "fps": fps, "image_size": list(image_size), "people": people}
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        (self.folder / "summary.json").write_text(text, encoding="utf-8")

    def _by_person(self, rows: np.ndarray | None) -> Iterator[tuple[int, Int[np.ndarray, " T"]]]:
        if rows is None:
            return
        identities = np.array(rows["person"])
        for identity in np.unique(identities):
            yield int(identity), np.flatnonzero(identities == identity)


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
