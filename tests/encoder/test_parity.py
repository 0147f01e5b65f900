from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from embedding_core.encoder import Encoder, check_parity, parity_vectors
from embedding_core.encoder.parity import PARITY_TEXTS
from embedding_core.errors import ModelError
from embedding_core.identity import text_hash
from tests.checkpoints import build_qwen3


def test_parity_texts_never_change() -> None:
    assert len(PARITY_TEXTS) == 8
    assert text_hash("\0".join(PARITY_TEXTS)) == (
        "ba741145fb28c0e9fe5f6d062739bb56711d0b602514eaf1556de9d1f36bc92c"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hashing", "tiny_qwen3", "minilm"])
def test_check_parity_same_model_in_another_arithmetic_passes(
    request: pytest.FixtureRequest, name: str
) -> None:
    model = name if name == "hashing" else str(request.getfixturevalue(name))
    reference = parity_vectors(Encoder.load(model, dtype="fp32", device="cpu"))
    assert reference.shape == (8, reference.shape[1])
    np.testing.assert_allclose(np.linalg.norm(reference, axis=1), 1.0, atol=1e-5)
    check_parity(Encoder.load(model, device="cpu"), reference.astype(np.float16))


def test_check_parity_one_weight_matrix_changed_model_error(tmp_path: Path) -> None:
    folder = build_qwen3(tmp_path)
    reference = parity_vectors(Encoder.load(str(folder), dtype="fp32", device="cpu"))
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    name = "layers.1.self_attn.v_proj.weight"
    weights[name] = -weights[name]
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"cosine .* for parity text \d"):
        check_parity(Encoder.load(str(folder), dtype="fp32", device="cpu"), reference)


@pytest.mark.parametrize("place", range(8))
def test_check_parity_one_row_off_model_error_names_it(place: int) -> None:
    encoder = Encoder.load("hashing", dim=32)
    reference = parity_vectors(encoder)
    reference[place] = np.roll(reference[place], 1)
    with pytest.raises(ModelError, match=f"parity text {place},"):
        check_parity(encoder, reference)
    reference[place] = np.nan
    with pytest.raises(ModelError, match=f"parity text {place},"):
        check_parity(encoder, reference)


def test_check_parity_reference_of_another_space_model_error() -> None:
    encoder = Encoder.load("hashing", dim=32)
    with pytest.raises(ModelError, match="belongs to another space"):
        check_parity(encoder, parity_vectors(Encoder.load("hashing", dim=16)))
