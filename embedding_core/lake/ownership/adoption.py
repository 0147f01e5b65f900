"""A table that follows its recipe: its metadata columns change, an empty table starts over.

A new column is null until the rows of each file are made again from the source; their vectors are
kept. A column that somebody added by hand is not touched, and refused elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import lance
import pyarrow as pa

from embedding_core.lake import schema
from embedding_core.lake.disk.flushing import INDEX_ROOMS, flushed
from embedding_core.lake.evolution import commit_schema
from embedding_core.lake.faults import store_faults, tried_again
from embedding_core.lake.table import Table
from embedding_core.recipe import Recipe


@dataclass(frozen=True, slots=True)
class ColumnChanges:
    """What a recipe's metadata section changes about the columns of its table."""

    added: tuple[str, ...] = ()
    """New columns, in the recipe's order; a column whose type changes is in both lists."""
    dropped: tuple[str, ...] = ()
    """Columns that are dropped with their values."""

    @property
    def any(self) -> bool:
        """Whether there is a change."""
        return bool(self.added or self.dropped)


NO_CHANGES = ColumnChanges()


def column_changes(recipe: Recipe, arrow_schema: pa.Schema) -> ColumnChanges:
    """How the recipe's metadata columns differ from those that its table was given."""
    declared = {field.name: field for field in schema.metadata_fields(recipe)}
    fields = {name: arrow_schema.field(name) for name in arrow_schema.names}
    same = {name for name, field in declared.items() if name in fields and fields[name] == field}
    return ColumnChanges(
        added=tuple(name for name in declared if name not in same),
        dropped=tuple(
            name
            for name in schema.metadata_names(arrow_schema)
            if name in fields and name not in same
        ),
    )


def start_again(table: Table, arrow_schema: pa.Schema) -> None:
    """Give a table without rows another schema, in one commit; its older versions stay."""
    with flushed(table.uri, *INDEX_ROOMS), store_faults(f"making {table.uri} again"):
        lance.write_dataset(
            arrow_schema.empty_table(),
            table.uri,
            schema=arrow_schema,
            mode="overwrite",
            storage_options=table.lake.options,
        )


def is_adapted(arrow_schema: pa.Schema, recipe: Recipe) -> bool:
    """Whether a table has the recipe's metadata columns, in the recipe's order."""
    if column_changes(recipe, arrow_schema).any:
        return False
    return bool(arrow_schema.equals(_ordered(arrow_schema, recipe), check_metadata=True))


def adapt_columns(table: Table, recipe: Recipe) -> None:
    """Drop and add metadata columns until the table has those of the recipe, in its order.

    Reads no row. Each step is a commit; the next call does what a crash left to do.
    """
    tried_again(f"change the columns of {table.uri}", lambda _attempt: _adapt(table, recipe))


def _adapt(table: Table, recipe: Recipe) -> None:
    dataset = table.dataset()
    changes = column_changes(recipe, dataset.schema)
    # 1. Drop columns, also those of another type. The table's list keeps their names until step 3,
    #    so that after a crash in between none of them looks like a column added by hand.
    if changes.dropped:
        kept = [field for field in dataset.schema if field.name not in changes.dropped]
        _commit(table, dataset, pa.schema(kept, metadata=dataset.schema.metadata))
        dataset = table.dataset()
    # 2. Add columns: null in every row, metadata alone is written.
    new = [
        field for field in schema.metadata_fields(recipe) if field.name not in dataset.schema.names
    ]
    if new:
        dataset.add_columns(pa.schema(new))
        dataset = table.dataset()
    # 3. Put them into the order in which rows are written, and list their names.
    if not is_adapted(dataset.schema, recipe):
        _commit(table, dataset, _ordered(dataset.schema, recipe))


def _ordered(arrow_schema: pa.Schema, recipe: Recipe) -> pa.Schema:
    rows = schema.row_schema(recipe).names
    first = [arrow_schema.field(name) for name in rows]
    others = [field for field in arrow_schema if field.name not in rows]
    names = json.dumps([field.name for field in schema.metadata_fields(recipe)]).encode()
    metadata = {**(arrow_schema.metadata or {}), schema.COLUMNS_KEY: names}
    return pa.schema([*first, *others], metadata=metadata)


def _commit(table: Table, dataset: lance.LanceDataset, new_schema: pa.Schema) -> None:
    commit_schema(dataset, new_schema, table.lake.options)
