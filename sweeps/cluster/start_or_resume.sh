#!/usr/bin/env bash
# Start a sweep, or continue it if the storage has it: for schedulers that run a command again after a failure.
#   start_or_resume.sh NAME STORAGE [flags for both, such as --address and --cache-dir] [-- flags for a new sweep only]
# SIGTERM ends the sweep as Ctrl-C does: its state is kept, and the exit status is 130.
set -u
if [[ $# -lt 2 || $1 == -* || $2 == -* ]]; then
    echo "start_or_resume.sh takes NAME STORAGE [flags for both] [-- flags for a new sweep], but got: $*" >&2
    exit 2
fi
name=$1
storage=$2
shift 2
both=()
while [[ $# -gt 0 && $1 != -- ]]; do
    both+=("$1")
    shift
done
[[ $# -gt 0 ]] && shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

child=
stopped=
trap 'stopped=yes; [[ -n $child ]] && kill -TERM "$child" 2> /dev/null' TERM INT

# Run a command in the background, where a signal does not wait for its end; return its status.
run() {
    [[ -n $stopped ]] && exit 130
    "$@" &
    child=$!
    while kill -0 "$child" 2> /dev/null; do
        wait "$child"
    done
    wait "$child"
    status=$?
    child=
    return "$status"
}

run python tune_main.py --resume "$name" --storage "$storage" "${both[@]}"
status=$?
# 2 is wrong input, here: no sweep of that name yet. If it was another mistake, starting reports it.
if [[ $status -ne 2 ]]; then
    exit $status
fi
run python tune_main.py --name "$name" --storage "$storage" "${both[@]}" "$@"
status=$?
if [[ $status -ne 2 ]]; then
    exit $status
fi
# Twice wrong: the input is, or the machine of the last driver was lost a moment ago and its lease on the sweep has not ended yet.
echo "Trying to resume once more in 75 s, when the lease of a lost driver has ended." >&2
run sleep 75
run python tune_main.py --resume "$name" --storage "$storage" "${both[@]}"
