"""What tests of several folders share: programs that run in node and in a browser."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parents[1] / "web"


@pytest.fixture(scope="session")
def run_web():
    """Runs a script of tests/web with node; what it prints."""
    lacking = [
        name
        for name, there in (
            ("node 18 or newer", shutil.which("node")),
            ("tests/web/node_modules", (WEB / "node_modules" / "three").is_dir()),
            ("chromium", shutil.which("chromium") or os.environ.get("CHROMIUM")),
        )
        if not there
    ]
    if lacking:
        told = f"{', '.join(lacking)} missing: sh scripts/install_web.sh"
        if os.environ.get("REQUIRE_WEB") == "1":
            pytest.fail(told)
        pytest.skip(told)

    def run(script: str, *words: object) -> str:
        command = ["node", str(WEB / script), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=480)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
