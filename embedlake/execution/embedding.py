"""The steps of an embed run, from the plan to the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect.runtime import flow_run

from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Plan
from embedding_core.reports.plan import PlanView
from embedding_core.runs.embed.commit_stage import prepare
from embedding_core.runs.embed.finish_stage import RunReport, RunTally, finish
from embedding_core.runs.embed.planning import check_removals, is_outdated, plan
from embedding_core.runs.job import Job, locked_for
from embedlake import interrupts
from embedlake.execution.runner import current_runner
from embedlake.execution.scheduler import run_plan
from embedlake.execution.training import train_if_due
from embedlake.execution.unit_runner import PrefectExecution
from embedlake.local import speeds
from embedlake.orchestration.publishing import publish
from embedlake.settings import Settings, read_settings


@dataclass(frozen=True, slots=True)
class EmbedRun:
    """One run of a recipe inside a flow; see ``embedlake.flows.embed`` for the fields."""

    recipe: Recipe
    resources: Mapping[str, Any]
    allow_removals: bool
    retry_reasons: Sequence[str]

    @interrupts.not_mistaken()
    def to_the_end(self, started: float) -> RunReport:
        """Every step. ``started`` is what ``time.perf_counter()`` said when the run began."""
        settings = read_settings()
        resources = settings.resources.updated(self.resources)
        run_id = str(flow_run.get_id())
        # 1. What no task could get is told before any work.
        current_runner().prepare(settings, resources)
        # 2. The plan. A table that says what the source says is only verified.
        planned = self._plan(resources, settings)
        check_removals(planned, self.allow_removals)
        if planned.is_empty:
            job = Job.of(planned, self.recipe, resources, run_id)
            return finish(job, planned, RunTally(), started)
        # 3. Under the lock nobody else changes the table; it may have changed until then.
        with locked_for(self.recipe, run_id, settings.lock_wait_seconds) as lock:
            if is_outdated(planned, self.recipe):
                planned = self._plan(resources, settings)
            job = Job.of(planned, self.recipe, resources, run_id)
            tally = RunTally()
            prepare(job, planned, self.allow_removals)
            run_plan(job, planned, tally, PrefectExecution(settings), lock.check)
            train_if_due(job)
            return finish(job, planned, tally, started)

    def _plan(self, resources: Resources, settings: Settings) -> Plan:
        """The plan that this run executes, shown in the log and as an artifact."""
        bare = plan(self.recipe, self.retry_reasons)
        planned = speeds.estimated(bare, self.recipe, resources, settings)
        cost = speeds.cost(planned.estimated_seconds, settings)
        publish("embed-plan", self.recipe, PlanView(planned, cost))
        return planned
