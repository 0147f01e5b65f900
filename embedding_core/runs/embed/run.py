"""A run over a recipe, from the plan to the report."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from embedding_core.errors import Switched
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Plan
from embedding_core.runs.embed.commit_stage import prepare
from embedding_core.runs.embed.execution import Execution, InProcess
from embedding_core.runs.embed.finish_stage import RunReport, RunTally, finish
from embedding_core.runs.embed.planning import PlanBasis, check_removals, is_outdated
from embedding_core.runs.embed.scheduler import chosen_plan, run_plan
from embedding_core.runs.job import Job, locked_for
from embedding_core.runs.watched.run_record import recorded
from embedding_core.watch.spans import span
from embedding_core.watch.subject import working_on

LOCK_WAIT_SECONDS = 60.0
"""A run waits this long for another run on its table, unless told otherwise."""


def embed(
    recipe: Recipe | str | Path | Mapping[str, Any],
    resources: Resources | None = None,
    allow_removals: bool = False,
    retry_reasons: Sequence[str] = (),
    price_per_hour: float | None = None,
) -> RunReport:
    """Make the recipe's table say what its source says, in this process: no server, no cluster.

    ``recipe``: loaded, or what ``Recipe.load`` takes, such as the path of a file.
    A bad file or record becomes a reject; the report's ``outcome`` says whether the run did
    everything. What was committed stays when the call is cut off, and the next call does the rest.
    ``resources`` change the speed alone. ``allow_removals``: remove files even above the recipe's
    ``max_removed_share``. ``retry_reasons``: work again on unchanged files that have rejects of
    these reasons. ``price_per_hour``: what this machine costs; the report and the ledger then have
    costs. Raises ``SetupError`` for what a person must change first, ``Locked`` when
    another run on the table goes on for a minute.
    """
    started = time.perf_counter()
    run = EmbedRun(
        recipe=recipe if isinstance(recipe, Recipe) else Recipe.load(recipe),
        resources=resources or Resources(),
        execution=InProcess(),
        run_id=uuid.uuid4().hex,
        allow_removals=allow_removals,
        retry_reasons=retry_reasons,
        price_per_hour=price_per_hour,
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
    price_per_hour: float | None = None

    def to_the_end(self, started: float) -> RunReport:
        """Every step. ``started`` is what ``time.perf_counter()`` said when the run began."""
        about = {"run": self.run_id, "recipe": self.recipe.name, "table": self.recipe.lake.table}
        with working_on(self.run_id), span("run", **about):
            return self._every_step(started)

    def _every_step(self, started: float) -> RunReport:
        # 1. The plan. A table that says what the source says is only verified.
        work = self._plan()
        if work.plan.is_empty:
            return finish(work.job, work.plan, RunTally(), started)
        # 2. Under the lock nobody else changes the table; it may have changed until then.
        with locked_for(self.recipe, self.run_id, self.lock_wait_seconds) as lock:
            if is_outdated(work.plan, self.recipe):
                work = self._plan()
            tally = RunTally()
            with recorded(work.job.table, self.run_id, tally, self.price_per_hour) as recorder:
                work = self._made_ready(work)
                basis, job, planned = work.basis, work.job, work.plan
                # 3. Where the recipe chooses among documents, the choice says what is worked on.
                if not basis.choices.is_kept:
                    planned = self.execution.planned(job, chosen_plan(job, basis, self.execution))
                    check_removals(planned, self.allow_removals)
                saying = partial(recorder.progress, tally)
                run_plan(job, planned, tally, self.execution, lock.check, after_commit=saying)
                self.execution.train(job)
                report = finish(job, planned, tally, started)
                recorder.end(tally, report.outcome)
                return report

    def _plan(self) -> _PlannedWork:
        """The plan that this run executes, once it was shown."""
        with span("plan", run=self.run_id):
            basis = self._basis()
            planned = basis.plan()
        job = Job.of(planned, basis.recipe, self.resources, self.run_id, self.price_per_hour)
        planned = self.execution.planned(job, planned)
        check_removals(planned, self.allow_removals)
        return _PlannedWork(basis, job, planned)

    def _basis(self) -> PlanBasis:
        """What there is to plan with; looked at again when a promote comes in between."""
        while True:
            try:
                return PlanBasis.now(self.recipe, self.retry_reasons, before_a_run=True)
            except Switched as error:
                self.execution.log.info("planning again: %s", error)

    def _made_ready(self, work: _PlannedWork) -> _PlannedWork:
        """The work, its table made ready. A promote since the plan lets the run plan again: so far
        nothing was made in the space that served before."""
        while True:
            try:
                prepare(work.job, work.plan, self.allow_removals)
                return work
            except Switched as error:
                self.execution.log.info("planning again: %s", error)
                work = self._plan()


@dataclass(frozen=True, slots=True)
class _PlannedWork:
    """A plan, what it was made from, and the job that executes it."""

    basis: PlanBasis
    job: Job
    plan: Plan
