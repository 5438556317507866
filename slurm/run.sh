#!/usr/bin/env bash
# Any command of hnc-ds as a job of one task:
#
#     sbatch slurm/run.sh report runs/plain-clip runs/first --out report.html
#     sbatch --gres=gpu:1 slurm/run.sh export runs/first --into llava-1.5-7b-hf --out llava-first
#SBATCH --job-name=run
#SBATCH --output=slurm/logs/%x-%j.out
#SBATCH --open-mode=append
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue

# shellcheck source=slurm/job.sh
source "${SLURM_SUBMIT_DIR:-.}/slurm/job.sh"

run_one "$@"
