#!/usr/bin/env bash
# What became of the stages of slurm/pipeline.sh, which submits this: NOTES STAGE...
#SBATCH --job-name=end
#SBATCH --output=slurm/logs/%x-%j.out
#SBATCH --time=00:05:00
set -euo pipefail

notes=$1
shift
failed='' waiting=''
for stage; do
    # Of an array every job has a note; one that failed speaks for all.
    told=$(cat "$notes/$stage".* 2>/dev/null | grep -v '^done$' | head -n 1) || true
    if compgen -G "$notes/$stage.*" >/dev/null; then
        echo "$stage: ${told:-done}"
        if [[ -n $told ]]; then failed=${failed:-$stage $told}; fi
    else
        echo "$stage: not run"
        waiting+=" $stage"
    fi
done
if [[ -n $failed$waiting ]]; then
    echo "pipeline: ${failed:-stages were cancelled}${waiting:+; not run:$waiting}" >&2
    exit 1
fi
echo "pipeline: all is done"
