"""Embedlake from Python: what one sees of it, and what one gets out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import embedding_core
import embedlake
from embedding_core import Encoder, Lake
from embedding_core.errors import SetupError
from embedding_core.lake.table import Table
from embedding_core.recipe import Resources
from tests.driver import recipe_for, run, write_jsonl


@pytest.fixture
def table(tmp_path: Path) -> Table:
    records = [
        {"id": "a", "text": "about pears <b>", "year": 1999},
        {"id": "b", "text": "about plums " * 40, "year": None},
    ]
    write_jsonl(tmp_path, "a.jsonl", records)
    recipe = recipe_for(tmp_path, source={"metadata": {"year": "int"}}, chunk={"max_tokens": 512})
    run(recipe)
    return Lake.open(str(tmp_path / "lake")).table("docs")


@pytest.fixture
def encoder() -> Encoder:
    return Encoder.load("hashing", dim=32)


def test_dir_shows_the_public_names() -> None:
    assert dir(embedding_core) == sorted(embedding_core.__all__)
    for name in embedding_core.__all__:
        assert getattr(embedding_core, name) is not None


@pytest.mark.slow
def test_embed_runs_a_recipe_in_this_process_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"a": "about pears", "b": "about plums"})
    write_jsonl(tmp_path, "b.jsonl", {"c": " "})
    recipe = recipe_for(tmp_path, max_rejected_share=1)
    resources = Resources(unit_bytes=1, units_per_commit=1)
    report = embedlake.embed(recipe, resources)
    assert (report.outcome, report.rows, report.rejects) == ("done", 2, {"empty_text": 1})
    assert embedlake.embed(recipe).unchanged == 2
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe.model_dump(mode="json")))
    assert embedlake.embed(tmp_path / "recipe.yaml").unchanged == 2
    write_jsonl(tmp_path, "a.jsonl", {"b": "about plums", "d": "about figs"})
    again = embedlake.embed(recipe)
    assert (again.outcome, again.embedded, again.reused, again.rows) == ("done", 1, 1, 2)


def test_embed_waits_for_nobody_who_has_ended_and_asks_before_it_empties_a_table(
    tmp_path: Path,
) -> None:
    paths = [write_jsonl(tmp_path, f"{name}.jsonl", {name: "words"}) for name in "abc"]
    recipe = recipe_for(tmp_path)
    embedlake.embed(recipe)
    for path in paths[1:]:
        path.unlink()
    with pytest.raises(SetupError, match=r"2 files are no longer") as caught:
        embedlake.embed(recipe)
    assert caught.value.action == "allow_removals"
    assert embedlake.embed(recipe, allow_removals=True).rows == 1


def test_table_is_readable_and_counts_its_rows(table: Table, tmp_path: Path) -> None:
    assert repr(table) == f"<Table docs in {tmp_path}/lake>"
    assert repr(table.lake) == f"<Lake {tmp_path}/lake>"
    assert len(table) == 2 and table
    page = table._repr_html_()
    assert "<th>rows</th><td>2</td>" in page and "hashing" in page


def test_table_status_is_told_without_a_recipe(table: Table) -> None:
    status = table.status()
    assert (status.rows, status.recipe, status.model, status.dim) == (2, "test", "hashing", 32)
    assert status.vector_columns == ("vector",) and "file_key" in "".join(status.indexes)


def test_table_gives_its_rows_as_arrow(table: Table) -> None:
    assert table.to_arrow().num_rows == 2
    some = table.to_arrow(columns=["doc_id", "year"], where="year = 1999")
    assert some.to_pylist() == [{"doc_id": "a", "year": 1999}]


def test_encoder_says_what_it_is(encoder: Encoder) -> None:
    assert "hashing: 32 dimensions" in repr(encoder) and "space " in repr(encoder)


def test_hits_are_readable_and_become_a_data_frame(table: Table, encoder: Encoder) -> None:
    hits = table.search("about pears", encoder, k=2)
    assert repr(hits).splitlines()[0].startswith("  1. <Hit ")
    assert "…" in repr(hits), "a long text is shortened"
    frame = hits.to_pandas()
    assert list(frame["doc_id"]) == ["a", "b"] and frame["year"][0] == 1999
    page = hits._repr_html_()
    assert "&lt;b&gt;" in page and "<b>" not in page and "<th>year</th>" in page


def test_no_hits_are_readable(table: Table, encoder: Encoder) -> None:
    hits = table.search("pears", encoder, where="year = 1")
    assert repr(hits) == "<no hits>" and hits.to_pandas().empty
