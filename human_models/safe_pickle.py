"""Reading pickles and .npz files of others without running what they say.

Body models and HumanData annotations are published as pickles, or as .npz files that hold
pickled objects. A pickle is a program: whoever made the file chooses which functions Python's
own reader calls, and with which bytes NumPy fills its memory. Here a reader of our own
(human_models/pickles) knows a short list of values and makes them itself; anything else ends the
reading with a `UserError`. Objects that are only containers for arrays (chumpy, scipy.sparse)
become inert placeholders that keep their state, and the arrays are taken from it.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from human_models.pickles.archive import checked_members
from human_models.pickles.npy import read_content, read_npy
from human_models.pickles.values import Placeholder, UnknownNameError
from utils.errors import UserError, first_line
from utils.files import open_input

__all__ = ["Placeholder", "load_npy", "load_npz", "load_pickle"]

_DAMAGE: Final = (
    ValueError,
    TypeError,  # NumPy and SciPy, of arguments that do not fit together
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    NotImplementedError,  # zipfile, of features that it lacks
)
_MOST_CHARACTERS: Final = 120
"""Of what a message repeats from a file."""


def load_pickle(path: Path) -> object:
    """Read a pickle of Python 2 or 3 that holds arrays and plain values.

    chumpy objects become numpy arrays (those that hold no array stay `Placeholder`s), sparse
    matrices become `scipy.sparse.csr_matrix`, Python 2 strings are decoded as latin-1.

    Raises UserError where the file is missing, damaged, or asks for anything else to be loaded.
    """
    with _opened(path) as file:
        return read_content(file, _size(file), seekable=True)


def load_npz(path: Path, keys: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, all or those of `keys` that it has.

    Object arrays (dictionaries and lists that numpy pickles) are read by the same rules as
    `load_pickle` and come as object arrays, a single dictionary as one of shape ().

    Raises UserError where the file is missing, damaged, or asks for anything else to be loaded.
    """
    arrays = {}
    with _opened(path) as file, zipfile.ZipFile(file) as archive:
        for key, member in checked_members(archive).items():
            if keys is None or key in keys:
                with archive.open(member) as content:
                    arrays[key] = read_npy(content, member.file_size, seekable=False)
    return arrays


def load_npy(path: Path) -> np.ndarray:
    """Read an .npy file by the rules of `load_npz`."""
    with _opened(path) as file:
        return read_npy(file, _size(file), seekable=True)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file that a user named; all errors of reading it become a `UserError`."""
    try:
        with open_input(path) as file:
            yield file
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or first_line(error)}.") from error
    except UnknownNameError as error:
        raise UserError(
            f"{path}: refused to run '{_printable(str(error))}'; the file is not a body model or "
            "annotation as published, get it from its official page."
        ) from error
    except _DAMAGE as error:
        reason = _printable(first_line(error))
        if isinstance(error, LookupError | struct.error):  # a stack, memo or text that is too short
            reason = "it ends early or refers to what is not there"
        raise UserError(
            f"{path} is damaged or incomplete ({reason}); download or copy it again."
        ) from error


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _printable(text: str) -> str:
    text = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
    return "".join(character if character.isprintable() else "?" for character in text)
