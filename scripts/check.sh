#!/bin/sh
# Everything that must hold: lint, types, tests. Installs what it needs; arguments go to pytest.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
sh scripts/install.sh --dev
sh scripts/install_web.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Each worker computes with one thread: threads of several would wait for each other.
OMP_NUM_THREADS=1 exec .venv/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile "$@"
