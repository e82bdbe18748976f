#!/bin/sh
# Runs lint, type checks and all tests. Installs what it needs; arguments are passed to pytest.
set -eu
cd "$(dirname "$(readlink -f "$0")")/.."
sh scripts/install.sh --dev
sh scripts/install_web.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# One thread per test worker: the threads of several workers would slow each other down.
OMP_NUM_THREADS=1 exec .venv/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile "$@"
