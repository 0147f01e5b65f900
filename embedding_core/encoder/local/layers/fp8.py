"""Matrix products in fp8 (e4m3): weights rounded at load, inputs at every call, a scale a row.

A Hopper GPU multiplies fp8 about twice as fast as bf16. The vectors differ from bf16's, so they are
another space. A CPU has no such product: there the same rounding is followed by a product in fp32,
which shows the quality of the vectors and gains no time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn

from embedding_core.encoder.local.layers.linear import Activation, Linear
from embedding_core.errors import ModelError

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
MULTIPLE = 16
"""Both sizes of a weight must be multiples of this for the hardware's product."""
CAPABILITY = (8, 9)
"""First CUDA architecture with the product: Ada; Hopper is (9, 0)."""

Tensor = torch.Tensor


def to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` (n, size) as (n, size) fp8 and (n, 1) fp32 scales: their product is ``x``, rounded.

    The largest value of a row becomes the largest of fp8.
    """
    wide = x.float()
    scales = wide.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (wide / scales).to(FP8), scales


class Fp8Linear(nn.Module):
    """``act(x W' + b)`` in fp8; the sum is fp32, the result of the type of ``x``."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Activation) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        if n_out % MULTIPLE or n_in % MULTIPLE:
            raise ModelError(
                f"dtype fp8 wants matrices whose sizes are multiples of {MULTIPLE}, and one of "
                f"this model is {n_out} x {n_in}; use bf16"
            )
        self._weight, self._scales = to_fp8(weight)
        self._bias, self._activation = bias, activation
        if weight.device.type == "cuda":
            from embedding_core.encoder.local.layers import kernels

            self._to_fp8, self._product = kernels.to_fp8, _on_tensor_cores
        else:
            self._to_fp8, self._product = to_fp8, _emulated

    def forward(self, x: Tensor) -> Tensor:
        """(n, n_in) to (n, n_out)."""
        rounded, scales = self._to_fp8(x)
        out = self._product(rounded, scales, self._weight, self._scales).to(x.dtype)
        if self._bias is not None:
            out += self._bias
        return F.gelu(out) if self._activation == "gelu" else out

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """``residual + x W' + b``, written into ``residual``; no activation."""
        return residual.add_(self(x))


def beside_fp8(device: torch.device) -> torch.dtype:
    """The type of the rest of the model: fp32 on a CPU, where our bf16 layers are oneDNN's."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def quantise(model: nn.Module) -> None:
    """Put ``Fp8Linear`` in the place of every ``Linear`` of a model, in place.

    Raises ``ModelError`` for a device without the product, and for a model without such layers.
    """
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Linear)]
    if not layers:
        raise ModelError(
            "dtype fp8 is made for models of Llama's and BERT's structure (Qwen3, Qwen2, Llama, "
            "Mistral, BERT, RoBERTa), and this is another; use bf16"
        )
    device = layers[0][1].weight.device
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
        raise ModelError(
            f"dtype fp8 needs a GPU of compute capability {CAPABILITY[0]}.{CAPABILITY[1]} or more "
            f"(Ada, Hopper), and {torch.cuda.get_device_name(device)} has less; use bf16"
        )
    for name, layer in layers:
        model.set_submodule(name, Fp8Linear(layer.weight, layer.bias, layer.activation))


def _on_tensor_cores(x: Tensor, x_scales: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    product: Tensor = torch._scaled_mm(
        x,
        weight.t(),
        scale_a=x_scales,
        scale_b=scales.t(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    return product


def _emulated(x: Tensor, x_scales: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    return F.linear(x.float(), weight.float()) * x_scales * scales.t()
