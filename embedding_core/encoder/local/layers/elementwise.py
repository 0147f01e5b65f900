"""The three steps of a decoder layer between its matrices: each formula once, and who runs them.

They run at the memory's speed: with one kernel an operation, a model of 0.6B's size spends more
time here than in its matrices. On CUDA each step is one kernel (``kernels.py``); elsewhere, and
where these do not work, torch runs the formulas as they stand.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

Tensor = torch.Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square norm over the last dimension, in fp32, as transformers computes it.

    Zhang & Sennrich 2019, "Root Mean Square Layer Normalization".
    """
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * (wide * scale).to(x.dtype)


def norm_rotate(
    heads: Tensor, weight: Tensor | None, eps: float, cos: Tensor, sin: Tensor
) -> Tensor:
    """Norm of each head, if the model has one, then rotary position encoding.

    ``heads`` is (n_tokens, n_heads, head_dim), ``cos`` and ``sin`` are (n_tokens, 1, head_dim).
    Su et al. 2021, "RoFormer", in transformers' order: the halves of a head are rotated.
    """
    if weight is not None:
        heads = rms_norm(heads, weight, eps)
    left, right = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-right, left), dim=-1) * sin


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Both (n, width), so is the result. Shazeer 2020, "GLU Variants Improve Transformer"."""
    return F.silu(gate) * up


@dataclass(frozen=True, slots=True)
class Elementwise:
    """The three functions, by torch or by our kernels."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    norm_rotate: Callable[[Tensor, Tensor | None, float, Tensor, Tensor], Tensor]
    swiglu: Callable[[Tensor, Tensor], Tensor]


EAGER = Elementwise(rms_norm, norm_rotate, swiglu)


def elementwise(config: Any, device: torch.device, dtype: torch.dtype) -> Elementwise:
    """The functions for a model: kernels on CUDA; torch's, with a warning, if they fail there.

    ``config`` is transformers' own. Each kernel is compiled here, at the model's sizes, so that
    the first batch does not wait for it; a machine keeps the result on disk.
    """
    if not fuses_for(device):
        return EAGER
    try:
        from embedding_core.encoder.local.layers import kernels

        fused = Elementwise(kernels.rms_norm, kernels.norm_rotate, kernels.swiglu)
        _try(fused, config, device, dtype)
    except Exception as error:  # noqa: BLE001  whatever a missing package, a compiler or a driver says
        warnings.warn(
            f"fused kernels do not work on {device} ({type(error).__name__}: {error}); the model "
            "runs without them, slower: install a C compiler and the Triton of this torch",
            RuntimeWarning,
            stacklevel=2,
        )
        return EAGER
    return fused


def fuses_for(device: torch.device) -> bool:
    """Whether this device runs our kernels."""
    return device.type == "cuda"


def _try(fused: Elementwise, config: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Each function once on one token."""

    def ones(*shape: int) -> Tensor:
        return torch.ones(*shape, device=device, dtype=dtype)

    heads, hidden = config.num_attention_heads, config.hidden_size
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    angles = ones(1, 1, head_dim)
    fused.rms_norm(ones(1, hidden), ones(hidden), 1e-6)
    fused.swiglu(ones(1, config.intermediate_size), ones(1, config.intermediate_size))
    for n_heads in {heads, config.num_key_value_heads}:
        fused.norm_rotate(ones(1, n_heads, head_dim), ones(head_dim), 1e-6, angles, angles)
        fused.norm_rotate(ones(1, n_heads, head_dim), None, 0.0, angles, angles)
