"""dtype fp8: the rounding, the layers, the space, what cannot have it. The product is emulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from embedding_core.encoder import Encoder
from embedding_core.encoder.local.layers import fp8
from embedding_core.encoder.local.layers.linear import Linear
from embedding_core.errors import ModelError
from embedding_core.identity import space_id
from tests.checkpoints import SHAPES, TEXTS, build_qwen3, build_shape
from tests.models import describe


def test_rows_are_rounded_by_their_own_largest_value() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 64) * torch.tensor([1e-6, 1.0, 1e5, 0.0])[:, None]
    values, scales = fp8.to_fp8(x)
    assert values.dtype == torch.float8_e4m3fn
    back = values.float() * scales
    assert ((back - x).abs() <= x.abs() / 16 + scales * 2**-9).all()  # 3 bits, or subnormal
    assert values.float().abs().amax(1).tolist() == [448.0, 448.0, 448.0, 0.0]


@pytest.mark.parametrize("bias", [None, torch.ones(32)])
def test_linear_is_near_the_plain_one_and_adds_into_the_residual(bias: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    weight, x, residual = torch.randn(32, 64), torch.randn(5, 64), torch.randn(5, 32)
    plain, rounded = Linear(weight, bias, "none"), fp8.Fp8Linear(weight, bias, "none")
    near = plain(x).norm() * 0.05
    assert (rounded(x) - plain(x)).norm() < near
    expected = residual + plain(x)
    assert (rounded.add_to(residual, x) - expected).norm() < near


@pytest.mark.parametrize("name", ["qwen3", "qwen2", "bert-cls"])
def test_vectors_are_near_those_of_fp32_and_another_space(tmp_path: Path, name: str) -> None:
    folder = (
        build_qwen3(tmp_path, initializer_range=0.02)
        if name == "qwen3"
        else build_shape(tmp_path, SHAPES[name])
    )
    texts = [text[:600] for text in TEXTS[:8]]
    exact = Encoder.load(str(folder), dtype="fp32", device="cpu").encode_documents(texts)
    encoder = Encoder.load(str(folder), dtype="fp8", device="cpu")
    rounded = encoder.encode(texts)
    assert rounded.n_recomputed == 0
    cosines = (rounded.vectors * exact).sum(axis=1)
    assert 0.95 < cosines.min() < 0.999999
    np.testing.assert_allclose(np.linalg.norm(rounded.vectors, axis=1), 1, atol=1e-5)
    spaces = {space_id(describe(str(folder), dtype=d).space) for d in ("auto", "fp32", "fp8")}
    assert len(spaces) == 3
    assert encoder.space.dtype_class == "fp8"


@pytest.mark.parametrize("name", ["distilbert", "modernbert"])
def test_model_of_another_structure_is_refused(tmp_path: Path, name: str) -> None:
    folder = build_shape(tmp_path, SHAPES[name])
    with pytest.raises(ModelError, match=r"Qwen3, Qwen2.*use bf16"):
        Encoder.load(str(folder), dtype="fp8", device="cpu")


def test_sizes_that_the_hardware_does_not_take_are_refused() -> None:
    model = nn.Sequential(Linear(torch.zeros(24, 64), None, "none"))
    with pytest.raises(ModelError, match=r"multiples of 16.*24 x 64.*use bf16"):
        fp8.quantise(model)
