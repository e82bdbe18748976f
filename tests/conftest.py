"""Fixtures that several folders of tests share."""

import importlib.util
from pathlib import Path

import pytest

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
