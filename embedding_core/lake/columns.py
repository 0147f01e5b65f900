"""Vector columns of several spaces in one table: added, listed, filled fragment by fragment.

A column is asked for by its space, because names change when a space is put in service. Adding one
is a metadata commit; filling writes that column's data alone, so no text is rewritten, and goes
through beside writers that add and delete rows. Knows neither texts nor models.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal

import lance
import numpy as np
import pyarrow as pa
from lance.file import LanceFileWriter
from lance.fragment import DataFile
from numpy.typing import NDArray

from embedding_core import storage
from embedding_core.errors import LakeError
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake import schema
from embedding_core.lake.client import METADATA_KEY
from embedding_core.lake.faults import store_faults, tried_again
from embedding_core.lake.table import Table
from embedding_core.lake.verify import is_unit
from embedding_core.recipe import ModelSpec
from embedding_core.records import Space

FULL = "full-"
"""Start of the name of a data file of one column in which every row has a vector."""
ROWS_PER_BLOCK = 4_096
"""Rows of a column written at once: 6 MiB at 384 dimensions, in float32."""

State = Literal["in service", "building", "ready", "previous"]
"""``ready``: built, in every row, and never in service; ``previous``: it was in service."""


@dataclass(frozen=True, slots=True)
class VectorColumn:
    """A vector column of a table, at one version."""

    name: str
    """``vector``, or ``vector__`` and the first digits of the ``space_id``."""
    space_id: str
    space: Space
    state: State
    rows: int
    """Rows of the table."""
    missing_rows: int
    """Rows without a vector in this column."""
    made_at: str | None
    """When it was added, ISO 8601, UTC; None for the column a table was made with."""
    run_id: str | None
    """The run that added it."""
    served_until: str | None
    """When it last left service."""

    @property
    def filled_share(self) -> float:
        """Rows that have a vector, of all rows."""
        return 1 - self.missing_rows / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class PlacedVectors:
    """Vectors of some rows of a fragment."""

    offsets: NDArray[np.int64]
    """(n_rows,) places in the fragment, deleted rows counted, ascending from batch to batch."""
    vectors: NDArray[np.float32]
    """(n_rows, dim) unit norm; NaN for a row without one."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What became of one fragment."""

    rows: int
    """Rows with a vector."""
    missing_rows: int
    """Rows without one."""
    committed: bool
    """False when the fragment was gone before its column could be committed."""


def add_column(table: Table, space: Space, model: ModelSpec, run_id: str) -> str:
    """Make room for a space beside the one in service; the column's name.

    A space that has a column keeps it. Only metadata is written. Raises ``LakeError`` when the name
    is another space's.
    """
    wanted = space_id(space)
    name = schema.hidden_name(wanted)

    def once(_attempt: int) -> str:
        dataset = table.dataset()
        known = field_of(dataset, wanted)
        if known is not None:
            return str(known.name)
        if name in dataset.schema.names:
            raise LakeError(
                f"table {table.name!r} in {table.lake.uri} has a column {name!r} that is not of "
                f"space {wanted[:SHOWN_DIGITS]}; drop it first: `embedlake retire RECIPE {name}`, "
                "or LanceDB's drop_columns when embedlake did not make it"
            )
        pinned = model.pinned(space.revision)
        origin = schema.Origin(pinned.model_dump(exclude={"over_length"}), _now(), run_id)
        field = schema.hidden(origin.on(schema.vector_field(space)), name)
        with store_faults(f"adding a column to {table.uri}"):
            dataset.add_columns(field)
        return name

    return tried_again(f"add a column to {table.uri}", once)


def field_of(dataset: lance.LanceDataset, identifier: str) -> pa.Field | None:
    """The column of a space, whatever it is called now; None when there is none."""
    for field in _vector_fields(dataset):
        if schema.space_of(field)[0] == identifier:
            return field
    return None


def columns(table: Table) -> tuple[VectorColumn, ...]:
    """Every space of the table, the one in service first, then in the order they were added.

    Reads metadata alone, but for fragments that compaction wrote after a space left service: of
    those it reads the column.
    """
    dataset = table.dataset()
    rows = dataset.count_rows()
    with store_faults(f"reading {table.uri}"):
        found = [_described(dataset, field, rows) for field in _vector_fields(dataset)]
    return tuple(sorted(found, key=lambda one: one.name != schema.VECTOR))


def _described(dataset: lance.LanceDataset, field: pa.Field, rows: int) -> VectorColumn:
    identifier, space = schema.space_of(field)
    origin = schema.Origin.of(field)
    missing = sum(missing_rows(dataset, identifier).values())
    state: State = "ready" if not missing and rows else "building"
    if field.name == schema.VECTOR:
        state = "in service"
    elif origin.served_until is not None:
        state = "previous"
    return VectorColumn(
        name=field.name,
        space_id=identifier,
        space=space,
        state=state,
        rows=rows,
        missing_rows=missing,
        made_at=origin.made_at,
        run_id=origin.run_id,
        served_until=origin.served_until,
    )


