"""The maintain flow: keep a recipe's table fit. One process, no Ray; meant for a schedule."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State

from embedding_core.errors import EmbedlakeError
from embedding_core.recipe import Recipe
from embedding_core.reports import text as words
from embedding_core.reports.markdown import text_block
from embedding_core.runs import maintenance
from embedding_core.runs.maintenance import MaintenanceReport
from embedlake.cli import interrupts
from embedlake.orchestration.naming import artifact_key, run_name
from embedlake.orchestration.outcome import failed
from embedlake.orchestration.parameters import fail_for_parameters


class MaintenanceUnfinished(EmbedlakeError):
    """Some steps did not come to their end; nothing is lost, the next run tries again."""

    def __init__(self, report: MaintenanceReport) -> None:
        super().__init__(words.maintenance_summary(report))
        self.report = report

    def __reduce__(self) -> tuple[type[MaintenanceUnfinished], tuple[MaintenanceReport]]:
        return MaintenanceUnfinished, (self.report,)


@flow(
    name="maintain",
    description="Compact a table, keep its indexes fresh, remove old versions and orphans.",
    flow_run_name=run_name,
    validate_parameters=False,
    on_crashed=[fail_for_parameters],
)
def maintain(recipe: str | dict[str, Any]) -> dict[str, Any] | State[dict[str, Any]]:
    """Maintain one recipe's table, beside readers and embed runs.

    Args:
        recipe: path or URI of a recipe file, or the recipe itself.
    """
    try:
        with interrupts.not_mistaken():
            loaded = Recipe.load(recipe)
            done = maintenance.maintain(loaded)
    except EmbedlakeError as error:
        return failed(error)
    lines = words.maintenance_lines(done)
    for line in lines:
        get_run_logger().info(line)
    create_markdown_artifact(
        markdown=f"# Maintenance of {done.recipe}\n\n{text_block(lines)}",
        key=artifact_key("maintain-report", loaded),
    )
    if done.problems:
        return failed(MaintenanceUnfinished(done))
    return words.maintenance_data(done)
