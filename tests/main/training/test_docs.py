"""The documentation names settings that exist; the SLURM script does its part."""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from configs.schema import Config

ROOT = Path(__file__).parents[3]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
SECTIONS = "|".join(Config.model_fields)
SETTING = re.compile(rf"(?:`|--set ['\"]?)((?:{SECTIONS})\.(?!npz|log|py|sh)\w[\w.]*)")


def is_setting(name: str) -> bool:
    """Whether the schema has this field; the keys of a dictionary are free."""
    section = Config
    for key in name.split("."):
        if key not in section.model_fields:
            return False
        annotation = section.model_fields[key].annotation
        nested = [
            one
            for one in (annotation, *get_args(annotation))
            if isinstance(one, type) and issubclass(one, BaseModel)
        ]
        if not nested or not isinstance(annotation, type):
            return True
        section = nested[0]
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_a_page_names_exist(page):
    named = SETTING.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not is_setting(name.rstrip("."))] == []


def test_training_page_points_to_the_list_of_fields():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert "(../configs/schema.py)" in text
    assert len(SETTING.findall(text)) > 20


def test_slurm_script_starts_a_launcher_on_each_machine_and_requeues(tmp_path):
    """With stand-ins of SLURM's commands; the run was ended by a signal."""
    commands = {
        "scontrol": 'echo "scontrol $*" >> calls; [ "$1" = requeue ] || printf "node7\\nnode8\\n"',
        "srun": 'echo "$NNODES $RDZV_ENDPOINT $RDZV_ID $MAX_RESTARTS $*" >> calls; exit 143',
    }
    for name, body in commands.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "123",
        "SLURM_GPUS_ON_NODE": "4",
        "JOB_NAME": "mine",
    }
    done = subprocess.run(
        ["sh", "scripts/train_slurm.sh", "--set", "train.lr=1"],
        cwd=ROOT,
        env=environment,
        check=False,
        timeout=60,
    )
    assert done.returncode == 143
    show, started, requeue = (tmp_path / "calls").read_text().splitlines()
    assert show == "scontrol show hostnames node[7-8]"
    assert started.startswith(
        "2 node7:20123 123 3 --kill-on-bad-exit=0 sh scripts/train.sh mine 4 "
    )
    assert started.endswith("--set train.continue_train=True --set train.lr=1")
    assert requeue == "scontrol requeue 123"
