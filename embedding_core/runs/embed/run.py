"""A run over a recipe, from the plan to the report."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Plan
from embedding_core.runs.embed.commit_stage import prepare
from embedding_core.runs.embed.execution import Execution, InProcess
from embedding_core.runs.embed.finish_stage import RunReport, RunTally, finish
from embedding_core.runs.embed.planning import PlanBasis, check_removals, is_outdated
from embedding_core.runs.embed.scheduler import chosen_plan, run_plan
from embedding_core.runs.job import Job, locked_for
from embedding_core.runs.serving import following

LOCK_WAIT_SECONDS = 60.0
"""A run waits this long for another run on its table, unless told otherwise."""


def embed(
    recipe: Recipe | str | Path | Mapping[str, Any],
    resources: Resources | None = None,
    allow_removals: bool = False,
    retry_reasons: Sequence[str] = (),
) -> RunReport:
    """Make the recipe's table say what its source says, in this process: no server, no cluster.

    ``recipe``: loaded, or what ``Recipe.load`` takes, such as the path of a file.
    A bad file or record becomes a reject; the report's ``outcome`` says whether the run did
    everything. What was committed stays when the call is cut off, and the next call does the rest.
    ``resources`` change the speed alone. ``allow_removals``: remove files even above the recipe's
    ``max_removed_share``. ``retry_reasons``: work again on unchanged files that have rejects of
    these reasons. Raises ``SetupError`` for what a person must change first, ``Locked`` when
    another run on the table goes on for a minute.
    """
    started = time.perf_counter()
    run = EmbedRun(
        recipe=following(recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)),
        resources=resources or Resources(),
        execution=InProcess(),
        run_id=uuid.uuid4().hex,
        allow_removals=allow_removals,
        retry_reasons=retry_reasons,
    )
    return run.to_the_end(started)


@dataclass(frozen=True, slots=True)
class EmbedRun:
    """One run of a recipe; see ``embed`` for the fields."""

    recipe: Recipe
    resources: Resources
    execution: Execution
    """Where the units are worked on, and who hears of it."""
    run_id: str
    lock_wait_seconds: float = LOCK_WAIT_SECONDS
    allow_removals: bool = False
    retry_reasons: Sequence[str] = ()

    def to_the_end(self, started: float) -> RunReport:
        """Every step. ``started`` is what ``time.perf_counter()`` said when the run began."""
        # 1. The plan. A table that says what the source says is only verified.
        basis, job, planned = self._plan()
        if planned.is_empty:
            return finish(job, planned, RunTally(), started)
        # 2. Under the lock nobody else changes the table; it may have changed until then.
        with locked_for(self.recipe, self.run_id, self.lock_wait_seconds) as lock:
            if is_outdated(planned, self.recipe):
                basis, job, planned = self._plan()
            tally = RunTally()
            prepare(job, planned, self.allow_removals)
            # 3. Where the recipe chooses among documents, the choice says what is worked on.
            if not basis.choices.is_kept:
                planned = self.execution.planned(job, chosen_plan(job, basis, self.execution))
                check_removals(planned, self.allow_removals)
            run_plan(job, planned, tally, self.execution, lock.check)
            self.execution.train(job)
            return finish(job, planned, tally, started)

    def _plan(self) -> tuple[PlanBasis, Job, Plan]:
        """The plan that this run executes, once it was shown."""
        basis = PlanBasis.now(self.recipe, self.retry_reasons, before_a_run=True)
        planned = basis.plan()
        job = Job.of(planned, self.recipe, self.resources, self.run_id)
        planned = self.execution.planned(job, planned)
        check_removals(planned, self.allow_removals)
        return basis, job, planned
