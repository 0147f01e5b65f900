"""Whose a table is: it belongs to one recipe and keeps vectors of one space in service.

Both are checked on every opening for writing, so that rows of two recipes or vectors of two spaces
never mix.
"""

from __future__ import annotations

import json

import lance
import pyarrow as pa

from embedding_core.errors import LakeError, Transient
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake import schema
from embedding_core.lake.evolution import commit_schema
from embedding_core.lake.faults import tried_again
from embedding_core.lake.ownership.adoption import adapt_columns, has_no_rows, start_again
from embedding_core.lake.spaces.vector_columns import model_of
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe
from embedding_core.records import Space


def ensure_table(recipe: Recipe, space: Space, cutter: schema.Cutter) -> Table:
    """The recipe's table, made when missing, refused when it is another recipe's.

    A table without rows takes the recipe's columns and space as they are now; one with rows takes
    and loses metadata columns.
    """
    table = table_of(recipe)
    columns = schema.table_schema(recipe, space, cutter)
    if not table.exists():
        try:
            table.create(columns)
        except Transient:
            if not table.exists():  # else another run was first, and the owner is checked below
                raise
    check_owner(table, recipe, space)
    dataset = table.dataset()
    if has_no_rows(dataset) and not dataset.schema.equals(columns, check_metadata=True):
        start_again(table, columns)  # the metadata says of which space the vectors are
    adapt_columns(table, recipe)
    tried_again(f"describe {table.uri}", lambda _attempt: _describe(table, recipe, space, cutter))
    return table


def _describe(table: Table, recipe: Recipe, space: Space, cutter: schema.Cutter) -> None:
    """Let the table name its models as the recipe now does."""
    dataset = table.dataset()
    wanted = schema.described(recipe, space, cutter)
    known = dataset.schema.metadata or {}
    if wanted.items() - known.items():
        check_owner(table, recipe, space, dataset)  # another space may be in service by now
        described = dataset.schema.with_metadata({**known, **wanted})
        commit_schema(dataset, described, table.lake.options())


def check_recipe(table: Table, recipe: Recipe) -> None:
    """Raise ``LakeError`` unless the table is this recipe's."""
    owner = table.recipe_name()
    if owner != recipe.name:
        raise LakeError(
            f"table {table.name!r} in {table.lake.uri} belongs to the recipe {owner!r}, not to "
            f"{recipe.name!r}; use another lake.table, or the recipe's own name"
        )


def check_owner(
    table: Table, recipe: Recipe, space: Space, dataset: lance.LanceDataset | None = None
) -> None:
    """Raise ``LakeError`` unless the table is this recipe's and has this space in service.

    Columns of other spaces, being built or kept, are no difference, nor are metadata columns, which
    follow the recipe. A table without rows can take any space. ``dataset``: the version to look at,
    the newest when none is given.
    """
    where = f"table {table.name!r} in {table.lake.uri}"
    check_recipe(table, recipe)
    dataset = dataset or table.dataset()
    if has_no_rows(dataset):
        return
    found = dataset.schema
    held, held_space = schema.space_of(table.field(schema.VECTOR, found))
    wanted = space_id(space)
    if held != wanted:
        raise LakeError(
            f"{where} holds vectors of space {held[:SHOWN_DIGITS]} ({held_space.model}), the "
            f"recipe's model gives space {wanted[:SHOWN_DIGITS]} ({space.model}); they differ in "
            f"{schema.difference(held_space, space)}. Vectors of two spaces never mix: "
            f"{_way_out(dataset, wanted)}"
        )
    fixed = pa.schema([*schema.FIXED_FIELDS, schema.vector_field(space)])
    missing = [field.name for field in fixed if field not in found]
    if missing:
        raise LakeError(
            f"{where} lacks columns that every table has ({', '.join(missing)}): they were dropped "
            "or changed by hand; restore a version of the table that has them"
        )
    foreign = _foreign_columns(recipe, found)
    if foreign:
        raise LakeError(
            f"{where} has columns that embedlake did not make ({', '.join(foreign)}), and new rows "
            "would lack them; drop them, or write to another lake.table"
        )


def _way_out(dataset: lance.LanceDataset, wanted: str) -> str:
    """What to do about a recipe whose model is not the one in service."""
    in_service = model_of(dataset, schema.VECTOR).model_dump(exclude_defaults=True)
    stay = (
        f"to stay with the model in service, write `model: {json.dumps(in_service)}` into "
        "the recipe, or `release: {follow: true}`, which goes with every promote"
    )
    other = schema.hidden_name(wanted)
    if other in dataset.schema.names:
        return f"`embedlake promote RECIPE {other}` puts the recipe's in service; {stay}"
    return (
        "`embedlake reembed RECIPE` builds the recipe's beside it, judges it and puts it in "
        f"service; {stay}"
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
