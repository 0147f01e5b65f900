"""The embed flow: make the table say what the source says.

Plan, run the work units on Ray, commit group by group from this process alone; then indexes,
verification and report.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from embedding_core.errors import EmbedlakeError
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Plan
from embedding_core.reports import markdown
from embedding_core.reports import text as words
from embedding_core.runs.embed.commit_stage import prepare
from embedding_core.runs.embed.finish_stage import FAILED, REJECTED, RunReport, RunTally, finish
from embedding_core.runs.embed.planning import check_removals, is_outdated, plan
from embedding_core.runs.job import Job, locked_for
from embedding_core.runs.serving import following
from embedlake.cli import interrupts
from embedlake.execution.runner import Runner, current_runner
from embedlake.execution.scheduler import run_plan
from embedlake.execution.training import train_if_due
from embedlake.execution.unit_runner import PrefectExecution
from embedlake.local import speeds
from embedlake.orchestration.naming import artifact_key, run_name
from embedlake.orchestration.outcome import failed
from embedlake.orchestration.parameters import fail_for_parameters
from embedlake.settings import Settings, read_settings


class RunFailed(EmbedlakeError):
    """The run ended, but not everything is in the table or the verification failed."""

    def __init__(self, report: RunReport) -> None:
        super().__init__(words.run_summary(report))
        self.report = report

    def __reduce__(self) -> tuple[type[RunFailed], tuple[RunReport]]:
        return RunFailed, (self.report,)


@flow(
    name="embed",
    description="Make a LanceDB table of embeddings say what its source files say.",
    flow_run_name=run_name,
    task_runner=Runner(),
    validate_parameters=False,
    on_crashed=[fail_for_parameters],
)
def embed(
    recipe: str | dict[str, Any],
    resources: dict[str, Any] | None = None,
    allow_removals: bool = False,
    retry_reasons: list[str] | None = None,
) -> dict[str, Any] | State[dict[str, Any]]:
    """Run one recipe.

    Args:
        recipe: path or URI of a recipe file, or the recipe itself.
        resources: settings that only change speed, over those of the environment.
        allow_removals: remove files even above the recipe's max_removed_share.
        retry_reasons: work again on unchanged files that have rejects of these reasons.
    """
    try:
        loaded = following(Recipe.load(recipe))
        report = _run(loaded, resources or {}, allow_removals, retry_reasons or ())
    except EmbedlakeError as error:
        return failed(error)
    _publish_report(report, loaded)
    if report.exit_code == FAILED:
        return failed(RunFailed(report))
    if report.exit_code == REJECTED:
        return Completed(
            name="Rejects", message=words.run_summary(report), data=words.report_data(report)
        )
    return words.report_data(report)


@interrupts.not_mistaken()
def _run(
    recipe: Recipe,
    resources: dict[str, Any],
    allow_removals: bool,
    retry_reasons: Sequence[str],
) -> RunReport:
    """Plan, and execute that plan under the table's lock."""
    started = time.perf_counter()
    settings = read_settings()
    chosen = settings.resources.updated(resources)
    run_id = str(flow_run.get_id())
    current_runner().prepare(settings, chosen)  # what no task could get is told before any work
    planned = _plan(recipe, retry_reasons, chosen, settings)
    check_removals(planned, allow_removals)
    if planned.is_empty:
        job = Job.of(planned, recipe, chosen, run_id)
        return finish(job, planned, RunTally(), started)
    with locked_for(recipe, run_id, settings.lock_wait_seconds) as lock:
        if is_outdated(planned, recipe):
            planned = _plan(recipe, retry_reasons, chosen, settings)
        job = Job.of(planned, recipe, chosen, run_id)
        tally = RunTally()
        prepare(job, planned, allow_removals)
        run_plan(job, planned, tally, PrefectExecution(settings), lock.check)
        train_if_due(job)
        return finish(job, planned, tally, started)


def _plan(
    recipe: Recipe, retry_reasons: Sequence[str], resources: Resources, settings: Settings
) -> Plan:
    """The plan that this run executes, shown in the log and as an artifact."""
    planned = speeds.estimated(plan(recipe, retry_reasons), recipe, resources, settings)
    _publish_plan(planned, recipe, speeds.cost(planned.estimated_seconds, settings))
    return planned


def _publish_plan(planned: Plan, recipe: Recipe, cost: float | None) -> None:
    for line in words.plan_lines(planned, cost):
        get_run_logger().info(line)
    create_markdown_artifact(
        markdown=markdown.plan_page(planned, cost), key=artifact_key("embed-plan", recipe)
    )


def _publish_report(report: RunReport, recipe: Recipe) -> None:
    for line in words.report_lines(report):
        get_run_logger().info(line)
    create_markdown_artifact(
        markdown=markdown.ledger_page(report), key=artifact_key("embed-report", recipe)
    )
