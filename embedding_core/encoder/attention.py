"""Attention among texts that lie end to end, plugged into transformers' own models.

transformers looks attention up by name in a registry; ``register`` adds ours there, and every
layer then calls ``packed_attention`` with the ``Layout`` that the forward pass was given. No mask
is ever made: a text's tokens see their own text and nothing else by construction.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from embedding_core.encoder.packing import equal_length_runs

NAME = "embedlake_packed"
"""Our entry in transformers' registries."""

PLAIN_SCORES = 2_000_000
"""Attention scores computed at a time in bf16 on a CPU: 4 MB. Above it, memory eats the gain."""

Tensor = torch.Tensor
VarlenKernel = Callable[[Tensor, Tensor, Tensor, "Layout", bool, float], Tensor]
"""(n_tokens, n_heads, head_dim) queries, keys, values; layout; causal; scale -> like queries."""


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
    """Make ``attn_implementation=NAME`` known to transformers; harmless to repeat."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def _no_mask(*_arguments: object, **_named: object) -> None:
    """transformers asks for a mask in ways that differ by version; we never need one."""


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float,
    packing: Layout,
    **_from_transformers: object,
) -> tuple[Tensor, None]:
    """Attention of a packed batch, in the form transformers' layers call.

    ``query`` is (1, n_heads, n_tokens, head_dim), ``key`` and ``value`` may have fewer heads;
    gives (1, n_tokens, n_heads, head_dim). transformers passes more by name, none of it ours.
    """
    causal = bool(getattr(module, "is_causal", False))
    if packing.kernel is not None:
        q, k, v = (
            t[0].transpose(0, 1) for t in (query, key, value)
        )  # (n_tokens, n_heads, head_dim)
        return packing.kernel(q, k, v, packing, causal, scaling)[None], None
    return _by_equal_lengths(query, key, value, packing, causal, scaling), None


def _by_equal_lengths(
    query: Tensor, key: Tensor, value: Tensor, packing: Layout, causal: bool, scale: float
) -> Tensor:
    """One dense call per run of equal lengths: no padding, no mask."""
    _, n_heads, n_tokens, head_dim = query.shape
    out = query.new_empty(1, n_tokens, n_heads, head_dim)
    start = 0
    for n_texts, length in packing.runs:
        plain = not causal and query.dtype == torch.bfloat16 and query.device.type == "cpu"
        at_once = PLAIN_SCORES // (n_heads * length**2) if plain else 0
        for done in range(0, n_texts, at_once or n_texts):
            n_now = min(at_once or n_texts, n_texts - done)
            end = start + n_now * length
            q, k, v = (_texts_of(t, start, end, length) for t in (query, key, value))
            attended = _plain(q, k, v, scale) if at_once else _dense(q, k, v, causal, scale)
            out[0, start:end] = attended.transpose(1, 2).reshape(end - start, n_heads, head_dim)
            start = end
    return out


def _dense(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> Tensor:
    """(n_texts, n_heads, length, head_dim) by torch's own kernel."""
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        is_causal=causal and query.shape[2] > 1,
        scale=scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def _plain(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """The formula as it stands: 0.6 times the CPU kernel's time while the scores fit in cache.

    Scores are rounded to bf16, as everything around them is.
    """
    return torch.matmul(torch.matmul(query * scale, key.transpose(2, 3)).softmax(-1), value)


def _texts_of(packed: Tensor, start: int, end: int, length: int) -> Tensor:
    """Tokens start to end as (n_texts, n_heads, length, head_dim), a view."""
    _, n_heads, _, head_dim = packed.shape
    return packed[0, :, start:end].view(n_heads, -1, length, head_dim).transpose(0, 1)


def varlen_kernel(dtype: torch.dtype, device: torch.device, head_dim: int) -> VarlenKernel | None:
    """torch's variable-length attention if it runs this: CUDA from Ampere on, half precision.

    Without it the caller falls back to ``padded_kernel`` or to runs of equal lengths.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return None
    if torch.cuda.get_device_capability(device) < (8, 0) or head_dim > 256 or head_dim % 8:
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return adapt_varlen(varlen_attn)


def adapt_varlen(varlen_attn: Callable[..., Any]) -> VarlenKernel:
    """torch's function under one signature; its own differs by version.

    2.10 says ``is_causal`` and takes no scale, 2.11 and later say ``window_size``; ``enable_gqa``
    came with 2.12. ``num_splits=1`` makes a text's result independent of its batch.
    """
    known = inspect.signature(varlen_attn).parameters

    def kernel(
        query: Tensor, key: Tensor, value: Tensor, packing: Layout, causal: bool, scale: float
    ) -> Tensor:
        options: dict[str, Any] = {}
        if "scale" in known:
            options["scale"] = scale
        else:  # it divides by sqrt(head_dim) by itself
            query = query * (scale * query.shape[-1] ** 0.5)
        if "window_size" in known:
            options["window_size"] = (-1, 0) if causal else (-1, -1)
        else:
            options["is_causal"] = causal
        if "num_splits" in known:
            options["num_splits"] = 1
        if key.shape[1] != query.shape[1]:
            if "enable_gqa" in known:
                options["enable_gqa"] = True
            else:
                repeats = query.shape[1] // key.shape[1]
                key, value = (t.repeat_interleave(repeats, dim=1) for t in (key, value))
        bounds, longest = packing.bounds, packing.longest
        out: Tensor = varlen_attn(query, key, value, bounds, bounds, longest, longest, **options)
        return out  # (n_tokens, n_heads, head_dim)

    return kernel


def padded_kernel(
    query: Tensor, key: Tensor, value: Tensor, packing: Layout, causal: bool, scale: float
) -> Tensor:
    """Causal attention of right-padded texts without a mask.

    Exact: padding comes after a text's last token, and no token looks ahead. Only for causal
    models. Lengths in a batch are close to each other, so little is padded.
    """
    if not causal:
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
        scale=scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )  # (n_texts, n_heads, longest, head_dim)
    return attended.transpose(1, 2).flatten(0, 1)[slots]  # (n_tokens, n_heads, head_dim)
