#!/bin/bash
# Many plans, each a job of one node:  sbatch --array=1-"$(wc -l < PLANS)" examples/slurm_array.sh PLANS
# PLANS holds the path of one plan a line: one for each model, say. Task N of the array takes line N; tasks know nothing of
# each other, so that a lost one is sent again alone:  sbatch --array=7 examples/slurm_array.sh PLANS
#SBATCH --job-name=jaxdyn-plans
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A-%a.log

set -euo pipefail
plans=${1:?PLANS is missing: a file with one plan a line}
line=${SLURM_ARRAY_TASK_ID:?not a task of an array: sbatch --array=1-N examples/slurm_array.sh PLANS}

plan=$(sed -n "${line}p" "$plans")
if [[ -z $plan ]]; then
    echo "$plans: has no line $line; the array goes from 1 to $(wc -l < "$plans")" >&2
    exit 2
fi
srun --kill-on-bad-exit=1 jaxdyn sweep "$plan"
