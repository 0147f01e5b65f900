"""The owner of a table: one recipe, whose table keeps vectors of one space in service.

Both are checked whenever a table is opened for writing, so that rows of two recipes or vectors of
two spaces never mix.
"""

from __future__ import annotations

import json
from collections.abc import Collection

import pyarrow as pa

from embedding_core.errors import LakeError, Switched
from embedding_core.identity import SHOWN_DIGITS, chunk_id, space_id
from embedding_core.lake import schema
from embedding_core.lake.evolution import commit_schema
from embedding_core.lake.faults import tried_again
from embedding_core.lake.ownership.adoption import adapt_columns, is_adapted, start_again
from embedding_core.lake.scans import scan_values
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.vector_columns import model_of
from embedding_core.lake.table import existing_table, table_of
from embedding_core.recipe import Recipe
from embedding_core.records import Space

IDENTIFIED_BY = ["chunk_id", "file_key", "source_uri", "doc_id", "chunk_index", "text_hash"]


def ensure_table(recipe: Recipe, space: Space, cutter: schema.Cutter) -> Snapshot:
    """The recipe's table, made when missing, refused when it is another recipe's.

    A table without rows takes the recipe's columns and space as they are now. A table with rows
    takes and loses metadata columns.
    """
    columns = schema.table_schema(recipe, space, cutter)
    snapshot = table_of(recipe).ensure(columns)
    table = snapshot.table
    check_owner(snapshot, recipe, space)
    is_like = snapshot.schema.equals(columns, check_metadata=True)  # metadata names the space
    if not snapshot.n_rows and not is_like:
        start_again(table, columns)
        snapshot = table.open()
    if not is_adapted(snapshot.schema, recipe):
        adapt_columns(table, recipe)
        snapshot = table.open()
    if not _is_described(snapshot, recipe, space, cutter):
        tried_again(
            f"describe {table.uri}",
            lambda _attempt: _describe(table.open(), recipe, space, cutter),
        )
        snapshot = table.open()
    return snapshot


def open_owned(recipe: Recipe) -> Snapshot:
    """The newest version of the recipe's table.

    Raises ``LakeError`` when there is no table, or when it is another recipe's.
    """
    snapshot = existing_table(recipe).open()
    check_recipe(snapshot, recipe)
    return snapshot


def _is_described(snapshot: Snapshot, recipe: Recipe, space: Space, cutter: schema.Cutter) -> bool:
    description = schema.described(recipe, space, cutter)
    return description.items() <= (snapshot.schema.metadata or {}).items()


def _describe(snapshot: Snapshot, recipe: Recipe, space: Space, cutter: schema.Cutter) -> None:
    """Let the table name its models as the recipe now does."""
    if not _is_described(snapshot, recipe, space, cutter):
        check_owner(snapshot, recipe, space)  # another space may have been put in service
        metadata = snapshot.schema.metadata or {}
        described = snapshot.schema.with_metadata(
            {**metadata, **schema.described(recipe, space, cutter)}
        )
        commit_schema(snapshot.dataset, described, snapshot.table.lake.options)


def check_recipe(snapshot: Snapshot, recipe: Recipe) -> None:
    """Raise ``LakeError`` unless the table is this recipe's."""
    owner = snapshot.recipe_name()
    if owner != recipe.name:
        raise LakeError(
            f"table {snapshot.table.name!r} in {snapshot.table.lake.uri} belongs to the recipe "
            f"{owner!r}, not to {recipe.name!r}; use another lake.table, or the recipe's own name"
        )


def check_owner(snapshot: Snapshot, recipe: Recipe, space: Space) -> None:
    """Raise ``LakeError`` unless the table is this recipe's and has this space in service.

    Columns of other spaces, being built or kept, make no difference. Neither do metadata columns,
    which follow the recipe. A table without rows can take any space. Raises ``Switched`` for a
    recipe that follows what is in service: another space was when the run looked.
    """
    where = f"table {snapshot.table.name!r} in {snapshot.table.lake.uri}"
    check_recipe(snapshot, recipe)
    if not snapshot.n_rows:
        return
    in_service, serving = snapshot.space()
    recipes_id = space_id(space)
    if in_service != recipes_id and recipe.release.follow:
        raise Switched(
            f"{where} got another space in service ({in_service[:SHOWN_DIGITS]}, {serving.model}) "
            f"after the run took {recipes_id[:SHOWN_DIGITS]} ({space.model}) for it: run the same "
            "command again, which goes with the newest"
        )
    if in_service != recipes_id:
        built = schema.hidden_name(recipes_id)
        is_built = built in snapshot.schema.names
        way_out = f"promote the recipe's, {built}" if is_built else "build the recipe's beside it"
        raise LakeError(
            f"{where} holds vectors of space {in_service[:SHOWN_DIGITS]} ({serving.model}), the "
            f"recipe's model gives space {recipes_id[:SHOWN_DIGITS]} ({space.model}); they differ "
            f"in {schema.difference(serving, space)}. Vectors of two spaces never mix: {way_out}, "
            f"or {_to_stay(snapshot)}",
            action="promote" if is_built else "reembed",
        )
    fixed = pa.schema([*schema.FIXED_FIELDS, schema.vector_field(space)])
    missing = [field.name for field in fixed if field not in snapshot.schema]
    if missing:
        raise LakeError(
            f"{where} lacks columns that every table has ({', '.join(missing)}): they were dropped "
            "or changed by hand; restore a version of the table that has them"
        )
    foreign = _foreign_columns(recipe, snapshot.schema)
    if foreign:
        raise LakeError(
            f"{where} has columns that embedlake did not make ({', '.join(foreign)}), and new rows "
            "would lack them; drop them, or write to another lake.table"
        )


def _to_stay(snapshot: Snapshot) -> str:
    """What to do when the model in service is to stay and the recipe names another."""
    in_service = model_of(snapshot.dataset, schema.VECTOR).model_dump(exclude_defaults=True)
    return (
        f"stay with the model in service: write `model: {json.dumps(in_service)}` into the "
        "recipe, or `release: {follow: true}`, which goes with every promote"
    )


def _foreign_columns(recipe: Recipe, arrow_schema: pa.Schema) -> list[str]:
    """Columns of a table that neither its recipe nor embedlake gave it."""
    ours = {schema.VECTOR, *(field.name for field in schema.FIXED_FIELDS)}
    ours.update(schema.metadata_names(arrow_schema))
    declared = schema.metadata_fields(recipe)
    return [
        f"{field.name}: {field.type}"
        for field in arrow_schema
        if field.name not in ours and field not in declared and not schema.is_hidden(field)
    ]


def check_all_ours(snapshot: Snapshot, unknown_keys: Collection[str]) -> None:
    """Raise ``LakeError`` when rows of these file versions were not written by embedlake.

    The ledger does not know these versions. A row that embedlake wrote has the digest of its other
    columns as its ``chunk_id``.
    """
    if not unknown_keys:
        return
    for batch in scan_values(snapshot, "file_key", unknown_keys, IDENTIFIED_BY):
        for row in batch.to_pylist():
            expected = chunk_id(
                row["source_uri"], row["doc_id"], row["chunk_index"], row["text_hash"]
            )
            if row["chunk_id"] != expected:
                raise LakeError(
                    f"table {snapshot.table.name!r} in {snapshot.table.lake.uri} holds rows that "
                    f"embedlake did not write, for example of source_uri {row['source_uri']!r} and "
                    f"file_key {row['file_key']!r}; a table follows one recipe's files "
                    "alone: move such rows to another table and delete them from this one"
                )
