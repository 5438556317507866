#!/usr/bin/env bash
# One task of a job: runs a command, copies its output to LOGS/rank-N.log, and records a failure in
# LOGS/ended. Started by srun (job.sh):
#
#     srun ... bash slurm/rank.sh LOGS COMMAND...
set -uo pipefail

# Signals are for the command; this shell stays to report how it ended. Where SLURM only signals
# processes that it started (proctrack/cgroup), this shell forwards them. Elsewhere the command
# receives them twice, which is harmless.
command='' early=''
pass_on() { if [[ $command ]]; then kill -s "$1" "$command" 2>/dev/null; else early=$1; fi; }
for name in TERM USR1 INT; do
    # shellcheck disable=SC2064 # expanded now
    trap "pass_on $name" "$name"
done

logs=$1
shift
log=$logs/rank-$SLURM_PROCID.log
ended() {
    printf 'rank %s on %s (exit %s): %s\n' \
        "$SLURM_PROCID" "${SLURMD_NODENAME:-?}" "$1" "$2" >>"$logs/ended"
    exit "$1"
}
if ! command -v "$1" >/dev/null; then
    why="no command $1 on this node; is the environment of slurm/site.sh on a disk that it sees?"
    echo "$why" >&2
    ended 127 "$why"
fi
before=$(stat -c %s "$log" 2>/dev/null || echo 0)
exec 3> >(
    trap '' TERM USR1 INT
    exec tee -a "$log"
)
writer=$!
set -m # else a command in the background would ignore INT
"$@" >&3 2>&1 3>&- &
command=$!
set +m
[[ -z $early ]] || pass_on "$early"
while :; do
    wait "$command"
    status=$?
    kill -0 "$command" 2>/dev/null || break # else a signal interrupted wait
done
if ((status > 128)); then
    wait "$command" # interrupted by a signal: wait again
    status=$?
fi
exec 3>&-
for _ in {1..20}; do # its last output may be pending; a surviving child must not block
    kill -0 "$writer" 2>/dev/null || break
    sleep 0.1
done
if ((status)); then
    words=$(tail -c "+$((before + 1))" "$log" | grep -v '^\s*$' | tail -n 1)
    if [[ -z $words && $SLURM_PROCID != 0 ]]; then
        # Rank 0 reports errors of all ranks; srun would kill it as soon as this task ends.
        for _ in {1..40}; do
            grep -qs '^rank 0 ' "$logs/ended" && break
            sleep 0.5
        done
    fi
    ended "$status" "$words"
fi
