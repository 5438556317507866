#!/usr/bin/env bash
# Train and evaluate every combination of a hyperparameter grid, and write one report:
#
#     hnc-ds grid slurm/grid.example.json                 # lists the combinations
#     sbatch --array=0-5 --gres=gpu:4 slurm/sweep.sh slurm/grid.example.json --val data/gqa/shards/val \
#         --out runs/sweep --deepspeed_config zero1_bf16 --shards data/gqa/shards/train ...
#
# The rest are flags of `hnc-ds train`, which a grid may vary, such as lr. The last job to finish
# writes the report. The same command resumes a stopped one.
#SBATCH --job-name=sweep
#SBATCH --output=slurm/logs/%x-%j.out
#SBATCH --open-mode=append
#SBATCH --cpus-per-gpu=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300

# shellcheck source=slurm/job.sh
source "${SLURM_SUBMIT_DIR:-.}/slurm/job.sh"

grid=$1 out=runs/sweep val='' deepspeed=() flags=()
shift
while (($#)); do
    case $1 in
        --out) out=$2 && shift ;;
        --val) val=$2 && shift ;;
        --deepspeed_config | --deepspeed-config) deepspeed=(--deepspeed_config "$2") && shift ;;
        *) flags+=("$1") ;;
    esac
    shift
done
[[ -n $val ]] || { say "no --val: the shards that all are measured on" && exit 2; }

# numbered N: trains and evaluates combination N.
numbered() {
    local words chosen run
    words=$(here grid "$grid" --out "$out" --number "$1" "${deepspeed[@]}")
    mapfile -t chosen <<<"$words"
    run=${chosen[1]} # after --run
    run_ranks train --resume "${flags[@]}" "${chosen[@]}"
    [[ -f $run/results/val.json ]] ||
        run_ranks evaluate "$run" --shards "$val" --out "$run/results/val.json"
}

# collate: write the report, once all results exist.
collate() {
    local run runs=()
    while read -r _ run; do
        [[ -f $run/results/val.json ]] || return 0
        runs+=("$run")
    done < <(here grid "$grid" --out "$out")
    run_one report "${runs[@]}" --out "$out/report.html"
}

if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    numbered "$SLURM_ARRAY_TASK_ID"
else
    for ((number = 0; number < $(here grid "$grid" --out "$out" | wc -l); number++)); do
        numbered "$number"
    done
fi
collate
