"""One file of the source beside its rows in the table: what it gives now, and what is there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from embedding_core.errors import UsageError
from embedding_core.lake import ledger, schema
from embedding_core.lake.lock import holder_of
from embedding_core.lake.scans import row_counts, scan_values
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import existing_table
from embedding_core.reasons import ALL, HEALED_ELSEWHERE, RETRIED
from embedding_core.recipe import Recipe
from embedding_core.records import FileCounts, PlannedFile, Reject, SourceFile
from embedding_core.runs.choosing.rules import Choosing
from embedding_core.runs.choosing.state import ALL as EVERY_DOCUMENT
from embedding_core.runs.choosing.state import UNSURVEYED, Choices, known_choices
from embedding_core.runs.cutting import rules_of
from embedding_core.runs.embed.chunk_stage import file_rows
from embedding_core.runs.embed.comparison import Comparison, table_state
from embedding_core.runs.inputs.opening import as_planned, files_work, reading_job
from embedding_core.runs.job import Job
from embedding_core.runs.outcome import Outcome
from embedding_core.sources import discover
from embedding_core.sources.finding import file_named

DIFFERENCES_LISTED = 20
ROWS_PER_BATCH = 1_024
NOT_COMPARED = frozenset({"text", "file_key", "source_uri"})
"""``text_hash`` tells texts apart; the other two are the same for all rows of a file's version."""

Difference = Literal["missing", "extra", "different"]
"""A chunk without its row, a row without its chunk, a row with other values than its chunk."""
NextStep = Literal["none", "embed", "wait", "retry", "verify"]
"""``embed``: the next run puts it right; ``wait``: a run is at work; ``retry``: chunks were
rejected for a cause outside the file; ``verify``: no run would see it, since the table was changed
by hand or is damaged."""
Key: TypeAlias = tuple[str, int]
"""Document id and index of a chunk."""


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A chunk of the file that has another row, or none, or a row that has no chunk."""

    kind: Difference
    doc_id: str
    chunk_index: int
    chunk_id: str
    """The row's; of a missing row the id that it would have."""
    columns: tuple[str, ...]
    """Columns that differ."""
    why: str | None
    """Why the row is missing, where the rejects say so."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What one side has of the file."""

    documents: int
    """Documents that have rows."""
    chunks: int
    """Rows; chunks that the length policy drops have none."""
    tokens: int
    rejects: Mapping[str, int]
    """Rejects by reason."""


@dataclass(frozen=True, slots=True)
class FileCheck:
    """A file of the source against its rows in the table."""

    recipe: str
    table: str
    version: int
    source_uri: str
    expected: Counted
    """What reading and cutting the file gives now."""
    in_table: Counted
    missing: int
    extra: int
    different: int
    differences: tuple[RowDifference, ...]
    """The first of them."""
    why: tuple[str, ...]
    """What explains the differences."""
    next_step: NextStep

    @property
    def outcome(self) -> Outcome:
        """``failed`` when the rows are not what the file gives."""
        return "failed" if self.missing or self.extra or self.different else "done"


def check_file(recipe: Recipe, name: str, listed: int = DIFFERENCES_LISTED) -> FileCheck:
    """Compare a file's chunks with its rows; changes nothing.

    ``name`` is the file's URI or its path below the source; the first ``listed`` differences are
    listed. Memory grows with the file's rows, not with its texts. Raises ``LakeError`` without a
    table, ``UsageError`` for a file that neither the source nor the table has.
    """
    job = reading_job(recipe)
    snapshot = existing_table(job.recipe).open()
    file = file_named(job.recipe.source, name)
    uri = file.uri if file is not None else _uri_in_table(job, snapshot, name)
    columns = [
        column.name
        for column in schema.row_schema(job.recipe)
        if column.name not in NOT_COMPARED and column.name in snapshot.schema.names
    ]
    rules = rules_of(job.recipe, files_work(job, _Read()).cutting)
    choices = _choices(job, rules)
    expected = _Read() if file is None else _read(job, _planned(job, file, choices), columns)
    stored = _stored(snapshot, uri, columns)
    rejects = _listed_rejects(snapshot, uri)
    compared = _compared(expected.rows, stored, columns, rejects.by_document, listed)
    planned = _why_planned(job, snapshot, file, rules, choices)
    holder = holder_of(snapshot.table)
    differs = any(compared.counts.values())
    return FileCheck(
        recipe=job.recipe.name,
        table=job.recipe.lake.table,
        version=snapshot.version,
        source_uri=uri,
        expected=_counted(expected.rows, expected.reasons),
        in_table=_counted(stored, rejects.by_reason),
        missing=compared.counts["missing"],
        extra=compared.counts["extra"],
        different=compared.counts["different"],
        differences=tuple(compared.differences),
        why=tuple(_reasons(expected, planned, holder if differs else None, compared)),
        next_step=_next_step(differs, planned, holder, compared),
    )


