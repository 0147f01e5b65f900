"""Which model a table is in: the one in service, whatever the recipe names by now."""

from __future__ import annotations

from embedding_core.errors import EmbedlakeError
from embedding_core.identity import space_id
from embedding_core.lake import schema
from embedding_core.lake.ownership.adoption import has_no_rows
from embedding_core.lake.spaces.vector_columns import model_of
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import ModelSpec, Recipe
from embedding_core.runs.job import resolve


def following(recipe: Recipe) -> Recipe:
    """The recipe with the model in service if it says ``release.follow``; else as it is. A table
    without rows has none.

    Raises ``LakeError`` when the table does not name its model.
    """
    table = table_of(recipe)
    if not recipe.release.follow or not table.exists() or has_no_rows(table.dataset()):
        return recipe
    stored = model_of(table.dataset(), schema.VECTOR)
    model = stored.model_copy(update={"over_length": recipe.model.over_length})
    return recipe.model_copy(update={"model": model})


def serving_model(recipe: Recipe, table: Table, column: str = schema.VECTOR) -> ModelSpec:
    """The model whose vectors a column holds: the recipe's, if it is of that space, else the one
    that the table names. Raises ``LakeError`` when it names none."""
    if _space_of(recipe.model) == table.space(column)[0]:
        return recipe.model
    return model_of(table.dataset(), column)


def _space_of(model: ModelSpec) -> str | None:
    """None for a model that is not here: the table may name one that is."""
    try:
        return space_id(resolve(model).space)
    except EmbedlakeError:
        return None
