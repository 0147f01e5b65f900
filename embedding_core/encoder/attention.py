"""Attention among texts that lie end to end, plugged into transformers' own models.

transformers looks attention up by name in a registry; ``register`` adds ours there, and every
layer then calls ``packed_attention`` with the ``Layout`` that the forward pass was given. No mask
is ever made: a text's tokens see their own text and nothing else by construction.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from embedding_core.encoder.packing import equal_length_runs

NAME = "embedlake_packed"
"""Our entry in transformers' registries."""

PLAIN_SCORES = 2_000_000
"""Attention scores computed at a time in bf16 on a CPU: 4 MB. Above it, memory eats the gain."""

BAND_BLOCK = 128
"""Fewest queries of a block in windowed attention: smaller blocks are all overhead."""

Tensor = torch.Tensor
VarlenKernel = Callable[[Tensor, Tensor, Tensor, "Layout", "Rule"], Tensor]
"""(n_tokens, n_heads, head_dim) queries, keys, values; layout; rule -> like queries."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the texts of a packed batch lie, in the forms the kernels want."""

    runs: tuple[tuple[int, int], ...]
    """Neighbours of equal length: (n_texts, length)."""
    bounds: Tensor
    """(n_texts + 1,) int32 on the model's device: first token of each text, and the end."""
    longest: int
    """Tokens of the longest text."""
    kernel: VarlenKernel | None
    """Attention over variable lengths in one call; None: one call per run of equal lengths."""
    ends_only: bool = False
    """Whether there is one query a text, its last token, instead of one a token."""

    @property
    def query_bounds(self) -> Tensor:
        """(n_texts + 1,) int32: first query of each text, and the end."""
        if not self.ends_only:
            return self.bounds
        return torch.arange(len(self.bounds), dtype=torch.int32, device=self.bounds.device)

    @property
    def most_queries(self) -> int:
        """Of one text."""
        return 1 if self.ends_only else self.longest


@dataclass(frozen=True, slots=True)
class Rule:
    """What a token sees of its own text, and how scores are scaled."""

    causal: bool
    """Nothing after itself."""
    scale: float
    """Factor of the scores before the softmax."""
    reach: int | None = None
    """Tokens that it sees on each side of itself; None: all."""


def layout(
    lengths: Sequence[int], device: torch.device, kernel: VarlenKernel | None = None
) -> Layout:
    """The layout of texts of these lengths, end to end in this order."""
    bounds = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    bounds[1:] = torch.tensor(lengths).cumsum(0)
    return Layout(
        runs=tuple(equal_length_runs(lengths)),
        bounds=bounds.to(device, non_blocking=True),
        longest=max(lengths),
        kernel=kernel,
    )


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
    if packing.kernel is not None:
        q, k, v = (
            t[0].transpose(0, 1) for t in (query, key, value)
        )  # (n_tokens, n_heads, head_dim)
        return packing.kernel(q, k, v, packing, rule)[None], None
    return _by_equal_lengths(query, key, value, packing, rule), None


def _by_equal_lengths(
    query: Tensor, key: Tensor, value: Tensor, packing: Layout, rule: Rule
) -> Tensor:
    """One dense call per run of equal lengths: no padding, no mask."""
    _, n_heads, n_tokens, head_dim = query.shape
    out = query.new_empty(1, n_tokens, n_heads, head_dim)
    half_on_cpu = query.dtype == torch.bfloat16 and query.device.type == "cpu"
    start = 0
    for n_texts, length in packing.runs:
        banded = rule.reach is not None and rule.reach < length - 1
        plain = half_on_cpu and not rule.causal and not banded
        at_once = PLAIN_SCORES // (n_heads * length**2) if plain else 0
        attend = _plain if at_once else _banded if banded else _dense
        for done in range(0, n_texts, at_once or n_texts):
            n_now = min(at_once or n_texts, n_texts - done)
            end = start + n_now * length
            q, k, v = (_texts_of(t, start, end, length) for t in (query, key, value))
            attended = attend(q, k, v, rule)
            out[0, start:end] = attended.transpose(1, 2).reshape(end - start, n_heads, head_dim)
            start = end
    return out


def attend_from_ends(
    query: Tensor, key: Tensor, value: Tensor, packing: Layout, scale: float
) -> Tensor:
    """Attention of each text's last token over its text: (1, n_texts, n_heads, head_dim).

    ``query`` is (1, n_heads, n_texts, head_dim), ``key`` and ``value`` are those of all tokens.
    """
    rule = Rule(causal=False, scale=scale)  # the last token sees everything
    if packing.kernel is not None:
        q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
        return packing.kernel(q, k, v, replace(packing, ends_only=True), rule)[None]
    out, text, start = [], 0, 0
    for n_texts, length in packing.runs:
        end = start + n_texts * length
        q = _texts_of(query, text, text + n_texts, 1)
        k, v = (_texts_of(t, start, end, length) for t in (key, value))
        out.append(_dense(q, k, v, rule).transpose(1, 2).flatten(0, 1))  # (n_texts, n_heads, …)
        text, start = text + n_texts, end
    return torch.cat(out)[None]


