from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from embedding_core.encoder.local import attention
from embedding_core.encoder.local.attention import equal_lengths

LENGTHS = [9, 5, 5, 1]


def _packed(n_heads: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(1, n_heads, sum(LENGTHS), 8, generator=generator)


def _one_at_a_time(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    """Plain softmax attention of each text by itself, (1, n_tokens, n_heads, head_dim)."""
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    parts, start = [], 0
    for length in LENGTHS:
        rows = slice(start, start + length)
        scores = q[:, :, rows] @ k[:, :, rows].transpose(2, 3) * 0.3
        if causal:
            scores += torch.full((length, length), float("-inf")).triu(1)
        parts.append((scores.softmax(-1) @ v[:, :, rows]).transpose(1, 2))
        start += length
    return torch.cat(parts, 1)


class _Layer(torch.nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.is_causal = causal


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_packed_attention_equals_one_text_at_a_time(causal: bool, kv_heads: int) -> None:
    seed = torch.Generator().manual_seed(0)
    q, k, v = _packed(4, seed), _packed(kv_heads, seed), _packed(kv_heads, seed)
    packing = attention.layout(LENGTHS, torch.device("cpu"))
    got, _ = attention.packed_attention(
        _Layer(causal), q, k, v, None, scaling=0.3, packing=packing, dropout=0.0
    )
    torch.testing.assert_close(got, _one_at_a_time(q, k, v, causal))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("block", [1, 3, 4, 9])
def test_packed_attention_causal_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch, block: int, dtype: torch.dtype, tolerance: float
) -> None:
    monkeypatch.setattr(equal_lengths, "CAUSAL_BLOCK", block)
    seed = torch.Generator().manual_seed(0)
    q, k, v = _packed(4, seed), _packed(2, seed), _packed(2, seed)
    packing = attention.layout(LENGTHS, torch.device("cpu"))
    typed = (t.to(dtype) for t in (q, k, v))
    got, _ = attention.packed_attention(_Layer(True), *typed, None, scaling=0.3, packing=packing)
    expected = _one_at_a_time(q, k, v, causal=True)
    torch.testing.assert_close(got.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("reach", [None, 3])
def test_attend_ends_only_equals_the_last_rows(reach: int | None) -> None:
    seed = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(sum(LENGTHS), heads, 8, generator=seed) for heads in (4, 2, 2))
    packing = attention.layout(LENGTHS, torch.device("cpu"))
    rule = attention.Rule(causal=True, scale=0.3, reach=reach)
    ends = torch.tensor(LENGTHS).cumsum(0) - 1
    got = attention.attend(q[ends], k, v, packing.of_ends(), rule)
    torch.testing.assert_close(got, attention.attend(q, k, v, packing, rule)[ends])


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_padded_kernel_causal_equals_one_text_at_a_time(kv_heads: int) -> None:
    seed = torch.Generator().manual_seed(0)
    q, k, v = _packed(4, seed), _packed(kv_heads, seed), _packed(kv_heads, seed)
    packing = attention.layout(LENGTHS, torch.device("cpu"), attention.padded_kernel)
    got, _ = attention.packed_attention(_Layer(True), q, k, v, None, scaling=0.3, packing=packing)
    torch.testing.assert_close(got, _one_at_a_time(q, k, v, causal=True))


def test_padded_kernel_bidirectional_refused() -> None:
    packing = attention.layout([1], torch.device("cpu"))
    x = torch.zeros(1, 1, 8)
    with pytest.raises(ValueError, match="causal"):
        attention.padded_kernel(x, x, x, packing, attention.Rule(False, 1.0))


# torch.nn.attention.varlen.varlen_attn of three torch versions, as far as the caller sees it.


def _varlen_2_10(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int,
    is_causal: bool = False, return_aux: Any = None,
) -> Any:  # fmt: skip
    return query, {"key": key, "is_causal": is_causal, "max_q": max_q, "cu": cu_seq_q}


def _varlen_2_11(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *,
    return_aux: Any = None, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
) -> Any:  # fmt: skip
    return query, {"key": key, "scale": scale, "window_size": window_size}


def _varlen_2_12(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, *,
    return_aux: Any = None, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False, num_splits: int | None = None,
) -> Any:  # fmt: skip
    seen = {"scale": scale, "window_size": window_size, "gqa": enable_gqa, "splits": num_splits}
    return query, {"key": key, **seen}


def _call(fake: Any, kv_heads: int, causal: bool) -> Any:
    packing = attention.layout(LENGTHS, torch.device("cpu"))
    query, key = torch.ones(20, 4, 16), torch.ones(20, kv_heads, 16)
    return attention.adapt_varlen(fake)(query, key, key, packing, attention.Rule(causal, 0.5))


def test_adapt_varlen_2_10_causal_flag_and_scale_folded_into_query() -> None:
    query, seen = _call(_varlen_2_10, kv_heads=2, causal=True)
    assert seen["is_causal"] is True
    assert seen["max_q"] == 9
    assert seen["cu"].tolist() == [0, 9, 14, 19, 20]
    assert seen["key"].shape == (20, 4, 16)  # it cannot share key heads, so they are repeated
    torch.testing.assert_close(query, torch.full((20, 4, 16), 0.5 * 16**0.5))


@pytest.mark.parametrize(("causal", "window"), [(True, (-1, 0)), (False, (-1, -1))])
def test_adapt_varlen_2_11_window_and_shared_heads(causal: bool, window: tuple[int, int]) -> None:
    query, seen = _call(_varlen_2_11, kv_heads=2, causal=causal)
    assert seen["window_size"] == window
    assert seen["scale"] == 0.5
    assert seen["key"].shape == (20, 2, 16)
    assert query.unique().item() == 1.0


@pytest.mark.parametrize(("kv_heads", "gqa"), [(2, True), (4, False)])
def test_adapt_varlen_2_12_shares_heads_and_is_batch_independent(kv_heads: int, gqa: bool) -> None:
    _, seen = _call(_varlen_2_12, kv_heads=kv_heads, causal=True)
    assert seen["gqa"] is gqa
    assert seen["splits"] == 1
    assert seen["key"].shape == (20, kv_heads, 16)


def test_adapt_varlen_installed_torch_has_a_known_signature() -> None:
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    assert "window_size" in known or "is_causal" in known


def test_varlen_kernel_cpu_none() -> None:
    assert attention.varlen_kernel(torch.float16, torch.device("cpu"), 64, windowed=False) is None


def test_packed_attention_bf16_bidirectional_near_fp32() -> None:
    seed = torch.Generator().manual_seed(0)
    q, k, v = (_packed(4, seed) for _ in range(3))
    packing = attention.layout(LENGTHS, torch.device("cpu"))
    half = (t.bfloat16() for t in (q, k, v))
    got, _ = attention.packed_attention(_Layer(False), *half, None, scaling=0.3, packing=packing)
    expected = _one_at_a_time(q, k, v, causal=False)
    torch.testing.assert_close(got.float(), expected, atol=0.03, rtol=0.02)


def test_packed_attention_any_slice_of_scores_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 4, 40, 8, generator=seed).bfloat16() for _ in range(3))
    packing = attention.layout([5] * 8, torch.device("cpu"))

    def attend() -> torch.Tensor:
        options: Any = {"scaling": 0.3, "packing": packing}
        return attention.packed_attention(_Layer(False), q, k, v, None, **options)[0]

    whole = attend()
    monkeypatch.setattr(equal_lengths, "SCORE_BYTES", 3 * 4 * 25 * 2)  # three texts at a time
    torch.testing.assert_close(attend(), whole)
    monkeypatch.setattr(equal_lengths, "SCORE_BYTES", 0)  # torch's own kernel
    torch.testing.assert_close(attend(), whole, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("reach", "block"), [(3, 4), (2, 1), (5, 128), (0, 2), (40, 4)])
