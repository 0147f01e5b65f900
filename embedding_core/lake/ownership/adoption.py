"""A table that follows its recipe: metadata columns come and go, an empty table starts again.

A column that comes is null until the rows of each file are made again from the source; their
vectors are kept. A column that somebody added by hand is not touched, and refused elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import lance
import pyarrow as pa

from embedding_core.lake import schema
from embedding_core.lake.evolution import commit_schema
from embedding_core.lake.faults import store_faults, tried_again
from embedding_core.lake.table import Table
from embedding_core.recipe import Recipe


@dataclass(frozen=True, slots=True)
class ColumnChanges:
    """What a recipe's metadata section changes about the columns of its table."""

    added: tuple[str, ...] = ()
    """Columns that come, in the recipe's order; each also in ``dropped`` when its type changes."""
    dropped: tuple[str, ...] = ()
    """Columns that go with their values."""

    @property
    def any(self) -> bool:
        """Whether there is a change."""
        return bool(self.added or self.dropped)


NO_CHANGES = ColumnChanges()


def column_changes(recipe: Recipe, arrow_schema: pa.Schema) -> ColumnChanges:
    """The recipe's metadata columns against those that its table was given."""
    declared = {field.name: field for field in schema.metadata_fields(recipe)}
    given = schema.metadata_names(arrow_schema)
    has = {name: arrow_schema.field(name) for name in arrow_schema.names}
    same = {name for name, field in declared.items() if name in has and has[name] == field}
    return ColumnChanges(
        added=tuple(name for name in declared if name not in same),
        dropped=tuple(name for name in given if name in has and name not in same),
    )


def has_no_rows(dataset: lance.LanceDataset) -> bool:
    """Whether a table can still become anything: nobody has put a row into it, or all are gone."""
    return bool(dataset.count_rows() == 0)


def start_again(table: Table, arrow_schema: pa.Schema) -> None:
    """Give a table without rows another schema, in one commit; its older versions stay."""
    with store_faults(f"making {table.uri} again"):
        lance.write_dataset(
            arrow_schema.empty_table(),
            table.uri,
            schema=arrow_schema,
            mode="overwrite",
            storage_options=table.lake.options(),
        )


def adapt_columns(table: Table, recipe: Recipe) -> None:
    """Drop and add metadata columns until the table has those of the recipe, in its order.

    Reads no row. Each step is a commit; what is left after a crash is done by the next call.
    """
    tried_again(f"change the columns of {table.uri}", lambda _attempt: _adapt(table, recipe))


def _adapt(table: Table, recipe: Recipe) -> None:
    dataset = table.dataset()
    changes = column_changes(recipe, dataset.schema)
    # 1. Columns that go, also those of another type. The list keeps the names until step 3, so
    #    that a crash in between leaves none of them for one that was added by hand.
    if changes.dropped:
        kept = [field for field in dataset.schema if field.name not in changes.dropped]
        _commit(table, dataset, pa.schema(kept, metadata=dataset.schema.metadata))
        dataset = table.dataset()
    # 2. Columns that come: null in every row, metadata alone is written.
    new = [
        field for field in schema.metadata_fields(recipe) if field.name not in dataset.schema.names
    ]
    if new:
        with store_faults(f"adding columns to {table.uri}"):
            dataset.add_columns(pa.schema(new))
        dataset = table.dataset()
    # 3. The order in which rows are written, and what the table remembers of it.
    wanted = _ordered(dataset.schema, recipe)
    if wanted.names != dataset.schema.names or wanted.metadata != dataset.schema.metadata:
        _commit(table, dataset, wanted)


def _ordered(arrow_schema: pa.Schema, recipe: Recipe) -> pa.Schema:
    rows = schema.row_schema(recipe).names
    first = [arrow_schema.field(name) for name in rows]
    others = [field for field in arrow_schema if field.name not in rows]
    names = json.dumps([field.name for field in schema.metadata_fields(recipe)]).encode()
    metadata = {**(arrow_schema.metadata or {}), schema.COLUMNS_KEY: names}
    return pa.schema([*first, *others], metadata=metadata)


def _commit(table: Table, dataset: lance.LanceDataset, wanted: pa.Schema) -> None:
    commit_schema(dataset, wanted, table.lake.options())
