#!/bin/sh
# bash scripts/train.sh JOB_NAME NUM_GPUS CONFIG_FILE [flags]      (--help tells the flags)
# NUM_GPUS: processes on this machine; on one without GPUs so many CPU processes.
# Several machines: the same line on each, with NNODES, NODE_RANK and RDZV_ENDPOINT=host:port.
set -eu
exec sh "$(dirname "$(readlink -f "$0")")/start_training.sh" train "$@"
