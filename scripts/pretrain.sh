#!/bin/sh
# bash scripts/pretrain.sh JOB_NAME NUM_GPUS CONFIG_FILE [flags]      (used like scripts/train.sh)
set -eu
TRAINING_COMMAND=pretrain exec sh "$(dirname "$(readlink -f "$0")")/train.sh" "$@"
