"""How fast a model is on this machine, and which token budget suits it.

Encodes texts of three kinds (50 tokens each, 512 tokens each or what the model takes, a lognormal
mix) and the mix with several token budgets. Nothing measured here changes a vector.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from embedding_core.encoder.bench.flops import forward_cost, matrix_rate
from embedding_core.encoder.bench.workloads import cut_texts, token_lengths
from embedding_core.encoder.checkpoint.describe import Checkpoint
from embedding_core.encoder.engines import ModelInfo
from embedding_core.encoder.local.cpu import compute
from embedding_core.encoder.local.device import choose_device
from embedding_core.encoder.local.engine import CheckpointInfo
from embedding_core.encoder.local.transformer import BATCH_TOKENS, TransformerEncoder
from embedding_core.errors import ModelError

BUDGET_FACTORS = (0.5, 1.0, 2.0)
"""Token budgets tried on the mix, as multiples of the device's default."""
WORKLOADS = ("50", "512", "mix")
WORKLOAD_TOKENS = {"cpu": 8_192, "cuda": 524_288}
"""Tokens of a workload's texts together, several batches of each budget; they are encoded again and
again until time is up."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts of one kind, encoded with one token budget."""

    name: str
    """Tokens per text, or ``mix``."""
    batch_tokens: int
    """Token budget of a forward pass."""
    tokens_per_second: float
    """Strings to vectors; real tokens, special ones included."""
    share_of_limit: float
    """FLOP/s of the forward passes over what plain matrix products reached just before."""


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """How fast a model is on this machine."""

    device: str
    dtype: str
    matrix_flops_per_second: float
    """Plain matrix products in this arithmetic."""
    workloads: tuple[Workload, ...]
    batch_tokens: int
    """The token budget that was fastest on the mix."""
    tokens_per_second: float
    """Speed on the mix, with that budget."""
    peak_memory_bytes: int
    """Peak of the GPU's memory on CUDA, of the process's on a CPU; the model included."""


def measure_speed(
    info: ModelInfo, sample: Sequence[str], device: str = "auto", seconds: float = 5.0
) -> ModelSpeed:
    """Encode pieces of ``sample`` for about ``seconds`` per workload and token budget.

    Raises ``ModelError`` for an encoder that runs no model, and for a sample without text.
    """
    if not isinstance(info, CheckpointInfo):
        raise ModelError(f"{info.space.model!r} runs no model; there is nothing to measure")
    target = choose_device(device)
    default = BATCH_TOKENS[target.type]
    budgets = [("mix", round(default * factor)) for factor in BUDGET_FACTORS]
    space, tokenizer = info.space, info.tokenizer
    n_tokens = WORKLOAD_TOKENS[target.type]
    lengths = (token_lengths(name, n_tokens, space.max_tokens) for name in WORKLOADS)
    corpus = "\n".join(sample)
    texts = {name: cut_texts(corpus, tokenizer, counts) for name, counts in lengths}
    encoder = TransformerEncoder(space, info.checkpoint, info.dtype, device, default)
    rate = compute(target, matrix_rate, target, encoder.dtype)
    fixed = [(name, default) for name in texts if name != "mix"]
    measured = []
    for name, budget in fixed + budgets:
        encoder.batch_tokens = budget
        measured.append(_run(encoder, info.checkpoint, name, texts[name], rate, seconds))
    mixes = [workload for workload in measured if workload.name == "mix"]
    best = max(mixes, key=lambda mix: mix.tokens_per_second)
    return ModelSpeed(
        device=str(target),
        dtype=str(encoder.dtype).removeprefix("torch."),
        matrix_flops_per_second=rate,
        workloads=tuple(measured),
        batch_tokens=best.batch_tokens,
        tokens_per_second=best.tokens_per_second,
        peak_memory_bytes=_peak_memory_bytes(target),
    )


def _run(
    encoder: TransformerEncoder,
    checkpoint: Checkpoint,
    name: str,
    texts: Sequence[str],
    rate: float,
    seconds: float,
) -> Workload:
    cost = forward_cost(checkpoint)
    counts = [min(n, encoder.space.max_tokens) for n in encoder.tokenizer.count(texts)]
    encoder.encode_documents(texts)  # warm: allocations, kernels chosen
    passes, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or not passes:
        encoder.encode_documents(texts)
        passes += 1
    elapsed = time.perf_counter() - started
    flops = sum(map(cost.flops, counts))
    return Workload(
        name=name,
        batch_tokens=encoder.batch_tokens,
        tokens_per_second=passes * sum(counts) / elapsed,
        share_of_limit=passes * flops / elapsed / rate,
    )


def _peak_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere
