from __future__ import annotations

import pytest
import torch

from embedding_core.encoder.local.dtype_probe import faster_dtype
from embedding_core.encoder.local.transformer import choose_dtype


@pytest.mark.parametrize(
    ("bf16_seconds", "chosen"),
    [(0.25, torch.bfloat16), (0.95, torch.float32), (3.0, torch.float32)],
)
def test_probe_clearly_faster_type_chosen(bf16_seconds: float, chosen: torch.dtype) -> None:
    seconds = {torch.float32: 1.0, torch.bfloat16: bf16_seconds}
    assert faster_dtype(seconds.__getitem__) is chosen


def test_probe_a_busy_moment_does_not_count() -> None:
    seconds = {torch.float32: [1.0] * 6, torch.bfloat16: [9.0] * 5 + [0.5]}
    assert faster_dtype(lambda dtype: seconds[dtype].pop()) is torch.bfloat16


def test_choose_dtype_auto_is_probed_on_a_cpu() -> None:
    assert choose_dtype("auto", torch.device("cpu")) in (torch.bfloat16, torch.float32)
    assert choose_dtype("fp16", torch.device("cpu")) is torch.float16


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_choose_dtype_auto_on_a_gpu_is_what_it_computes_in(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_dtype("auto", torch.device("cuda")) is dtype
