"""A model of the source files, and the oracle: everything in which a table differs from it."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake import ledger
from embedding_core.lake.filters import is_in
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe

COLUMNS = [
    "chunk_id", "file_key", "source_uri", "doc_id", "chunk_index", "text", "char_start", "char_end",
    "vector",
]  # fmt: skip
WORDS_PER_TEXT = (3, 8, 15, 40, 70)
VOCABULARY = 400
MOST_DOCUMENTS = 6
BROKEN_SHARE, EMPTY_SHARE = 0.25, 0.3
"""How often a broken line precedes a document, and an empty text ends a file."""
TOLERANCE = 1e-5

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Content:
    """What a file says."""

    texts: Mapping[str, str]
    """By document id."""
    rejects: Sequence[tuple[int, str]]
    """Position and reason of each line that gives no row."""


class World:
    """The files of a source folder, and what should be in the table for them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.files: dict[str, Content] = {}
        self._chance = random.Random(seed)
        self._n_writes = 0
        folder.mkdir(parents=True)

    def write(self, name: str, n_documents: int | None = None) -> None:
        """Write a file with other texts than before, and some lines that give no row."""
        chance = self._chance
        self._n_writes += 1
        lines: list[str] = []
        rejects: list[tuple[int, str]] = []
        texts: dict[str, str] = {}
        for number in range(n_documents or chance.randrange(1, MOST_DOCUMENTS + 1)):
            if chance.random() < BROKEN_SHARE:
                rejects.append((len(lines), "malformed_json"))
                lines.append("{broken")
            words = " ".join(
                f"w{chance.randrange(VOCABULARY)}" for _ in range(chance.choice(WORDS_PER_TEXT))
            )
            texts[f"d{number}"] = f"{name} write {self._n_writes} {words}"
            lines.append(json.dumps({"id": f"d{number}", "text": texts[f"d{number}"]}))
        if chance.random() < EMPTY_SHARE:
            rejects.append((len(lines), "empty_text"))
            lines.append(json.dumps({"id": "empty", "text": "  "}))
        (self.folder / name).write_text("".join(line + "\n" for line in lines))
        self.files[name] = Content(texts, rejects)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.folder / name).unlink()
        del self.files[name]

    def problems(self, recipe: Recipe) -> list[str]:
        """Everything in which the table, its ledger and its rejects differ from the files."""
        table = table_of(recipe)
        rows = table.to_arrow(COLUMNS).to_pylist()
        return [
            *self._wrong_documents(rows),
            *_wrong_vectors(table, rows),
            *_wrong_ledger(table, rows),
            *self._wrong_rejects(table),
            *_lost_to_indexes(table, rows),
        ]

    def _wrong_documents(self, rows: Iterable[Row]) -> Iterator[str]:
        rows_by_document: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in rows:
            rows_by_document[row["source_uri"], row["doc_id"]].append(row)
        texts = {
            (str(self.folder / name), doc_id): text
            for name, content in self.files.items()
            for doc_id, text in content.texts.items()
        }
        yield from (f"{key} is missing" for key in texts.keys() - rows_by_document.keys())
        yield from (f"{key} is not in the files" for key in rows_by_document.keys() - texts.keys())
        for key in texts.keys() & rows_by_document.keys():
            wrong = _wrong_chunks(rows_by_document[key], texts[key])
            yield from (f"{key}: {what}" for what in wrong)
        yield from _twice("version", {(row["source_uri"], row["file_key"]) for row in rows})

    def _wrong_rejects(self, table: Table) -> Iterator[str]:
        listed = Counter(
            (row["source_uri"], row["position"], row["reason"])
            for row in ledger.reject_rows(table).to_pylist()
        )
        expected = Counter(
            (str(self.folder / name), position, reason)
            for name, content in self.files.items()
            for position, reason in content.rejects
        )
        yield from (f"reject {key} is missing" for key in expected - listed)
        yield from (f"reject {key} is one too many" for key in listed - expected)


def readable(recipe: Recipe) -> list[str]:
    """What no reader may ever see: a chunk twice, two versions of a file."""
    rows = table_of(recipe).to_arrow(["chunk_id", "source_uri", "file_key"]).to_pylist()
    versions = {(row["source_uri"], row["file_key"]) for row in rows}
    n_rows, n_chunks = len(rows), len({row["chunk_id"] for row in rows})
    twice = [f"{n_rows} rows of {n_chunks} chunks"] if n_rows != n_chunks else []
    return [*twice, *_twice("version", versions)]


def _twice(what: str, pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for uri, count in Counter(uri for uri, _ in pairs).items():
        if count > 1:
            yield f"{count} {what}s of {uri}"


def _wrong_chunks(rows: list[Row], text: str) -> Iterator[str]:
    """How chunks differ from their document: each is a slice, together they are all of it."""
    rows.sort(key=lambda row: row["chunk_index"])
    numbers = [row["chunk_index"] for row in rows]
    if numbers != list(range(len(rows))):
        yield f"its chunks are numbered {numbers}"
    spans = [(row["char_start"], row["char_end"]) for row in rows]
    if any(text[start:end] != row["text"] for (start, end), row in zip(spans, rows, strict=True)):
        yield "a chunk is not a slice of the newest text"
    covered = {offset for start, end in spans for offset in range(start, end)}
    if any(offset not in covered and not text[offset].isspace() for offset in range(len(text))):
        yield "not all of its text is in chunks"


def _wrong_vectors(table: Table, rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    encoder = HashingEncoder(table.space()[1])
    expected = np.asarray(encoder.encode_documents([row["text"] for row in rows]))
    stored = np.array([row["vector"] for row in rows], np.float64)
    is_wrong = ~(np.abs(stored - expected).max(axis=1) < TOLERANCE)
    for number in np.flatnonzero(is_wrong).tolist():
        yield f"the vector of {rows[number]['doc_id']} is not its text's"


def _wrong_ledger(table: Table, rows: Iterable[Row]) -> Iterator[str]:
    """File versions with rows whose line is missing, doubled, or does not add up to the rows."""
    lines_table = ledger.ledger_table(table).open_if_made()
    keys: list[str] = ledger.ledger_rows(lines_table, ["file_key"])["file_key"].to_pylist()
    lines = Counter(keys)
    yield from (f"{n} lines of {key[:SHOWN_DIGITS]}" for key, n in lines.items() if n > 1)
    entries = ledger.entries(lines_table)
    for key, n_rows in Counter(row["file_key"] for row in rows).items():
        counts = entries[key].counts if key in entries else None
        if counts is None:
            yield f"no line of {key[:SHOWN_DIGITS]} in the ledger"
        elif not counts.balances or counts.rows != n_rows:
            yield f"{n_rows} rows of {key[:SHOWN_DIGITS]}, in the ledger {counts}"


def _lost_to_indexes(table: Table, rows: Iterable[Row]) -> Iterator[str]:
    for key, n_rows in Counter(row["file_key"] for row in rows).items():
        n_by_index = table.dataset().count_rows(is_in("file_key", [key]))
        if n_by_index != n_rows:
            yield f"the index finds {n_by_index} of {n_rows} rows of {key[:SHOWN_DIGITS]}"
