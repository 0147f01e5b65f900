"""Survey files: read their documents, and keep of each what a choice needs to know.

No model, no chunks, no rows. What a survey gives is staged beside the lake, so that a run that is
cut off reads no file twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from embedding_core.errors import RejectedInput
from embedding_core.identity import digest
from embedding_core.lake import staging
from embedding_core.lake.table import Table
from embedding_core.reasons import FAILED, RETRIED
from embedding_core.records import Document, Slice, SourceFile, SurveyUnit
from embedding_core.runs.choosing.candidates import (
    CANDIDATE,
    CandidateList,
    Candidates,
    pruned,
    with_ordinals,
)
from embedding_core.runs.choosing.rules import Choosing, Identities, path_below
from embedding_core.runs.job import Job
from embedding_core.runs.prepared import prepared
from embedding_core.sources import check_unchanged, read_documents, slices

STAGED = "survey.arrow"
MOST_FILES = 4_096
"""Files of a unit, however small they are."""

SURVEY_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("rejects", pa.int64(), nullable=False),
        pa.field("is_whole", pa.bool_(), nullable=False),
        pa.field("problem", pa.string(), nullable=False),
        pa.field("candidates", pa.large_binary(), nullable=False),
    ]
)
"""A row per file; ``candidates`` are an array of ``CANDIDATE``, as its bytes."""


@dataclass(frozen=True, slots=True, eq=False)
class FileSurvey:
    """What the choice needs to know of a file version."""

    path: str
    """Below the source."""
    fingerprint: str
    documents: int
    """Usable documents that were read."""
    rejects: int
    """Records that were read and cannot be used."""
    is_whole: bool
    """Whether it was read to its end."""
    problem: str
    """Reason for which the whole file cannot be used; empty for a good one."""
    candidates: Candidates
    """Documents that may be taken."""

    @property
    def is_to_repeat(self) -> bool:
        """Whether the file may well be readable the next time."""
        return self.problem in RETRIED

    @classmethod
    def failed(cls, path: str, file: SourceFile, reason: str) -> FileSurvey:
        """The survey of a file that cannot be used as a whole."""
        return cls(path, file.fingerprint, 0, 0, True, reason, np.zeros(0, CANDIDATE))


def survey_units(
    files: Sequence[SourceFile],
    job: Job,
    choosing: Choosing,
    survey_id: str,
    members: dict[str, bytes],
) -> Iterator[SurveyUnit]:
    """The files in their order, in units of about ``unit_bytes``; huge ones in slices.

    A file with an id field is not sliced: which of two records with one id is the first, only who
    reads all of it can tell. Nor is one of which only the first documents are read.
    """
    source, unit_bytes = job.recipe.source, job.resources.unit_bytes
    is_sliced = source.id is None and choosing.most_of_a_file is None

    def unit_of(pack: Sequence[SourceFile], piece: Slice | None = None) -> SurveyUnit:
        of_pack = tuple(members.get(path_below(source.uri, file.uri), b"") for file in pack)
        versions = [
            [file.uri, file.fingerprint, ids.hex()] for file, ids in zip(pack, of_pack, strict=True)
        ]
        span = [piece.span.start, piece.span.end] if piece is not None else None
        unit_id = digest(["survey", survey_id, versions, span])
        return SurveyUnit(unit_id, tuple(pack), of_pack, piece)

    pack: list[SourceFile] = []
    for file in files:
        packed_bytes = sum(packed.size_bytes for packed in pack)
        if pack and (packed_bytes + file.size_bytes > unit_bytes or len(pack) == MOST_FILES):
            yield unit_of(pack)
            pack = []
        spans = slices(file, source, unit_bytes) if is_sliced else ()
        if spans:
            yield from (unit_of([file], span) for span in spans)
        else:
            pack.append(file)
    if pack:
        yield unit_of(pack)


def halves(unit: SurveyUnit) -> list[SurveyUnit]:
    """The unit's files in two units, to find the file that it fails for; a single file stays."""
    if len(unit.files) == 1:
        return [unit]
    middle = len(unit.files) // 2
    return [
        replace(
            unit,
            unit_id=digest([unit.unit_id, number]),
            files=unit.files[portion],
            members=unit.members[portion],
        )
        for number, portion in enumerate((slice(None, middle), slice(middle, None)))
    ]


