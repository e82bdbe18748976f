"""docs/training.md tells every field of the section `train`; the SLURM script does its part."""

import os
import re
import stat
import subprocess
from pathlib import Path

from configs.train_section import TrainConfig

ROOT = Path(__file__).parents[3]


def test_every_field_is_in_the_table_with_its_default():
    text = (ROOT / "docs" / "training.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", text, flags=re.MULTILINE))
    fields = {name: repr(field.default) for name, field in TrainConfig.model_fields.items()}
    assert rows == fields


def test_slurm_script_starts_a_launcher_on_each_machine_and_requeues(tmp_path):
    """With stand-ins of SLURM's commands; the run was ended by a signal."""
    commands = {
        "scontrol": 'echo "scontrol $*" >> told; [ "$1" = requeue ] || printf "node7\\nnode8\\n"',
        "srun": 'echo "$NNODES $RDZV_ENDPOINT $RDZV_ID $MAX_RESTARTS $*" >> told; exit 143',
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
    show, started, requeue = (tmp_path / "told").read_text().splitlines()
    assert show == "scontrol show hostnames node[7-8]"
    assert started.startswith(
        "2 node7:20123 123 3 --kill-on-bad-exit=0 sh scripts/train.sh mine 4 "
    )
    assert started.endswith("--set train.continue_train=True --set train.lr=1")
    assert requeue == "scontrol requeue 123"
