"""Retrieval quality of a vector column on labelled queries (BEIR file formats)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from embedding_core.lake.query.hits import Hit
from embedding_core.lake.query.search import Query
from embedding_core.lake.scans import has_documents
from embedding_core.lake.schema import VECTOR
from embedding_core.lake.table import existing_table
from embedding_core.quality import Interval, score_run
from embedding_core.quality.labels import Labels, nothing_known, read_labels
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.job import load_described
from embedding_core.runs.serving import QUERIES_PER_CALL, serving_model

DOCUMENTS = 100
"""Ranked documents per query: recall@100 needs that many."""


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
    index's recall is measured when it is built. A column is judged with the model that made it,
    whatever the recipe names, and by the rows that it has vectors for. ``queries`` and ``qrels``
    default to the recipe's release section. Raises ``UsageError`` for missing or malformed files,
    and when none of the judged documents is in the table.
    """
    snapshot = existing_table(recipe).open()
    labels = read_labels(recipe, queries, qrels)
    space_id, _ = snapshot.space(column)  # a wrong name is refused before a model is loaded
    serving = serving_model(recipe, snapshot, column)
    encoder = load_described(serving.info, serving.model, resources)
    most = max(1, min(snapshot.n_rows, 10 * DOCUMENTS))  # chunks of enough different documents
    query = Query(k=most, exact=True, column=column)
    ranked: dict[str, list[str]] = {}
    remaining = iter(labels.texts.items())
    while texts := dict(islice(remaining, QUERIES_PER_CALL)):
        hits = snapshot.search_many(list(texts.values()), encoder, query)
        ranked.update(zip(texts, map(_documents, hits), strict=True))
    if not _finds_any(ranked, labels) and not has_documents(snapshot, labels.documents):
        raise nothing_known(labels)
    return Evaluation(
        column=column,
        space_id=space_id,
        metrics=score_run(ranked, labels.grades),
        queries=len(labels.texts),
        queries_without_relevant=labels.left_out,
    )


def _finds_any(ranked: Mapping[str, Sequence[str]], labels: Labels) -> bool:
    return any(labels.grades[query].keys() & set(documents) for query, documents in ranked.items())


def _documents(hits: Sequence[Hit]) -> list[str]:
    """Different documents in the order of their best chunks."""
    return list(dict.fromkeys(hit.doc_id for hit in hits))[:DOCUMENTS]
