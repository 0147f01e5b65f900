"""A small random checkpoint of each verified family, with its own kind of tokenizer, and what
sentence-transformers makes of it."""

from __future__ import annotations

import json
import logging
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.checkpoints import QWEN_WORDS, as_sentence_transformer, random_model, write_json

Vectors = npt.NDArray[np.float64]

PROSE = [
    "The harbour lights flickered while Two Boats drifted past the old stone pier.",
    "Photosynthesis turns carbon dioxide and water into sugar, using light energy.",
    "Zürich, Málaga and São Paulo are cities; naïve café façade déjà vu.",
    "def add(a, b):\n    return a + b  # sums two numbers",
    "ONE TWO THREE four five SIX seven",
    "x",
    "hello   world  with   spaces",
    "東京は日本の首都です。人口が多い。",
    "word after word and " * 30,
]
"""Case, accents, Chinese characters, code, spaces, and a text longer than every window."""

TRAINED_ON = PROSE * 3

_SMALL = {
    "vocab_size": 720,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
_GROUPED = {**_SMALL, "num_key_value_heads": 2}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _SMALL),
    "distilbert": (
        "DistilBert",
        {
            "vocab_size": 720,
            "dim": 64,
            "n_layers": 3,
            "n_heads": 4,
            "hidden_dim": 128,
            "max_position_embeddings": 256,
            "initializer_range": 0.2,
        },
    ),
    "gemma3_text": (
        "Gemma3Text",
        {**_GROUPED, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 32},
    ),
    "llama": ("Llama", _GROUPED),
    "mistral": ("Mistral", {**_GROUPED, "sliding_window": 40}),
    "modernbert": ("ModernBert", {**_SMALL, "local_attention": 32, "pad_token_id": 0}),
    "mpnet": ("MPNet", {**_SMALL, "pad_token_id": 1}),
    "qwen2": ("Qwen2", _GROUPED),
    "qwen3": ("Qwen3", {**_GROUPED, "head_dim": 32}),
    "roberta": ("Roberta", {**_SMALL, "pad_token_id": 1}),
    "xlm-roberta": ("XLMRoberta", {**_SMALL, "pad_token_id": 1}),
}
"""transformers' name of the family, as in ``<name>Model``, and a small configuration."""

POOLING = {"llama": "lasttoken", "mistral": "lasttoken", "qwen2": "lasttoken", "qwen3": "lasttoken"}


def build(folder: Path, family: str, **config: Any) -> Path:
    """A random checkpoint of the family, saved as sentence-transformers saves. Gives ``folder``."""
    import transformers

    name, settings = CONFIGS[family]
    made = getattr(transformers, f"{name}Config")(**(settings | config))
    random_model(getattr(transformers, f"{name}Model"), made).save_pretrained(folder)
    save_tokenizer(folder, family)
    pooling = {"embedding_dimension": 64, "pooling_mode": POOLING.get(family, "mean")}
    as_sentence_transformer(folder, pooling)
    return folder


def save_tokenizer(folder: Path, family: str) -> Path:
    """tokenizer.json and tokenizer_config.json of the family's kind. Gives ``folder``."""
    text, settings = _TOKENIZERS[family]()
    (folder / "tokenizer.json").write_text(text)
    write_json(folder / "tokenizer_config.json", {**settings, "model_max_length": 150})
    return folder


def edited(base: Path, folder: Path, file: str, **changes: Any) -> Path:
    """A copy of ``base`` in ``folder`` with these keys of ``file`` set; ``...`` removes a key."""
    shutil.copytree(base, folder)
    path = folder / file
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.parent.mkdir(exist_ok=True)
    write_json(path, {k: v for k, v in (content | changes).items() if v is not ...})
    return folder


def reference(folder: Path, kind: str = "document", texts: list[str] = PROSE) -> Vectors:
    """sentence-transformers' vectors, one text at a time, unit norm."""
    import torch
    from sentence_transformers import SentenceTransformer

    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    model = SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": torch.float32},
    )
    encode = {"document": model.encode_document, "query": model.encode_query}[kind]
    vectors = np.stack([encode([text])[0] for text in texts]).astype(np.float64)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


# Tokenizers of each kind: (tokenizer.json, tokenizer_config.json).


