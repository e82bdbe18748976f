#!/bin/sh
# sh scripts/test.sh DATASET MODEL_DIR [CKPT_ID] [flags]      (--help lists all)
# NPROC=4 sh scripts/test.sh ...      divides the work among 4 processes, one GPU each
set -eu
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
sh "$root/scripts/install.sh"
# Paths are relative to the current folder, but nothing is imported from it.
export PYTHONSAFEPATH=1 PYTHONPATH="$root"
if [ "${NPROC:-1}" = 1 ]; then
    exec "$root/.venv/bin/python" -m main.test "$@"
fi
exec "$root/.venv/bin/python" -m main.launch "$NPROC" main.test "$@"
