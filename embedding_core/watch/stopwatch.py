"""A stopwatch that knows what the time goes into."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from embedding_core.records import Stage, StageSeconds

Item = TypeVar("Item")

_END = object()


class Stopwatch:
    """Counts seconds by stage, from when it is made.

    A stage inside another stops that one's clock, so the stages add up to the time that passed.
    Only the thread that works may change the stage; it may hand the work to another and wait.
    """

    def __init__(self, stage: Stage, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._stage = stage
        self._since = clock()
        self._seconds = defaultdict[str, float](float)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Count the time of this context for a stage. No generator may yield inside it."""
        outer = self._stage
        self._switch(stage)
        try:
            yield
        finally:
            self._switch(outer)

    def each(self, stage: Stage, items: Iterable[Item]) -> Iterator[Item]:
        """The items; the time that each takes to come counts for a stage."""
        iterator = iter(items)
        while True:
            with self.stage(stage):
                item = next(iterator, _END)
            if item is _END:
                return
            yield item  # type: ignore[misc]  # it is no end

    def move(self, seconds: float, source: Stage, target: Stage) -> None:
        """Count seconds of one stage for another."""
        self._seconds[source] -= seconds
        self._seconds[target] += seconds

    def read(self) -> StageSeconds:
        """The seconds so far."""
        self._switch(self._stage)
        return StageSeconds(**self._seconds)

    def _switch(self, stage: Stage) -> None:
        now = self._clock()
        self._seconds[self._stage] += now - self._since
        self._stage, self._since = stage, now
