"""What a person wants to see of a table: what it holds, how it came to be, its vectors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from embedding_core.lake.index.scalar import unindexed_rows
from embedding_core.lake.index.vector import IndexReport, stored_index
from embedding_core.lake.ownership.owner import open_owned
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.switching import Release, releases
from embedding_core.lake.spaces.vector_columns import VectorColumn, columns
from embedding_core.projections.projection import projection
from embedding_core.recipe import Recipe
from embedding_core.runs.inputs.table_counting import count_rows_of
from embedding_core.runs.inputs.tallies import FILE, Statistics
from embedding_core.runs.look.fields import checked_field
from embedding_core.runs.look.history import RunWork, run_history
from embedding_core.runs.look.sample import vector_column
from embedding_core.runs.look.vector_figures import Look, VectorFigures, vector_figures
from embedding_core.runs.outcome import Outcome

MOST_RUNS = 30
"""Runs that are shown, the last ones."""


@dataclass(frozen=True, slots=True)
class Overview:
    """A table at one version."""

    recipe: str
    table: str
    """URI of the table."""
    version: int
    made_at: str
    """When the report was made, ISO 8601, UTC."""
    rows: int
    fragments: int
    statistics: Statistics
    """Documents, chunks, tokens, and what was left out."""
    history: tuple[RunWork, ...]
    """The last runs, oldest first."""
    price_per_hour: float | None
    """What the machine costs an hour, where the settings say so."""
    column: str | None
    """The column of vectors that was looked at; None when the table has none."""
    space: Mapping[str, Any] | None
    """Description of its space."""
    spaces: tuple[VectorColumn, ...]
    """All columns of vectors, the one in service first."""
    index: IndexReport | None
    """The column's index; None when searches are exact."""
    unindexed_rows: Mapping[str, int]
    """Rows that an index does not cover yet, by the index's name."""
    releases: tuple[Release, ...]
    """What was switched, newest first, each with what the gate said."""
    vectors: VectorFigures | None
    problem: str | None
    """Why there is nothing to see of the vectors."""
    seconds: float

    @property
    def outcome(self) -> Outcome:
        """A report is complete or raised an error."""
        return "done"


def look_at(
    recipe: Recipe, look: Look | None = None, price_per_hour: float | None = None
) -> Overview:
    """Look at the newest version of the recipe's table.

    Reads a few narrow columns of every row, and the texts and vectors of a sample; memory is
    bounded by the sample and 8 bytes per row. Raises ``LakeError`` when there is no table or it
    cannot be read, ``UsageError`` for a column, a field or a projection that is not there.
    """
    started = time.perf_counter()
    look = look or Look()
    projection(look.method)
    snapshot = open_owned(recipe)
    column = vector_column(snapshot, look.column)
    if look.color is not None:
        checked_field(snapshot, look.color)
    vectors = vector_figures(snapshot, column, look) if column is not None else None
    return Overview(
        recipe=recipe.name,
        table=snapshot.table.uri,
        version=snapshot.version,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        rows=snapshot.n_rows,
        fragments=len(snapshot.dataset.get_fragments()),
        statistics=count_rows_of(snapshot, recipe, FILE),
        history=run_history(snapshot.table, MOST_RUNS),
        price_per_hour=price_per_hour,
        column=column,
        space=None if column is None else asdict(snapshot.space(column)[1]),
        spaces=columns(snapshot),
        index=None if column is None else stored_index(snapshot, column),
        unindexed_rows=unindexed_rows(snapshot.dataset),
        releases=releases(snapshot),
        vectors=vectors,
        problem=_problem(snapshot, column, vectors),
        seconds=time.perf_counter() - started,
    )


def _problem(snapshot: Snapshot, column: str | None, vectors: VectorFigures | None) -> str | None:
    if not snapshot.n_rows:
        return "The table has no rows yet."
    if column is None:
        return "The table has no column of vectors."
    if vectors is None:
        return (
            f"No sampled row has a finite vector in column {column}: they are missing, NaN or "
            "infinite."
        )
    return None
