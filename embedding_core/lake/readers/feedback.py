"""What people say of answers: ``<table>__feedback``, to which rows are added and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Literal, get_args

import pyarrow as pa

from embedding_core.errors import UsageError
from embedding_core.lake.lock import made_by_one
from embedding_core.lake.rows.commit import replace_rows, write_fragments
from embedding_core.lake.table import Table
from embedding_core.plurals import counted

Signal = Literal["relevant", "irrelevant", "click"]
"""A thumb up, a thumb down, a document that was opened."""
SIGNALS: tuple[Signal, ...] = get_args(Signal)
MOST_QUERY_CHARACTERS = 2_000
MOST_ID_CHARACTERS = 1_024
"""Characters of a document's id, a chunk's id or a file's URI."""
MOST_SESSION_CHARACTERS = 64

FEEDBACK_SCHEMA = pa.schema(
    [
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("signal", pa.string(), nullable=False),
        pa.field("source_uri", pa.string()),
        pa.field("chunk_id", pa.string()),
        pa.field("rank", pa.int32()),
        pa.field("space_id", pa.string()),
        pa.field("session", pa.string()),
    ]
)
"""The fields of a ``Feedback``."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody said of a document as the answer to a query. Raises ``UsageError``."""

    at: datetime
    query: str
    doc_id: str
    signal: Signal
    source_uri: str | None = None
    """The document's file."""
    chunk_id: str | None = None
    """The passage that was shown."""
    rank: int | None = None
    """Its place among the hits, from 1."""
    space_id: str | None = None
    """The space that answered."""
    session: str | None = None
    """A key that whoever asks chose, or nothing; it tells repeated clicks apart from many."""

    def __post_init__(self) -> None:
        if self.signal not in SIGNALS:
            raise UsageError(f"the signal is {self.signal[:40]!r}; use {', '.join(SIGNALS)}")
        if not self.query.strip() or not self.doc_id:
            raise UsageError("feedback needs a query with words and the id of a document")
        if self.rank is not None and not 1 <= self.rank < 2**31:
            raise UsageError(f"the rank is {self.rank}; the first hit has rank 1")
        for name, most in _LIMITS.items():
            _check_text(name, getattr(self, name), most)


_LIMITS = {
    "query": MOST_QUERY_CHARACTERS,
    "doc_id": MOST_ID_CHARACTERS,
    "source_uri": MOST_ID_CHARACTERS,
    "chunk_id": MOST_ID_CHARACTERS,
    "space_id": MOST_ID_CHARACTERS,
    "session": MOST_SESSION_CHARACTERS,
}


def feedback_table(table: Table) -> Table:
    """The feedback beside a table."""
    return Table(table.lake, f"{table.name}__feedback", (FEEDBACK_SCHEMA,))


def append_feedback(table: Table, feedback: Sequence[Feedback]) -> None:
    """Add rows to the feedback of a table in one commit; the first makes the table."""
    listed = feedback_table(table)
    snapshot = made_by_one(listed, FEEDBACK_SCHEMA)
    rows = pa.Table.from_pylist(list(map(asdict, feedback)), schema=FEEDBACK_SCHEMA)
    fragments = write_fragments(listed, iter(rows.to_batches()), FEEDBACK_SCHEMA)
    replace_rows(snapshot, "doc_id", (), fragments)


def read_feedback(table: Table) -> Iterator[Feedback]:
    """All feedback, in the order it came; none where there is no such table."""
    snapshot = feedback_table(table).open_if_made()
    if snapshot is None:
        return
    names = [field.name for field in fields(Feedback)]
    with snapshot.table.faults("reading"):
        for batch in snapshot.dataset.to_batches(columns=names):
            for row in batch.to_pylist():
                yield Feedback(**row)


def _check_text(name: str, text: str | None, most: int) -> None:
    if text is None:
        return
    if len(text) > most:
        raise UsageError(f"{name} has {counted(len(text), 'character')}; give at most {most:,}")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"{name} has a NUL character or a lone surrogate; leave it out")
