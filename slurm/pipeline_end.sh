#!/usr/bin/env bash
# Report the stages of slurm/pipeline.sh, which submits this: NOTES STAGE...
#SBATCH --job-name=end
#SBATCH --output=slurm/logs/%x-%j.out
#SBATCH --time=00:05:00
set -euo pipefail

notes=$1
shift
failed='' waiting=''
for stage; do
    # Every job of an array has a note; one failure fails the stage.
    failure=$(cat "$notes/$stage".* 2>/dev/null | grep -v '^done$' | head -n 1) || true
    if compgen -G "$notes/$stage.*" >/dev/null; then
        echo "$stage: ${failure:-done}"
        if [[ -n $failure ]]; then failed=${failed:-$stage $failure}; fi
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
