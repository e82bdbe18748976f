#!/bin/sh
# bash scripts/pretrain.sh JOB_NAME NUM_GPUS CONFIG_FILE [flags]      (as scripts/train.sh)
set -eu
TRAINING_COMMAND=pretrain exec sh "$(dirname "$0")/train.sh" "$@"
