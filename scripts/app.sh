#!/bin/sh
# bash scripts/app.sh [--port N] [--model MODEL_DIR] [flags]      (--help lists all)
# Installs what it needs, then prints the address to open in a browser.
set -eu
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
sh "$root/scripts/install.sh" --app
# -P and PYTHONPATH: paths are relative to the current folder, but nothing is imported from it.
PYTHONPATH=$root exec "$root/.venv/bin/python" -P -m main.serve "$@"
