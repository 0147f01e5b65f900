"""What runs on a GPU, run on the CPU: the packed model with a variable-length kernel's contract.

``_varlen`` computes what torch 2.12's ``varlen_attn`` documents, one text at a time; the kernels
themselves are not tested here.
"""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from embedding_core.encoder import Encoder, stream
from embedding_core.encoder.local import attention, transformer
from embedding_core.encoder.local.attention.dense import dense
from embedding_core.encoder.local.device import ALLOCATOR_VARIABLES, choose_device
from embedding_core.encoder.local.model import Kernels, LoadedModel
from tests.checkpoints import SHAPES, TEXTS, as_sentence_transformer, build_qwen3, build_shape
from tests.models import load_with

CORPUS = "\n\n".join(TEXTS)


def _varlen(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *,
    scale: float, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
    num_splits: int | None = None,
) -> Any:  # fmt: skip
    assert (cu_seq_q.dtype, cu_seq_k.dtype, num_splits) == (torch.int32, torch.int32, 1)
    assert (max_q, max_k) == (int(cu_seq_q.diff().max()), int(cu_seq_k.diff().max()))
    assert enable_gqa == (query.shape[1] != key.shape[1])
    out = torch.empty_like(query)
    for q_rows, k_rows in zip(_slices(cu_seq_q), _slices(cu_seq_k), strict=True):
        q, k, v = query[q_rows], key[k_rows], value[k_rows]
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        places = torch.arange(len(k))
        distance = places[len(k) - len(q) :, None] - places  # queries are the last tokens
        left, right = (float("inf") if side < 0 else side for side in window_size)
        seen = (distance <= left) & (-distance <= right)
        scores = scores.masked_fill(~seen, float("-inf"))
        out[q_rows] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
    return out


def _slices(bounds: Any) -> list[slice]:
    return [slice(*pair) for pair in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]


def _texts() -> list[str]:
    texts = [CORPUS[n : 2 * n] for n in [0, 1, 7, 7, 30, 120, 200, 200, 500, 900]]
    random.Random(0).shuffle(texts)
    return texts


def _vectors(folder: Path, kernels: Kernels | None = None) -> Any:
    load = partial(LoadedModel, kernels=kernels)
    encoder = load_with(load, str(folder), batch_tokens=700, dtype="fp32")
    return encoder.encode_documents(_texts())


def _no_varlen(*_: object) -> None:
    """What a GPU older than Ampere has."""


@pytest.fixture(params=["qwen3", *sorted(set(SHAPES) - {"mpnet"})])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "qwen3":
        return build_qwen3(tmp_path)
    return build_shape(tmp_path, SHAPES[request.param])


def test_varlen_kernel_same_vectors(folder: Path) -> None:
    expected = _vectors(folder)
    kernel = attention.adapt_varlen(_varlen)
    kernels = Kernels(lambda *_: kernel, None)
    assert np.abs(_vectors(folder, kernels) - expected).max() <= 1e-5


@pytest.mark.parametrize("name", ["qwen3", "llama", "gemma3-causal", "bert-cls"])
def test_without_varlen_causal_models_padded_where_exact(tmp_path: Path, name: str) -> None:
    """GPUs older than Ampere: the padded kernel for causal models without a window, else runs."""
    folder = build_qwen3(tmp_path) if name == "qwen3" else build_shape(tmp_path, SHAPES[name])
    expected = _vectors(folder)
    used: list[bool] = []

    def padded(query: Any, key: Any, value: Any, packing: Any, rule: Any) -> Any:
        used.append(True)
        return attention.padded_kernel(query, key, value, packing, rule)

    assert np.abs(_vectors(folder, Kernels(_no_varlen, padded)) - expected).max() <= 1e-5
    assert bool(used) == (name in ("qwen3", "llama"))


@pytest.mark.parametrize("pooling", ["lasttoken", "mean"])
def test_last_layer_only_ends_when_the_last_token_is_pooled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str
) -> None:
    folder = as_sentence_transformer(build_qwen3(tmp_path), {"pooling_mode": pooling})
    pruned = _vectors(folder)
    rows: list[int] = []
    real = attention.attend

    def attend(query: Any, key: Any, value: Any, packing: Any, rule: Any) -> Any:
        rows.append(len(query) if packing.ends_only else 0)
        return real(query, key, value, packing, rule)

    monkeypatch.setattr("embedding_core.encoder.local.layers.decoder.attend", attend)
    _vectors(folder)
    assert sum(rows) == (len(_texts()) if pooling == "lasttoken" else 0)
    whole = _vectors(folder, Kernels(_no_varlen, attention.padded_kernel))
    assert sum(rows) == (len(_texts()) if pooling == "lasttoken" else 0)  # no more of them
    assert np.abs(whole - pruned).max() <= 1e-5


def test_merged_projections_same_vectors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _vectors(folder)
    monkeypatch.setattr(
        "embedding_core.encoder.local.layers.linear.merges_for", lambda device: True
    )
    assert np.abs(_vectors(folder) - expected).max() <= 1e-5


@pytest.mark.parametrize("ahead", [1, 3])
def test_windows_queued_ahead_same_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    encoder = Encoder.load(str(build_qwen3(tmp_path)), dtype="fp32", device="cpu", batch_tokens=64)
    batches = [[CORPUS[n : n + 90], CORPUS[n : n + 9]] for n in range(0, 4000, 200)]
    expected = [batch.column("vector").to_pylist() for batch in encoder.encode_stream(batches)]
    monkeypatch.setattr(stream, "PIECE_CHARS", 100)
    monkeypatch.setitem(transformer.WINDOW_BATCHES, "cpu", 1)
    monkeypatch.setitem(transformer.WINDOWS_AHEAD, "cpu", ahead)
    got = [batch.column("vector").to_pylist() for batch in encoder.encode_stream(batches)]
    assert len(got) == len(batches)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "capability", "repeats"),
    [
        (torch.float32, (9, 0), True),
        (torch.float16, (7, 5), True),
        (torch.float16, (8, 0), False),
        (torch.bfloat16, (9, 0), False),
    ],
)
def test_keys_are_repeated_where_torch_s_flash_kernel_does_not_run(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, capability: tuple[int, int], repeats: bool
) -> None:
    """Its kernel for the others takes shared keys only by writing out the scores of all tokens."""
    asked: list[tuple[int, bool]] = []

    def attention_of(query: Any, key: Any, value: Any, *, enable_gqa: bool, **_: Any) -> Any:
        asked.append((key.shape[1], enable_gqa))
        return query

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention_of)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with FakeTensorMode():
        query, key = (torch.empty(1, heads, 8, 16, dtype=dtype, device="cuda") for heads in (4, 2))
        dense(query, key, key, 0.25, causal=True)
    assert asked == [(4, False) if repeats else (2, True)]


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
@pytest.mark.parametrize(
    ("environment", "setting"),
    [
        ({}, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, "max_split_size_mb:64"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, None),
    ],
)
def test_memory_of_a_gpu_grows_in_place_unless_torch_was_set_otherwise(
    monkeypatch: pytest.MonkeyPatch, name: str, environment: dict[str, str], setting: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for variable in ALLOCATOR_VARIABLES:
        monkeypatch.setenv(variable, "")  # undone after the test, whatever is set meanwhile
        monkeypatch.delenv(variable)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert choose_device(name).type == "cuda"
    assert os.environ.get("PYTORCH_ALLOC_CONF") == setting
