#!/bin/bash
# One sweep on a TPU slice of a GKE cluster that xpk made:  examples/xpk.sh CLUSTER IMAGE PLAN.yaml [TPU_TYPE]
# IMAGE has jaxdyn[tpu], PLAN.yaml is a path in it or in storage that the cluster mounts. v5p-128 is 64 chips, 4x4x4.
set -euo pipefail
cluster=${1:?CLUSTER is missing: examples/xpk.sh CLUSTER IMAGE PLAN.yaml}
image=${2:?IMAGE is missing: examples/xpk.sh CLUSTER IMAGE PLAN.yaml}
plan=${3:?PLAN.yaml is missing: examples/xpk.sh CLUSTER IMAGE PLAN.yaml}

xpk workload create --cluster="$cluster" --workload=jaxdyn-sweep --tpu-type="${4:-v5p-128}" --num-slices=1 \
    --max-restarts=10 --docker-image="$image" --command="jaxdyn sweep $(printf %q "$plan")"
