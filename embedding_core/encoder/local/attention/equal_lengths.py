"""Attention with one dense call per run of equal lengths: no padding, no mask, any device.

On a CPU the formula written out beats torch's own kernel while the scores fit in the caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from embedding_core.encoder.local.attention.dense import dense
from embedding_core.encoder.local.attention.packed_layout import Layout, Rule

SCORE_BYTES = 1024**2
"""Attention scores of several texts at a time on a CPU: they stay in the cache of a core."""
MOST_SCORE_BYTES = 4 * 1024**2
"""Attention scores of a single text. Above it, memory eats the gain."""

CAUSAL_BLOCK = 64
"""Queries of a block in causal attention on a CPU; what lies after a block is not computed."""

BAND_BLOCK = 128
"""Fewest queries of a block in windowed attention: smaller blocks are all overhead."""

BF16_LANES = 32
"""bf16 values of a vector register; torch's softmax in bf16 is slow on rows of another multiple."""

Tensor = torch.Tensor


def by_equal_lengths(
    query: Tensor, key: Tensor, value: Tensor, packing: Layout, rule: Rule
) -> Tensor:
    """See ``attend``."""
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    row = token = 0
    for n_texts, length in packing.runs:
        n_queries = 1 if packing.ends_only else length
        attend, most_texts = _choose(query, n_queries, length, rule)
        for done in range(0, n_texts, most_texts):
            n_now = min(most_texts, n_texts - done)
            last_row, last_token = row + n_now * n_queries, token + n_now * length
            q = _texts(query[row:last_row], n_now)
            k, v = (_texts(t[token:last_token], n_now) for t in (key, value))
            _texts(out[row:last_row], n_now).copy_(attend(q, k, v, rule))
            row, token = last_row, last_token
    return out


def _texts(tokens: Tensor, n_texts: int) -> Tensor:
    """(n_texts * length, n_heads, head_dim) as (n_texts, n_heads, length, head_dim), a view."""
    return tokens.view(n_texts, -1, *tokens.shape[1:]).transpose(1, 2)


Attend = Callable[[Tensor, Tensor, Tensor, Rule], Tensor]
"""(n_texts, n_heads, n_queries, head_dim) of queries, keys, values of such shapes."""


def _choose(query: Tensor, n_queries: int, length: int, rule: Rule) -> tuple[Attend, int]:
    """The fastest function for texts of this length, and how many texts it takes at a time."""
    everything = len(query)
    if n_queries < length:
        return _from_ends, everything
    if rule.reach is not None and rule.reach < length - 1:
        return _banded, everything
    if query.device.type == "cpu":
        block = min(length, CAUSAL_BLOCK) if rule.causal else length
        size = torch.float32.itemsize if rule.causal else query.dtype.itemsize
        text_bytes = query.shape[1] * block * length * size
        if text_bytes <= MOST_SCORE_BYTES:
            attend = _causal_blocks if rule.causal else _written_out
            return attend, max(1, SCORE_BYTES // text_bytes)
    return _dense, everything


def _dense(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """(n_texts, n_heads, length, head_dim) by torch's own kernel."""
    return dense(query, key, value, rule.scale, causal=rule.causal and query.shape[2] > 1)


def _from_ends(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """The last token of each text over what it sees of its text."""
    seen = slice(None) if rule.reach is None else slice(-rule.reach - 1, None)
    return _dense(query, key[:, :, seen], value[:, :, seen], replace(rule, causal=False))


def _causal_blocks(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """The formula as it stands, a block of queries over the keys up to its end, scores in fp32.

    Heads that share keys are one matrix of more rows.
    """
    n_texts, n_heads, length, head_dim = query.shape
    n_keys = n_texts * key.shape[1]  # matrices of keys
    n_shared = n_heads // key.shape[1]
    queries = query.reshape(n_keys, n_shared, length, head_dim).float() * rule.scale
    keys = key.flatten(0, 1).float().transpose(1, 2)  # (n_keys, head_dim, length)
    values = value.flatten(0, 1)
    out = torch.empty_like(queries, dtype=value.dtype)
    for start in range(0, length, CAUSAL_BLOCK):
        end = min(start + CAUSAL_BLOCK, length)
        scores = torch.bmm(queries[:, :, start:end].flatten(1, 2), keys[:, :, :end])
        scores = scores.view(n_keys, n_shared, end - start, end)
        scores[..., start:] += torch.full((end - start, end - start), -torch.inf).triu(1)
        weights = scores.softmax(-1).to(value.dtype).flatten(1, 2)
        attended = torch.bmm(weights, values[:, :end])
        out[:, :, start:end] = attended.view(n_keys, n_shared, end - start, head_dim)
    return out.view(n_texts, n_heads, length, head_dim)


def _written_out(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """The formula as it stands; in bf16 the scores are rounded, as everything around them is."""
    if key.shape[1] != query.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = (t.repeat_interleave(repeats, dim=1) for t in (key, value))
    q, k, v = (t.flatten(0, 1) for t in (query, key, value))  # (n_texts * n_heads, length, …)
    scores = q.new_empty(len(q), q.shape[1], k.shape[1])
    torch.baddbmm(scores, q, k.transpose(1, 2), beta=0, alpha=rule.scale, out=scores)
    if scores.dtype == torch.bfloat16 and scores.shape[-1] % BF16_LANES:
        weights = scores.copy_(scores.softmax(-1, dtype=torch.float32))
    else:
        weights = scores.softmax(-1)
    return torch.bmm(weights, v).view(query.shape)


def _banded(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """Like ``_dense`` when tokens see only their neighbours: a block of queries at a time.

    A block meets the keys within reach of it, so cost and mask grow with length × reach.
    """
    assert rule.reach is not None
    length, block = query.shape[2], max(rule.reach, BAND_BLOCK)
    out = torch.empty_like(query)
    tokens = torch.arange(length, device=query.device)
    for start in range(0, length, block):
        end = min(start + block, length)
        first = max(0, start - rule.reach)
        last = end if rule.causal else min(length, end + rule.reach)
        distance = tokens[start:end, None] - tokens[None, first:last]  # (n_queries, n_keys)
        seen = distance.abs() <= rule.reach
        out[:, :, start:end] = dense(
            query[:, :, start:end],
            key[:, :, first:last],
            value[:, :, first:last],
            rule.scale,
            mask=seen & (distance >= 0) if rule.causal else seen,
        )
    return out
