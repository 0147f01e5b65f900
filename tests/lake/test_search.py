"""Search: the right space, filters with quoted values, metadata along with the text."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pytest
import yaml

from embedding_core import Encoder, Lake
from embedding_core.encoder.engines import describe_model
from embedding_core.errors import LakeError, UsageError
from embedding_core.lake.embedding_function import METADATA_KEY, function_metadata
from embedding_core.lake.index.scalar import unindexed_rows
from embedding_core.lake.index.vector import refresh_vector_index
from embedding_core.lake.query.search import Query
from embedding_core.lake.snapshot import INDEX_KEY
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import IndexSpec, ModelSpec, Recipe, Resources
from embedding_core.runs.answers import search
from tests.driver import recipe_for, run, write_jsonl
from tests.synthetic import Clusters, add_files

RECORDS = [
    {"id": "1", "text": "apples and pears", "year": 2001, "tag": "it's", "at": "2026-01-01"},
    {"id": "2", "text": "apples and plums", "year": 2020, "tag": "plain", "at": "2026-06-01"},
    {"id": "3", "text": "rockets to the moon", "year": None, "tag": None, "at": None},
]
COLUMNS = {"year": "int", "tag": "string", "at": "timestamp"}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load("hashing", dim=32)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("search")
    write_jsonl(folder, "a.jsonl", RECORDS)
    recipe = recipe_for(folder, source={"metadata": COLUMNS}, index={"full_text": True})
    assert run(recipe).outcome == "done"
    return Lake.open(recipe.lake.uri).table("docs")


def test_search_best_first_with_text_score_and_metadata(table: Table, encoder: Encoder) -> None:
    hits = table.search("apples and pears", encoder, k=2)
    assert [hit.doc_id for hit in hits] == ["1", "2"]
    assert hits[0].score == pytest.approx(1.0, abs=1e-3) and hits[0].score > hits[1].score
    assert hits[0].metadata == {
        "year": 2001, "tag": "it's", "at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip


def test_search_gives_null_for_nan_however_deep_in_a_column_that_somebody_added(
    tmp_path: Path, encoder: Encoder
) -> None:
    write_jsonl(tmp_path, "a.jsonl", RECORDS[:1])
    recipe = recipe_for(tmp_path)
    run(recipe)
    added = pa.table({"scores": [[math.nan, 0.5]], "seen": [{"by": [math.inf]}]})
    table_of(recipe).dataset().add_columns(added.to_reader())
    (hit,) = table_of(recipe).search("apples", encoder, k=1)
    assert hit.metadata == {"scores": [None, 0.5], "seen": {"by": [None]}}


@pytest.mark.parametrize(
    ("where", "params", "expected"),
    [
        ("year > :year", {"year": 2010}, ["2"]),
        ("tag = :tag", {"tag": "it's"}, ["1"]),
        ("at >= :at", {"at": datetime(2026, 3, 1, tzinfo=UTC)}, ["2"]),
        ("tag = :tag", {"tag": "x' OR 1=1 --"}, []),
        ("year IS NULL", {}, ["3"]),
        ("at >= :at", {"at": "2026-03-01"}, ["2"]),
        ("at >= '2026-03-01'", {}, ["2"]),
        ("at > :at", {"at": datetime(999, 5, 6, tzinfo=UTC)}, ["1"]),
        ("at BETWEEN :from AND :to", {"from": "2026-05-01", "to": "2026-07-01"}, ["2"]),
        ("year >= :year AND year < 3000", {"year": "2010"}, ["2"]),
        ("year > :year", {"year": -(2**63)}, ["1"]),
        ('"year" = :year', {"year": 2020.0}, ["2"]),
        ("\"tag\" = 'plain'", {}, ["2"]),
        ("chunk_index = :n AND doc_id = :id", {"n": "0", "id": "2"}, ["2"]),
    ],
)
def test_search_filter_is_applied_before_the_search(
    table: Table, encoder: Encoder, where: str, params: dict[str, object], expected: list[str]
) -> None:
    hits = table.search("apples", encoder, k=1, where=where, params=params)  # type: ignore[arg-type]
    assert [hit.doc_id for hit in hits] == expected


@pytest.mark.parametrize("where", ["year = ", "year > 'x' AND", "year = 'x'", "year"])
def test_search_bad_filter_is_bad_usage(table: Table, encoder: Encoder, where: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be (used|compared)") as caught:
        table.search("apples", encoder, where=where)
    assert ".rs:" not in str(caught.value)  # no places in Lance's source


@pytest.mark.parametrize(
    ("where", "unknown"),
    [
        ("yeer > 2000", "'yeer'"),
        ("year = 2001 AND `lang` = 'en'", "'lang'"),
        ('"my ""lang""" IS NULL AND yaer IN (1, 2)', "'my \"lang\"', 'yaer'"),
        ("CAST(yeer AS bigint) = 1 OR starts_with(titel, 'x')", "'yeer', 'titel'"),
        ("yeer = :least", "'yeer'"),
        ("date_part('year', att) = 2026 AND at < TIMESTAMP '2026-01-01'", "'att'"),
    ],
)
def test_search_filter_on_an_unknown_column_names_it_and_those_there_are(
    table: Table, encoder: Encoder, where: str, unknown: str
) -> None:
    params = {"least": 1} if ":least" in where else {}
    with pytest.raises(UsageError) as caught:
        table.search("apples", encoder, where=where, params=params)
    said = str(caught.value)
    assert f" names {unknown}, and the table has no such column; its columns are chunk_id" in said
    assert said.endswith("char_start, char_end, year, tag, at")  # no vector, no words of Lance's


