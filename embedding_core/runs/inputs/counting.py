"""Count what a source holds: read, cut and counted as by a run, nothing embedded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from embedding_core.chunking import LengthResult
from embedding_core.errors import RejectedInput
from embedding_core.identity import text_hash
from embedding_core.recipe import SourceSpec
from embedding_core.records import Chunk, Document, PlannedFile, Reject, Slice, SourceFile
from embedding_core.runs.embed.chunk_stage import ChunkedFiles, FileTally, cut_document
from embedding_core.runs.inputs.languages import language_of
from embedding_core.runs.inputs.opening import KeptRejects, as_planned, files_work
from embedding_core.runs.inputs.tallies import Grouping, Groups, Tally, digest_number
from embedding_core.runs.job import Job
from embedding_core.sources import read_documents, slices

MOST_PORTIONS = 4_096
"""Files of a task, however small they are."""
BYTES_PER_RECORD = 4_096
"""Size of a record of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Portion:
    """What is read of a file."""

    file: SourceFile
    piece: Slice | None = None
    """Only this slice of it."""
    n_records: int | None = None
    """Only so many of its first records."""

    @property
    def n_bytes(self) -> int:
        """Stored bytes that are read, about."""
        if self.n_records is None:
            return self.file.size_bytes
        return min(self.file.size_bytes, self.n_records * BYTES_PER_RECORD)


@dataclass(frozen=True, slots=True)
class Counting:
    """What is counted, for every task alike. Small, pickles."""

    job: Job
    grouping: Grouping
    with_languages: bool = False


def sampled(
    files: Sequence[SourceFile], n_files: int | None, n_records: int | None
) -> list[Portion]:
    """Files spread evenly over the source, and as many of their first records as come to
    ``n_records`` together; the same ones every time. None: all."""
    most = min(n for n in (len(files), n_files, n_records) if n is not None)
    chosen = [files[number * len(files) // most] for number in range(most)]
    if n_records is None:
        return [Portion(file) for file in chosen]
    each, more = divmod(n_records, max(1, most))
    return [Portion(file, n_records=each + (number < more)) for number, file in enumerate(chosen)]


def units(
    portions: Sequence[Portion], unit_bytes: int, source: SourceSpec
) -> Iterator[tuple[Portion, ...]]:
    """The portions in order: small files packed, huge ones sliced, to about ``unit_bytes``."""
    pack: list[Portion] = []
    n_bytes = 0
    for portion in portions:
        pieces = slices(portion.file, source, unit_bytes) if portion.n_records is None else ()
        if pieces:
            yield from ((Portion(portion.file, piece),) for piece in pieces)
            continue
        if pack and (n_bytes + portion.file.size_bytes > unit_bytes or len(pack) == MOST_PORTIONS):
            yield tuple(pack)
            pack, n_bytes = [], 0
        pack.append(portion)
        n_bytes += portion.file.size_bytes
    if pack:
        yield tuple(pack)


def count_unit(counting: Counting, unit: Sequence[Portion]) -> Groups:
    """The tallies of a unit's files. Raises ``Transient`` when a store fails."""
    rejects = KeptRejects()
    work = files_work(counting.job, rejects)
    groups = Groups()
    for portion in unit:
        groups.merge(_file_groups(counting, work, rejects, portion))
    return groups


def _file_groups(
    counting: Counting, work: ChunkedFiles, rejects: KeptRejects, portion: Portion
) -> Groups:
    """The tallies of a file; nothing but a reject counts of a file that is bad as a whole."""
    uri, grouping = portion.file.uri, counting.grouping
    groups, planned = Groups(), as_planned(counting.job, portion.file)
    gave = FileTally()
    records = read_documents(portion.file, counting.job.recipe.source, portion.piece)
    try:
        for record in islice(records, portion.n_records):
            if isinstance(record, Reject):
                groups.of(grouping.name(uri)).reasons[record.reason] += 1
                continue
            value = record.metadata.get(grouping.column) if grouping.column is not None else None
            tally = groups.of(grouping.name(uri, value))
            _count_document(tally, work, planned, record, gave)
            if rejects.rejects:
                tally.reasons.update(reject.reason for reject in rejects.taken())
            if counting.with_languages:
                tally.languages[language_of(record.text)] += 1
    except RejectedInput as error:
        rejects.taken()
        groups = Groups()
        groups.of(grouping.name(uri)).reasons[error.reason] += 1
    return groups


def _count_document(
    tally: Tally, work: ChunkedFiles, planned: PlannedFile, document: Document, gave: FileTally
) -> None:
    cut = cut_document(work, planned, document, gave)
    digest = text_hash(document.text)
    only = _only_chunk(document, cut)
    n_tokens = only.n_tokens if only else work.cutting.tokenizer.count([document.text])[0]
    tally.documents += 1
    tally.document_lengths.add(n_tokens)
    tally.document_digests.append(digest_number(digest))
    for chunk in cut.kept:
        tally.chunk_lengths.add(chunk.n_tokens)
        hashed = digest if chunk is only else text_hash(chunk.embedded)
        tally.chunk_digests.append(digest_number(hashed))


def _only_chunk(document: Document, cut: LengthResult) -> Chunk | None:
    """The chunk that is all of a document, whatever the length policy made of it."""
    chunks = [*cut.kept, *(chunk for chunk, _ in cut.dropped)]
    if len(chunks) == 1 and chunks[0].embedded == document.text:
        return chunks[0]
    return None
