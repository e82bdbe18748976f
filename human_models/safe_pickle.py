"""Reading pickles and .npz files of others without running what they say.

Body models and HumanData annotations are published as pickles, or as .npz files that hold
pickled objects. A pickle is a program: whoever made the file chooses which functions the reader
calls. Here it may name a short list of array types and nothing else; any other name ends the
reading with a `UserError`. Classes that are only containers for arrays (chumpy, scipy.sparse)
are not even imported: inert placeholders keep their state, and the arrays are taken from it.
"""

import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import scipy.sparse

from utils.errors import UserError


class Placeholder:
    """Stands for an object of a class that is not loaded; `state` is what was pickled of it."""

    class_name = ""
    state: object = None

    def __new__(cls, *_: object) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        """Take the arguments of any constructor and do nothing with them."""

    def __setstate__(self, state: object) -> None:
        self.state = state

    def fields(self) -> dict[str, Any]:
        return self.state if isinstance(self.state, dict) else {}


def load_pickle(path: Path) -> object:
    """Read a pickle of Python 2 or 3 that holds arrays and plain values.

    chumpy objects become numpy arrays (those that hold no array stay `Placeholder`s), sparse
    matrices become `scipy.sparse.csr_matrix`, Python 2 strings are decoded as latin-1.

    Raises UserError where the file is missing, damaged, or asks for anything else to be loaded.
    """
    try:
        with path.open("rb") as file:
            return _unpickle(file, path)
    except OSError as error:
        raise _unreadable(path, error) from error


def load_npz(path: Path, keys: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, all or those of `keys` that it has.

    Object arrays (dictionaries and lists that numpy pickles) are read by the same rules as
    `load_pickle` and come as object arrays, a single dictionary as one of shape ().

    Raises UserError where the file is missing, damaged, or asks for anything else to be loaded.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                key = member.removesuffix(".npy")
                if keys is None or key in keys:
                    with archive.open(member) as file:
                        arrays[key] = _read_npy(file, path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise _damaged(path, error) from error
    return arrays


def load_npy(path: Path) -> np.ndarray:
    """Read an .npy file by the rules of `load_npz`."""
    try:
        with path.open("rb") as file:
            return _read_npy(file, path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _read_npy(file: IO[bytes], path: Path) -> np.ndarray:
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(np.lib.format.read_magic(file))
    if read_header is not None:  # else it is of the layout for special names of fields
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            array = _unpickle(file, path)
            if not isinstance(array, np.ndarray) or array.shape != shape:
                raise ValueError("an object array differs from its header")
            return array
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _unpickle(file: IO[bytes], path: Path) -> object:
    unpickler = _AllowListUnpickler(file, path)
    try:
        content = unpickler.load()
        return _plain(content) if unpickler.met_placeholder else content
    except _DAMAGE as error:
        raise _damaged(path, error) from error


# What a truncated, damaged or ill-meant stream makes the unpickler and numpy raise.
_DAMAGE: Final = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ImportError,
    OverflowError,
    MemoryError,
    RecursionError,
    AssertionError,
    SystemError,  # NumPy, of a dtype whose state is nonsense
    struct.error,
)


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"Cannot read {path}: {error.strerror or error}.")


def _damaged(path: Path, error: BaseException) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{path} is damaged or incomplete ({reason}); download or copy it again.")


def _latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    """Python 3 writes bytes into old pickles as a call of `_codecs.encode`."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes written by way of {encoding!r}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _reconstruct_object(cls: type, base: type, state: object) -> object:
    """Pickle's oldest way to make an object without calling its class."""
    if not (isinstance(cls, type) and issubclass(cls, Placeholder) and base is object):
        raise ValueError("an object of an unexpected class")
    placeholder = cls()
    placeholder.state = state
    return placeholder


def _maker(value: np.ndarray | np.generic, protocol: int) -> Callable[..., object]:
    """The function by which numpy's own pickles make such a value; its home differs by version."""
    reduced = value.__reduce_ex__(protocol)
    assert isinstance(reduced, tuple)
    return reduced[0]


_ALLOWED: Final[dict[tuple[str, str], Callable[..., object]]] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.{module}", name): function
        for core in ("core", "_core")
        for module, name, function in (
            ("multiarray", "_reconstruct", _maker(np.empty(0), 2)),
            ("multiarray", "scalar", _maker(np.float64(0), 2)),
            ("numeric", "_frombuffer", _maker(np.empty(0), 5)),
        )
    },
    ("_codecs", "encode"): _latin1_bytes,
    ("collections", "OrderedDict"): OrderedDict,
    **{
        (builtins, name): value
        for builtins in ("__builtin__", "builtins")
        for name, value in (
            ("object", object),
            ("set", set),
            ("frozenset", frozenset),
            ("bytes", _empty_bytes),
        )
    },
    ("copy_reg", "_reconstructor"): _reconstruct_object,
    ("copyreg", "_reconstructor"): _reconstruct_object,
}
_SPARSE: Final = {
    (f"scipy.sparse.{underscore}{layout}", f"{layout}_{kind}")
    for underscore in ("", "_")
    for layout in ("csc", "csr", "coo")
    for kind in ("matrix", "array")
}