def test_search_encoder_of_another_space_names_both(table: Table) -> None:
    with pytest.raises(LakeError, match=r"hashing.*in space.*differ in dim \(32 and 64\)"):
        table.search("apples", Encoder.load("hashing", dim=64))


def test_search_filter_that_fails_while_it_runs_is_bad_usage(
    table: Table, encoder: Encoder
) -> None:
    with pytest.raises(UsageError, match=r"cannot be used: [^/]*$"):
        table.search("apples", encoder, where="1 / 0 = 1")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 10**20}, "k is 1000"),
        ({"nprobes": 0}, "nprobes is 0"),
        ({"nprobes": 10**20}, "nprobes is 1000"),
        ({"nprobes": 1, "exact": True}, "exact"),
    ],
)
def test_search_that_makes_no_sense_is_bad_usage(
    table: Table, encoder: Encoder, wrong: dict[str, int], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        table.search("apples", encoder, **wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_search_asks_the_index_as_it_was_tuned_unless_told_otherwise(
    tmp_path: Path, encoder: Encoder
) -> None:
    """Asked for every row, an index gives those of the partitions that were looked into."""
    recipe = recipe_for(tmp_path)
    table = add_files(recipe, ["a"], 8_500, Clusters.make(30, 32))
    index = refresh_vector_index(table, IndexSpec(min_rows=256))
    assert index is not None and index.partitions == 3

    def found(**how: Any) -> int:
        return len(table.search("some words", encoder, k=8_500, **how))

    for nprobes in (1, 3):
        tuned = asdict(index) | {"nprobes": nprobes}
        table.dataset().update_metadata({INDEX_KEY + index.name: json.dumps(tuned)})
        assert (found() == 8_500) == (nprobes == 3)
        assert found(nprobes=1) < found(nprobes=2) < found(nprobes=3) == found(exact=True) == 8_500
    for changed_by_hand in (
        "no json",
        "7",
        '{"nprobes": 1}',
        '{"nprobes": "1", "refine_factor": 1}',
    ):
        table.dataset().update_metadata({INDEX_KEY + index.name: changed_by_hand})
        assert found() == 8_500


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"exact": True}, {"nprobes": 1}, {"where": "chunk_index = 0"}])
def test_search_many_of_an_indexed_table_gives_what_each_gives_alone(
    tmp_path: Path, encoder: Encoder, how: dict[str, Any]
) -> None:
    table = add_files(recipe_for(tmp_path), ["a"], 2_000, Clusters.make(30, 32))
    assert refresh_vector_index(table, IndexSpec(min_rows=256)) is not None
    words = ["some words", "apples", "rockets to the moon", "pears"]
    together = table.search_many(words, encoder, Query(k=7, **how))
    for text, hits in zip(words, together, strict=True):
        alone = table.search(text, encoder, k=7, **how)
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-6)
        assert all("query_index" not in hit.metadata for hit in hits)


