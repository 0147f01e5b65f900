"""The history of every file: ledger (``<table>__files``) and rejects (``<table>__rejects``).

They explain the table and save time; the table alone is the truth. Only the ledger says that a file
without rows is done, so a lost ledger costs reading such files once more.

Rejects are written under two locks, that of runs and that of builds, so whoever is first makes
their table under a third. The ledger is written under the lock of runs alone; ``keep_rules`` makes
it before any of its rows are written.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.errors import LakeError
from embedding_core.lake import schema
from embedding_core.lake.disk.checksums import checksums, ledger_checksums, reject_checksums
from embedding_core.lake.disk.flushing import flush_version
from embedding_core.lake.faults import tried_again
from embedding_core.lake.lock import made_by_one
from embedding_core.lake.rows.commit import Check, replace_rows, withdraw, write_fragments
from embedding_core.lake.scans import scan, scan_values
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.staging import reject_batches
from embedding_core.lake.table import Table
from embedding_core.reasons import TRUNCATED, UNKNOWN_TOKENS
from embedding_core.records import FileCounts, FileVersion, Reject, StageSeconds
from embedding_core.store.untrusted.json_text import read_json

STAGE_COLUMNS = tuple(f"{stage.name}_seconds" for stage in fields(StageSeconds))
"""Columns of the ledger."""
RULES_KEY = "embedlake:rules:"
"""Before a ``rows_id``, in the metadata of the ledger's table."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A file version, and the counts of the run that read it."""

    counts: FileCounts
    fingerprint: str
    """Empty, as ``rows_id``, for rows that were imported."""
    rows_id: str
    space_id: str
    stages: StageSeconds
    """The file's share of its unit's time."""
    run_id: str
    cost: float | None = None
    """What that time costs, in the currency of the run's price; None without a price."""
    choice: str = ""
    """Digest of the choice among its documents; empty where all were taken."""


def ledger_table(table: Table) -> Table:
    """The ledger beside a table."""
    columns = schema.LEDGER_SCHEMA
    return Table(table.lake, f"{table.name}__files", (schema.with_checksum(columns), columns))


def rejects_table(table: Table) -> Table:
    """The rejects beside a table."""
    columns = schema.REJECTS_SCHEMA
    return Table(table.lake, f"{table.name}__rejects", (schema.with_checksum(columns), columns))


def record_entries(table: Table, entries: Sequence[LedgerEntry]) -> None:
    """Write one row per file version, over an older row of the same version."""
    now = datetime.now(UTC)
    rows = [_row(entry) | {"committed_at": now} for entry in entries]
    keys = [entry.counts.file_key for entry in entries]
    ledger = ledger_table(table)
    lines = (
        pa.RecordBatch.from_arrays(
            [*batch.columns, ledger_checksums(batch)], schema=ledger.columns[0]
        )
        for batch in pa.Table.from_pylist(rows, schema=schema.LEDGER_SCHEMA).to_batches()
    )
    _replace(ledger, "file_key", keys, lines)


def _row(entry: LedgerEntry) -> dict[str, Any]:
    row = asdict(entry)
    counts: dict[str, Any] = row.pop("counts")
    stages = {f"{name}_seconds": seconds for name, seconds in row.pop("stages").items()}
    return counts | row | stages | {"seconds": entry.stages.of_workers}


def record_rejects(
    table: Table,
    uris: Collection[str],
    rejects: Iterable[pa.RecordBatch],
    run_id: str,
    check: Callable[[], None] = lambda: None,
    same_rows: Collection[str] = (),
) -> None:
    """Make ``rejects`` all that is listed for ``uris``: a file's list is its newest version's.

    ``rejects`` are batches of ``schema.STAGED_REJECTS``. They stream, so a million need no memory.
    Of files that keep their rows (``same_rows``, URIs) what a build listed of these rows stays.
    Without any the rejects table is made all the same: whoever looks sees it empty. ``check``
    raises ``LakeError`` when another run has changed the rows of these files, whose list then
    counts; ours is withdrawn.
    """
    listed = rejects_table(table)
    batches = _stamped(listed, rejects, run_id)
    same_rows = set(same_rows).intersection(uris)  # the lists of others stay as they are
    if same_rows and (snapshot := listed.open_if_made()) is not None:
        batches = _with_those_of_rows(batches, snapshot, same_rows)
    fragments = _replace(listed, "source_uri", uris, batches, lambda _listed: check())
    try:
        check()
    except LakeError:
        withdraw(listed, fragments)
        raise


