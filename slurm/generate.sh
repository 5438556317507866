#!/usr/bin/env bash
# Generate captions and hard negatives from scene graphs, in one job or an array of any size:
#
#     sbatch --array=0-7 slurm/generate.sh --scene-graphs gqa/train_sceneGraphs.json \
#         --out data/gqa/train.captions.jsonl.gz
#
# The jobs split the work; the last to finish writes the file, with the same bytes as one job.
#SBATCH --job-name=generate
#SBATCH --output=slurm/logs/%x-%j.out
#SBATCH --open-mode=append
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@60

# shellcheck source=slurm/job.sh
source "${SLURM_SUBMIT_DIR:-.}/slurm/job.sh"

read -ra part < <(array_part) || true
run_one generate --workers "$(cores)" "$@" "${part[@]}"
