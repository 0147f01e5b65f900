"""Find the model whose vectors a table serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from embedding_core.encoder.engines import ModelInfo, describe_model
from embedding_core.encoder.remote.credentials import check_meant_for
from embedding_core.encoder.remote.fingerprint import POOLING, is_same_model
from embedding_core.errors import EmbedlakeError, Transient
from embedding_core.identity import space_id
from embedding_core.lake import schema
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.vector_columns import model_of, spaces
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe
from embedding_core.recipe.paths import kind_of
from embedding_core.records import Space

QUERIES_PER_CALL = 256
"""Queries encoded together."""


def following(recipe: Recipe) -> Recipe:
    """The recipe as a run takes it: with the model in service if ``release.follow`` is set, and
    with a server's model pinned to the fingerprint that the table has of it.

    A table without rows has no model in service. Raises ``LakeError`` when the table does not name
    its model.
    """
    model = recipe.model
    if not recipe.release.follow and not is_endpoint(model):
        return recipe
    snapshot = table_of(recipe).open_if_made()
    if recipe.release.follow and snapshot is not None and snapshot.n_rows:
        stored = stored_model(snapshot, schema.VECTOR, recipe.model)
        model = stored.model_copy(update={"over_length": model.over_length})
    else:
        model = recognised(model, () if snapshot is None else spaces(snapshot))
    return recipe if model == recipe.model else recipe.model_copy(update={"model": model})


def recognised(model: ModelSpec, recorded: Iterable[Space]) -> ModelSpec:
    """The model section; of a server, pinned to the fingerprint among ``recorded`` that is near to
    that of its vectors now, else to the latter.

    A server's vectors are a little different every time, so that each task of a run would come to
    another space. Other models are as they are: each task looks where they are now.
    """
    if not is_endpoint(model) or model.revision is not None:
        return model
    space = describe_model(model).space
    known_space = next((past for past in recorded if is_same_model(space, past)), space)
    return model.pinned(known_space.revision)


def stored_model(snapshot: Snapshot, column: str, named: ModelSpec | None = None) -> ModelSpec:
    """The model that a table names as that of a column; ``named`` is the one that a person named.

    Raises ``LakeError`` when the table names none, ``ModelError`` for a server whose name the table
    alone has, when it would get a token that is for every server.
    """
    stored = model_of(snapshot.dataset, column)
    check_servers(stored, named)
    return stored


def check_servers(stored: ModelSpec, named: ModelSpec | None = None) -> None:
    """Raise ``ModelError`` as ``stored_model``."""
    check_meant_for(_servers(stored), () if named is None else _servers(named))


def _servers(model: ModelSpec) -> tuple[str, ...]:
    return (model.name, *model.endpoints) if is_endpoint(model) else ()


def is_endpoint(model: ModelSpec) -> bool:
    """Whether a server runs the model."""
    return kind_of(model.name) == "endpoint"


@dataclass(frozen=True, slots=True)
class ServingModel:
    """The model whose vectors a column holds, as it is now."""

    model: ModelSpec
    info: ModelInfo


def serving_model(recipe: Recipe, snapshot: Snapshot, column: str = schema.VECTOR) -> ServingModel:
    """The model whose vectors a column holds: the recipe's if its space is the column's, else the
    model that the table names; each is looked for once.

    Raises ``LakeError`` when the table names none. Errors as ``describe_model``.
    """
    identifier, space = snapshot.space(column)
    model = recipe.model
    if is_endpoint(model) and model.revision is None and space.pooling == POOLING:
        model = model.pinned(space.revision)
    failure: EmbedlakeError | None = None
    try:
        info = describe_model(model)
        if space_id(info.space) == identifier:
            return ServingModel(model, info)
    except EmbedlakeError as error:  # the recipe's model is not here; the table may name another
        failure = error
    named = stored_model(snapshot, column, recipe.model)
    if isinstance(failure, Transient) and named.name == model.name:
        raise failure
    return ServingModel(named, describe_model(named))
