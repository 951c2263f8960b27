#!/usr/bin/env bash
# Start a sweep, or continue it if the storage has it: for schedulers that run a command again after a failure.
#   start_or_resume.sh NAME STORAGE [flags of tune_main.py for a new sweep]
set -u
if [[ $# -lt 2 ]]; then
    echo "start_or_resume.sh takes NAME STORAGE [flags of tune_main.py], but got: $*" >&2
    exit 2
fi
name=$1
storage=$2
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

python tune_main.py --resume "$name" --storage "$storage"
status=$?
# 2 is wrong input, here: no sweep of that name yet. If it was another mistake, starting reports it.
if [[ $status -ne 2 ]]; then
    exit $status
fi
python tune_main.py --name "$name" --storage "$storage" "$@"
status=$?
if [[ $status -ne 2 ]]; then
    exit $status
fi
# Twice wrong: the input is, or the machine of the last driver was lost a moment ago and its lease on the sweep has not ended yet.
echo "Trying to resume once more in 75 s, when the lease of a lost driver has ended." >&2
sleep 75
exec python tune_main.py --resume "$name" --storage "$storage"
