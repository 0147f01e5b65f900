"""Out of memory: smaller batches, the same vectors, and one text that does not fit is named."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.encoder import Encoder, TextsWithoutVector, TooLargeForMemory
from embedding_core.encoder.base import without_vector
from embedding_core.encoder.local import budget
from embedding_core.encoder.local.budget import TokenBudget, even_share, first_budget
from embedding_core.encoder.local.cpu import Lanes
from embedding_core.encoder.local.model import LoadedModel
from embedding_core.encoder.local.packing import Batch
from embedding_core.errors import ModelError, RejectedInput
from tests.checkpoints import TEXTS
from tests.models import load_with

Rows = npt.NDArray[np.int64]
CPU = torch.device("cpu")
ALONE = Lanes(CPU, 1, 1)


@given(
    lengths=st.lists(st.integers(1, 60), max_size=40),
    tokens=st.integers(1, 500),
    memory=st.integers(10, 100),
    padded=st.booleans(),
    n_lanes=st.integers(1, 4),
)
def test_run_any_memory_every_text_once_or_too_large(
    lengths: list[int], tokens: int, memory: int, padded: bool, n_lanes: int
) -> None:
    done: list[int] = []

    def forward(rows: Rows) -> None:
        sizes = [lengths[row] for row in rows]
        if (max(sizes) * len(sizes) if padded else sum(sizes)) > memory:
            raise torch.OutOfMemoryError
        done.extend(rows.tolist())

    too_large = TokenBudget(tokens).run(lengths, padded, forward, Lanes(CPU, n_lanes, 1))
    assert sorted(done + too_large) == list(range(len(lengths)))
    assert sorted(too_large) == [row for row, length in enumerate(lengths) if length > memory]


@dataclass(frozen=True)
class InTurn(Lanes):
    """Lanes that work one after the other, so that the first fails before the next begins."""

    def run(self, work: Callable[[], None]) -> None:
        with suppress(ZeroDivisionError):
            work()
        super().run(work)


def test_run_error_in_a_lane_leaves_nothing_to_the_others() -> None:
    seen: list[int] = []

    def forward(rows: Rows) -> None:
        seen.extend(rows.tolist())
        raise ZeroDivisionError

    TokenBudget(10).run([10] * 20, False, forward, InTurn(CPU, 2, 1))
    assert seen == [0]


def test_run_out_of_memory_smaller_budget_remembered() -> None:
    tokens, sizes = TokenBudget(64), []

    def forward(rows: Rows) -> None:
        sizes.append(len(rows))
        if len(rows) > 20:
            raise torch.OutOfMemoryError

    assert tokens.run([1] * 100, False, forward, ALONE) == []
    assert tokens.tokens == 16
    assert sizes[:3] == [64, 32, 16]
    sizes.clear()
    tokens.run([1] * 32, False, forward, ALONE)
    assert sizes == [16, 16]


class _SmallMemory(LoadedModel):
    """Runs batches of up to so many tokens; ``seen`` has the tokens of every batch."""

    n_tokens: int
    seen: list[int]

    def forward(self, batch: Batch) -> torch.Tensor:
        self.seen.append(len(batch.ids))
        if len(batch.ids) > self.n_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(batch)


def _memory_of(n_tokens: int) -> type[_SmallMemory]:
    return type("Memory", (_SmallMemory,), {"n_tokens": n_tokens, "seen": []})


def test_encode_out_of_memory_same_vectors_and_smaller_budget(tiny_qwen3: Path) -> None:
    texts = [text[:150] for text in TEXTS[:30]]
    expected = Encoder.load(str(tiny_qwen3), dtype="fp32", device="cpu").encode_documents(texts)
    memory = _memory_of(300)
    encoder = load_with(memory, str(tiny_qwen3), dtype="fp32")
    assert np.abs(encoder.encode_documents(texts) - expected).max() <= 1e-5
    assert max(memory.seen) > 300
    memory.seen.clear()
    encoder.encode_documents(texts)
    assert max(memory.seen) <= 300


def test_encode_text_too_large_alone_named_and_null_in_the_stream(tiny_qwen3: Path) -> None:
    texts = ["fine", TEXTS[0][:3_000], "also fine"]
    encoder = load_with(_memory_of(100), str(tiny_qwen3), dtype="fp16")
    with pytest.raises(TooLargeForMemory, match=r"position.* 1: .*max_tokens") as caught:
        encoder.encode(texts)
    assert (caught.value.indices, caught.value.reason) == ((1,), "out_of_memory")
    assert isinstance(caught.value, RejectedInput)
    [batch] = encoder.encode_stream([texts])
    assert batch.column("failure").to_pylist() == [None, "out_of_memory", None]
    assert batch.column("vector").is_null().to_pylist() == [False, True, False]


def test_without_vector_both_reasons_one_error_names_each() -> None:
    error = without_vector({4: "non_finite_vector", 1: "out_of_memory"})
    assert type(error) is TextsWithoutVector
    assert (error.indices, error.reason) == ((1, 4), "no_vector")
    assert error.reasons == {1: "out_of_memory", 4: "non_finite_vector"}


def test_without_vector_an_error_of_a_worker_comes_back_as_it_was() -> None:
    error = pickle.loads(pickle.dumps(TooLargeForMemory([3])))
    assert (type(error), error.indices, error.reason) == (TooLargeForMemory, (3,), "out_of_memory")


def test_load_weights_do_not_fit_model_error(tiny_qwen3: Path) -> None:
    def load(*_: object) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(ModelError, match="do not fit the free memory of cpu"):
        load_with(load, str(tiny_qwen3), dtype="fp32")


QWEN3_06B = SimpleNamespace(hidden_size=1024, intermediate_size=3072)


@pytest.mark.parametrize(("free_gib", "tokens"), [(100.0, 32_768), (1.0, 9_362), (0.01, 1024)])
def test_first_budget_cuda_from_free_memory(
    monkeypatch: pytest.MonkeyPatch, free_gib: float, tokens: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free_gib * 2**30), 2**37))
    cuda = torch.device("cuda")
    assert first_budget(cuda, 32_768, QWEN3_06B, torch.float16) == tokens


def test_first_budget_cpu_not_probed() -> None:
    assert first_budget(torch.device("cpu"), 4096, None, torch.float32) == 4096
    assert budget.activation_bytes(QWEN3_06B, torch.float32) == 4 * (16 * 1024 + 4 * 3072)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_run_a_full_card_in_any_words_halves_the_budget(error: Exception) -> None:
    tokens, sizes = TokenBudget(4), []

    def forward(rows: np.ndarray) -> None:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise error

    assert tokens.run([1] * 4, False, forward, ALONE) == []
    assert (sizes, tokens.tokens) == ([4, 2, 2], 2)


def test_run_another_error_of_the_device_is_raised() -> None:
    def forward(rows: np.ndarray) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        TokenBudget(4).run([1], False, forward, ALONE)


def test_run_error_in_a_lane_is_raised_and_no_further_batch_begins() -> None:
    begun = []

    def forward(rows: Rows) -> None:
        begun.append(rows)
        raise RuntimeError("an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        TokenBudget(1).run([1] * 100, False, forward, Lanes(CPU, 2, 1))
    assert len(begun) <= 2


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60),
    budget_tokens=st.integers(500, 4_000),
    n_lanes=st.integers(2, 8),
)
def test_even_share_no_more_rounds_than_the_budget_takes(
    lengths: list[int], budget_tokens: int, n_lanes: int
) -> None:
    share = even_share(sum(lengths), budget_tokens, n_lanes, max(lengths))
    assert share <= budget_tokens
    rounds = -(-sum(lengths) // (budget_tokens * n_lanes))
    assert share == budget_tokens or share * rounds * n_lanes >= sum(lengths)


class _Card:
    """Memory for so many copies of the weights; ``loads`` are the types read from the files."""

    def __init__(self, n_copies: int) -> None:
        self.loads: list[torch.dtype] = []
        self.n_copies = n_copies
        self._copies: weakref.WeakSet[LoadedModel] = weakref.WeakSet()

    def load(self, checkpoint: Any, dtype: torch.dtype, *rest: Any) -> LoadedModel:
        gc.collect()
        self.loads.append(dtype)
        if len(self._copies) >= self.n_copies or (dtype != torch.float16 and not self.n_copies):
            raise torch.OutOfMemoryError("CUDA out of memory")
        kind = _Narrow if dtype == torch.float16 else LoadedModel
        model = kind(checkpoint, dtype, *rest)
        self._copies.add(model)
        return model


class _Narrow(LoadedModel):
    """A model that overflows for every text."""

    def forward(self, batch: Batch) -> torch.Tensor:
        return super().forward(batch) * torch.nan


@pytest.mark.slow
def test_wider_copy_that_does_not_fit_beside_the_other_takes_turns(tiny_qwen3: Path) -> None:
    expected = Encoder.load(str(tiny_qwen3), dtype="bf16", device="cpu").encode_documents(["text"])
    card = _Card(n_copies=1)
    encoder = load_with(card.load, str(tiny_qwen3), dtype="fp16")
    for _ in range(2):
        encoded = encoder.encode(["text"])
        assert encoded.n_recomputed == 1
        np.testing.assert_allclose(encoded.vectors, expected, atol=1e-5)
    half, wide = torch.float16, torch.bfloat16
    assert card.loads == [half, wide, wide, half, half, wide, wide]  # each try that failed, again


@pytest.mark.slow
def test_wider_copy_that_does_not_fit_at_all_leaves_the_row_out_and_the_run_goes_on(
    tiny_qwen3: Path,
) -> None:
    card = _Card(n_copies=1)
    encoder = load_with(card.load, str(tiny_qwen3), dtype="fp16")
    card.n_copies = 0
    [batch] = encoder.encode_stream([["text"]])
    assert batch.column("failure").to_pylist() == ["no_wider_type"]
    card.n_copies = 1
    [batch] = encoder.encode_stream([["text"]])
    assert batch.column("failure").to_pylist() == [None]
