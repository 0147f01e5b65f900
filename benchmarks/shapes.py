"""Random weights at the real dimensions of Qwen3-Embedding: speed needs no trained ones.

They are drawn on the device that is measured: of 8B they take a CPU minutes and a GPU seconds.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from tests.checkpoints import as_sentence_transformer, byte_level_bpe

QWEN3_SHAPES = {
    "qwen3-0.6b-shape": (1024, 28, 16, 3072),
    "qwen3-4b-shape": (2560, 36, 32, 9728),
    "qwen3-8b-shape": (4096, 36, 32, 12288),
}
"""Hidden size, layers, heads, feed-forward size."""
SPREAD = 0.02
"""Standard deviation of the matrices, as Qwen3 initialises them."""
WRITTEN = "complete"
"""Marks a folder that was written to its end."""


def shaped_checkpoint(name: str, folder: Path, device: str, tokenizer: Path | None) -> Path:
    """A checkpoint of one of ``QWEN3_SHAPES`` in ``folder``, made unless it is there already.

    Weights are bf16, as published. ``tokenizer`` is a folder with the tokenizer to use, at most
    151,936 tokens; left out, it is a small byte-level BPE.
    """
    import transformers
    from safetensors.torch import save_file

    if (folder / WRITTEN).exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    hidden, layers, heads, feed_forward = QWEN3_SHAPES[name]
    config = transformers.Qwen3Config(
        vocab_size=151_936,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=feed_forward,
        max_position_embeddings=32_768,
        initializer_range=SPREAD,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
    )
    config.architectures = ["Qwen3Model"]
    config.save_pretrained(folder)
    with torch.device("meta"):
        parameters = transformers.Qwen3Model(config).state_dict()
    torch.manual_seed(0)
    weights = {}
    for key, parameter in parameters.items():
        is_norm = parameter.ndim == 1
        drawn = torch.rand if is_norm else torch.randn
        weight = drawn(parameter.shape, device=device) * (1.0 if is_norm else SPREAD)
        weights[key] = (weight + 0.5 * is_norm).to(torch.bfloat16).cpu()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if tokenizer is None:
        byte_level_bpe(post_processor=True).save(str(folder / "tokenizer.json"))
    else:
        for path in tokenizer.glob("tokenizer*.json"):
            shutil.copyfile(path, folder / path.name)
    as_sentence_transformer(folder, {"embedding_dimension": hidden, "pooling_mode": "lasttoken"})
    (folder / WRITTEN).touch()
    return folder
