"""A vector column filled fragment by fragment, beside readers and writers.

Filling writes the data of that column alone, so no text is rewritten, and succeeds beside writers
that add and delete rows. Knows neither texts nor models.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
from lance.file import LanceFileReader, LanceFileWriter
from lance.fragment import DataFile
from numpy.typing import NDArray

from embedding_core.errors import LakeError, Transient, words
from embedding_core.lake import schema
from embedding_core.lake.disk.flushing import flush_version
from embedding_core.lake.faults import store_faults, tried_again
from embedding_core.lake.scans import scan
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.vector_columns import FULL, expect, field_id, field_of, holder
from embedding_core.lake.table import Table
from embedding_core.lake.vectors import are_unit, plain, to_lists
from embedding_core.plurals import counted
from embedding_core.protocols import Vectors
from embedding_core.store import storage

ROWS_PER_BLOCK = 4_096
"""Rows of a column written at once: 6 MiB at 384 dimensions, in float32."""
KNOWN = "known_vector"
"""The column of ``fragment_rows`` with the vectors that a space has already."""


@dataclass(frozen=True, slots=True)
class PlacedVectors:
    """Vectors of rows of a fragment, by their offsets."""

    offsets: NDArray[np.int64]
    """(n_rows,) offsets in the fragment, deleted rows counted, ascending from batch to batch."""
    vectors: Vectors
    """(n_rows, dim) unit norm; NaN for a row without a vector."""


@dataclass(frozen=True, slots=True)
class Filled:
    """The result of filling one fragment."""

    rows: int
    """Rows with a vector."""
    missing_rows: int
    """Rows without a vector."""
    committed: bool
    """False when the fragment was gone before its column could be committed."""


def fragment_rows(
    table: Table,
    fragment_id: int,
    names: list[str],
    space: str | None = None,
    batch_rows: int = ROWS_PER_BLOCK,
) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
    """Columns of a fragment's rows with their offsets in it, in order, as it is now.

    With ``space`` (a ``space_id``) there is a column ``KNOWN`` too when the rows may have vectors
    of it: a fixed-size list, null where a row has no vector. Nothing when the fragment was removed.
    The filled column may be committed long after: rows deleted meanwhile keep their offsets.
    """
    dataset = table.dataset()
    fragment = dataset.get_fragment(fragment_id)
    if fragment is None:
        return
    columns = {name: name for name in names}
    field = field_of(dataset, space) if space is not None else None
    if field is not None and holder(fragment, field_id(dataset, field)) is not None:
        columns[KNOWN] = field.name
    batches = scan(
        Snapshot(table, dataset),
        list(columns.values()),
        fragments=[fragment],
        row_address=True,
        batch_rows=batch_rows,
    )
    for batch in batches:
        address = batch.column("_rowaddr").to_numpy()
        offsets = (address & 0xFFFFFFFF).astype(np.int64)  # low half: offset in the fragment
        arrays = [plain(batch.column(column)) for column in columns.values()]
        yield offsets, pa.RecordBatch.from_arrays(arrays, names=list(columns))


def fill_fragment(
    table: Table, identifier: str, fragment_id: int, vectors: Iterable[PlacedVectors]
) -> Filled:
    """Write a space's column for one fragment and commit it; other columns are not touched.

    ``vectors`` must cover every row that the fragment has at the end; memory is bounded by one
    batch of them. Rows that someone deletes or adds meanwhile are no conflict. If the fragment was
    removed or compacted meanwhile, nothing is committed; its rows appear as missing in the new
    fragment. Raises ``LakeError`` for vectors that are not of unit length or do not cover the rows;
    nothing is committed then.
    """
    dataset = table.dataset()
    fragment = dataset.get_fragment(fragment_id)
    if fragment is None:
        return Filled(0, 0, committed=False)
    field = expect(dataset, identifier)
    written = _write(table, dataset, field, int(fragment.metadata.physical_rows), vectors)

    committed = tried_again(
        f"commit a column to {table.uri}",
        lambda _attempt: _commit(table, identifier, fragment_id, written),
    )
    return Filled(written.rows, written.missing_rows, committed)


@dataclass(frozen=True, slots=True)
class _Written:
    path: str
    """Name of the data file."""
    rows: int
    missing_rows: int
    size_bytes: int


def _write(
    table: Table,
    dataset: lance.LanceDataset,
    field: pa.Field,
    physical_rows: int,
    vectors: Iterable[PlacedVectors],
) -> _Written:
    """The column's data file: a value for every physical row, null for rows without a vector."""
    kind = schema.list_type(field)
    arrow_schema = pa.schema([field])
    name = f"{FULL}{uuid.uuid4()}.lance"
    path = storage.join(table.uri, "data", name)
    n_rows = n_missing = offset = 0
    with store_faults(f"writing {path}"):
        writer = LanceFileWriter(
            path,
            arrow_schema,
            version=dataset.data_storage_version,
            storage_options=table.lake.options,
        )
    with writer:
        for placed in vectors:
            valid = _checked(field, placed)
            n_rows, n_missing = n_rows + len(valid), n_missing + int((~valid).sum())
            for block in _blocks(placed, valid, offset, kind):
                _write_block(writer, arrow_schema, block)
            offset = int(placed.offsets[-1]) + 1 if len(valid) else offset
        for start in range(offset, physical_rows, ROWS_PER_BLOCK):
            n_nulls = min(ROWS_PER_BLOCK, physical_rows - start)
            _write_block(writer, arrow_schema, pa.nulls(n_nulls, kind))
    if n_missing:
        name = name.removeprefix(FULL)
        with store_faults(f"renaming {path}"):
            fs = storage.filesystem(path, table.lake.storage)
            fs.mv(path, storage.join(table.uri, "data", name))
    size_bytes = _checked_size(table, name, max(offset, physical_rows))
    return _Written(name, n_rows - n_missing, n_missing, size_bytes)


