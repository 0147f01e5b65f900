"""Digests: the same for the same thing, another for another, refused where neither is sure."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core import identity
from embedding_core.recipe import Recipe
from embedding_core.records import SourceFile, Space

SPACE = Space(
    model="org/name",
    revision="main",
    identity=("aa", "bb"),
    tokenizer="cc",
    pooling="mean",
    query_prompt="query: ",
    document_prompt="",
    max_tokens=256,
    dim=384,
    dtype_class="half",
)
FILE = SourceFile("/data/a.jsonl", "3-abc", 3)
RECIPE = {
    "name": "r",
    "source": {"uri": "/data", "id": "id", "text": "body", "metadata": {"a": "int"}},
    "chunk": {"max_tokens": 64},
    "model": {"name": "m"},
    "lake": {"uri": "/lake", "table": "t"},
}

stable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def rows_id(changes: dict[str, dict[str, object]] | None = None, space: Space = SPACE) -> str:
    content: dict[str, object] = json.loads(json.dumps(RECIPE))
    for part, values in (changes or {}).items():
        kept = {} if "strategy" in values else content.get(part, {})
        content[part] = {**kept, **values}  # type: ignore[dict-item]
    recipe = Recipe.load(content)
    return identity.rows_id(
        identity.row_rules(
            recipe, recipe.chunk, space.tokenizer, space.max_tokens, space.document_prompt
        )
    )


def test_a_digest_is_sha256_of_canonical_json() -> None:
    canonical = '{"a":[1,2.5,null,true],"b":"é"}'.encode()
    value = {"b": "é", "a": (1, 2.5, None, True)}
    assert identity.digest(value) == hashlib.sha256(canonical).hexdigest()


@given(st.dictionaries(st.text(), stable, min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert identity.digest(dict(reversed(value.items()))) == identity.digest(value)


@given(stable, stable)
def test_different_values_have_different_digests(first: object, second: object) -> None:
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (identity.digest(first) == identity.digest(second)) is same


@pytest.mark.parametrize(
    "value",
    [
        float("nan"), float("inf"), -float("inf"), {1, 2}, frozenset(), object(), b"bytes",
        {1: "x"}, {None: 1}, datetime(2024, 1, 1, tzinfo=UTC), [float("nan")], {"a": {"b": {1}}},
        (x for x in "ab"), 1j,
    ],
)  # fmt: skip
def test_values_without_a_stable_form_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="no stable form"):
        identity.digest(value)


def test_digests_are_the_same_in_another_process() -> None:
    code = "from embedding_core.identity import digest; print(digest({'b': ['x', 1], 'a': 'é'}))"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert other.stdout.strip() == identity.digest({"a": "é", "b": ["x", 1]})


def test_a_text_hash_is_sha256_of_its_utf8() -> None:
    assert identity.text_hash("é") == hashlib.sha256("é".encode()).hexdigest()
    assert identity.text_hash("e\u0301") != identity.text_hash("\u00e9")


@pytest.mark.parametrize(
    "changed",
    [replace(FILE, uri="/data/b.jsonl"), replace(FILE, fingerprint="3-abd")],
    ids=["uri", "fingerprint"],
)
def test_a_file_key_changes_with_each_ingredient(changed: SourceFile) -> None:
    assert identity.file_key(changed, "rows") != identity.file_key(FILE, "rows")
    assert identity.file_key(FILE, "other") != identity.file_key(FILE, "rows")
    assert identity.file_key(replace(FILE), "rows") == identity.file_key(FILE, "rows")


def test_a_chunk_id_changes_with_each_ingredient() -> None:
    base = ("uri", "doc", 0, "hash")
    others = [("u", "doc", 0, "hash"), ("uri", "d", 0, "hash"), ("uri", "doc", 1, "hash"),
              ("uri", "doc", 0, "h"), ("urid", "oc", 0, "hash")]  # fmt: skip
    ids = {identity.chunk_id(*parts) for parts in (base, *others)}
    assert len(ids) == 1 + len(others)
    assert identity.chunk_id(*base) in ids


def test_readable_names_do_not_make_another_space() -> None:
    renamed = replace(SPACE, model="./local", revision=None)
    assert identity.space_id(renamed) == identity.space_id(SPACE)


@pytest.mark.parametrize(
    "change",
    [
        {"identity": ("aa",)}, {"tokenizer": "dd"}, {"pooling": "last"}, {"query_prompt": ""},
        {"document_prompt": "p"}, {"max_tokens": 128}, {"dim": 128},
        {"dtype_class": "full"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_everything_else_makes_another_space(change: dict[str, object]) -> None:
    assert identity.space_id(replace(SPACE, **change)) != identity.space_id(SPACE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {"id": None}}, {"source": {"text": "title"}},
        {"source": {"metadata": {"a": "float"}}}, {"source": {"metadata": {}}},
        {"source": {"metadata": {"a": {"field": "b", "type": "int"}}}},
        {"source": {"normalize": "nfc"}}, {"source": {"whitespace": "trim"}},
        {"source": {"conversation": "m"}}, {"source": {"map": "json:loads"}},
        {"chunk": {"max_tokens": 32}}, {"chunk": {"overlap": 8}}, {"chunk": {"min_tokens": 8}},
        {"chunk": {"strategy": "none"}}, {"model": {"over_length": "split"}},
    ],
    ids=str,
)  # fmt: skip
def test_what_decides_rows_changes_their_id(changes: dict[str, dict[str, object]]) -> None:
    assert rows_id(changes) != rows_id()


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {"uri": "/elsewhere"}}, {"source": {"include": ["*.md"]}},
        {"source": {"exclude": ["*.md"]}},
        {"source": {"metadata": {"a": {"field": "a", "type": "int"}}}},
        {"source": {"storage": {"region": "x"}}}, {"model": {"dtype": "fp32"}},
        {"model": {"name": "other"}}, {"model": {"dim": 8}}, {"lake": {"uri": "/other"}},
        {"index": {"target_recall": 0.5}}, {"maintain": {"keep_hours": 2}},
        {"release": {"max_ndcg_drop": 0.5}},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_decide_rows_leaves_their_id(changes: dict[str, dict[str, object]]) -> None:
    assert rows_id(changes) == rows_id()


@pytest.mark.parametrize("section", ["conversation", "map"], ids=str)
def test_every_option_that_decides_documents_changes_their_id(section: str) -> None:
    changes: dict[str, dict[str, object]] = {
        "conversation": {
            "messages": "x", "role": "x", "content": "x", "think": "x", "think_tags": None,
            "roles": {"x": "user"}, "response_roles": ["x"], "prompt_roles": ["x"],
            "labels": {"user": "x"}, "separator": " ", "prefix": "x",
        },
        "map": {"function": "json:dumps", "fields": ["x"], "documents": 7},
    }  # fmt: skip
    base: dict[str, object] = {"function": "json:loads"} if section == "map" else {}
    ids = [rows_id({"source": {section: base}})]
    for name, value in changes[section].items():
        ids.append(rows_id({"source": {section: base | {name: value}}}))
    assert len(set(ids)) == len(ids)
    assert rows_id({"source": {"map": {"function": "json:loads", "seconds": 1}}}) == rows_id(
        {"source": {"map": "json:loads"}}
    )


def test_rows_depend_on_tokenizer_limit_and_prompt_and_on_nothing_else_of_the_space() -> None:
    assert rows_id(space=replace(SPACE, tokenizer="x")) != rows_id()
    assert rows_id(space=replace(SPACE, max_tokens=128)) != rows_id()
    assert rows_id(space=replace(SPACE, document_prompt="x")) != rows_id()
    assert rows_id(space=replace(SPACE, identity=("x",), dim=8, pooling="cls")) == rows_id()


@given(st.lists(st.text(), min_size=1), st.randoms())
def test_a_unit_id_does_not_depend_on_the_order_of_its_files(keys: list[str], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(keys, len(keys))
    assert identity.unit_id(shuffled, "space") == identity.unit_id(keys, "space")
    assert identity.unit_id(keys, "other") != identity.unit_id(keys, "space")
    assert identity.unit_id([*keys, "more"], "space") != identity.unit_id(keys, "space")