def add_rejects(table: Table, rejects: Sequence[Reject], run_id: str) -> None:
    """List more rejects of files whose other rejects stay.

    A reject that is listed already is not listed again, so a repeated attempt changes nothing.
    """
    listed = rejects_table(table)
    snapshot = _with_checksums(made_by_one(listed, listed.columns[0]))
    names = schema.REJECT_FIELDS.names
    uris = {reject.source_uri for reject in rejects}
    listed_already = {
        tuple(row[name] for name in names)
        for batch in scan_values(snapshot, "source_uri", uris, names)
        for row in batch.to_pylist()
    }
    new = [
        reject
        for reject in rejects
        if tuple(asdict(reject)[name] for name in names) not in listed_already
    ]
    if new:
        batches = _stamped(listed, reject_batches(new), run_id)
        fragments = write_fragments(listed, batches, listed.columns[0])
        replace_rows(listed, "source_uri", (), fragments)


def drop_rejects(table: Table, details: Collection[str]) -> None:
    """Drop the rejects whose detail is one of ``details``, because they no longer hold."""
    listed = rejects_table(table)
    if listed.exists():
        replace_rows(listed, "detail", details, ())


def _stamped(
    listed: Table, rejects: Iterable[pa.RecordBatch], run_id: str
) -> Iterator[pa.RecordBatch]:
    """Staged rejects as lines of the rejects table."""
    now = datetime.now(UTC)
    for batch in rejects:
        if n_rows := batch.num_rows:
            stamps = [
                pa.array([run_id] * n_rows),
                pa.array([now] * n_rows, pa.timestamp("us", tz="UTC")),
            ]
            *values, staged_checksums = batch.columns
            yield pa.RecordBatch.from_arrays(
                [*values, *stamps, checksums(stamps, staged_checksums)], schema=listed.columns[0]
            )


def _with_those_of_rows(
    batches: Iterable[pa.RecordBatch], listed: Snapshot, uris: Collection[str]
) -> Iterator[pa.RecordBatch]:
    """New lines, then the listed ones of ``uris`` that only a row tells of and that are not new:
    they have a chunk and no position."""
    names = ["source_uri", "doc_id", "chunk_index", "reason"]
    of_rows = pc.field("position").is_null() & pc.field("chunk_index").is_valid()
    new = set[tuple[object, ...]]()
    for batch in batches:
        new.update(tuple(row[name] for name in names) for row in batch.filter(of_rows).to_pylist())
        yield batch
    columns = schema.REJECTS_SCHEMA.names
    for batch in scan_values(listed, "source_uri", uris, columns):
        kept = batch.filter(of_rows)
        is_new = [tuple(row[name] for name in names) in new for row in kept.to_pylist()]
        kept = kept.filter(pc.invert(pa.array(is_new, pa.bool_())))
        if kept.num_rows:
            yield pa.RecordBatch.from_arrays(
                [*(kept.column(name) for name in columns), reject_checksums(kept)],
                schema=schema.with_checksum(schema.REJECTS_SCHEMA),
            )


def open_ledger(table: Table) -> Snapshot | None:
    """The ledger beside a table, to read from; None before the first run."""
    return ledger_table(table).open_if_made()


def ledger_rows(
    ledger: Snapshot | None, columns: Sequence[str], where: str | None = None
) -> pa.Table:
    """Rows of the ledger; none before the first run."""
    return _read(ledger, schema.LEDGER_SCHEMA, columns, where)


