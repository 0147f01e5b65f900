"""What a forward pass costs by formula, and the measurement of a real encoder."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from embedding_core.encoder.bench.flops import ForwardCost, forward_cost, matrix_rate
from embedding_core.encoder.bench.measure import measure_speed
from embedding_core.errors import ModelError
from tests.models import describe

MINILM_MATRICES = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
"""Six layers: queries, keys, values, output; two feed-forward matrices."""


@pytest.mark.parametrize(
    ("weights", "width", "giga"),
    [
        (28 * (1024 * 4096 + 2048 * 1024 + 3 * 1024 * 3072), 28 * 16 * 128, 0.940),
        (36 * (2560 * 6144 + 4096 * 2560 + 3 * 2560 * 9728), 36 * 32 * 128, 7.42),
        (36 * (4096 * 6144 + 4096 * 4096 + 3 * 4096 * 12288), 36 * 32 * 128, 14.0),
    ],
)
def test_forward_cost_of_the_qwen3_sizes_at_512_tokens(
    weights: int, width: int, giga: float
) -> None:
    per_token = ForwardCost(weights, width, causal=True).flops(512) / 512
    assert per_token == pytest.approx(giga * 1e9, rel=0.005)


def test_forward_cost_counts_minilms_matrices_without_embeddings_and_pooler(minilm: str) -> None:
    checkpoint = describe(minilm).checkpoint
    assert checkpoint is not None
    assert forward_cost(checkpoint) == ForwardCost(MINILM_MATRICES, 6 * 384, causal=False)


@pytest.mark.slow
def test_matrix_rate_is_that_of_some_machine() -> None:
    assert 1e8 < matrix_rate(torch.device("cpu"), torch.float32) < 1e14


@pytest.mark.slow
def test_measure_speed_gives_every_workload_and_the_fastest_budget(tiny_qwen3: Path) -> None:
    speed = measure_speed(
        describe(str(tiny_qwen3), dtype="fp32"), ["some text, quite short"], "cpu", 0.05
    )
    assert [one.name for one in speed.workloads] == ["50", "512", "mix", "mix", "mix"]
    assert all(0 < one.share_of_limit < math.inf for one in speed.workloads)
    mixes = [one for one in speed.workloads if one.name == "mix"]
    assert speed.tokens_per_second == max(one.tokens_per_second for one in mixes)
    assert speed.batch_tokens in {one.batch_tokens for one in mixes}
    assert speed.peak_memory_bytes > 2**20


@pytest.mark.slow
def test_measure_speed_names_the_length_that_was_measured(tiny_qwen3: Path) -> None:
    info = describe(str(tiny_qwen3), max_tokens=32)
    speed = measure_speed(info, ["some words " * 50], "cpu", 0.05)
    assert [one.name for one in speed.workloads] == ["32", "mix", "mix", "mix"]


def test_measure_speed_without_a_model_or_a_text_is_refused(tiny_qwen3: Path) -> None:
    with pytest.raises(ModelError, match="runs no model"):
        measure_speed(describe("hashing"), ["text"])
    with pytest.raises(ModelError, match="no text"):
        measure_speed(describe(str(tiny_qwen3)), [""], "cpu", 0.05)
