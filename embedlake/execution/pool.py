"""A function over many items: in this process when there is little to do, else on Ray.

Nothing is written by it and nobody waits for a record of it, so no Prefect API is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from embedding_core.errors import Transient
from embedding_core.store.retry import TASK_RETRIES
from embedlake import interrupts
from embedlake.settings import Settings

IN_FLIGHT = 32
LISTENING_SECONDS = 1.0
"""How soon a signal is seen while Ray works."""

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")


def each_in_pool(
    function: Callable[[Shared, Item], Result],
    shared: Shared,
    items: Iterable[Item],
    settings: Settings,
    on_ray: bool,
) -> Iterator[Result]:
    """``function(shared, item)`` for each item; results in the items' order."""
    if on_ray:
        yield from _on_ray(function, shared, items, settings)
        return
    for item in items:
        interrupts.check()
        yield function(shared, item)


def _on_ray(
    function: Callable[[Shared, Item], Result],
    shared: Shared,
    items: Iterable[Item],
    settings: Settings,
) -> Iterator[Result]:
    """Each item is a task of a CPU; a bounded number is in flight."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    from embedlake.execution.ray_runner import RayRunner, broke_down
    from embedlake.execution.runner import ray_broke_down

    with RayRunner.of(settings):
        task = ray.remote(num_cpus=1, max_retries=TASK_RETRIES, retry_exceptions=[Transient])(
            function
        )
        put, waiting = ray.put(shared), iter(items)
        in_flight = deque(task.remote(put, item) for item in islice(waiting, IN_FLIGHT))
        while in_flight:
            interrupts.check()
            try:
                ended, _ = ray.wait([in_flight[0]], timeout=LISTENING_SECONDS)
                if not ended:
                    continue
                result: Result = ray.get(in_flight.popleft())
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:
                raise (ray_broke_down(error) if broke_down(error) else error) from error
            yield result
            in_flight.extend(task.remote(put, item) for item in islice(waiting, 1))
