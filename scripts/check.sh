#!/bin/sh
# Everything that must hold: lint, types, tests. Installs what it needs; arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install.sh --dev
sh scripts/install_web.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest "$@"
