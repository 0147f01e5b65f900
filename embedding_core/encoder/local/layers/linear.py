"""Matrices: several that read one input as one product, with the residual added to it.

bf16 on a CPU runs as oneDNN likes it: weights reordered once, bias and GELU fused in.
torch's own ``linear`` reorders the weight and copies the bias on every call. torch's compiler calls
the operators used here; they are not in torch's documentation, so a torch without them keeps its
own product and only loses speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)
from torch import nn

EXPECTED_TOKENS = 4096
"""Rows of a typical batch; oneDNN picks the weights' order for it. Any other number works."""

Activation = Literal["none", "gelu"]
Tensor = torch.Tensor


class Linear(nn.Module):
    """``act(x W' + b)``, by torch."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Activation) -> None:
        super().__init__()
        self.weight, self.bias, self.activation = weight, bias, activation

    def forward(self, x: Tensor) -> Tensor:
        """(…, n_in) to (…, n_out)."""
        out = F.linear(x, self.weight, self.bias)
        return F.gelu(out) if self.activation == "gelu" else out

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """``residual + x W' + b``: (n_rows, n_out) of (n_rows, n_in); no activation.

        Written into ``residual``: out of place cuBLAS copies it first.
        """
        residual.addmm_(x, self.weight.T)
        return residual if self.bias is None else residual.add_(self.bias)


class OneDnnLinear(nn.Module):
    """The same by oneDNN in bf16; sum and activation are taken in fp32."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Activation) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_TOKENS)
        self._bias, self._activation = bias, activation

    def forward(self, x: Tensor) -> Tensor:
        """(…, n_in) to (…, n_out)."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, self._activation, [], "none"
        )
        return out

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        """``residual + x W' + b``: (n_rows, n_out) of (n_rows, n_in); no activation."""
        out: Tensor = self(x)  # oneDNN's fused sum is slower than a second pass
        return out.add_(residual)


def fast_linear(layer: nn.Linear, activation: Activation = "none") -> Linear | OneDnnLinear:
    """The fastest product with these weights on their device, in their arithmetic."""
    weight = layer.weight.detach()
    bias = None if layer.bias is None else layer.bias.detach()
    kind = OneDnnLinear if _by_onednn(weight) else Linear
    return kind(weight, bias, activation)


class Projections(nn.Module):
    """Several linear layers of one input; on a GPU as one product.

    On a CPU one product gains nothing and leaves its parts apart in memory for attention.
    """

    def __init__(self, *layers: nn.Linear) -> None:
        super().__init__()
        self._widths = [layer.out_features for layer in layers]
        if merges_for(layers[0].weight.device):
            self._layers = nn.ModuleList([fast_linear(_merged(layers))])
        else:
            self._layers = nn.ModuleList(map(fast_linear, layers))

    def forward(self, x: Tensor) -> Sequence[Tensor]:
        """(n, n_in) to one (n, n_out) each; parts of one tensor where they are merged."""
        out = [layer(x) for layer in self._layers]
        return out if len(out) > 1 else torch.split(out[0], self._widths, dim=-1)


def merges_for(device: torch.device) -> bool:
    """Whether products of one input are worth merging on this device."""
    return device.type == "cuda"


def _merged(layers: Sequence[nn.Linear]) -> nn.Linear:
    """Their outputs side by side in this order; all have a bias or none."""
    weight = torch.cat([layer.weight.detach() for layer in layers])  # (n_out, n_in)
    with torch.device("meta"):
        out = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    out.weight = nn.Parameter(weight, requires_grad=False)
    if layers[0].bias is not None:
        bias = torch.cat([layer.bias.detach() for layer in layers])
        out.bias = nn.Parameter(bias, requires_grad=False)
    return out


def replace_linears(model: nn.Module) -> None:
    """Swap in oneDNN's product for each linear layer left in a bf16 CPU model, in place."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and _by_onednn(layer.weight):
            model.set_submodule(name, fast_linear(layer))


def _by_onednn(weight: Tensor) -> bool:
    return weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and has_onednn_bf16()


def has_onednn_bf16() -> bool:
    """Whether this torch and this CPU have oneDNN's bf16 operators."""
    operators = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(operators, "_linear_pointwise")
        and hasattr(operators, "_reorder_linear_weight")
        and bool(operators._is_mkldnn_bf16_supported())
    )
