"""The figures of a table that monitoring follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedding_core.lake import ledger
from embedding_core.lake.index.vector import stored_index
from embedding_core.lake.lock import DOING, HeldLock, held_lock
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from embedding_core.runs.watched.run_record import RunRecord, read_record


@dataclass(frozen=True, slots=True)
class TableFigures:
    """A table, its locks and its run at one moment."""

    table: str
    """Name of the table."""
    rows: int
    rejects: Mapping[str, int]
    """Rows of the rejects table by reason."""
    recall: float | None
    """Recall@10 of the vector index as it was last measured; None when searches are exact."""
    recall_target: float
    """What the recipe asks for."""
    locks: tuple[HeldLock, ...]
    run: RunRecord | None
    """The run that goes on, or the last; None before the first."""
    build: RunRecord | None = None
    """The build of a new space that goes on, or the last; None before the first."""


def table_figures(recipe: Recipe) -> TableFigures:
    """The figures now. Reads narrow columns of the rejects, and some small files beside the table.

    Before the first run there are no rows. Raises ``LakeError`` and ``Transient`` when the table or
    its store cannot be read.
    """
    table = table_of(recipe)
    snapshot = table.open_if_made()
    index = stored_index(snapshot) if snapshot is not None else None
    locks = (held_lock(table, kind) for kind in DOING)
    return TableFigures(
        table=table.name,
        rows=snapshot.n_rows if snapshot is not None else 0,
        rejects=ledger.rejects_by_reason(table),
        recall=index.recall if index is not None else None,
        recall_target=recipe.index.target_recall,
        locks=tuple(lock for lock in locks if lock is not None),
        run=read_record(table),
        build=read_record(table, "build"),
    )
