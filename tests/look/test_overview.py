"""The report of a table: true figures of real tables, and of all tables that look odd."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from embedding_core.errors import LakeError, SetupError, UsageError
from embedding_core.lake.spaces import switching
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.reports.pages.table_page import table_page
from embedding_core.runs.look.overview import look_at
from embedding_core.runs.look.placed_rows import begin_map
from embedding_core.runs.look.vector_figures import Look
from embedding_core.runs.space.build import build_space, space_job
from embedding_core.runs.space.release import promote_space
from embedding_core.runs.space.release_gate import gate
from tests.driver import recipe_for, run, write_jsonl
from tests.look.tables import documents, embedded, with_vectors


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A table of 61 documents that two runs made, and a record that was left out."""
    folder = tmp_path_factory.mktemp("look")
    recipe = embedded(folder, documents(60))
    write_jsonl(folder, "b.jsonl", [{"id": "late", "text": "a late text"}, {"id": "empty"}])
    run(recipe)
    return recipe


def test_report_has_the_figures_of_the_table_and_its_ledger(recipe: Recipe) -> None:
    made = look_at(recipe, price_per_hour=3.6)
    assert (made.rows, made.statistics.whole.documents, made.statistics.files) == (62, 62, 2)
    assert made.statistics.whole.reasons == {"missing_field": 1}
    first, second = made.history
    assert (first.files, first.embedded, second.files, second.embedded) == (1, 61, 1, 1)
    assert first.tokens + second.tokens == made.statistics.whole.tokens
    assert first.stages.chunk > 0 and first.stages.forward > 0 and first.stages.commit > 0
    assert first.cost is None and first.cost_at(3.6) == pytest.approx(first.stages.work / 1_000)
    assert made.price_per_hour == 3.6 and made.problem is None
    assert made.column == "vector" and made.space is not None and made.space["dim"] == 32


def test_report_shows_the_vectors_of_a_sample(recipe: Recipe) -> None:
    vectors = look_at(recipe).vectors
    assert vectors is not None
    assert (vectors.rows, vectors.left_out, vectors.is_flat) == (62, 0, False)
    assert sum(vectors.explained) <= 1 + 1e-9
    assert list(vectors.explained) == sorted(vectors.explained, reverse=True)
    first = vectors.components[0]
    assert max(row.value for row in first.lowest) < min(row.value for row in first.highest)
    assert first.associations["doc_id"] is None and "year" in first.associations
    assert vectors.points.colours is not None and vectors.points.colours.field == "lang"
    for example in vectors.neighbours:
        assert example.row.chunk_id not in {other.chunk_id for other in example.nearest}
        cosines = [other.value for other in example.nearest]
        assert cosines == sorted(cosines, reverse=True) and len(cosines) == 3


def test_report_finds_texts_that_are_nearly_the_same(tmp_path: Path) -> None:
    texts = {"a": "leaves turn light into sugar", "b": "interest rates rose", "c": "a third one"}
    recipe = embedded(
        tmp_path,
        [{"id": key, "text": text} for key, text in (texts | {"copy": texts["a"]}).items()],
    )
    vectors = look_at(recipe).vectors
    assert vectors is not None and vectors.n_alike == 1
    (pair,) = vectors.alike
    assert {pair.first.doc_id, pair.second.doc_id} == {"a", "copy"}
    assert pair.is_same_text and pair.cosine == pytest.approx(1.0, abs=1e-3)


