"""Work that is cheaper together: what waits at the same time is done at once.

An item that comes while the worker rests is taken at once; those that come while it works wait for
its end and share the next turn. So nobody waits for others to come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gathering(Generic[Item, Result]):
    """Threads that do ``work`` on the items that wait. Belongs to one event loop."""

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        most: int,
        name: str,
        threads: int = 1,
    ) -> None:
        """``work`` gives a result or an error for each of at most ``most`` items; an error that it
        raises is that of all."""
        self._work_on = work
        self._most = most
        self._n_threads = threads
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"embedlake-{name}")
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._workers: set[asyncio.Task[None]] = set()

    async def result(self, item: Item) -> Result:
        """What became of an item. Raises its error."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._workers) < self._n_threads:
            self._workers.add(asyncio.create_task(self._work()))
        return await future

    async def _work(self) -> None:
        """Take turns until nothing waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                n_items = min(self._most, len(self._waiting))
                turn = [self._waiting.popleft() for _ in range(n_items)]
                items = [item for item, _ in turn]
                work = loop.run_in_executor(self._threads, self._work_on, items)
                (results,) = await asyncio.gather(work, return_exceptions=True)
                for number, (_, future) in enumerate(turn):
                    _hand_over(
                        future, results if isinstance(results, BaseException) else results[number]
                    )
        finally:  # at once: an item that comes now must find room for its worker
            self._workers = {task for task in self._workers if task is not asyncio.current_task()}


def _hand_over(future: asyncio.Future[Result], result: Result | BaseException) -> None:
    if future.done():
        return  # whoever asked has gone
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
