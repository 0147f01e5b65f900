"""Feedback is stored as it was said, and becomes queries that training and judging share fairly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from embedding_core.errors import SetupError, UsageError
from embedding_core.lake.readers.feedback import (
    Feedback,
    append_feedback,
    feedback_table,
    read_feedback,
)
from embedding_core.lake.readers.stored_documents import MOST_PASSAGES
from embedding_core.lake.upkeep.belongings import drop_table, folders_of
from embedding_core.quality.held_out import is_held_out, plain
from embedding_core.quality.labels import read_labels
from embedding_core.recipe import Recipe
from embedding_core.runs.exchange.feedback_export import FeedbackReport, feedback_report
from embedding_core.runs.exchange.feedback_grades import graded_queries
from embedding_core.runs.maintenance import maintain
from examples import finetune
from tests.driver import recipe_for, rows, run, write_jsonl
from tests.server.served import TOPICS, made_table, search, serving, table

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return made_table(tmp_path)


@pytest.fixture
def client(recipe: Recipe) -> Iterator[httpx2.Client]:
    with serving(recipe, feedback=True) as client:
        yield client


def say(client: httpx2.Client, **message: Any) -> httpx2.Response:
    content = {"table": "docs", "query": "light", "doc_id": "d0", "signal": "click"}
    return client.post("/feedback", json=content | message)


def feedback(query: str, doc_id: str, signal: Any, **fields: Any) -> Feedback:
    return Feedback(datetime.now(UTC), query, doc_id, signal, **fields)


# Stored


def test_feedback_is_in_the_table_when_it_is_answered(
    recipe: Recipe, client: httpx2.Client
) -> None:
    hit = search(client).json()["hits"][0]
    where = {name: hit[name] for name in ("doc_id", "source_uri", "chunk_id", "rank")}
    answer = say(client, signal="relevant", session="tab-1", space_id="abc", **where)
    assert answer.status_code == 201 and answer.json() == {"stored": 1}
    (row,) = read_feedback(table(recipe))
    assert (row.query, row.signal, row.session, row.rank) == ("light", "relevant", "tab-1", 1)
    assert (row.doc_id, row.chunk_id) == (hit["doc_id"], hit["chunk_id"])
    say(client)
    assert [row.signal for row in read_feedback(table(recipe))] == ["relevant", "click"]


def test_feedback_has_no_column_for_anything_personal(
    recipe: Recipe, client: httpx2.Client
) -> None:
    say(client)
    assert set(feedback_table(table(recipe)).open().schema.names) == {
        "at", "query", "doc_id", "signal", "source_uri", "chunk_id", "rank", "space_id", "session",
    }  # fmt: skip
    (row,) = read_feedback(table(recipe))
    assert row.session is None


def test_feedback_of_many_at_once_is_stored_once_each(
    recipe: Recipe, client: httpx2.Client
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: say(client, doc_id=f"d{n}").status_code, range(24)))
    assert answers == [201] * 24
    assert sorted(row.doc_id for row in read_feedback(table(recipe))) == sorted(
        f"d{n}" for n in range(24)
    )
    text = client.get("/metrics").text
    assert 'embedlake_feedback_total{signal="click",table="docs"} 24.0' in text


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"signal": "love"}, "signal"),
        ({"query": "x" * 2_001}, "at most 2000 characters"),
        ({"query": "  "}, "needs a query with words"),
        ({"doc_id": "x" * 1_025}, "at most 1024 characters"),
        ({"session": "x" * 65}, "at most 64 characters"),
        ({"session": "me@example.org"}, "session"),
        ({"rank": 0}, "rank"),
        ({"name": "somebody"}, "Extra inputs"),
        ({"query": "nul\0"}, "NUL"),
    ],
)
def test_feedback_that_is_out_of_bounds_is_refused(
    recipe: Recipe, client: httpx2.Client, message: dict[str, Any], words: str
) -> None:
    answer = say(client, **message)
    assert answer.status_code == 422 and words in answer.json()["error"]
    assert list(read_feedback(table(recipe))) == []


def test_feedback_on_a_table_that_is_not_served_is_refused(client: httpx2.Client) -> None:
    assert say(client, table="nope").status_code == 404


def test_server_reads_alone_unless_it_is_told(recipe: Recipe) -> None:
    with serving(recipe) as client:
        answer = say(client)
        assert answer.status_code == 422 and "takes no feedback" in answer.json()["error"]
    assert not feedback_table(table(recipe)).exists()


def test_feedback_is_maintained_and_dropped_with_its_table(recipe: Recipe) -> None:
    for number in range(3):
        append_feedback(table(recipe), [feedback("q", f"d{number}", "click")])
    report = maintain(recipe)
    assert "docs__feedback" in [beside.table for beside in report.tables]
    assert len(list(read_feedback(table(recipe)))) == 3
    assert feedback_table(table(recipe)).uri in folders_of(table(recipe))
    drop_table(table(recipe))
    assert not feedback_table(table(recipe)).exists()


# Grades


def grades(*said: Feedback, min_clicks: int = 1) -> dict[str, dict[str, int]]:
    return {query.text: dict(query.grades) for query in graded_queries(said, min_clicks)}


def test_thumbs_count_more_than_clicks_and_the_last_of_a_session_counts() -> None:
    assert grades(
        feedback("q", "up", "relevant", session="a"),
        feedback("q", "down", "click", session="a"),
        feedback("q", "down", "irrelevant", session="a"),
        feedback("q", "clicked", "click", session="a"),
        feedback("q", "changed", "relevant", session="a"),
        feedback("q", "changed", "irrelevant", session="a"),
        feedback("q", "disputed", "relevant", session="a"),
        feedback("q", "disputed", "irrelevant", session="b"),
    ) == {"q": {"up": 2, "down": 0, "clicked": 1, "changed": 0}}


def test_clicks_of_a_session_count_once() -> None:
    said = [feedback("q", "d", "click", session="a")] * 5
    assert grades(*said, min_clicks=2) == {}
    assert grades(*said, feedback("q", "d", "click", session="b"), min_clicks=2) == {"q": {"d": 1}}


def test_queries_with_the_same_words_are_the_same() -> None:
    said = grades(feedback("Snow  melts", "a", "click"), feedback("snow melts", "b", "click"))
    assert said == {"Snow melts": {"a": 1, "b": 1}}


# Labelled queries


def give(recipe: Recipe, n_queries: int = 40) -> list[str]:
    """Thumbs for passages of documents, one query each, and some that answer nothing."""
    stored = rows(recipe, "doc_id", "chunk_id", "source_uri", "text")
    said, queries = [], []
    for number in range(n_queries):
        row = stored[number % len(stored)]
        queries.append(f"{TOPICS[number % 6]} number {number}")
        where = {"chunk_id": row["chunk_id"], "source_uri": row["source_uri"]}
        said.append(feedback(queries[-1], row["doc_id"], "relevant", session="s", **where))
    said.append(feedback("nothing fits", "d0", "irrelevant"))
    said.append(feedback("gone since", "no such document", "relevant"))
    append_feedback(table(recipe), said)
    return queries


def written(recipe: Recipe, folder: Path) -> FeedbackReport:
    return feedback_report(recipe, str(folder))


def test_feedback_becomes_labelled_queries_kept_apart(recipe: Recipe, tmp_path: Path) -> None:
    queries = give(recipe)
    report = written(recipe, tmp_path / "labels")
    assert (report.queries, report.left_out) == (40, 2)
    assert report.train_queries + report.held_out_queries == 40
    assert min(report.train_queries, report.held_out_queries) > 0
    held_out = {query for query in queries if is_held_out(plain(query))}
    texts = _texts(tmp_path / "labels")
    assert {texts[query] for query in _judged(tmp_path / "labels/qrels/test.tsv")} == held_out
    assert {texts[query] for query in _judged(tmp_path / "labels/qrels/train.tsv")} == (
        set(queries) - held_out
    )


def _texts(folder: Path) -> dict[str, str]:
    lines = map(json.loads, (folder / "queries.jsonl").read_text().splitlines())
    return {line["_id"]: line["text"] for line in lines}


def _judged(path: Path) -> set[str]:
    return {line.split("\t")[0] for line in path.read_text().splitlines()[1:]}


def test_training_takes_the_folder_and_keeps_the_same_queries_out(
    recipe: Recipe, tmp_path: Path
) -> None:
    give(recipe)
    written(recipe, tmp_path / "labels")
    split = finetune.labelled(tmp_path / "labels", "{text}", seed=0)
    assert set(split.queries) == _judged(tmp_path / "labels/qrels/test.tsv")
    trained = {pair.query for pair in split.pairs}
    stored = {row["text"] for row in rows(recipe, "text")}
    assert {pair.text for pair in split.pairs} <= stored, "passages, not documents"
    assert trained and trained.isdisjoint(split.queries.values())


def test_gate_reads_the_held_out_queries(recipe: Recipe, tmp_path: Path) -> None:
    give(recipe)
    report = written(recipe, tmp_path / "labels")
    folder = tmp_path / "labels"
    labels = read_labels(recipe, str(folder / "queries.jsonl"), str(folder / "qrels/test.tsv"))
    assert len(labels.texts) == report.held_out_queries
    assert labels.documents <= {row["doc_id"] for row in rows(recipe, "doc_id")}


def test_documents_are_whole_and_pairs_have_the_passages_that_people_found(
    recipe: Recipe, tmp_path: Path
) -> None:
    row = rows(recipe, "doc_id", "chunk_id", "text")[1]
    append_feedback(
        table(recipe),
        [
            feedback("a passage", row["doc_id"], "relevant", chunk_id=row["chunk_id"]),
            feedback("a document", "d5", "relevant"),
        ],
    )
    written(recipe, tmp_path / "labels")
    lines = map(json.loads, (tmp_path / "labels/corpus.jsonl").read_text().splitlines())
    texts = {line["_id"]: line["text"] for line in lines}
    assert row["text"] in texts[row["doc_id"]] and len(texts["d5"]) > len(row["text"])
    pairs = map(json.loads, (tmp_path / "labels/pairs.jsonl").read_text().splitlines())
    assert [(pair["query"], pair["text"]) for pair in pairs] == [
        (query, text)
        for query, text in (("a passage", row["text"]), ("a document", texts["d5"]))
        if not is_held_out(plain(query))
    ]


def test_query_stays_on_its_side_when_more_come(recipe: Recipe, tmp_path: Path) -> None:
    give(recipe, 10)
    written(recipe, tmp_path / "before")
    give(recipe, 40)
    written(recipe, tmp_path / "after")
    for side in ("train", "test"):
        before = _judged(tmp_path / f"before/qrels/{side}.tsv")
        assert before <= _judged(tmp_path / f"after/qrels/{side}.tsv")


def test_table_without_feedback_is_counted_and_writes_nothing(
    recipe: Recipe, tmp_path: Path
) -> None:
    report = feedback_report(recipe)
    assert (report.rows, report.queries, report.files) == (0, 0, ())
    with pytest.raises(UsageError, match="names no relevant document"):
        written(recipe, tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


def test_pairs_have_the_context_that_is_embedded_with_a_passage(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "a", "title": "Plants", "text": "Leaves and roots."}])
    recipe = recipe_for(tmp_path, source={"title": "title"})
    run(recipe)
    (row,) = rows(recipe, "chunk_id")
    queries = [f"where is it, number {number}" for number in range(10)]
    said = [feedback(query, "a", "relevant", chunk_id=row["chunk_id"]) for query in queries]
    append_feedback(table(recipe), said)
    written(recipe, tmp_path / "labels")
    pairs = map(json.loads, (tmp_path / "labels/pairs.jsonl").read_text().splitlines())
    assert {pair["text"] for pair in pairs} == {"Plants\nLeaves and roots."}


def labelled_documents(folder: Path, *records: dict[str, Any]) -> Recipe:
    """A table of other documents, cut into short passages."""
    write_jsonl(folder, "a.jsonl", records)
    recipe = recipe_for(folder, chunk={"max_tokens": 16, "overlap": 0})
    assert run(recipe).outcome == "done"
    return recipe


def test_passage_far_into_a_long_document_is_the_one_to_train_on(tmp_path: Path) -> None:
    words = " ".join(f"word{number}" for number in range(5_000))
    recipe = labelled_documents(tmp_path, {"id": "long", "text": words})
    last = max(rows(recipe, "chunk_index", "chunk_id", "text"), key=lambda row: row["chunk_index"])
    assert last["chunk_index"] > MOST_PASSAGES
    queries = [f"where is it, number {number}" for number in range(20)]
    said = [feedback(query, "long", "relevant", chunk_id=last["chunk_id"]) for query in queries]
    append_feedback(table(recipe), said)
    written(recipe, tmp_path / "labels")
    pairs = map(json.loads, (tmp_path / "labels/pairs.jsonl").read_text().splitlines())
    assert {pair["text"] for pair in pairs} == {last["text"]}
    (document,) = map(json.loads, (tmp_path / "labels/corpus.jsonl").read_text().splitlines())
    assert document["text"].split() == words.split()


def test_document_whose_id_no_column_can_hold_is_left_out(tmp_path: Path) -> None:
    odd = ["tab\there", "line\nbreak"]
    records = [{"id": name, "text": f"about {name}"} for name in (*odd, "plain")]
    recipe = labelled_documents(tmp_path, *records)
    assert {row["doc_id"] for row in rows(recipe, "doc_id")} == {*odd, "plain"}
    said = [feedback(f"what of {name}", name, "relevant") for name in (*odd, "plain")]
    append_feedback(table(recipe), said)
    report = written(recipe, tmp_path / "labels")
    assert (report.queries, report.left_out) == (1, 2)
    folder = tmp_path / "labels"
    labels = read_labels(recipe, str(folder / "queries.jsonl"), str(folder / "qrels.tsv"))
    assert labels.documents == {"plain"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("queries.jsonl", '{"_id": "1", "text": "whose"}\n'),
        ("corpus.jsonl", "x"),
        ("qrels.tsv", "x"),
    ],
)
def test_labels_of_another_origin_are_not_replaced(
    recipe: Recipe, tmp_path: Path, name: str, content: str
) -> None:
    give(recipe, 5)
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / name).write_text(content)
    with pytest.raises(UsageError, match=f"{name} that was not made of feedback"):
        written(recipe, folder)
    assert [path.read_text() for path in folder.iterdir()] == [content]


def test_folder_that_cannot_be_written_is_named(recipe: Recipe, tmp_path: Path) -> None:
    give(recipe, 5)
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"cannot be written to .*file/labels"):
        written(recipe, tmp_path / "file" / "labels")


def test_labels_are_made_again_in_their_folder(recipe: Recipe, tmp_path: Path) -> None:
    for n_queries in (5, 10):
        give(recipe, n_queries)
        assert written(recipe, tmp_path / "labels").queries == n_queries
    assert len(_texts(tmp_path / "labels")) == 10


def test_feedback_that_is_hostile_is_kept_as_it_is_and_labels_nothing(
    recipe: Recipe, client: httpx2.Client, tmp_path: Path
) -> None:
    texts = ["x' OR 1=1 --", "'; DELETE FROM docs; --", "\\' OR ''='", ":v", "../../x", "a\tb\nc"]
    for text in texts:
        message = {"doc_id": text, "source_uri": text, "chunk_id": text, "space_id": text}
        assert say(client, query=text, **message).status_code == 201
    stored = list(read_feedback(table(recipe)))
    assert sorted((row.query, row.doc_id) for row in stored) == sorted(
        (text, text) for text in texts
    )
    with pytest.raises(UsageError, match="names no relevant document for any query"):
        written(recipe, tmp_path / "labels")
