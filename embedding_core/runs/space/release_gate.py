"""The release gate: may a built column replace the column in service? Yes or no.

Judges all rows of one version of the table, and adds what only a table shows: what its indexes miss
and how long a search takes.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import numpy as np

from embedding_core.errors import LakeError, Unfilled, UsageError
from embedding_core.lake import schema
from embedding_core.lake.index.tuning import Sample
from embedding_core.lake.ownership.owner import open_owned
from embedding_core.lake.query.search import Query
from embedding_core.lake.scans import judged_rows, vectors_at
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.vector_columns import missing_rows
from embedding_core.plurals import counted
from embedding_core.protocols import Vectors
from embedding_core.quality import Ann, OldNew, findings, verdict_of
from embedding_core.quality.judgement import GateReport, Side, judge
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.serving import serving_model
from embedding_core.runs.space.sides import side_of

TIMED_SEARCHES = 30
"""Searches of each space whose median is the latency; as many before them warm up."""


def gate(recipe: Recipe, resources: Resources, column: str) -> GateReport:
    """Judge a built column of the recipe's table against the one in service; changes nothing.

    Raises ``UsageError`` for the column in service and for labelled files that cannot be used,
    ``LakeError`` for a column that is not there or not of a space and for a table without rows,
    ``Unfilled`` for a column that is not in every row yet.
    """
    started = time.perf_counter()
    snapshot = open_owned(recipe)
    _check_filled(snapshot, column)
    old, new = (
        side_of(
            name, snapshot.space(name)[1], serving_model(recipe, snapshot, name).model, resources
        )
        for name in (schema.VECTOR, column)
    )
    rows = partial(judged_rows, snapshot, schema.VECTOR, column)
    report = judge(recipe, rows, old, new, version=snapshot.version)
    ann = OldNew(_ann(snapshot, old), _ann(snapshot, new))
    complete = replace(report, ann=ann, latency=_latency(snapshot, old, new))
    rules_broken = findings(complete, recipe.release, recipe.index.target_recall)
    seconds = time.perf_counter() - started
    return replace(
        complete, findings=rules_broken, verdict=verdict_of(rules_broken), seconds=seconds
    )


def _check_filled(snapshot: Snapshot, column: str) -> None:
    """Raise unless the table has rows, with a vector of the column in each."""
    table, field = snapshot.table, snapshot.field(column)
    if column == schema.VECTOR:
        raise UsageError(
            f"column {column!r} is the one in service, which the others are judged against; name "
            "one of those",
            action="status",
        )
    space_id, _ = schema.space_of(field)
    n_rows = snapshot.n_rows
    if not n_rows:
        raise LakeError(
            f"table {table.name!r} in {table.lake.uri} has no rows to judge a space by",
            action="embed",
        )
    n_missing = sum(missing_rows(snapshot.dataset, space_id).values())
    if n_missing:
        raise Unfilled(
            f"{n_missing:,} of {counted(n_rows, 'row')} of table {table.name!r} have no vector in "
            f"{column}, "
            "so it cannot be judged yet; fill them with the column's model, then try again",
            action="reembed",
        )


def _ann(snapshot: Snapshot, side: Side) -> Ann:
    """The index's recall, measured on the column's own vectors."""
    settings = snapshot.index_settings(side.judged.column)
    if not settings:
        return Ann(None, 1.0)
    sample = Sample(snapshot, side.judged.column)
    measured = sample.measure(settings["nprobes"], settings["refine_factor"])
    return Ann(settings["kind"], measured.recall)


def _latency(snapshot: Snapshot, old: Side, new: Side) -> OldNew[float] | None:
    """Median milliseconds of a search for rows' own vectors, the two spaces by turns.

    None when none of the sampled rows has both vectors.
    """
    rows = np.linspace(0, snapshot.n_rows - 1, TIMED_SEARCHES).astype(int).tolist()
    queries = [vectors_at(snapshot, rows, side.judged.column) for side in (old, new)]
    usable = np.flatnonzero(np.isfinite(np.hstack(queries)).all(axis=1))
    if not len(usable):
        return None
    times: list[list[float]] = [[], []]
    for row in (*usable, *usable):  # the first half warms up
        for side, vectors, milliseconds in zip((old, new), queries, times, strict=True):
            milliseconds.append(_search_milliseconds(snapshot, side, vectors[row]))
    before, after = (float(np.median(milliseconds[len(usable) :])) for milliseconds in times)
    return OldNew(before, after)


def _search_milliseconds(snapshot: Snapshot, side: Side, vector: Vectors) -> float:
    started = time.perf_counter()
    snapshot.search_vectors(vector[None], side.space, Query(column=side.judged.column))
    return (time.perf_counter() - started) * 1_000
