#!/bin/sh
# Start a Prefect worker; with EMBEDLAKE_RAY_ADDRESS=head:6379 as a node of that Ray cluster.
#
# A flow runs on a node of its cluster. This node offers no CPUs and no GPUs, so tasks run elsewhere.
# RAY_NODE_IP is the address that other nodes reach it at, where Ray would choose another.
set -eu
case "${EMBEDLAKE_RAY_ADDRESS:-local}" in
    auto | local) ;;
    *) ray start --address="$EMBEDLAKE_RAY_ADDRESS" --num-cpus=0 --num-gpus=0 \
        ${RAY_NODE_IP:+--node-ip-address="$RAY_NODE_IP"} ;;
esac
if [ "${EMBEDLAKE_LOG_FORMAT:-text}" = json ]; then
    export PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER=json
fi
exec prefect worker start --pool "${WORK_POOL:-embedlake}" --type "${WORK_POOL_TYPE:-process}" --with-healthcheck
