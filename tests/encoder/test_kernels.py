"""The Triton kernels in Triton's interpreter, against the formulas in fp64 and inside a model.

The interpreter rounds bf16 and fp8 toward zero where a GPU rounds to nearest, hence the bounds.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from embedding_core.encoder import Encoder
from embedding_core.encoder.local.layers import elementwise, fp8
from tests.checkpoints import SHAPES, TEXTS, build_qwen3, build_shape

pytest.importorskip("triton", reason="Triton has no build for this machine")

BOUNDS = {torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 8e-3}
"""Relative errors of one rounding, with room."""
CORPUS = "\n\n".join(TEXTS)


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    from embedding_core.encoder.local.layers import kernels

    return kernels


@pytest.fixture(params=BOUNDS, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    torch.manual_seed(0)
    kind: torch.dtype = request.param
    return kind


def error(got: torch.Tensor, true: torch.Tensor) -> float:
    return float((got.double() - true).norm() / true.norm())


def normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.double()
    return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6) * weight.double()


@pytest.mark.parametrize("size", [32, 96, 1000])
def test_rms_norm_of_some_columns(kernels: ModuleType, dtype: torch.dtype, size: int) -> None:
    x, weight = torch.randn(5, 2 * size).to(dtype)[:, size:], torch.rand(size).to(dtype)
    got = kernels.rms_norm(x, weight, 1e-6)
    assert got.dtype == dtype
    assert error(got, normed(x, weight)) < BOUNDS[dtype]


@pytest.mark.parametrize(("n_heads", "head_dim"), [(4, 32), (6, 80), (1, 128)])
@pytest.mark.parametrize("has_norm", [True, False])
def test_norm_rotate_of_the_middle_heads_of_a_merged_product(
    kernels: ModuleType, dtype: torch.dtype, n_heads: int, head_dim: int, has_norm: bool
) -> None:
    merged = torch.randn(5, 3 * n_heads * head_dim).to(dtype)
    heads = merged[:, n_heads * head_dim : 2 * n_heads * head_dim].view(5, n_heads, head_dim)
    weight = (torch.rand(head_dim) + 0.5).to(dtype)
    angles = torch.randn(5, 1, head_dim // 2)
    cos, sin = (torch.cat([part, part], -1).to(dtype) for part in (angles.cos(), angles.sin()))
    got = kernels.norm_rotate(heads, weight if has_norm else None, 1e-6, cos, sin)
    left, right = (normed(heads, weight) if has_norm else heads.double()).chunk(2, -1)
    turned = torch.cat([left, right], -1) * cos.double() + torch.cat([-right, left], -1) * sin
    assert error(got, turned) < BOUNDS[dtype]


@pytest.mark.parametrize("width", [160, 1500])
def test_swiglu_of_the_halves_of_a_merged_product(
    kernels: ModuleType, dtype: torch.dtype, width: int
) -> None:
    gate, up = torch.randn(5, 2 * width).to(dtype).split(width, -1)
    true = torch.nn.functional.silu(gate.double()) * up.double()
    assert error(kernels.swiglu(gate, up), true) < BOUNDS[dtype]


def test_to_fp8_gives_the_scales_of_the_formula_and_values_beside_its(kernels: ModuleType) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 200)[:, :96] * torch.tensor([1.0, 1e-3, 1e4, 0.0, 7.0])[:, None]
    values, scales = kernels.to_fp8(x)
    expected, expected_scales = fp8.to_fp8(x)
    torch.testing.assert_close(scales, expected_scales)
    off = (values.float() - expected.float()).abs() > expected.float().abs() / 8 + 2**-6
    assert off.float().mean() < 0.05  # the interpreter loses a carry between powers of two
    back = values.float() * scales
    assert error(back[:3], x[:3].double()) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_model_with_kernels_and_merged_projections_gives_the_same_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: ModuleType, name: str
) -> None:
    folder = build_qwen3(tmp_path) if name == "qwen3" else build_shape(tmp_path, SHAPES[name])
    texts = [CORPUS[n : n + size] for n, size in ((0, 1), (7, 20), (50, 20), (90, 60))]
    expected = vectors(folder, texts)
    used: list[int] = []
    real = kernels.swiglu

    def swiglu(gate: Any, up: Any) -> Any:
        used.append(len(gate))
        return real(gate, up)

    monkeypatch.setattr(kernels, "swiglu", swiglu)
    monkeypatch.setattr(elementwise, "fuses_for", lambda device: True)
    monkeypatch.setattr(
        "embedding_core.encoder.local.layers.linear.merges_for", lambda device: True
    )
    assert np.abs(vectors(folder, texts) - expected).max() <= 1e-5
    assert len(used) > 1


def test_kernels_that_fail_warn_and_the_model_runs_plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: ModuleType
) -> None:
    def broken(*arguments: Any) -> Any:
        raise RuntimeError("no C compiler found")

    monkeypatch.setattr(elementwise, "fuses_for", lambda device: True)
    monkeypatch.setattr(kernels, "norm_rotate", broken)
    with pytest.warns(RuntimeWarning, match=r"no C compiler found.*install a C compiler"):
        assert np.isfinite(vectors(build_qwen3(tmp_path), ["some text"])).all()


def vectors(folder: Path, texts: list[str]) -> Any:
    return Encoder.load(str(folder), dtype="fp32", device="cpu").encode_documents(texts)
