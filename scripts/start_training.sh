#!/bin/sh
# What scripts/train.sh and scripts/pretrain.sh do: sh scripts/start_training.sh train|pretrain ...
set -eu
door=$1
shift
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
sh "$root/scripts/install.sh"
# -P and PYTHONPATH: paths stay those of the caller's folder, and nothing there is imported.
export PYTHONPATH="$root"
python=$root/.venv/bin/python
case "${1:-}" in
    "" | -h | --help) exec "$python" -P -m "main.$door" --help ;;
esac
[ $# -ge 3 ] || { echo "error: bash scripts/$door.sh JOB_NAME NUM_GPUS CONFIG_FILE [flags]" >&2; exit 2; }
job=$1 processes=$2 config=$3
shift 3
exec "$python" -P -m main.launch "$processes" "main.$door" "$job" "$config" "$@"
