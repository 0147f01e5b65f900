from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from embedding_core.encoder.checkpoint.families import QWEN3_QUERY_PROMPT
from embedding_core.encoder.local.engine import CheckpointInfo
from embedding_core.errors import ModelError
from tests.checkpoints import as_sentence_transformer, edit_json, write_json
from tests.models import describe

MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture
def qwen3(tiny_qwen3: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny_qwen3, tmp_path / "qwen3"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_resolve_minilm_published_weights_and_its_own_settings(minilm: str) -> None:
    resolved = describe(minilm)
    space = resolved.space
    assert MINILM_WEIGHTS in space.identity
    assert (space.pooling, space.max_tokens, space.dim) == ("mean", 256, 384)
    assert (space.query_prompt, space.document_prompt) == ("", "")
    assert resolved.directory is not None and (resolved.directory / "config.json").is_file()


def test_resolve_bare_qwen3_rules_of_the_family(tiny_qwen3: Path) -> None:
    resolved = describe(str(tiny_qwen3))
    space = resolved.space
    assert (space.pooling, space.max_tokens, space.dim) == ("last", 8192, 64)
    assert (space.query_prompt, space.document_prompt) == (QWEN3_QUERY_PROMPT, "")
    assert space.query_prompt.endswith("answer the query\nQuery:")
    files = (tiny_qwen3 / "config.json", tiny_qwen3 / "model.safetensors")
    assert space.identity == tuple(sorted(map(_sha256, files)))
    assert space.revision is None
    assert resolved.tokenizer is describe(str(tiny_qwen3)).tokenizer


def test_resolve_explicit_settings_decide_the_space(tiny_qwen3: Path) -> None:
    space = describe(str(tiny_qwen3), dim=16, max_tokens=100, dtype="fp32").space
    assert (space.dim, space.max_tokens, space.dtype_class) == (16, 100, "full")
    for dtype in ("auto", "fp16", "bf16"):
        assert describe(str(tiny_qwen3), dtype=dtype).space.dtype_class == "half"


def test_resolve_sharded_weights_every_shard_counts(qwen3: Path) -> None:
    (qwen3 / "model.safetensors").rename(qwen3 / "model-1.safetensors")
    shutil.copy(qwen3 / "model-1.safetensors", qwen3 / "model-2.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    write_json(qwen3 / "model.safetensors.index.json", index)
    assert len(describe(str(qwen3)).space.identity) == 3


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
    ],
)
def test_resolve_pooling_old_and_new_keys(
    qwen3: Path, config: dict[str, Any], pooling: str
) -> None:
    as_sentence_transformer(qwen3, config)
    assert describe(str(qwen3)).space.pooling == pooling


@pytest.mark.parametrize("name", ["document", "passage"])
def test_resolve_prompts_of_the_checkpoint_win(qwen3: Path, name: str) -> None:
    prompts = {"query": "q: ", name: "d: "}
    write_json(qwen3 / "config_sentence_transformers.json", {"prompts": prompts})
    space = describe(str(qwen3)).space
    assert (space.query_prompt, space.document_prompt) == ("q: ", "d: ")


@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ],
)
def test_resolve_max_tokens_smallest_of_the_files(qwen3: Path, file: str, key: str) -> None:
    write_json(qwen3 / file, {key: 77})
    assert describe(str(qwen3)).space.max_tokens == 77
    assert describe(str(qwen3), max_tokens=8192).space.max_tokens == 8192
    write_json(qwen3 / file, {key: 10**30})
    assert describe(str(qwen3)).space.max_tokens == 8192


def test_resolve_changed_file_new_digest(qwen3: Path) -> None:
    before = describe(str(qwen3)).space
    edit_json(qwen3 / "config.json", rms_norm_eps=1e-5)
    assert describe(str(qwen3)).space.identity != before.identity


