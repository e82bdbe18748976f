"""Fuzzing of the readers of pickles and NumPy files: `python -m benchmarks.hostile_files`.

    python -m benchmarks.hostile_files [--count 20000] [--seed 0]

Small valid pickles, .npy and .npz files of all forms are changed at random and read in a separate
process, with at most 2 s of CPU and 1 GB for each. A file must be read, as values of known types,
or refused in one line; anything else (another error, a warning, an import, a new process, a crash,
too much time or memory) is printed, and the exit status is 1.
"""

import argparse
import io
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import scipy.sparse

from human_models.safe_pickle import Placeholder, load_npy, load_npz, load_pickle
from utils.errors import UserError

ROOT: Final = Path(__file__).resolve().parent.parent
CPU_SECONDS: Final = 2.0
MEMORY_BYTES: Final = 1 << 30
_READERS: Final[dict[str, Callable[[Path], object]]] = {
    ".pkl": load_pickle,
    ".npy": load_npy,
    ".npz": load_npz,
}
_FORBIDDEN_EVENTS: Final = ("import", "exec", "compile", "ctypes", "subprocess", "socket", "pickle")
_FORBIDDEN_OS_EVENTS: Final = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn")
_PLAIN: Final = (str, bytes, bytearray, int, float, type(None), set, frozenset, object)
_CHUMPY_PICKLE: Final = (
    b"(dS'v'\nccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\nc__builtin__\nobject\nNtR"
    b"(dS'x'\nF1.5\nsS'a'\n(lp1\nI3\nasbsS'w'\n(ichumpy.ch\nCh\n(dS'x'\nI1\nsbs."
)
_SPECIAL_BYTES: Final = (
    b"\xff" * 8,
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\0" * 8,
    b"O8",
    b"|O",
    b"V8",
)


class Case(NamedTuple):
    suffix: str
    content: bytes


class Outcome(NamedTuple):
    counts: Counter[str]
    """Number of files by "read", "refused" and "other"."""
    others: list[str]


def valid_files() -> list[Case]:
    """Small files of all forms that the project reads."""
    arrays: dict[str, Any] = {
        "floats": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        "texts": np.array(["one", "three"]),
        "flags": np.array([True, False]),
        "meta": np.array({"gender": ["male"] * 3, "height": (1, 2.5, None)}),
        "rows": np.array([{"a": 1}, [np.zeros(2)], "b"], dtype=object),
    }
    content = arrays | {
        "scalars": [np.float32(1.5), np.str_("a"), np.bool_(True)],
        "numbers": [1, 300, -70000, 2**70, 1.5, True],
        "bytes": [b"\xff\0", b""],
        "sets": [{1, "a"}, frozenset({2.5}), OrderedDict(a=1, b=[])],
        "shared": [arrays["floats"]] * 2,
        "sparse": scipy.sparse.random(3, 4, 0.5, "csc", random_state=0),
        "coo": scipy.sparse.random(3, 4, 0.5, "coo", random_state=0),
    }
    cases = [Case(".pkl", pickle.dumps(content, protocol)) for protocol in range(6)]
    cases += [Case(".pkl", _CHUMPY_PICKLE)]
    cases += [Case(".pkl", pickle.dumps(value, 2)) for value in content.values()]
    for array in arrays.values():
        buffer = io.BytesIO()
        np.save(buffer, array)
        cases.append(Case(".npy", buffer.getvalue()))
    for version in ((2, 0), (3, 0)):
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, arrays["floats"], version)
        cases.append(Case(".npy", buffer.getvalue()))
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **arrays)
        cases.append(Case(".npz", buffer.getvalue()))
    return cases


def hostile_file(valid: Sequence[Case], seed: int, index: int) -> Case:
    """A valid file with random changes, which depend only on `seed` and `index`."""
    chance = random.Random(seed * 1_000_003 + index)
    case = chance.choice(valid)
    donor = chance.choice(valid).content
    if case.suffix != ".npz" or chance.random() < 0.5:
        return Case(case.suffix, _changed(case.content, donor, chance))
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(case.content)) as old, zipfile.ZipFile(changed, "w") as new:
        victim = chance.choice(old.namelist())
        for info in old.infolist():
            content = old.read(info)
            if info.filename == victim:
                content = _changed(content, donor, chance)
            new.writestr(zipfile.ZipInfo(info.filename), content, info.compress_type)
    return Case(".npz", changed.getvalue())