def test_sample_is_spread_evenly_and_the_same_every_time(recipe: Recipe) -> None:
    first, second = (look_at(recipe, Look(n_sampled=10)).vectors for _ in range(2))
    assert first is not None and second is not None
    assert first.rows == 10 and first.points == second.points
    everything = look_at(recipe).vectors
    assert everything is not None
    positions = [everything.points.chunk_ids.index(key) for key in first.points.chunk_ids]
    assert positions == [n * 62 // 10 for n in range(10)]


def test_sample_of_a_table_with_deleted_rows_has_the_rows_that_are_left(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_jsonl(
            tmp_path, f"{name}.jsonl", {f"{name}{n}": f"{name} text {n}" for n in range(20)}
        )
    recipe = recipe_for(tmp_path)
    run(recipe)
    table = table_of(recipe)
    table.dataset().delete("doc_id IN ('a3', 'a4', 'b0', 'b19')")
    vectors = look_at(recipe).vectors
    assert vectors is not None
    assert list(vectors.points.chunk_ids) == table.to_arrow(["chunk_id"])["chunk_id"].to_pylist()
    assert vectors.points.texts[3] == "a text 5" and vectors.rows == 36


@pytest.mark.parametrize("n_sampled", [0, -1, 50_001])
def test_sample_out_of_bounds_is_refused(n_sampled: int) -> None:
    with pytest.raises(UsageError, match="take 1 to 50,000"):
        Look(n_sampled=n_sampled)


@pytest.mark.parametrize("field", ["lang", "year", "score", "seen", "good", "doc_id", "n_tokens"])
def test_every_kind_of_field_gives_colours(recipe: Recipe, field: str) -> None:
    vectors = look_at(recipe, Look(color=field)).vectors
    assert vectors is not None and vectors.points.colours is not None
    assert vectors.points.colours.field == field
    assert len(vectors.points.colours.numbers) == vectors.rows


def test_promoted_release_is_shown_with_what_the_gate_said(tmp_path: Path) -> None:
    recipe, resources = embedded(tmp_path, documents(30)), Resources()
    model = ModelSpec(name="hashing", dim=16)
    space = build_space(recipe, model, resources, "build")
    judged = gate(recipe, resources, space.column)
    promote_space(space_job(recipe, model, resources, "build"), "me", judged)
    (release,) = look_at(recipe).releases
    assert release.gate is not None and release.gate.verdict == judged.verdict
    ndcg = judged.metrics["ndcg@10"]
    assert (release.gate.old_ndcg, release.gate.new_ndcg) == (ndcg.old.mean, ndcg.new.mean)
    assert release.gate.difference == ndcg.difference.mean
    assert (release.gate.queries, release.gate.queries_kind) == (judged.queries, "known-item")
    switching.rollback(table_of(recipe), "me")
    assert [release.gate for release in look_at(recipe).releases] == [None, release.gate]
    page = table_page(look_at(recipe))
    assert f"{release.gate.old_ndcg:.4f} to {release.gate.new_ndcg:.4f}" in page
    assert "not asked" in page


# Bad input


def test_report_without_a_table_says_what_to_do(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path)
    for attempt in (lambda: look_at(recipe), lambda: begin_map(recipe, "pca", None, 10)):
        with pytest.raises(LakeError, match=r"there is no table 'docs' in .*lake") as error:
            attempt()
        assert error.value.action == "embed"


def test_report_of_an_empty_table_says_so_and_why_it_is_empty(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, [{"id": "empty", "text": " "}])
    made = look_at(recipe)
    assert (made.rows, made.vectors, made.problem) == (0, None, "The table has no rows yet.")
    assert made.statistics.whole.reasons == {"empty_text": 1}
    with pytest.raises(LakeError, match="has no rows to make a map of") as error:
        begin_map(recipe, "pca", None, 10)
    assert error.value.action == "embed"


@pytest.mark.parametrize("n_rows", [1, 2])
def test_report_of_a_row_or_two_has_points_and_no_more_neighbours_than_there_are(
    tmp_path: Path, n_rows: int
) -> None:
    recipe = embedded(tmp_path, documents(n_rows - 1))
    vectors = look_at(recipe).vectors
    assert vectors is not None and len(vectors.points.x) == n_rows
    assert vectors.is_flat == (n_rows == 1)
    assert [len(example.nearest) for example in vectors.neighbours] == (
        [1, 1] if n_rows == 2 else []
    )
    with pytest.raises(UsageError, match=f"tsne needs at least 10 vectors, and there are {n_rows}"):
        look_at(recipe, Look(method="tsne"))


def test_report_of_equal_vectors_says_that_they_are_equal(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, [{"id": f"d{n}", "text": "the same text"} for n in range(20)])
    vectors = look_at(recipe).vectors
    assert vectors is not None and vectors.is_flat and not vectors.components
    assert set(vectors.explained) == {0.0} and len(set(vectors.points.x)) == 1
    assert vectors.n_alike == 20 * 19 // 2 and len(vectors.alike) == 20
    assert len(look_at(recipe, Look(method="tsne")).vectors.points.x) == 20  # type: ignore[union-attr]


def test_report_leaves_out_vectors_that_are_not_finite_and_counts_them(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, documents(3))
    odd = np.full((3, 32), 0.1, np.float32)
    odd[0, 5], odd[1, :], odd[2, 0] = np.nan, np.nan, np.inf
    with_vectors(recipe, odd)
    vectors = look_at(recipe).vectors
    assert vectors is not None and (vectors.rows, vectors.left_out) == (4, 3)
    assert begin_map(recipe, "pca", None, 100).fitted_rows == 4


def test_report_of_vectors_that_are_all_nan_says_so(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, [{"id": "empty", "text": " "}])
    with_vectors(recipe, np.full((3, 32), np.nan, np.float32))
    made = look_at(recipe)
    assert made.vectors is None and made.rows == 3
    assert made.problem is not None and "missing, NaN or infinite" in made.problem
    with pytest.raises(LakeError, match="none of 3 sampled rows") as error:
        begin_map(recipe, "pca", None, 10)
    assert error.value.action == "verify"


def test_report_of_zero_vectors_has_points_and_no_neighbours(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, [{"id": "empty", "text": " "}])
    with_vectors(recipe, np.zeros((3, 32), np.float32))
    vectors = look_at(recipe).vectors
    assert vectors is not None and vectors.is_flat and not vectors.neighbours
    assert vectors.n_alike == 0


def test_field_that_is_not_there_is_refused_with_those_that_are(recipe: Recipe) -> None:
    with pytest.raises(UsageError, match=r"no field 'langs' .* the table has lang, year, score"):
        look_at(recipe, Look(color="langs"))
    with pytest.raises(UsageError, match="no field 'vector'"):
        look_at(recipe, Look(color="vector"))


def test_field_with_ten_thousand_values_is_shown_by_its_most_frequent(tmp_path: Path) -> None:
    records = [{"id": f"d{n}", "text": f"t{n}", "lang": f"v{n}"} for n in range(10_000)]
    recipe = embedded(tmp_path, records, model={"dim": 8})
    vectors = look_at(recipe, Look(color="lang", n_sampled=10_000)).vectors
    assert vectors is not None and vectors.points.colours is not None
    assert vectors.points.colours.labels[-1] == "(9,990 other values)"


def test_text_of_a_million_characters_is_shown_by_its_beginning(tmp_path: Path) -> None:
    long = "word " * 200_000
    recipe = embedded(
        tmp_path,
        [{"id": "long", "text": long, "lang": long}, {"id": "short", "text": "a word"}],
        chunk={"strategy": "none"},
    )
    vectors = look_at(recipe, Look(color="lang")).vectors
    assert vectors is not None and vectors.points.colours is not None
    assert max(map(len, vectors.points.texts)) <= 281
    assert max(map(len, vectors.points.colours.labels)) <= 80


def test_staged_column_is_looked_at_where_it_is_the_only_one(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, documents(12))
    space = build_space(recipe, ModelSpec(name="hashing", dim=16), Resources(), "build")
    asked = look_at(recipe, Look(column=space.column))
    assert asked.column == space.column and asked.space is not None and asked.space["dim"] == 16
    assert asked.vectors is not None and asked.vectors.rows == 13 and asked.vectors.neighbours
    table_of(recipe).dataset().drop_columns(["vector"])
    alone = look_at(recipe)
    assert alone.column == space.column and alone.vectors is not None
    assert alone.vectors.points == asked.vectors.points
    assert begin_map(recipe, "pca", None, 100).job.column == space.column


def test_table_without_any_column_of_vectors_has_a_report(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, documents(3))
    table_of(recipe).dataset().drop_columns(["vector"])
    made = look_at(recipe)
    assert (made.column, made.vectors, made.problem) == (
        None, None, "The table has no column of vectors.",
    )  # fmt: skip
    with pytest.raises(LakeError, match="no column of vectors to make a map of"):
        begin_map(recipe, "pca", None, 10)


def test_column_that_is_not_of_vectors_is_refused_with_those_that_are(recipe: Recipe) -> None:
    with pytest.raises(UsageError, match=r"'text' holds no vectors .* of vectors are vector"):
        look_at(recipe, Look(column="text"))


def test_report_without_a_ledger_has_no_runs(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, documents(3))
    for name in ("docs__files", "docs__rejects"):
        shutil.rmtree(tmp_path / "lake" / f"{name}.lance")
    made = look_at(recipe)
    assert made.history == () and made.rows == 4 and made.vectors is not None


def test_table_of_another_recipe_is_refused(recipe: Recipe) -> None:
    other = recipe.model_copy(update={"name": "other"})
    with pytest.raises(LakeError, match="belongs to the recipe 'test', not to 'other'"):
        look_at(other)


def test_lake_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, documents(3))
    (manifest, *_) = sorted((tmp_path / "lake" / "docs.lance" / "_versions").glob("*.manifest"))
    manifest.write_bytes(b"damaged")
    with pytest.raises(SetupError, match=r"docs\.lance"):
        look_at(recipe)
    shutil.rmtree(tmp_path / "lake")
    (tmp_path / "lake").write_text("no folder")
    with pytest.raises(LakeError, match="there is no table"):
        look_at(recipe)
