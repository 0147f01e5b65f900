"""Vector columns of several spaces in one table: added, listed, and what they still lack.

A column is asked for by its space, because names change when a space is put in service. Adding one
is a metadata commit. Knows neither texts nor models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
from embedding_core.lake.embedding_function import METADATA_KEY
from embedding_core.lake.faults import store_faults, tried_again
from embedding_core.lake.table import Table
from embedding_core.recipe import ModelSpec
from embedding_core.records import Space

FULL = "full-"
"""Start of the name of a data file of one column in which every row has a vector."""

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
    with table.faults("reading"):
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
            number = field_id(dataset, field)
            if any(holder(one, number) is None for one in dataset.get_fragments()):
                found.append(str(field.name))
    return found


def missing_rows(dataset: lance.LanceDataset, identifier: str) -> dict[int, int]:
    """Rows without a vector of a space, by the id of each fragment that has some, in order.

    Told from the metadata where it can be: a fragment without data for the column has none, one
    whose file ``fill_fragment`` called full, or that came while the space was in service, has all.
    In others (compaction made them of both sorts) the column is read.
    """
    field = expect(dataset, identifier)
    number, trusted = field_id(dataset, field), schema.Origin.of(field).complete_below
    found = {}
    for fragment in dataset.get_fragments():
        file = holder(fragment, number)
        if file is None:
            n_missing = fragment.count_rows()
        elif trusted is None or fragment.fragment_id < trusted or _is_full(file):
            n_missing = 0
        else:
            n_missing = fragment.count_rows(filter=f"{field.name} IS NULL")
        if n_missing:
            found[fragment.fragment_id] = n_missing
    return found


def model_of(dataset: lance.LanceDataset, column: str) -> ModelSpec:
    """The model that makes a column's vectors, by name.

    Raises ``LakeError`` for a column that does not say.
    """
    field = dataset.schema.field(column)
    stored: Mapping[str, Any] | None = schema.Origin.of(field).model
    if column == schema.VECTOR:
        named = (dataset.schema.metadata or {}).get(METADATA_KEY)
        with schema.metadata_read(METADATA_KEY):
            stored = json.loads(named)[0]["model"] if named else None
    if stored is None:
        raise LakeError(
            f"column {column!r} of {dataset.uri} does not name its model; build it anew with the "
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
    """``field_of``; raises ``LakeError`` when there is none."""
    field = field_of(dataset, identifier)
    if field is None:
        raise LakeError(
            f"{dataset.uri} has no column of space {identifier[:SHOWN_DIGITS]}; it was retired "
            "meanwhile, or never added"
        )
    return field


def field_id(dataset: lance.LanceDataset, field: pa.Field) -> int:
    """What Lance knows the column by."""
    return int(dataset.lance_schema.field(field.name).id())


def holder(fragment: lance.LanceFragment, number: int) -> DataFile | None:
    """The data file that has a fragment's values of a field; None when all are null."""
    for file in fragment.metadata.files:
        if number in file.fields:
            return file
    return None


def _is_full(file: DataFile) -> bool:
    return PurePosixPath(file.path).name.startswith(FULL) and len(file.fields) == 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
