"""Answer queries in words from a recipe's table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from embedding_core.encoder import InvalidText
from embedding_core.encoder.engines import describe_model
from embedding_core.errors import UsageError
from embedding_core.lake.query.hits import Hit
from embedding_core.lake.query.search import Query, check_query_space
from embedding_core.lake.table import existing_table
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.job import load_described
from embedding_core.runs.serving import serving_model

QUERIES_PER_CALL = 256
"""Queries encoded together."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of a query."""

    query_id: str
    query: str
    hits: tuple[Hit, ...]
    """Best first."""


def search(
    recipe: Recipe, resources: Resources, queries: Mapping[str, str], query: Query
) -> Iterator[Answer]:
    """Answer each of ``queries`` (texts by id), in their order.

    The model is the one that made the searched column, whatever the recipe names. Raises
    ``UsageError`` for a query without words or a bad filter. Raises ``LakeError``, before the model
    is loaded, when that model gives vectors of another space here.
    """
    snapshot = existing_table(recipe).open_to_search()
    model = serving_model(recipe, snapshot, query.column)
    info = describe_model(model)
    check_query_space(info.space, *snapshot.space(query.column))
    encoder = load_described(info, model, resources)
    remaining = iter(queries.items())
    while texts := dict(islice(remaining, QUERIES_PER_CALL)):
        for query_id, words in texts.items():
            if not words.strip():
                raise UsageError(f"query {query_id!r} has no words; write what to look for")
        try:
            hits_by_query = snapshot.search_many(list(texts.values()), encoder, query)
        except InvalidText as error:
            raise UsageError(f"query {list(texts)[error.index]!r} {error.why}") from error
        for (query_id, words), hits in zip(texts.items(), hits_by_query, strict=True):
            yield Answer(query_id, words, tuple(hits))
