"""Tasks of a flow with an embed task's hardware: many in a bounded window, or one training.

Ray hangs with thousands of pending tasks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any, TypeVar

from prefect import get_run_logger
from prefect.futures import PrefectFuture
from prefect.tasks import Task

from embedding_core.errors import Transient
from embedding_core.plurals import counted
from embedding_core.reports.report import said
from embedding_core.runs.exchange.claim import ExportJob
from embedding_core.runs.exchange.shards import Shard
from embedding_core.runs.job import Job
from embedding_core.runs.space.release import index_is_due
from embedlake.execution.runner import current_runner
from embedlake.orchestration import tasks
from embedlake.silence import SILENT_SECONDS

IN_FLIGHT, PER_WORKER = 32, 2
"""Tasks that have begun and not ended, at least; and of each worker, so that none has to wait."""

FAILURES_SHOWN = 3

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(
    task: Task[Any, Result],
    shared: Any,
    items: Iterable[Item],
    failures: list[str],
    with_hardware: bool = True,
) -> Iterator[Result]:
    """``task(shared, item)`` for each item; results in order.

    The tasks get an embed task's hardware, or without ``with_hardware`` a CPU each.

    A task that fails does not take others with it: a sentence goes into ``failures``. A
    ``SetupError``, or Ray that broke down, ends it all: it would hit every task.
    """
    runner, n_ended = current_runner(), 0
    waiting, in_flight = iter(items), deque[tuple[Item, PrefectFuture[Result]]]()
    while True:
        most = max(IN_FLIGHT, PER_WORKER * runner.n_workers) if in_flight else IN_FLIGHT
        with runner.with_hardware() if with_hardware else nullcontext():
            for item in islice(waiting, most - len(in_flight)):
                in_flight.append((item, task.submit(shared, item)))
        if not in_flight:
            return
        item, future = in_flight.popleft()
        while runner.first_ended([future], SILENT_SECONDS) is None:
            get_run_logger().info(
                "%s: %d done, %d under way", task.name, n_ended, len(in_flight) + 1
            )
        result, n_ended = runner.result(future), n_ended + 1
        if isinstance(result, BaseException):
            failures.append(f"{task.name} {item}: {said(result)}")
            get_run_logger().error("%s %s failed: %s", task.name, item, said(result))
        else:
            yield result


def write_shards(job: ExportJob, shards: Sequence[Shard]) -> None:
    """Write shards of an export in tasks. Raises ``Transient`` when some were not written."""
    failures: list[str] = []
    for _ in each(tasks.export_shard, job, shards, failures, with_hardware=False):
        pass
    if failures:
        raise Transient(
            f"{len(failures):,} of {counted(len(shards), 'shard')} were not written: "
            f"{'; '.join(failures[:FAILURES_SHOWN])}",
            action="resume",
        )


def train_if_due(job: Job) -> None:
    """Train the index of the job's space in a separate task, with an embed task's hardware.

    Runs no task when no training is due: the flow itself extends an index and measures its recall.
    Raises what the task raised.
    """
    if index_is_due(job):
        with current_runner().with_hardware(keeps_process=False):
            future = tasks.index.submit(job)
        future.result()