def under_construction(dataset: lance.LanceDataset) -> list[str]:
    """Columns that are being built: never in service, and some fragments have no data for them."""
    found = []
    for field in _vector_fields(dataset):
        if field.name != schema.VECTOR and schema.Origin.of(field).served_until is None:
            number = _field_id(dataset, field)
            if any(_holder(one, number) is None for one in dataset.get_fragments()):
                found.append(str(field.name))
    return found


def missing_rows(dataset: lance.LanceDataset, identifier: str) -> dict[int, int]:
    """Rows without a vector of a space, by the id of each fragment that has some, in order.

    Told from the metadata where it can be: a fragment without data for the column has none, one
    whose file ``fill_fragment`` called full, or that came while the space was in service, has all.
    In others (compaction made them of both sorts) the column is read.
    """
    field = _expect(dataset, identifier)
    number, trusted = _field_id(dataset, field), schema.Origin.of(field).complete_below
    found = {}
    for fragment in dataset.get_fragments():
        holder = _holder(fragment, number)
        if holder is None:
            n_missing = fragment.count_rows()
        elif trusted is None or fragment.fragment_id < trusted or _is_full(holder):
            n_missing = 0
        else:
            n_missing = fragment.count_rows(filter=f"{field.name} IS NULL")
        if n_missing:
            found[fragment.fragment_id] = n_missing
    return found


def fragment_rows(
    table: Table, fragment_id: int, names: list[str], batch_rows: int = ROWS_PER_BLOCK
) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch]]:
    """Some columns of a fragment's rows with their places in it, in order, as it is now.

    Nothing when the fragment is gone. The column that is filled may be committed long after: rows
    deleted meanwhile keep their places.
    """
    dataset = table.dataset()
    fragment = dataset.get_fragment(fragment_id)
    if fragment is None:
        return
    scanner = dataset.scanner(
        columns=names,
        fragments=[fragment],
        with_row_address=True,
        batch_size=batch_rows,
        scan_in_order=True,
    )
    with store_faults(f"reading {table.uri}"):
        for batch in scanner.to_batches():
            address = batch.column("_rowaddr").to_numpy()
            yield (address & 0xFFFFFFFF).astype(np.int64), batch.select(names)  # low half: place


def fill_fragment(
    table: Table, identifier: str, fragment_id: int, vectors: Iterable[PlacedVectors]
) -> Filled:
    """Write a space's column for one fragment and commit it; other columns are not touched.

    ``vectors`` must cover every row that the fragment has at the end; memory is bounded by one
    batch of them. Rows that someone deletes or adds meanwhile are no conflict. A fragment that is
    gone by then (its rows were replaced, or compaction merged it) is left: its rows are missing
    under another id. Raises ``LakeError`` for vectors that are not of unit length or do not cover
    the rows; nothing is committed then.
    """
    dataset = table.dataset()
    fragment = dataset.get_fragment(fragment_id)
    if fragment is None:
        return Filled(0, 0, committed=False)
    field = _expect(dataset, identifier)
    written = _write(table, dataset, field, int(fragment.metadata.physical_rows), vectors)

    def once(_attempt: int) -> bool:
        return _commit(table, identifier, fragment_id, written)

    committed = tried_again(f"commit a column to {table.uri}", once)
    return Filled(written.rows, written.missing_rows, committed)


@dataclass(frozen=True, slots=True)
class _Written:
    path: str
    """Name of the data file."""
    rows: int
    missing_rows: int


def _write(
    table: Table,
    dataset: lance.LanceDataset,
    field: pa.Field,
    physical_rows: int,
    vectors: Iterable[PlacedVectors],
) -> _Written:
    """The column's data file: a value for every physical row, null for those not given."""
    kind = schema.list_type(field)
    arrow_schema = pa.schema([field])
    name = f"{FULL}{uuid.uuid4()}.lance"
    path = storage.join(table.uri, "data", name)
    given = missing = at = 0
    with store_faults(f"writing {path}"):
        writer = LanceFileWriter(
            path,
            arrow_schema,
            version=dataset.data_storage_version,
            storage_options=table.lake.options(),
        )
    with writer:
        for placed in vectors:
            valid = _checked(field, placed)
            given, missing = given + len(valid), missing + int((~valid).sum())
            for block in _blocks(placed, valid, at, kind):
                _write_block(writer, arrow_schema, block)
            at = int(placed.offsets[-1]) + 1 if len(valid) else at
        for start in range(at, physical_rows, ROWS_PER_BLOCK):
            n_rows = min(ROWS_PER_BLOCK, physical_rows - start)
            _write_block(writer, arrow_schema, pa.nulls(n_rows, kind))
    if missing:
        name = name.removeprefix(FULL)
        with store_faults(f"renaming {path}"):
            fs = storage.filesystem(path, table.lake.storage)
            fs.mv(path, storage.join(table.uri, "data", name))
    return _Written(name, given - missing, missing)


