"""The packed forward against transformers and sentence-transformers, one text at a time."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import tokenizers
import torch
import transformers

from embedding_core.encoder import Encoder, NonFiniteVectors
from embedding_core.encoder.local import transformer
from embedding_core.errors import ModelError, RejectedInput
from tests.checkpoints import TEXTS, as_sentence_transformer, build_qwen3, edit_json
from tests.models import describe

Vectors = npt.NDArray[np.float32]

CORPUS = "\n\n".join(TEXTS)
MAX_TOKENS = 4096
LENGTHS = [0, 1, 2, 3, 7, 7, 7, 30, 31, 200, 200, 900, 2_500, 100_000]
"""Characters; the longest text is cut at ``MAX_TOKENS``, the empty one is one token."""


def _texts() -> list[str]:
    texts = [CORPUS[n : 2 * n] for n in LENGTHS]
    random.Random(0).shuffle(texts)
    return texts


def _reference(folder: Path, texts: list[str]) -> Vectors:
    """transformers' own model in fp32, one text at a time, last token, unit norm."""
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = transformers.Qwen3Model.from_pretrained(folder, dtype=torch.float32).eval()
    vectors = []
    for text in texts:
        ids = plain.encode(text).ids
        ids = [*ids[:-1][: MAX_TOKENS - 1], ids[-1]]
        with torch.inference_mode():
            hidden = model(torch.tensor([ids])).last_hidden_state[0, -1]
        vectors.append(torch.nn.functional.normalize(hidden, dim=0).numpy())
    return np.stack(vectors)


def _cosines(left: Vectors, right: Vectors) -> Vectors:
    cosines: Vectors = (left * right).sum(axis=1)
    return cosines


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return _texts()


@pytest.fixture(scope="module")
def reference(tiny_qwen3: Path, texts: list[str]) -> Vectors:
    return _reference(tiny_qwen3, texts)


def _load(folder: Path, dtype: str = "fp32", **options: Any) -> Encoder:
    options = {"max_tokens": MAX_TOKENS, "batch_tokens": 1024} | options
    return Encoder.load(str(folder), dtype=dtype, device="cpu", **options)


@pytest.mark.parametrize(("dtype", "cosine"), [("fp32", 0.99999), ("bf16", 0.999)])
def test_qwen3_packed_equals_transformers_one_at_a_time(
    tiny_qwen3: Path, texts: list[str], reference: Vectors, dtype: str, cosine: float
) -> None:
    encoder = _load(tiny_qwen3, dtype)
    counts = [min(count, MAX_TOKENS) for count in encoder.tokenizer.count(texts)]
    assert (min(counts), max(counts)) == (1, MAX_TOKENS)
    encoded = encoder.encode(texts)
    assert _cosines(encoded.vectors, reference).min() >= cosine
    assert (encoded.n_tokens, encoded.n_truncated) == (sum(counts), 1)
    assert encoded.n_recomputed == 0


@pytest.mark.slow
def test_qwen3_vectors_do_not_depend_on_the_batch(tiny_qwen3: Path, texts: list[str]) -> None:
    encoder = _load(tiny_qwen3, batch_tokens=100_000)
    together = encoder.encode_documents(texts)
    alone = np.concatenate([encoder.encode_documents([text]) for text in texts])
    assert np.abs(together - alone).max() <= 1e-5
    small = _load(tiny_qwen3, batch_tokens=1).encode_documents(texts)
    assert np.abs(together - small).max() <= 1e-5


@pytest.mark.slow
def test_qwen3_shuffled_input_shuffled_output(tiny_qwen3: Path, texts: list[str]) -> None:
    encoder = _load(tiny_qwen3)
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = encoder.encode_documents([texts[i] for i in order])
    assert np.abs(encoder.encode_documents(texts)[order] - shuffled).max() <= 1e-5


