"""The scripts on other people's machines: environments that broke, settings of pip, links."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
COMMAND = "import sys; sys.stdout.write(' '.join([sys.prefix, *sys.argv[1:]]))"


@pytest.fixture
def project(tmp_path):
    """The scripts and a command, in a project that requires nothing."""
    folder = tmp_path / "a project"
    shutil.copytree(SCRIPTS, folder / "scripts")
    for name in ("requirements.txt", "requirements-files.txt"):
        (folder / name).touch()
    (folder / "main").mkdir()
    for name in ("__init__.py", "inference.py", "launch.py", "test.py"):
        (folder / "main" / name).write_text("" if name[0] == "_" else COMMAND)
    return folder


def run(script, *arguments, **environment):
    done = subprocess.run(
        ["sh", script, *arguments],
        cwd="/",
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("installed", [True, False])
def test_environment_whose_python_has_gone_is_made_anew(project, tmp_path, installed):
    config = tmp_path / "pip.conf"
    config.write_text("[install]\nuser = true\n")
    (project / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "python3"):
        (project / ".venv" / "bin" / name).symlink_to(tmp_path / "removed" / "python3")
    if installed:
        found = subprocess.run(
            "cat requirements*.txt | cksum",
            shell=True,
            cwd=project,
            capture_output=True,
            check=True,
        )
        (project / ".venv" / ".installed").write_text(f"{found.stdout.decode().strip()} 0\n")
    script = project / "scripts" / "inference.sh"
    assert run(script, "model", PIP_CONFIG_FILE=str(config)) == f"{project / '.venv'} model"
    before = (project / ".venv" / "pyvenv.cfg").stat().st_mtime_ns
    run(script)
    assert (project / ".venv" / "pyvenv.cfg").stat().st_mtime_ns == before


def test_scripts_are_called_through_links(project, tmp_path):
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "python").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8"
    )
    (project / ".venv" / "bin" / "python").chmod(0o755)
    (tmp_path / "bin").mkdir()
    called = {"inference": "clip.mp4", "test": "EHF", "train": "main.train", "pretrain": "pretrain"}
    for name, shown in called.items():
        first, second = tmp_path / "bin" / name, tmp_path / "bin" / f"{name}-too"
        first.symlink_to(Path("..") / project.name / "scripts" / f"{name}.sh")
        second.symlink_to(first.name)
        assert shown in run(second, *(("job", "1", "c.py") if "train" in name else (shown,)))
