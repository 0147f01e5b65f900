"""What became of every file: the ledger (``<table>__files``), the rejects (``<table>__rejects``).

They explain the table and save time; the table alone is the truth. A file that gave no rows is
known as done only here, so a lost ledger costs reading such files once more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.lake import schema
from embedding_core.lake.commit import replace_rows, write_fragments
from embedding_core.lake.filters import is_in, quote
from embedding_core.lake.table import Table
from embedding_core.records import FileCounts, Reject


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One file version and what became of it."""

    counts: FileCounts
    fingerprint: str
    rows_id: str
    space_id: str
    seconds: float
    """Chunking and embedding, this file's share of its unit."""
    run_id: str


def ledger_table(table: Table) -> Table:
    """The ledger beside a table."""
    return Table(table.lake, f"{table.name}__files")


def rejects_table(table: Table) -> Table:
    """The rejects beside a table."""
    return Table(table.lake, f"{table.name}__rejects")


def record_entries(table: Table, entries: Sequence[LedgerEntry]) -> None:
    """Write one row per file version, over an older row of the same version."""
    now = datetime.now(UTC)
    rows = [
        asdict(entry.counts)
        | {
            "fingerprint": entry.fingerprint,
            "rows_id": entry.rows_id,
            "space_id": entry.space_id,
            "seconds": entry.seconds,
            "run_id": entry.run_id,
            "committed_at": now,
        }
        for entry in entries
    ]
    keys = [entry.counts.file_key for entry in entries]
    _replace(ledger_table(table), schema.LEDGER_SCHEMA, "file_key", keys, rows)


def record_rejects(
    table: Table, uris: Collection[str], rejects: Iterable[Reject], run_id: str
) -> None:
    """Make ``rejects`` all that is listed for ``uris``: a file's list is its newest version's."""
    now = datetime.now(UTC)
    rows = [asdict(reject) | {"run_id": run_id, "rejected_at": now} for reject in rejects]
    if rows or rejects_table(table).exists():
        _replace(rejects_table(table), schema.REJECTS_SCHEMA, "source_uri", uris, rows)


def ledger_rows(table: Table, columns: Sequence[str], where: str | None = None) -> pa.Table:
    """Rows of the ledger; empty when there is none yet."""
    return _read(ledger_table(table), schema.LEDGER_SCHEMA, columns, where)


def reject_rows(table: Table, run_id: str | None = None) -> pa.Table:
    """Rows of the rejects table, of one run or all; empty when there are none."""
    where = f"run_id = {quote(run_id)}" if run_id is not None else None
    return _read(rejects_table(table), schema.REJECTS_SCHEMA, schema.REJECTS_SCHEMA.names, where)


def keys_without_rows(table: Table) -> frozenset[str]:
    """File versions that were worked through and gave no rows."""
    done = ledger_rows(table, ["file_key"], "embedded + reused = 0 AND failed = 0")
    return frozenset(done.column("file_key").to_pylist())


def entries_of(table: Table, file_keys: Collection[str]) -> dict[str, dict[str, Any]]:
    """Ledger rows of some file versions, by file key."""
    rows = ledger_rows(table, schema.LEDGER_SCHEMA.names, is_in("file_key", file_keys))
    return {row["file_key"]: row for row in rows.to_pylist()}


def tokens_per_second(table: Table) -> float | None:
    """Rate of earlier runs on this table; None before the first."""
    done = ledger_rows(table, ["tokens", "seconds"], "embedded > 0")
    seconds = pc.sum(done.column("seconds")).as_py()
    return pc.sum(done.column("tokens")).as_py() / seconds if seconds else None


def _replace(
    table: Table,
    arrow_schema: pa.Schema,
    column: str,
    values: Collection[str],
    rows: list[dict[str, Any]],
) -> None:
    if not table.exists():
        table.create(arrow_schema)
    batches = pa.Table.from_pylist(rows, schema=arrow_schema).to_batches() if rows else []
    fragments = write_fragments(table, iter(batches), arrow_schema) if batches else ()
    replace_rows(table, column, values, fragments)


def _read(
    table: Table, arrow_schema: pa.Schema, columns: Sequence[str], where: str | None
) -> pa.Table:
    if not table.exists():
        return arrow_schema.empty_table().select(columns)
    return table.dataset().to_table(columns=list(columns), filter=where)
