"""The reembed flow: a new model beside the one in service, tested against it, then switched.

1. Judge the model on a sample, if asked to.
2. Fill a new column fragment by fragment on Ray, and the rows that arrive meanwhile.
3. Index it, judge the whole table, switch to the new column in one commit.

The table holds what is done, so the next run goes on where one was cut off.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from embedding_core.errors import EmbedlakeError
from embedding_core.recipe import Recipe
from embedding_core.runs.job import locked_for
from embedding_core.runs.serving import is_endpoint
from embedding_core.runs.space.build import space_job
from embedding_core.runs.space.release import Promotion, has_left
from embedlake.execution.reembedding import ReembedRun, published
from embedlake.execution.runner import Runner, current_runner
from embedlake.local.hardware import resources_for
from embedlake.orchestration import events
from embedlake.orchestration.naming import run_name
from embedlake.orchestration.outcome import failed
from embedlake.orchestration.parameters import fail_for_parameters
from embedlake.orchestration.watching import watched_settings


@flow(
    name="reembed",
    description="Embed a table again with another model, test it against the old, switch.",
    flow_run_name=run_name,
    task_runner=Runner(),
    validate_parameters=False,
    persist_result=False,
    on_crashed=[fail_for_parameters],
)
def reembed(
    recipe: str | dict[str, Any],
    model: str | dict[str, Any] | None = None,
    promote: Promotion = "auto",
    sample: float | None = None,
    resources: dict[str, Any] | None = None,
    announced: str | None = None,
) -> dict[str, Any] | State[dict[str, Any]]:
    """Give a recipe's table the vectors of another model.

    A deployment's run ends as ``Superseded`` when another was asked for after it, and a schedule's
    run as ``Left`` when the model has left service: it does not undo what was done since.

    Args:
        recipe: path or URI of a recipe file, or the recipe itself.
        model: name of the new model, or a whole model section; default: the recipe's.
        promote: ``auto`` when the gate says yes, ``force`` whatever it says, ``never``.
        sample: share of the rows to embed and judge first; a no there ends the run.
        resources: settings that only change speed, over those of the environment.
        announced: when the event was sent that asked for the run, ISO 8601: the last one counts.
    """
    run_id = str(flow_run.get_id())
    own_run = events.own_run(run_id)
    if (later := events.superseded_by(own_run)) is not None:
        why = f"flow run {later.name} ({later.id}) was asked for later"
        return Completed(name="Superseded", message=why)
    try:
        settings = watched_settings()
        newer = Recipe.load(recipe).with_model(model)
        chosen = settings.resources.updated(resources or {})
        chosen = resources_for(newer.model, chosen, settings)
        job = space_job(newer, newer.model, chosen, run_id, settings.price_per_hour)
        if own_run.auto_scheduled and has_left(job):
            why = f"{newer.model.name} was in service or retired; schedules do not bring it back"
            return Completed(name="Left", message=why)
        current_runner().prepare(settings, chosen, asks_servers=is_endpoint(newer.model))
        with locked_for(newer, run_id, settings.lock_wait_seconds, "build") as lock:
            report = ReembedRun(job, promote, lock).to_the_end(sample)
    except EmbedlakeError as error:
        return failed(error)
    return published(report, newer)
