"""Each row of the tables of sentence-transformers' own files, and of the files themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from embedding_core.encoder import Encoder
from embedding_core.encoder.checkpoint.treatments.folder import FILES, SENTENCE_FILES
from embedding_core.encoder.checkpoint.treatments.sentence_config import (
    CONFIG_KWARGS,
    DENSE,
    MODEL_KWARGS,
    MODULE,
    NORMALIZE,
    POOLING,
    PROCESSOR_KWARGS,
    SENTENCE_CONFIG,
    SENTENCE_TRANSFORMERS_CONFIG,
)
from embedding_core.errors import ModelError
from embedding_core.identity import space_id
from tests.checkpoints import add_dense, as_sentence_transformer, edit_json, write_json
from tests.contracts.test_checkpoint_settings import (
    assert_honoured,
    assert_refused,
    equal,
    keys_of,
    vectors_of,
)
from tests.models import describe
from tests.settings import PROSE, Vectors, build, edited, reference

pytestmark = pytest.mark.slow

SENTENCE = "sentence_bert_config.json"
ASKED = "config_sentence_transformers.json"
TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Vectors]:
    """A BERT checkpoint with two Dense modules, and sentence-transformers' vectors."""
    folder = build(tmp_path_factory.mktemp("modules") / "bert", "bert")
    pooling = {"embedding_dimension": 64, "pooling_mode": "mean"}
    as_sentence_transformer(folder, pooling, "Dense", "Dense")
    add_dense(folder / "2_Dense", 64, 96, first=True)
    add_dense(folder / "3_Dense", 96, 48, first=False)
    (folder / "4_Normalize").mkdir()
    write_json(folder / "4_Normalize" / "config.json", {})
    return folder, reference(folder)


# sentence_bert_config.json


@pytest.mark.parametrize("name", SENTENCE_FILES)
def test_sentence_config_under_each_of_its_names(
    base: tuple[Path, Vectors], tmp_path: Path, name: str
) -> None:
    assert_honoured(edited(base[0], tmp_path / "set", name, max_seq_length=20), base)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "qwen3", "llama"])
def test_sentence_config_lower_case_honoured(tmp_path: Path, family: str) -> None:
    """Whatever the tokenizer's own rules are, and once."""
    folder = build(tmp_path / "base", family)
    base = folder, reference(folder)
    lowered = edited(folder, tmp_path / "lower", SENTENCE, do_lower_case=True)
    assert_honoured(lowered, base)
    assert describe(str(lowered)).space.tokenizer != describe(str(folder)).space.tokenizer


def test_sentence_config_lower_case_not_added_to_a_tokenizer_that_lowers(tmp_path: Path) -> None:
    folder = build(tmp_path / "base", "modernbert")
    edit_json(folder / "tokenizer.json", normalizer={"type": "Lowercase"})
    lowered = edited(folder, tmp_path / "lower", SENTENCE, do_lower_case=True)
    assert describe(str(lowered)).space.tokenizer == describe(str(folder)).space.tokenizer


def test_sentence_config_of_several_the_first_that_says_something(
    base: tuple[Path, Vectors], tmp_path: Path
) -> None:
    folder = edited(base[0], tmp_path / "set", SENTENCE_FILES[3], max_seq_length=20)
    write_json(folder / SENTENCE_FILES[0], {})
    write_json(folder / SENTENCE_FILES[5], {"max_seq_length": 10})
    assert_honoured(folder, base)
    assert describe(str(folder)).space.max_tokens == 20


