"""Tokens per second of any engine, strings in and vectors out: a model here, or behind a server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from embedding_core.encoder.bench.workloads import cut_texts, token_lengths
from embedding_core.encoder.engines import ModelInfo
from embedding_core.protocols import TextEncoder

WORKLOADS = ("50", "512", "mix")
WORKLOAD_TOKENS = 16_384
"""Tokens of a workload's texts together; they are encoded again and again until time is up."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Texts of one kind."""

    workload: str
    """Tokens per text, or ``mix``."""
    tokens_per_second: float


@dataclass(frozen=True, slots=True)
class EngineRates:
    """How fast an engine is from this machine."""

    engine: str
    """Name of the model, with the server's URL."""
    space_id: str
    rates: tuple[Rate, ...]

    @property
    def tokens_per_second(self) -> float:
        """The rate of the mix."""
        return self.rates[-1].tokens_per_second


@dataclass(frozen=True, slots=True)
class EngineComparison:
    """Engines beside each other, in the order in which they were named."""

    engines: tuple[EngineRates, ...]


def measure_rates(
    info: ModelInfo, encoder: TextEncoder, space_id: str, sample: Sequence[str], seconds: float
) -> EngineRates:
    """Encode pieces of ``sample`` for about ``seconds`` per workload, after a pass to get warm.

    Raises ``ModelError`` for a sample without text.
    """
    corpus, tokenizer = "\n".join(sample), info.tokenizer
    rates = []
    for workload in WORKLOADS:
        name, lengths = token_lengths(workload, WORKLOAD_TOKENS, info.space.max_tokens)
        texts = cut_texts(corpus, tokenizer, lengths)
        n_tokens = sum(min(n, info.space.max_tokens) for n in tokenizer.count(texts))
        encoder.encode_documents(texts)
        n_passes, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds or not n_passes:
            encoder.encode_documents(texts)
            n_passes += 1
        elapsed = time.perf_counter() - started
        rates.append(Rate(name, n_passes * n_tokens / elapsed))
    return EngineRates(info.space.model, space_id, tuple(rates))
