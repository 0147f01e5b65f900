"""LoRA adapters: merged weights against transformers and peft, and what is refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import safetensors.torch
import tokenizers
import torch
import transformers

from embedding_core.encoder import Encoder
from embedding_core.errors import ModelError
from embedding_core.identity import space_id
from tests.checkpoints import (
    SHAPES,
    TEXTS,
    build_adapter,
    build_qwen3,
    build_shape,
    edit_json,
)
from tests.models import describe

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"  # peft asks transformers
)

SOME = [text[: 40 + 60 * place] for place, text in enumerate(TEXTS[:6])]


@pytest.fixture(scope="module")
def qwen3_adapter(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_adapter(tmp_path_factory.mktemp("lora"), tiny_qwen3, "Qwen3Model")


@pytest.fixture
def adapter(qwen3_adapter: Path, tmp_path: Path) -> Path:
    """A copy of the adapter that a test may damage."""
    return Path(shutil.copytree(qwen3_adapter, tmp_path / "lora"))


def _load(base: Path, adapter: Path | None, dtype: str = "fp32") -> Encoder:
    name = None if adapter is None else str(adapter)
    return Encoder.load(str(base), adapter=name, dtype=dtype, device="cpu")


def _reference(base: Path, adapter: Path, model_class: str, pooling: str) -> np.ndarray:
    """transformers with peft's layers beside its own, not merged, one text at a time."""
    plain = tokenizers.Tokenizer.from_file(str(base / "tokenizer.json"))
    plain.no_padding()  # the real MiniLM's pads to 128
    model = getattr(transformers, model_class).from_pretrained(base, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, str(adapter)).eval()
    vectors = []
    for text in SOME:
        with torch.inference_mode():
            out = model(torch.tensor([plain.encode(text).ids]), output_hidden_states=True)
        hidden = out.hidden_states[-1][0]
        pooled = {"last": hidden[-1], "mean": hidden.mean(0), "cls": hidden[0]}[pooling]
        vectors.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
    return np.stack(vectors)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"use_rslora": True},
        {"target_modules": ["q_proj", "v_proj"], "lora_alpha": 3},
        {"rank_pattern": {"mlp.up_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 64}},
    ],
)
def test_qwen3_adapter_vectors_equal_peft(
    tiny_qwen3: Path, tmp_path: Path, config: dict[str, Any]
) -> None:
    adapter = build_adapter(tmp_path, tiny_qwen3, "Qwen3Model", **config)
    encoder, base = _load(tiny_qwen3, adapter), _load(tiny_qwen3, None)
    vectors = encoder.encode_documents(SOME)
    expected = _reference(tiny_qwen3, adapter, "Qwen3Model", "last")
    assert (vectors * expected).sum(axis=1).min() >= 0.99999
    assert (vectors * base.encode_documents(SOME)).sum(axis=1).max() < 0.999
    assert space_id(encoder.space) != space_id(base.space)


def test_qwen3_adapter_in_half_precision_is_merged_before_rounding(
    tiny_qwen3: Path, qwen3_adapter: Path
) -> None:
    full, half = _load(tiny_qwen3, qwen3_adapter), _load(tiny_qwen3, qwen3_adapter, "bf16")
    cosines = (full.encode_documents(SOME) * half.encode_documents(SOME)).sum(axis=1)
    assert cosines.min() >= 0.999


def test_adapter_trained_under_a_head_equals_peft(tiny_qwen3: Path, tmp_path: Path) -> None:
    """A causal language model calls the same layers ``model.layers…``."""
    adapter = build_adapter(
        tmp_path,
        tiny_qwen3,
        "Qwen3ForCausalLM",
        alpha_pattern={r"^model\.layers\.0\.mlp\.up_proj": 40},
    )
    vectors = _load(tiny_qwen3, adapter).encode_documents(SOME)
    expected = _reference(tiny_qwen3, adapter, "Qwen3ForCausalLM", "last")
    assert (vectors * expected).sum(axis=1).min() >= 0.99999


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "pooling"),
    [("bert-cls", "cls"), ("roberta", "mean"), ("distilbert", "mean"), ("mpnet", "mean")],
)
def test_other_families_adapter_vectors_equal_peft(
    tmp_path: Path, shape: str, pooling: str
) -> None:
    base = build_shape(tmp_path / "base", SHAPES[shape])
    adapter = build_adapter(tmp_path / "lora", base, f"{SHAPES[shape].name}Model")
    vectors = _load(base, adapter).encode_documents(SOME)
    expected = _reference(base, adapter, f"{SHAPES[shape].name}Model", pooling)
    assert (vectors * expected).sum(axis=1).min() >= 0.99999


@pytest.mark.slow
def test_real_minilm_with_an_adapter_equals_peft(minilm: str, tmp_path: Path) -> None:
    base = describe(minilm).directory
    assert base is not None
    adapter = build_adapter(tmp_path, base, "BertModel", target_modules=["query", "value"])
    encoder = Encoder.load(minilm, adapter=str(adapter), dtype="fp32", device="cpu")
    expected = _reference(base, adapter, "BertModel", "mean")
    assert (encoder.encode_documents(SOME) * expected).sum(axis=1).min() >= 0.9999
    assert encoder.space.model == f"{minilm} + {adapter}"


