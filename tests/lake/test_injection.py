"""Whatever a text says, queries compare it and deletes remove it: it is never part of the SQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_core import Encoder
from embedding_core.errors import UsageError
from embedding_core.lake import ledger, staging
from embedding_core.lake.filters import bind, is_in
from embedding_core.lake.query.filter_tree import filtered
from embedding_core.lake.query.search import Query
from embedding_core.lake.readers.stored_documents import stored_document
from embedding_core.lake.scans import scan_values
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import Table, table_of
from embedding_core.records import Reject
from tests.driver import recipe_for, rejects, rows, run, write_jsonl

HOSTILE = (
    "plain",
    "x' OR 1=1 --",
    "' OR ''='",
    "'; DELETE FROM docs; --",
    "x'); DROP TABLE docs;--",
    '" OR "1"="1',
    "` OR `1`=`1",
    "\\' OR 1=1 --",
    "%",
    "_",
    "p%",
    ":v",
    ":doc_id",
    "a\nb",
    "a\r\n' OR 1=1 --",
    "\t",
    "/* ' */",
    "ʼ OR 1=1 --",
    "＇ OR １=１ --",
    "p\u200blain",
    "PLAIN",
    "pla\u0131n",
    "e\u0301",
    "\u00e9",
    "../../etc/passwd",
    "C:\\windows\\'",
    "NULL",
    "TRUE",
    "1",
)
"""Ids of documents, and values of their metadata."""
PIECES = st.sampled_from(
    [
        "'",
        '"',
        "`",
        "\\",
        "%",
        "_",
        ";",
        "--",
        " OR ",
        "1=1",
        ":v",
        "\n",
        "＇",
        "ʼ",
        "plain",
        ")",
        "(",
    ]
)
TEXTS = st.sampled_from(HOSTILE) | st.lists(PIECES, max_size=6).map("".join)
COLUMN_NAMES = [
    "tag = 'plain' OR tag",
    'tag" OR "tag',
    "tag` OR `tag",
    "tag; --",
    "tаg",
    "tag\n",
    "",
    "*",
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("injection")
    write_jsonl(folder, "a.jsonl", [{"id": text, "text": "w", "tag": text} for text in HOSTILE])
    recipe = recipe_for(folder, source={"metadata": {"tag": "string"}})
    assert run(recipe).outcome == "done"
    return table_of(recipe)


@pytest.fixture(scope="module")
def snapshot(table: Table) -> Snapshot:
    return table.open()


def equal(text: str) -> list[str]:
    """What a query for a text must find."""
    return [text] if text in HOSTILE else []


def searched(table: Table, query: Query) -> list[str]:
    (hits,) = table.search_many(["w"], Encoder.load("hashing", dim=32), query)
    return sorted(hit.doc_id for hit in hits)


@given(TEXTS)
def test_filter_finds_the_text_and_nothing_else(snapshot: Snapshot, text: str) -> None:
    found = snapshot.dataset.to_table(columns=["doc_id"], filter=bind("tag = :v", {"v": text}))
    assert found.column("doc_id").to_pylist() == equal(text)
    others = snapshot.dataset.count_rows(filter=bind("tag != :v", {"v": text}))
    assert others == len(HOSTILE) - len(equal(text))


@settings(max_examples=40)
@given(TEXTS)
def test_search_with_a_filter_finds_the_text_and_nothing_else(table: Table, text: str) -> None:
    asked = Query(k=100, where="tag = :v", params={"v": text})
    assert searched(table, asked) == searched(table, filtered(Query(k=100), {"tag": text}))
    assert searched(table, asked) == equal(text)
    contained = sorted(tag for tag in HOSTILE if text in tag)
    assert searched(table, filtered(Query(k=100), {"tag": {"$contains": text}})) == contained


@given(st.sets(TEXTS, max_size=5))
def test_scan_of_some_ids_finds_them_and_nothing_else(snapshot: Snapshot, texts: set[str]) -> None:
    batches = scan_values(snapshot, "doc_id", texts, ["doc_id"])
    found = [doc_id for batch in batches for doc_id in batch.column("doc_id").to_pylist()]
    assert sorted(found) == sorted(texts & set(HOSTILE))
    assert snapshot.dataset.count_rows(filter=is_in("tag", texts)) == len(found)


@given(TEXTS, st.none() | TEXTS)
def test_document_is_that_of_the_id_and_the_file(
    snapshot: Snapshot, doc_id: str, uri: str | None
) -> None:
    stored = stored_document(snapshot, doc_id, uri)
    if uri is None and doc_id in HOSTILE:
        assert stored is not None and stored.metadata == {"tag": doc_id}
    else:
        assert stored is None


@pytest.mark.parametrize("name", COLUMN_NAMES)
def test_name_of_no_column_is_refused_wherever_one_may_stand(table: Table, name: str) -> None:
    with pytest.raises(UsageError):
        searched(table, filtered(Query(), {name: "plain"}))


@settings(max_examples=12)
@given(
    st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=8),
    st.sets(TEXTS, max_size=4),
    st.sets(TEXTS, max_size=2),
    TEXTS,
)
def test_rejects_are_replaced_and_dropped_by_the_very_text(
    tmp_path_factory: pytest.TempPathFactory,
    details: dict[str, str],
    again: set[str],
    dropped: set[str],
    run_id: str,
) -> None:
    table = table_of(recipe_for(tmp_path_factory.mktemp("rejects")))
    listed = [Reject(uri, None, None, "failed", detail) for uri, detail in details.items()]
    ledger.record_rejects(table, list(details), staging.reject_batches(listed), run_id)
    ledger.record_rejects(table, again, iter(()), run_id)
    ledger.drop_rejects(table, dropped)
    model = {
        (uri, detail, run_id)
        for uri, detail in details.items()
        if uri not in again and detail not in dropped
    }
    stored = ledger.reject_rows(table).to_pylist()
    assert {(row["source_uri"], row["detail"], row["run_id"]) for row in stored} == model
    assert len(stored) == len(model)


def hostile_names() -> Iterator[str]:
    """File names that a file system takes."""
    for number, text in enumerate(HOSTILE):
        if "/" not in text:
            yield f"{number}-{text}.jsonl"


def test_rows_of_changed_and_removed_files_go_whatever_the_files_are_called(
    tmp_path: Path,
) -> None:
    names = list(hostile_names())
    model: dict[str, str] = {name: f"words of {number}" for number, name in enumerate(names)}

    def written(name: str) -> dict[str, Any]:
        return {"id": name, "text": model[name]}

    for name in names:
        write_jsonl(tmp_path, name, [written(name)])
    recipe = recipe_for(tmp_path, max_removed_share=1.0)
    assert run(recipe).outcome == "done"
    for name in names[::3]:
        model[name] = f"other words of {name!r}"
        write_jsonl(tmp_path, name, [written(name)])
    for name in names[1::3]:
        (tmp_path / "src" / name).unlink()
        del model[name]
    write_jsonl(tmp_path, names[2], ["no object"])
    run(recipe)
    del model[names[2]]
    stored = rows(recipe, "doc_id", "text", "source_uri")
    assert {row["doc_id"]: row["text"] for row in stored} == model
    assert all(row["source_uri"] == str(tmp_path / "src" / row["doc_id"]) for row in stored)
    assert [row["source_uri"] for row in rejects(recipe)] == [str(tmp_path / "src" / names[2])]
