"""Every family against transformers' own model, one text at a time."""

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

from embedding_core.encoder import Encoder
from embedding_core.encoder.checkpoint.families import FAMILIES
from embedding_core.errors import ModelError
from embedding_core.identity import space_id
from tests.checkpoints import SHAPES, TEXTS, Shape, build_shape, edit_json, write_json
from tests.models import describe

Vectors = npt.NDArray[np.float32]

CORPUS = "\n\n".join(TEXTS)
N_CHARS = [0, 1, 2, 7, 7, 30, 31, 120, 200, 200, 500, 900, 1_400]
"""Characters of the texts, one token to several hundred: beyond every window of ``SHAPES``."""


def _texts() -> list[str]:
    texts = [CORPUS[n : 2 * n] for n in N_CHARS]
    random.Random(0).shuffle(texts)
    return texts


@pytest.fixture(scope="module", params=sorted(SHAPES))
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


@pytest.fixture(scope="module")
def folder(shape: Shape, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_shape(tmp_path_factory.mktemp("shape"), shape)


def _reference(folder: Path, shape: Shape, texts: list[str]) -> Vectors:
    """transformers' own model in fp32, one text at a time, unit norm."""
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    model_class = getattr(transformers, f"{shape.name}Model")
    model = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    vectors = []
    for text in texts:
        ids = torch.tensor([plain.encode(shape.prompts.get("document", "") + text).ids])
        with torch.inference_mode():
            hidden = model(ids).last_hidden_state[0]  # (n_tokens, hidden_size)
        pooled = {"mean": hidden.mean(0), "cls": hidden[0], "lasttoken": hidden[-1]}[shape.pooling]
        for place in range(2, 2 + len(shape.dense)):
            pooled = _dense(folder / f"{place}_Dense", pooled)
        vectors.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
    return np.stack(vectors)


def _dense(folder: Path, vector: torch.Tensor) -> torch.Tensor:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    out = weights["linear.weight"] @ vector + weights.get("linear.bias", 0.0)
    config = json.loads((folder / "config.json").read_text())
    return out.tanh() if config["activation_function"].endswith("Tanh") else out


def _cosines(left: Vectors, right: Vectors) -> Vectors:
    cosines: Vectors = (left * right).sum(axis=1)
    return cosines


def test_shapes_every_family_is_here() -> None:
    built = {getattr(transformers, f"{s.name}Config").model_type for s in SHAPES.values()}
    assert built | {"qwen3"} == set(FAMILIES)


@pytest.mark.slow
def test_vectors_equal_transformers_one_at_a_time(folder: Path, shape: Shape) -> None:
    texts = _texts()
    encoder = Encoder.load(str(folder), dtype="fp32", device="cpu", batch_tokens=700)
    encoded = encoder.encode(texts)
    assert 400 < max(encoder.tokenizer.count(texts)) < encoded.n_tokens
    assert encoded.n_truncated == 0
    reference = _reference(folder, shape, texts)
    assert encoded.vectors.shape == reference.shape
    assert _cosines(encoded.vectors, reference).min() >= 0.99999
    assert _cosines(encoded.vectors[:1], encoded.vectors[1:2]).max() < 0.999


@pytest.mark.slow
def test_bf16_near_fp32(folder: Path) -> None:
    texts = _texts()
    full = Encoder.load(str(folder), dtype="fp32", device="cpu").encode_documents(texts)
    half = Encoder.load(str(folder), dtype="bf16", device="cpu").encode_documents(texts)
    assert _cosines(full, half).min() >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Electra", "Olmo2"])
def test_unverified_architecture_refused_by_name_unless_allowed(tmp_path: Path, name: str) -> None:
    shape = Shape(name, "mean" if name == "Electra" else "lasttoken")
    folder, texts = build_shape(tmp_path, shape), _texts()
    with pytest.raises(ModelError, match=f"'{name.lower()}', which is not verified"):
        describe(str(folder))
    encoder = Encoder.load(
        str(folder), dtype="fp32", device="cpu", batch_tokens=700, allow_unverified=True
    )
    assert _cosines(encoder.encode_documents(texts), _reference(folder, shape, texts)).min() >= (
        0.99999
    )


@pytest.mark.parametrize("name", ["gemma3-causal", "modernbert", "mistral-window"])
def test_allow_unverified_setting_runs_padded_in_the_same_space(tmp_path: Path, name: str) -> None:
    folder, texts = build_shape(tmp_path, SHAPES[name]), _texts()
    packed = Encoder.load(str(folder), dtype="fp32", device="cpu")
    allowed = describe(str(folder), dtype="fp32", allow_unverified=True)
    assert space_id(allowed.space) == space_id(packed.space)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedding_core.encoder.checkpoint.describe.FAMILIES", {})
        (folder / "config.json").touch()  # it is described anew
        padded = Encoder.load(str(folder), dtype="fp32", device="cpu", allow_unverified=True)
        vectors = padded.encode_documents(texts)
    assert space_id(padded.space) == space_id(packed.space)
    assert _cosines(packed.encode_documents(texts), vectors).min() >= 0.99999


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen2", {"is_causal": False}, "is_causal to False"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window to True"),
        ("llama", {"use_bidirectional_attention": True}, "use_bidirectional_attention to True"),
        ("bert-cls", {"is_decoder": True}, "is_decoder to True"),
        ("roberta", {"position_embedding_type": "relative_key"}, "'relative_key'"),
        ("gemma3-causal", {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping to 30.0"),
    ],
)
def test_setting_that_is_not_tested_refused_unless_allowed(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    folder = build_shape(tmp_path, SHAPES[name])
    edit_json(folder / "config.json", **changes)
    with pytest.raises(ModelError, match=f"{message}.*not verified") as caught:
        describe(str(folder))
    assert "allow_unverified" in str(caught.value)
    checkpoint = describe(str(folder), allow_unverified=True).checkpoint
    assert checkpoint is not None and not checkpoint.verified


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ({"rope_parameters": {"full_attention": {"rope_type": "dynamic"}}}, "rope_type dynamic"),
        ({"is_encoder_decoder": True}, "an encoder and a decoder"),
    ],
)
def test_what_allow_unverified_does_not_allow(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = build_shape(tmp_path, SHAPES["modernbert"])
    edit_json(folder / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        describe(str(folder), allow_unverified=True)


def test_family_without_a_pooling_of_its_own_needs_modules_json(tmp_path: Path) -> None:
    folder = build_shape(tmp_path, SHAPES["bert-cls"])
    (folder / "modules.json").unlink()
    with pytest.raises(ModelError, match=r"has no modules\.json"):
        describe(str(folder))


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "mpnet"])
def test_positions_after_padding_leave_fewer_for_tokens(tmp_path: Path, name: str) -> None:
    folder = build_shape(tmp_path, SHAPES[name])
    space = describe(str(folder)).space
    assert space.max_tokens == 1024 - 2
    encoded = Encoder.load(str(folder), dtype="fp32", device="cpu").encode([CORPUS[:9_000]])
    assert (encoded.n_tokens, encoded.n_truncated) == (1022, 1)


