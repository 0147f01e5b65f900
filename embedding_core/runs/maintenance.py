"""Maintain everything that a recipe keeps: its table, the ledger, the rejects, staged files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from embedding_core.errors import EmbedlakeError, Locked
from embedding_core.lake import ledger
from embedding_core.lake.index.refresh import IndexPlan, refresh_indexes
from embedding_core.lake.index.vector import IndexReport
from embedding_core.lake.ownership.owner import open_owned
from embedding_core.lake.readers.feedback import feedback_table
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.switching import Release, retire_left
from embedding_core.lake.table import Table
from embedding_core.lake.upkeep.belongings import Orphans, remove_orphans
from embedding_core.lake.upkeep.compaction import (
    TableReport,
    maintain_table,
    must_wait,
    small_fragments,
)
from embedding_core.lake.upkeep.store_clock import check_clock
from embedding_core.recipe import Recipe
from embedding_core.runs.outcome import Outcome


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What maintenance did."""

    recipe: str
    tables: tuple[TableReport, ...]
    """The table, its ledger, its rejects, its feedback; those that exist."""
    index: IndexReport | None
    """The vector index as it is now."""
    orphans_removed: int
    """Staged files of runs that died long ago."""
    orphan_bytes: int
    retired: tuple[Release, ...]
    """Columns that left service longer ago than ``release.keep_previous_days``, dropped."""
    seconds: float
    problems: tuple[str, ...]
    """Steps of all tables that failed; nothing is lost, the next maintenance tries again."""

    @property
    def outcome(self) -> Outcome:
        """``done`` when every step was done, else ``failed``."""
        return "failed" if self.problems else "done"


def maintain(recipe: Recipe, now: datetime | None = None) -> MaintenanceReport:
    """Compact the recipe's tables, keep their indexes fresh, remove what is no longer needed: old
    versions, orphans, and vectors that left service long ago.

    May run beside readers and runs. Removes nothing, and says so, where this machine's clock is
    ahead of the store's. ``now`` decides which vectors left service long ago; default: the clock.
    Raises ``LakeError`` when there is no table, or when it is another recipe's.
    """
    started = time.perf_counter()
    table = open_owned(recipe).table
    indexes: list[IndexReport | None] = []

    def refresh() -> None:
        indexes.append(refresh_indexes(table.open(), IndexPlan.of(recipe), merge=True))

    problems: list[str] = []
    retired: list[Release] = []
    orphans = Orphans(0, 0)
    # 1. By a clock that is ahead, what live runs write looks old: then nothing old is removed.
    with _noted(problems):
        check_clock(table)
    keep = None if problems else timedelta(hours=recipe.maintain.keep_hours)
    # 2. Vectors that left service long ago.
    if keep is not None:
        with _noted(problems):
            kept_days = timedelta(days=recipe.release.keep_previous_days)
            retired = retire_left(table, kept_days, "maintenance", now)
    # 3. The tables, each with its old versions.
    reports = [maintain_table(table, keep, refresh)]
    reports += [maintain_table(beside, keep) for beside in _beside(table)]
    problems += [problem for report in reports for problem in report.problems]
    # 4. Staged files of dead runs.
    if keep is not None:
        with _noted(problems):
            orphans = remove_orphans(table)
    return MaintenanceReport(
        recipe=recipe.name,
        tables=tuple(reports),
        index=indexes[-1] if indexes else None,
        orphans_removed=orphans.files,
        orphan_bytes=orphans.size_bytes,
        retired=tuple(retired),
        seconds=time.perf_counter() - started,
        problems=tuple(problems),
    )


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Note the failure of a step, so that the others are done all the same."""
    try:
        yield
    except Locked:
        return  # a space is being built; the next maintenance does it
    except EmbedlakeError as error:
        problems.append(str(error))


def needs_maintenance(recipe: Recipe, snapshot: Snapshot) -> bool:
    """Whether one of the tables has more small fragments than the recipe allows, and they can be
    merged now."""
    most = recipe.maintain.small_fragments
    snapshots = (snapshot, *(table.open() for table in _beside(snapshot.table)))
    return any(small_fragments(each) > most and not must_wait(each) for each in snapshots)


def _beside(table: Table) -> list[Table]:
    """The ledger, the rejects and the feedback, as far as they exist."""
    tables = (ledger.ledger_table(table), ledger.rejects_table(table), feedback_table(table))
    return [beside for beside in tables if beside.exists()]
