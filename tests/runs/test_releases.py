"""A new space over the rows of a table: built beside ingest, resumed, put in service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest

import embedlake.lancedb_client  # noqa: F401  # makes the function known
from embedding_core import Encoder
from embedding_core.encoder import hashing
from embedding_core.encoder.stream import Rows
from embedding_core.errors import LakeError
from embedding_core.lake import lock, schema
from embedding_core.lake.lock import Timing
from embedding_core.lake.query.search import Query
from embedding_core.lake.spaces import switching
from embedding_core.lake.spaces.switching import promote, releases, rollback
from embedding_core.lake.spaces.vector_columns import columns, missing_rows
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs import job
from embedding_core.runs.answers import search
from embedding_core.runs.embed import embed_stage
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.commit_stage import commit_units
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.space import build as backfill
from embedding_core.runs.space.build import SpaceReport, backfill_fragment, begin_space, build_space
from embedding_core.runs.space.evaluation import evaluate
from embedding_core.runs.table_status import status
from tests.driver import begin, recipe_for, rejects, rows, run, write_jsonl

NEW = ModelSpec(name="hashing", dim=16)
RESOURCES = Resources()


def files(folder: Path, *names: str, texts: int = 3) -> None:
    for name in names:
        write_jsonl(
            folder, f"{name}.jsonl", {f"{name}{n}": f"{name} text {n}" for n in range(texts)}
        )


def build(recipe: Recipe, model: ModelSpec = NEW) -> SpaceReport:
    return build_space(recipe, model, RESOURCES, "build")


def assert_vectors_are_of(recipe: Recipe, column: str, model: ModelSpec) -> None:
    """Every row has the vector that the model gives its text."""
    found = rows(recipe, "text", column)
    expected = Encoder.load(model.name, dim=model.dim).encode_documents([r["text"] for r in found])
    assert np.allclose([row[column] for row in found], expected, atol=1e-3)


def test_build_space_gives_every_row_a_vector_and_leaves_the_rest(tmp_path: Path) -> None:
    files(tmp_path, "a", "b")
    recipe = recipe_for(tmp_path)
    run(recipe)
    before = rows(recipe, "chunk_id", "text", "vector")
    report = build(recipe)
    assert (report.rows, report.fragments, report.encoded, report.missing_rows) == (6, 2, 6, 0)
    assert report.column == schema.hidden_name(report.space_id)
    assert rows(recipe, "chunk_id", "text", "vector") == before
    assert_vectors_are_of(recipe, report.column, NEW)
    version = table_of(recipe).dataset().version
    again = build(recipe)
    assert (again.rows, again.encoded) == (0, 0) and table_of(recipe).dataset().version == version


def test_build_space_in_service_has_nothing_to_do(tmp_path: Path) -> None:
    files(tmp_path, "a")
    recipe = recipe_for(tmp_path)
    run(recipe)
    report = build(recipe, recipe.model)
    assert (report.column, report.rows) == ("vector", 0)
    assert len(columns(table_of(recipe))) == 1


def test_build_space_equal_texts_are_encoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = [{"id": str(n), "text": f"text {n % 2}"} for n in range(20)]
    write_jsonl(tmp_path, "a.jsonl", same)
    recipe = recipe_for(tmp_path)
    run(recipe)
    real = backfill.fragment_rows

    def small_blocks(*given: Any) -> Any:
        return real(*given, batch_rows=3)

    monkeypatch.setattr(backfill, "fragment_rows", small_blocks)
    report = build(recipe)
    assert (report.rows, report.encoded) == (20, 2)
    assert_vectors_are_of(recipe, report.column, NEW)


@pytest.mark.slow
def test_build_space_killed_between_fragments_does_only_the_missing_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, "a", "b", "c", "d")
    recipe = recipe_for(tmp_path)
    run(recipe)
    real = backfill_fragment
    allowed = iter([True, True])

    def killed(*given: Any) -> Any:
        if not next(allowed, False):
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(backfill, "backfill_fragment", killed)
    with pytest.raises(KeyboardInterrupt):
        build(recipe)
    monkeypatch.setattr(backfill, "backfill_fragment", real)
    assert table_of(recipe).space()[1].dim == 32
    report = build(recipe)
    assert (report.fragments, report.encoded, report.missing_rows) == (2, 6, 0)
    assert_vectors_are_of(recipe, report.column, NEW)


@pytest.mark.slow
def test_build_space_files_embedded_meanwhile_are_caught_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, "a", "b", "c")
    recipe = recipe_for(tmp_path)
    run(recipe)
    real = backfill_fragment
    steps = iter(range(10))

    def beside_ingest(*given: Any) -> Any:
        step = next(steps)
        if step < 2:
            files(tmp_path, f"new{step}")
            files(tmp_path, "b", texts=4 + step)  # a changed file: old rows go, new ones come
            assert run(recipe).outcome == "done"
        return real(*given)

    monkeypatch.setattr(backfill, "backfill_fragment", beside_ingest)
    report = build(recipe)
    assert report.missing_rows == 0
    assert table_of(recipe).dataset().count_rows() == 3 + 5 + 3 + 3 + 3
    assert_vectors_are_of(recipe, report.column, NEW)
    promote(table_of(recipe), report.column, "me")
    assert_vectors_are_of(recipe, "vector", NEW)


@pytest.mark.slow
def test_build_space_truncated_texts_are_listed_once(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"long": " ".join(["word"] * 20), "short": "word", "no": " "})
    recipe = recipe_for(tmp_path, max_rejected_share=1)
    run(recipe)
    short = ModelSpec(name="hashing", dim=16, max_tokens=8)
    report = build(recipe, short)
    assert (report.rows, report.truncated) == (2, 1)
    found = [(one["doc_id"], one["reason"]) for one in rejects(recipe)]
    assert sorted(found) == [("long", "truncated"), ("no", "empty_text")]
    table = table_of(recipe)
    table.dataset().optimize.compact_files()
    backfill.backfill_fragment(
        job.Job(recipe.model_copy(update={"model": short}), RESOURCES, report.space_id, "", "2"),
        table.dataset().get_fragments()[0].fragment_id,
    )
    assert len(rejects(recipe)) == 2


def test_build_space_text_without_a_vector_is_listed_and_keeps_the_column_out_of_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, "a", "b")
    recipe = recipe_for(tmp_path)
    run(recipe)
    real = hashing.HashingEncoder.encode_pieces

    def one_fails(self: Any, pieces: Any, kind: Any) -> Any:
        for piece, made in real(self, pieces, kind):
            failed = {
                n: "out_of_memory" for n, text in enumerate(piece.texts) if text == "a text 1"
            }
            vectors = made.vectors.copy()
            vectors[list(failed)] = np.nan
            yield piece, Rows(vectors, made.n_tokens, made.truncated, made.recomputed, failed)

    monkeypatch.setattr(hashing.HashingEncoder, "encode_pieces", one_fails)
    report = build(recipe)
    assert (report.rows, report.missing_rows) == (5, 1)
    assert [(one["doc_id"], one["reason"]) for one in rejects(recipe)] == [("a1", "out_of_memory")]
    with pytest.raises(LakeError, match="1 of 6 rows"):
        promote(table_of(recipe), report.column, "me")
    monkeypatch.setattr(hashing.HashingEncoder, "encode_pieces", real)
    healed = build(recipe)
    assert (healed.fragments, healed.missing_rows) == (1, 0)
    assert rejects(recipe) == []
    promote(table_of(recipe), report.column, "me")


def test_build_space_table_without_rows_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": " "})
    recipe = recipe_for(tmp_path)
    run(recipe)
    with pytest.raises(LakeError, match="no rows to embed"):
        build(recipe)
    assert len(columns(table_of(recipe))) == 1


def test_build_space_of_another_recipe_is_refused(tmp_path: Path) -> None:
    files(tmp_path, "a")
    run(recipe_for(tmp_path))
    with pytest.raises(LakeError, match="belongs to the recipe 'test'"):
        build(recipe_for(tmp_path, name="other"))


# Ingest beside other spaces


@pytest.mark.slow
def test_run_beside_a_building_and_a_previous_column_goes_on(tmp_path: Path) -> None:
    files(tmp_path, "a")
    recipe = recipe_for(tmp_path)
    run(recipe)
    promote(table_of(recipe), build(recipe).column, "me")
    third = ModelSpec(name="hashing", dim=8)
    begin_space(recipe, third, RESOURCES, "third")
    newer = recipe_for(tmp_path, model={"dim": 16})
    files(tmp_path, "a", texts=4)
    files(tmp_path, "b")
    report = run(newer)
    assert (report.outcome, report.rows) == ("done", 7)
    assert plan(newer).is_empty
    assert maintain(newer).problems == ()
    lines = {one.state: one for one in status(newer).spaces}
    assert lines["in service"].missing_rows == 0 and lines["in service"].dim == 16
    assert lines["previous"].missing_rows == 7  # the file changed: all of its rows are new
    assert lines["building"].missing_rows == 7 and lines["building"].filled_share == 0.0
    build(newer, recipe.model)
    rollback(table_of(newer), "me")
    assert_vectors_are_of(recipe, "vector", recipe.model)
    assert run(recipe).outcome == "done"


def test_run_with_the_model_of_a_built_column_is_refused_and_told_to_promote(
    tmp_path: Path,
) -> None:
    files(tmp_path, "a")
    recipe = recipe_for(tmp_path)
    run(recipe)
    column = build(recipe).column
    with pytest.raises(LakeError, match=f"promote the recipe's, {column}") as caught:
        run(recipe_for(tmp_path, model={"dim": 16}))
    assert caught.value.action == "promote"


def test_run_whose_space_left_service_meanwhile_commits_nothing(tmp_path: Path) -> None:
    files(tmp_path, "a")
    recipe = recipe_for(tmp_path)
    run(recipe)
    column = build(recipe).column
    files(tmp_path, "b", "c")
    started, planned = begin(recipe)
    staged = [chunk_unit(started, one) for one in work_units(planned, 1)]
    embedded = embed_unit(started, staged[0])
    promote(table_of(recipe), column, "me")
    with pytest.raises(LakeError, match="was switched"):
        embed_unit(started, staged[1])
    with pytest.raises(LakeError, match="was switched"):
        commit_units(started, [embedded])
    assert table_of(recipe).dataset().count_rows() == 3
    rollback(table_of(recipe), "me")
    assert run(recipe).outcome == "done"
    assert_vectors_are_of(recipe, "vector", recipe.model)
    assert table_of(recipe).dataset().count_rows() == 9


def test_unit_whose_space_leaves_service_while_it_is_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lance refuses vectors of another dimension as if its store had failed."""
    files(tmp_path, "a")
    recipe = recipe_for(tmp_path)
    run(recipe)
    column = build(recipe).column
    files(tmp_path, "b")
    started, planned = begin(recipe)
    (staged,) = [chunk_unit(started, unit) for unit in work_units(planned, 1)]
    real = embed_stage.write_fragments

    def write(*given: Any) -> tuple[str, ...]:
        promote(table_of(recipe), column, "me")
        return real(*given)

    monkeypatch.setattr(embed_stage, "write_fragments", write)
    with pytest.raises(LakeError, match="was switched"):
        embed_unit(started, staged)


