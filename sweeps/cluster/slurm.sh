#!/bin/bash
# A sweep on a Slurm allocation: sbatch sweeps/cluster/slurm.sh, from the root of the checkout, on a file system that all nodes share.
# Edit: the numbers, the environment, data and storage. Flags of sbatch replace the numbers; for CPUs only: sbatch --gpus-per-node=0.
# The sweep has the name of the job (sbatch --job-name=OTHER).
#SBATCH --job-name=birdclef-sed
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --mem-per-cpu=4G
#SBATCH --time=24:00:00
# Five minutes before the time limit, the sweep is stopped and the job put back into the queue. So is it after a failed node or a
# preemption. Then it continues its sweep.
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

source "$HOME/birdclef-env/bin/activate"
# On a disk of each node, and of this user only. Decoded recordings are kept there for later jobs.
cache_dir=${SLURM_TMPDIR:-/tmp}/birdclef-cache-$(id -u)
storage=$PWD/sweeps-output
everywhere=(--address auto --cache-dir "$cache_dir")
if [[ ${SLURM_GPUS_ON_NODE:-0} -eq 0 ]]; then
    everywhere+=(--gpus-per-trial 0)
fi

# Nothing here is shared with another job on the same nodes: not the ports, not Ray's files, not the token.
export BIRDCLEF_PORT=$((10000 + 8 * (SLURM_JOB_ID % 2500)))
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID
# The address by which Slurm reaches this node, the first of the allocation; on some systems the own name is a loopback address.
node_address=$(scontrol show node --oneliner "$SLURMD_NODENAME" | grep -o 'NodeAddr=[^ ]*' | cut -d= -f2)
head_ip=$({ getent ahostsv4 "$node_address"; hostname --all-ip-addresses | tr ' ' '\n'; } | awk '$1 != "" && $1 !~ /^127\./ {print $1; exit}')
export RAY_ADDRESS=$head_ip:$BIRDCLEF_PORT
export RAY_USAGE_STATS_ENABLED=0
# Ray runs what it is sent: only for those who can read this file, in the home folder that the nodes share.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.birdclef-token-$SLURM_JOB_ID
rm -f "$RAY_AUTH_TOKEN_PATH"
(umask 077 && python -c "import secrets; print(secrets.token_hex(32))" > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

# One Ray on each node. srun does not take --cpus-per-task over from sbatch. A node whose Ray ends takes the others with it.
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" bash sweeps/cluster/slurm_node.sh &
nodes=$!
child=
stopped_by=
stop() {
    stopped_by=$1
    [[ -z $child ]] || kill -TERM "$child" 2> /dev/null || true
}
trap 'stop limit' USR1
trap 'stop cancel' TERM

alive() { kill -0 "$1" 2> /dev/null; }

# Run a command for as long as Ray runs on the nodes; return its status. In the background, because bash handles a signal only when a
# command in the foreground has ended; `wait` returns at a signal.
with_nodes() {
    [[ -z $stopped_by ]] || return 130
    "$@" &
    child=$!
    while alive "$child" && alive "$nodes"; do
        wait -n "$child" "$nodes" || true
    done
    if ! alive "$nodes"; then
        kill -TERM "$child" 2> /dev/null || true
    fi
    while alive "$child"; do
        wait "$child" || true
    done
    wait "$child"
}

# The sweep starts when all nodes are there.
wait_for_nodes='
import sys, time, ray
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    time.sleep(1)'
until (exec 3<> "/dev/tcp/$head_ip/$BIRDCLEF_PORT") 2> /dev/null || ! alive "$nodes"; do
    sleep 1
done
status=0
with_nodes python -c "$wait_for_nodes" "$SLURM_JOB_NUM_NODES" || status=$?
if [[ $status -eq 0 ]]; then
    with_nodes bash sweeps/cluster/start_or_resume.sh "$SLURM_JOB_NAME" "$storage" "${everywhere[@]}" -- \
        --search sed --data "$HOME/birdclef" || status=$?
fi
lost=
alive "$nodes" || lost=yes
kill -TERM "$nodes" 2> /dev/null || true
while alive "$nodes"; do
    wait "$nodes" || true
done

# At the time limit, or when Ray has ended before its sweep (at most ten times), back into the queue.
if [[ $stopped_by == limit || ($lost == yes && -z $stopped_by && $status -ne 0 && ${SLURM_RESTART_COUNT:-0} -lt 10) ]]; then
    echo "Put back into the queue; the sweep continues when the job starts again."
    scontrol requeue "$SLURM_JOB_ID"
    # Slurm ends this script now.
    sleep 60
fi
exit "$status"