def test_dense_modules_decide_size_and_space(tmp_path: Path) -> None:
    folder = build_shape(tmp_path, SHAPES["gemma3-bidirectional"])
    space = describe(str(folder)).space
    assert space.dim == 48
    assert space.document_prompt == "title: none | text: "
    weights = safetensors.torch.load_file(folder / "3_Dense" / "model.safetensors")
    weights["linear.weight"][0, 0] += 1
    safetensors.torch.save_file(weights, folder / "3_Dense" / "model.safetensors")
    assert space_id(describe(str(folder)).space) != space_id(space)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_features": 65}, "takes vectors of 65 values, the step before it gives 64"),
        ({"activation_function": "torch.nn.ReLU"}, "activation_function to 'torch.nn.ReLU'"),
        ({"use_residual": True}, "use_residual to True"),
        ({"module_input_name": "token_embeddings"}, "module_input_name"),
        ({"bias": False}, "its config promises"),
    ],
)
def test_dense_module_that_cannot_be_honoured_model_error(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = build_shape(tmp_path, SHAPES["gemma3-bidirectional"])
    edit_json(folder / "2_Dense" / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        Encoder.load(str(folder), dtype="fp32", device="cpu")


def test_end_token_of_tokenizer_config_added_once_and_part_of_the_space(tmp_path: Path) -> None:
    folder = build_shape(tmp_path / "with", SHAPES["mistral"])
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    content = json.loads((bare / "tokenizer.json").read_text())
    content["post_processor"] = None
    write_json(bare / "tokenizer.json", content)
    without = describe(str(bare))
    for directory in (folder, bare):
        end = {"__type": "AddedToken", "content": "<|endoftext|>", "special": True}
        asked = {"tokenizer_class": "LlamaTokenizer", "add_eos_token": True, "eos_token": end}
        write_json(directory / "tokenizer_config.json", asked)
    assert without.tokenizer.n_special == 0
    with_end = describe(str(bare))
    assert with_end.tokenizer.n_special == describe(str(folder)).tokenizer.n_special == 1
    assert space_id(with_end.space) != space_id(without.space)