def test_search_table_that_was_deleted_says_what_to_do(tmp_path: Path, encoder: Encoder) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"1": "apples"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    shutil.rmtree(tmp_path / "lake" / "docs.lance")
    with pytest.raises(LakeError, match=r"cannot open.*next run") as caught:
        table_of(recipe).search("apples", encoder)
    assert ".rs:" not in str(caught.value) and caught.value.action == "embed"


def test_search_hybrid_ranks_by_reciprocal_ranks_of_both(table: Table, encoder: Encoder) -> None:
    by_vector = [hit.doc_id for hit in table.search("moon", encoder)]
    expected = {doc_id: 1 / (60 + rank) for rank, doc_id in enumerate(by_vector, start=1)}
    expected["3"] += 1 / 61  # the only text with the word
    hits = table.search("moon", encoder, hybrid=True)
    assert {hit.doc_id: hit.score for hit in hits} == pytest.approx(expected)
    assert hits[0].doc_id == "3"


def test_search_hybrid_finds_by_a_word_what_the_vectors_do_not(
    table: Table, encoder: Encoder
) -> None:
    (hit,) = table.search("moon", encoder, k=1, hybrid=True, where="year IS NULL")
    assert hit.doc_id == "3"
    assert table.search("moon", encoder, hybrid=True, where="year = 1") == []


def test_search_hybrid_rows_that_came_later_are_found_by_their_words(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"1": "apples"})
    recipe = recipe_for(tmp_path, index={"full_text": True})
    run(recipe)
    write_jsonl(tmp_path, "b.jsonl", {"2": "zanzibar"})
    run(recipe)
    encoder = Encoder.load("hashing", dim=32)
    assert table_of(recipe).search("zanzibar", encoder, k=1, hybrid=True)[0].doc_id == "2"
    assert set(unindexed_rows(table_of(recipe).dataset()).values()) == {0}


def test_search_hybrid_without_a_full_text_index_says_how_to_get_one(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"1": "apples"})
    run(recipe_for(tmp_path, index={"full_text": True}))
    write_jsonl(tmp_path, "a.jsonl", {"1": "pears"})
    recipe = recipe_for(tmp_path)  # no longer asked for: dropped by the next run
    run(recipe)
    with pytest.raises(UsageError, match=r"index\.full_text: true"):
        table_of(recipe).search("pears", Encoder.load("hashing", dim=32), hybrid=True)


def test_search_metadata_column_called_almost_vector_is_kept(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "1", "text": "apples", "vector_kind": "fruit"}])
    recipe = recipe_for(tmp_path, source={"metadata": {"vector_kind": "string"}})
    run(recipe)
    (hit,) = table_of(recipe).search("apples", Encoder.load("hashing", dim=32))
    assert hit.metadata == {"vector_kind": "fruit"}


def test_search_many_bare_string_type_error(table: Table, encoder: Encoder) -> None:
    with pytest.raises(TypeError, match="expected a list of texts"):
        table.search_many("apples", encoder)


def test_search_many_in_the_order_of_the_queries(table: Table, encoder: Encoder) -> None:
    hits = table.search_many(["rockets to the moon", "apples and plums"], encoder, Query(k=1))
    assert [hits[0].doc_id for hits in hits] == ["3", "2"]


