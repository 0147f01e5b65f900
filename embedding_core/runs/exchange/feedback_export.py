"""Feedback as labelled queries, in BEIR's formats: to train on, and to judge a release by."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from embedding_core.errors import SetupError, UsageError, words
from embedding_core.lake.readers.feedback import SIGNALS, read_feedback
from embedding_core.lake.readers.stored_documents import StoredDocument, stored_document
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import existing_table
from embedding_core.plurals import counted
from embedding_core.quality.beir import read_queries
from embedding_core.quality.held_out import digest, is_held_out, plain
from embedding_core.recipe import Recipe
from embedding_core.records import embedded_text
from embedding_core.runs.exchange.feedback_grades import GradedQuery, graded_queries
from embedding_core.runs.inputs.own_output import check_outside_source
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels.tsv"
HEADER = "query-id\tcorpus-id\tscore"
NOT_IN_A_COLUMN = frozenset("\t\r\n")
"""BEIR's judgements have no way to write them: a document with one in its id is left out."""


@dataclass(frozen=True, slots=True)
class FeedbackReport:
    """What a table's feedback says, and what was written of it."""

    recipe: str
    table: str
    rows: int
    """Rows of feedback."""
    signals: dict[str, int]
    """Rows by signal: ``relevant``, ``irrelevant``, ``click``."""
    queries: int
    """Queries with a relevant document that the table has."""
    train_queries: int
    """Queries to train on."""
    held_out_queries: int
    """Queries that are kept to judge a model by."""
    judgements: int
    """Pairs of such a query and a document."""
    left_out: int
    """Queries without a relevant document that the table has."""
    documents: int
    """Judged documents."""
    files: tuple[str, ...]
    """Files that were written."""


@dataclass(frozen=True, slots=True)
class _Labels:
    """Queries with grades, and the documents that they name."""

    queries: dict[str, GradedQuery]
    """Graded queries by id."""
    documents: dict[str, StoredDocument]
    """Judged documents by id, as the table holds them."""
    left_out: int


def feedback_report(
    recipe: Recipe, folder: str | None = None, min_clicks: int = 1, seed: int = 0
) -> FeedbackReport:
    """Count the feedback of a recipe's table; write it as labelled queries into ``folder``.

    There ``queries.jsonl`` has every query, ``corpus.jsonl`` every judged document, ``qrels.tsv``
    every judgement; ``qrels/train.tsv`` and ``qrels/test.tsv`` have those of the queries to train
    on and of those that are held out, ``pairs.jsonl`` the former with the passages that people
    found. A query's words and ``seed`` decide on which side it is.
    Labelled queries that it wrote there before are replaced.
    Raises ``LakeError`` when there is no table, ``UsageError`` when there is nothing to write or
    ``folder`` is in the recipe's source or has labelled queries of another origin, ``SetupError``
    when it cannot be written.
    """
    table = existing_table(recipe)
    feedback = list(read_feedback(table))
    signals = Counter(row.signal for row in feedback)
    labels = _labels(table.open(), list(graded_queries(feedback, min_clicks)))
    sides = _sides(labels, seed)
    files: tuple[str, ...] = ()
    if folder is not None:
        if not labels.queries:
            raise UsageError(
                f"the feedback of table {table.name!r} ({counted(len(feedback), 'row')}) names no "
                "relevant document for any query; there is nothing to write before people say more"
            )
        try:
            check_outside_source(recipe, f"{folder}/{QUERIES}")
            _check_replaceable(folder)
            files = tuple(_written(folder, labels, sides))
        except OSError as error:
            raise SetupError(
                f"the labelled queries cannot be written to {folder} ({words(error)}); name a "
                "folder that can be"
            ) from error
    return FeedbackReport(
        recipe=recipe.name,
        table=table.uri,
        rows=len(feedback),
        signals={signal: signals[signal] for signal in SIGNALS},
        queries=len(labels.queries),
        train_queries=len(sides["train"]),
        held_out_queries=len(sides["test"]),
        judgements=sum(len(query.grades) for query in labels.queries.values()),
        left_out=labels.left_out,
        documents=len(labels.documents),
        files=files,
    )


