"""The formulas of ``elementwise`` and the rounding to fp8 as Triton kernels: each reads its input
once and writes its output once.

All compute in fp32 and round at the end, so they are nearer to fp32 than torch, which rounds
between the operations. Inputs may be columns of a wider tensor: only their last dimension must be
contiguous.
Importing this needs Triton, which a CUDA build of torch brings.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

Tensor = torch.Tensor

SWIGLU_COLUMNS = 1024
"""Columns that a program computes: eight values, 16 bytes, a thread."""


@triton.jit
def _rms_norm(x, weight, out, eps, x_stride, size: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < size
    values = tl.load(x + row * x_stride + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, 0) / size + eps)
    weights = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    normed = values * scale * weights
    tl.store(out + row * size + at, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _norm_rotate(
    heads, weight, cos, sin, out, eps, heads_stride, angles_stride,
    n_heads: tl.constexpr, half: tl.constexpr, normed: tl.constexpr,
    head_block: tl.constexpr, half_block: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, head_block)[:, None]
    at = tl.arange(0, half_block)[None, :]
    in_half = at < half
    inside = (head < n_heads) & in_half
    offset = head * (2 * half) + at
    source = heads + token * heads_stride + offset
    left = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(source + half, mask=inside, other=0.0).to(tl.float32)
    if normed:
        squares = tl.sum(left * left, 1) + tl.sum(right * right, 1)
        scale = tl.rsqrt(squares / (2 * half) + eps)[:, None]
        left *= scale * tl.load(weight + at, mask=in_half, other=0.0).to(tl.float32)
        right *= scale * tl.load(weight + half + at, mask=in_half, other=0.0).to(tl.float32)
    angle = token * angles_stride + at  # both halves of a head turn by the same angles
    c = tl.load(cos + angle, mask=in_half, other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=in_half, other=0.0).to(tl.float32)
    target = out + token * (n_heads * 2 * half) + offset
    tl.store(target, (left * c - right * s).to(out.dtype.element_ty), mask=inside)
    tl.store(target + half, (right * c + left * s).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu(gate, up, out, gate_stride, up_stride, width: tl.constexpr, block: tl.constexpr):
    blocks = (width + block - 1) // block
    row = (tl.program_id(0) // blocks).to(tl.int64)
    at = (tl.program_id(0) % blocks) * block + tl.arange(0, block)
    inside = at < width
    gates = tl.load(gate + row * gate_stride + at, mask=inside, other=0.0).to(tl.float32)
    ups = tl.load(up + row * up_stride + at, mask=inside, other=0.0).to(tl.float32)
    product = gates * tl.sigmoid(gates) * ups
    tl.store(out + row * width + at, product.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _to_fp8(
    x, out, scales, x_stride, size: tl.constexpr, block: tl.constexpr, largest: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < size
    values = tl.load(x + row * x_stride + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(values), 0), 1e-12) / largest
    tl.store(out + row * size + at, (values / scale).to(out.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See ``elementwise.rms_norm``; ``x`` is (n, size)."""
    n, size = x.shape
    out = x.new_empty(n, size)
    block = triton.next_power_of_2(size)
    _rms_norm[(n,)](x, weight, out, eps, x.stride(0), size, block, num_warps=_warps(block))
    return out


def norm_rotate(
    heads: Tensor, weight: Tensor | None, eps: float, cos: Tensor, sin: Tensor
) -> Tensor:
    """See ``elementwise.norm_rotate``; the heads of a token lie side by side."""
    n, n_heads, head_dim = heads.shape
    out = heads.new_empty(n, n_heads, head_dim)
    head_block = triton.next_power_of_2(n_heads)
    half_block = triton.next_power_of_2(head_dim // 2)
    _norm_rotate[(n,)](
        heads,
        heads if weight is None else weight,
        cos,
        sin,
        out,
        eps,
        heads.stride(0),
        cos.stride(0),
        n_heads,
        head_dim // 2,
        weight is not None,
        head_block,
        half_block,
        num_warps=_warps(2 * head_block * half_block),
    )
    return out


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """See ``elementwise.swiglu``."""
    n, width = gate.shape
    out = gate.new_empty(n, width)
    grid = (n * triton.cdiv(width, SWIGLU_COLUMNS),)
    _swiglu[grid](gate, up, out, gate.stride(0), up.stride(0), width, SWIGLU_COLUMNS, num_warps=4)
    return out


def to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """See ``fp8.to_fp8``."""
    n, size = x.shape
    out = torch.empty(n, size, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(n, 1, dtype=torch.float32, device=x.device)
    block, largest = triton.next_power_of_2(size), torch.finfo(out.dtype).max
    _to_fp8[(n,)](x, out, scales, x.stride(0), size, block, largest, num_warps=_warps(block))
    return out, scales


def _warps(values: int) -> int:
    """Warps of a program that works on so many values: 16 or more a thread, in powers of two."""
    return int(min(8, max(1, values // 512)))
