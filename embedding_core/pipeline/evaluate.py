"""Retrieval quality of a vector column on labelled queries (BEIR file formats)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedding_core.errors import UsageError
from embedding_core.lake import Hit, Lake, Query, model_of
from embedding_core.lake.schema import VECTOR
from embedding_core.pipeline.job import load
from embedding_core.pipeline.search import labelled_bytes
from embedding_core.quality import Interval, read_qrels, read_queries, score_run
from embedding_core.recipe import Recipe, Resources

DOCUMENTS = 100
"""Ranked documents per query: recall@100 needs that many."""
QUERIES_PER_CALL = 256


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What labelled queries say about a column."""

    column: str
    space_id: str
    metrics: dict[str, Interval]
    """``ndcg@10``, ``recall@10``, ``recall@100``, ``mrr@10``; 95 % bootstrap intervals."""
    queries: int
    """Queries that count: at least one document was judged relevant."""
    queries_without_relevant: int
    """Queries left out of the means."""


def evaluate(
    recipe: Recipe,
    resources: Resources,
    queries: str | None = None,
    qrels: str | None = None,
    column: str = VECTOR,
) -> Evaluation:
    """Rank documents for each query by exact search and score the ranking.

    A document stands where its best chunk does. Exact search judges the embeddings alone; the
    index's recall is measured when it is built. A column that is not in service is judged with the
    model that it names, and by the rows that it has vectors for. ``queries`` and ``qrels`` default
    to the recipe's release section. Raises ``UsageError`` for missing or malformed files.
    """
    table = Lake.open(recipe.lake.uri, recipe.lake.storage).table(recipe.lake.table)
    texts = read_queries(*_labelled(recipe, queries or recipe.release.queries, "queries"))
    grades = read_qrels(*_labelled(recipe, qrels or recipe.release.qrels, "qrels"))
    judged = [q for q in texts if any(grade > 0 for grade in grades.get(q, {}).values())]
    if not judged:
        raise UsageError(
            "no query has a relevant document in the qrels; check that their query ids are the "
            "same as in the queries file"
        )
    in_service = column == VECTOR
    table.space(column)  # a wrong name is found before a model is loaded
    encoder = load(recipe.model if in_service else model_of(table.dataset(), column), resources)
    depth = _depth(table.dataset().count_rows())
    ranked: dict[str, list[str]] = {}
    for start in range(0, len(judged), QUERIES_PER_CALL):
        some = judged[start : start + QUERIES_PER_CALL]
        words = [texts[query] for query in some]
        found = table.search_many(words, encoder, Query(k=depth, exact=True, column=column))
        ranked.update(zip(some, map(_documents, found), strict=True))
    return Evaluation(
        column=column,
        space_id=table.space(column)[0],
        metrics=score_run(ranked, {query: grades[query] for query in judged}),
        queries=len(judged),
        queries_without_relevant=len(texts) - len(judged),
    )


def _labelled(recipe: Recipe, uri: str | None, kind: str) -> tuple[bytes, str]:
    if uri is None:
        raise UsageError(
            f"no {kind} file: give --{kind}, or name it in the recipe as release.{kind}"
        )
    return labelled_bytes(uri, recipe, kind), uri


def _depth(n_rows: int) -> int:
    """Chunks to fetch so that ``DOCUMENTS`` different documents are among them in practice."""
    return max(1, min(n_rows, 10 * DOCUMENTS))


def _documents(hits: Sequence[Hit]) -> list[str]:
    """Different documents in the order of their best chunks."""
    return list(dict.fromkeys(hit.doc_id for hit in hits))[:DOCUMENTS]