def reject_rows(table: Table, limit: int | None = None) -> pa.Table:
    """Rows of the rejects table."""
    listed, columns = rejects_table(table).open_if_made(), schema.REJECTS_SCHEMA
    return _read(listed, columns, columns.names, limit=limit)


@dataclass(frozen=True, slots=True)
class KnownRejects:
    """The rejects listed for one file."""

    reasons: frozenset[str]
    whole_by: frozenset[str]
    """Runs that rejected the file as a whole."""


def known_rejects(table: Table) -> dict[str, KnownRejects]:
    """Files with rejects, by URI; memory grows with the files, not with their rejects."""
    listed = rejects_table(table).open_if_made()
    if listed is None:
        return {}
    names = ["source_uri", "reason", "run_id"]
    columns = {name: name for name in names} | {"is_file": "doc_id IS NULL AND position IS NULL"}
    reasons, runs = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for batch in scan(listed, columns):
        kinds = pa.Table.from_batches([batch]).group_by(batch.schema.names).aggregate([])
        for row in kinds.to_pylist():
            reasons[row["source_uri"]].add(row["reason"])
            if row["is_file"]:
                runs[row["source_uri"]].add(row["run_id"])
    return {
        uri: KnownRejects(frozenset(kinds), frozenset(runs[uri])) for uri, kinds in reasons.items()
    }


def badly_listed(table: Table, damaged_uris: Collection[str]) -> set[str]:
    """File keys of ``damaged_uris`` and of the files that have fewer rejects listed than their
    newest line in the ledger counts.

    The run that wrote the line listed them. What a build of a space lists, and what is said of
    chunks that have rows, is counted nowhere, so that nobody misses it.
    """
    n_listed = Counter[tuple[str, str]]()
    listed = rejects_table(table).open_if_made()
    uncounted = {TRUNCATED.name, UNKNOWN_TOKENS.name}
    for batch in scan(listed, ["source_uri", "run_id", "reason"]) if listed is not None else ():
        columns = (column.to_pylist() for column in batch.columns)
        n_listed.update(
            (uri, run) for uri, run, why in zip(*columns, strict=True) if why not in uncounted
        )
    left_out = ("rejected", "duplicates", "dropped", "failed")
    names = ["file_key", "source_uri", "run_id", *left_out]
    lines = ledger_rows(open_ledger(table), [*names, "committed_at"]).sort_by("committed_at")
    newest = {line["source_uri"]: line for line in lines.to_pylist()}
    return {
        line["file_key"]
        for uri, line in newest.items()
        if uri in damaged_uris
        or n_listed[uri, line["run_id"]] < sum(line[name] for name in left_out)
    }


def known_versions(ledger: Snapshot | None) -> dict[str, FileVersion]:
    """Every file version in the ledger, by file key."""
    names = [
        "file_key", "source_uri", "fingerprint", "rows_id", "embedded", "reused", "failed",
        "run_id", "choice",
    ]  # fmt: skip
    columns = ledger_rows(ledger, names).to_pydict()
    return {
        key: FileVersion(uri, key, fingerprint, rows_id, embedded + reused, failed, run_id, choice)
        for key, uri, fingerprint, rows_id, embedded, reused, failed, run_id, choice in zip(
            *(columns[name] for name in names), strict=True
        )
    }


def entries(ledger: Snapshot | None) -> dict[str, LedgerEntry]:
    """Every line of the ledger, by file key."""
    counted = [field.name for field in fields(FileCounts)]
    others = {field.name for field in fields(LedgerEntry)} - {"counts", "stages"}
    by_key = {}
    for row in ledger_rows(ledger, [*counted, *sorted(others), *STAGE_COLUMNS]).to_pylist():
        counts = FileCounts(**{name: row.pop(name) for name in counted})
        stages = stages_of(row)
        by_key[counts.file_key] = LedgerEntry(
            counts, stages=stages, **{name: row[name] for name in others}
        )
    return by_key