@pytest.mark.parametrize(
    "changes",
    [
        {"max_seq_length": 200},  # more than the tokenizer's 150: this file wins
        {"max_seq_length": None},
        {"max_seq_length": 20, "processor_kwargs": {"model_max_length": 30}},
        {"max_seq_length": 20, "tokenizer_args": {"model_max_length": 30}},
        {"modality_config": {"text": TEXT}, "module_output_name": "token_embeddings"},
    ],
)
def test_sentence_config_honoured(
    base: tuple[Path, Vectors], tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert_honoured(edited(base[0], tmp_path / "set", SENTENCE, **changes), base)


def test_sentence_config_positions_are_the_last_limit(
    base: tuple[Path, Vectors], tmp_path: Path
) -> None:
    folder = edited(base[0], tmp_path / "set", SENTENCE, max_seq_length=10**9)
    assert describe(str(folder)).space.max_tokens == 256


HUB = {"token": None, "cache_dir": None, "revision": None, "subfolder": "", "code_revision": None}
IRRELEVANT = {
    "unpad_inputs": False,
    "backend": "torch",
    "transformer_task": "feature-extraction",
    "do_lower_case": False,
    "processing_kwargs": {},
    "query_length": None,
    "processor_kwargs": {
        **HUB,
        "trust_remote_code": True,
        "local_files_only": True,
        "use_fast": True,
        "padding_side": "left",
    },
    "model_kwargs": {
        **HUB,
        "trust_remote_code": True,
        "local_files_only": True,
        "torch_dtype": "float32",
        "attn_implementation": "eager",
        "low_cpu_mem_usage": True,
        "use_safetensors": True,
    },
    "config_kwargs": {**HUB, "trust_remote_code": True, "use_cache": False},
}


def test_sentence_config_irrelevant_all_at_once(base: tuple[Path, Vectors], tmp_path: Path) -> None:
    assert set(keys_of(SENTENCE_CONFIG, "irrelevant")) <= set(IRRELEVANT)
    folder = edited(base[0], tmp_path / "set", SENTENCE, **IRRELEVANT)
    assert equal(reference(folder), base[1])
    assert equal(vectors_of(folder), base[1])


REFUSED: dict[str, Any] = {
    "transformer_task": "fill-mask",
    "module_output_name": "sentence_embedding",
    "processing_kwargs": {"text": {"max_length": 9}},
    "query_length": 9,
    "document_length": 9,
    "query_expansion": {"strategy": "fixed", "length": 9},
    "tokenizer_name_or_path": "bert-base-uncased",
    "modality_config": {"text": {**TEXT, "method_output_name": "pooler_output"}},
    "frobnicate": 1,
}


@pytest.mark.parametrize(
    "key", [*keys_of(SENTENCE_CONFIG, "refused"), "modality_config", "frobnicate"]
)
def test_sentence_config_refused(base: tuple[Path, Vectors], tmp_path: Path, key: str) -> None:
    assert_refused(edited(base[0], tmp_path / "set", SENTENCE, **{key: REFUSED[key]}), key)


def test_sentence_config_that_takes_messages_refused(
    base: tuple[Path, Vectors], tmp_path: Path
) -> None:
    modalities = {"text": TEXT, "message": {**TEXT, "format": "flat"}}
    changes = {"modality_config": modalities, "module_output_name": "token_embeddings"}
    assert_refused(edited(base[0], tmp_path / "set", SENTENCE, **changes), "modality_config")


@pytest.mark.parametrize(
    ("key", "argument"),
    [
        ("processor_kwargs", "add_prefix_space"),
        ("tokenizer_args", "do_lower_case"),
        ("model_kwargs", "variant"),
        ("model_args", "num_labels"),
        ("config_kwargs", "hidden_act"),
        ("config_args", "is_decoder"),
    ],
)
def test_sentence_config_arguments_refused_by_name(
    base: tuple[Path, Vectors], tmp_path: Path, key: str, argument: str
) -> None:
    folder = edited(base[0], tmp_path / "set", SENTENCE, **{key: {argument: True}})
    assert_refused(folder, f"in {key} sets {argument} to True")


def test_argument_tables_hold_what_this_module_sets() -> None:
    for key, rules in (
        ("processor_kwargs", PROCESSOR_KWARGS),
        ("model_kwargs", MODEL_KWARGS),
        ("config_kwargs", CONFIG_KWARGS),
    ):
        assert set(IRRELEVANT[key]) <= set(keys_of(rules, "irrelevant"))


# config_sentence_transformers.json


@pytest.mark.parametrize(
    "prompts",
    [
        {"query": "query: ", "document": "passage: "},
        {"query": "query: ", "document": None, "other": "x"},
        {"document": "doc "},
        {},
    ],
)
def test_prompts_honoured(
    base: tuple[Path, Vectors], tmp_path: Path, prompts: dict[str, Any]
) -> None:
    folder = edited(base[0], tmp_path / "set", ASKED, prompts=prompts)
    assert_honoured(folder, base)
    queries = Encoder.load(str(folder), dtype="fp32", device="cpu").encode_queries(PROSE)
    assert equal(queries.astype(float), reference(folder, "query"))


@pytest.mark.parametrize("dim", [16, 48, 4_000])
def test_truncate_dim_honoured(base: tuple[Path, Vectors], tmp_path: Path, dim: int) -> None:
    folder = edited(base[0], tmp_path / "set", ASKED, truncate_dim=dim)
    assert_honoured(folder, base)
    assert describe(str(folder), dim=8).space.dim == 8
    before = describe(str(base[0])).space
    assert (space_id(describe(str(folder)).space) == space_id(before)) == (dim >= 48)


def test_config_sentence_transformers_irrelevant_all_at_once(
    base: tuple[Path, Vectors], tmp_path: Path
) -> None:
    changes = {
        "default_prompt_name": "other",
        "prompts": {"other": "x: "},
        "similarity_fn_name": "dot",
        "__version__": {"sentence_transformers": "2.0.0"},
        "requirements": {},
        "model_type": "SentenceTransformer",
    }
    assert set(keys_of(SENTENCE_TRANSFORMERS_CONFIG, "irrelevant")) <= set(changes)
    folder = edited(base[0], tmp_path / "set", ASKED, **changes)
    assert equal(reference(folder), base[1])
    assert equal(vectors_of(folder), base[1])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "SparseEncoder"),
        ("frobnicate", 1),
        ("truncate_dim", "many"),
        ("truncate_dim", 0),
    ],
)
def test_config_sentence_transformers_refused(
    base: tuple[Path, Vectors], tmp_path: Path, key: str, value: Any
) -> None:
    assert_refused(edited(base[0], tmp_path / "set", ASKED, **{key: value}), key)


