"""Attention among texts that lie end to end, plugged into transformers' own models.

transformers looks attention up by name in a registry; ``register`` adds ours there, and every
layer then calls ``packed_attention`` with the ``Layout`` that the forward pass was given. No mask
is ever made: a text's tokens see their own text and nothing else by construction.
"""

from __future__ import annotations

import torch

from embedding_core.encoder.local.attention.equal_lengths import by_equal_lengths
from embedding_core.encoder.local.attention.packed_layout import Layout, Rule, VarlenKernel, layout
from embedding_core.encoder.local.attention.padded import padded_kernel
from embedding_core.encoder.local.attention.varlen import adapt_varlen, varlen_kernel

__all__ = [
    "NAME",
    "Layout",
    "Rule",
    "VarlenKernel",
    "adapt_varlen",
    "attend",
    "layout",
    "packed_attention",
    "padded_kernel",
    "register",
    "varlen_kernel",
]

NAME = "embedlake_packed"
"""Our entry in transformers' registries."""

Tensor = torch.Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, packing: Layout, rule: Rule) -> Tensor:
    """Attention of a packed batch: (n_queries, n_heads, head_dim), like ``query``.

    ``query`` has a row a token or, when ``packing.ends_only``, a row a text: its last token.
    ``key`` and ``value`` are (n_tokens, n_kv_heads, head_dim); heads may share them.
    """
    return (packing.kernel or by_equal_lengths)(query, key, value, packing, rule)


def register() -> None:
    """Make ``attn_implementation=NAME`` known to transformers; harmless to repeat.

    No mask function is registered under the name: transformers then makes no mask and looks at no
    position, which on a GPU would wait for it.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float,
    packing: Layout,
    sliding_window: int | None = None,
    **_from_transformers: object,
) -> tuple[Tensor, None]:
    """Attention of a packed batch, in the form transformers' layers call.

    ``query`` is (1, n_heads, n_tokens, head_dim), ``key`` and ``value`` may have fewer heads;
    gives (1, n_tokens, n_heads, head_dim). ``sliding_window`` counts the token itself and what it
    sees on one side. transformers passes more by name, none of it ours.
    """
    causal = bool(getattr(module, "is_causal", False))
    rule = Rule(causal, scaling, None if sliding_window is None else sliding_window - 1)
    # transformers has heads before tokens
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    return attend(q, k, v, packing, rule)[None], None