def _check_replaceable(folder: str) -> None:
    """Raise ``UsageError`` for a folder with others' labels: ids that are no digests of queries, or
    documents without queries."""
    paths = {name: Path(folder, name) for name in (QUERIES, CORPUS, QRELS)}
    present = [name for name, path in paths.items() if path.exists()]
    if not present:
        return
    with suppress(UsageError, FileNotFoundError):
        queries = read_queries(paths[QUERIES].read_bytes(), QUERIES)
        if all(name == _query_id(text) for name, text in queries.items()):
            return
    raise UsageError(
        f"{folder} has a {present[0]} that was not made of feedback and would be lost; name "
        "another folder"
    )


def _query_id(text: str) -> str:
    return f"{digest(plain(text)):016x}"


def _labels(snapshot: Snapshot, graded: Sequence[GradedQuery]) -> _Labels:
    """The queries that documents of the table answer."""
    uris: dict[str, str | None] = {}
    for query in graded:
        for document, origin in query.origins.items():
            uris[document] = uris.get(document) or origin.source_uri
    stored = {
        document: read
        for document, uri in uris.items()
        if NOT_IN_A_COLUMN.isdisjoint(document)
        and (read := _stored(snapshot, document, uri)) is not None
    }
    queries = {}
    for query in graded:
        grades = {document: grade for document, grade in query.grades.items() if document in stored}
        kept = GradedQuery(query.text, grades, query.origins)
        if kept.is_answered:
            queries[_query_id(query.text)] = kept
    named = {document for query in queries.values() for document in query.grades}
    documents = {document: stored[document] for document in sorted(named)}
    return _Labels(queries, documents, len(graded) - len(queries))


def _stored(snapshot: Snapshot, document: str, uri: str | None) -> StoredDocument | None:
    """The whole document where it was found, else wherever it is now."""
    stored = stored_document(snapshot, document, uri, limit=sys.maxsize)
    if stored is None and uri is not None:
        return stored_document(snapshot, document, limit=sys.maxsize)
    return stored


def _pairs(labels: _Labels, query_ids: Sequence[str]) -> list[str]:
    """Queries with the passages that people found, or with the document where the table has them
    no longer."""
    lines = []
    for query in map(labels.queries.__getitem__, query_ids):
        for document, grade in query.grades.items():
            stored, chunk_ids = labels.documents[document], query.origins[document].chunk_ids
            passages = [
                embedded_text(part.text, part.context)  # what the model is to read of it, too
                for part in stored.passages
                if part.chunk_id in chunk_ids
            ]
            texts = (passages or [stored.text]) if grade else []
            lines += [json.dumps({"query": query.text, "text": text}) for text in texts]
    return lines


def _sides(labels: _Labels, seed: int) -> Mapping[str, Sequence[str]]:
    """Ids of the queries to train on, and of those held out, under BEIR's names for them."""
    sides: dict[str, list[str]] = {"train": [], "test": []}
    for query_id, query in labels.queries.items():
        sides["test" if is_held_out(plain(query.text), seed) else "train"].append(query_id)
    return sides


def _written(folder: str, labels: _Labels, sides: Mapping[str, Sequence[str]]) -> Iterator[str]:
    queries = [
        json.dumps({"_id": query_id, "text": query.text})
        for query_id, query in labels.queries.items()
    ]
    corpus = [
        json.dumps({"_id": document, "title": "", "text": stored.text})
        for document, stored in labels.documents.items()
    ]
    contents = {
        CORPUS: corpus,
        QUERIES: queries,
        QRELS: _judgements(labels, list(labels.queries)),
        "qrels/train.tsv": _judgements(labels, sides["train"]),
        "qrels/test.tsv": _judgements(labels, sides["test"]),
        "pairs.jsonl": _pairs(labels, sides["train"]),
    }
    for name, lines in contents.items():
        uri = storage.join(folder, name)
        storage.write_bytes(uri, ("\n".join(lines) + "\n").encode(), StorageSpec())
        yield uri


def _judgements(labels: _Labels, query_ids: Sequence[str]) -> list[str]:
    return [
        HEADER,
        *(
            f"{query_id}\t{document}\t{grade}"
            for query_id in query_ids
            for document, grade in labels.queries[query_id].grades.items()
        ),
    ]
