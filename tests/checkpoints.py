"""Small checkpoints with the real files and layout, made in seconds and offline."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
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

    tokenizer = byte_level_bpe(post_processor)
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
    random_config = transformers.Qwen3Config(**(settings | config))
    dtype = torch.bfloat16 if half else torch.float32
    random_model(transformers.Qwen3Model, random_config).to(dtype).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def build_adapter(folder: Path, base: Path, model_class: str, **config: Any) -> Path:
    """A LoRA adapter of random matrices, saved by peft as a trainer saves it. Gives ``folder``.

    ``config`` overrides fields of its LoraConfig.
    """
    import peft
    import torch
    import transformers

    model = getattr(transformers, model_class).from_pretrained(base, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear"} | config
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # peft asks
        torch.manual_seed(1)
        adapted = peft.get_peft_model(model, peft.LoraConfig(**settings))
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    adapted.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Shape:
    """A small checkpoint of one family: transformers' classes, and what differs from ``SMALL``."""

    name: str
    """The family's name in transformers, as in ``<name>Model``."""
    pooling: str
    config: dict[str, Any] = field(default_factory=dict)
    dense: tuple[tuple[int, int], ...] = ()
    """(n_in, n_out) of the Dense modules; the first of them has a bias and a tanh."""
    prompts: dict[str, str] = field(default_factory=dict)


SMALL = {
    "vocab_size": 640,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 1024,
    "pad_token_id": 1,
    "initializer_range": 0.15,
}
_GROUPED = {"num_key_value_heads": 2}
_GEMMA = {
    **_GROUPED,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 32,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}

SHAPES = {
    "bert-cls": Shape("Bert", "cls"),
    "distilbert": Shape(
        "DistilBert", "mean", {"dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 128}
    ),
    "gemma3-bidirectional": Shape(
        "Gemma3Text",
        "mean",
        {**_GEMMA, "use_bidirectional_attention": True},
        dense=((64, 96), (96, 48)),
        prompts={"query": "task: search result | query: ", "document": "title: none | text: "},
    ),
    "gemma3-causal": Shape("Gemma3Text", "lasttoken", _GEMMA),
    "llama": Shape("Llama", "lasttoken", _GROUPED),
    "mistral": Shape("Mistral", "lasttoken", {**_GROUPED, "sliding_window": None}),
    "mistral-window": Shape("Mistral", "lasttoken", {**_GROUPED, "sliding_window": 40}),
    "modernbert": Shape("ModernBert", "cls", {"local_attention": 32}),
    "mpnet": Shape("MPNet", "mean"),
    "qwen2": Shape("Qwen2", "lasttoken", _GROUPED),
    "qwen2-mean": Shape("Qwen2", "mean", _GROUPED),
    "roberta": Shape("Roberta", "mean"),
    "xlm-roberta": Shape("XLMRoberta", "cls"),
}
"""Every verified family beside Qwen3, as sentence-transformers checkpoints."""


def build_shape(folder: Path, shape: Shape) -> Path:
    """A random checkpoint of this shape with modules.json and all it names. Gives ``folder``."""
    import transformers

    config = getattr(transformers, f"{shape.name}Config")(**(SMALL | shape.config))
    random_model(getattr(transformers, f"{shape.name}Model"), config).save_pretrained(folder)
    byte_level_bpe(post_processor=True).save(str(folder / "tokenizer.json"))
    as_it_is = {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", as_it_is)
    as_sentence_transformer(
        folder, {"pooling_mode": shape.pooling}, *(["Dense"] * len(shape.dense))
    )
    for place, (n_in, n_out) in enumerate(shape.dense, 2):
        add_dense(folder / f"{place}_Dense", n_in, n_out, first=place == 2)
    if shape.prompts:
        write_json(folder / "config_sentence_transformers.json", {"prompts": shape.prompts})
    return folder


def add_dense(folder: Path, n_in: int, n_out: int, *, first: bool) -> None:
    """A Dense module of random weights; the ``first`` one has a bias and a tanh."""
    import safetensors.torch
    import torch

    folder.mkdir(exist_ok=True)
    activation = "activation.Tanh" if first else "linear.Identity"
    config = {
        "in_features": n_in,
        "out_features": n_out,
        "bias": first,
        "activation_function": f"torch.nn.modules.{activation}",
    }
    write_json(folder / "config.json", config)
    seeded = torch.Generator().manual_seed(n_in)
    weights = {"linear.weight": torch.randn(n_out, n_in, generator=seeded) * 0.1}
    if first:
        weights["linear.bias"] = torch.randn(n_out, generator=seeded)
    safetensors.torch.save_file(weights, folder / "model.safetensors")


def random_model(model_class: Any, config: Any) -> Any:
    """Seeded weights, norms included, so that nothing in the model is the identity."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config)
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.data = torch.rand_like(parameter) + 0.5
    return model


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


def byte_level_bpe(post_processor: bool) -> tokenizers.Tokenizer:
    """A small tokenizer with Qwen's rules; see ``build_qwen3`` for ``post_processor``."""
    tokenizer = tokenizers.Tokenizer.from_str(_trained())
    ending = processors.TemplateProcessing(
        single=f"$A {END_OF_TEXT}", special_tokens=[(END_OF_TEXT, 0)]
    )
    byte_level = processors.ByteLevel(trim_offsets=False)
    tokenizer.post_processor = (
        processors.Sequence([byte_level, ending]) if post_processor else byte_level
    )
    return tokenizer


@lru_cache(maxsize=1)
def _trained() -> str:
    """A byte-level BPE with Qwen's rules, trained on a little prose, as its JSON."""
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
    return str(tokenizer.to_str())
