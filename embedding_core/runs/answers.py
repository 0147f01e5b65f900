"""Answer queries in words from a recipe's table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from embedding_core.encoder import InvalidText
from embedding_core.encoder.engines import describe_model
from embedding_core.errors import UsageError
from embedding_core.lake.query.hits import Hit, Hits
from embedding_core.lake.query.search import Query, check_query_space
from embedding_core.lake.schema import VECTOR
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import Table, existing_table
from embedding_core.protocols import TextEncoder
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.job import in_use, load, load_described
from embedding_core.runs.serving import QUERIES_PER_CALL, serving_model, stored_model
from embedding_core.runs.space.bridging import bridged


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of a query."""

    query_id: str
    query: str
    hits: tuple[Hit, ...]
    """Best first."""


def search(
    recipe: Recipe,
    resources: Resources,
    queries: Mapping[str, str],
    query: Query,
    bridge_from: ModelSpec | None = None,
) -> Iterator[Answer]:
    """Answer each of ``queries`` (texts by id), in their order.

    The model is the one that made the searched column, whatever the recipe names; or, for the
    column in service, ``bridge_from``, whose vectors go through the bridge that a sample of it left
    (``runs.space.bridging``). Raises
    ``UsageError`` for a query without words or a bad filter. Raises ``LakeError``, before the model
    is loaded, when that model gives vectors of another space here.
    """
    snapshot = existing_table(recipe).open_to_search()
    encoder = _encoder(recipe, resources, snapshot, query, bridge_from)
    remaining = iter(queries.items())
    while texts := dict(islice(remaining, QUERIES_PER_CALL)):
        hits_by_query = _hits(snapshot, texts, encoder, query)
        for (query_id, words), hits in zip(texts.items(), hits_by_query, strict=True):
            yield Answer(query_id, words, tuple(hits))


def _encoder(
    recipe: Recipe,
    resources: Resources,
    snapshot: Snapshot,
    query: Query,
    bridge_from: ModelSpec | None,
) -> TextEncoder:
    if bridge_from is not None:
        if query.column != VECTOR:
            raise UsageError(
                f"a bridge leads to the column in service, not to {query.column!r}; name either"
            )
        return bridged(snapshot, load(bridge_from, resources))
    serving = serving_model(recipe, snapshot, query.column)
    check_query_space(serving.info.space, *snapshot.space(query.column))
    return load_described(serving.info, serving.model, resources)


def ask(
    table: Table, words: str, query: Query | None = None, resources: Resources | None = None
) -> Hits:
    """The hits of one text, for programs that know the table and no recipe.

    Each call reads the newest version of the table and uses the model that the table names there,
    so a promote or a rollback needs nothing. Threads that ask together use the model by turns.
    Raises as ``search``, and ``LakeError`` for a table that embedlake did not make.
    """
    query = query or Query()
    snapshot = table.open_to_search()
    identifier, space = snapshot.space(query.column)
    model = stored_model(snapshot, query.column)
    info = describe_model(model)
    check_query_space(info.space, identifier, space)
    with in_use(info, model, resources or Resources()) as encoder:
        return _hits(snapshot, {"words": words}, encoder, query)[0]


def _hits(
    snapshot: Snapshot, texts: Mapping[str, str], encoder: TextEncoder, query: Query
) -> list[Hits]:
    """Hits of the texts in their order. Raises ``UsageError`` for a text without words."""
    for query_id, words in texts.items():
        if not words.strip():
            raise UsageError(f"query {query_id!r} has no words; write what to look for")
    try:
        return snapshot.search_many(list(texts.values()), encoder, query)
    except InvalidText as error:
        raise UsageError(f"query {list(texts)[error.index]!r} {error.why}") from error
