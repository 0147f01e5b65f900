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

from embedding_core import pipeline
from embedding_core.errors import EmbedlakeError
from embedding_core.pipeline import Job, RunReport, RunTally
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Plan
from flows import artifacts, interrupts, speed
from flows import report as words
from flows.ending import failed
from flows.indexing import train_if_due
from flows.naming import artifact_key, run_name
from flows.parameters import fail_for_parameters
from flows.runner import Runner, current_runner
from flows.settings import Settings, read_settings
from flows.units import run_plan


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
        loaded = pipeline.following(Recipe.load(recipe))
        report = _run(loaded, resources or {}, allow_removals, retry_reasons or ())
    except EmbedlakeError as error:
        return failed(error)
    _publish_report(report, loaded)
    if report.exit_code == pipeline.FAILED:
        return failed(RunFailed(report))
    if report.exit_code == pipeline.REJECTED:
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
    pipeline.check_removals(planned, allow_removals)
    if planned.is_empty:
        job = Job.of(planned, recipe, chosen, run_id)
        return pipeline.finish(job, planned, RunTally(), started)
    with pipeline.locked_for(recipe, run_id, settings.lock_wait_seconds) as lock:
        if pipeline.is_outdated(planned, recipe):
            planned = _plan(recipe, retry_reasons, chosen, settings)
        job = Job.of(planned, recipe, chosen, run_id)
        tally = RunTally()
        pipeline.prepare(job, planned, allow_removals)
        run_plan(job, planned, tally, settings, lock.check)
        train_if_due(job)
        return pipeline.finish(job, planned, tally, started)


def _plan(
    recipe: Recipe, retry_reasons: Sequence[str], resources: Resources, settings: Settings
) -> Plan:
    """The plan that this run executes, shown in the log and as an artifact."""
    planned = speed.estimated(pipeline.plan(recipe, retry_reasons), recipe, resources, settings)
    _publish_plan(planned, recipe, speed.cost(planned.estimated_seconds, settings))
    return planned


def _publish_plan(planned: Plan, recipe: Recipe, cost: float | None) -> None:
    for line in words.plan_lines(planned, cost):
        get_run_logger().info(line)
    create_markdown_artifact(
        markdown=artifacts.plan_page(planned, cost), key=artifact_key("embed-plan", recipe)
    )


def _publish_report(report: RunReport, recipe: Recipe) -> None:
    for line in words.report_lines(report):
        get_run_logger().info(line)
    create_markdown_artifact(
        markdown=artifacts.ledger_page(report), key=artifact_key("embed-report", recipe)
    )
