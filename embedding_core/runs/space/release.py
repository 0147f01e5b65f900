"""A model change from end to end: what its steps share, and what it reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from embedding_core.lake.faults import tried_again
from embedding_core.lake.index.vector import IndexReport, refresh_vector_index, training_is_due
from embedding_core.lake.spaces.switching import Release, column_before, promote, releases, rollback
from embedding_core.lake.spaces.vector_columns import expect, field_of, missing_rows, model_of
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe, Resources
from embedding_core.runs.job import Job
from embedding_core.runs.space.build import SpaceReport, build_space
from embedding_core.runs.space.judgement import REFUSED, GateReport

Promotion = Literal["auto", "never", "force"]
"""``auto``: promote when the gate says yes; ``force``: whatever it says; ``never``: build only."""
Outcome = Literal["in service already", "promoted", "built", "refused", "failed"]

DONE, FAILED = 0, 1


@dataclass(frozen=True, slots=True)
class ReembedReport:
    """What became of a new model."""

    run_id: str
    recipe: str
    table: str
    """URI of the table."""
    model: str
    outcome: Outcome
    """``built``: every row has a vector, nothing was put in service."""
    space_id: str
    column: str | None
    """Where its vectors are now; None when a sample was enough to refuse it."""
    sampled_rows: int
    """Rows embedded to judge a sample; 0 without one."""
    sampled_tokens: int
    sample: GateReport | None
    space: SpaceReport | None
    gate: GateReport | None
    index: IndexReport | None
    release: Release | None
    failures: tuple[str, ...]
    """One sentence per group of fragments that could not be filled; the next run goes on there."""
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 done, 1 failed, 4 the gate said no."""
        return {"refused": REFUSED, "failed": FAILED}.get(self.outcome, DONE)


def is_in_service(job: Job) -> bool:
    """Whether the job's space is the one that queries get already."""
    return bool(table_of(job.recipe).space()[0] == job.space_id)


def has_left(job: Job) -> bool:
    """Whether the job's space was taken out of service, or retired, and is not back in it; among
    the changes that the table remembers."""
    table = table_of(job.recipe)
    return not is_in_service(job) and any(one.from_space == job.space_id for one in releases(table))


def is_begun(job: Job) -> bool:
    """Whether the table has a column of the job's space, however full."""
    return field_of(table_of(job.recipe).dataset(), job.space_id) is not None


def missing_vectors(job: Job) -> int:
    """Rows of the table without a vector of the job's space."""
    return sum(missing_rows(table_of(job.recipe).dataset(), job.space_id).values())


def table_uri(job: Job) -> str:
    """Where the job's table is."""
    return table_of(job.recipe).uri


def index_space(job: Job) -> IndexReport | None:
    """Build or extend the index of the job's space; None while the table is too small for one."""
    table = table_of(job.recipe)

    def refresh(_attempt: int) -> IndexReport | None:
        return refresh_vector_index(table, job.recipe.index, column=column_of(job))

    return tried_again(f"index {table.uri}", refresh)


def index_is_due(job: Job) -> bool:
    """Whether ``index_space`` would train the index, which takes minutes and gigabytes."""
    table = table_of(job.recipe)

    def look(_attempt: int) -> bool:
        return training_is_due(table, job.recipe.index, column_of(job))

    return tried_again(f"look at the index of {table.uri}", look)


def column_of(job: Job) -> str:
    """What the column of the job's space is called now. Raises ``LakeError`` when it is gone."""
    return str(expect(table_of(job.recipe).dataset(), job.space_id).name)


def promote_space(job: Job, by: str) -> Release:
    """Put the job's space in service; errors as ``lake.promote``.

    Waits for the training of another index however long: the work is done, only the switch is left.
    """
    table = table_of(job.recipe)
    return promote(table, column_of(job), by, job.run_id, math.inf)


def go_back(
    recipe: Recipe, resources: Resources, by: str, now: bool = False, wait_seconds: float = math.inf
) -> Release:
    """Put the space back in service that was there before; rows that came since are embedded in it.

    They are embedded first, so that no search misses them, or with ``now`` right after the switch.
    Raises ``LakeError`` when there is nothing to go back to, ``Locked`` when the training of an
    index goes on for longer than ``wait_seconds``.
    """
    table = table_of(recipe)
    column = column_before(table)
    model = model_of(table.dataset(), column)
    if not now:
        build_space(recipe, model, resources, "rollback")
    release = rollback(table, by, now=now, wait_seconds=wait_seconds)
    if now:
        build_space(recipe, model, resources, "rollback")
    return release
