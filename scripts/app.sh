#!/bin/sh
# bash scripts/app.sh [--port N] [--model MODEL_DIR] [flags]      (--help lists all)
# Installs what it needs, then shows the address to open in a browser.
set -eu
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
sh "$root/scripts/install.sh" --app
# -P and PYTHONPATH: paths stay those of the caller's folder, and nothing there is imported.
PYTHONPATH=$root exec "$root/.venv/bin/python" -P -m main.serve "$@"
