#!/usr/bin/env bash
# Pack images and captions into tar shards, in one job or an array of any size:
#
#     sbatch --array=0-7 slurm/pack.sh --captions data/gqa/train.captions.jsonl.gz \
#         --images gqa/images --out data/gqa/shards/train
#
# The jobs split the work; the last to finish writes the index, with the same bytes as one job.
#SBATCH --job-name=pack
#SBATCH --output=slurm/logs/%x-%j.out
#SBATCH --open-mode=append
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@60

# shellcheck source=slurm/job.sh
source "${SLURM_SUBMIT_DIR:-.}/slurm/job.sh"

read -ra part < <(array_part) || true
run_one pack --workers "$(cores)" "$@" "${part[@]}"