# Judging and searching other columns


@pytest.mark.slow
def test_evaluate_column_under_construction_is_judged_by_its_own_model(tmp_path: Path) -> None:
    files(tmp_path, "a", "b")
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    queries.write_text(json.dumps({"_id": "q", "text": "b text 1"}) + "\n")
    qrels.write_text("query\tdocument\tgrade\nq\tb1\t1\n")
    recipe = recipe_for(tmp_path, release={"queries": str(queries), "qrels": str(qrels)})
    run(recipe)
    table = table_of(recipe)
    started = begin_space(recipe, ModelSpec(name="hashing", dim=64), RESOURCES, "r")
    (column,) = (one.column for one in columns(table) if one.state == "building")
    assert evaluate(recipe, RESOURCES, column=column).metrics["mrr@10"].mean == 0.0
    backfill_fragment(started, max(missing_rows(table.dataset(), started.space_id)))
    found = evaluate(recipe, RESOURCES, column=column)
    assert found.metrics["mrr@10"].mean == 1.0
    assert (found.column, found.space_id) == (column, started.space_id)
    with pytest.raises(LakeError, match="no column 'vector__none'"):
        evaluate(recipe, RESOURCES, column="vector__none")
    promote(table, build(recipe, ModelSpec(name="hashing", dim=64)).column, "me")
    assert evaluate(recipe, RESOURCES).metrics["mrr@10"].mean == 1.0


