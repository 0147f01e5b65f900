"""A document as the table holds it: its chunks in order, each with its place in the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedding_core.lake.filters import quote
from embedding_core.lake.query.search import metadata_columns
from embedding_core.lake.snapshot import Snapshot
from embedding_core.records import Scalar

MOST_PASSAGES = 200
"""Passages that are read at once."""
_COLUMNS = ("chunk_id", "chunk_index", "text", "char_start", "char_end", "context")


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a document."""

    chunk_id: str
    chunk_index: int
    text: str
    char_start: int
    """Offset of the first character in the document's text, in characters, 0-based. Neighbours may
    overlap."""
    char_end: int
    context: str | None
    """What is embedded before the text: the document's title, the headings above it."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """Some passages of a document, in their order."""

    doc_id: str
    source_uri: str
    metadata: Mapping[str, Scalar]
    """The metadata columns of the first passage that is read."""
    passages: tuple[Passage, ...]
    first: int
    """``chunk_index`` from which was read."""
    n_passages: int
    """Passages of the whole document."""

    @property
    def text(self) -> str:
        """The passages as a text: what two of them share stands once, a gap is a line break."""
        pieces: list[str] = []
        end = self.passages[0].char_start if self.passages else 0
        for passage in self.passages:
            if passage.char_start > end:
                pieces.append("\n")
            pieces.append(passage.text[max(0, end - passage.char_start) :])
            end = max(end, passage.char_end)
        return "".join(pieces)


def stored_document(
    snapshot: Snapshot,
    doc_id: str,
    source_uri: str | None = None,
    first: int = 0,
    limit: int = MOST_PASSAGES,
) -> StoredDocument | None:
    """The passages of a document from the ``chunk_index`` ``first`` on, ``limit`` at most.

    None when the table has no such document. ``source_uri`` tells documents of one id in several
    files apart, and is what the index of the table knows; without it every row's id is looked at,
    and the file that is first by its name counts.
    """
    condition = f"doc_id = {quote(doc_id)}"
    if source_uri is not None:
        condition = f"source_uri = {quote(source_uri)} AND {condition}"
    numbers = _numbers_by_file(snapshot, condition)
    if not numbers:
        return None
    uri = min(numbers)
    indexes = [index for index in sorted(numbers[uri]) if index >= first][:limit]
    metadata = metadata_columns(snapshot.schema)
    condition = f"source_uri = {quote(uri)} AND doc_id = {quote(doc_id)}"
    shown = indexes or [min(numbers[uri])]  # past the end the metadata is shown all the same
    condition += f" AND chunk_index >= {shown[0]} AND chunk_index <= {shown[-1]}"
    with snapshot.table.faults("reading"):
        read = snapshot.dataset.to_table(columns=[*_COLUMNS, *metadata], filter=condition)
    rows = sorted(read.to_pylist(), key=lambda row: int(row["chunk_index"]))
    return StoredDocument(
        doc_id=doc_id,
        source_uri=uri,
        metadata={name: rows[0][name] for name in metadata},
        passages=tuple(map(_passage, rows)) if indexes else (),
        first=first,
        n_passages=len(numbers[uri]),
    )


def _numbers_by_file(snapshot: Snapshot, condition: str) -> dict[str, list[int]]:
    """``chunk_index`` of all rows that fit, by the files they are in."""
    columns = ["source_uri", "chunk_index"]
    with snapshot.table.faults("reading"):
        rows = snapshot.dataset.to_table(columns=columns, filter=condition).to_pylist()
    numbers: dict[str, list[int]] = {}
    for row in rows:
        numbers.setdefault(row["source_uri"], []).append(row["chunk_index"])
    return numbers


def _passage(row: Mapping[str, Any]) -> Passage:
    return Passage(**{name: row[name] for name in _COLUMNS})
