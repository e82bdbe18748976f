#!/bin/sh
# sh scripts/inference.sh MODEL_DIR FILE_NAME [FPS] [flags]      (--help lists all)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
sh "$root/scripts/install.sh"
# -P and PYTHONPATH: paths stay those of the caller's folder, and nothing there is imported.
PYTHONPATH=$root exec "$root/.venv/bin/python" -P -m main.inference "$@"
