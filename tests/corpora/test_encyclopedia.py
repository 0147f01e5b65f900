"""`encyclopedia.yaml`: windows of 400 characters with id, url and title."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet
import pytest

from embedding_core.runs.inputs.checking import check_file
from tests.corpora.conftest import Trial, Try
from tests.driver import rejects, rows

pytestmark = pytest.mark.slow

SIZE = 400


def articles(trial: Trial) -> list[tuple[str, dict[str, Any]]]:
    """(path, article) of every row, read by pyarrow alone."""
    return [
        (str(path.relative_to(trial.data)), article)
        for path in sorted(trial.data.rglob("*.parquet"))
        for article in pyarrow.parquet.read_table(path).to_pylist()
    ]


def windows(text: str) -> list[tuple[int, str]]:
    """(offset, text) of each window that holds more than white space."""
    cut = [(start, text[start : start + SIZE]) for start in range(0, len(text), SIZE)]
    return [(start, window) for start, window in cut if window.strip()]


def test_encyclopedia_chunks_are_windows_of_400_characters(trial: Try) -> None:
    made = trial("encyclopedia")
    report = made.embed()
    expected = [
        (path, article["id"], number, start, start + len(window), window)
        for path, article in articles(made)
        for number, (start, window) in enumerate(windows(article["text"]))
    ]
    columns = ("source_uri", "doc_id", "chunk_index", "char_start", "char_end", "text")
    stored = rows(made.recipe, *columns)
    assert [(made.file(row), *(row[name] for name in columns[1:])) for row in stored] == expected
    assert (report.outcome, report.rows, report.documents) == ("done", len(expected), 54)
    assert rejects(made.recipe) == []
    texts = [article["text"] for _, article in articles(made)]
    assert any(not text[SIZE : 2 * SIZE].strip() and len(text) > 2 * SIZE for text in texts)
    assert any(ord(character) > 0xFFFF for text in texts for character in text)


def test_encyclopedia_chunks_have_id_url_and_title(trial: Try) -> None:
    made = trial("encyclopedia")
    made.embed()
    of_articles = {
        (path, article["id"]): (article["id"], article["url"], article["title"])
        for path, article in articles(made)
    }
    for row in rows(made.recipe, "source_uri", "doc_id", "id", "url", "title", "context"):
        key = made.file(row), row["doc_id"]
        assert (row["id"], row["url"], row["title"]) == of_articles[key]
        assert row["context"] is None, "the title is not embedded"
    assert "0012" in {article_id for _, article_id in of_articles}, "zeros are kept"


def test_encyclopedia_title_may_be_embedded_and_changes_no_text(trial: Try) -> None:
    made = trial("encyclopedia")
    made.embed()
    before = rows(made.recipe)
    titled = trial("encyclopedia", edits={"# title: title  ": "title: title    "})
    report = titled.embed()
    assert rows(titled.recipe) == before
    assert (report.changed, report.embedded + report.reused) == (6, len(before))
    contexts = {row["context"] for row in rows(titled.recipe, "context")}
    assert contexts == {article["title"] for _, article in articles(titled)}


def test_encyclopedia_files_validate(trial: Try) -> None:
    made = trial("encyclopedia")
    made.embed()
    for path in {path for path, _ in articles(made)}:
        assert check_file(made.recipe, path).outcome == "done"
