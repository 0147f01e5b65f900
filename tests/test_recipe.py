"""Recipes: every field accepted and validated, everything else refused with a way out."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from embedding_core.errors import UsageError
from embedding_core.recipe import (
    RESERVED_COLUMNS,
    MetadataColumn,
    ModelSpec,
    Recipe,
    Resources,
    section_variants,
)
from embedding_core.recipe.formats import KNOWN_FORMATS
from embedding_core.recipe.paths import kind_of

MINIMAL: dict[str, Any] = {
    "name": "demo",
    "source": {"uri": "/data"},
    "model": {"name": "org/model"},
    "lake": {"uri": "/lake", "table": "demo"},
}

# field, another valid value, a value that is refused
FIELDS: list[tuple[str, Any, Any]] = [
    ("name", "other", ""),
    ("max_rejected_share", 0.5, 1.5),
    ("source.uri", "/elsewhere", None),
    ("source.include", ("*.md",), "*.md"),
    ("source.id", "_id", 3),
    ("source.text", "{title}\n{text}", ["text"]),
    ("source.title", "{title} ({year})", ["title"]),
    ("source.normalize", "nfc", "nfd"),
    ("source.whitespace", "trim", "strip"),
    ("source.conversation.messages", "chats[0].turns", "turns["),
    ("source.conversation.role", ("speaker",), []),
    ("source.conversation.content", ("says", "text"), 3),
    ("source.conversation.think", ("reasoning_content",), 3),
    ("source.conversation.think_tags", ("[T]", "[/T]"), ["x", "x"]),
    ("source.conversation.roles", {"Bob": "user"}, ["Bob"]),
    ("source.conversation.response_roles", ("assistant", "user"), "user"),
    ("source.conversation.prompt_roles", ("user",), "user"),
    ("source.conversation.labels", {"user": "User: "}, "User: "),
    ("source.conversation.separator", "\n", None),
    ("source.conversation.prefix", "chat_", 3),
    ("source.map.function", "json:dumps", "json"),
    ("source.map.folder", "/code", 3),
    ("source.map.fields", ("a", "b"), "a"),
    ("source.map.seconds", 1.5, 0),
    ("source.map.documents", 7, 0),
    ("source.exclude", ("**/drafts",), "*.md"),
    ("source.config", "en", 3),
    ("source.split", "train", ["train"]),
    ("source.format", "csv", "cvs"),
    ("source.formats.json.items", "data.rows", 3),
    ("source.formats.csv.delimiter", ";", ";;"),
    ("source.formats.csv.header", ("id", "text"), "id"),
    ("source.formats.csv.nulls", ("NA",), "NA"),
    ("source.formats.csv.encoding", "latin-1", "utf-16"),
    ("source.formats.pdf.record", "file", "line"),
    ("source.formats.pptx.record", "file", "page"),
    ("source.formats.text.encoding", "utf-16", "utf-99"),
    ("source.formats.markdown.encoding", "cp1252", "rot13"),
    ("source.metadata", {"by": MetadataColumn(field="meta.author", type="string")}, {"by": "name"}),
    ("source.deduplicate", True, "some"),
    ("source.sample.rows", 5, 0),
    ("source.sample.per", "lang", 3),
    ("source.sample.seed", 7, -1),
    ("source.sample.top", True, "perhaps"),
    ("source.limit", 9, 0),
    ("source.storage.endpoint_url", "http://127.0.0.1:1", 3),
    ("source.storage.region", "eu-1", 3),
    ("source.storage.anonymous", True, "perhaps"),
    ("chunk.strategy", "none", "pages"),
    ("chunk.max_tokens", 64, 7),
    ("chunk.overlap", 16, -1),
    ("chunk.tokenizer", "some/model", 3),
    ("chunk.min_new_tokens", 16, -1),
    ("chunk.headings", "both", "all"),
    ("chunk.language", "rust", "Rust!"),
    ("chunk.max_characters", 400, 0),
    ("model.name", "package:x", None),
    ("model.revision", "v1", 3),
    ("model.adapter", "owner/lora", 3),
    ("model.adapter_revision", "v1", 3),
    ("model.storage.endpoint_url", "http://127.0.0.1:1", 3),
    ("model.storage.region", "eu-1", 3),
    ("model.storage.anonymous", True, "perhaps"),
    ("model.dtype", "bf16", "int8"),
    ("model.dim", 128, 0),
    ("model.max_tokens", 128, 7),
    ("model.allow_unverified", True, "perhaps"),
    ("model.api", "tei", "grpc"),
    ("model.served", "minilm", 3),
    ("model.endpoints", ("http://host:8001",), "http://host:8001"),
    ("model.tokenizer", "owner/name", 3),
    ("model.query_prompt", "query: ", 3),
    ("model.document_prompt", "passage: ", 3),
    ("model.over_length", "error", "ignore"),
    ("lake.uri", "s3://bucket/lake", None),
    ("lake.table", "other_table-1.x", "a table"),
    ("lake.storage.endpoint_url", "http://127.0.0.1:1", 3),
    ("lake.storage.region", "eu-1", 3),
    ("lake.storage.anonymous", True, "perhaps"),
    ("index.min_rows", 1000, 255),
    ("index.target_recall", 1.0, 0),
    ("index.full_text", True, "perhaps"),
    ("index.kind", "IVF_PQ", "HNSW"),
    ("maintain.small_fragments", 2, 1),
    ("maintain.keep_hours", 1.5, 0.5),
    ("release.queries", "/q.jsonl", 3),
    ("release.qrels", "/t.tsv", 3),
    ("release.follow", True, 3),
    ("release.keep_previous_days", 2.0, -1),
    ("release.max_ndcg_drop", 0.5, -0.1),
    ("release.strict", True, "perhaps"),
    ("release.min_overlap", 0.5, 1.1),
    ("release.max_latency_ratio", 2.0, 0),
    ("max_removed_share", 0.5, 1.1),
    ("reuse", "table", "everything"),
    ("keep_removed", True, "perhaps"),
    ("keep_rejected_texts", True, "perhaps"),
]

STRATEGY_OF = {
    "chunk.headings": "markdown",
    "chunk.language": "code",
    "chunk.max_characters": "characters",
}
"""The strategy that has an option, where the default one does not."""

RESOURCES: list[tuple[str, Any, Any]] = [
    ("device", "cuda:1", 3),
    ("batch_tokens", 4096, 0),
    ("cpu_dtype", "fp32", "fp16"),
    ("unit", "file", "row"),
    ("unit_bytes", 1024, 0),
    ("part_rows", 512, 0),
    ("units_per_commit", 2, 0),
    ("staged_bytes", 1024, 0),
    ("seconds_per_commit", 5.0, 0),
    ("at_once", 5, 0),
    ("gpus_per_task", 0.5, -1),
    ("cpus_per_task", 2.0, 0),
]


REQUIRED: dict[str, dict[str, Any]] = {
    "sample": {"rows": 3, "seed": 1},
    "map": {"function": "json:loads"},
}
"""What a section must have that a recipe need not have."""


def changed(path: str, value: Any, minimal: Mapping[str, Any] = MINIMAL) -> dict[str, Any]:
    content: dict[str, Any] = copy.deepcopy(dict(minimal))
    *parents, name = path.split(".")
    part = content
    for parent in parents:
        part = part.setdefault(parent, dict(REQUIRED.get(parent, {})))
    if path == "source.sample.top":
        del part["seed"]  # a sample has the one or the other
    part[name] = value
    return content


def field_of(recipe: BaseModel, path: str) -> Any:
    value: Any = recipe
    for name in path.split("."):
        if value is None:  # a section that the recipe does not have
            return None
        if isinstance(value, dict):  # options of a format that the recipe does not name
            value = value.get(name, KNOWN_FORMATS.get(name).options)
        else:
            value = getattr(value, name, None)
    return value


def leaves(model: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        sections = section_variants(field.annotation).values()
        for section in sections:
            found |= leaves(section, f"{prefix}{name}.")
        if not sections:
            found.add(prefix + name)
    return found


def write(folder: Path, content: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_every_field_is_in_the_tables_below() -> None:
    assert {path for path, _, _ in FIELDS} == leaves(Recipe)
    assert {path for path, _, _ in RESOURCES} == leaves(Resources)


@pytest.mark.parametrize(("path", "value", "refused"), FIELDS, ids=[f[0] for f in FIELDS])
def test_a_field_can_be_set_and_is_validated(path: str, value: Any, refused: Any) -> None:
    written = list(value) if isinstance(value, tuple) else value
    minimal = copy.deepcopy(MINIMAL)
    if path in STRATEGY_OF:
        minimal["chunk"] = {"strategy": STRATEGY_OF[path]}
    assert field_of(Recipe.load(changed(path, written, minimal)), path) == value
    assert field_of(Recipe.load(minimal), path) != value
    with pytest.raises(UsageError, match=path):
        Recipe.load(changed(path, refused, minimal))


@pytest.mark.parametrize(("name", "value", "refused"), RESOURCES, ids=[f[0] for f in RESOURCES])
def test_a_resource_can_be_set_and_is_validated(name: str, value: Any, refused: Any) -> None:
    assert getattr(Resources().updated({name: value}), name) == value
    assert getattr(Resources(), name) != value
    with pytest.raises(UsageError, match=name):
        Resources().updated({name: refused})


def test_every_field_has_a_meaning_in_the_schema() -> None:
    schema = Recipe.model_json_schema()
    parts = {name: part for name, part in schema["$defs"].items() if name != "StorageSpec"}
    for name, part in [("Recipe", schema), *parts.items()]:
        for field, description in part["properties"].items():
            is_part = description.keys() & {"$ref", "allOf", "oneOf"}
            assert is_part or description.get("description"), f"{name}.{field}"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("modle", "modle: unknown key; did you mean 'model'?"),
        ("source.includes", "source.includes: unknown key; did you mean 'include'?"),
        ("source.storage.endpoint", "did you mean 'endpoint_url'?"),
        ("chunk.max_token", "did you mean 'max_tokens'?"),
        ("model.dtpye", "did you mean 'dtype'?"),
        ("lake.tabel", "did you mean 'table'?"),
        ("lake.storage.regoin", "did you mean 'region'?"),
        ("index.target_recal", "did you mean 'target_recall'?"),
        ("release.queris", "did you mean 'queries'?"),
        ("source.formats.cvs", "source.formats.cvs: unknown key; did you mean 'csv'?"),
        ("source.formats.csv.delimter", "did you mean 'delimiter'?"),
        ("source.formats.parquet.delimiter", "unknown key"),
        ("source.conversation.rols", "did you mean 'roles'?"),
        ("source.map.second", "did you mean 'seconds'?"),
        ("lake.zzz", "known keys: uri, table, storage"),
    ],
)
def test_an_unknown_key_names_the_nearest(path: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.load(changed(path, "x"))
    assert words in str(caught.value)


@pytest.mark.parametrize("option", ["max_tokens", "overlap", "min_new_tokens"])
def test_a_strategy_takes_no_option_of_another(option: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.load(changed("chunk", {"strategy": "none", option: 8}))
    assert f"chunk.{option}: unknown key; known keys: strategy, tokenizer" in str(caught.value)


def test_an_unknown_strategy_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.load(changed("chunk", {"strategy": "pages"}))
    words = "chunk.strategy: 'pages' is unknown; use one of 'tokens', 'characters', 'sentences'"
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("strategy", "option", "value", "wrong"),
    [
        ("sentences", "min_new_tokens", 4, -1),
        ("markdown", "max_tokens", 64, 7),
        ("code", "overlap", 64, -1),
        ("characters", "overlap", 40, -1),
        ("characters", "min_new_tokens", 5, -1),
    ],
)
def test_options_of_each_strategy_are_kept_and_checked(
    strategy: str, option: str, value: Any, wrong: Any
) -> None:
    section = {"strategy": strategy}
    recipe = Recipe.load(changed("chunk", {**section, option: value}))
    assert getattr(recipe.chunk, option) == value
    assert recipe.chunk.hashed()[option] == value
    with pytest.raises(UsageError, match=rf"chunk\.{option}"):
        Recipe.load(changed("chunk", {**section, option: wrong}))


def test_a_metadata_column_may_not_be_one_of_the_chunk_strategy() -> None:
    content = changed("source.metadata", {"headings": "string"})
    Recipe.load(content | {"chunk": {"strategy": "markdown"}})
    with pytest.raises(UsageError, match=r"headings.*name the metadata column otherwise"):
        Recipe.load(content | {"chunk": {"strategy": "markdown", "headings": "both"}})


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.load({"name": "x", "source": {}, "lake": {"uri": 3, "table": "t"}, "colour": 1})
    message = str(caught.value)
    assert all(word in message for word in ("source.uri", "model", "lake.uri", "colour"))
    assert caught.value.action == "schema"


@pytest.mark.parametrize("name", [*sorted(RESERVED_COLUMNS), "_rowid", "_x", "vector__12345678"])
def test_metadata_may_not_take_a_column_of_the_table(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}.*name it otherwise"):
        Recipe.load(changed("source.metadata", {name: "string"}))


@pytest.mark.parametrize("name", ["a b", "a.b", "1a", "a-b", ""])
def test_metadata_names_must_be_identifiers(name: str) -> None:
    with pytest.raises(UsageError, match=r"letters, digits and underscores|a name is missing"):
        Recipe.load(changed("source.metadata", {name: "string"}))


def test_metadata_short_form_is_the_field_of_the_column_s_name() -> None:
    short = Recipe.load(changed("source.metadata", {"year": "int"}))
    written_out = {"year": {"field": "year", "type": "int"}}
    assert short == Recipe.load(changed("source.metadata", written_out))
    assert short == Recipe.load(short.model_dump(mode="json"))


def test_short_forms_of_a_conversation_and_a_map_are_sections_with_defaults() -> None:
    for section, short, written_out in (
        ("conversation", "turns", {"messages": "turns"}),
        ("map", "json:loads", {"function": "json:loads"}),
    ):
        recipe = Recipe.load(changed(f"source.{section}", short))
        assert recipe == Recipe.load(changed(f"source.{section}", written_out))
        assert recipe == Recipe.load(recipe.model_dump(mode="json"))
        assert recipe.source == recipe.with_model("hashing").source


def test_metadata_mapping_that_is_wrong_names_the_key() -> None:
    with pytest.raises(UsageError, match=r"source\.metadata\.by\.feild: unknown key"):
        Recipe.load(changed("source.metadata", {"by": {"feild": "x", "type": "string"}}))
    with pytest.raises(UsageError, match=r"source\.metadata: .*dictionary"):
        Recipe.load(changed("source.metadata", ["by"]))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("source.exclude", "*.x", "source.exclude: should be a list, as in ['*.x']"),
        ("source.metadata", {"x": "strng"}, "got 'strng'"),
        ("source.metadata", {"x": {"field": "a"}}, "source.metadata.x.type: is required"),
        ("source.metadata", {"a b": "int"}, "source.metadata: 'a b' cannot be a column"),
        ("index.min_rows", -7, "got -7"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_should_be(path: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.load(changed(path, value))
    assert said in str(caught.value)


@pytest.mark.parametrize("device", ["quantum", "cuda:", "cuda:x", "CPU", ""])
def test_a_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match="use auto, cpu, cuda or cuda:N") as caught:
        Resources().updated({"device": device})
    assert caught.value.action == "resources"


@pytest.mark.parametrize("table", ["a__b", "__x", "", "-x", "a/b", "a b", "../x", "x\n", "é"])
def test_a_table_name_is_plain(table: str) -> None:
    with pytest.raises(UsageError, match=r"lake\.table"):
        Recipe.load(changed("lake.table", table))


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        ({"max_tokens": 64, "overlap": 33}, ["overlap 33", "64", "at most 32"]),
        ({"max_tokens": 64, "min_new_tokens": 33}, ["min_new_tokens 33", "64"]),
        ({"max_tokens": 64, "overlap": 20, "min_new_tokens": 13}, ["13", "overlap 20", "64"]),
        ({"strategy": "markdown", "max_tokens": 64, "overlap": 33}, ["overlap 33", "at most 32"]),
        (
            {"strategy": "characters", "max_characters": 9, "overlap": 5},
            ["overlap 5", "max_characters 9", "at most 4"],
        ),
    ],
)
def test_lengths_that_contradict_each_other_are_refused(
    chunk: dict[str, int], words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.load(changed("chunk", chunk))
    assert all(word in str(caught.value) for word in words)


def test_paths_in_a_file_are_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    content = {
        "name": "demo",
        "source": {"uri": "./data"},
        "model": {"name": "./model", "adapter": "./lora"},
        "lake": {"uri": "../lake", "table": "t"},
        "release": {"queries": "q.jsonl", "qrels": "/abs/t.tsv"},
    }
    recipe = Recipe.load(write(tmp_path, content))
    root = tmp_path.resolve()
    assert recipe.source.uri == str(root / "data")
    assert recipe.model.name == str(root / "model")
    assert recipe.model.adapter == str(root / "lora")
    assert recipe.lake.uri == str(root.parent / "lake")
    assert recipe.release.queries == str(root / "q.jsonl")
    assert recipe.release.qrels == "/abs/t.tsv"
    assert Recipe.load(str(tmp_path / "recipe.yaml")) == recipe


RELATIVE = {
    "source.uri": "data",
    "lake.uri": "./lake",
    "model.name": "./model",
    "model.adapter": "../lora",
    "release.queries": "q.jsonl",
    "chunk.tokenizer": "./tokenizer",
}


@pytest.mark.parametrize("field", RELATIVE)
@pytest.mark.parametrize("given", [dict, json.dumps])
def test_relative_path_in_a_recipe_that_is_no_file_is_refused_with_why(
    field: str, given: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inline = given(changed(field, RELATIVE[field]))
    with pytest.raises(UsageError) as caught:
        Recipe.load(inline)
    said = str(caught.value)
    assert f"{field}: {RELATIVE[field]!r} is relative" in said and "no folder" in said
    there = field_of(Recipe.load(inline, base=tmp_path), field)
    assert there == str((tmp_path / RELATIVE[field]).resolve())


@pytest.mark.parametrize("path", ["/data", "~/data", "s3://bucket/data", "file:///data"])
def test_recipe_as_json_text_is_the_recipe(path: str) -> None:
    content = changed("source.uri", path)
    assert Recipe.load(f" {json.dumps(content)}\n") == Recipe.load(content)


def test_json_text_that_is_no_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="'name' twice"):
        Recipe.load('{"name": "a", "name": "b"}')
    with pytest.raises(UsageError, match="the recipe is not YAML"):
        Recipe.load('{"name": ')


def test_relative_recipe_path_that_is_not_found_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        Recipe.load("recipes/a.yaml")
    said = str(caught.value)
    assert str(tmp_path.resolve() / "recipes" / "a.yaml") in said and "'recipes/a.yaml'" in said


def test_paths_in_a_recipe_below_the_home_folder_are_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, changed("source.uri", "data"))
    for given in ("~/recipe.yaml", f"file://{tmp_path}/recipe.yaml"):
        assert Recipe.load(given).source.uri == str(tmp_path.resolve() / "data")


@pytest.mark.parametrize("name", ["org/model", "package:x", "hashing", "s3://bucket/model"])
def test_a_model_that_is_no_path_is_left_alone(name: str) -> None:
    assert Recipe.load(changed("model.name", name)).model.name == name


def test_latest_stays_latest_where_it_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "2026-11-01").mkdir(parents=True)
    (tmp_path / "checkpoints" / "latest").symlink_to("2026-11-01")
    for name in ("./checkpoints/latest", "./checkpoints/latest/"):
        recipe = Recipe.load(write(tmp_path, changed("model.name", name)))
        assert recipe.model.name == str(tmp_path.resolve() / "checkpoints" / "latest")


@pytest.mark.parametrize(
    ("name", "revision", "pinned"),
    [
        ("owner/model", "c0ffee", {"revision": "c0ffee"}),
        ("owner/latest", "c0ffee", {"revision": "c0ffee"}),
        ("/c/latest", "2026-11-01", {"name": "/c/2026-11-01"}),
        ("/c/latest", "/elsewhere/2026-11-01", {"name": "/elsewhere/2026-11-01"}),
        ("s3://b/c/latest", "2026-11-01", {"name": "s3://b/c/2026-11-01"}),
        ("/c/2026-11-01", "2026-11-01", {}),
        ("s3://b/c/2026-11-01", "2026-11-01", {}),
        ("hashing", None, {}),
    ],
)
def test_a_pinned_model_does_not_move(
    name: str, revision: str | None, pinned: dict[str, str]
) -> None:
    model = ModelSpec(name=name, adapter="./lora")
    assert model.pinned(revision) == model.model_copy(update=pinned)


def test_loading_a_loaded_recipe_again_changes_nothing(tmp_path: Path) -> None:
    recipe = Recipe.load(write(tmp_path, changed("source.uri", "data")))
    assert Recipe.load(recipe.model_dump(mode="json")) == recipe


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no recipe"),
        ("- a\n- b\n", "holds no recipe"),
        ("just words", "holds no recipe"),
        ("a: [", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UsageError, match=words) as caught:
        Recipe.load(path)
    assert str(path) in str(caught.value)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, yaml.safe_dump(MINIMAL) + "name: other\n")
    with pytest.raises(UsageError, match="'name' twice"):
        Recipe.load(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(UsageError, match="is not YAML"):
        Recipe.load(tmp_path / "recipe.yaml")


def test_a_missing_file_and_a_folder_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recipe at .*none\.yaml"):
        Recipe.load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        Recipe.load(tmp_path)


@pytest.mark.parametrize("part", ["", "source", "chunk", "model", "lake", "index", "release"])
def test_a_recipe_is_frozen(part: str) -> None:
    recipe = Recipe.load(MINIMAL)
    target = getattr(recipe, part) if part else recipe
    name = next(iter(type(target).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(target, name, "x")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("owner/name", "hub"), ("./folder", "path"), ("../folder", "path"), ("/folder", "path"),
        ("~/folder", "path"), ("s3://bucket/prefix", "s3"), ("package:weights", "package"),
        ("http://host/v1", "endpoint"), ("https://host/v1", "endpoint"), ("hashing", "plain"),
        ("gs://bucket/x", "other"),
    ],
)  # fmt: skip
def test_kind_of_a_models_name_is_told_by_its_form(name: str, kind: str) -> None:
    assert kind_of(name) == kind


STUMBLES = {
    "2024-13-45": "timestamp",
    "2024-01-01 99:00:00": "timestamp",
    "!!int ''": "int",
    "!!int x": "int",
    "!!float x": "float",
    "!!bool x": "bool",
    "!!timestamp x": "timestamp",
    "0b_": "int",
    "1" * 5_000: "int",
}
"""Values that PyYAML raises errors of its own kinds for, with the type that it takes them for."""


@pytest.mark.parametrize("written", STUMBLES)
def test_a_value_that_is_none_is_named_with_its_line(tmp_path: Path, written: str) -> None:
    (tmp_path / "recipe.yaml").write_text(f"lake: x\nname: {written}\n")
    words = rf"is not YAML: no value of the type '{STUMBLES[written]}'\n.* line 2"
    with pytest.raises(UsageError, match=words):
        Recipe.load(tmp_path / "recipe.yaml")


GROWING = {
    "aliases of aliases": ("a0: &a0 [x, x]\n", "a{n}: &a{n} [*a{m}, *a{m}]\n"),
    "merges of merges": ("a0: &a0 {{x: 1}}\n", "a{n}: &a{n} {{<<: [*a{m}, *a{m}]}}\n"),
    "an alias of itself": ("name: &a [*a]\n", ""),
    "a merge": ("a: &a {{x: 1}}\nb: {{<<: *a}}\n", ""),
    "brackets": ("name: " + "[" * 100_000, ""),
}
"""A first line and the following ones, for n from 1 to 60: each is short, and what they stand for
is not."""


@pytest.mark.parametrize("kind", GROWING)
def test_a_recipe_that_grows_without_bound_is_refused_with_the_line(
    tmp_path: Path, kind: str
) -> None:
    first, others = GROWING[kind]
    lines = [first.format(), *(others.format(n=n, m=n - 1) for n in range(1, 61))]
    (tmp_path / "recipe.yaml").write_text("".join(lines))
    with pytest.raises(UsageError, match=r"is not YAML: .*(alias|merges nothing|too deep)") as told:
        Recipe.load(tmp_path / "recipe.yaml")
    assert len(str(told.value)) < 1_000


def test_an_alias_stands_for_a_section(tmp_path: Path) -> None:
    text = yaml.safe_dump(MINIMAL | {"lake": {"uri": "s3://b/x", "table": "t"}})
    store = "{endpoint_url: 'http://127.0.0.1:1'}"
    text = text.replace("  table: t\n", f"  table: t\n  storage: &store {store}\n")
    text = text.replace("  name: org/model\n", "  name: s3://b/model\n  storage: *store\n")
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = Recipe.load(tmp_path / "recipe.yaml")
    assert recipe.model.storage == recipe.lake.storage
    assert recipe.lake.storage.endpoint_url == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "field",
    [
        "source.uri",
        "lake.uri",
        "release.queries",
        "release.qrels",
        "model.name",
        "model.adapter",
        "chunk.tokenizer",
        "source.map.folder",
    ],
)
@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "/a\0b", "./a\0b"])
def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path, field: str, path: str) -> None:
    named = rf"cannot be used:\n  {re.escape(field)}: .* is no path .*correct it"
    with pytest.raises(UsageError, match=named):
        Recipe.load(changed(field, path), tmp_path)


@pytest.mark.parametrize("field", ["source.uri", "lake.uri", "release.queries", "model.name"])
@pytest.mark.parametrize("uri", ["s3://", "s3:///", "s3:///prefix"])
def test_an_s3_uri_without_a_bucket_is_refused(tmp_path: Path, field: str, uri: str) -> None:
    named = rf"cannot be used:\n  {re.escape(field)}: .*names no bucket; write s3://bucket/prefix"
    with pytest.raises(UsageError, match=named):
        Recipe.load(changed(field, uri), tmp_path)


@pytest.mark.parametrize("value", ["x" * 100_000, ["x"] * 100_000, {"a": "x" * 100_000}])
@pytest.mark.parametrize("field", ["source.include", "source.text", "source.id", "model.name"])
def test_a_message_does_not_repeat_a_huge_value(field: str, value: Any) -> None:
    content = changed(field, value)
    if field == "model.name" and isinstance(value, str):
        content["model"]["name"] = f"http://x/{value}?{value}"
    try:
        Recipe.load(content)
    except UsageError as error:
        assert len(str(error)) < 3_000


@pytest.mark.parametrize("key", ["\n", "x" * 10_000, "a: b", "\x1b[2J"])
def test_a_key_that_nobody_can_read_is_shown_so_that_it_can_be(key: str) -> None:
    content = changed("source", MINIMAL["source"] | {key: 1})
    with pytest.raises(UsageError, match=r"source\..*: unknown key; known keys: uri,") as caught:
        Recipe.load(content)
    assert len(str(caught.value)) < 1_000 and str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["\ud800", "x" * 10_000, "\n", ["tokens"], {"a": 1}, None, 5])
def test_a_strategy_that_is_no_name_is_unknown(name: Any) -> None:
    with pytest.raises(UsageError, match=r"chunk\.strategy: .* is unknown; use one of"):
        Recipe.load(changed("chunk", {"strategy": name}))
