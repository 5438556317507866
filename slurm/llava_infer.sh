#!/usr/bin/env bash
# Answer a benchmark's questions with a LLaVA folder, on many GPUs or as an array, and score:
#
#     sbatch --nodes=2 --gres=gpu:4 slurm/llava_infer.sh llava-first --dataset vqav2 \
#         --questions Q.json --images val2014 --out answers/first \
#         --annotations A.json --results results/first/vqav2.json
#     sbatch --array=0-7 --gres=gpu:1 slurm/llava_infer.sh ...    # the same answers
#
# Flags are those of `hnc-ds answer`; --annotations and --results are for `hnc-ds score`, which
# the job that finds all questions answered runs. The same command resumes a stopped one.
#SBATCH --job-name=llava_infer
#SBATCH --output=slurm/logs/%x-%j.out
#SBATCH --open-mode=append
#SBATCH --cpus-per-gpu=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@60

# shellcheck source=slurm/job.sh
source "${SLURM_SUBMIT_DIR:-.}/slurm/job.sh"

answer=() score=() results='' out=''
while (($#)); do
    case $1 in
        --annotations | --choices) score+=("$1" "$2") && shift ;;
        --results) results=$2 && shift ;;
        --questions | --images | --dataset)
            answer+=("$1" "$2") && score+=("$1" "$2") && shift ;;
        --out) out=$2 && answer+=("$1" "$2") && shift ;;
        *) answer+=("$1") ;;
    esac
    shift
done
read -ra part < <(array_part) || true
run_ranks answer "${answer[@]}" "${part[@]}"
if [[ -n $results && -f $out/answers.jsonl ]]; then
    run_one score "${score[@]}" --answers "$out/answers.jsonl" --out "$results"
fi
