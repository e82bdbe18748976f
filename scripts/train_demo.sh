#!/bin/sh
# bash scripts/train_demo.sh [--minutes N] [--from MODEL_DIR] [flags]      (--help lists all)
# Trains the demo network from nothing: draws people, trains all stages, evaluates, writes weights.
# The same command continues a run that was stopped.
set -eu
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
sh "$root/scripts/install.sh"
# As in main.launch: on CPUs, glibc would spend a quarter of a step on returning memory that the
# next step needs.
export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_-0}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_-1099511627776}"
PYTHONPATH=$root exec "$root/.venv/bin/python" -P -m main.recipe "$@"
