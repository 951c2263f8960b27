#!/usr/bin/env bash
# Stop the driver on this machine as Ctrl-C does, and wait for its end: what Kubernetes runs before it ends the head pod.
#   stop_driver.sh SECONDS     how long to wait at most
set -u
if [[ ! ${1:-} =~ ^[0-9]+$ ]]; then
    echo "stop_driver.sh takes SECONDS, but got: $*" >&2
    exit 2
fi
driver='^([^ ]*/)?bash ([^ ]*/)?start_or_resume\.sh '
pkill -TERM --full "$driver"
for ((second = 0; second < $1; second++)); do
    pgrep --full "$driver" > /dev/null || exit 0
    sleep 1
done
exit 1
