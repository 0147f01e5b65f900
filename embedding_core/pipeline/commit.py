"""Embedded units into the table: one atomic commit per group, with everything it replaces."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from embedding_core.lake import Table, ensure_table, ledger, replace_rows, staging, table_of
from embedding_core.lake import commit as lake_commit
from embedding_core.pipeline.job import Job, resolve_planned
from embedding_core.records import EmbeddedUnit, Plan

UNREADABLE = "unreadable"
"""The one reason for a rejected file that says nothing of its content: it is tried again."""


def prepare(job: Job, planned: Plan) -> None:
    """Make the table if need be and list the files that could not even be fingerprinted."""
    table = ensure_table(job.recipe, resolve_planned(job).space)
    uris = [reject.source_uri for reject in planned.unreadable]
    if uris:
        ledger.record_rejects(table, uris, planned.unreadable, job.run_id)


def lost_units(job: Job, units: Sequence[EmbeddedUnit]) -> list[EmbeddedUnit]:
    """Units whose fragments are no longer in the store (a cached result that outlived them)."""
    table = table_of(job.recipe)
    return [unit for unit in units if not lake_commit.fragments_exist(table, unit.fragments)]


def commit_units(
    job: Job, units: Sequence[EmbeddedUnit], removed_keys: Collection[str] = ()
) -> None:
    """Commit a group: new rows come, rows of replaced and removed files go, in one transaction.

    Units whose rows are in the table already change nothing. The order (rejects, rows, ledger,
    staged files) loses nothing if it is cut off anywhere: the next run does the rest.
    """
    table = table_of(job.recipe)
    uris = [planned.file.uri for unit in units for planned in unit.unit.files]
    rejects = [reject for unit in units for reject in unit.rejects]
    ledger.record_rejects(table, uris, rejects, job.run_id)
    _commit_rows(table, units, removed_keys)
    ledger.record_entries(table, [entry for unit in units for entry in _entries(job, unit)])
    staging.drop_staged(table, (staging.staged_path(table, u.unit.unit_id) for u in units))


def forget_removed(job: Job, planned: Plan) -> None:
    """Drop the rejects of files that left the source; their rows went with ``commit_units``."""
    if planned.removed_uris:
        ledger.record_rejects(table_of(job.recipe), planned.removed_uris, (), job.run_id)


def _commit_rows(
    table: Table, units: Sequence[EmbeddedUnit], removed_keys: Collection[str]
) -> None:
    present = table.present_keys({one.file_key for unit in units for one in unit.counts})
    drop = set(removed_keys)
    fragments: list[str] = []
    for unit in units:
        with_rows = {one.file_key for one in unit.counts if one.rows}
        if with_rows and with_rows <= present:
            continue  # an earlier commit of this unit went through; its reply was lost
        fragments.extend(unit.fragments)
        drop |= with_rows & present
    drop |= set(replaced_keys(units))
    replace_rows(table, "file_key", drop, fragments)
    lake_commit.withdraw_second_copies(table, fragments)


def replaced_keys(units: Sequence[EmbeddedUnit]) -> list[str]:
    """Versions whose rows go; a file rejected as a whole keeps the rows of its last good one."""
    return [
        old
        for unit in units
        for planned in unit.unit.files
        if planned.file_key not in unit.rejected_keys
        for old in planned.replaces
        if old != planned.file_key
    ]


def _entries(job: Job, unit: EmbeddedUnit) -> list[ledger.LedgerEntry]:
    fingerprints = {one.file_key: one.file.fingerprint for one in unit.unit.files}
    retry = {reject.source_uri for reject in unit.rejects if reject.reason == UNREADABLE}
    tokens = sum(one.tokens for one in unit.counts) or 1
    return [
        ledger.LedgerEntry(
            counts=one,
            fingerprint=fingerprints[one.file_key],
            rows_id=job.rows_id,
            space_id=job.space_id,
            seconds=unit.seconds * one.tokens / tokens,
            run_id=job.run_id,
        )
        for one in unit.counts
        if one.source_uri not in retry
    ]
