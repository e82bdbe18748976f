#!/bin/sh
# sh scripts/inference.sh MODEL_DIR FILE_NAME [FPS] [flags]      (--help lists all)
set -eu
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
sh "$root/scripts/install.sh"
# -P and PYTHONPATH: paths are relative to the current folder, but nothing is imported from it.
PYTHONPATH=$root exec "$root/.venv/bin/python" -P -m main.inference "$@"
