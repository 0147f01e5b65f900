"""What a decoder layer does between its matrices, each formula once; on CUDA a fused kernel each.

These run at the memory's speed: a model of 0.6B's size spends more time here than in matrices when
every operation is a kernel of its own. torch's compiler makes one kernel of each function for any
number of tokens and keeps it on disk, so that the next process on a machine finds it ready.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

TRIED_TOKENS, TRIED_SIZE = 64, 32
"""Shape of what tells whether the compiler works at all."""

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
    """The three functions, plain or compiled."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    norm_rotate: Callable[[Tensor, Tensor | None, float, Tensor, Tensor], Tensor]
    swiglu: Callable[[Tensor, Tensor], Tensor]


EAGER = Elementwise(rms_norm, norm_rotate, swiglu)


def elementwise(device: torch.device) -> Elementwise:
    """The functions for this device: compiled on CUDA; plain, with a warning, if that fails there.

    On a CPU compiling gained less than its own time costs a short run (docs/lab-log.md).
    """
    return _compiled(device) if compiles_for(device) else EAGER


def compiles_for(device: torch.device) -> bool:
    """Whether fused kernels are worth compiling on this device."""
    return device.type == "cuda"


@lru_cache(maxsize=8)
def _compiled(device: torch.device) -> Elementwise:
    """Compiled at the first call with a model's sizes; tried at once on small ones."""
    functions = Elementwise(
        _for_any_tokens(rms_norm), _for_any_tokens(norm_rotate), _for_any_tokens(swiglu)
    )
    try:
        x = torch.zeros(TRIED_TOKENS, TRIED_SIZE, device=device)
        functions.rms_norm(x, x[0], 0.0)
    except Exception as error:  # noqa: BLE001  whatever a compiler says
        warnings.warn(
            f"torch.compile does not work on {device} ({type(error).__name__}: {error}); the model "
            "runs without fused kernels, slower: install a C compiler and the Triton of this torch",
            RuntimeWarning,
            stacklevel=2,
        )
        return EAGER
    return functions


def _for_any_tokens(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compiled once for a model: tokens and heads may vary, its other sizes are constants."""
    compiled = torch.compile(function)

    def call(*arguments: Any) -> Tensor:
        for tensor in arguments:
            if isinstance(tensor, Tensor) and tensor.ndim > 1:
                for dim in range(tensor.ndim - 1):
                    torch._dynamo.maybe_mark_dynamic(tensor, dim)
                torch._dynamo.mark_static(tensor, tensor.ndim - 1)
        out: Tensor = compiled(*arguments)
        return out

    return call
