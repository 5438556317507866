#!/usr/bin/env bash
# Evaluate models on held-out shards and released benchmarks, on all GPUs of the job:
#
#     sbatch --gres=gpu:4 slurm/evaluate.sh ViT-B-32:openai runs/first \
#         --shards data/gqa/shards/val --out results/
#
# All flags are those of `hnc-ds evaluate`. With --cache, a requeued job resumes.
#SBATCH --job-name=evaluate
#SBATCH --output=slurm/logs/%x-%j.out
#SBATCH --open-mode=append
#SBATCH --cpus-per-gpu=8
#SBATCH --time=08:00:00
#SBATCH --requeue

# shellcheck source=slurm/job.sh
source "${SLURM_SUBMIT_DIR:-.}/slurm/job.sh"

run_ranks evaluate "$@"