def test_packed_attention_window_sees_neighbours_only(
    monkeypatch: pytest.MonkeyPatch, causal: bool, reach: int, block: int
) -> None:
    monkeypatch.setattr(equal_lengths, "BAND_BLOCK", block)
    seed, length = torch.Generator().manual_seed(0), 23
    q, k, v = (torch.randn(1, heads, 2 * length, 8, generator=seed) for heads in (4, 2, 2))
    packing = attention.layout([length] * 2, torch.device("cpu"))
    got, _ = attention.packed_attention(
        _Layer(causal), q, k, v, None, scaling=0.3, packing=packing, sliding_window=reach + 1
    )
    distance = torch.arange(length)[:, None] - torch.arange(length)[None]
    unseen = (distance.abs() > reach) | (distance < 0 if causal else distance != distance)
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    for text in range(2):
        rows = slice(text * length, (text + 1) * length)
        scores = (q[:, :, rows] @ k[:, :, rows].mT * 0.3).masked_fill(unseen, float("-inf"))
        expected = (scores.softmax(-1) @ v[:, :, rows]).transpose(1, 2)
        torch.testing.assert_close(got[:, rows], expected)


@pytest.mark.parametrize(("causal", "window"), [(True, (16, 0)), (False, (16, 16))])
def test_adapt_varlen_window_reaches_the_kernel(causal: bool, window: tuple[int, int]) -> None:
    packing = attention.layout(LENGTHS, torch.device("cpu"))
    x, rule = torch.ones(20, 4, 16), attention.Rule(causal, 0.5, reach=16)
    _, seen = attention.adapt_varlen(_varlen_2_12)(x, x, x, packing, rule)
    assert seen["window_size"] == window