def test_search_column_that_does_not_exist_names_those_that_do(
    table: Table, encoder: Encoder
) -> None:
    with pytest.raises(LakeError, match="it has chunk_id"):
        table.search("apples", encoder, column="vector__old")


def test_plain_lancedb_client_searches_without_naming_a_column(
    table: Table, encoder: Encoder
) -> None:
    opened = lancedb.connect(table.lake.uri).open_table("docs")
    assert opened.search("rockets", query_type="fts").to_list()[0]["doc_id"] == "3"
    vector = encoder.encode_queries(["rockets to the moon"])[0]
    assert opened.search(vector).limit(1).to_list()[0]["doc_id"] == "3"


IN_A_PLAIN_CLIENT = """
import sys, lancedb
import embedlake.lancedb_client
table = lancedb.connect(sys.argv[1]).open_table("docs")
print(table.search("rockets to the moon").limit(1).to_list()[0]["doc_id"])
"""


@pytest.mark.slow
def test_lancedb_client_searches_by_words_through_the_registered_function(table: Table) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PLAIN_CLIENT, table.lake.uri],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["3"]


@pytest.mark.slow
def test_model_in_a_folder_is_found_from_any_working_directory(
    tmp_path: Path, tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    shutil.copytree(tiny_qwen3, here / "models" / "tiny")
    elsewhere.mkdir()
    write_jsonl(here, "a.jsonl", {"3": "rockets"})
    content = recipe_for(here, model={"name": "/", "dim": None}).model_dump(mode="json")
    content["model"]["name"] = "./models/tiny"
    (here / "recipe.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(here)
    run(Recipe.load("recipe.yaml"))
    monkeypatch.chdir(elsewhere)
    recipe = Recipe.load(here / "recipe.yaml")
    (answer,) = search(recipe, Resources(), {"words": "rockets"}, Query(1))
    assert [hit.doc_id for hit in answer.hits] == ["3"]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PLAIN_CLIENT, recipe.lake.uri],
        cwd=elsewhere, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["3"]


def test_lancedb_client_whose_model_is_another_is_refused_with_both_spaces(tmp_path: Path) -> None:
    import embedlake.lancedb_client  # noqa: F401

    write_jsonl(tmp_path, "a.jsonl", {"1": "apples"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    stored = json.loads(table_of(recipe).dataset().schema.metadata[METADATA_KEY])
    assert stored[0]["model"]["name"] == "hashing"
    stored[0]["model"]["dim"] = 64
    table_of(recipe).dataset().update_schema_metadata({METADATA_KEY.decode(): json.dumps(stored)})
    opened = lancedb.connect(recipe.lake.uri).open_table("docs")
    with pytest.raises(LakeError, match=r"space [0-9a-f]{12} here.*in space [0-9a-f]{12}"):
        opened.search("apples")


def test_embed_names_the_function_again_when_it_is_lost(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"1": "apples"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    before = table_of(recipe).dataset().schema.metadata
    table_of(recipe).dataset().update_schema_metadata({METADATA_KEY.decode(): None})
    write_jsonl(tmp_path, "b.jsonl", {"2": "pears"})
    run(recipe)
    assert table_of(recipe).dataset().schema.metadata == before


def test_embedding_function_has_every_option_that_the_metadata_names(tmp_path: Path) -> None:
    from lancedb.embeddings import get_registry

    import embedlake.lancedb_client  # noqa: F401

    recipe = recipe_for(tmp_path)
    space = describe_model(recipe.model).space
    (entry,) = json.loads(function_metadata(recipe.model, space, "text", "vector"))
    options = get_registry().get(entry["name"]).model_fields
    assert entry["model"].keys() <= options.keys()
    assert ModelSpec.model_fields.keys() - options.keys() == {"over_length"}
