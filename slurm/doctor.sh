#!/usr/bin/env bash
# Check nodes before a long job: versions, GPUs, network, disks, shards, clocks:
#
#     sbatch --nodes=2 --gres=gpu:4 slurm/doctor.sh --shards data/gqa/shards/train --disk runs
#
# All flags are those of `hnc-ds doctor`. The log holds the table; its last line is the first failure.
#SBATCH --job-name=doctor
#SBATCH --output=slurm/logs/%x-%j.out
#SBATCH --cpus-per-gpu=8
#SBATCH --time=00:15:00

# shellcheck source=slurm/job.sh
source "${SLURM_SUBMIT_DIR:-.}/slurm/job.sh"

run_ranks doctor "$@"
