"""Whose a table is: it belongs to one recipe and keeps vectors of one space in service.

Both are checked on every opening for writing, so that rows of two recipes or vectors of two spaces
never mix.
"""

from __future__ import annotations

import lance
import pyarrow as pa

from embedding_core.errors import LakeError, Transient
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake import schema
from embedding_core.lake.evolution import commit_schema
from embedding_core.lake.faults import tried_again
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe
from embedding_core.records import Space


def ensure_table(recipe: Recipe, space: Space, cutter: schema.Cutter) -> Table:
    """The recipe's table, made when missing, refused when it is another recipe's."""
    table = table_of(recipe)
    if not table.exists():
        try:
            table.create(schema.table_schema(recipe, space, cutter))
        except Transient:
            if not table.exists():  # else another run was first, and the owner is checked below
                raise
    check_owner(table, recipe, space)
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

    Columns of other spaces, being built or kept, are no difference. ``dataset``: the version to
    look at, the newest when none is given.
    """
    where = f"table {table.name!r} in {table.lake.uri}"
    check_recipe(table, recipe)
    found = (dataset or table.dataset()).schema
    held, held_space = schema.space_of(table.field(schema.VECTOR, found))
    wanted = space_id(space)
    if held != wanted:
        raise LakeError(
            f"{where} holds vectors of space {held[:SHOWN_DIGITS]} ({held_space.model}), the "
            f"recipe's model gives space {wanted[:SHOWN_DIGITS]} ({space.model}); they differ in "
            f"{schema.difference(held_space, space)}. Vectors of two spaces never mix: "
            f"{_way_out(found, wanted)}"
        )
    columns = schema.row_schema(recipe).append(schema.vector_field(space))
    found = pa.schema([one for one in found if not schema.is_hidden(one)])
    if found != columns:
        raise LakeError(
            f"{where} has other columns than the recipe ({_difference(found, columns)}); columns "
            "are fixed when a table is made: drop one that was added by hand, use another "
            "lake.table, or name the old metadata columns"
        )


def _way_out(found: pa.Schema, wanted: str) -> str:
    """What to do about a recipe whose model is not the one in service."""
    other = schema.hidden_name(wanted)
    if other in found.names:
        return (
            f"put that space in service with `embedlake promote RECIPE {other}`, or name the model "
            "in service in the recipe"
        )
    return (
        "`embedlake reembed RECIPE` builds the recipe's beside it, judges it and puts it in "
        "service; or name the model in service, or embed with that by release.follow: true"
    )


def _difference(found: pa.Schema, wanted: pa.Schema) -> str:
    has, wants = ({f"{f.name}: {f.type}" for f in one} for one in (found, wanted))
    extra, missing = sorted(has - wants), sorted(wants - has)
    return f"only in the table: {extra or 'none'}; only in the recipe: {missing or 'none'}"
