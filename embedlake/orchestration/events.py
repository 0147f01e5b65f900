"""Announce new models by an event, and act on each once.

A deployment's trigger starts a run for each announcement. When several runs were asked for, only
the last has a model that anyone still waits for; the others end without work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.clients import get_events_client
from prefect.events.schemas.events import Event, Resource
from prefect.types import DateTime

from embedding_core.errors import SetupError

FINETUNED = "model.finetuned"
"""Name of the event. Its payload says which ``model``."""
RESOURCE = "embedlake.model"
"""Id of its resource when it is meant for every table; one table's has a name after a dot."""

ANNOUNCED = "announced"
"""The flow's parameter that says when the event was sent which started a run."""

RECONNECTIONS = 11
"""A busy server that lets each try time out after ten seconds has two minutes; where none listens,
it takes eight seconds to say so."""

LATER = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.COMPLETED]
"""States of a later run that make an earlier one pointless; not of one that failed."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """An event that the Prefect API has received."""

    event: str
    resource: str
    """What triggers match."""
    model: str
    id: str
    occurred: DateTime


def announce(model: str, name: str | None = None) -> Announcement:
    """Tell deployments of a new model; returns when the Prefect API has the event.

    ``name`` speaks to deployments that listen to that name, None to all. A path must be absolute:
    the worker has another current folder. Raises ``SetupError`` when the event cannot be sent.
    """
    resource = RESOURCE if name is None else f"{RESOURCE}.{name}"
    labels = {"prefect.resource.id": resource, "prefect.resource.name": model}
    event = Event(event=FINETUNED, resource=Resource(labels), payload={"model": model})
    try:
        asyncio.run(_send(event))
    except Exception as error:  # websockets, TLS and the login have different errors
        raise SetupError(
            f"the Prefect API did not take the event: {error}; see that it runs and that "
            "PREFECT_API_AUTH_STRING is right, then announce the model again"
        ) from error
    return Announcement(FINETUNED, resource, model, str(event.id), event.occurred)


async def _send(event: Event) -> None:
    """Send and wait for the receipt; ``emit_event`` would only log that it failed."""
    async with get_events_client(RECONNECTIONS, checkpoint_every=1) as client:
        await client.emit(event)


def own_run(run_id: str) -> FlowRun:
    """What the Prefect API knows of a flow run."""
    with get_client(sync_client=True) as client:
        return client.read_flow_run(UUID(run_id))


def superseded_by(run: FlowRun) -> FlowRun | None:
    """A run of the same deployment that was asked for later; None for a run of no deployment.

    It counts while it waits or runs and when it has ended well, if it has the same parameters but
    for the model. Runs by a schedule do not count: they ask for nothing new.
    """
    if run.deployment_id is None:
        return None
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[run.deployment_id]),
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=LATER)),
                expected_start_time=FlowRunFilterExpectedStartTime.model_validate(
                    {"after_": _asked_at(run)}
                ),
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        )
    return latest_request(run, runs)


def latest_request(own_run: FlowRun, runs: Iterable[FlowRun]) -> FlowRun | None:
    """The run that was asked for last, if that was after ``own_run``; see ``superseded_by``."""
    later = [
        run
        for run in runs
        if not run.auto_scheduled
        and _asked_at(run) > _asked_at(own_run)
        and _beside_model(run) == _beside_model(own_run)
    ]
    return max(later, key=_asked_at, default=None)


def _asked_at(run: FlowRun) -> datetime:
    """When a run was asked for: when its event was sent, since runs of several events start in any
    order. A schedule makes its
    runs long before they are due; everyone else when they want them."""
    if run.parameters.get(ANNOUNCED):
        return datetime.fromisoformat(run.parameters[ANNOUNCED])
    asked_at = run.expected_start_time if run.auto_scheduled else run.created
    assert asked_at is not None, "the Prefect API sets both"
    return asked_at


def _beside_model(run: FlowRun) -> dict[str, Any]:
    return {
        name: value for name, value in run.parameters.items() if name not in ("model", ANNOUNCED)
    }
