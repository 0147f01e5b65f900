"""What embedlake knows of each architecture, by ``model_type``: one record each, no code.

A family is in the table when its vectors are tested against transformers' own model, one text at
a time. Knows no files and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Pooling = Literal["mean", "cls", "last"]
Structure = Literal["bert", "llama"]
"""Layers that differ only in sizes, biases and norms."""

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
    """Whether a token sees only what stands before it, unless the config says otherwise."""
    packed: bool = True
    """Texts end to end without padding; False: right-padded, with a mask."""
    positions_after_padding: bool = False
    """Positions count from ``pad_token_id + 1``, so that many fewer are left for tokens."""
    hidden_size_key: str = "hidden_size"
    """What config.json calls the length of a vector."""
    structure: Structure | None = None
    """Of its layers, if ours can stand in for them."""
    pooling: Pooling | None = None
    """Pooling when there is no modules.json; None: it must be said."""
    query_prompt: str = ""
    """Query prompt when there is no config_sentence_transformers.json."""
    trailing_token: str | None = None
    """Token that a last-token pooled text must end with exactly once."""
    required: Mapping[str, object] = field(default_factory=dict)
    """Settings that must have this value when config.json names them: others are not tested."""


_ABSOLUTE = {"position_embedding_type": "absolute", "is_decoder": False}
_CAUSAL = {"is_causal": True, "use_bidirectional_attention": False}
_NO_WINDOW = {"use_sliding_window": False}

FAMILIES: Mapping[str, Family] = {
    "bert": Family("BertModel", causal=False, structure="bert", required=_ABSOLUTE),
    "distilbert": Family("DistilBertModel", causal=False, hidden_size_key="dim"),
    "gemma3_text": Family(
        "Gemma3TextModel", causal=True, required={"attn_logit_softcapping": None}
    ),
    "llama": Family("LlamaModel", causal=True, structure="llama", required=_CAUSAL),
    "mistral": Family("MistralModel", causal=True, structure="llama", required=_CAUSAL),
    "modernbert": Family("ModernBertModel", causal=False),
    "mpnet": Family("MPNetModel", causal=False, packed=False, positions_after_padding=True),
    "qwen2": Family("Qwen2Model", causal=True, structure="llama", required=_CAUSAL | _NO_WINDOW),
    "qwen3": Family(
        "Qwen3Model",
        causal=True,
        structure="llama",
        pooling="last",
        query_prompt=QWEN3_QUERY_PROMPT,
        trailing_token="<|endoftext|>",
        required=_CAUSAL | _NO_WINDOW,
    ),
    "roberta": Family(
        "RobertaModel",
        causal=False,
        positions_after_padding=True,
        structure="bert",
        required=_ABSOLUTE,
    ),
    "xlm-roberta": Family(
        "XLMRobertaModel",
        causal=False,
        positions_after_padding=True,
        structure="bert",
        required=_ABSOLUTE,
    ),
}
"""Verified architectures by ``model_type``."""

UNVERIFIED = Family("AutoModel", causal=False, packed=False)
"""Any other, when the caller allows it: transformers' own masks, positions and attention."""
