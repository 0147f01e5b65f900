"""Vector columns of several spaces in one table: added, listed, and the rows they still lack.

A column is looked up by its space, because names change when a space is put in service. Adding a
column is a metadata commit. Knows neither texts nor models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Literal

import lance
import pyarrow as pa
from lance.fragment import DataFile

from embedding_core.errors import LakeError
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake import schema
from embedding_core.lake.disk.flushing import flush_version
from embedding_core.lake.embedding_function import METADATA_KEY
from embedding_core.lake.faults import tried_again
from embedding_core.lake.snapshot import Snapshot, opened
from embedding_core.lake.table import Table
from embedding_core.recipe import ModelSpec
from embedding_core.records import Space
from embedding_core.store.untrusted.json_text import read_json

FULL = "full-"
"""Start of the name of a data file with one column, in which every row has a vector."""

State = Literal["in service", "building", "ready", "previous"]
"""``ready``: built, in every row, and never in service; ``previous``: it was in service."""


@dataclass(frozen=True, slots=True)
class VectorColumn:
    """A vector column of a table at one version, as ``status`` shows it."""

    column: str
    """``vector`` for the space in service, else ``vector__`` and first digits of ``space_id``."""
    state: State
    space_id: str
    model: str
    dim: int
    filled_share: float
    """Rows with a vector, of all rows."""
    missing_rows: int
    """Rows without a vector in this column."""
    made_at: str | None
    """When it was added, ISO 8601, UTC; None for the column a table was made with."""
    run_id: str | None
    """The run that added it."""
    served_until: str | None
    """When it last left service, ISO 8601, UTC."""


def add_column(
    table: Table,
    space: Space,
    model: ModelSpec,
    run_id: str,
    check: Callable[[], None] = lambda: None,
) -> str:
    """Make room for a space beside the space in service; the column's name.

    A space that has a column keeps it. Only metadata is written. ``check`` is called before each
    attempt; what it raises ends them. Raises ``LakeError`` when the name is another space's.
    """
    identifier = space_id(space)
    name = schema.hidden_name(identifier)

    def attempt_once(_attempt: int) -> str:
        dataset = table.dataset()
        check()  # what is committed since conflicts
        existing = field_of(dataset, identifier)
        if existing is not None:
            return str(existing.name)
        if name in dataset.schema.names:
            raise LakeError(
                f"table {table.name!r} in {table.lake.uri} has a column {name!r} that is not of "
                f"space {identifier[:SHOWN_DIGITS]}; drop it first, by LanceDB's drop_columns when "
                "embedlake did not make it",
                action="retire",
            )
        pinned = model.pinned(space.revision)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        origin = schema.Origin(pinned.model_dump(exclude={"over_length"}), now, run_id)
        field = schema.hidden(origin.on(schema.vector_field(space)), name)
        dataset.add_columns(field)
        flush_version(dataset)
        return name

    return tried_again(f"add a column to {table.uri}", attempt_once)


def field_of(dataset: lance.LanceDataset, identifier: str) -> pa.Field | None:
    """The column of a space, whatever its name is now; None when there is no such column."""
    for field in _vector_fields(dataset):
        if schema.space_of(field)[0] == identifier:
            return field
    return None


def spaces(snapshot: Snapshot) -> tuple[Space, ...]:
    """The space of every vector column, in service or not. Reads metadata alone."""
    return tuple(schema.space_of(field)[1] for field in _vector_fields(snapshot.dataset))


def columns(table: Table | Snapshot) -> tuple[VectorColumn, ...]:
    """Every space of the table, the space in service first, then in the order they were added.

    Reads metadata alone, except for fragments that compaction wrote after a space left service: of
    those it reads the column.
    """
    snapshot = opened(table)
    with snapshot.table.faults("reading"):
        described = [_described(snapshot, field) for field in _vector_fields(snapshot.dataset)]
    return tuple(sorted(described, key=lambda column: column.column != schema.VECTOR))


def _described(snapshot: Snapshot, field: pa.Field) -> VectorColumn:
    identifier, space = schema.space_of(field)
    origin, n_rows = schema.Origin.of(field), snapshot.n_rows
    n_missing = sum(missing_rows(snapshot.dataset, identifier).values())
    state: State = "ready" if not n_missing and n_rows else "building"
    if field.name == schema.VECTOR:
        state = "in service"
    elif origin.served_until is not None:
        state = "previous"
    return VectorColumn(
        column=field.name,
        state=state,
        space_id=identifier,
        model=space.model,
        dim=space.dim,
        filled_share=1 - n_missing / n_rows if n_rows else 0.0,
        missing_rows=n_missing,
        made_at=origin.made_at,
        run_id=origin.run_id,
        served_until=origin.served_until,
    )


def under_construction(dataset: lance.LanceDataset) -> list[str]:
    """Columns that are being built: never in service, and without data in a fragment."""
    names = []
    for field in _vector_fields(dataset):
        if field.name != schema.VECTOR and schema.Origin.of(field).served_until is None:
            number = field_id(dataset, field)
            if any(holder(fragment, number) is None for fragment in dataset.get_fragments()):
                names.append(str(field.name))
    return names


def missing_rows(dataset: lance.LanceDataset, identifier: str) -> dict[int, int]:
    """Rows without a vector of a space, by the ids of the fragments that have such rows, in order.

    ====================================================  ==============================
    the fragment                                          rows without a vector
    ====================================================  ==============================
    has no data file for the column                       all
    has a file called ``full-…``, or came while the       none
    space was in service (id below ``complete_below``)
    else: compaction merged it from both kinds            counted by reading the column
    ====================================================  ==============================
    """
    field = expect(dataset, identifier)
    number, complete_below = field_id(dataset, field), schema.Origin.of(field).complete_below
    missing = {}
    for fragment in dataset.get_fragments():
        file = holder(fragment, number)
        came_in_service = complete_below is None or fragment.fragment_id < complete_below
        # 1. No file: every row lacks its vector.
        if file is None:
            n_missing = fragment.count_rows()
        # 2. Complete by its name or by the time it came: nothing to read.
        elif came_in_service or _is_full(file):
            n_missing = 0
        # 3. Rows of both kinds: read.
        else:
            n_missing = fragment.count_rows(filter=f"{field.name} IS NULL")
        if n_missing:
            missing[fragment.fragment_id] = n_missing
    return missing


def model_of(dataset: lance.LanceDataset, column: str) -> ModelSpec:
    """The model that makes a column's vectors, by name.

    Raises ``LakeError`` for a column that does not say.
    """
    field = dataset.schema.field(column)
    stored: Mapping[str, Any] | None = schema.Origin.of(field).model
    if column == schema.VECTOR:
        named = (dataset.schema.metadata or {}).get(METADATA_KEY)
        with schema.metadata_read(METADATA_KEY):
            stored = read_json(named)[0]["model"] if named else None
    if stored is None:
        raise LakeError(
            f"column {column!r} of {dataset.uri} does not name its model; build it again with the "
            "model that you want"
        )
    with schema.metadata_read(METADATA_KEY):
        return ModelSpec.model_validate(
            {name: value for name, value in stored.items() if name in ModelSpec.model_fields}
        )


def _vector_fields(dataset: lance.LanceDataset) -> list[pa.Field]:
    return [
        field
        for field in dataset.schema
        if schema.is_vector_column(field.name) and schema.SPACE_KEY in (field.metadata or {})
    ]


def expect(dataset: lance.LanceDataset, identifier: str) -> pa.Field:
    """``field_of``; raises ``LakeError`` when there is no such column."""
    field = field_of(dataset, identifier)
    if field is None:
        raise LakeError(
            f"{dataset.uri} has no column of space {identifier[:SHOWN_DIGITS]}; it was retired "
            "meanwhile, or never added"
        )
    return field


def field_id(dataset: lance.LanceDataset, field: pa.Field) -> int:
    """The number that Lance gives the column; it stays when the name changes."""
    return int(dataset.lance_schema.field(field.name).id())


def holder(fragment: lance.LanceFragment, number: int) -> DataFile | None:
    """The data file that has a fragment's values of a field; None when all are null."""
    for file in fragment.metadata.files:
        if number in file.fields:
            return file
    return None


def _is_full(file: DataFile) -> bool:
    return PurePosixPath(file.path).name.startswith(FULL) and len(file.fields) == 1
