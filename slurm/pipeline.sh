#!/usr/bin/env bash
# The whole experiment from scene graphs to a report; each stage is a job that waits for earlier ones:
#
#     cp slurm/pipeline.example.sh first.sh       # data, model, flags, GPUs: edit
#     bash slurm/pipeline.sh first.sh             # on a login node; submits all and returns
#
# captions -> pack -> train -> evaluate -> export -> answer and score -> report, for the reference
# model and the trained one. Without SLURM, or with HERE=1, the stages run here, one after the other.
# A failed stage cancels those that need it; the job `end` reports it. The same command resumes.
set -euo pipefail
if [[ ! -f slurm/job.sh || $# -lt 1 ]]; then
    echo "usage: bash slurm/pipeline.sh SETTINGS.sh, in the folder that holds slurm/" >&2
    exit 2
fi
source slurm/site.sh
# shellcheck source=slurm/pipeline.example.sh
source "$1"
export STAGE_NOTES=$OUT/stages
mkdir -p "$STAGE_NOTES" "$OUT/start/results"

HERE=${HERE:-}
type sbatch >/dev/null 2>&1 || HERE=1
declare -A job_of=()
stages=()

# stage NAME AFTER SCRIPT_AND_FLAGS...: AFTER holds names of stages, in one word.
stage() {
    local name=$1 after=$2 before ids=()
    shift 2
    stages+=("$name")
    if [[ $HERE ]]; then
        echo "pipeline: $name"
        while [[ $1 == --* ]]; do shift; done # for sbatch
        SLURM_JOB_NAME=$name bash "$@" || finish
        return
    fi
    for before in $after; do ids+=("${job_of[$before]}"); done
    job_of[$name]=$(sbatch --parsable --job-name="$name" --kill-on-invalid-dep=yes \
        ${after:+--dependency=afterok:$(IFS=: && echo "${ids[*]}")} "$@")
    echo "pipeline: $name is job ${job_of[$name]}${after:+, after $after}"
}

# finish: print the state of each stage, and exit with the status of all.
finish() { bash slurm/pipeline_end.sh "$STAGE_NOTES" "${stages[@]}" && exit 0 || exit 1; }

rm -f "$STAGE_NOTES"/*
for split in train val; do
    graphs=GRAPHS_$split
    captions=$OUT/$split.captions.jsonl.gz
    stage "captions-$split" "" "${ARRAY[@]}" slurm/generate.sh \
        --scene-graphs "${!graphs}" --out "$captions" "${GENERATE[@]}"
    stage "pack-$split" "captions-$split" "${ARRAY[@]}" slurm/pack.sh \
        --captions "$captions" --images "$IMAGES" --out "$OUT/shards/$split" "${PACK[@]}"
done
run=$OUT/run
stage train "pack-train" "${GPUS[@]}" slurm/train.sh --run "$run" --shards "$OUT/shards/train" \
    "${TRAIN[@]}"
measure=(--shards "$OUT/shards/val" "${EVALUATE[@]}")
stage evaluate-start "pack-val" "${GPUS[@]}" slurm/evaluate.sh "$START" --name start \
    --out "$OUT/start/results/clip.json" "${measure[@]}"
stage evaluate "train pack-val" "${GPUS[@]}" slurm/evaluate.sh "$run" \
    --out "$run/results/clip.json" "${measure[@]}"
last="evaluate-start evaluate"
if [[ -n $LLAVA ]]; then
    stage export "train" slurm/run.sh export "$run" --into "$LLAVA" --out "$OUT/llava" --overwrite
    stage answer-start "" "${GPUS[@]}" slurm/llava_infer.sh "$LLAVA" "${ASK[@]}" \
        --out "$OUT/answers/start" --annotations "$ANNOTATIONS" --results "$OUT/start/results/llava.json"
    stage answer "export" "${GPUS[@]}" slurm/llava_infer.sh "$OUT/llava" "${ASK[@]}" \
        --out "$OUT/answers/run" --annotations "$ANNOTATIONS" --results "$run/results/llava.json"
    stage compare "answer-start answer" slurm/run.sh compare \
        "$OUT/start/results/llava.json" "$run/results/llava.json" --out "$OUT/llava-compared.json"
    last+=" compare"
fi
stage report "$last" slurm/run.sh report "$OUT/start" "$run" --out "$OUT/report.html"

if [[ -z $HERE ]]; then
    all=$(IFS=: && echo "${job_of[*]}")
    id=$(sbatch --parsable --job-name=end --dependency="afterany:$all" slurm/pipeline_end.sh \
        "$STAGE_NOTES" "${stages[@]}")
    echo "pipeline: what became of all will be in slurm/logs/end-$id.out"
else
    finish
fi