_EMPTY = pa.table({"doc_id": [], "chunk_index": [], "n_tokens": []})


@dataclass(slots=True)
class _Read:
    """What the file gives now."""

    rows: pa.Table = field(default_factory=lambda: _EMPTY)
    counts: FileCounts | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    problem: str | None = None
    """Why the file is rejected as a whole."""

    def add(self, reject: Reject) -> None:
        """Count a reject."""
        self.reasons[reject.reason] += 1


def _choices(job: Job, rules: Mapping[str, Any]) -> Choices:
    """Which documents are taken, as far as that is known without reading the source."""
    source = job.recipe.source
    if Choosing.of(source) is None:
        return EVERY_DOCUMENT
    return known_choices(job.table, source, discover(source, may_be_empty=True), rules)


def _planned(job: Job, file: SourceFile, choices: Choices) -> PlannedFile:
    """The file with its choice; every document counts while a run has to survey it first."""
    choice = choices.of(file.uri)
    return replace(as_planned(job, file), choice=None if choice == UNSURVEYED else choice)


def _read(job: Job, planned: PlannedFile, columns: Sequence[str]) -> _Read:
    """Read and cut the file as a run would; its rows without their texts."""
    read = _Read()
    work = files_work(job, read)
    arrow_schema = pa.schema([schema.row_schema(job.recipe).field(name) for name in columns])
    batches = list(_batches(file_rows(work, planned, None), arrow_schema))
    (read.counts,) = work.counts
    if work.file_rejects:  # nothing that was read before the fault counts
        (reject,) = work.file_rejects
        batches, read.reasons = [], Counter({reject.reason: 1})
        read.problem = f"{reject.reason}: {reject.detail}"
    read.rows = pa.Table.from_batches(batches, arrow_schema)
    return read


def _batches(
    rows: Iterator[dict[str, object]], arrow_schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    waiting: list[dict[str, object]] = []
    for row in rows:
        waiting.append({name: row[name] for name in arrow_schema.names})
        if len(waiting) == ROWS_PER_BATCH:
            yield pa.RecordBatch.from_pylist(waiting, arrow_schema)
            waiting = []
    yield pa.RecordBatch.from_pylist(waiting, arrow_schema)


def _stored(snapshot: Snapshot, uri: str, columns: Sequence[str]) -> pa.Table:
    """The file's rows, without texts and vectors."""
    fields = [snapshot.schema.field(name).remove_metadata() for name in columns]
    batches = list(scan_values(snapshot, "source_uri", [uri], columns))
    return pa.Table.from_batches(batches, None if batches else pa.schema(fields))


@dataclass(frozen=True, slots=True)
class _ListedRejects:
    by_reason: Counter[str]
    by_document: Mapping[str, frozenset[str]]
    """Reasons for which chunks of a document got no row, by its id."""


def _listed_rejects(snapshot: Snapshot, uri: str) -> _ListedRejects:
    """What the rejects table says of the file."""
    by_reason = Counter[str]()
    by_document: dict[str, set[str]] = defaultdict(set)
    rejects = ledger.rejects_table(snapshot.table).open_if_made()
    if rejects is not None:
        for batch in scan_values(rejects, "source_uri", [uri], ["doc_id", "reason"]):
            for row in batch.to_pylist():
                by_reason[row["reason"]] += 1
                reason = ALL.get(row["reason"])
                if row["doc_id"] is not None and reason is not None and reason.weight == "chunk":
                    by_document[row["doc_id"]].add(row["reason"])
    return _ListedRejects(by_reason, {doc: frozenset(names) for doc, names in by_document.items()})


def _counted(rows: pa.Table, rejects: Mapping[str, int]) -> Counted:
    n_documents = len(set(rows.column("doc_id").to_pylist()))
    n_tokens = sum(rows.column("n_tokens").to_pylist())
    return Counted(n_documents, rows.num_rows, n_tokens, dict(rejects))


@dataclass(slots=True)
class _Compared:
    counts: Counter[Difference] = field(default_factory=Counter)
    differences: list[RowDifference] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)
    """Reasons of rejects that explain missing rows."""

    def add(self, difference: RowDifference, listed: int) -> None:
        """Count a difference, and keep it when it is one of the first."""
        self.counts[difference.kind] += 1
        if len(self.differences) < listed:
            self.differences.append(difference)