def _wordpiece(names: dict[str, str], tokenizer_class: str) -> tuple[str, dict[str, Any]]:
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token=names["unk_token"]))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    special = list(dict.fromkeys(names.values()))
    trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    # of both cases, so that lower case makes a difference
    inner.train_from_iterator([*TRAINED_ON, *"TWOBALHEFSIXN"], trainer)
    cased = tokenizers.Tokenizer(models.WordPiece(unk_token=names["unk_token"]))
    cased.normalizer = normalizers.BertNormalizer(lowercase=False)
    cased.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cased.train_from_iterator(TRAINED_ON, trainer)
    content = json.loads(inner.to_str())
    content["model"] = json.loads(cased.to_str())["model"]
    content["added_tokens"] = json.loads(cased.to_str())["added_tokens"]
    inner = tokenizers.Tokenizer.from_str(json.dumps(content))
    ends = [(name, inner.token_to_id(name)) for name in (names["cls_token"], names["sep_token"])]
    inner.post_processor = processors.TemplateProcessing(
        single=f"{ends[0][0]} $A {ends[1][0]}", special_tokens=ends
    )
    return str(inner.to_str()), {"tokenizer_class": tokenizer_class, "do_lower_case": True, **names}


_BERT_NAMES = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_ROBERTA_NAMES = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}


@cache
def _bert() -> tuple[str, dict[str, Any]]:
    return _wordpiece(_BERT_NAMES, "BertTokenizer")


@cache
def _mpnet() -> tuple[str, dict[str, Any]]:
    return _wordpiece({**_ROBERTA_NAMES, "unk_token": "[UNK]"}, "MPNetTokenizer")


def _byte_level(special: list[str], words: Any) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = words
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TRAINED_ON, trainer)
    return inner


@cache
def _roberta() -> tuple[str, dict[str, Any]]:
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner = _byte_level(list(dict.fromkeys(_ROBERTA_NAMES.values())), words)
    ends = [(name, inner.token_to_id(name)) for name in ("</s>", "<s>")]
    inner.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    return str(inner.to_str()), {"tokenizer_class": "RobertaTokenizer", **_ROBERTA_NAMES}


@cache
def _qwen() -> tuple[str, dict[str, Any]]:
    split = pre_tokenizers.Split(tokenizers.Regex(QWEN_WORDS), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    end = "<|endoftext|>"
    inner = _byte_level([end, "<|im_end|>"], pre_tokenizers.Sequence([split, byte_level]))
    inner.normalizer = normalizers.NFC()
    inner.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, inner.token_to_id(end))]
    )
    named = {"eos_token": "<|im_end|>", "pad_token": end, "unk_token": None, "bos_token": None}
    return str(inner.to_str()), {"tokenizer_class": "Qwen2Tokenizer", **named}


@cache
def _as_it_is() -> tuple[str, dict[str, Any]]:
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner = _byte_level(list(_BERT_NAMES.values()), words)
    ends = [(name, inner.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return str(inner.to_str()), {"tokenizer_class": "PreTrainedTokenizerFast", **_BERT_NAMES}


@cache
def _xlmr() -> tuple[str, dict[str, Any]]:
    inner = tokenizers.Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    inner.train_from_iterator(TRAINED_ON, trainer)
    ends = [(name, inner.token_to_id(name)) for name in ("<s>", "</s>")]
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return str(inner.to_str()), {"tokenizer_class": "XLMRobertaTokenizer", **_ROBERTA_NAMES}


def _sentencepiece(special: list[str], single: str) -> tokenizers.Tokenizer:
    """BPE with ▁ for spaces and bytes for what is unknown, as Gemma and Llama 2 have it."""
    inner = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    words = [f"▁{word}" for text in TRAINED_ON for word in text.split()]
    inner.train_from_iterator(words, trainer)
    ends = [(name, inner.token_to_id(name)) for name in special if name in single.split()]
    inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=ends)
    return inner


@cache
def _gemma() -> tuple[str, dict[str, Any]]:
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    inner = _sentencepiece([*names.values(), "<mask>"], "<bos> $A <eos>")
    settings = {"tokenizer_class": "GemmaTokenizer", "mask_token": "<mask>", **names}
    return str(inner.to_str()), settings


@cache
def _llama() -> tuple[str, dict[str, Any]]:
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    inner = _sentencepiece(list(names.values()), "<s> $A </s>")
    inner.normalizer = None
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    settings = {"tokenizer_class": "LlamaTokenizer", "pad_token": "</s>", **names}
    return str(inner.to_str()), settings


_TOKENIZERS = {
    "bert": _bert,
    "distilbert": _bert,
    "gemma3_text": _gemma,
    "llama": _llama,
    "mistral": _llama,
    "modernbert": _as_it_is,
    "mpnet": _mpnet,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "roberta": _roberta,
    "xlm-roberta": _xlmr,
}
TOKENIZER_FAMILIES = sorted({make: family for family, make in _TOKENIZERS.items()}.values())
"""A family for each kind of tokenizer: those of the others have the same files."""
