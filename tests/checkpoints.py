"""Small checkpoints with the real files and layout, made in seconds and offline."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data import topics
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

END_OF_TEXT = "<|endoftext|>"
CONTROL_TOKENS = [END_OF_TEXT, "<|im_start|>", "<|im_end|>"]
ADDED_TOKENS = ["<think>", "</think>"]
"""Control tokens that the real tokenizer does not mark as special."""

QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizer splits words. transformers assumes it for a Qwen3 checkpoint, whatever the
tokenizer.json says."""

TEXTS = [text for _, text in sorted(topics.topics.items())]
"""Real prose with code in it: the language reference by topic."""


def build_qwen3(
    folder: Path, *, post_processor: bool = True, half: bool = False, **config: Any
) -> Path:
    """A random Qwen3 checkpoint: config.json, model.safetensors, tokenizer.json. Gives ``folder``.

    ``config`` overrides fields of its Qwen3Config; without ``post_processor`` the tokenizer is
    like old copies of the real one, which do not end a text with ``<|endoftext|>``. ``half``
    stores the weights in bf16.
    """
    import torch
    import transformers

    tokenizer = _byte_level_bpe(post_processor)
    settings = {
        "vocab_size": 640,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "intermediate_size": 160,
        "max_position_embeddings": 8192,
        "initializer_range": 0.15,  # large, so that attention and MLP matter beside the residual
        "tie_word_embeddings": True,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.Qwen3Model(transformers.Qwen3Config(**(settings | config)))
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.data = torch.rand_like(parameter) + 0.5
    model.to(torch.bfloat16 if half else torch.float32).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def as_sentence_transformer(folder: Path, pooling: dict[str, Any], *extra: str) -> Path:
    """Add the files by which sentence-transformers describes a checkpoint. Gives ``folder``."""
    kinds = ["Transformer", "Pooling", *extra, "Normalize"]
    write_json(
        folder / "modules.json",
        [
            {
                "idx": i,
                "name": str(i),
                "path": f"{i}_{kind}" if i else "",
                "type": f"sentence_transformers.models.{kind}",
            }
            for i, kind in enumerate(kinds)
        ],
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_json(folder / "1_Pooling" / "config.json", pooling)
    return folder


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def edit_json(path: Path, **changes: Any) -> None:
    """Set these keys of a JSON file; a value of None removes the key."""
    content = json.loads(path.read_text()) | changes
    write_json(path, {key: value for key, value in content.items() if value is not None})


def _byte_level_bpe(post_processor: bool) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=CONTROL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS[:20], trainer)
    tokenizer.add_tokens(ADDED_TOKENS)
    ending = processors.TemplateProcessing(
        single=f"$A {END_OF_TEXT}", special_tokens=[(END_OF_TEXT, 0)]
    )
    byte_level = processors.ByteLevel(trim_offsets=False)
    tokenizer.post_processor = (
        processors.Sequence([byte_level, ending]) if post_processor else byte_level
    )
    return tokenizer