def test_space_of_an_adapter_content_decides_and_nothing_else(
    tiny_qwen3: Path, adapter: Path
) -> None:
    def identity() -> str:
        return space_id(describe(str(tiny_qwen3), adapter=str(adapter)).space)

    before = identity()
    config = adapter / "adapter_config.json"
    edit_json(config, base_model_name_or_path="./elsewhere", inference_mode=False, lora_dropout=0.5)
    assert identity() == before
    edit_json(config, lora_alpha=17)
    scaled = identity()
    weights = safetensors.torch.load_file(adapter / "adapter_model.safetensors")
    changed = {key: tensor * 1.01 for key, tensor in weights.items()}
    safetensors.torch.save_file(changed, adapter / "adapter_model.safetensors")
    assert len({before, scaled, identity()}) == 3


def test_adapter_of_another_base_by_shape_refused_with_both_names(
    qwen3_adapter: Path, tmp_path: Path, tiny_qwen3: Path
) -> None:
    other = build_qwen3(tmp_path / "other", hidden_size=32, head_dim=16)
    with pytest.raises(ModelError) as caught:
        describe(str(other), adapter=str(qwen3_adapter))
    assert str(other) in str(caught.value) and str(tiny_qwen3) in str(caught.value)
    assert "set model.name to the adapter's own base" in str(caught.value)


def test_adapter_of_a_deeper_base_refused(qwen3_adapter: Path, tmp_path: Path) -> None:
    other = build_qwen3(tmp_path / "other", num_hidden_layers=2)
    with pytest.raises(ModelError, match=r"layers\.2\..*the base has no such layer"):
        describe(str(other), adapter=str(qwen3_adapter))


def test_adapter_of_another_hub_model_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_qwen3: Path, adapter: Path
) -> None:
    """Equal shapes: only the names tell the two bases apart."""
    snapshot = shutil.copytree(tiny_qwen3, tmp_path / "snapshots" / ("c" * 40))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    edit_json(adapter / "adapter_config.json", base_model_name_or_path="owner/other")
    with pytest.raises(ModelError, match=r"trained on 'owner/other', not on 'owner/model'"):
        describe("owner/model", adapter=str(adapter))
    edit_json(adapter / "adapter_config.json", base_model_name_or_path="Owner/Model")
    assert describe("owner/model", adapter=str(adapter)).space.revision == "c" * 40


def _config(**changes: Any) -> Any:
    return lambda folder: edit_json(folder / "adapter_config.json", **changes)


def _pickle_only(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def _truncate(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _foreign_tensor(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.norm.weight"] = torch.ones(64)
    safetensors.torch.save_file(weights, folder / "adapter_model.safetensors")


def _not_finite(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "adapter_model.safetensors")
    weights[next(iter(weights))][0] = torch.nan
    safetensors.torch.save_file(weights, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "has no adapter_config.json"),
        (_pickle_only, "has no adapter_model.safetensors"),
        (_truncate, "is damaged"),
        (_config(peft_type="IA3"), "peft_type 'IA3'; supported: LORA"),
        (_config(init_lora_weights="pissa"), "which changes the base itself"),
        (_config(layer_replication=[[0, 2]]), "layer_replication"),
        (_config(lora_alpha=None), "lora_alpha None where a number is needed"),
        (_config(alpha_pattern={"q_proj(": 8}), "alpha_pattern that cannot be read"),
        (_foreign_tensor, r"norm\.weight'; only LoRA matrices"),
        (_not_finite, "not finite"),
    ],
)
def test_adapter_that_cannot_be_merged_model_error(
    tiny_qwen3: Path, adapter: Path, break_it: Any, message: str
) -> None:
    break_it(adapter)
    with pytest.raises(ModelError, match=message):
        _load(tiny_qwen3, adapter)


def test_adapter_named_as_the_model_told_where_it_belongs(adapter: Path, tiny_qwen3: Path) -> None:
    with pytest.raises(ModelError, match=r"holds an adapter.*model\.adapter") as caught:
        describe(str(adapter))
    assert str(tiny_qwen3) in str(caught.value)


def test_model_with_an_adapter_beside_it_refused(tiny_qwen3: Path, adapter: Path) -> None:
    """transformers would load it on top of the weights, and the space would not know."""
    shutil.copytree(tiny_qwen3, adapter, dirs_exist_ok=True)
    with pytest.raises(ModelError, match=r"remove adapter_config\.json if the adapter is merged"):
        describe(str(adapter))


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        (
            "hashing",
            {"adapter": "./lora"},
            "'./lora' means nothing for the model 'hashing'",
        ),
        (None, {"adapter": "./no/such"}, "no folder './no/such'"),
        (None, {"adapter": "minilm"}, "cannot tell what model 'minilm' is"),
        (None, {"adapter_revision": "main"}, "without an adapter"),
    ],
)
def test_adapter_that_is_not_there_model_error(
    tiny_qwen3: Path, name: str | None, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        describe(name or str(tiny_qwen3), **asked)


def test_adapter_without_peft_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tiny_qwen3: Path, qwen3_adapter: Path
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=r"pip install 'embedlake\[lora\]'"):
        _load(tiny_qwen3, qwen3_adapter)
