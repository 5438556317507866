# shellcheck shell=bash
# Functions of the scripts in this folder: tasks, preemption, and the last line of a failed job.
# Sourced in the folder that the job was submitted from.
set -euo pipefail

SLURM_SCRIPTS=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=slurm/site.sh
source "$SLURM_SCRIPTS/site.sh"

MOST_RESTARTS=${MOST_RESTARTS:-100}
JOB_NAME=${SLURM_JOB_NAME:-$(basename "$0")}
LOGS=slurm/logs/$JOB_NAME-${SLURM_JOB_ID:-}

STOPPING='' # USR1 or TERM, once received
if [[ -n ${SLURM_JOB_ID:-} ]]; then
    trap 'STOPPING=USR1; scancel --signal=USR1 "$SLURM_JOB_ID"' USR1
    trap 'STOPPING=${STOPPING:-TERM}' TERM
fi

say() { echo "$JOB_NAME: $*" >&2; }

# run_ranks ARGUMENTS...: hnc-ds on all GPUs of the job, one task each; with --ntasks-per-node that
# many tasks on every node instead.
run_ranks() {
    local tasks=${SLURM_NTASKS_PER_NODE:-${SLURM_GPUS_ON_NODE:-1}}
    if [[ -z ${SLURM_JOB_ID:-} ]]; then
        run_here "$@"
    else
        run_tasks "$((tasks * SLURM_NNODES))" "$tasks" "$@"
    fi
}

# run_one ARGUMENTS...: hnc-ds in one task with all cores of its node.
run_one() {
    if [[ -z ${SLURM_JOB_ID:-} ]]; then
        here "$@"
    else
        run_tasks 1 1 "$@"
    fi
}

# here ARGUMENTS...: hnc-ds in the batch script itself, for short commands.
here() { "${IN_CONTAINER[@]}" hnc-ds "$@"; }

# Without SLURM: all GPUs of this machine, or TASKS processes.
run_here() {
    local gpus
    gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l) || gpus=0
    local tasks=${TASKS:-$((gpus > 0 ? gpus : 1))}
    if ((tasks == 1)); then
        here "$@"
    else
        "${IN_CONTAINER[@]}" deepspeed --num_gpus "$tasks" --module hnc_ds.cli "$@"
    fi
}

run_tasks() {
    local all=$1 on_node=$2
    shift 2
    mkdir -p "$LOGS"
    rm -f "$LOGS/ended"
    local cpus=$((SLURM_CPUS_ON_NODE / on_node))
    echo "$JOB_NAME: job $SLURM_JOB_ID, $all tasks on $SLURM_JOB_NODELIST," \
        "restart ${SLURM_RESTART_COUNT:-0}, $(date '+%F %T'); logs in $LOGS"
    # The job's own request would contradict this number of tasks.
    supervise env -u SLURM_CPUS_PER_GPU -u SLURM_CPUS_PER_TASK -u SLURM_NTASKS_PER_NODE \
        srun --label --kill-on-bad-exit=1 --nodes="$((all / on_node))" --ntasks="$all" \
        --ntasks-per-node="$on_node" --cpus-per-task="$((cpus > 0 ? cpus : 1))" \
        "${IN_CONTAINER[@]}" bash "$SLURM_SCRIPTS/rank.sh" "$LOGS" hnc-ds "$@"
}

# supervise SRUN...: wait for its end, and handle signals of SLURM meanwhile.
#
# Before the time limit and before preemption, SLURM sends USR1 to this shell alone
# (--signal=B:USR1@...). It is forwarded to the tasks, which save and stop, and the job is requeued.
# TERM means preemption or scancel; the tasks receive it too, save and stop, and SLURM requeues or
# cancels the job.
supervise() {
    local status pid
    [[ $STOPPING != USR1 ]] || requeue 138
    # In the background, as bash runs no trap while it waits for a foreground command.
    "$@" &
    pid=$!
    while :; do
        status=0
        wait "$pid" || status=$?
        kill -0 "$pid" 2>/dev/null || break # else a signal interrupted wait
    done
    if ((status > 128)); then
        status=0
        wait "$pid" || status=$? # interrupted by a signal: wait again
    fi
    if ((status == 0)); then
        return 0
    elif [[ $STOPPING == USR1 ]]; then
        requeue "$status"
    fi
    sleep 1 # tasks that fail together report together, rank 0 first
    local why
    why=$(cause)
    if [[ $STOPPING == TERM || (-z $why && -s $LOGS/ended) ]]; then
        say "stopped by SLURM, which ends the job now or queues it again"
        wait_for_slurm
    fi
    FAILURE=${why:-srun ended with $status before any task began}
    say "job $SLURM_JOB_ID failed: $FAILURE; logs in $LOGS"
    exit "$status"
}

requeue() {
    if ((${SLURM_RESTART_COUNT:-0} >= MOST_RESTARTS)); then
        say "job $SLURM_JOB_ID was restarted $SLURM_RESTART_COUNT times and is not done;" \
            "give it a longer --time, or a larger MOST_RESTARTS"
        exit "$1"
    fi
    if scontrol requeue "$SLURM_JOB_ID"; then
        say "not done; queued again, and goes on from what was saved"
        wait_for_slurm
        exit "$1"
    fi
    say "not done, and SLURM does not queue the job again; submit the same command, it goes on"
    exit "$1"
}

# SLURM ends this shell; a shell that exits itself is COMPLETED or FAILED, and not requeued.
wait_for_slurm() {
    sleep 600 &
    while kill -0 "$!" 2>/dev/null; do wait "$!" || true; done
}

# Last line of the first task that failed by itself, not by SLURM's signals; empty without one.
cause() {
    local own
    [[ -s $LOGS/ended ]] || return 0
    own=$(grep -v -e '^[^(]*(exit 143)' -e '^[^(]*(exit 138)' "$LOGS/ended") || return 0
    grep -m 1 ': .' <<<"$own" || head -n 1 <<<"$own"
}

# array_part: --part I/N of a job array, empty outside an array.
array_part() {
    local id=${SLURM_ARRAY_TASK_ID:-} count=${SLURM_ARRAY_TASK_COUNT:-1}
    [[ -n $id ]] || return 0
    # An array element that is resubmitted alone does all remaining work.
    echo --part "$(((id - ${SLURM_ARRAY_TASK_MIN:-0}) / ${SLURM_ARRAY_TASK_STEP:-1}))/$count"
}

# note WORD: record the state of this job, for the end of slurm/pipeline.sh.
note() {
    [[ -z ${STAGE_NOTES:-} ]] || echo "$1" >"$STAGE_NOTES/$JOB_NAME.${SLURM_JOB_ID:-0}"
}
note_end() {
    if (($1)); then note "failed: ${FAILURE:-exit $1}"; else note 'done'; fi
}
FAILURE=''
note 'was started and has not ended'
trap 'note_end $?' EXIT

# cores: number of cores of this job on a node.
cores() { echo "${SLURM_CPUS_ON_NODE:-$(nproc)}"; }