def _checked_size(table: Table, name: str, n_rows: int) -> int:
    """Bytes of a data file just written. Raises ``Transient`` when it is too short.

    Lance can lose a failed write; the file's own metadata says how long it must be.
    """
    path = storage.join(table.uri, "data", name)
    with store_faults(f"looking at {path}"):
        size_bytes = int(storage.filesystem(path, table.lake.storage).info(path)["size"])
        try:
            metadata = LanceFileReader(path, storage_options=table.lake.options).metadata()
        except ValueError as error:
            raise OSError(words(error)) from error
    least = (
        metadata.num_data_bytes
        + metadata.num_column_metadata_bytes
        + metadata.num_global_buffer_bytes
    )
    if metadata.num_rows != n_rows or size_bytes <= least:
        raise Transient(
            f"{path} has {counted(size_bytes, 'byte')} and {counted(metadata.num_rows, 'row')}, of "
            f"{least:,} and {n_rows:,}: a write was lost, and nothing was committed; look whether "
            "the disk is full or failing, then run the same command again"
        )
    return size_bytes


def _checked(field: pa.Field, placed: PlacedVectors) -> NDArray[np.bool_]:
    """(n_rows,) whether a row has a vector. Raises ``LakeError`` if one is not of unit length."""
    valid: NDArray[np.bool_] = np.logical_not(np.isnan(placed.vectors).all(axis=1))
    n_wrong = int(np.count_nonzero(valid & ~are_unit(placed.vectors)))
    if n_wrong:
        raise LakeError(
            f"for {field.name}, {counted(n_wrong, 'vector is', 'vectors are')} not finite or not "
            "of unit length; nothing of their fragment was committed; check the model's weights"
        )
    return valid


def _blocks(
    placed: PlacedVectors, valid: NDArray[np.bool_], first_offset: int, kind: pa.FixedSizeListType
) -> Iterator[pa.FixedSizeListArray]:
    """The column from ``first_offset`` to the last offset of ``placed``, null between vectors."""
    end = int(placed.offsets[-1]) + 1 if len(valid) else first_offset
    for start in range(first_offset, end, ROWS_PER_BLOCK):
        n_rows = min(ROWS_PER_BLOCK, end - start)
        first, last = np.searchsorted(placed.offsets, [start, start + n_rows])
        rows = np.flatnonzero(valid[first:last]) + first
        positions = placed.offsets[rows] - start
        values = np.zeros((n_rows, kind.list_size), kind.value_type.to_pandas_dtype())
        values[positions] = placed.vectors[rows]
        empty = np.ones(n_rows, np.bool_)
        empty[positions] = False
        yield to_lists(values, kind, empty)


def _write_block(
    writer: LanceFileWriter, arrow_schema: pa.Schema, block: pa.FixedSizeListArray
) -> None:
    kind = arrow_schema.types[0]
    is_hidden = isinstance(kind, pa.BaseExtensionType)
    column = pa.ExtensionArray.from_storage(kind, block) if is_hidden else block
    with store_faults("writing vectors"):
        writer.write_batch(pa.record_batch([column], schema=arrow_schema))


def _commit(table: Table, identifier: str, fragment_id: int, written: _Written) -> bool:
    """Make the file the fragment's column; False when the fragment was removed."""
    dataset = table.dataset()
    fragment = dataset.get_fragment(fragment_id)
    if fragment is None:
        return False
    files = fragment.metadata.files
    if any(file.path == written.path for file in files):  # the reply of an attempt was lost
        return True
    if fragment.count_rows() > written.rows + written.missing_rows:
        raise LakeError(
            f"{counted(written.rows + written.missing_rows, 'vector')} for the "
            f"{counted(fragment.count_rows(), 'row')} of fragment {fragment_id} of {table.uri}; "
            "give one for every row"
        )
    number = field_id(dataset, expect(dataset, identifier))
    version = files[0].file_major_version, files[0].file_minor_version
    new_file = DataFile(written.path, [number], [0], *version, written.size_bytes)
    group = lance.LanceOperation.DataReplacementGroup(fragment_id, new_file)
    with store_faults(f"committing to {table.uri}"):
        storage.flush([storage.join(table.uri, "data", written.path)])
        committed = lance.LanceDataset.commit(
            table.uri,
            lance.LanceOperation.DataReplacement([group]),
            read_version=dataset.version,
            storage_options=table.lake.options,
        )
    flush_version(committed)
    return True
