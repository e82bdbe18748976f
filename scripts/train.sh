#!/bin/sh
# bash scripts/train.sh JOB_NAME NUM_GPUS CONFIG_FILE [flags]      (--help lists the flags)
# NUM_GPUS: processes on this machine; on one without GPUs, as many CPU processes.
# Several machines: the same line on each, with NNODES, NODE_RANK and RDZV_ENDPOINT=host:port.
set -eu
command=${TRAINING_COMMAND:-train}
root=$(cd "$(dirname "$0")/.." && pwd)
sh "$root/scripts/install.sh"
# -P and PYTHONPATH: paths stay those of the caller's folder, and nothing there is imported.
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
