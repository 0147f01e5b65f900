"""Many tasks through Ray with a bounded number of them in flight: Ray hangs with thousands."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from prefect import get_run_logger
from prefect.futures import PrefectFuture
from prefect.tasks import Task

from embedding_core.errors import SetupError, words
from embedding_core.recipe import Resources
from flows.runner import embed_options
from flows.settings import Settings

IN_FLIGHT = 32

Given = TypeVar("Given")
Found = TypeVar("Found")


def each_on_ray(
    task: Task[Any, Found],
    shared: Any,
    given: Iterable[Given],
    resources: Resources,
    settings: Settings,
    failures: list[str],
) -> Iterator[Found]:
    """``task(shared, one)`` for each of ``given``, with an embed task's hardware; results in order.

    A task that fails does not take others with it: a sentence goes into ``failures``. A
    ``SetupError`` ends it all: it would hit every task.
    """
    waiting, in_flight = iter(given), deque[tuple[Given, PrefectFuture[Found]]]()
    while True:
        with embed_options(resources, settings):
            for one in islice(waiting, IN_FLIGHT - len(in_flight)):
                in_flight.append((one, task.submit(shared, one)))
        if not in_flight:
            return
        one, future = in_flight.popleft()
        future.wait()
        result = future.state.result(raise_on_failure=False)
        if isinstance(result, SetupError):
            raise result
        if isinstance(result, BaseException):
            failures.append(f"{task.name} {one}: {words(result)}")
            get_run_logger().error("%s %s failed: %s", task.name, one, words(result))
        else:
            yield result
