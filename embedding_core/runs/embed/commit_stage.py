"""Commit embedded units: one atomic commit per group, with everything that it replaces."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.lake import ledger, staging
from embedding_core.lake.index.broken import drop_broken_indexes
from embedding_core.lake.ownership.owner import ensure_table
from embedding_core.lake.rows.commit import Claim, check_claims, replace_rows
from embedding_core.lake.scans import row_counts
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import Table
from embedding_core.reasons import RETRIED
from embedding_core.records import EmbeddedUnit, Plan, PlannedFile
from embedding_core.runs.cutting import rules_of
from embedding_core.runs.embed.planning import check_removals
from embedding_core.runs.embed.saved import usable_units
from embedding_core.runs.job import Job
from embedding_core.runs.prepared import prepared
from embedding_core.watch.stopwatch import Stopwatch


def prepare(job: Job, planned: Plan, allow_removals: bool = False) -> None:
    """Make the table if need be and list the files that could not even be fingerprinted.

    Indexes that cannot be used are dropped first: a filter would fail; ``finish`` makes them again.
    Raises ``SetupError`` before any change when the plan removes too much; see
    ``check_removals``.
    """
    check_removals(planned, allow_removals)
    ready = prepared(job)
    cutting = ready.cutting
    snapshot = ensure_table(ready.pinned_recipe, ready.model.space, cutting.stored())
    drop_broken_indexes(snapshot)
    table = snapshot.table
    ledger.keep_rules(table, job.rows_id, rules_of(job.recipe, cutting))
    uris = [reject.source_uri for reject in planned.unreadable]
    if uris:
        rejects = staging.reject_batches(planned.unreadable)
        ledger.record_rejects(table, uris, rejects, job.run_id)


def lost_units(job: Job, units: Sequence[EmbeddedUnit]) -> list[EmbeddedUnit]:
    """Units whose files are gone from the store."""
    table = job.table
    usable = {unit.unit.unit_id for unit in usable_units(table, units)}
    return [unit for unit in units if unit.unit.unit_id not in usable]


def commit_units(
    job: Job, units: Sequence[EmbeddedUnit], removed_keys: Collection[str] = ()
) -> list[EmbeddedUnit]:
    """Commit a group: new rows come, rows of replaced and removed files go, in one transaction.

    Returns the units with their shares of the time that it took.

    Units whose rows are in the table already change nothing. The order (rows, rejects, ledger,
    staged files) loses nothing if it is cut off anywhere: the next run does the rest. Rows come
    first because their commit tells two runs apart. Raises ``LakeError`` when another run has
    changed one of the files since the plan; see ``lake.rows.commit.check_claims``.
    """
    table, watch = job.table, Stopwatch("commit")
    claims = [_claim(unit, planned) for unit in units for planned in unit.unit.files]
    committed, unchanged = _commit_rows(job, table.open(), units, removed_keys, claims)
    # Staged rejects that are gone were recorded by an earlier commit of the same unit.
    new = [unit for unit in units if all(staging.is_staged(table, p) for p in unit.reject_paths)]
    uris = [uri for unit in new for planned in unit.unit.files for uri in _uris(unit, planned)]
    ledger.record_rejects(
        table,
        uris,
        _rejects(table, new),
        job.run_id,
        lambda: check_claims(claims, committed.newest()),
        same_rows={uri for unit in unchanged for uri in _uris_of_known_files(unit)},
    )
    share = watch.read().share(1 / max(1, len(units)))
    units = [replace(unit, stages=unit.stages + share) for unit in units]
    ledger.record_entries(table, [entry for unit in units for entry in _entries(job, unit)])
    staging.drop_staged(table, {staged for unit in units for staged in unit.unit.staged_ids})
    return units


def _claim(unit: EmbeddedUnit, planned: PlannedFile) -> Claim:
    rows = sum(counts.rows for counts in unit.counts if counts.file_key == planned.file_key)
    return Claim(
        planned.file_key,
        (planned.file.uri, *([planned.moved_from] if planned.moved_from else [])),
        frozenset(planned.replaces),
        gives_rows=rows > 0 and planned.file_key not in unit.rejected_keys,
    )


def _rejects(table: Table, units: Sequence[EmbeddedUnit]) -> Iterator[pa.RecordBatch]:
    """All rejects of the units; for a file rejected as a whole, that reject alone."""
    for unit in units:
        yield from staging.reject_batches(unit.file_rejects)
        rejected_uris = pa.array([reject.source_uri for reject in unit.file_rejects], pa.string())
        for path in unit.reject_paths:
            for batch in staging.read_staged(table, path):
                yield batch.filter(
                    pc.invert(pc.is_in(batch.column("source_uri"), value_set=rejected_uris))
                )


def _uris(unit: EmbeddedUnit, planned: PlannedFile) -> list[str]:
    """URIs that rejects of the file are listed under: also the URI that it moved from."""
    moved = planned.moved_from is not None and planned.file_key not in unit.rejected_keys
    return [planned.file.uri, *([planned.moved_from] if moved and planned.moved_from else [])]


def forget_removed(job: Job, planned: Plan) -> None:
    """Drop the rejects of files that left the source, and the ledger's lines of those that gave no
    rows; rows went with ``commit_units``. Lines of rows that are gone stay: such a version is known
    when it comes back."""
    table = job.table
    if planned.removed_uris:
        ledger.record_rejects(table, planned.removed_uris, (), job.run_id)
    if planned.rowless_keys:
        ledger.drop_entries(table, planned.rowless_keys)


def _commit_rows(
    job: Job,
    snapshot: Snapshot,
    units: Sequence[EmbeddedUnit],
    removed_keys: Collection[str],
    claims: Sequence[Claim],
) -> tuple[Snapshot, list[EmbeddedUnit]]:
    """The table with the group's rows, and the units whose rows were there already."""
    keys = {counts.file_key for unit in units for counts in unit.counts}
    present = row_counts(snapshot, "file_key", keys)
    drop = set(removed_keys)
    fragments: list[str] = []
    unchanged: list[EmbeddedUnit] = []
    for unit in units:
        expected = {counts.file_key: counts.rows for counts in unit.counts if counts.rows}
        if expected and all(present[key] == n_rows for key, n_rows in expected.items()):
            # An earlier commit went through and its reply was lost, or the files' lines were.
            unchanged.append(unit)
            continue
        fragments.extend(unit.fragments)
        drop |= {key for key in expected if present[key]}
    drop |= set(replaced_keys(units))
    check = partial(check_claims, claims)
    committed = replace_rows(
        snapshot, "file_key", drop, fragments, job.space_id, check, unique="source_uri"
    )
    return committed, unchanged


