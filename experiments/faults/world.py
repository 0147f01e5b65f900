"""A model of the source files, and the oracle: everything in which a table differs from it."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake import ledger
from embedding_core.lake.filters import is_in
from embedding_core.lake.rows.embedded import embedded_texts
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe

COLUMNS = [
    "chunk_id", "file_key", "source_uri", "doc_id", "chunk_index", "text", "context", "char_start",
    "char_end", "vector",
]  # fmt: skip
WORDS_PER_TEXT = (3, 8, 15, 40, 70)
VOCABULARY = 400
MOST_DOCUMENTS = 6
BROKEN_SHARE, EMPTY_SHARE = 0.25, 0.3
"""How often a broken line precedes a document, and an empty text ends a file."""
TOLERANCE = 1e-5
TEXTS = pa.schema([("context", pa.string()), ("text", pa.string())])

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Content:
    """What a file says."""

    texts: Mapping[str, str]
    """By document id."""
    rejects: Sequence[tuple[int | None, str]] = ()
    """Position and reason of each line that gives no row."""
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What further columns say of each document, by its id and by their names."""


class World:
    """The files of a source folder, and what should be in the table for them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.files: dict[str, Content] = {}
        self._chance = random.Random(seed)
        self._n_writes = 0
        folder.mkdir(parents=True)

    def reseed(self, seed: int) -> None:
        """Let contents from now on be others than those of another seed."""
        self._chance = random.Random(seed)

    def write(self, name: str, n_documents: int = 0, n_words: int = 0) -> None:
        """Write a file with other texts than before, and some lines that give no row.

        ``n_documents``, ``n_words`` of a text: drawn when 0.
        """
        chance = self._chance
        self._n_writes += 1
        lines: list[str] = []
        rejects: list[tuple[int, str]] = []
        texts: dict[str, str] = {}
        for number in range(n_documents or chance.randrange(1, MOST_DOCUMENTS + 1)):
            if chance.random() < BROKEN_SHARE:
                rejects.append((len(lines), "malformed_json"))
                lines.append("{broken")
            length = n_words or chance.choice(WORDS_PER_TEXT)
            words = " ".join(f"w{chance.randrange(VOCABULARY)}" for _ in range(length))
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
        contents = {str(self.folder / name): content for name, content in self.files.items()}
        return differences(recipe, contents)


def differences(recipe: Recipe, contents: Mapping[str, Content]) -> list[str]:
    """Everything in which the table, its ledger and its rejects differ from contents by URI."""
    table = table_of(recipe)
    snapshot = table.open()
    rows = _rows(snapshot, contents.values())
    return [
        *_wrong_documents(rows, contents),
        *wrong_vectors(HashingEncoder(snapshot.space()[1]), rows),
        *_wrong_ledger(table, rows),
        *_wrong_rejects(table, contents),
        *lost_to_indexes(snapshot, rows),
    ]


def torn_files(snapshot: Snapshot, versions: Mapping[str, Sequence[Content]]) -> list[str]:
    """What a reader sees that is no whole version of a file, and vectors that are not their texts'.

    ``versions``: by URI. A file that the table may lack has an empty content among them.
    """
    rows = _rows(snapshot, [content for contents in versions.values() for content in contents])
    rows_by_uri: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        rows_by_uri[row["source_uri"]].append(row)
    torn = [
        f"{uri} is none of {len(contents)} versions, and has {len(rows_by_uri[uri])} rows"
        for uri, contents in versions.items()
        if all(any(_wrong_documents(rows_by_uri[uri], {uri: content})) for content in contents)
    ]
    unknown = [f"{uri} was never written" for uri in rows_by_uri.keys() - versions.keys()]
    return [*torn, *unknown, *wrong_vectors(HashingEncoder(snapshot.space()[1]), rows)]


def _rows(snapshot: Snapshot, contents: Iterable[Content]) -> list[dict[str, Any]]:
    """All rows, with those of the further columns of contents that there are."""
    names = {name for content in contents for values in content.columns.values() for name in values}
    further = names.intersection(snapshot.schema.names).difference(COLUMNS)
    columns = [*COLUMNS, *sorted(further)]
    rows: list[dict[str, Any]] = snapshot.dataset.to_table(columns=columns).to_pylist()
    return rows


def _wrong_documents(rows: Iterable[Row], contents: Mapping[str, Content]) -> Iterator[str]:
    rows_by_document: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        rows_by_document[row["source_uri"], row["doc_id"]].append(row)
    texts = {
        (uri, doc_id): text
        for uri, content in contents.items()
        for doc_id, text in content.texts.items()
    }
    yield from (f"{key} is missing" for key in texts.keys() - rows_by_document.keys())
    yield from (f"{key} is not in the files" for key in rows_by_document.keys() - texts.keys())
    for key in texts.keys() & rows_by_document.keys():
        uri, doc_id = key
        columns = contents[uri].columns.get(doc_id, {})
        wrong = _wrong_chunks(rows_by_document[key], texts[key])
        yield from (f"{key}: {what}" for what in wrong)
        yield from (f"{key}: {what}" for what in _wrong_columns(rows_by_document[key], columns))
    yield from _twice("version", {(row["source_uri"], row["file_key"]) for row in rows})


def _wrong_columns(rows: Iterable[Row], columns: Mapping[str, Any]) -> Iterator[str]:
    for row in rows:
        for name, value in columns.items():
            if row.get(name) != value:
                yield f"its {name} is {row.get(name)!r}, not {value!r}"


def _wrong_rejects(table: Table, contents: Mapping[str, Content]) -> Iterator[str]:
    listed = Counter(
        (row["source_uri"], row["position"], row["reason"])
        for row in ledger.reject_rows(table).to_pylist()
    )
    expected = Counter(
        (uri, position, reason)
        for uri, content in contents.items()
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


def wrong_vectors(encoder: HashingEncoder, rows: Sequence[Row]) -> Iterator[str]:
    """Rows whose ``vector`` is missing, or is not what the encoder makes of their ``text`` behind
    their ``context``."""
    if not rows:
        return
    dim = encoder.space.dim
    stored = np.array([row["vector"] or [np.nan] * dim for row in rows], np.float64)
    columns = {name: [row.get(name) for row in rows] for name in ("context", "text")}
    texts = embedded_texts(pa.table(columns, TEXTS)).to_pylist()
    expected = np.asarray(encoder.encode_documents(texts))
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


def lost_to_indexes(snapshot: Snapshot, rows: Iterable[Row]) -> Iterator[str]:
    """File versions of which an index finds more or fewer rows than a scan."""
    for key, n_rows in Counter(row["file_key"] for row in rows).items():
        n_by_index = snapshot.dataset.count_rows(is_in("file_key", [key]))
        if n_by_index != n_rows:
            yield f"the index finds {n_by_index} of {n_rows} rows of {key[:SHOWN_DIGITS]}"