def staged_survey(job: Job, unit: SurveyUnit) -> str:
    """URI of what the unit's survey stages."""
    return staging.staged_path(job.table, unit.unit_id, STAGED)


def survey_unit(job: Job, unit: SurveyUnit) -> str:
    """Survey the unit's files into one staged Arrow file; its URI.

    Memory is bounded by the candidates of a file: those of a sample, or all documents (41 bytes
    each) where duplicates are left out. A bad file is surveyed as such and the others go on. Raises
    ``Transient`` when a store fails, ``SetupError`` for more groups or candidates than can be.
    """
    choosing = Choosing.asked_by(job.recipe.source)
    if job.recipe.source.map is not None:
        prepared(job).check_map()
    path = staged_survey(job, unit)
    surveys = (
        survey_file(job, choosing, file, members, unit.slice)
        for file, members in zip(unit.files, unit.members, strict=True)
    )
    staging.write_staged(job.table, path, SURVEY_SCHEMA, map(to_batch, surveys))
    return path


def survey_file(
    job: Job, choosing: Choosing, file: SourceFile, members: bytes, piece: Slice | None
) -> FileSurvey:
    """Survey a file, or a slice of it, of which the caller checks that it did not change."""
    source = job.recipe.source
    path = path_below(source.uri, file.uri)
    candidates = CandidateList(choosing, Identities(choosing.key, path), members)
    most = choosing.most_of_a_file
    documents = rejects = 0
    is_whole = True
    try:
        with closing(read_documents(file, source, piece)) as records:
            for ordinal, record in with_ordinals(records):
                if not isinstance(record, Document):
                    rejects += 1
                    continue
                documents += 1
                candidates.add(ordinal, record)
                if most is not None and documents >= most and candidates.has_all_members:
                    is_whole = False
                    break
        if not is_whole:
            check_unchanged(file, source.storage)
    except RejectedInput as error:
        return FileSurvey.failed(path, file, error.reason)
    return FileSurvey(path, file.fingerprint, documents, rejects, is_whole, "", candidates.all())


def to_batch(survey: FileSurvey) -> pa.RecordBatch:
    """A survey as a row of ``SURVEY_SCHEMA``."""
    values = [[getattr(survey, field.name)] for field in SURVEY_SCHEMA][:-1]
    arrays = [
        pa.array(value, field.type) for value, field in zip(values, SURVEY_SCHEMA, strict=False)
    ]
    content = pa.py_buffer(survey.candidates.tobytes())
    offsets = pa.py_buffer(np.array([0, content.size], "<i8").tobytes())
    blob = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, content])
    return pa.RecordBatch.from_arrays([*arrays, blob], schema=SURVEY_SCHEMA)


def from_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[FileSurvey]:
    """The surveys of rows with the columns of ``SURVEY_SCHEMA``."""
    names = SURVEY_SCHEMA.names[:-1]
    for batch in batches:
        rows = batch.select(names).to_pylist()
        for row, blob in zip(rows, batch.column("candidates"), strict=True):
            yield FileSurvey(**row, candidates=np.frombuffer(blob.as_buffer(), CANDIDATE))


def read_survey(table: Table, path: str) -> list[FileSurvey]:
    """The surveys of a staged file."""
    return list(from_batches(staging.read_staged(table, path)))


def joined_survey(
    portions: Sequence[FileSurvey], choosing: Choosing, members: bytes, file: SourceFile, job: Job
) -> FileSurvey:
    """The survey of a file from those of its slices; a failed one when the file has changed."""
    problem = next((portion.problem for portion in portions if portion.problem), "")
    try:
        check_unchanged(file, job.recipe.source.storage)
    except RejectedInput as error:
        problem = error.reason
    if problem:
        return FileSurvey.failed(portions[0].path, file, problem)
    rows = np.concatenate([portion.candidates for portion in portions])
    return replace(
        portions[0],
        documents=sum(portion.documents for portion in portions),
        rejects=sum(portion.rejects for portion in portions),
        candidates=pruned(rows, choosing, np.frombuffer(members, "<u8")),
    )


def failed_survey(job: Job, unit: SurveyUnit) -> FileSurvey:
    """The survey of a single file for which every attempt failed."""
    (file,) = unit.files
    return FileSurvey.failed(path_below(job.recipe.source.uri, file.uri), file, FAILED.name)
