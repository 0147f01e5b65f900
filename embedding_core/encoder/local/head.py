"""The steps between a batch's token states and its unit vectors: pooling, Dense modules, norm.

They run in fp32, whatever the model's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own name for it)

from embedding_core.encoder.checkpoint.families import Pooling
from embedding_core.encoder.checkpoint.modules import Dense
from embedding_core.errors import ModelError

Tensor = torch.Tensor


class Head:
    """The steps after the transformer, on one device."""

    def __init__(
        self, pooling: Pooling, dense: Sequence[Dense], dim: int, device: torch.device
    ) -> None:
        self._pooling = pooling
        self._dense = [_Layer(module, device) for module in dense]
        self._dim = dim

    def __call__(self, hidden: Tensor, bounds: Tensor) -> Tensor:
        """(n_texts, dim) float32, unit norm, of token states (n_tokens, hidden_size).

        ``bounds`` (n_texts + 1,) holds the first token of each text, and the end.
        """
        pooled = pool(hidden, bounds, self._pooling)  # (n_texts, hidden_size)
        for layer in self._dense:
            pooled = layer(pooled)
        pooled = pooled[:, : self._dim]  # (n_texts, dim)
        # A zero vector becomes 0 / 0, NaN, on purpose: it is computed again in a wider type.
        norms: Tensor = torch.linalg.vector_norm(pooled, dim=1, keepdim=True)  # (n_texts, 1)
        return pooled / norms


def pool(hidden: Tensor, bounds: Tensor, pooling: Pooling) -> Tensor:
    """An fp32 vector for each text, (n_texts, hidden_size), of states (n_tokens, hidden_size).

    Each text is summed by itself, in order, whatever else is in the batch.
    """
    if pooling == "cls":
        return hidden[bounds[:-1].long()].float()
    if pooling == "last":
        return hidden[bounds[1:].long() - 1].float()
    lengths = bounds.diff().long()
    # unsafe: its check of the lengths would wait for the GPU in every batch
    means: Tensor = torch.segment_reduce(hidden.float(), "mean", lengths=lengths, unsafe=True)
    return means


class _Layer:
    """One Dense module, with weights of the shapes its config promises."""

    def __init__(self, dense: Dense, device: torch.device) -> None:
        from safetensors.torch import load_file

        weights = load_file(dense.weight_file)
        expected: dict[str, tuple[int, ...]] = {"linear.weight": (dense.n_out, dense.n_in)}
        if dense.has_bias:
            expected["linear.bias"] = (dense.n_out,)
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        if shapes != expected:
            raise ModelError(
                f"{dense.weight_file} holds {shapes}, its config promises {expected}; "
                "download the checkpoint again"
            )
        self._weight = weights["linear.weight"].to(device, torch.float32)
        bias = weights.get("linear.bias")
        self._bias = None if bias is None else bias.to(device, torch.float32)
        self._tanh = dense.activation == "tanh"

    def __call__(self, vectors: Tensor) -> Tensor:
        """(n_texts, n_in) to (n_texts, n_out)."""
        out = F.linear(vectors, self._weight, self._bias)
        return out.tanh() if self._tanh else out