def _compared(
    expected: pa.Table,
    stored: pa.Table,
    columns: Sequence[str],
    rejects: Mapping[str, frozenset[str]],
    listed: int,
) -> _Compared:
    """The differences in the order of the file's chunks; rows without a chunk come last."""
    compared, numbers = _Compared(), dict[Key, int]()
    extra: list[int] = []
    for number, key in enumerate(_keys(stored)):
        if numbers.setdefault(key, number) != number:
            extra.append(number)  # a second row of the same chunk
    ours = {name: expected.column(name).to_pylist() for name in columns if expected.num_rows}
    theirs = {name: stored.column(name).to_pylist() for name in columns}
    for number, key in enumerate(_keys(expected)):
        stored_number = numbers.pop(key, None)
        if stored_number is None:
            reasons = rejects.get(key[0], frozenset())
            compared.rejected |= reasons
            why = f"rejected: {', '.join(sorted(reasons))}" if reasons else None
            missing = RowDifference("missing", *key, ours["chunk_id"][number], (), why)
            compared.add(missing, listed)
            continue
        names = tuple(name for name in columns if ours[name][number] != theirs[name][stored_number])
        if names:
            compared.add(
                RowDifference("different", *key, theirs["chunk_id"][stored_number], names, None),
                listed,
            )
    for number in sorted([*numbers.values(), *extra]):
        key = theirs["doc_id"][number], theirs["chunk_index"][number]
        compared.add(RowDifference("extra", *key, theirs["chunk_id"][number], (), None), listed)
    return compared


def _keys(rows: pa.Table) -> Iterator[Key]:
    return zip(
        rows.column("doc_id").to_pylist(), rows.column("chunk_index").to_pylist(), strict=True
    )


def _why_planned(
    job: Job,
    snapshot: Snapshot,
    file: SourceFile | None,
    rules: Mapping[str, Any],
    choices: Choices,
) -> str | None:
    """Why the next run works on the file; None when it would leave it alone."""
    recipe = job.recipe
    if file is None:
        return None if recipe.keep_removed else "it left the source"
    history = ledger.open_ledger(snapshot.table)
    _, in_service = snapshot.space()  # whatever model the recipe names, its rows are cut alike
    state = table_state(snapshot, history, recipe, in_service)
    others = state.versions.keys() - {file.uri}  # they are still there as far as we know
    comparison = Comparison(rules, state, {file.uri: file}, others, RETRIED, choices)
    todo, _ = comparison.to_do()
    return todo[0].why if todo else None


def _reasons(
    read: _Read, planned: str | None, holder: str | None, compared: _Compared
) -> Iterator[str]:
    if read.problem is not None:
        yield f"the file is rejected as a whole: {read.problem}"
    if planned is not None:
        yield planned
    if read.counts is None and planned is None:
        yield "it left the source, and keep_removed keeps its rows"
    if compared.rejected:
        yield f"chunks were rejected: {', '.join(sorted(compared.rejected))}"
    if holder is not None:
        yield f"a run is working on the table, or died: {holder}"


def _next_step(
    differs: bool, planned: str | None, holder: str | None, compared: _Compared
) -> NextStep:
    if not differs:
        return "none"
    if holder is not None:
        return "wait"
    if planned is not None:
        return "embed"
    if compared.rejected and compared.counts["missing"] == sum(compared.counts.values()):
        return "retry" if compared.rejected & set(HEALED_ELSEWHERE) else "none"
    return "verify"


def _uri_in_table(job: Job, snapshot: Snapshot, name: str) -> str:
    """The URI of a file that is no longer in the source."""
    spec = job.recipe.source
    candidates = [name, f"{spec.uri.rstrip('/')}/{name.removeprefix('./')}"]
    counts = row_counts(snapshot, "source_uri", candidates)
    for uri in candidates:
        if counts[uri]:
            return uri
    raise UsageError(
        f"{name!r} is neither a file of {spec.uri} nor has it rows in the table; name a file by "
        "its path below the source",
        action="plan",
    )