def test_search_after_promote_asks_with_the_model_in_service(tmp_path: Path) -> None:
    files(tmp_path, "a")
    recipe = recipe_for(tmp_path)
    run(recipe)
    promote(table_of(recipe), build(recipe).column, "me")
    for one in (recipe, recipe_for(tmp_path, model={"dim": 16})):
        (answer,) = search(one, RESOURCES, {"q": "a text 1"}, Query(k=1))
        assert answer.hits[0].doc_id == "a1"
    with pytest.raises(LakeError, match="Encode the query with the model"):
        table_of(recipe).search("a text 1", Encoder.load("hashing", dim=32))


@pytest.mark.slow
def test_lancedb_s_own_search_by_words_uses_the_model_in_service(tmp_path: Path) -> None:
    files(tmp_path, "a", "b")
    recipe = recipe_for(tmp_path)
    run(recipe)
    table = table_of(recipe)

    def first_hit() -> str:
        found = lancedb.connect(recipe.lake.uri).open_table("docs").search("b text 1").limit(1)
        return str(found.to_list()[0]["doc_id"])

    column = build(recipe, ModelSpec(name="hashing", dim=64)).column
    assert first_hit() == "b1"
    promote(table, column, "me")
    assert table.space()[1].dim == 64 and first_hit() == "b1"
    rollback(table, "me")
    assert table.space()[1].dim == 32 and first_hit() == "b1"


