"""Read the chosen documents of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from embedding_core.reasons import DUPLICATE_TEXT
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, PlannedFile, Reject, Slice
from embedding_core.runs.choosing.candidates import PackedOrdinals, with_ordinals
from embedding_core.runs.choosing.state import UNSURVEYED
from embedding_core.sources import check_unchanged, read_documents


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Documents that are left out by choice."""

    documents: int = 1


def ignore(_document: Document) -> None:
    """Note nothing."""


def read_chosen(
    planned: PlannedFile,
    source: SourceSpec,
    piece: Slice | None = None,
    note: Callable[[Document], None] = ignore,
) -> Iterator[Document | Reject | LeftOut]:
    """``read_documents`` of a file, with what its choice leaves out: duplicates as rejects.

    ``note`` is called for each usable document, taken or not. A file of which nothing is taken and
    nothing is listed is not read.
    """
    choice = planned.choice
    if choice == UNSURVEYED:
        raise RuntimeError(f"{planned.file.uri} is cut before its documents were chosen")
    if choice is None or not choice.digest:
        for record in read_documents(planned.file, source, piece):
            if isinstance(record, Document):
                note(record)
            yield record
        return
    if not choice.is_read:
        yield LeftOut(choice.left_out)
        return
    takes_all = choice.chosen_ordinals is None
    members, duplicates = (
        PackedOrdinals(choice.chosen_ordinals or b""),
        PackedOrdinals(choice.duplicate_ordinals),
    )
    with closing(read_documents(planned.file, source, piece)) as records:
        for ordinal, record in with_ordinals(records):
            if choice.end is not None and ordinal >= choice.end:
                check_unchanged(planned.file, source.storage)
                return
            if isinstance(record, Reject):
                yield record
                continue
            note(record)
            if ordinal in duplicates:
                yield Reject(
                    planned.file.uri, record.doc_id, record.position, DUPLICATE_TEXT.name, TWIN_KEPT
                )
            elif takes_all or ordinal in members:
                yield record
            else:
                yield LEFT_OUT


LEFT_OUT = LeftOut()
TWIN_KEPT = "another document of the source has the same text and is kept"
