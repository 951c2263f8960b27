#!/usr/bin/env bash
# Ray on one node of a job of slurm.sh, until the job ends. srun starts it on every node.
set -euo pipefail

# A job that was put back into the queue keeps its number: whatever an earlier run of it has left on this machine goes first.
pkill -KILL --uid "$(id -u)" --full "$RAY_TMPDIR/" || true
rm -rf "$RAY_TMPDIR"
# Ray does not make the parents of its folder, and other users need not see what is in it.
mkdir --mode=700 "$RAY_TMPDIR"
trap 'rm -rf "$RAY_TMPDIR"' EXIT

# 0: a free port. With Ray's own defaults, the workers of two jobs on one machine would take each other's.
arguments=(
    --block --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --object-store-memory=1000000000
    --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0
)
if [[ $SLURM_NODEID -eq 0 ]]; then
    # Ray listens for its client where the client is installed, by default at a fixed port.
    python -c "import grpc" 2> /dev/null && arguments+=(--ray-client-server-port="$((BIRDCLEF_PORT + 1))")
    ray start --head --node-ip-address="${RAY_ADDRESS%:*}" --port="$BIRDCLEF_PORT" --temp-dir="$RAY_TMPDIR" --include-dashboard=false \
        "${arguments[@]}" > "$RAY_TMPDIR/start.log" 2>&1 &
else
    until (exec 3<> "/dev/tcp/${RAY_ADDRESS%:*}/$BIRDCLEF_PORT") 2> /dev/null; do
        sleep 1
    done
    ray start --address="$RAY_ADDRESS" "${arguments[@]}" > "$RAY_TMPDIR/start.log" 2>&1 &
fi
ray=$!
trap 'kill -TERM "$ray" 2> /dev/null' TERM
while kill -0 "$ray" 2> /dev/null; do
    wait "$ray" || true
done
status=0
wait "$ray" || status=$?
if [[ $status -ne 0 ]]; then
    cat "$RAY_TMPDIR/start.log"
fi
exit "$status"
