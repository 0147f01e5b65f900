"""A new space against the one in service, over rows that have vectors of both.

Asks both the same queries by exact search, one pass for both: people's queries when the recipe's
release section names some, else queries made from the rows. What counts is in ``quality.verdict``;
here it is gathered. Knows no table: the rows may be a sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_core.encoder import InvalidText
from embedding_core.errors import LakeError, UsageError
from embedding_core.identity import space_id
from embedding_core.lake.query.search import check_query_space
from embedding_core.quality import (
    ByDocument,
    Evidence,
    ExactRanking,
    Finding,
    HealthCheck,
    OldNew,
    Ranking,
    compare_runs,
    drift_between,
    findings,
    known_items,
    verdict_of,
)
from embedding_core.quality.verdict import QueryKind, Verdict
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.records import Space
from embedding_core.runs.encode import Vectors, vectors_in
from embedding_core.runs.job import load
from embedding_core.runs.space.labels import Labels, nothing_known, read_labels

REFUSED = 4
"""Exit code of a gate that says no."""

Corpus = Callable[[], Iterator[pa.RecordBatch]]
"""Gives the rows, the same ones every time: ``chunk_id``, ``doc_id``, ``text``, ``old`` and ``new``
(fixed-size lists of float16 or float32, null for a row without a vector), and ``title`` if the
table has one."""


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
    """Queries to (n_queries, dim) float32, NaN for one that the model has no vector for. Called
    once, that of the old side first, so that one model at a time need be in memory."""


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
    def exit_code(self) -> int:
        """0 for yes, 4 for no."""
        return 0 if self.verdict == "yes" else REFUSED


def side_of(column: str, space: Space, model: ModelSpec, resources: Resources) -> Side:
    """A space and the model that makes its vectors, which is loaded when it is asked.

    Asking raises ``LakeError`` when the model is of another space by now, ``UsageError`` for a
    query that is no text.
    """
    identifier = space_id(space)

    def encode(texts: Sequence[str]) -> Vectors:
        encoder = load(model, resources)
        check_query_space(encoder.space, identifier, space)
        try:
            (found,) = encoder.encode_stream([list(texts)], "query")
        except InvalidText as error:
            raise UsageError(f"query {texts[error.index]!r} {error.why}") from error
        return vectors_in(found.column("vector"))

    return Side(JudgedSpace(column, identifier, space.model, space.dim), space, encode)


def judge(
    recipe: Recipe,
    corpus: Corpus,
    old: Side,
    new: Side,
    *,
    sampled_share: float | None = None,
    version: int | None = None,
) -> GateReport:
    """Judge two spaces by the rows of ``corpus``, which is read once, or twice without
    labelled queries.

    ``sampled_share``: the rows' share of the table's, when they are a sample of it. Judgements of
    documents without a row do not count, nor do queries that have no relevant one left. Memory is
    bounded by the queries and one batch. Raises ``LakeError`` for a corpus without rows and
    ``UsageError`` for labelled files that cannot be used or that name none of its documents.
    """
    started = time.perf_counter()
    asked = _ask(recipe, corpus, old, new)
    evidence = _search(asked, corpus, sampled_share)
    return _report(recipe, evidence, old, new, version, started)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The queries, and their vectors in each space."""

    kind: QueryKind
    labels: Labels
    vectors: OldNew[Vectors]


def _ask(recipe: Recipe, corpus: Corpus, old: Side, new: Side) -> _Asked:
    kind: QueryKind = "labelled"
    if recipe.release.queries is None and recipe.release.qrels is None:
        kind, labels = "known-item", _made_from(corpus)
    else:
        labels = read_labels(recipe)
    words = list(labels.texts.values())
    return _Asked(kind, labels, OldNew(old.encode(words), new.encode(words)))


def _made_from(corpus: Corpus) -> Labels:
    items = known_items(corpus()) or known_items(corpus(), whole_texts=True)
    if not items:
        raise UsageError(
            "there is no text to make queries from: the rows are none, or all alike; name labelled "
            "queries in the recipe (release.queries and release.qrels)"
        )
    texts = {f"{place:04}": item.query for place, item in enumerate(items)}
    grades = {f"{place:04}": {item.doc_id: 1} for place, item in enumerate(items)}
    return Labels(texts, dict(grades), 0)


def _search(asked: _Asked, corpus: Corpus, sampled_share: float | None) -> Evidence:
    """One pass over the rows for both spaces."""
    old, new = (
        (ExactRanking(queries), HealthCheck(queries.shape[1]))
        for queries in (asked.vectors.old, asked.vectors.new)
    )
    judged, present = pa.array(sorted(asked.labels.documents), pa.string()), set[str]()
    for batch in corpus():
        if not len(batch):
            continue
        doc_ids, texts = batch.column("doc_id"), batch.column("text").to_pylist()
        present.update(doc_ids.filter(pc.is_in(doc_ids, judged)).to_pylist())
        rows = ByDocument.of(doc_ids)
        for (search, check), name in ((old, "old"), (new, "new")):
            vectors = vectors_in(batch.column(name))
            search.add(rows, vectors)
            check.add(texts, vectors)
    rankings = OldNew(old[0].ranking(), new[0].ranking())
    return _weighed(asked, present, rankings, OldNew(old[1], new[1]), sampled_share)


def _weighed(
    asked: _Asked,
    present: set[str],
    rankings: OldNew[Ranking],
    checks: OldNew[HealthCheck],
    sampled_share: float | None,
) -> Evidence:
    health = OldNew(
        checks.old.health(_n_without(asked.vectors.old)),
        checks.new.health(_n_without(asked.vectors.new)),
    )
    if not health.new.rows:
        raise LakeError("there are no rows to judge a space by; run `embedlake embed` first")
    labels = asked.labels.among(present)
    if not labels.texts:
        raise nothing_known(asked.labels)
    queries = list(asked.labels.texts)
    old, new = (
        dict(zip(queries, one.documents, strict=True)) for one in (rankings.old, rankings.new)
    )
    return Evidence(
        queries_kind=asked.kind,
        queries=len(labels.texts),
        queries_left_out=labels.left_out,
        judged_documents=len(asked.labels.documents),
        unknown_documents=len(asked.labels.documents) - len(present),
        rows=health.new.rows,
        sampled_share=sampled_share,
        metrics=compare_runs(old, new, labels.grades),
        drift=drift_between(rankings.old, rankings.new),
        health=health,
        ann=None,
        latency=None,
    )


def _report(
    recipe: Recipe, evidence: Evidence, old: Side, new: Side, version: int | None, started: float
) -> GateReport:
    found = findings(evidence, recipe.release, recipe.index.target_recall)
    return GateReport(
        **{one.name: getattr(evidence, one.name) for one in fields(evidence)},
        verdict=verdict_of(found),
        recipe=recipe.name,
        table=recipe.lake.table,
        version=version,
        old=old.judged,
        new=new.judged,
        findings=found,
        seconds=time.perf_counter() - started,
    )


def _n_without(vectors: Vectors) -> int:
    return int(np.isnan(vectors).any(axis=1).sum())
