"""The cost of a forward pass, and the rate of this machine's matrix products: the limit of speed.

A transformer spends 2 FLOPs per weight of its matrices and token (a multiply and an add), and for
attention 4 · length · heads · head size per layer and token (scores and weighted sum), half of it
when causal. Norms, activations and embeddings are not counted. Source: Kaplan et al. 2020, "Scaling
Laws for Neural Language Models", table 1, forward pass.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch

from embedding_core.encoder.checkpoint.describe import Checkpoint

MATRIX_SIZE = {"cpu": 2_048, "cuda": 8_192}
"""Rows and columns of the matrices multiplied: large enough for the full rate."""
MATRIX_SECONDS = 0.5
SUSTAINED_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class ForwardCost:
    """The cost of a model's forward pass, apart from the lengths of the texts."""

    matrix_weights: int
    """Weights every token is multiplied with."""
    attention_width: int
    """Layers × heads × head size: what attention pays per token and token seen."""
    causal: bool

    def flops(self, length: int) -> float:
        """FLOPs of the forward pass of one text of ``length`` tokens."""
        attention = 4.0 * length * length * self.attention_width
        return 2.0 * length * self.matrix_weights + (attention / 2 if self.causal else attention)


def forward_cost(checkpoint: Checkpoint) -> ForwardCost:
    """The cost of a checkpoint's model, from its files; nothing is loaded."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint.directory, local_files_only=True)
    heads: int = config.num_attention_heads
    head_size: int = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ForwardCost(
        matrix_weights=matrix_weights(checkpoint),
        attention_width=config.num_hidden_layers * heads * head_size,
        causal=checkpoint.causal,
    )


def matrix_weights(checkpoint: Checkpoint) -> int:
    """Weights every token is multiplied with: all matrices but embeddings, poolers and heads."""
    from safetensors import safe_open

    skipped = ("embed", "pooler", "lm_head")
    total = 0
    for path in checkpoint.weight_files:
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safetensors gives no iterator)
                shape = tensors.get_slice(name).get_shape()
                if len(shape) == 2 and not any(word in name for word in skipped):
                    total += math.prod(shape)
    return total


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of plain square matrix products on this device now: the best of half a second.

    For fp8 the rate is that of bf16: torch has no plain product in fp8.
    """
    size = MATRIX_SIZE[device.type]
    a, b = _matrices(size, device, dtype)
    best, deadline = math.inf, time.perf_counter() + MATRIX_SECONDS
    a @ b
    while math.isinf(best) or time.perf_counter() < deadline:  # one product at least
        _synchronize(device)
        started = time.perf_counter()
        a @ b
        _synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def sustained_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Like ``matrix_rate``, but the mean of the last second of three.

    A GPU that is busy for seconds lowers its clock to keep to its power.
    """
    size = MATRIX_SIZE[device.type]
    a, b = _matrices(size, device, dtype)
    started = last = time.perf_counter()
    rate = 0.0
    while last - started < SUSTAINED_SECONDS:
        n = 0
        while time.perf_counter() - last < 1.0:
            a @ b
            n += 1
            if n % 8 == 0:
                _synchronize(device)
        _synchronize(device)
        now = time.perf_counter()
        rate, last = n * 2 * size**3 / (now - last), now
    return rate


def _matrices(size: int, device: torch.device, dtype: torch.dtype) -> list[torch.Tensor]:
    plain = torch.bfloat16 if dtype == torch.float8_e4m3fn else dtype
    return [torch.randn(size, size, device=device).to(plain) for _ in range(2)]


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
