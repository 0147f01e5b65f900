"""Facts about each architecture, by ``model_type``: one record each, no code.

A family is in the table when its vectors are tested against transformers' own model, one text at
a time. Knows no files and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Pooling = Literal["mean", "cls", "last"]
Structure = Literal["bert", "llama"]
"""Layers that differ only in sizes, biases and norms."""

FILE_AS_IT_IS = "TokenizersBackend"
"""transformers' tokenizer class that takes tokenizer.json as it is."""

QWEN3_QUERY_PROMPT = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)
"""The default task of the Qwen3-Embedding model card; no space after ``Query:``."""


@dataclass(frozen=True, slots=True)
class Family:
    """How one architecture is run, and its rules for what its checkpoints leave unsaid."""

    model_class: str
    """Name of transformers' class for the model without a head."""
    causal: bool
    """Whether a token sees only the tokens before it, unless the config says otherwise."""
    packed: bool = True
    """Texts end to end without padding; False: right-padded, with a mask."""
    padding_position: int | None = None
    """Position of padding, after which positions count; None: they count from 0."""
    padding_position_is_set: bool = False
    """Whether ``pad_token_id`` in config.json sets ``padding_position``."""
    hidden_size_key: str = "hidden_size"
    """What config.json calls the length of a vector."""
    structure: Structure | None = None
    """Structure of the layers, if ours can stand in for them."""
    pooling: Pooling | None = None
    """Pooling when there is no modules.json; None: the checkpoint must name it."""
    query_prompt: str = ""
    """Query prompt when there is no config_sentence_transformers.json."""
    trailing_token: str | None = None
    """Token that a last-token pooled text must end with exactly once."""
    tokenizer_class: str = FILE_AS_IT_IS
    """transformers' tokenizer class when no file names another."""
    tokenizer_class_is_fixed: bool = False
    """Whether transformers takes that class whatever the files name."""


FAMILIES: Mapping[str, Family] = {
    "bert": Family("BertModel", causal=False, structure="bert", tokenizer_class="BertTokenizer"),
    "distilbert": Family(
        "DistilBertModel", causal=False, hidden_size_key="dim", tokenizer_class="BertTokenizer"
    ),
    "gemma3_text": Family("Gemma3TextModel", causal=True, tokenizer_class="GemmaTokenizer"),
    "llama": Family("LlamaModel", causal=True, structure="llama"),
    "mistral": Family(
        "MistralModel", causal=True, structure="llama", tokenizer_class_is_fixed=True
    ),
    "modernbert": Family("ModernBertModel", causal=False, tokenizer_class_is_fixed=True),
    "mpnet": Family(
        "MPNetModel",
        causal=False,
        packed=False,
        padding_position=1,
        tokenizer_class="MPNetTokenizer",
    ),
    "qwen2": Family(
        "Qwen2Model",
        causal=True,
        structure="llama",
        tokenizer_class="Qwen2Tokenizer",
        tokenizer_class_is_fixed=True,
    ),
    "qwen3": Family(
        "Qwen3Model",
        causal=True,
        structure="llama",
        pooling="last",
        query_prompt=QWEN3_QUERY_PROMPT,
        trailing_token="<|endoftext|>",
        tokenizer_class="Qwen2Tokenizer",
    ),
    "roberta": Family(
        "RobertaModel",
        causal=False,
        padding_position=1,
        padding_position_is_set=True,
        structure="bert",
        tokenizer_class="RobertaTokenizer",
    ),
    "xlm-roberta": Family(
        "XLMRobertaModel",
        causal=False,
        padding_position=1,
        padding_position_is_set=True,
        structure="bert",
        tokenizer_class="XLMRobertaTokenizer",
    ),
}
"""Verified architectures by ``model_type``."""

UNVERIFIED = Family("AutoModel", causal=False, packed=False, tokenizer_class="AutoTokenizer")
"""Any other architecture, when it is allowed: transformers' own masks, positions and attention."""