def stages_of(row: Mapping[str, Any], suffix: str = "") -> StageSeconds:
    """The stages of a row with ``STAGE_COLUMNS``, or with sums of them that have a suffix."""
    return StageSeconds(
        **{name.removesuffix("_seconds"): row[f"{name}{suffix}"] or 0.0 for name in STAGE_COLUMNS}
    )


def drop_entries(table: Table, file_keys: Collection[str]) -> None:
    """Drop the lines of some file versions."""
    ledger = ledger_table(table)
    if ledger.exists():
        replace_rows(ledger, "file_key", file_keys, ())


def keep_rules(table: Table, rows_id: str, rules: Mapping[str, Any]) -> None:
    """Remember what a ``rows_id`` stands for, so that a later plan can say what changed."""
    ledger = ledger_table(table)
    first = _with_checksums(ledger.ensure(ledger.columns[0]))

    def attempt_once(attempt: int) -> None:
        dataset = first.at(attempt).dataset
        if RULES_KEY + rows_id not in dataset.metadata:
            dataset.update_metadata({RULES_KEY + rows_id: json.dumps(rules)})
            flush_version(dataset)

    tried_again(f"write to {first.table.uri}", attempt_once)


def known_rules(ledger: Snapshot | None) -> dict[str, dict[str, Any]]:
    """Row rules by ``rows_id``; those that a disk damaged are as unknown as those nobody kept."""
    rules_by_id = {}
    for name, rules in ledger.dataset.metadata.items() if ledger is not None else ():
        if name.startswith(RULES_KEY):
            with suppress(LakeError), schema.metadata_read(RULES_KEY.encode()):
                rules_by_id[name.removeprefix(RULES_KEY)] = dict(read_json(rules))
    return rules_by_id


def tokens_per_second(ledger: Snapshot | None) -> float | None:
    """Rate of earlier runs on this table; None before the first."""
    done = ledger_rows(ledger, ["tokens", "seconds"], "embedded > 0")
    seconds = pc.sum(done.column("seconds")).as_py()
    return pc.sum(done.column("tokens")).as_py() / seconds if seconds else None


def rejects_by_reason(table: Table) -> dict[str, int]:
    """How many rejects each reason has; their details are not read."""
    rows = _read(rejects_table(table).open_if_made(), schema.REJECTS_SCHEMA, ["reason"])
    counts = rows.column("reason").value_counts().to_pylist()
    return {pair["values"]: pair["counts"] for pair in counts}


def _with_checksums(snapshot: Snapshot) -> Snapshot:
    """The newest version, with a column for checksums. A table that was made before lines had them
    gets it; the lines that it has stay without."""
    table = snapshot.table
    columns = table.columns[0]

    def attempt_once(attempt: int) -> Snapshot:
        newest = snapshot.at(attempt)
        if newest.schema != columns:
            newest.dataset.add_columns(columns.field(schema.CHECKSUM))
            flush_version(newest.dataset)
        return newest

    return tried_again(f"add a column to {table.uri}", attempt_once)


def _replace(
    table: Table,
    column: str,
    values: Collection[str],
    batches: Iterator[pa.RecordBatch],
    check: Check = lambda _snapshot: None,
) -> tuple[str, ...]:
    """Replace the rows of ``values`` of a column by ``batches``, in one commit; their fragments.

    Of two runs that do so at once, the second takes its rows out again.
    """
    snapshot = _with_checksums(made_by_one(table, table.columns[0]))
    first = next(batches, None)
    rows = chain([first], batches) if first is not None else None
    fragments = write_fragments(table, rows, table.columns[0]) if rows is not None else ()
    replace_rows(snapshot, column, values, fragments, check=check, unique=column)
    return fragments


def _read(
    snapshot: Snapshot | None,
    arrow_schema: pa.Schema,
    columns: Sequence[str],
    where: str | None = None,
    limit: int | None = None,
) -> pa.Table:
    if snapshot is None:
        return arrow_schema.empty_table().select(columns)
    with snapshot.table.faults("reading"):
        return snapshot.dataset.to_table(columns=list(columns), filter=where, limit=limit)