def test_promote_that_slept_while_another_switched_and_went_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had its lock when it looked, and lost it before it committed."""
    files(tmp_path, "a")
    recipe = recipe_for(tmp_path)
    run(recipe)
    column, table = build(recipe).column, table_of(recipe)
    monkeypatch.setattr(lock, "TIMING", Timing(beat=60.0, expiry=0.05, poll=0.01))
    real, left = switching.commit_schema, [1]

    def commit(*given: Any) -> int:
        if left and left.pop():
            promote(table, column, "another")
            rollback(table, "another")
        return real(*given)

    monkeypatch.setattr(switching, "commit_schema", commit)
    with pytest.raises(LakeError, match="another run took over"):
        promote(table, column, "sleeper")
    by = [(release.action, release.by) for release in releases(table.open())]
    assert by == [("rollback", "another"), ("promote", "another")]


def test_promote_of_a_build_that_lost_its_lock_changes_nothing(tmp_path: Path) -> None:
    files(tmp_path, "a")
    recipe = recipe_for(tmp_path)
    run(recipe)
    column, table = build(recipe).column, table_of(recipe)

    def check() -> None:
        raise LakeError("lost")

    with pytest.raises(LakeError, match="lost"):
        promote(table, column, "me", check=check)
    assert releases(table.open()) == ()
