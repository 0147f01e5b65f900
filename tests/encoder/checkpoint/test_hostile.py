"""A checkpoint is data: whatever stands in its folder, nothing of it is run."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding_core.encoder import Encoder
from embedding_core.encoder.engines import describe_model
from embedding_core.errors import ModelError
from embedding_core.identity import space_id
from embedding_core.recipe import ModelSpec
from tests.checkpoints import as_sentence_transformer, edit_json

PICKLES = (
    "pytorch_model.bin",
    "pytorch_model-00001-of-00002.bin",
    "model.pt",
    "model.pth",
    "model.ckpt",
    "model.pkl",
    "adapter_model.bin",
    "training_args.bin",
    "optimizer.pt",
    "1_Pooling/pytorch_model.bin",
    "onnx/model.onnx",
    "tokenizer.pkl",
    "vocab.pkl",
)
CODE = (
    "modeling_qwen3.py",
    "configuration_qwen3.py",
    "tokenization_qwen3.py",
    "custom_st.py",
    "conftest.py",
    "sitecustomize.py",
    "1_Pooling/modeling.py",
)


class Poison:
    """Makes a folder where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def hostile(tiny_qwen3: Path, tmp_path: Path) -> Path:
    """A good checkpoint with pickles and code in every place where some loader reads them."""
    folder = tmp_path / "hostile"
    shutil.copytree(tiny_qwen3, folder)
    as_sentence_transformer(folder, {"pooling_mode": "lasttoken"})
    (folder / "onnx").mkdir()
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps(Poison(tmp_path / "marker")))
    for name in CODE:
        (folder / name).write_text(f"import os\nos.mkdir({str(tmp_path / 'marker')!r})\n")
    return folder


def test_poison_is_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Poison(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


def test_pickles_and_code_beside_safetensors_are_never_run(
    hostile: Path, tiny_qwen3: Path, tmp_path: Path
) -> None:
    vectors = Encoder.load(str(hostile), dtype="fp32").encode_documents(["words"])
    assert not (tmp_path / "marker").exists()
    plain = Encoder.load(str(tiny_qwen3), dtype="fp32").encode_documents(["words"])
    assert np.allclose(vectors, plain, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in PICKLES if name.endswith(".bin")])
def test_pickles_alone_are_refused_unread(hostile: Path, tmp_path: Path, name: str) -> None:
    (hostile / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"a pickle, which can run code.*safe_serialization"):
        describe_model(ModelSpec(name=str(hostile)))
    (hostile / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError):
        describe_model(ModelSpec(name=str(hostile)))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("allowed", [False, True])
def test_checkpoint_that_names_code_is_refused_even_where_settings_are_let_pass(
    hostile: Path, tmp_path: Path, file: str, allowed: bool
) -> None:
    if not (hostile / file).exists():
        (hostile / file).write_text("{}")
    for code in ("modeling_qwen3.Model", "owner/other--modeling.Model"):
        auto_map = {"AutoModel": code, "AutoConfig": code, "AutoTokenizer": [code, code]}
        edit_json(hostile / file, auto_map=auto_map)
        with pytest.raises(ModelError, match="auto_map"):
            describe_model(ModelSpec(name=str(hostile), allow_unverified=allowed))
    assert not (tmp_path / "marker").exists()


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        "[]",
        '{"weight_map": []}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "../model.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": ".."}}',
        '{"weight_map": {"a": "a\\u0000b"}}',
    ],
)
def test_index_of_weights_that_leads_elsewhere_or_is_none_is_refused(
    hostile: Path, content: str
) -> None:
    (hostile / "model.safetensors").rename(hostile.parent / "model.safetensors")
    (hostile / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelError):
        describe_model(ModelSpec(name=str(hostile)))


@pytest.mark.parametrize(
    "content",
    [
        DEEP,
        "{}",
        '["x"]',
        '[{"type": "sentence_transformers.models.Transformer"}]',
        '[{"type": 1, "path": ""}]',
        '[{"type": "os.system", "path": ""}]',
        '[{"type": "sentence_transformers.models.Transformer", "path": "../.."}]',
        '[{"type": "sentence_transformers.models.Transformer", "path": "/etc"}]',
        '[{"type": "sentence_transformers.models.Transformer", "path": "a\\u0000b"}]',
    ],
)
def test_modules_that_lead_elsewhere_or_are_none_are_refused(hostile: Path, content: str) -> None:
    (hostile / "modules.json").write_text(content)
    with pytest.raises(ModelError, match=r"modules\.json"):
        describe_model(ModelSpec(name=str(hostile)))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [DEEP, "[]", "null", '"x"', "\ufffe", "{"])
def test_file_of_a_checkpoint_that_holds_no_settings_is_refused(
    hostile: Path, file: str, content: str
) -> None:
    (hostile / file).write_text(content)
    with pytest.raises(ModelError):
        describe_model(ModelSpec(name=str(hostile)))


@pytest.mark.parametrize("position", [0.5, 0.999])
def test_flipped_byte_in_weights_is_another_space(
    tiny_qwen3: Path, tmp_path: Path, position: float
) -> None:
    folder = tmp_path / "flipped"
    shutil.copytree(tiny_qwen3, folder)
    before = describe_model(ModelSpec(name=str(folder))).space
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[int(len(content) * position)] ^= 1
    weights.write_bytes(content)
    after = describe_model(ModelSpec(name=str(folder))).space
    assert space_id(after) != space_id(before)
