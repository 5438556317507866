#!/usr/bin/env bash
# Look at nodes before they are given hours: versions, GPUs, network, disks, shards, clocks:
#
#     sbatch --nodes=2 --gres=gpu:4 slurm/doctor.sh --shards data/gqa/shards/train --disk runs
#
# All flags are those of `hnc-ds doctor`. The table is in the log; what is wrong is the last line.
#SBATCH --job-name=doctor
#SBATCH --output=slurm/logs/%x-%j.out
#SBATCH --cpus-per-gpu=8
#SBATCH --time=00:15:00

# shellcheck source=slurm/job.sh
source "${SLURM_SUBMIT_DIR:-.}/slurm/job.sh"

run_ranks doctor "$@"
