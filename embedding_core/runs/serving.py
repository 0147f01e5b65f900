"""Find the model whose vectors a table serves."""

from __future__ import annotations

from embedding_core.encoder.engines import describe_model
from embedding_core.errors import EmbedlakeError
from embedding_core.identity import space_id
from embedding_core.lake import schema
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.vector_columns import model_of
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe

QUERIES_PER_CALL = 256
"""Queries encoded together."""


def following(recipe: Recipe) -> Recipe:
    """The recipe, with the model in service if ``release.follow`` is set.

    A table without rows has no model in service. Raises ``LakeError`` when the table does not name
    its model.
    """
    snapshot = table_of(recipe).open_if_made() if recipe.release.follow else None
    if snapshot is None or not snapshot.n_rows:
        return recipe
    stored = model_of(snapshot.dataset, schema.VECTOR)
    model = stored.model_copy(update={"over_length": recipe.model.over_length})
    return recipe.model_copy(update={"model": model})


def serving_model(recipe: Recipe, snapshot: Snapshot, column: str = schema.VECTOR) -> ModelSpec:
    """The model whose vectors a column holds: the recipe's if its space is the column's, else the
    model that the table names. Raises ``LakeError`` when the table names none."""
    if _space_of(recipe.model) == snapshot.space(column)[0]:
        return recipe.model
    return model_of(snapshot.dataset, column)


def _space_of(model: ModelSpec) -> str | None:
    """The model's space; None for a model that is not here, since the table may name another."""
    try:
        return space_id(describe_model(model).space)
    except EmbedlakeError:
        return None
