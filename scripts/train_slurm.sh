#!/bin/sh
# JOB_NAME=mine CONFIG=configs/config_smplest_x_h.py sbatch scripts/train_slurm.sh [flags]
# Submit it from the project's folder, which must be on storage that all machines share. Five minutes
# before its time limit, a job saves its state and queues itself again; it then continues from there.
#SBATCH --job-name=smplest_x
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm_%j.log
set -eu
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export NNODES="$SLURM_JOB_NUM_NODES" RDZV_ID="$SLURM_JOB_ID"
export RDZV_ENDPOINT="$first:$((20000 + SLURM_JOB_ID % 20000))"
export MAX_RESTARTS="${MAX_RESTARTS:-3}"
sh scripts/install.sh
status=0
# One launcher per machine, which starts one process per GPU. All of them receive the signal. A
# process that ends must not end the first one, which may still be writing.
srun --kill-on-bad-exit=0 sh scripts/train.sh "${JOB_NAME:-slurm}" "${SLURM_GPUS_ON_NODE:-8}" \
    "${CONFIG:-configs/config_smplest_x_h.py}" --set train.continue_train=True "$@" || status=$?
if [ "$status" = 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
