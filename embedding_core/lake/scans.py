"""Every scan of a table. Who needs rows asks here; nobody else writes SQL or opens a scanner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypedDict, Unpack

import lance
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.errors import UsageError
from embedding_core.lake import schema, vectors
from embedding_core.lake.faults import plain
from embedding_core.lake.filters import (
    KEYS_PER_SCAN,
    bind,
    column_types,
    is_in,
    quote,
    why_refused,
)
from embedding_core.lake.snapshot import Snapshot
from embedding_core.plurals import counted
from embedding_core.protocols import JudgedRows, Vectors
from embedding_core.records import FileVersion, Scalar

READ_AHEAD: Mapping[str, int] = {"batch_readahead": 2, "io_buffer_size": 32 * 2**20}
"""Limits for scans of vectors: without them Lance reads up to 2 GiB ahead."""
ROWS_PER_JUDGED_BATCH = 8_192
"""Rows that the gate searches at once: 12 MiB of float32 per space at 384 dimensions."""


class ScanOptions(TypedDict, total=False):
    """What else a scan can be told."""

    fragments: Sequence[lance.LanceFragment]
    """Rows of these fragments alone."""
    batch_rows: int
    row_address: bool
    """Add Lance's column ``_rowaddr``."""
    row_ids: bool
    """Add Lance's column ``_rowid``."""
    start: int
    """Pass over so many rows first."""
    most_rows: int
    """End after so many rows."""


def scan(
    snapshot: Snapshot,
    columns: Sequence[str] | Mapping[str, str],
    where: str | None = None,
    doing: str = "reading",
    **options: Unpack[ScanOptions],
) -> Iterator[pa.RecordBatch]:
    """Rows batch by batch, in the table's order; faults and damage are named.

    ``columns``: names, or SQL by name. ``doing`` is what an error says was going on.
    """
    with snapshot.table.faults(doing):
        yield from raw_scan(snapshot.dataset, columns, where, **options)


def raw_scan(
    dataset: lance.LanceDataset,
    columns: Sequence[str] | Mapping[str, str],
    where: str | None = None,
    **options: Unpack[ScanOptions],
) -> Iterator[pa.RecordBatch]:
    """``scan`` whose errors are Lance's own, for those who look for damage themselves."""
    read_ahead = READ_AHEAD if any(map(schema.is_vector_column, columns)) else {}
    fragments = options.get("fragments")
    scanner = dataset.scanner(
        columns=dict(columns) if isinstance(columns, Mapping) else list(columns),
        filter=where,
        fragments=None if fragments is None else list(fragments),
        batch_size=options.get("batch_rows"),
        with_row_address=options.get("row_address", False),
        with_row_id=options.get("row_ids", False),
        offset=options.get("start"),
        limit=options.get("most_rows"),
        **read_ahead,
    )
    yield from scanner.to_batches()


def checked_filter(snapshot: Snapshot, where: str) -> str:
    """A SQL filter, its texts as values of the columns they stand beside.

    Raises ``UsageError`` for a filter that does not parse or fit the columns; reads no row.
    """
    condition = bind(where, {}, column_types(snapshot.schema))
    try:
        snapshot.dataset.scanner(columns=[], with_row_id=True, filter=condition).explain_plan()
    except ValueError as error:
        refused = why_refused(where, condition, snapshot.schema, plain(error))
        raise UsageError(refused) from error
    return condition


def rows_of_fragments(snapshot: Snapshot, where: str | None = None) -> list[tuple[int, int]]:
    """The id of each fragment and its rows, or those of a filter, in the table's order."""
    with snapshot.table.faults("counting the rows of"):
        return [
            (fragment.fragment_id, int(fragment.count_rows(where)))
            for fragment in snapshot.dataset.get_fragments()
        ]


def fragments_of_values(
    snapshot: Snapshot, column: str, where: str | None, most_values: int
) -> dict[Scalar, list[tuple[int, int]]]:
    """For each value of a column: the fragments that have it and their rows of it, in the table's
    order. Raises ``UsageError`` for a column of more than ``most_values``."""
    rows: dict[Scalar, Counter[int]] = {}
    for batch in scan(snapshot, [column], where, row_address=True):
        fragment_ids = pc.shift_right(batch.column("_rowaddr"), pa.scalar(32, pa.uint64()))
        pairs = pa.table({"value": batch.column(column), "fragment": fragment_ids})
        counts = pairs.group_by(["value", "fragment"]).aggregate([([], "count_all")])
        for value, fragment_id, n_rows in zip(*counts.to_pydict().values(), strict=True):
            rows.setdefault(value, Counter())[fragment_id] += n_rows
        if len(rows) > most_values:
            raise UsageError(
                f"column {column!r} has more than {counted(most_values, 'value')}, too many for a "
                "folder each; split by a column that has fewer"
            )
    positions = {
        fragment.fragment_id: position
        for position, fragment in enumerate(snapshot.dataset.get_fragments())
    }
    return {
        value: sorted(counts.items(), key=lambda count: positions[count[0]])
        for value, counts in rows.items()
    }


def key_groups(values: Collection[str]) -> Iterator[list[str]]:
    """The values, sorted, in groups that one filter can name."""
    ordered = sorted(set(values))
    for start in range(0, len(ordered), KEYS_PER_SCAN):
        yield ordered[start : start + KEYS_PER_SCAN]


