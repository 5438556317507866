#!/usr/bin/env bash
# Train on any number of nodes and GPUs, through preemption and time limits:
#
#     sbatch --nodes=2 --gres=gpu:4 slurm/train.sh --deepspeed_config zero1_bf16 \
#         --model ViT-B-32 --pretrained openai --shards data/gqa/shards/train --run runs/first
#
# All flags are those of `hnc-ds train`. The same command resumes the run of --run; the default is
# runs/NAME-JOB.
#SBATCH --job-name=train
#SBATCH --output=slurm/logs/%x-%j.out
#SBATCH --open-mode=append
# One core launches the work of a GPU, the others read and decode; hnc-ds doctor warns of too few.
#SBATCH --cpus-per-gpu=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300

# SLURM runs a copy of this file; the others are in the folder of submission.
# shellcheck source=slurm/job.sh
source "${SLURM_SUBMIT_DIR:-.}/slurm/job.sh"

# A requeued job must find its run.
[[ " $*" == *" --run"* ]] || set -- --run "runs/$JOB_NAME-${SLURM_JOB_ID:-here}" "$@"
run_ranks train --resume "$@"
