#!/bin/sh
# Serve an embedding model by vLLM, on loopback, for recipes that name http://127.0.0.1:8000.
#
#   infra/vllm/serve.sh Qwen/Qwen3-Embedding-0.6B
#   VLLM=~/vllm/bin/vllm PORT=8001 infra/vllm/serve.sh ./models/minilm --max-model-len 256
#
# What follows the model is handed on to `vllm serve`. VLLM_API_KEY, if it is set, is the token that
# clients must send: put the same into EMBEDLAKE_ENGINE_TOKEN where embedlake runs.
set -eu
model=${1:?name a model: a hub id or a folder}
shift
exec "${VLLM:-vllm}" serve "$model" --runner pooling --host 127.0.0.1 --port "${PORT:-8000}" "$@"