def _checked(field: pa.Field, placed: PlacedVectors) -> NDArray[np.bool_]:
    """(n_rows,) whether a row has a vector. Raises ``LakeError`` for one that is none."""
    valid: NDArray[np.bool_] = np.logical_not(np.isnan(placed.vectors).all(axis=1))
    some = placed.vectors[valid]
    n_wrong = len(some) - np.count_nonzero(is_unit(_lists(some)))
    if n_wrong:
        raise LakeError(
            f"{n_wrong} vectors for {field.name} are not finite or not of unit length; nothing of "
            "their fragment was committed; check the model's weights"
        )
    return valid


def _blocks(
    placed: PlacedVectors, valid: NDArray[np.bool_], at: int, kind: pa.FixedSizeListType
) -> Iterator[pa.FixedSizeListArray]:
    """The column from place ``at`` to the last one given, null where nothing is."""
    end = int(placed.offsets[-1]) + 1 if len(valid) else at
    for start in range(at, end, ROWS_PER_BLOCK):
        n_rows = min(ROWS_PER_BLOCK, end - start)
        first, last = np.searchsorted(placed.offsets, [start, start + n_rows])
        rows = np.flatnonzero(valid[first:last]) + first
        places = placed.offsets[rows] - start
        values = np.zeros((n_rows, kind.list_size), kind.value_type.to_pandas_dtype())
        values[places] = placed.vectors[rows]
        empty = np.ones(n_rows, np.bool_)
        empty[places] = False
        yield _lists(values, pa.array(empty))


def _lists(values: NDArray[Any], mask: pa.Array | None = None) -> pa.FixedSizeListArray:
    flat = pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=mask)


def _write_block(
    writer: LanceFileWriter, arrow_schema: pa.Schema, block: pa.FixedSizeListArray
) -> None:
    kind = arrow_schema.types[0]
    is_hidden = isinstance(kind, pa.BaseExtensionType)
    column = pa.ExtensionArray.from_storage(kind, block) if is_hidden else block
    with store_faults("writing vectors"):
        writer.write_batch(pa.record_batch([column], schema=arrow_schema))


def _commit(table: Table, identifier: str, fragment_id: int, written: _Written) -> bool:
    """Put the file in its place; False when the fragment is gone."""
    dataset = table.dataset()
    fragment = dataset.get_fragment(fragment_id)
    if fragment is None:
        return False
    files = fragment.metadata.files
    if any(one.path == written.path for one in files):  # the reply of an attempt was lost
        return True
    if fragment.count_rows() > written.rows + written.missing_rows:
        raise LakeError(
            f"{written.rows + written.missing_rows} vectors for the {fragment.count_rows()} rows "
            f"of fragment {fragment_id} of {table.uri}; give one for every row"
        )
    number = _field_id(dataset, _expect(dataset, identifier))
    version = files[0].file_major_version, files[0].file_minor_version
    file = DataFile(written.path, [number], [0], *version)
    group = lance.LanceOperation.DataReplacementGroup(fragment_id, file)
    with store_faults(f"committing to {table.uri}"):
        lance.LanceDataset.commit(
            table.uri,
            lance.LanceOperation.DataReplacement([group]),
            read_version=dataset.version,
            storage_options=table.lake.options(),
        )
    return True


def model_of(dataset: lance.LanceDataset, column: str) -> ModelSpec:
    """The model that makes a column's vectors, by name.

    Raises ``LakeError`` for a column that does not say.
    """
    field = dataset.schema.field(column)
    stored: Mapping[str, Any] | None = schema.Origin.of(field).model
    if column == schema.VECTOR:
        named = (dataset.schema.metadata or {}).get(METADATA_KEY)
        stored = json.loads(named)[0]["model"] if named else None
    if stored is None:
        raise LakeError(
            f"column {column!r} of {dataset.uri} does not name its model; build it anew with the "
            "model that you want"
        )
    return ModelSpec.model_validate(
        {name: value for name, value in stored.items() if name in ModelSpec.model_fields}
    )


def _vector_fields(dataset: lance.LanceDataset) -> list[pa.Field]:
    return [
        field
        for field in dataset.schema
        if schema.is_vector_column(field.name) and schema.SPACE_KEY in (field.metadata or {})
    ]


def _expect(dataset: lance.LanceDataset, identifier: str) -> pa.Field:
    field = field_of(dataset, identifier)
    if field is None:
        raise LakeError(
            f"{dataset.uri} has no column of space {identifier[:SHOWN_DIGITS]}; it was retired "
            "meanwhile, or never added"
        )
    return field


def _field_id(dataset: lance.LanceDataset, field: pa.Field) -> int:
    return int(dataset.lance_schema.field(field.name).id())


def _holder(fragment: lance.LanceFragment, field_id: int) -> DataFile | None:
    """The data file that has a fragment's values of a field; None when all are null."""
    for file in fragment.metadata.files:
        if field_id in file.fields:
            return file
    return None


def _is_full(file: DataFile) -> bool:
    return PurePosixPath(file.path).name.startswith(FULL) and len(file.fields) == 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
