"""Judges a new space against the one in service, over rows that have vectors of both.

Asks both the same queries by exact search, one pass for both: people's queries when the recipe's
release section names some, else queries made from the rows. The rules are in ``quality.checks``;
here their evidence is gathered. Knows no table: the rows may be a sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.errors import LakeError, UsageError
from embedding_core.protocols import Corpus, JudgedRows, Vectors
from embedding_core.quality.bridge import Bridge, BridgeQuality, CosineMean
from embedding_core.quality.checks import findings, verdict_of
from embedding_core.quality.drift import drift_between
from embedding_core.quality.evidence import Evidence, Finding, QueryKind, Verdict
from embedding_core.quality.exact import ByDocument, ExactRanking, Ranking
from embedding_core.quality.health import HealthCheck
from embedding_core.quality.known_item import known_items
from embedding_core.quality.labels import Labels, nothing_known, read_labels
from embedding_core.quality.metrics import compare_runs
from embedding_core.quality.oldnew import OldNew
from embedding_core.recipe import Recipe
from embedding_core.records import Space


@dataclass(frozen=True, slots=True)
class JudgedSpace:
    """One of the two spaces."""

    column: str
    """Its column in the table; of a space that is only sampled, the one it would have."""
    space_id: str
    model: str
    dim: int


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two spaces, and how to ask it."""

    judged: JudgedSpace
    space: Space
    encode: Callable[[Sequence[str]], Vectors]
    """Queries to (n_queries, dim) float32, NaN for a query that the model has no vector for. It is
    called once, and the old side's first, so that one model at a time need be in memory."""


@dataclass(frozen=True, slots=True)
class GateReport(Evidence):
    """The verdict and everything it rests on."""

    verdict: Verdict
    recipe: str
    table: str
    version: int | None
    """The version of the table that was read; None for rows that are no table."""
    old: JudgedSpace
    new: JudgedSpace
    findings: tuple[Finding, ...]
    """What failed first, then warnings."""
    seconds: float

    @property
    def outcome(self) -> Literal["done", "refused"]:
        """``refused`` when the verdict is no."""
        return "done" if self.verdict == "yes" else "refused"


def judge(
    recipe: Recipe,
    corpus: Corpus,
    old: Side,
    new: Side,
    *,
    sampled_share: float | None = None,
    version: int | None = None,
    bridge: Bridge | None = None,
) -> GateReport:
    """Judge two spaces by the rows of ``corpus``, which is read once, or twice without
    labelled queries.

    ``sampled_share``: the rows' share of the table's, when they are a sample of it. ``bridge``: a
    map from the new space to the old, whose worth is measured too. Judgements of documents without
    a row do not count, nor do queries that have no relevant document left. Memory is bounded by the
    queries and one batch. Raises ``LakeError`` for a corpus without rows and
    ``UsageError`` for labelled files that cannot be used or that name none of its documents.
    """
    started = time.perf_counter()
    queries = _ask(recipe, corpus, old, new)
    evidence = _search(queries, corpus, sampled_share, bridge)
    return _report(recipe, evidence, old, new, version, started)


@dataclass(frozen=True, slots=True)
class _Queries:
    """The queries, and their vectors in each space."""

    kind: QueryKind
    labels: Labels
    vectors: OldNew[Vectors]


def _ask(recipe: Recipe, corpus: Corpus, old: Side, new: Side) -> _Queries:
    kind: QueryKind = "labelled"
    if recipe.release.queries is None and recipe.release.qrels is None:
        kind, labels = "known-item", _made_from(corpus)
    else:
        labels = read_labels(recipe)
    words = list(labels.texts.values())
    return _Queries(kind, labels, OldNew(old.encode(words), new.encode(words)))


def _made_from(corpus: Corpus) -> Labels:
    items = known_items(corpus()) or known_items(corpus(), whole_texts=True)
    if not items:
        raise UsageError(
            "there is no text to make queries from: there are no rows, or all texts are alike; "
            "name labelled queries in the recipe (release.queries and release.qrels)"
        )
    texts = {f"{number:04}": item.query for number, item in enumerate(items)}
    grades = {f"{number:04}": {item.doc_id: 1} for number, item in enumerate(items)}
    return Labels(texts, dict(grades), 0)


