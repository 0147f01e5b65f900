"""An embed run inside a flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect.runtime import flow_run

from embedding_core.recipe import Recipe
from embedding_core.runs.embed.finish_stage import RunReport
from embedding_core.runs.embed.run import EmbedRun
from embedlake import interrupts
from embedlake.execution.runner import current_runner
from embedlake.execution.unit_runner import PrefectExecution
from embedlake.settings import read_settings


@interrupts.not_mistaken()
def embed_in_flow(
    recipe: Recipe,
    resources: Mapping[str, Any],
    allow_removals: bool,
    retry_reasons: Sequence[str],
    started: float,
) -> RunReport:
    """Run a recipe by the tasks of the flow that calls; see ``embedlake.flows.embed``."""
    settings = read_settings()
    chosen = settings.resources.updated(resources)
    current_runner().prepare(settings, chosen)  # what no task could get is told before any work
    run = EmbedRun(
        recipe=recipe,
        resources=chosen,
        execution=PrefectExecution(settings),
        run_id=str(flow_run.get_id()),
        lock_wait_seconds=settings.lock_wait_seconds,
        allow_removals=allow_removals,
        retry_reasons=retry_reasons,
    )
    return run.to_the_end(started)
