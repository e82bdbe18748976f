"""The entries of a HumanData file, read one by one and checked: wrong ones are named by row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from human_models.safe_pickle import load_npz, load_pickle
from utils.errors import UserError


class HumanDataFile:
    """The entries of an .npz or pickle; those of an .npz are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: Mapping[str, Any] | None = None
        if path.suffix in (".pkl", ".pickle"):
            content = load_pickle(path)
            if not isinstance(content, Mapping):
                raise UserError(f"{path} holds no dictionary; give a HumanData file.")
            self._entries = content

    def get(self, key: str) -> Any:
        """None where the file has no such entry, or an empty one."""
        entries = load_npz(self.path, {key}) if self._entries is None else self._entries
        value = entries.get(key)
        return value.item() if isinstance(value, np.ndarray) and value.shape == () else value

    def require(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise self.wrong(key, "missing; give a HumanData file")
        return value

    def dictionary(self, key: str) -> Mapping[str, Any]:
        value = self.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.wrong(key, f"is a {type(value).__name__}, not a dictionary")
        return value

    def wrong(self, key: str, reason: str, row: int | None = None) -> UserError:
        place = f"entry '{key}'" if row is None else f"entry '{key}', row {row}"
        return UserError(f"{self.path}: {place}: {reason}.")


def texts(file: HumanDataFile, key: str, value: Any, length: int | None) -> np.ndarray:
    """An array of `length` strings (None: of any length).

    Raises UserError where it is not, naming the row.
    """
    texts = np.asarray(value) if np.ndim(value) == 1 else np.asarray(None)
    if texts.ndim != 1:
        raise file.wrong(key, "is no list of strings")
    if texts.dtype.kind != "U":
        row = next((i for i, text in enumerate(value) if not isinstance(text, str)), None)
        if row is not None:
            raise file.wrong(key, f"{value[row]!r} is no string", row)
        texts = texts.astype(str)
    _check_length(file, key, texts, length)
    return texts


def numbers(file: HumanDataFile, key: str, value: Any, length: int) -> Float32[np.ndarray, "N ..."]:
    """An array of numbers of `length` rows. Raises UserError where it is not, naming the row."""
    try:
        array = np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise _uneven(file, key, value) from error
    if array.ndim == 0:
        raise file.wrong(key, "is one value, not a list")
    _check_length(file, key, array, length)
    return array


def _uneven(file: HumanDataFile, key: str, value: Any) -> UserError:
    """Which row of a list is no numbers, or other in shape than the first."""
    shape = None
    for row, item in enumerate(value):
        try:
            array = np.asarray(item, dtype=np.float32)
        except (ValueError, TypeError):
            return file.wrong(key, f"{str(item)[:40]!r} is no number", row)
        if shape is not None and array.shape != shape:
            return file.wrong(key, f"has shape {array.shape}, the rows before {shape}", row)
        shape = array.shape
    return file.wrong(key, "is no array of numbers")


def _check_length(file: HumanDataFile, key: str, column: np.ndarray, length: int | None) -> None:
    if length is not None and len(column) != length:
        short = len(column) if len(column) < length else None
        raise file.wrong(key, f"has {len(column)} rows, image_path has {length}", short)
