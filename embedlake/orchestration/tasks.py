"""Prefect tasks: thin wrappers around ``embedding_core.runs``, with retries and caching.

Results are small plain records. A cached result only saves time: the flow never submits what the
table already holds, and checks that a result's fragments still exist before it commits them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, ParamSpec, TypeVar

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.runtime import flow_run
from prefect.tasks import Task, exponential_backoff

from embedding_core.errors import Transient
from embedding_core.lake.index.vector import IndexReport
from embedding_core.quality.judgement import GateReport
from embedding_core.records import EmbeddedUnit, StagedUnit, SurveyUnit, WorkUnit
from embedding_core.runs.announce import Loaded, announcing, telling
from embedding_core.runs.choosing.survey import survey_unit
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.exchange.claim import ExportJob
from embedding_core.runs.exchange.exporting import write_shard
from embedding_core.runs.exchange.shards import Shard
from embedding_core.runs.job import Job
from embedding_core.runs.space import release_gate
from embedding_core.runs.space import sample as sampling
from embedding_core.runs.space.build import FilledFragment, backfill_fragment
from embedding_core.runs.space.release import index_space
from embedding_core.runs.space.sample import SampledPart, SamplePart, embed_sample
from embedding_core.store.retry import FIRST_TASK_PAUSE_SECONDS, TASK_JITTER, TASK_RETRIES
from embedlake.orchestration.placement import placed, placed_job

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

RESULTS_VERSION = 1
"""Raised when the records that tasks return change: results of older code are not read."""


class Sealed(Generic[T]):
    """A value that Prefect hands on without looking for futures in it.

    It walks every argument of a task several times, through dataclasses and all: of a unit with
    thousands of files that takes longer than embedding it. Its own ``opaque`` is a tuple, and Ray
    makes a plain one of that.
    """

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


def told_to_the_flow(model: str) -> AbstractContextManager[Loaded]:
    """Says in the task's log that a model is loaded, and on Ray in the flow's log too."""
    say = get_run_logger().info
    if "ray" not in sys.modules or not sys.modules["ray"].is_initialized():
        return telling(say, model)
    from embedlake.orchestration.worker_lines import tell

    def say_twice(line: str) -> None:
        say(line)
        tell(str(flow_run.get_id()), line)

    return telling(say_twice, model)


def is_transient(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether another try may help: decided by the class of the error, never by its words."""
    return isinstance(state.result(raise_on_failure=False), Transient)


def chunk_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Cache key of a chunked unit: the digest of its files, their rules and the space."""
    return f"chunk-{RESULTS_VERSION}-{parameters['unit'].value.unit_id}"


def embed_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Cache key of an embedded unit."""
    return f"embed-{RESULTS_VERSION}-{parameters['staged'].value.unit.unit_id}"


def _retried(name: str, run_name: str, **caching: Any) -> Callable[[Callable[P, R]], Task[P, R]]:
    """The task decorator with what all tasks share: pauses of 2, 4 and 8 s, each stretched by up to
    half, so that a store comes back without a stampede."""
    return task(
        name=name,
        task_run_name=run_name,
        retries=TASK_RETRIES,
        retry_delay_seconds=exponential_backoff(FIRST_TASK_PAUSE_SECONDS),
        retry_jitter_factor=TASK_JITTER,
        retry_condition_fn=is_transient,
        **caching,
    )


def _per_unit(
    name: str, run_name: str, key: Callable[[TaskRunContext, dict[str, Any]], str]
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """The decorator of tasks over work units: a result saves a later run the same work."""
    return _retried(name, run_name, cache_key_fn=key, persist_result=True)


def _over_table(name: str, run_name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """The decorator of tasks over the table: it shows what they did, so nothing is cached."""
    return _retried(name, run_name, cache_policy=NO_CACHE)


@_per_unit("chunk", "chunk {unit.value.label}", chunk_key)
def chunk(job: Job, unit: Sealed[WorkUnit]) -> Sealed[StagedUnit]:
    """Read and cut one unit."""
    return Sealed(chunk_unit(job, unit.value))


@_per_unit("embed", "embed {staged.value.unit.label}", embed_key)
def embed(job: Job, staged: Sealed[StagedUnit]) -> EmbeddedUnit:
    """Encode one unit and write its rows into the table's storage."""
    with announcing(told_to_the_flow):
        return embed_unit(placed_job(job), staged.value, get_run_logger().info)


@_over_table("survey", "survey {unit.value.label}")
def survey(job: Job, unit: Sealed[SurveyUnit]) -> str:
    """Survey one unit's files, to choose among their documents; what it stages is its cache."""
    return survey_unit(job, unit.value)


@_over_table("backfill", "backfill fragments {fragment_ids}")
def backfill(job: Job, fragment_ids: tuple[int, ...]) -> list[FilledFragment]:
    """Fill a space's column for some fragments, committing each."""
    with announcing(told_to_the_flow):
        job = placed_job(job)
        return [backfill_fragment(job, fragment_id) for fragment_id in fragment_ids]


@_over_table("index", "train an index")
def index(job: Job) -> IndexReport | None:
    """Train the index of the job's space: on a worker, which may have a GPU and has the memory."""
    return index_space(placed_job(job))


@_over_table("sample", "sample part {sample_part.number}")
def sample(job: Job, sample_part: SamplePart) -> SampledPart:
    """Embed some rows to judge the model by."""
    with announcing(told_to_the_flow):
        return embed_sample(placed_job(job), sample_part)


@_over_table("judge-sample", "judge a sample")
def judge_sample(job: Job, parts: tuple[SampledPart, ...]) -> GateReport:
    """Judge the model on the sampled rows."""
    with announcing(told_to_the_flow):
        return sampling.judge_sample(placed_job(job), parts)


@_over_table("gate", "gate {column}")
def gate(job: Job, column: str) -> GateReport:
    """Judge a whole column."""
    with announcing(told_to_the_flow):
        return release_gate.gate(job.recipe, placed(job.resources), column)


@_over_table("export", "export shard {shard.number}")
def export_shard(job: ExportJob, shard: Shard) -> None:
    """Write a shard of an export, and its receipt."""
    write_shard(job, shard)
