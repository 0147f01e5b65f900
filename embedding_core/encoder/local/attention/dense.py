"""torch's own attention over texts of one length, with fewer heads of keys than of queries."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from embedding_core.encoder.local.device import AMPERE

Tensor = torch.Tensor


def dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    causal: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """(n_texts, n_heads, n_queries, head_dim) of queries, keys and values of such shapes.

    Keys and values may have fewer heads, each shared by neighbours. torch's memory-efficient kernel
    takes no shared keys: where it is the best there is they are repeated, because the kernel that
    does take them writes out the scores of all tokens, gigabytes for a long text.
    """
    shared = key.shape[1] != query.shape[1]
    if shared and _repeats_keys(query):
        repeats = query.shape[1] // key.shape[1]
        key, value = (t.repeat_interleave(repeats, dim=1) for t in (key, value))
        shared = False
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=shared
    )


def _repeats_keys(query: Tensor) -> bool:
    """Whether torch's flash kernel does not run this: it takes half precision from Ampere on."""
    if query.device.type != "cuda":
        return False
    return query.dtype == torch.float32 or torch.cuda.get_device_capability(query.device) < AMPERE
