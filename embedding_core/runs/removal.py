"""Removing a recipe's table while nobody works on it."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_core.errors import LakeError
from embedding_core.lake.ownership.owner import check_recipe
from embedding_core.lake.table import table_of
from embedding_core.lake.upkeep.belongings import drop_table, folders_of
from embedding_core.recipe import Recipe
from embedding_core.runs.job import locked_for

RUN = "drop"
"""What a lock calls the holder."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """What ``drop`` removes, or removed."""

    table: str
    """URI of the table."""
    rows: int | None
    """None for a table that cannot be read any more."""
    folders: tuple[str, ...]
    """The table, its ledger, its rejects, and what its runs keep beside it."""


def what_drop_removes(recipe: Recipe) -> Belongings:
    """Look, and remove nothing. Raises ``LakeError`` for the table of another recipe."""
    table = table_of(recipe)
    rows: int | None = 0
    if table.exists():
        try:
            snapshot = table.open()
            rows = snapshot.n_rows
        except LakeError:  # damaged: it can only be removed, and no longer says whose it is
            rows = None
        else:
            check_recipe(snapshot, recipe)
    return Belongings(table.uri, rows, tuple(folders_of(table)))


def drop(recipe: Recipe, wait_seconds: float) -> Belongings:
    """Remove the recipe's table with all that belongs to it; runs and builds are waited for.

    Raises ``Locked`` when one takes longer than ``wait_seconds``. After a crash call it again.
    """
    removed = what_drop_removes(recipe)
    table = table_of(recipe)
    with (
        locked_for(recipe, RUN, wait_seconds),
        locked_for(recipe, RUN, wait_seconds, "build"),
    ):
        drop_table(table)
    drop_table(table)  # the records of the locks that were held meanwhile
    return removed