def test_qwen3_without_post_processor_same_vectors(tmp_path: Path, tiny_qwen3: Path) -> None:
    old = build_qwen3(tmp_path, post_processor=False)
    some = [text[:200] for text in TEXTS[:5]]
    np.testing.assert_array_equal(
        _load(old).encode_documents(some), _load(tiny_qwen3).encode_documents(some)
    )


def test_qwen3_query_prompt_is_the_text_before_the_query(tiny_qwen3: Path) -> None:
    encoder = _load(tiny_qwen3)
    by_hand = encoder.encode_documents([encoder.space.query_prompt + "why"])
    np.testing.assert_array_equal(encoder.encode_queries(["why"]), by_hand)


def test_qwen3_dim_slices_before_normalising(tiny_qwen3: Path) -> None:
    some = [text[:200] for text in TEXTS[:5]]
    full = _load(tiny_qwen3).encode_documents(some)
    sliced = _load(tiny_qwen3, dim=16).encode_documents(some)
    expected = full[:, :16] / np.linalg.norm(full[:, :16], axis=1, keepdims=True)
    np.testing.assert_allclose(sliced, expected, atol=1e-6)


def test_qwen3_more_texts_than_a_window_same_vectors(
    tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [text[: 20 + 7 * i] for i, text in enumerate(TEXTS[:40])]
    whole = _load(tiny_qwen3).encode(some)
    monkeypatch.setitem(transformer.WINDOW_BATCHES, "cpu", 2)
    windowed = _load(tiny_qwen3, batch_tokens=128).encode(some)
    assert np.abs(whole.vectors - windowed.vectors).max() <= 1e-5
    assert windowed.n_tokens == whole.n_tokens


@pytest.mark.slow
def test_qwen3_mean_pooling_equals_sentence_transformers(tmp_path: Path, tiny_qwen3: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = Path(shutil.copytree(tiny_qwen3, tmp_path / "mean"))
    as_sentence_transformer(folder, {"embedding_dimension": 64, "pooling_mode": "mean"})
    some = [text[:300] for text in TEXTS[:8]]
    ours = _load(folder).encode_documents(some)
    peer = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    assert _cosines(ours, peer.encode(some, batch_size=1)).min() >= 0.99999


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[int]]:
    """A checkpoint whose first layer passes fp16's limit for texts that hold one certain token."""
    folder = build_qwen3(tmp_path_factory.mktemp("overflowing"))
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    token = plain.token_to_id("@")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    embedding = weights["embed_tokens.weight"]
    embedding[:, 0] = 0.0
    embedding[token, 0] = 1.5
    gate, up, down = (
        weights[f"layers.0.mlp.{part}_proj.weight"] for part in ("gate", "up", "down")
    )
    gate[0], up[0] = 0.0, 0.0
    gate[0, 0] = up[0, 0] = 600.0
    down[:, 0] *= 1e-4
    weights["layers.0.post_attention_layernorm.weight"][:] = 1.0
    weights["layers.0.self_attn.o_proj.weight"][0] = 0.0
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    texts = [
        text[:150].replace("@", "a") + ("@" * (i % 3 == 0)) for i, text in enumerate(TEXTS[:12])
    ]
    return folder, texts, [i for i in range(12) if i % 3 == 0]


def test_fp16_overflow_only_those_rows_computed_again(
    overflowing: tuple[Path, list[str], list[int]],
) -> None:
    folder, texts, bad = overflowing
    half = _load(folder, "fp16").encode(texts)
    full = _load(folder, "fp32").encode(texts)
    assert half.n_recomputed == len(bad)
    assert full.n_recomputed == 0
    assert np.isfinite(half.vectors).all()
    assert _cosines(half.vectors, full.vectors).min() >= 0.999
    fine = [text for i, text in enumerate(texts) if i not in bad]
    kept = [i for i in range(len(texts)) if i not in bad]
    apart = _load(folder, "fp16").encode(fine)
    assert apart.n_recomputed == 0
    assert np.abs(apart.vectors - half.vectors[kept]).max() <= 2e-3


def test_fp16_overflow_batch_companions_not_affected(
    overflowing: tuple[Path, list[str], list[int]],
) -> None:
    folder, texts, bad = overflowing
    encoder = _load(folder, "fp16", batch_tokens=10**6)  # all in one forward pass
    assert encoder.encode(texts).n_recomputed == len(bad)


def test_not_finite_even_in_fp32_error_names_the_texts(tmp_path: Path) -> None:
    folder = build_qwen3(tmp_path)
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["embed_tokens.weight"][plain.token_to_id("@")] = float("nan")
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for dtype in ("fp16", "fp32"):
        with pytest.raises(NonFiniteVectors, match="positions 1, 3") as caught:
            _load(folder, dtype).encode(["fine", "@", "fine", "a @"])
        assert caught.value.indices == (1, 3)
        assert isinstance(caught.value, RejectedInput)


@pytest.mark.slow
def test_minilm_equals_sentence_transformers(minilm: str) -> None:
    from sentence_transformers import SentenceTransformer

    directory = describe(minilm).directory
    some = [*(text[: 11 * i] for i, text in enumerate(TEXTS[:40])), TEXTS[0] * 3]
    encoder = Encoder.load(minilm, dtype="fp32", device="cpu")
    encoded = encoder.encode(some)
    assert encoded.n_truncated == sum(count > 256 for count in encoder.tokenizer.count(some)) > 0
    peer = SentenceTransformer(str(directory), device="cpu").encode(some)
    assert _cosines(encoded.vectors, peer).min() >= 0.99999


@pytest.mark.slow
def test_minilm_bf16_near_fp32(minilm: str) -> None:
    some = [text[: 11 * i] for i, text in enumerate(TEXTS[:40])]
    full = Encoder.load(minilm, dtype="fp32", device="cpu").encode_documents(some)
    half = Encoder.load(minilm, dtype="bf16", device="cpu").encode_documents(some)
    assert _cosines(full, half).min() >= 0.9995


@pytest.mark.slow
def test_minilm_bf16_without_fused_layers_same_vectors(
    minilm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [text[: 11 * i] for i, text in enumerate(TEXTS[:20])]
    fused = Encoder.load(minilm, dtype="bf16", device="cpu").encode_documents(some)
    monkeypatch.setattr("embedding_core.encoder.local.layers.linear.has_onednn_bf16", lambda: False)
    plain = Encoder.load(minilm, dtype="bf16", device="cpu").encode_documents(some)
    assert _cosines(fused, plain).min() >= 0.9995


def test_encode_lone_surrogate_value_error_names_the_text(tiny_qwen3: Path) -> None:
    with pytest.raises(ValueError, match="text 1 is not valid Unicode"):
        _load(tiny_qwen3).encode(["fine", "\ud800"])


def test_load_prompt_that_fills_max_tokens_model_error(tmp_path: Path) -> None:
    folder = build_qwen3(tmp_path)
    prompts = {"query": "", "document": "the instruction of a very talkative model: "}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    with pytest.raises(ModelError, match="max_tokens 8 leaves no room beside the"):
        Encoder.load(str(folder), dtype="fp32", device="cpu", max_tokens=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "'tpu' is no device"),
        ({"device": "cuda:99"}, "CUDA devices here"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"max_tokens": 7}, "max_tokens is 7: Input should be greater than or equal to 8"),
    ],
)
def test_load_impossible_setting_model_error(
    tiny_qwen3: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Encoder.load(str(tiny_qwen3), **({"device": "cpu", "dtype": "fp32"} | options))


def test_load_missing_weight_model_error(tiny_qwen3: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_qwen3, tmp_path / "missing"))
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    del weights["layers.1.mlp.up_proj.weight"]
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 .*layers\.1\.mlp\.up_proj\.weight"):
        _load(folder)


def test_load_tokenizer_of_another_model_model_error(tiny_qwen3: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_qwen3, tmp_path / "mismatch"))
    edit_json(folder / "config.json", vocab_size=100)
    with pytest.raises(ModelError, match="tokens, the model 100"):
        _load(folder)
