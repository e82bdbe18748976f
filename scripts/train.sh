#!/bin/sh
# bash scripts/train.sh JOB_NAME NUM_GPUS CONFIG_FILE [flags]      (--help lists the flags)
# NUM_GPUS: number of processes on this machine; they use CPUs if it has no GPUs.
# Several machines: run the same command on each, with NNODES and RDZV_ENDPOINT=host:port set.
set -eu
command=${TRAINING_COMMAND:-train}
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
sh "$root/scripts/install.sh"
# -P and PYTHONPATH: paths are relative to the current folder, but nothing is imported from it.
export PYTHONPATH="$root"
python=$root/.venv/bin/python
case "${1:-}" in
    "" | -h | --help) exec "$python" -P -m "main.$command" --help ;;
esac
[ $# -ge 3 ] || {
    echo "error: bash scripts/$command.sh JOB_NAME NUM_GPUS CONFIG_FILE [flags]" >&2; exit 2; }
job=$1 processes=$2 config=$3
shift 3
exec "$python" -P -m main.launch "$processes" "main.$command" "$job" "$config" "$@"
