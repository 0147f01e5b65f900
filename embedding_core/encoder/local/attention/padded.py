"""Attention in one padded call, for GPUs without the kernel for variable lengths."""

from __future__ import annotations

import torch

from embedding_core.encoder.local.attention.dense import dense
from embedding_core.encoder.local.attention.packed_layout import Layout, Rule

Tensor = torch.Tensor


def padded_kernel(query: Tensor, key: Tensor, value: Tensor, packing: Layout, rule: Rule) -> Tensor:
    """Causal attention of right-padded texts without a mask.

    Exact: padding comes after a text's last token, and no token looks ahead. Only for causal
    models. Lengths in a batch are close to each other, so little is padded.
    """
    if not rule.causal or rule.reach is not None:
        raise ValueError("right padding without a mask is exact for causal models only")
    n_tokens, n_texts = len(query), len(packing.bounds) - 1
    starts = packing.bounds[:-1].long()  # (n_texts,)
    text_of = torch.repeat_interleave(packing.bounds.diff(), output_size=n_tokens)  # (n_tokens,)
    positions = torch.arange(n_tokens, device=query.device) - starts[text_of]  # (n_tokens,)
    slots = text_of * packing.longest + positions  # (n_tokens,) padded position of each token

    def padded(flat: Tensor) -> Tensor:
        texts = flat.new_zeros(n_texts * packing.longest, *flat.shape[1:])
        texts[slots] = flat
        return texts.view(n_texts, packing.longest, *flat.shape[1:]).transpose(1, 2)

    # (n_texts, n_heads, longest, head_dim)
    attended = dense(padded(query), padded(key), padded(value), rule.scale, causal=True)
    return attended.transpose(1, 2).flatten(0, 1)[slots]  # (n_tokens, n_heads, head_dim)
