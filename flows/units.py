"""Work units through Ray: chunk tasks mapped, embed tasks behind them, groups committed in order.

Two groups are in flight at most: while one is embedded and committed, the next is being chunked.
Ray hangs with thousands of pending tasks, and a bounded window bounds staged data too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from prefect import get_run_logger, unmapped
from prefect.futures import PrefectFuture

from embedding_core import pipeline
from embedding_core.errors import SetupError
from embedding_core.pipeline import Job, RunTally
from embedding_core.records import EmbeddedUnit, Plan, StagedUnit, WorkUnit
from flows import tasks
from flows.progress import RunProgress
from flows.results import result_storage
from flows.runner import embed_options
from flows.settings import Settings

GROUPS_IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class _Submitted:
    unit: WorkUnit
    staged: PrefectFuture[StagedUnit]
    embedded: PrefectFuture[EmbeddedUnit]


def run_units(job: Job, planned: Plan, tally: RunTally, settings: Settings) -> None:
    """Run every unit of the plan and commit what comes of it into ``tally``.

    A unit that fails is noted in ``tally.failures`` and does not take others with it. A
    ``SetupError`` in a task ends the run: it would hit every unit.
    """
    units = list(pipeline.work_units(planned, job.resources.unit_bytes))
    if not units:
        pipeline.commit_units(job, (), planned.removed_keys)
        return
    runner, removed = _UnitRunner(job, settings), planned.removed_keys
    in_flight: deque[list[_Submitted]] = deque()
    with RunProgress(len(units)) as progress:
        for group in _groups(units, job.resources.units_per_commit):
            in_flight.append(runner.submit(group))
            if len(in_flight) == GROUPS_IN_FLIGHT:
                _commit(runner, in_flight.popleft(), removed, tally, progress)
                removed = ()
        while in_flight:
            _commit(runner, in_flight.popleft(), removed, tally, progress)
            removed = ()


def _commit(
    runner: _UnitRunner,
    group: list[_Submitted],
    removed: Sequence[str],
    tally: RunTally,
    progress: RunProgress,
) -> None:
    """Wait for a group and commit it, rows of removed files along with the first."""
    done = runner.with_fragments(runner.collect(group, tally, progress), tally)
    pipeline.commit_units(runner.job, done, removed)
    tally.add(done)
    progress.publish()


class _UnitRunner:
    """Submits units and reads their futures; every future is read, none is waited for in vain."""

    def __init__(self, job: Job, settings: Settings) -> None:
        self.job = job
        self._settings = settings
        storage = result_storage(job.recipe)
        self._chunk = tasks.chunk.with_options(result_storage=storage)
        self._embed = tasks.embed.with_options(result_storage=storage)

    def submit(self, group: Sequence[WorkUnit], refresh: bool = False) -> list[_Submitted]:
        """Map the chunk task over a group and put an embed task behind each."""
        embed = self._embed.with_options(refresh_cache=refresh)
        staged = self._chunk.map(unmapped(self.job), list(group))
        with embed_options(self.job.resources, self._settings):
            embedded = embed.map(unmapped(self.job), staged)
        return [_Submitted(*one) for one in zip(group, staged, embedded, strict=True)]

    def collect(
        self, group: Sequence[_Submitted], tally: RunTally, progress: RunProgress | None = None
    ) -> list[EmbeddedUnit]:
        """What the group's units gave, in order; failures go into the tally."""
        done = []
        for submitted in group:
            result = self._result(submitted)
            if isinstance(result, EmbeddedUnit):
                # A cached result carries the plan of the run that made it: use this run's.
                done.append(replace(result, unit=submitted.unit))
            elif isinstance(result, SetupError):
                raise result
            else:
                tally.failures.append(f"{submitted.unit.label}: {result}")
                get_run_logger().error("unit %s failed: %s", submitted.unit.label, result)
            if progress is not None:
                progress.finished(done[-1] if isinstance(result, EmbeddedUnit) else None)
        return done

    def with_fragments(self, done: list[EmbeddedUnit], tally: RunTally) -> list[EmbeddedUnit]:
        """``done``, with units whose cached fragments are gone from the store embedded again."""
        lost = {unit.unit.unit_id for unit in pipeline.lost_units(self.job, done)}
        if not lost:
            return done
        again = self.submit([one.unit for one in done if one.unit.unit_id in lost], refresh=True)
        return [one for one in done if one.unit.unit_id not in lost] + self.collect(again, tally)

    def _result(self, submitted: _Submitted) -> Any:
        """The embedded unit, or the exception that stopped it (the chunk task's own, if it was)."""
        for future in (submitted.staged, submitted.embedded):
            future.wait()
            if not future.state.is_completed():
                return future.state.result(raise_on_failure=False)
        return submitted.embedded.result()


def _groups(units: Sequence[WorkUnit], size: int) -> Iterator[list[WorkUnit]]:
    remaining = iter(units)
    while group := list(islice(remaining, size)):
        yield group