def _changed(content: bytes, donor: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(changed) + 1)
        start = chance.randrange(len(donor))
        piece = donor[start : start + chance.choice((1, 2, 8, 40))]
        match chance.randrange(8):
            case 0:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 1 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 2:
                changed[at:at] = piece
            case 3:
                changed[at : at + len(piece)] = piece
            case 4:
                del changed[at : at + chance.choice((1, 2, 8))]
            case 5:
                special = chance.choice(_SPECIAL_BYTES)
                changed[at : at + len(special)] = special
            case 6:
                changed[at:at] = changed[at : at + chance.choice((1, 20, 200))] * chance.choice(
                    (1, 3, 50)
                )
            case _ if chance.random() < 0.2:
                del changed[at:]
    return bytes(changed)


def attack(count: int, seed: int) -> Outcome:
    """Read `count` hostile files in a process, which is restarted if it crashes."""
    counts: Counter[str] = Counter()
    others: list[str] = []
    begin = 0
    while begin < count:
        command = (sys.executable, "-m", "benchmarks.hostile_files", "--seed", str(seed))
        worker = subprocess.Popen(
            (*command, "--worker", str(begin), "--count", str(count)),
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": "0"},  # determines the order of sets
            stdout=subprocess.PIPE,
            text=True,
        )
        with worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                begin, kind, what = json.loads(line)
                counts[kind] += 1
                if kind == "other":
                    others.append(f"file {begin}: {what}")
                begin += 1
        if worker.returncode:
            counts["other"] += 1
            others.append(f"file {begin}: the process ended with status {worker.returncode}")
            begin += 1
    return Outcome(counts, others)


def _work(begin: int, count: int, seed: int) -> None:
    """Print a line of JSON for each file; exceeding the limits ends the process."""
    valid = valid_files()
    events: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {suffix: Path(folder, f"file{suffix}") for suffix in _READERS}
        for suffix, content in valid:  # imports all modules that are loaded on first use
            paths[suffix].write_bytes(content)
            for _ in _values(_READERS[suffix](paths[suffix])):
                pass
        sys.addaudithook(lambda event, _: events.append(event) if _is_forbidden(event) else None)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        for index in range(begin, count):
            suffix, content = hostile_file(valid, seed, index)
            paths[suffix].write_bytes(content)
            events.clear()
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            kind, what = _outcome(_READERS[suffix], paths[suffix])
            signal.setitimer(signal.ITIMER_PROF, 0)
            if events:
                kind, what = "other", f"events {sorted(set(events))}"
            print(json.dumps((index, kind, what)), flush=True)


def _is_forbidden(event: str) -> bool:
    return event.split(".")[0] in _FORBIDDEN_EVENTS or event.startswith(_FORBIDDEN_OS_EVENTS)


def _outcome(read: Callable[[Path], object], path: Path) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", DeprecationWarning)  # Python hides them
            for value in _values(read(path)):
                if isinstance(value, np.ndarray | np.generic):
                    value.tolist()
                elif isinstance(value, np.dtype):
                    str(value)
                elif type(value) not in _PLAIN and type(value).__name__ not in ("bool", "Name"):
                    return "other", f"a value of type {type(value)}"
    except UserError as error:
        message = str(error)
        if not message.isprintable() or len(message) > 500:
            return "other", f"a message of more than a line: {message[:500]!r}"
        if isinstance(error.__cause__, MemoryError):
            return "other", "more memory than allowed"
        return "refused", ""
    except BaseException as error:
        return "other", f"{type(error).__name__}: {str(error)[:200]}"
    return "read", ""


def _values(content: object) -> Iterator[object]:
    """All values in a content that are not lists, tuples or dictionaries, each once."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        elif isinstance(value, scipy.sparse.csr_matrix):
            yield value.toarray()
        elif isinstance(value, np.ndarray) and value.dtype.hasobject:
            waiting.extend(value.flat)
        elif not isinstance(value, Placeholder):
            yield value


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker is not None:
        _work(options.worker, options.count, options.seed)
        return 0
    counts, others = attack(options.count, options.seed)
    print(
        f"python -m benchmarks.hostile_files --count {options.count} --seed {options.seed}\n"
        f"{counts['read']} read, {counts['refused']} refused in one line, {counts['other']} other"
    )
    print(*others[:20], sep="\n", end="\n" if others else "")
    return 1 if others else 0


if __name__ == "__main__":
    sys.exit(main())
