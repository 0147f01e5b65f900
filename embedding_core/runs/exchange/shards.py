"""What an export writes: the shards of a version of a table, and their rows one by one.

The order of the rows is the table's own: its fragments, and the rows in them. It costs no memory
and no sorting, and a version never changes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embedding_core.errors import LakeError, Unfilled, UsageError
from embedding_core.exports.columns import Columns
from embedding_core.exports.exporter import KNOWN_EXPORTERS, ShardInfo
from embedding_core.exports.folders import folder_names
from embedding_core.exports.spec import ExportSpec
from embedding_core.lake import schema
from embedding_core.lake.filters import quote
from embedding_core.lake.scans import (
    checked_filter,
    fragments_of_values,
    rows_of_fragments,
    scan,
)
from embedding_core.lake.snapshot import Snapshot
from embedding_core.plurals import counted
from embedding_core.records import Scalar

DATA = "data"
"""Folder of the rows."""
MOST_FOLDERS = 10_000
"""Values that a column to split by may have."""
SPLIT_TYPES = (pa.types.is_string, pa.types.is_integer, pa.types.is_boolean)


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive rows of a version of a table; independent of all other shards."""

    number: int
    """From 0, in the order of the rows."""
    stem: str
    """Path of its files, without their ends."""
    condition: str | None
    """SQL filter whose rows are counted; None: every row."""
    fragment_ids: tuple[int, ...]
    """Fragments that it is read from, in the table's order."""
    start: int
    """Rows of them that belong to earlier shards."""
    rows: int

    @property
    def name(self) -> str:
        """Its number, for the names of files and of tasks."""
        return f"{self.number:05d}"


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """All shards of an export; the same for the same version and spec."""

    columns: Columns
    shards: tuple[Shard, ...]
    folders: Mapping[str, Scalar]
    """Value of each folder; empty when rows are not split."""

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)


def plan_export(snapshot: Snapshot, spec: ExportSpec) -> ExportPlan:
    """Work out the shards from counts of rows; reads the table's metadata, and the columns of a
    filter and of the split.

    Raises ``UsageError`` for columns that the table does not have, for a filter that cannot be
    used and for one that no row passes.
    """
    columns = export_columns(snapshot, spec)
    condition = None if spec.where is None else checked_filter(snapshot, spec.where)
    if spec.split_by is None:
        groups = [(DATA, condition, rows_of_fragments(snapshot, condition))]
        folders: dict[str, Scalar] = {}
    else:
        _check_split(snapshot, spec.split_by)
        counts = fragments_of_values(snapshot, spec.split_by, condition, MOST_FOLDERS)
        values = sorted(counts, key=lambda value: (value is None, value))
        names = folder_names(values)
        folders = {names[value]: value for value in values}
        groups = [
            (f"{DATA}/{name}", _both(condition, _is(spec.split_by, value)), counts[value])
            for name, value in folders.items()
        ]
    shards: list[Shard] = []
    for folder, filtered, rows in groups:
        shards += cut(folder, filtered, rows, spec.shard_rows, len(shards))
    if not shards:
        raise UsageError(_nothing(snapshot, spec))
    return ExportPlan(columns, tuple(shards), folders)


def export_columns(snapshot: Snapshot, spec: ExportSpec) -> Columns:
    """The columns of an export. Raises ``UsageError``; see ``Columns.of``, and for a format that
    cannot be without vectors."""
    served = [field.name for field in snapshot.schema if not schema.is_hidden(field)]
    columns = Columns.of(snapshot.schema, served, spec)
    if KNOWN_EXPORTERS.get(spec.to).vector_is_needed and columns.vector is None:
        raise UsageError(
            f"{spec.to} holds vectors, and no column of them is named; add {schema.VECTOR} to the "
            "columns, or write parquet, jsonl or arrow"
        )
    return columns


def shard_rows(
    snapshot: Snapshot, columns: Columns, shard: Shard, info: ShardInfo
) -> Iterator[pa.RecordBatch]:
    """The rows of a shard as they are written.

    Raises ``Unfilled`` for a row without a vector, ``LakeError`` when there are not as many rows
    as the plan counted.
    """
    fragments = [snapshot.dataset.get_fragment(number) for number in shard.fragment_ids]
    batches = scan(
        snapshot,
        list(dict.fromkeys(columns.names)),
        shard.condition,
        "exporting",
        fragments=fragments,
        start=shard.start,
        most_rows=shard.rows,
    )
    checked = _checked(batches, columns.vector, shard)
    yield from columns.written(checked, info.schema, info.batch_rows)


def _checked(
    batches: Iterator[pa.RecordBatch], vector: str | None, shard: Shard
) -> Iterator[pa.RecordBatch]:
    n_rows = 0
    for batch in batches:
        if vector is not None and batch.column(vector).null_count:
            raise Unfilled(
                f"rows of shard {shard.name} have no vector in column {vector!r}; fill the column "
                "and export again, or leave it out of the columns",
                action="reembed",
            )
        n_rows += batch.num_rows
        yield batch
    if n_rows != shard.rows:
        raise LakeError(
            f"shard {shard.name} was to have {counted(shard.rows, 'row')} and has {n_rows:,}: the "
            "table is damaged, or an index that the filter uses is",
            action="verify",
        )


def cut(
    folder: str,
    condition: str | None,
    counts: Sequence[tuple[int, int]],
    shard_rows: int,
    first_number: int,
) -> Iterator[Shard]:
    """Shards of the rows of a folder; ``counts`` are fragments and their rows of it, in order."""
    fragment_ids = [fragment_id for fragment_id, _ in counts]
    ends = np.cumsum([n_rows for _, n_rows in counts], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    for number, start in enumerate(range(0, total, shard_rows)):
        end = min(start + shard_rows, total)
        first = int(np.searchsorted(ends, start, side="right"))
        last = int(np.searchsorted(ends, end, side="left"))
        before = int(ends[first - 1]) if first else 0
        yield Shard(
            number=first_number + number,
            stem=f"{folder}/part-{number:05d}",
            condition=condition,
            fragment_ids=tuple(fragment_ids[first : last + 1]),
            start=start - before,
            rows=end - start,
        )


def _check_split(snapshot: Snapshot, column: str) -> None:
    if column not in snapshot.schema.names:
        raise UsageError(
            f"split_by names {column!r}, and there is no such column; there are "
            f"{', '.join(snapshot.schema.names)}"
        )
    kind = snapshot.schema.field(column).type
    if not any(is_type(kind) for is_type in SPLIT_TYPES):
        raise UsageError(
            f"split_by names {column!r} of {kind}; a column to split by has strings, ints or bools"
        )


def _is(column: str, value: Scalar) -> str:
    return f"`{column}` IS NULL" if value is None else f"`{column}` = {quote(value)}"


def _both(first: str | None, second: str) -> str:
    return second if first is None else f"({first}) AND {second}"


def _nothing(snapshot: Snapshot, spec: ExportSpec) -> str:
    if spec.where is None or not snapshot.n_rows:
        return f"table {snapshot.table.name!r} has no rows to export; embed its source first"
    return (
        f"no row of the {snapshot.n_rows:,} of table {snapshot.table.name!r} passes the filter "
        f"{spec.where!r}; nothing was written: correct the filter"
    )