def test_resolve_reads_the_files_once_until_one_of_them_changes(qwen3: Path) -> None:
    first = describe(str(qwen3))
    assert describe(str(qwen3)) is first and describe(str(qwen3), dim=16) is not first
    # 1. A file that comes, also in a folder of the folder.
    write_json(qwen3 / "sentence_bert_config.json", {"max_seq_length": 77})
    shorter = describe(str(qwen3))
    assert (first.space.max_tokens, shorter.space.max_tokens) == (8192, 77)
    (qwen3 / "notes").mkdir()
    (qwen3 / "notes" / "a.txt").write_text("a")
    assert describe(str(qwen3)) is not shorter
    # 2. A file of the same length with other content.
    settings = qwen3 / "sentence_bert_config.json"
    settings.write_text(settings.read_text().replace("77", "66"))
    assert describe(str(qwen3)).space.max_tokens == 66
    # 3. A file that goes.
    settings.unlink()
    assert describe(str(qwen3)).space == first.space
    (qwen3 / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no safetensors weights"):
        describe(str(qwen3))


def test_resolve_tokenizer_saved_again_with_lengths_is_the_same_one(qwen3: Path) -> None:
    path = qwen3 / "tokenizer.json"
    before = describe(str(qwen3)).space
    saved = tokenizers.Tokenizer.from_file(str(path))
    saved.enable_truncation(17)
    saved.enable_padding(length=32)
    saved.save(str(path), pretty=True)
    assert describe(str(qwen3)).space == before
    saved.add_tokens(["another"])
    saved.save(str(path))
    assert describe(str(qwen3)).space.tokenizer != before.tokenizer


def test_resolve_gives_a_record_that_pickles(tiny_qwen3: Path) -> None:
    resolved = describe(str(tiny_qwen3))
    copy: CheckpointInfo = pickle.loads(pickle.dumps(resolved))
    assert copy == resolved
    assert copy.tokenizer.count(["words"]) == resolved.tokenizer.count(["words"])


@pytest.mark.slow
def test_import_and_resolve_load_no_torch(minilm: str, tmp_path: Path) -> None:
    """Nor, once the tokenizer was read on this machine, transformers."""
    code = f"""
import sys, embedding_core.encoder as e
r = e.describe_model(e.model_spec({minilm!r})); r.tokenizer.count(["words"])
heavy = [m for m in ("torch", "transformers", "fsspec.implementations.local",
                     "lancedb") if m in sys.modules]
print(heavy)
"""
    environment = os.environ | {"HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    first, second = (
        subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout
        for _ in range(2)
    )
    assert "torch'" not in first
    assert second.strip() == "[]"


# What is refused: how the checkpoint is broken, and what the message must name.


def _remove(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


def _config(**changes: Any) -> Any:
    return lambda folder: edit_json(folder / "config.json", **changes)


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _outside_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../other/model.safetensors"}}
    write_json(folder / "model.safetensors.index.json", index)


def _pooling(config: dict[str, Any], *extra: str) -> Any:
    return lambda folder: as_sentence_transformer(folder, config, *extra)


def _foreign_module(folder: Path) -> None:
    as_sentence_transformer(folder, {"pooling_mode": "mean"})
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "custom_code.Transformer"
    write_json(folder / "modules.json", modules)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (_remove("config.json"), "has no config.json"),
        (_remove("tokenizer.json"), "has no tokenizer.json"),
        (_remove("model.safetensors"), "no safetensors weights"),
        (_pickle_only, "pytorch_model.bin, a pickle"),
        (_truncate, "is damaged"),
        (_outside_shard, "outside its own folder"),
        (_config(auto_map={"AutoModel": "evil.Model"}), "auto_map"),
        (_config(model_type="gpt2"), "'gpt2', which is not verified; supported: bert, distilbert"),
        (_config(use_sliding_window=True), "use_sliding_window"),
        (_config(rope_parameters={"rope_type": "dynamic"}), "rope_type dynamic"),
        (_config(hidden_size=None), "hidden_size None"),
        (_config(model_type="bert"), "has no modules.json"),
        (_pooling({"pooling_mode": "max"}), "supported: mean, cls or last token"),
        (_pooling({"pooling_mode": ["mean", "cls"]}), "supported: mean, cls or last token"),
        (_pooling({"pooling_mode": "mean", "include_prompt": False}), "prompts out of the pooling"),
        (_pooling({"pooling_mode": "mean"}, "LSTM"), "LSTM, which embedlake does not run"),
        (_foreign_module, "custom_code.Transformer"),
    ],
)
def test_resolve_checkpoint_that_cannot_be_trusted_model_error(
    qwen3: Path, break_it: Any, message: str
) -> None:
    break_it(qwen3)
    with pytest.raises(ModelError, match=message):
        describe(str(qwen3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./no/such/folder", "no folder './no/such/folder'"),
        ("package:no_such_package", "no python package 'no_such_package'"),
        ("package:numpy", "holds no config.json"),
        ("package:../etc", "no python package"),
        ("gs://bucket/model", "from gs://; use a hub id"),
        ("minilm", "cannot tell what model 'minilm' is"),
    ],
)
def test_resolve_unknown_name_model_error(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        describe(name)


def test_resolve_hub_out_of_reach_names_id_revision_and_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"'owner/model', revision 'v9'.*copy the checkpoint"):
        describe("owner/model", revision="v9")


def test_resolve_hub_snapshot_commit_is_the_revision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_qwen3: Path
) -> None:
    snapshot = shutil.copytree(tiny_qwen3, tmp_path / "snapshots" / ("c" * 40))
    asked: dict[str, Any] = {}

    def download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    resolved = describe("owner/model", revision="main")
    assert resolved.space.revision == "c" * 40
    assert (asked["repo_id"], asked["revision"]) == ("owner/model", "main")
    assert not any("bin" in pattern for pattern in asked["allow_patterns"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dim": 65}, "dim 65 is larger than the 64"),
        ({"dim": 0}, "dim is 0"),
        ({"max_tokens": 8193}, "max_tokens 8193 is above the 8,192 positions"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"dtype": "int8"}, "dtype is 'int8': Input should be 'auto'"),
        ({"revision": "main"}, "only hub models have revisions"),
    ],
)
def test_resolve_impossible_setting_model_error(
    tiny_qwen3: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        describe(str(tiny_qwen3), **asked)