class _Bridged:
    """Queries of the new model on the old vectors, by a bridge."""

    def __init__(self, bridge: Bridge, queries: _Queries) -> None:
        self._ranking = ExactRanking(bridge.mapped(queries.vectors.new))
        self._cosines = CosineMean(bridge)

    def add(self, documents: ByDocument, rows: JudgedRows) -> None:
        self._ranking.add(documents, rows.old)
        self._cosines.add(rows.chunk_ids, rows.new, rows.old)

    def quality(self, old: Mapping[str, Sequence[str]], labels: Labels) -> BridgeQuality:
        """Against ``old``, the ranking of each query without the new model."""
        bridged = dict(zip(old, self._ranking.ranking().documents, strict=True))
        return BridgeQuality.of(compare_runs(old, bridged, labels.grades), self._cosines.mean())


def _search(
    queries: _Queries, corpus: Corpus, sampled_share: float | None, bridge: Bridge | None
) -> Evidence:
    """Rank and check the rows of both spaces in one pass."""
    old, new = queries.vectors.old, queries.vectors.new
    rankings = OldNew(ExactRanking(old), ExactRanking(new))
    checks = OldNew(HealthCheck(old.shape[1]), HealthCheck(new.shape[1]))
    bridged = None if bridge is None else _Bridged(bridge, queries)
    judged, present = pa.array(sorted(queries.labels.documents), pa.string()), set[str]()
    for rows in corpus():
        if not rows.texts:
            continue
        present.update(rows.doc_ids.filter(pc.is_in(rows.doc_ids, judged)).to_pylist())
        documents = ByDocument.of(rows.doc_ids)
        for ranking, check, vectors in (
            (rankings.old, checks.old, rows.old),
            (rankings.new, checks.new, rows.new),
        ):
            ranking.add(documents, vectors)
            check.add(rows.texts, vectors)
        if bridged is not None:
            bridged.add(documents, rows)
    ranked = OldNew(rankings.old.ranking(), rankings.new.ranking())
    return _weighed(queries, present, ranked, checks, sampled_share, bridged)


def _weighed(
    queries: _Queries,
    present: set[str],
    rankings: OldNew[Ranking],
    checks: OldNew[HealthCheck],
    sampled_share: float | None,
    bridged: _Bridged | None,
) -> Evidence:
    health = OldNew(
        checks.old.health(_n_without(queries.vectors.old)),
        checks.new.health(_n_without(queries.vectors.new)),
    )
    if not health.new.rows:
        raise LakeError("there are no rows to judge a space by", action="embed")
    labels = queries.labels.among(present)
    if not labels.texts:
        raise nothing_known(queries.labels)
    old, new = (
        dict(zip(queries.labels.texts, ranking.documents, strict=True))
        for ranking in (rankings.old, rankings.new)
    )
    return Evidence(
        queries_kind=queries.kind,
        queries=len(labels.texts),
        queries_left_out=labels.left_out,
        judged_documents=len(queries.labels.documents),
        unknown_documents=len(queries.labels.documents) - len(present),
        rows=health.new.rows,
        sampled_share=sampled_share,
        metrics=compare_runs(old, new, labels.grades),
        drift=drift_between(rankings.old, rankings.new),
        health=health,
        ann=None,
        latency=None,
        bridge=None if bridged is None else bridged.quality(old, labels),
    )


def _report(
    recipe: Recipe, evidence: Evidence, old: Side, new: Side, version: int | None, started: float
) -> GateReport:
    results = findings(evidence, recipe.release, recipe.index.target_recall)
    return GateReport(
        **{field.name: getattr(evidence, field.name) for field in fields(evidence)},
        verdict=verdict_of(results),
        recipe=recipe.name,
        table=recipe.lake.table,
        version=version,
        old=old.judged,
        new=new.judged,
        findings=results,
        seconds=time.perf_counter() - started,
    )


def _n_without(vectors: Vectors) -> int:
    return int(np.isnan(vectors).any(axis=1).sum())
