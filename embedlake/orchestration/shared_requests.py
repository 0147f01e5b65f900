"""The permits of a run on Ray: an actor has them, and tasks lease them from it by its name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect.runtime import flow_run

from embedding_core.encoder.remote.permits import LOST_SECONDS, Exchange, Permits, permitted_by
from embedding_core.errors import Transient, words
from embedlake.orchestration.placement import is_on_ray

P = ParamSpec("P")
R = TypeVar("R")


def share_requests(run_id: str, at_once: int, lost_seconds: float = LOST_SECONDS) -> Any:
    """Start the actor of a run. It ends with the process that started it, or when nothing there
    refers to what this returns.

    It takes no CPU from tasks and is started again when its node is lost: leases then tell it what
    they hold. It runs beside the flow where there is room, so that only the flow's own end ends it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(Permits).options(
        name=_name(run_id),
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        scheduling_strategy=here,
    )
    return actor.remote(at_once, lost_seconds)


def permits_of(run_id: str) -> Exchange | None:
    """How a task on Ray comes by the permits of its run; None when the run asks no server."""
    import ray

    try:
        actor = ray.get_actor(_name(run_id))
    except ValueError:
        return None

    def exchange(lease_id: str, n_held: int, n_wanted: int) -> int:
        try:
            n_permits: int = ray.get(actor.exchange.remote(lease_id, n_held, n_wanted))
        except ray.exceptions.RayError as error:
            raise Transient(f"the run's permits are out of reach: {words(error)}") from error
        return n_permits

    return exchange


def sharing_requests(function: Callable[P, R]) -> Callable[P, R]:
    """The function of a task, which asks servers with permits of its run when it is on Ray."""

    @wraps(function)
    def with_permits(*args: P.args, **kwargs: P.kwargs) -> R:
        with _of_this_run():
            return function(*args, **kwargs)

    return with_permits


def _of_this_run() -> AbstractContextManager[None]:
    if not is_on_ray():
        return nullcontext()  # the flow's own process, which runs a task at a time
    return permitted_by(permits_of(str(flow_run.get_id())))


def _name(run_id: str) -> str:
    return f"embedlake-permits-{run_id}"
