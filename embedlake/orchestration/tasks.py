"""Prefect tasks: thin wrappers around ``embedding_core.runs``, with retries.

Results are small plain records, and Prefect keeps none of them: it would read a kept result by the
serializer that the result itself names, pickle too. What saves a later run work stands as JSON and
Arrow beside the staged rows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.tasks import Task, exponential_backoff

from embedding_core.errors import Transient, words
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
from embedding_core.watch.subject import subject_of
from embedlake.orchestration.placement import is_on_ray, keep_process, placed, placed_job
from embedlake.orchestration.shared_requests import sharing_requests
from embedlake.orchestration.watching import watched_settings

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


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
    """Says in the task's log that a model is loaded; on Ray in the flow's log too, and the process
    stays for the tasks that need the model next."""
    say = get_run_logger().info
    if not is_on_ray():
        return telling(say, model)
    keep_process()
    from embedlake.orchestration.worker_lines import tell

    def say_twice(line: str) -> None:
        say(line)
        tell(str(flow_run.get_id()), line)

    return telling(say_twice, model)


def is_transient(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether another try may help: decided by the class of the error, never by its words."""
    return isinstance(state.result(raise_on_failure=False), Transient)


def _retried(name: str, run_name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """The decorator of every task: the run's permits for requests to servers, a process that is
    watched, and pauses of 2, 4 and 8 s, each stretched by up to half, so that a store comes back
    without a stampede; no result is kept, whatever Prefect's settings say."""
    as_task = task(
        name=name,
        task_run_name=run_name,
        retries=TASK_RETRIES,
        retry_delay_seconds=exponential_backoff(FIRST_TASK_PAUSE_SECONDS),
        retry_jitter_factor=TASK_JITTER,
        retry_condition_fn=is_transient,
        persist_result=False,
    )

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        @wraps(function)
        def watched(*args: P.args, **kwargs: P.kwargs) -> R:
            watched_settings()
            try:
                return function(*args, **kwargs)
            except Exception as error:
                _say_failed(error)
                raise

        return as_task(sharing_requests(watched))

    return decorate


def _say_failed(error: Exception) -> None:
    """Say what a task failed for and at which file; Prefect's own line knows the task alone."""
    if (subject := subject_of(error)) is not None:
        kind = type(error).__name__
        get_run_logger().warning("%s: %s", kind, words(error), extra=subject.fields)


@_retried("chunk", "chunk {unit.value.label}")
def chunk(job: Job, unit: Sealed[WorkUnit]) -> Sealed[StagedUnit]:
    """Read and cut one unit."""
    return Sealed(chunk_unit(job, unit.value))


@_retried("embed", "embed {staged.value.unit.label}")
def embed(job: Job, staged: Sealed[StagedUnit]) -> EmbeddedUnit:
    """Encode one unit and write its rows into the table's storage."""
    with announcing(told_to_the_flow):
        return embed_unit(placed_job(job), staged.value, get_run_logger().info)


@_retried("survey", "survey {unit.value.label}")
def survey(job: Job, unit: Sealed[SurveyUnit]) -> str:
    """Survey one unit's files, to choose among their documents; what it stages is its cache."""
    return survey_unit(job, unit.value)


@_retried("backfill", "backfill fragments {fragment_ids}")
def backfill(job: Job, fragment_ids: tuple[int, ...]) -> list[FilledFragment]:
    """Fill a space's column for some fragments, committing each."""
    with announcing(told_to_the_flow):
        job = placed_job(job)
        return [backfill_fragment(job, fragment_id) for fragment_id in fragment_ids]


@_retried("index", "train an index")
def index(job: Job) -> IndexReport | None:
    """Train the index of the job's space: on a worker, which may have a GPU and has the memory."""
    return index_space(placed_job(job))


@_retried("sample", "sample part {sample_part.number}")
def sample(job: Job, sample_part: SamplePart) -> SampledPart:
    """Embed some rows to judge the model by."""
    with announcing(told_to_the_flow):
        return embed_sample(placed_job(job), sample_part)


@_retried("judge-sample", "judge a sample")
def judge_sample(job: Job, parts: tuple[SampledPart, ...]) -> GateReport:
    """Judge the model on the sampled rows."""
    with announcing(told_to_the_flow):
        return sampling.judge_sample(placed_job(job), parts)


@_retried("gate", "gate {column}")
def gate(job: Job, column: str) -> GateReport:
    """Judge a whole column."""
    with announcing(told_to_the_flow):
        return release_gate.gate(job.recipe, placed(job.resources), column)


@_retried("export", "export shard {shard.number}")
def export_shard(job: ExportJob, shard: Shard) -> None:
    """Write a shard of an export, and its receipt."""
    write_shard(job, shard)
