"""A title or heading is embedded with a text, stored beside it, and known to every reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedding_core.encoder import Encoder
from embedding_core.identity import text_hash
from embedding_core.lake.rows.embedded import embedded_texts
from embedding_core.lake.spaces.switching import promote
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.records import embedded_text
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.repair import audit
from embedding_core.runs.space.build import build_space, space_job
from embedding_core.runs.space.sample import choose_sample, embed_sample
from tests.driver import recipe_for, rejects, rows, run, write_jsonl

MARKDOWN = "# Guide\n\nWelcome.\n\n## Install\n\n" + "Words about the installation. " * 12
RESOURCES = Resources()


def titled(folder: Path, **changes: Any) -> Recipe:
    return recipe_for(folder, source={"title": "title"}, **changes)


def records(title: str | None, text: str = "apples and pears") -> list[dict[str, Any]]:
    return [{"id": "a", "title": title, "text": text}, {"id": "b", "text": text}]


def check_vectors(recipe: Recipe, dim: int = 32) -> None:
    """Every stored vector is what the encoder makes of context and text."""
    read = rows(recipe, "text", "context", "text_hash", "vector")
    embedded = [embedded_text(row["text"], row["context"]) for row in read]
    assert [row["text_hash"] for row in read] == list(map(text_hash, embedded))
    expected = Encoder.load("hashing", dim=dim).encode_documents(embedded)
    np.testing.assert_allclose(np.array([row["vector"] for row in read]), expected, atol=1e-3)


def test_both_functions_put_context_and_text_together_alike() -> None:
    texts, contexts = ["a", "b", "", "d\n"], ["c", None, "", "e\nf"]
    expected = list(map(embedded_text, texts, contexts))
    table = pa.table({"context": pa.array(contexts, pa.string()), "text": texts})
    assert expected == ["c\na", "b", "\n", "e\nf\nd\n"]
    assert embedded_texts(table).to_pylist() == expected
    (batch,) = table.to_batches()
    assert embedded_texts(batch).to_pylist() == expected
    without = table.set_column(0, "context", pa.nulls(4, pa.string()))
    assert embedded_texts(without).to_pylist() == texts


def test_run_with_a_title_embeds_it_and_stores_it_beside_the_text(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", records("A title"))
    recipe = titled(tmp_path)
    report = run(recipe)
    assert (report.embedded, report.reused) == (2, 0), "equal texts, two contexts"
    read = rows(recipe, "text", "context", "n_tokens")
    assert [(row["text"], row["context"]) for row in read] == [
        ("apples and pears", "A title"), ("apples and pears", None),
    ]  # fmt: skip
    assert read[0]["n_tokens"] == read[1]["n_tokens"] + 2
    check_vectors(recipe)
    assert audit(recipe, RESOURCES, deep=True).passed


def test_run_changed_title_embeds_again_although_the_text_is_the_same(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", records("Old title"))
    recipe = titled(tmp_path, reuse="table")
    run(recipe)
    before = rows(recipe, "chunk_id")
    write_jsonl(tmp_path, "a.jsonl", records("New title"))
    report = run(recipe)
    assert (report.embedded, report.reused) == (1, 1)
    after = rows(recipe, "chunk_id")
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True]
    check_vectors(recipe)


def test_plan_after_the_title_is_added_says_so_and_the_run_embeds_what_has_one(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path, "a.jsonl", records("A title"))
    run(recipe_for(tmp_path))
    recipe = titled(tmp_path)
    (planned,) = plan(recipe).files
    assert planned.why == "title changed"
    report = run(recipe)
    assert (report.embedded, report.reused) == (1, 1)


@pytest.mark.parametrize(
    ("template", "record", "context"),
    [
        ("title", {"title": "  A "}, "A"),
        ("title", {"title": " "}, None),
        ("title", {"title": 7}, "7"),
        ("{title} ({year})", {"title": "A", "year": 2020}, "A (2020)"),
        ("{title} ({year})", {"title": "A", "year": None}, None),
        ("meta.title", {"meta": {"title": "A"}}, "A"),
    ],
)
def test_a_title_is_a_field_or_a_template_and_may_be_missing(
    tmp_path: Path, template: str, record: dict[str, Any], context: str | None
) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "1", "text": "words"} | record])
    recipe = recipe_for(tmp_path, source={"title": template})
    assert run(recipe).embedded == 1
    assert rows(recipe, "context") == [{"context": context}]


def test_a_title_of_another_type_is_a_reject(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "1", "text": "words", "title": ["A"]}])
    recipe = titled(tmp_path, max_rejected_share=1)
    run(recipe)
    (reject,) = rejects(recipe)
    assert (reject["reason"], reject["doc_id"]) == ("wrong_type", "1")


@pytest.mark.slow
def test_a_model_that_is_built_beside_reads_the_context_too(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [*records("A title"), {"id": "c", "text": "plums"}])
    recipe = titled(tmp_path)
    run(recipe)
    model = ModelSpec(name="hashing", dim=16)
    job = space_job(recipe, model, RESOURCES, "sample")
    sampled = [embed_sample(job, portion) for portion in choose_sample(job, 1.0)]
    assert sum(portion.tokens for portion in sampled) == sum(
        row["n_tokens"] for row in rows(recipe, "n_tokens")
    )
    promote(table_of(recipe), build_space(recipe, model, RESOURCES, "build").column, "me")
    served = recipe.model_copy(update={"model": model})
    check_vectors(served, dim=16)
    assert audit(served, RESOURCES, deep=True).passed
    assert plan(served).is_empty


@pytest.mark.slow
def test_audit_finds_a_context_that_is_not_the_one_that_was_embedded(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", records("A title"))
    recipe = titled(tmp_path)
    run(recipe)
    table_of(recipe).dataset().update({"context": "'Another'"}, where="doc_id = 'a'")
    audited = audit(recipe, RESOURCES, deep=True)
    assert "text_hash is not the digest of the text" in {d.what for d in audited.damages}


def test_run_markdown_headings_are_context_and_a_column_that_filters(tmp_path: Path) -> None:
    path = tmp_path / "src" / "guide.md"
    path.parent.mkdir()
    path.write_text("---\ntitle: Handbook\n---\n" + MARKDOWN)
    source = {"id": None, "title": "title"}
    chunk = {"strategy": "markdown", "max_tokens": 32, "headings": "both"}
    recipe = recipe_for(tmp_path, source=source, chunk=chunk)
    run(recipe)
    check_vectors(recipe)
    read = rows(recipe, "context", "headings")
    assert read[0] == {"context": "Handbook", "headings": "Guide"}
    assert read[-1] == {"context": "Handbook\nGuide > Install", "headings": "Guide > Install"}
    dataset = table_of(recipe).dataset()
    assert dataset.count_rows(filter="headings LIKE 'Guide > I%'") == len(read) - 1
    plain = recipe_for(tmp_path, source=source, chunk=chunk | {"headings": "context"})
    assert plan(plain).columns_dropped == ("headings",)
    assert run(plain).embedded == 0, "the same texts behind the same contexts"
    assert "headings" not in table_of(plain).dataset().schema.names


def test_run_code_that_lacks_its_grammar_rejects_the_file_and_reads_it_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("def f():\n    return 1\n" * 30)
    (tmp_path / "src" / "Makefile").write_text("all:\n\techo\n" * 30)
    source = {"id": None, "format": "text"}
    recipe = recipe_for(tmp_path, source=source, chunk={"strategy": "code", "max_tokens": 32})
    monkeypatch.setitem(sys.modules, "tree_sitter_python", None)
    report = run(recipe)
    (reject,) = rejects(recipe)
    assert (reject["reason"], report.outcome) == ("missing_library", "rejected")
    assert "pip install 'embedlake[code]'" in reject["detail"]
    assert {Path(row["source_uri"]).name for row in rows(recipe, "source_uri")} == {"Makefile"}
    monkeypatch.undo()
    assert run(recipe).outcome == "done"
    assert rejects(recipe) == []
