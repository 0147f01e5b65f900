"""Explain parameters of a deployment's run that its flow does not take, or lacks.

Prefect compares them before the flow begins, so the flow cannot say a word; the process ends, and
its worker calls what stands in ``on_crashed``.
"""

from __future__ import annotations

import difflib
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Failed


def fail_for_parameters(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Let a run that crashed for its parameters end as failed, with what to do."""
    why = wrong_parameters(flow, flow_run.parameters) if state.is_crashed() else None
    if why is not None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Failed(message=why), force=True)


def wrong_parameters(flow: Flow[..., Any], parameters: dict[str, Any]) -> str | None:
    """The parameters that a flow does not know or that it lacks, those it knows and what to do;
    None when the flow can take them."""
    names, required = list(flow.parameters.properties), flow.parameters.required
    unknown = [
        f"unknown parameter {name!r}{_nearest(name, names)}" for name in parameters.keys() - names
    ]
    lacking = [f"parameter {name!r} is missing" for name in required if name not in parameters]
    if not (unknown or lacking):
        return None
    return (
        f"{'; '.join([*sorted(unknown), *lacking])}. The flow {flow.name!r} takes "
        f"{', '.join(names)}: correct what made this run (the deployment's parameters, its trigger "
        "or the call of the API) and start another; nothing was changed"
    )


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
