#!/bin/sh
# Start a Prefect worker; with EMBEDLAKE_RAY_ADDRESS=head:6379 as a node of that Ray cluster.
#
# A flow runs on a node of its cluster. This node offers no CPUs and no GPUs, so tasks run elsewhere.
set -eu
case "${EMBEDLAKE_RAY_ADDRESS:-local}" in
    auto | local) ;;
    *) ray start --address="$EMBEDLAKE_RAY_ADDRESS" --num-cpus=0 --num-gpus=0 ;;
esac
exec prefect worker start --pool "${WORK_POOL:-embedlake}" --type "${WORK_POOL_TYPE:-process}" --with-healthcheck
