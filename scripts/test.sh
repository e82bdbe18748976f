#!/bin/sh
# sh scripts/test.sh DATASET MODEL_DIR [CKPT_ID] [flags]      (--help tells all)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
sh "$root/scripts/install.sh"
# -P and PYTHONPATH: paths stay those of the caller's folder, and nothing there is imported.
PYTHONPATH=$root exec "$root/.venv/bin/python" -P -m main.test "$@"