# Modules.

MODES = ["mean", "cls", "lasttoken"]
OLD_MODES = {
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
    "lasttoken": "pooling_mode_lasttoken",
}


@pytest.mark.parametrize("mode", MODES)
def test_pooling_honoured_under_new_and_old_names(
    base: tuple[Path, Vectors], tmp_path: Path, mode: str
) -> None:
    file = "1_Pooling/config.json"
    assert_honoured(edited(base[0], tmp_path / "new", file, pooling_mode=mode), base)
    old = dict.fromkeys(keys_of(POOLING, "honoured")[1:], False) | {OLD_MODES[mode]: True}
    folder = edited(
        base[0], tmp_path / "old", file, pooling_mode=..., embedding_dimension=..., **old,
        word_embedding_dimension=64, include_prompt=True,
    )  # fmt: skip
    assert_honoured(folder, base)


@pytest.mark.parametrize(
    ("file", "key", "value", "named"),
    [
        ("1_Pooling", "include_prompt", False, "prompts out of the pooling"),
        ("1_Pooling", "pooling_mode", "weightedmean", "pooling .*weightedmean"),
        ("1_Pooling", "pooling_mode", ["mean", "cls"], "pooling"),
        ("1_Pooling", "frobnicate", 1, "frobnicate"),
        (
            "2_Dense",
            "activation_function",
            "torch.nn.modules.activation.ReLU",
            "activation_function",
        ),
        ("2_Dense", "use_residual", True, "use_residual"),
        ("2_Dense", "module_input_name", "token_embeddings", "module_input_name"),
        ("2_Dense", "module_output_name", "other", "module_output_name"),
        ("2_Dense", "frobnicate", 1, "frobnicate"),
        ("4_Normalize", "module_input_name", "token_embeddings", "module_input_name"),
        ("4_Normalize", "module_output_name", "other", "module_output_name"),
        ("4_Normalize", "frobnicate", 1, "frobnicate"),
    ],
)
def test_module_settings_refused(
    base: tuple[Path, Vectors], tmp_path: Path, file: str, key: str, value: Any, named: str
) -> None:
    assert_refused(edited(base[0], tmp_path / "set", f"{file}/config.json", **{key: value}), named)


