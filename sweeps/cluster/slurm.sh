#!/bin/bash
# A sweep on a Slurm allocation: sbatch sweeps/cluster/slurm.sh, from the root of the checkout, on a file system that all nodes share.
# Edit: the numbers below, the environment, data and storage.
#SBATCH --job-name=birdclef-sed
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
#SBATCH --mem=0
#SBATCH --time=24:00:00
# Ray's ports are the same for everybody: no other Ray on these nodes.
#SBATCH --exclusive
# Put back into the queue after a failed node or a preemption, the job continues its sweep.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

source "$HOME/birdclef-env/bin/activate"

head_host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head_host" hostname --ip-address | awk '{print $1}')

export RAY_USAGE_STATS_ENABLED=0
# Ray runs what it is sent: only for those who have the token in this home folder, which the nodes share.
export RAY_AUTH_MODE=token
(umask 077 && ray get-auth-token --generate > /dev/null)
if [[ -n $(find "$HOME/.ray/auth_token" \( -perm /077 -o ! -user "$(id -un)" \)) ]]; then
    echo "Others can read $HOME/.ray/auth_token, so they could run code as you. Remove it; the next job makes another." >&2
    exit 2
fi
# Ray allows its nodes 30 s to find each other, too little where Python starts from a shared file system.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600

# srun does not take --cpus-per-task over from sbatch.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    ray symmetric-run --address "$head_ip:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
    --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "$SLURM_GPUS_ON_NODE" -- \
    bash sweeps/cluster/start_or_resume.sh birdclef-sed "$PWD/sweeps-output" \
    --search sed --data "$HOME/birdclef" --address auto
