"""Files whose bytes depend on their content alone: same arrays, same file."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Float32

from utils.files import atomic_path

_TIMESTAMP: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows
_READABLE_BY_ALL: Final = 0o644 << 16
_UNIX: Final = 3
# Lengths are multiples of this (about a micrometre): files compress better, and last-bit
# differences between processors vanish.
LENGTH_STEP_M: Final = 2.0**-20


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """numpy.savez_compressed without the time of day in the file."""
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", _TIMESTAMP)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = _UNIX
            member.external_attr = _READABLE_BY_ALL
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(member, buffer.getvalue(), compresslevel=9)


def write_npy(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as partial:
        np.save(partial, array, allow_pickle=False)


def write_pickle(path: Path, content: Any) -> None:
    """Plain data only: arrays, sparse matrices, dicts.

    Protocol 3 is the oldest that stores bytes as they are; older ones smuggle them through a
    text codec, a call that careful readers refuse.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(pickle.dumps(content, protocol=3))


def rounded_lengths(lengths: Float[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Lengths in metres as float32, rounded to LENGTH_STEP_M (never -0)."""
    steps = np.round(np.asarray(lengths, np.float64) / LENGTH_STEP_M)
    return (steps * LENGTH_STEP_M + 0.0).astype(np.float32)