def _uris_of_known_files(unit: EmbeddedUnit) -> list[str]:
    """Files of the unit that are as they were: what is listed is not of an older version."""
    return [
        planned.file.uri
        for planned in unit.unit.files
        if {planned.file_key}.issuperset(planned.replaces) and planned.moved_from is None
    ]


def replaced_keys(units: Sequence[EmbeddedUnit]) -> list[str]:
    """File keys whose rows go. A file rejected as a whole keeps rows of its last good version."""
    return [
        old
        for unit in units
        for planned in unit.unit.files
        if planned.file_key not in unit.rejected_keys
        for old in planned.replaces
        if old != planned.file_key
    ]


def _entries(job: Job, unit: EmbeddedUnit) -> list[ledger.LedgerEntry]:
    files = {planned.file_key: planned for planned in unit.unit.files}
    retry = {reject.source_uri for reject in unit.file_rejects if reject.reason in RETRIED}
    tokens = sum(counts.tokens for counts in unit.counts) or 1
    shares = (unit.stages.share(counts.tokens / tokens) for counts in unit.counts)
    return [
        ledger.LedgerEntry(
            counts=counts,
            fingerprint=files[counts.file_key].file.fingerprint,
            rows_id=job.rows_id,
            space_id=job.space_id,
            stages=stages,
            run_id=job.run_id,
            cost=stages.cost(job.price_per_hour),
            choice=files[counts.file_key].choice_digest,
        )
        for counts, stages in zip(unit.counts, shares, strict=True)
        if counts.source_uri not in retry
    ]
