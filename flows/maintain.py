"""The maintain flow: keep a recipe's table fit. One process, no Ray; meant for a schedule.

1. Refresh the indexes of the table, merge small fragments, remove old versions.
2. Drop vectors that left service long ago, and files that dead runs left.
3. Report; a step that fails does not stop the others.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from embedding_core.errors import EmbedlakeError
from embedding_core.recipe import Recipe
from embedding_core.reports.maintenance import MaintenanceView
from embedding_core.runs import maintenance
from embedlake import interrupts
from embedlake.orchestration.naming import run_name
from embedlake.orchestration.outcome import ended, failed
from embedlake.orchestration.parameters import fail_for_parameters
from embedlake.orchestration.publishing import publish
from embedlake.orchestration.watching import watched_settings


@flow(
    name="maintain",
    description="Compact a table, keep its indexes fresh, remove old versions and orphans.",
    flow_run_name=run_name,
    validate_parameters=False,
    persist_result=False,
    on_crashed=[fail_for_parameters],
)
def maintain(recipe: str | dict[str, Any]) -> dict[str, Any] | State[dict[str, Any]]:
    """Maintain one recipe's table, beside readers and embed runs.

    Args:
        recipe: path or URI of a recipe file, or the recipe itself.
    """
    try:
        watched_settings()
        with interrupts.not_mistaken():
            loaded = Recipe.load(recipe)
            report = maintenance.maintain(loaded)
    except EmbedlakeError as error:
        return failed(error)
    view = MaintenanceView(report)
    publish("maintain-report", loaded, view)
    return ended(view)
