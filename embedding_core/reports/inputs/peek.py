"""The report of a peek: what the first records of a file become."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.plurals import counted
from embedding_core.records import Reject
from embedding_core.reports.report import Report
from embedding_core.runs.inputs.peeking import Peek, PeekedChunk, PeekedRecord

TEXT_CHARACTERS = 600
"""Characters of a record's text that the lines show; ``data`` has all."""
FLAT_CHARACTERS = 160
"""Characters of a chunk, or of any other value, in the lines."""


@dataclass(frozen=True)
class PeekView(Report):
    """A file's first records in words, each with its text and its chunks."""

    record: ClassVar[type] = Peek
    peek: Peek

    def summary(self) -> str:
        n_chunks = sum(len(record.chunks) for record in self.peek.records)
        return (
            f"{self.peek.source_uri}: {counted(len(self.peek.records), 'record')}, "
            f"{counted(n_chunks, 'chunk')} shown"
        )

    def lines(self) -> list[str]:
        peek = self.peek
        options = "".join(f", {name} {value}" for name, value in peek.chunk_options.items())
        lines = [
            f"file {peek.source_uri} · {counted(peek.size_bytes, 'byte')}",
            f"cut by {peek.strategy}{options}, counted by {peek.tokenizer}, which takes "
            f"{counted(peek.max_tokens, 'token')}",
        ]
        for record in peek.records:
            lines += _record_lines(record)
        if peek.problem is not None:
            lines.append(f"the file is rejected as a whole: {peek.problem}")
        elif peek.has_more:
            lines.append("… more records in the file (--records N shows N)")
        elif not peek.records:
            lines.append("no records in the file")
        return lines

    def data(self) -> dict[str, Any]:
        data = asdict(self.peek)
        for record in data["records"]:
            record["metadata"] = {name: _plain(value) for name, value in record["metadata"].items()}
            for chunk in record["chunks"]:
                chunk["columns"] = {name: _plain(value) for name, value in chunk["columns"].items()}
        return data


def _plain(value: object) -> object:
    """The value as JSON can have it."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _record_lines(record: PeekedRecord) -> Iterator[str]:
    where = "record" if record.position is None else f"record {record.position:,}"
    named = f"{where} · id {record.doc_id!r}" if record.doc_id is not None else where
    if record.text is None:
        yield f"{named} · rejected"
    else:
        yield (
            f"{named} · {counted(len(record.text), 'character')} · "
            f"{counted(len(record.chunks), 'chunk')}"
        )
        yield from (f"  {name}: {_flat(value)}" for name, value in record.metadata.items())
        yield from (f"  | {line}" for line in _excerpt(record.text, TEXT_CHARACTERS))
    for chunk in record.chunks:
        yield from _chunk_lines(chunk)
    yield from map(_reject_line, record.rejects)


def _chunk_lines(chunk: PeekedChunk) -> Iterator[str]:
    yield (
        f"  chunk {chunk.chunk_index:,} · characters {chunk.char_start:,} to {chunk.char_end:,} · "
        f"{counted(chunk.n_tokens, 'token')}"
    )
    yield from (f"    {name}: {_flat(value)}" for name, value in chunk.columns.items())
    yield f"    {_flat(chunk.text)}"


def _reject_line(reject: Reject) -> str:
    return f"  reject: {reject.reason}: {_flat(reject.detail)}"


def _flat(value: object) -> str:
    """The beginning of a value in one line."""
    text = " ".join(str(value).split())
    return text if len(text) <= FLAT_CHARACTERS else f"{text[:FLAT_CHARACTERS]}…"


def _excerpt(text: str, most: int) -> list[str]:
    """The text's first lines, blank ones left out, and how much of it is not shown."""
    lines = [line for line in text[:most].splitlines() if line.strip()]
    if len(text) > most:
        lines.append(f"… and {counted(len(text) - most, 'character')} more")
    return lines


REPORT = PeekView
