"""Prefect tasks: thin wrappers around ``embedding_core.pipeline``, with retries and caching.

Results are small plain records. A cached result only saves time: the flow never submits what the
table already holds, and checks that a result's fragments still exist before it commits them.
"""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import Task, exponential_backoff

from embedding_core import pipeline
from embedding_core.errors import Transient
from embedding_core.pipeline import Job
from embedding_core.records import EmbeddedUnit, StagedUnit, WorkUnit

RETRIES = 3
FIRST_PAUSE_SECONDS = 2
"""Pauses of 2, 4 and 8 s, each stretched by up to half: a store comes back without a stampede."""
JITTER = 0.5


def is_transient(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether another try may help: decided by the class of the error, never by its words."""
    return isinstance(state.result(raise_on_failure=False), Transient)


def chunk_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Cache key of a chunked unit: the digest of its files, their rules and the space."""
    return f"chunk-{parameters['unit'].unit_id}"


def embed_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Cache key of an embedded unit."""
    return f"embed-{parameters['staged'].unit.unit_id}"


@task(
    name="chunk",
    task_run_name="chunk {unit.label}",
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(FIRST_PAUSE_SECONDS),
    retry_jitter_factor=JITTER,
    retry_condition_fn=is_transient,
    persist_result=True,
    cache_key_fn=chunk_key,
)
def chunk(job: Job, unit: WorkUnit) -> StagedUnit:
    """Read and cut one unit."""
    return pipeline.chunk_unit(job, unit)


@task(
    name="embed",
    task_run_name="embed {staged.unit.label}",
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(FIRST_PAUSE_SECONDS),
    retry_jitter_factor=JITTER,
    retry_condition_fn=is_transient,
    persist_result=True,
    cache_key_fn=embed_key,
)
def embed(job: Job, staged: StagedUnit) -> EmbeddedUnit:
    """Encode one unit and write its rows into the table's storage."""
    return pipeline.embed_unit(job, staged)
