"""Read and cut files as a run of the recipe would; nothing is written and nothing embedded."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from embedding_core.encoder.engines import describe_model
from embedding_core.errors import RejectedInput, UsageError
from embedding_core.identity import file_key, rows_id, space_id
from embedding_core.lake.scans import scan_values
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe, Resources, SourceSpec
from embedding_core.records import PlannedFile, Reject, SourceFile
from embedding_core.runs.cutting import cutting_of, rules_of
from embedding_core.runs.embed.chunk_stage import ChunkedFiles, RejectSink, ServingModel
from embedding_core.runs.job import Job
from embedding_core.runs.prepared import prepared
from embedding_core.runs.serving import following
from embedding_core.sources import read_documents
from embedding_core.sources.finding import file_named, listed_files
from embedding_core.store.local import LOCAL
from embedding_core.store.places import place_of


def reading_job(recipe: Recipe) -> Job:
    """The job of a run that would begin now. Raises ``SetupError`` when the model or the table
    cannot be used."""
    recipe = following(recipe)
    info = describe_model(recipe.model)
    snapshot = table_of(recipe).open_if_made()
    rules = rules_of(recipe, cutting_of(recipe, info, snapshot))
    version = None if snapshot is None else snapshot.version
    run_id = uuid.uuid4().hex
    return Job(recipe, Resources(), space_id(info.space), rows_id(rules), run_id, version)


def files_work(job: Job, rejects: RejectSink) -> ChunkedFiles:
    """What a chunk task of the job works with; rejects go to ``rejects``."""
    ready = prepared(job)
    model = ServingModel.of(ready)
    return ChunkedFiles(job.recipe, ready.cutting, ready.chunker, model, rejects)


def as_planned(job: Job, file: SourceFile) -> PlannedFile:
    """The file as a run would work on it that finds no row of it."""
    return PlannedFile(file, file_key(file, job.rows_id), "added", "")


@dataclass(slots=True)
class KeptRejects:
    """Rejects in memory."""

    rejects: list[Reject] = field(default_factory=list)

    def add(self, reject: Reject) -> None:
        """Keep one reject."""
        self.rejects.append(reject)

    def taken(self) -> tuple[Reject, ...]:
        """The rejects that came since the last call."""
        rejects, self.rejects = tuple(self.rejects), []
        return rejects


def file_of_document(job: Job, doc_id: str) -> SourceFile:
    """The file that holds a document: the one that the table names, else the first local one.

    Raises ``UsageError`` without such a file. A remote source is not searched.
    """
    spec = job.recipe.source
    for uri in _files_in_table(job, doc_id):
        if (file := file_named(spec, uri)) is not None:
            return file
    if place_of(spec.uri) is not LOCAL:
        raise UsageError(
            f"{doc_id!r} is neither a file of {spec.uri} nor the id of a document in the table, "
            "and a remote source is not searched for ids; name the file, or the file and the id"
        )
    for file in listed_files(spec):
        if _holds(file, spec, doc_id):
            return file
    raise UsageError(
        f"{doc_id!r} is neither a file of {spec.uri} nor the id of a document in it; name a file "
        "by its path below the source",
        action="plan",
    )


def _files_in_table(job: Job, doc_id: str) -> list[str]:
    snapshot = job.table.open_if_made()
    if snapshot is None:
        return []
    batches = scan_values(snapshot, "doc_id", [doc_id], ["source_uri"])
    return sorted({uri for batch in batches for uri in batch.column("source_uri").to_pylist()})


def _holds(file: SourceFile, spec: SourceSpec, doc_id: str) -> bool:
    """Whether a record of the file has this id, as far as the file can be read."""
    try:
        return any(record.doc_id == doc_id for record in read_documents(file, spec))
    except RejectedInput:
        return False
