#!/bin/bash
# One sweep over all GPUs of several nodes, a process a GPU:  sbatch examples/slurm.sh PLAN.yaml
# Sent again, also with another number of nodes, it goes on where it stopped. JAX reads the job id, the list of nodes and
# the numbers of the processes from what srun sets.
#SBATCH --job-name=jaxdyn-sweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -euo pipefail
plan=${1:?PLAN.yaml is missing: sbatch examples/slurm.sh PLAN.yaml}

# A dead process ends the others, and --requeue starts the job anew.
srun --kill-on-bad-exit=1 jaxdyn sweep "$plan"
