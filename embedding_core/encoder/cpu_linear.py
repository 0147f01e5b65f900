"""bf16 matrices on a CPU as oneDNN likes them: weights reordered once, bias and GELU fused in.

torch's own ``linear`` reorders the weight and copies the bias on every call, and its GELU goes
over memory once more. torch's compiler calls the two operators used here; they are not in torch's
documentation, so a torch without them keeps its own layers and only loses speed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

EXPECTED_TOKENS = 4096
"""Rows of a typical batch; oneDNN picks the weights' order for it. Any other number works."""


def fuse_linears(model: nn.Module, gelu_after: str | None) -> None:
    """Replace every linear layer of a bf16 CPU model, in place, when torch has what it takes.

    A layer whose name ends with ``gelu_after`` also applies the exact GELU; the caller removes it
    from where it was, if ``can_fuse`` says that this happens at all.
    """
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear):
            gelu = gelu_after is not None and name.endswith(gelu_after)
            model.set_submodule(name, _FusedLinear(layer, "gelu" if gelu else "none"))


def can_fuse() -> bool:
    """Whether this torch and this CPU have oneDNN's bf16 operators."""
    operators = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(operators, "_linear_pointwise")
        and hasattr(operators, "_reorder_linear_weight")
        and bool(operators._is_mkldnn_bf16_supported())
    )


class _FusedLinear(nn.Module):
    """``act(x W' + b)`` in one call; the sum and the activation are taken in fp32."""

    def __init__(self, linear: nn.Linear, activation: Literal["none", "gelu"]) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_TOKENS)
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, n_in) to (…, n_out), bf16."""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, self._activation, [], "none"
        )
        return out