def test_module_settings_refused_are_all_here() -> None:
    parameters = test_module_settings_refused.pytestmark[0].args[1]  # type: ignore[attr-defined]
    tried = {(file.split("_")[1], key) for file, key, _, _ in parameters}
    tables = {"Pooling": POOLING, "Dense": DENSE, "Normalize": NORMALIZE}
    rows = {(name, key) for name, rules in tables.items() for key in keys_of(rules, "refused")}
    assert rows <= tried


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("2_Dense", {"activation_function": "torch.nn.modules.linear.Identity"}),
        ("3_Dense", {"activation_function": "torch.nn.modules.activation.Tanh"}),
        ("3_Dense", {"activation_function": ...}),  # sentence-transformers' default is Tanh
        ("3_Dense", {"use_residual": False, "module_input_name": "sentence_embedding"}),
        ("4_Normalize", {"module_input_name": "sentence_embedding", "module_output_name": None}),
    ],
)
def test_module_settings_honoured(
    base: tuple[Path, Vectors], tmp_path: Path, file: str, changes: dict[str, Any]
) -> None:
    assert_honoured(edited(base[0], tmp_path / "set", f"{file}/config.json", **changes), base)


@pytest.mark.parametrize("change", ["kwargs", "frobnicate", "one name", "outside"])
def test_modules_json_refused(base: tuple[Path, Vectors], tmp_path: Path, change: str) -> None:
    assert set(keys_of(MODULE, "refused")) == {"kwargs"}
    folder = Path(shutil.copytree(base[0], tmp_path / "set"))
    entries = json.loads((folder / "modules.json").read_text())
    if change in ("kwargs", "frobnicate"):
        entries[0][change] = ["task"]
    elif change == "one name":
        entries[2]["name"] = entries[3]["name"]
    else:
        entries[2]["path"] = "../2_Dense"
    write_json(folder / "modules.json", entries)
    named = {"one name": "two modules one name", "outside": "outside its own folder"}
    assert_refused(folder, named.get(change, change))


# Files.


@pytest.mark.parametrize("name", keys_of(FILES, "refused"))
def test_file_refused(base: tuple[Path, Vectors], tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(base[0], tmp_path / "set"))
    write_json(folder / name, {"processor_class": "Gemma3Processor"})
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    assert_refused(folder, name)


def test_files_irrelevant_all_at_once(base: tuple[Path, Vectors], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base[0], tmp_path / "set"))
    for name in keys_of(FILES, "irrelevant"):
        (folder / name).write_text("{}")
    assert equal(vectors_of(folder), base[1])
    for name in ("chat_template.json", "vocab.txt", "vocab.json", "merges.txt"):
        (folder / name).unlink()
    assert equal(reference(folder), base[1])


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", SENTENCE, ASKED, "1_Pooling/config.json"]
)
def test_file_that_holds_no_settings_refused(
    base: tuple[Path, Vectors], tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(base[0], tmp_path / "set"))
    write_json(folder / name, ["not", "settings"])
    with pytest.raises(ModelError, match="holds no settings"):
        describe(str(folder))


def test_unknown_key_of_config_refused_by_name_and_allowed_when_asked(
    base: tuple[Path, Vectors], tmp_path: Path
) -> None:
    folder = edited(base[0], tmp_path / "set", "config.json", frobnicate=1)
    assert_refused(folder, "frobnicate to 1, a setting that is not known.*allow_unverified")
    allowed = Encoder.load(str(folder), dtype="fp32", device="cpu", allow_unverified=True)
    assert equal(allowed.encode_documents(PROSE).astype(float), base[1])
    edit_json(folder / "config.json", frobnicate=None)
    describe(str(folder))


def test_transformer_in_a_folder_of_its_own(base: tuple[Path, Vectors], tmp_path: Path) -> None:
    """As older versions of sentence-transformers saved: its settings lie beside its weights."""
    folder = Path(shutil.copytree(base[0], tmp_path / "set"))
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).rename(inner / name)
    write_json(inner / "sentence_distilbert_config.json", {"max_seq_length": 20})
    write_json(folder / SENTENCE, {"max_seq_length": 10})  # not the transformer's
    entries = json.loads((folder / "modules.json").read_text())
    entries[0]["path"] = "0_Transformer"
    write_json(folder / "modules.json", entries)
    assert_honoured(folder, base)
