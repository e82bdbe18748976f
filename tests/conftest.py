"""Fixtures that several folders of tests share."""

import fcntl
import gc
import importlib.util
import os
from collections.abc import Generator, Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import IO

import pytest
from beartype import BeartypeConf, FrozenDict, beartype
from jaxtyping import install_import_hook

# Shapes and types in signatures are checked at every call of every test. An int is a float, as
# everywhere in Python's typing, and members of archives are files though they say not so.
typechecked = beartype(
    conf=BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({IO[bytes]: object}))
)
install_import_hook(
    ["utils", "human_models", "open_body", "models", "datasets", "synthetic", "main"],
    f"{__name__}.typechecked",
)

# What is imported stays: looking for garbage among it takes a tenth of the time.
gc.disable()

PARITY = Path(__file__).parent / "parity"


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def open_body_read_once() -> Iterator[None]:
    """Unpack the open body once per process and not, as hundreds of tests would, each time.

    Every library gets modules of its own, which share the numbers until they are converted.
    """
    import torch

    from human_models import files
    from human_models.body import BodyLibrary, BodyModel

    kept: dict[tuple[object, ...], BodyModel] = {}
    read_model, read_arrays = BodyLibrary._model, files._read_arrays
    read_once = lru_cache(maxsize=4)(read_arrays)

    def arrays(source: Path) -> dict[str, object]:
        return dict((read_once if source.is_relative_to(files.STAND_IN) else read_arrays)(source))

    def model(library: BodyLibrary, rig: files.Rig, gender: files.Gender) -> BodyModel:
        if library.folder.path != files.STAND_IN or (rig, gender) in library._models:
            return read_model(library, rig, gender)
        key = (rig, gender)
        if key not in kept:
            with torch.inference_mode(False):
                kept[key] = read_model(BodyLibrary(library.folder), rig, gender)
        shared = {id(buffer): buffer for buffer in kept[key].buffers()}
        library._models[rig, gender] = deepcopy(kept[key], shared)
        return library._models[rig, gender]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_read_arrays", arrays)
        patch.setattr(BodyLibrary, "_model", model)
        yield


@pytest.fixture(scope="session")
def random_body_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Body models of the right sizes and no anatomy, those of the parity values (280 MB).

    The first process makes them, for all processes of a run.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "random_body"
    spec = importlib.util.spec_from_file_location(
        "make_random_body", PARITY / "make_random_body.py"
    )
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            script.main(folder.with_suffix(".partial"), seed=7)
            folder.with_suffix(".partial").rename(folder)
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape names that are no text in captured logs: pytest-xdist cannot pass them on."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