class _AllowListUnpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path
        self.met_placeholder = False

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if (module, name) in _SPARSE or (module.split(".")[0] == "chumpy" and name.isidentifier()):
            self.met_placeholder = True
            return type("Placeholder", (Placeholder,), {"class_name": f"{module}.{name}"})
        raise UserError(
            f"{self.path}: refused to run '{module}.{name}'; the file is not a body model or "
            "annotation as published, get it from its official page."
        )


def _plain(content: object) -> object:
    """The same content with arrays and matrices in place of the placeholders that hold them."""
    if isinstance(content, Placeholder):
        return _sparse_matrix(content) if "sparse" in content.class_name else _chumpy(content)
    if isinstance(content, dict):
        return type(content)((_plain(key), _plain(value)) for key, value in content.items())
    if isinstance(content, list | tuple):
        return type(content)(_plain(item) for item in content)
    if isinstance(content, np.ndarray) and content.dtype.hasobject:
        plain = np.empty(content.shape, dtype=object)
        for index in np.ndindex(content.shape):
            plain[index] = _plain(content[index])
        return plain
    return content


def _chumpy(placeholder: Placeholder) -> object:
    """The array of a chumpy variable, or of a selection from one; other expressions stay."""
    fields = placeholder.fields()
    if "x" in fields:
        return _plain(fields["x"])
    if "a" in fields and "idxs" in fields:
        chosen = np.ravel(_array(fields["a"]))[np.asarray(fields["idxs"])]
        return chosen.reshape(fields["preferred_shape"]) if "preferred_shape" in fields else chosen
    return placeholder


def _array(content: object) -> np.ndarray:
    array = _plain(content)
    if not isinstance(array, np.ndarray):
        raise TypeError("a chumpy expression that selects from something other than an array")
    return array


def _sparse_matrix(placeholder: Placeholder) -> scipy.sparse.csr_matrix:
    """A sparse matrix of any layout, built anew so that wrong indices are found, not followed."""
    fields = placeholder.fields()
    shape = fields.get("_shape", fields.get("shape"))
    data = np.asarray(fields["data"])
    layout = placeholder.class_name.rpartition(".")[2][:3]
    if layout == "coo":
        rows, columns = fields["coords"] if "coords" in fields else (fields["row"], fields["col"])
    else:
        starts = np.asarray(fields["indptr"])
        major = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        minor = np.asarray(fields["indices"])
        rows, columns = (major, minor) if layout == "csr" else (minor, major)
    return scipy.sparse.coo_matrix((data, (rows, columns)), shape=shape).tocsr()
