"""Fixtures that several folders of tests share."""

import importlib.util
from collections.abc import Generator
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
    ["utils", "human_models", "models", "datasets", "main"], f"{__name__}.typechecked"
)

PARITY = Path(__file__).parent / "parity"


@pytest.fixture(scope="session")
def random_body_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Body models of the right sizes and no anatomy, those of the parity values (280 MB)."""
    folder = tmp_path_factory.mktemp("random_body")
    spec = importlib.util.spec_from_file_location(
        "make_random_body", PARITY / "make_random_body.py"
    )
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(folder, seed=7)
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape names that are no text in captured logs: pytest-xdist cannot pass them on."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report
