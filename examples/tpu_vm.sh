#!/bin/bash
# One sweep on all hosts of a TPU slice:  examples/tpu_vm.sh NAME ZONE PLAN.yaml
# NAME is a TPU VM with jaxdyn[tpu] installed on every host, PLAN.yaml a path in a folder that all hosts share (NFS). JAX
# asks the metadata server of each host for its number and for the addresses of the others.
set -euo pipefail
name=${1:?NAME is missing: examples/tpu_vm.sh NAME ZONE PLAN.yaml}
zone=${2:?ZONE is missing: examples/tpu_vm.sh NAME ZONE PLAN.yaml}
plan=${3:?PLAN.yaml is missing: examples/tpu_vm.sh NAME ZONE PLAN.yaml}

gcloud alpha compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
    --command="jaxdyn sweep $(printf %q "$plan")"
