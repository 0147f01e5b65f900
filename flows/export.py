"""The export flow: a version of a table as files, its shards written on Ray.

1. Plan the shards of the table's newest version and claim the destination.
2. Write them, in any order and on any node: the same version gives the same bytes.
3. Write the manifest; report.
"""

from __future__ import annotations

import time
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from embedding_core.errors import EmbedlakeError
from embedding_core.exports.destination import Destination
from embedding_core.exports.spec import ExportSpec
from embedding_core.recipe import Recipe
from embedding_core.reports.exchange.exported import ExportView
from embedding_core.runs.exchange.exporting import (
    BegunExport,
    ExportReport,
    begin_export,
    finish_export,
)
from embedding_core.runs.exchange.hub_export import export_to_hub
from embedding_core.store import storage
from embedlake import interrupts
from embedlake.execution.runner import Runner, current_runner
from embedlake.execution.window import write_shards
from embedlake.local.folders import export_staging
from embedlake.local.small_work import is_little_to_export
from embedlake.orchestration.naming import run_name
from embedlake.orchestration.outcome import ended, failed
from embedlake.orchestration.parameters import fail_for_parameters
from embedlake.orchestration.publishing import publish
from embedlake.orchestration.watching import watched_settings
from embedlake.settings import Settings


@flow(
    name="export",
    description="Write a version of a table as files, with a manifest of digests.",
    flow_run_name=run_name,
    task_runner=Runner(),
    validate_parameters=False,
    persist_result=False,
    on_crashed=[fail_for_parameters],
)
def export(
    recipe: str | dict[str, Any],
    destination: str,
    spec: dict[str, Any],
    overwrite: bool = False,
    resume: bool = False,
) -> dict[str, Any] | State[dict[str, Any]]:
    """Export one recipe's table.

    Args:
        recipe: path or URI of a recipe file, or the recipe itself.
        destination: an absolute path that every node sees, ``s3://bucket/prefix``, or
            ``hf://datasets/owner/name``, which the flow's own process writes.
        spec: ``to`` (the format), and what else an export may be asked for.
        overwrite: replace an export that is there.
        resume: go on with an export that was cut off.
    """
    started = time.perf_counter()
    try:
        loaded, asked = Recipe.load(recipe), ExportSpec.of(spec)
        settings = watched_settings()
        with interrupts.not_mistaken():
            if storage.scheme_of(destination) == "hf":
                staging = export_staging(settings)
                report = export_to_hub(loaded, asked, destination, staging, overwrite, resume)
            else:
                folder = Destination.parse(destination, loaded.lake.storage)
                begun = begin_export(loaded, asked, folder, overwrite, resume)
                report = _written(begun, settings, started)
    except EmbedlakeError as error:
        return failed(error)
    view = ExportView(report)
    publish("export-report", loaded, view)
    return ended(view)


def _written(begun: BegunExport, settings: Settings, started: float) -> ExportReport:
    """Write the shards that are not complete yet, on Ray when there is much."""
    todo = begun.todo()
    n_rows = sum(shard.rows for shard in todo)
    in_process = is_little_to_export(n_rows, begun.dim, settings)
    on_cpus = settings.resources.updated({"gpus_per_task": 0})
    current_runner().prepare(settings, on_cpus, in_process)
    write_shards(begun.job, todo)
    return finish_export(begun, len(todo), started)
