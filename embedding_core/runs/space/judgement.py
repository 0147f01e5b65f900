"""How the two spaces of a gate are asked; and the gate's judgement for rows that are still Arrow.

``judge`` here turns record batches into ``JudgedRows``, until ``lake.scans.judged_rows`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from embedding_core.encoder import InvalidText
from embedding_core.errors import UsageError
from embedding_core.identity import space_id
from embedding_core.lake.query.search import check_query_space
from embedding_core.lake.vectors import to_numpy
from embedding_core.protocols import JudgedRows, Vectors
from embedding_core.quality import judgement
from embedding_core.quality.judgement import GateReport, JudgedSpace, Side
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.records import Space
from embedding_core.runs.job import load

REFUSED = 4
"""Exit code of a gate that says no."""

Corpus = Callable[[], Iterator[pa.RecordBatch]]
"""Gives the rows, the same ones every time: ``chunk_id``, ``doc_id``, ``text``, ``old`` and ``new``
(fixed-size lists of float16 or float32, null for a row without a vector), and ``title`` if the
table has one."""


def side_of(column: str, space: Space, model: ModelSpec, resources: Resources) -> Side:
    """A space and the model that makes its vectors, which is loaded when the space is asked.

    Asking raises ``LakeError`` when the model is of another space now, ``UsageError`` for a query
    that is no text.
    """
    identifier = space_id(space)

    def encode(texts: Sequence[str]) -> Vectors:
        encoder = load(model, resources)
        check_query_space(encoder.space, identifier, space)
        try:
            (batch,) = encoder.encode_stream([list(texts)], "query")
        except InvalidText as error:
            raise UsageError(f"query {texts[error.index]!r} {error.why}") from error
        return to_numpy(batch.column("vector"))

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
    """``quality.judgement.judge`` for a corpus of record batches."""
    return judgement.judge(
        recipe,
        lambda: map(judged_rows, corpus()),
        old,
        new,
        sampled_share=sampled_share,
        version=version,
    )


def judged_rows(batch: pa.RecordBatch) -> JudgedRows:
    """A batch of a ``Corpus`` as the gate reads it."""
    chunk_ids, texts = (batch.column(name).to_pylist() for name in ("chunk_id", "text"))
    has_titles = "title" in batch.schema.names
    titles = batch.column("title").to_pylist() if has_titles else [None] * len(batch)
    old, new = (to_numpy(batch.column(name)) for name in ("old", "new"))
    return JudgedRows(chunk_ids, batch.column("doc_id"), texts, titles, old, new)


__all__ = ["REFUSED", "Corpus", "GateReport", "JudgedSpace", "Side", "judge", "side_of"]
