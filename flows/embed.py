"""The embed flow: make the table say what the source says.

1. Plan: compare the source with the table.
2. Take the table's lock. If the table changed meanwhile, plan again.
3. Chunk and embed the work units on Ray; this process alone commits them, group by group.
4. Refresh the indexes, verify what was written, report.
"""

from __future__ import annotations

import time
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from embedding_core.errors import EmbedlakeError
from embedding_core.recipe import Recipe
from embedding_core.reports.run import RunView
from embedding_core.runs.embed.run import EmbedRun
from embedding_core.runs.serving import following
from embedlake import interrupts
from embedlake.execution.runner import Runner, current_runner
from embedlake.execution.unit_runner import PrefectExecution
from embedlake.local.hardware import resources_for
from embedlake.orchestration.naming import run_name
from embedlake.orchestration.outcome import ended, failed
from embedlake.orchestration.parameters import fail_for_parameters
from embedlake.orchestration.publishing import publish
from embedlake.orchestration.watching import watched_settings


@flow(
    name="embed",
    description="Make a LanceDB table of embeddings say what its source files say.",
    flow_run_name=run_name,
    task_runner=Runner(),
    validate_parameters=False,
    persist_result=False,
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
    started = time.perf_counter()
    try:
        loaded = Recipe.load(recipe)
        settings = watched_settings()
        chosen = settings.resources.updated(resources or {})
        chosen = resources_for(following(loaded).model, chosen, settings)
        with interrupts.not_mistaken():
            current_runner().prepare(settings, chosen)  # what no task could get is told at once
            run = EmbedRun(
                recipe=loaded,
                resources=chosen,
                execution=PrefectExecution(settings),
                run_id=str(flow_run.get_id()),
                lock_wait_seconds=settings.lock_wait_seconds,
                allow_removals=allow_removals,
                retry_reasons=retry_reasons or (),
                price_per_hour=settings.price_per_hour,
            )
            report = run.to_the_end(started)
    except EmbedlakeError as error:
        return failed(error)
    view = RunView(report)
    publish("embed-report", loaded, view)
    return ended(view)
