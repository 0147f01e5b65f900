from __future__ import annotations

from pathlib import Path

import pytest
import torch

from embedding_core.encoder import Encoder
from embedding_core.encoder.local.processor import faster_dtype
from embedding_core.encoder.local.transformer import choose_dtype
from embedding_core.recipe import Resources
from embedding_core.runs.job import settled

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 rdpid", "bf16"),
        ("flags\t\t: fpu amx_bf16 amx_tile", "bf16"),
        ("flags\t\t: fpu avx512f avx2", "fp32"),
        ("Features\t: fp asimd bf16", "fp32"),
        ("", "fp32"),
    ],
)
def test_faster_dtype_is_told_by_the_processors_instructions(
    tmp_path: Path, flags: str, dtype: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert faster_dtype(tmp_path / "cpuinfo") == dtype
    assert faster_dtype(tmp_path / "not there") == "fp32"


def test_choose_dtype_auto_on_a_cpu_is_the_faster_one_unless_the_run_says_otherwise() -> None:
    assert str(choose_dtype("auto", CPU)) in ("torch.bfloat16", "torch.float32")
    assert choose_dtype("auto", CPU, "bf16") is torch.bfloat16
    assert choose_dtype("auto", CPU, "fp32") is torch.float32
    assert choose_dtype("fp16", CPU, "fp32") is torch.float16


def test_settled_resources_say_what_every_task_computes_in() -> None:
    assert settled(Resources()).cpu_dtype == faster_dtype()
    assert settled(Resources(cpu_dtype="fp32")).cpu_dtype == "fp32"


def test_encoder_says_what_it_computes_in(tiny_qwen3: Path) -> None:
    encoder = Encoder.load(str(tiny_qwen3), device="cpu", dtype="bf16")
    assert repr(encoder).endswith(", bf16 on cpu>")


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_choose_dtype_auto_on_a_gpu_is_what_it_computes_in(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_dtype("auto", torch.device("cuda")) is dtype
