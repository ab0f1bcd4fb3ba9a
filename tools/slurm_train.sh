#!/usr/bin/env bash
# Train on a slurm cluster:
#   GPUS=8 GPUS_PER_NODE=8 bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
set -euo pipefail
partition=${1:?partition}
job_name=${2:?job name}
config=${3:?config file}
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}
# shellcheck disable=SC2086  # SRUN_ARGS holds several arguments
exec srun -p "$partition" --job-name "$job_name" --gres "gpu:$gpus_per_node" --ntasks "$gpus" \
  --ntasks-per-node "$gpus_per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
  ${SRUN_ARGS:-} python -u "$(dirname "$0")/train.py" "$config" --launcher slurm "${@:4}"