def scan_values(
    snapshot: Snapshot,
    column: str,
    values: Collection[str],
    columns: Sequence[str],
    doing: str = "reading",
    **options: Unpack[ScanOptions],
) -> Iterator[pa.RecordBatch]:
    """Rows whose ``column`` has one of ``values``, by its index, many values at a time."""
    for group in key_groups(values):
        yield from scan(snapshot, columns, is_in(column, group), doing, **options)


def row_counts(snapshot: Snapshot, column: str, values: Collection[str]) -> Counter[str]:
    """Rows of each of ``values`` of ``column``, by its index; a value without rows counts 0."""
    rows = Counter[str]()
    for batch in scan_values(snapshot, column, values, [column]):
        for pair in batch.column(column).value_counts().to_pylist():
            rows[pair["values"]] += pair["counts"]
    return rows


def has_documents(snapshot: Snapshot, doc_ids: Collection[str]) -> bool:
    """Whether one of the documents has a row."""
    with snapshot.table.faults("reading"):
        return any(
            snapshot.dataset.count_rows(filter=is_in("doc_id", group))
            for group in key_groups(doc_ids)
        )


def rows_between(
    snapshot: Snapshot,
    low: str,
    high: str,
    doc_ids: Collection[str],
    columns: Sequence[str],
    batch_rows: int = ROWS_PER_JUDGED_BATCH,
) -> Iterator[pa.RecordBatch]:
    """Rows with ``low <= chunk_id < high``; with ``doc_ids`` only those of these documents."""
    where = f"chunk_id >= {quote(low)} AND chunk_id < {quote(high)}"
    if doc_ids:
        where = f"{where} AND {is_in('doc_id', doc_ids)}"
    yield from scan(snapshot, columns, where, batch_rows=batch_rows)


def file_versions(snapshot: Snapshot) -> Iterator[FileVersion]:
    """Each file version that has rows, once; memory grows with the versions, not the rows."""
    names = ["source_uri", "file_key"]
    counted: list[pa.Table] = []
    for batch in scan(snapshot, names):
        pairs = pa.Table.from_batches([batch]).group_by(names)
        counted.append(pairs.aggregate([("file_key", "count")]))
    if not counted:
        return
    summed = pa.concat_tables(counted).group_by(names)
    columns = summed.aggregate([("file_key_count", "sum")]).to_pydict()
    for uri, key, n_rows in zip(
        columns["source_uri"], columns["file_key"], columns["file_key_count_sum"], strict=True
    ):
        yield FileVersion(uri, key, n_rows=n_rows)


def judged_rows(snapshot: Snapshot, old: str, new: str) -> Iterator[JudgedRows]:
    """Every row for the gate. ``old`` and ``new`` are vector columns."""
    columns = {name: name for name in ("chunk_id", "doc_id", "text")} | {"old": old, "new": new}
    if has_text(snapshot.schema, "title"):
        columns["title"] = "title"
    read = list(dict.fromkeys(columns.values()))
    for batch in scan(snapshot, read, batch_rows=ROWS_PER_JUDGED_BATCH):
        arrays = [batch.column(column) for column in columns.values()]
        yield to_judged(pa.RecordBatch.from_arrays(arrays, names=list(columns)))


def to_judged(batch: pa.RecordBatch) -> JudgedRows:
    """A batch of ``chunk_id``, ``doc_id``, ``text``, ``old``, ``new`` and perhaps ``title``."""
    has_title = "title" in batch.schema.names
    return JudgedRows(
        chunk_ids=batch.column("chunk_id").to_pylist(),
        doc_ids=batch.column("doc_id"),
        texts=batch.column("text").to_pylist(),
        titles=batch.column("title").to_pylist() if has_title else [None] * batch.num_rows,
        old=vectors.to_numpy(batch.column("old")),
        new=vectors.to_numpy(batch.column("new")),
    )


def has_text(arrow_schema: pa.Schema, column: str) -> bool:
    """Whether there is such a column, of texts."""
    return column in arrow_schema.names and pa.types.is_string(arrow_schema.field(column).type)


def vectors_at(snapshot: Snapshot, rows: Sequence[int], column: str) -> Vectors:
    """(n_rows, dim) float32 vectors of rows by their numbers; NaN for a row without one."""
    with snapshot.table.faults("reading"):
        table = snapshot.dataset.take(list(rows), columns=[column])
    return vectors.to_numpy(table.column(column).combine_chunks())


def values_at(snapshot: Snapshot, rows: Sequence[int], columns: Mapping[str, str]) -> pa.Table:
    """Rows by their numbers, in that order; ``columns`` are SQL by name."""
    with snapshot.table.faults("reading"):
        return snapshot.dataset.take(list(rows), columns=dict(columns))


def count_vectors(snapshot: Snapshot, column: str) -> int:
    """Rows that have a vector in a column."""
    return int(
        snapshot.dataset.scanner(
            columns=[], with_row_id=True, filter=f"{column} IS NOT NULL", **READ_AHEAD
        ).count_rows()
    )


def have_vectors(snapshot: Snapshot, column: str, fragment_ids: Sequence[int]) -> bool:
    """Whether a row of these fragments has a vector in a column."""
    rows = snapshot.dataset.scanner(
        columns=["chunk_id"],
        filter=f"{column} IS NOT NULL",
        fragments=[snapshot.dataset.get_fragment(fragment_id) for fragment_id in fragment_ids],
        limit=1,
    )
    return bool(rows.to_table().num_rows)