def _dense(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """(n_texts, n_heads, length, head_dim) by torch's own kernel."""
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        is_causal=rule.causal and query.shape[2] > 1,
        scale=rule.scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def _banded(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """Like ``_dense`` when tokens see only their neighbours: a block of queries at a time.

    A block meets the keys within reach of it, so cost and mask grow with length × reach.
    """
    assert rule.reach is not None
    length, block = query.shape[2], max(rule.reach, BAND_BLOCK)
    out = torch.empty_like(query)
    places = torch.arange(length, device=query.device)
    for start in range(0, length, block):
        end = min(start + block, length)
        first = max(0, start - rule.reach)
        last = end if rule.causal else min(length, end + rule.reach)
        distance = places[start:end, None] - places[None, first:last]  # (n_queries, n_keys)
        seen = distance.abs() <= rule.reach
        out[:, :, start:end] = F.scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, first:last],
            value[:, :, first:last],
            attn_mask=seen & (distance >= 0) if rule.causal else seen,
            scale=rule.scale,
            enable_gqa=key.shape[1] != query.shape[1],
        )
    return out


def _plain(query: Tensor, key: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """The formula as it stands: 0.6 times the CPU kernel's time while the scores fit in cache.

    Scores are rounded to bf16, as everything around them is.
    """
    if key.shape[1] != query.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = (t.repeat_interleave(repeats, dim=1) for t in (key, value))
    scores = torch.matmul(query * rule.scale, key.transpose(2, 3))
    return torch.matmul(scores.softmax(-1), value)


def _texts_of(packed: Tensor, start: int, end: int, length: int) -> Tensor:
    """Tokens start to end as (n_texts, n_heads, length, head_dim), a view."""
    _, n_heads, _, head_dim = packed.shape
    return packed[0, :, start:end].view(n_heads, -1, length, head_dim).transpose(0, 1)


def varlen_kernel(
    dtype: torch.dtype, device: torch.device, head_dim: int, windowed: bool
) -> VarlenKernel | None:
    """torch's variable-length attention if it runs this: CUDA from Ampere on, half precision.

    ``windowed``: some layer limits how far a token sees. Without the kernel the caller falls back
    to ``padded_kernel`` or to runs of equal lengths.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return None
    if torch.cuda.get_device_capability(device) < (8, 0) or head_dim > 256 or head_dim % 8:
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    if windowed and "window_size" not in inspect.signature(varlen_attn).parameters:
        return None
    return adapt_varlen(varlen_attn)


def adapt_varlen(varlen_attn: Callable[..., Any]) -> VarlenKernel:
    """torch's function under one signature; its own differs by version.

    2.10 says ``is_causal`` and takes no scale, 2.11 and later say ``window_size``; ``enable_gqa``
    came with 2.12. ``num_splits=1`` makes a text's result independent of its batch.
    """
    known = inspect.signature(varlen_attn).parameters

    def kernel(query: Tensor, key: Tensor, value: Tensor, packing: Layout, rule: Rule) -> Tensor:
        options: dict[str, Any] = {}
        if "scale" in known:
            options["scale"] = rule.scale
        else:  # it divides by sqrt(head_dim) by itself
            query = query * (rule.scale * query.shape[-1] ** 0.5)
        if "window_size" in known:
            reach = -1 if rule.reach is None else rule.reach
            options["window_size"] = (reach, 0 if rule.causal else reach)
        else:
            options["is_causal"] = rule.causal
        if "num_splits" in known:
            options["num_splits"] = 1
        if key.shape[1] != query.shape[1]:
            if "enable_gqa" in known:
                options["enable_gqa"] = True
            else:
                repeats = query.shape[1] // key.shape[1]
                key, value = (t.repeat_interleave(repeats, dim=1) for t in (key, value))
        bounds = (packing.query_bounds, packing.bounds)
        out: Tensor = varlen_attn(
            query, key, value, *bounds, packing.most_queries, packing.longest, **options
        )
        return out  # (n_tokens, n_heads, head_dim)

    return kernel


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
    place = torch.arange(n_tokens, device=query.device) - starts[text_of]
    slots = text_of * packing.longest + place  # (n_tokens,) where each token goes when padded

    def padded(flat: Tensor) -> Tensor:
        texts = flat.new_zeros(n_texts * packing.longest, *flat.shape[1:])
        texts[slots] = flat
        return texts.view(n_texts, packing.longest, *flat.shape[1:]).transpose(1, 2)

    attended = F.scaled_dot_product_attention(
        padded(query),
        padded(key),
        padded(value),
        is_causal=True,
        scale=rule.scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )  # (n_texts, n_heads, longest, head_dim)
    return attended.transpose(1, 2).flatten(0, 1)[slots]  # (n_tokens, n_heads, head_dim)
