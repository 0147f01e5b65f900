"""torch's own attention over variable lengths, for GPUs that have it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from embedding_core.encoder.local.attention.packed_layout import Layout, Rule, VarlenKernel
from embedding_core.encoder.local.device import AMPERE

Tensor = torch.Tensor


def varlen_kernel(
    dtype: torch.dtype, device: torch.device, head_dim: int, windowed: bool
) -> VarlenKernel | None:
    """torch's variable-length attention if it runs this: CUDA from Ampere on, half precision.

    ``windowed``: some layer limits how far a token sees. Without the kernel the caller falls back
    to ``padded_kernel`` or to runs of equal lengths.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return None
    if torch.cuda.get_device_capability(device) < AMPERE or head_dim > 256 or head_dim % 8:
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    if windowed and "window_size" not in inspect.signature(varlen_attn).parameters:
        return None
    return adapt_varlen(varlen_attn)


def adapt_varlen(varlen_attn: Callable[..., Any]) -> VarlenKernel:
    """torch's function under a single signature; torch's own differs by version.

    2.10 says ``is_causal``, takes no scale and as many keys as queries; 2.11 and later say
    ``window_size`` and take fewer heads of keys, 2.12 only with ``enable_gqa``. ``num_splits=1``
    makes a text's result independent of its batch.
    """
    parameters = inspect.signature(varlen_attn).parameters

    def kernel(query: Tensor, key: Tensor, value: Tensor, packing: Layout, rule: Rule) -> Tensor:
        options: dict[str, Any] = {}
        if "scale" in parameters:
            options["scale"] = rule.scale
        else:  # it divides by sqrt(head_dim) by itself
            query = query * (rule.scale * query.shape[-1] ** 0.5)
        if "window_size" in parameters:
            reach = -1 if rule.reach is None else rule.reach
            options["window_size"] = (reach, 0 if rule.causal else reach)
        else:
            options["is_causal"] = rule.causal
        if "num_splits" in parameters:
            options["num_splits"] = 1
        if key.shape[1] != query.shape[1]:
            if "enable_gqa" in parameters:
                options["enable_gqa"] = True
            elif "is_causal" in parameters:
                repeats = query.shape[1] // key.shape[1]
                key, value = (t.repeat_interleave(repeats, dim=1) for t in (key, value))
        bounds = (packing.query_bounds, packing.bounds)
        out: Tensor = varlen_attn(
            query, key, value, *bounds, packing.most_queries, packing.longest, **options
        )
        return out  # (n_tokens, n_heads, head_dim)

    return kernel
