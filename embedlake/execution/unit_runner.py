"""Who works on a run's units: what the scheduler asks for, and the answer by Prefect tasks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, TypeVar

from prefect import get_run_logger, unmapped
from prefect.futures import PrefectFuture

from embedding_core.records import EmbeddedUnit, Plan, StagedUnit, WorkUnit
from embedding_core.runs.job import Job
from embedlake.execution.runner import current_runner
from embedlake.local.small_work import is_small
from embedlake.orchestration import tasks
from embedlake.orchestration.progress import RunProgress
from embedlake.orchestration.results import result_storage
from embedlake.settings import Settings

Log: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"


class Submitted(Protocol):
    """A unit that is being worked on."""

    @property
    def unit(self) -> WorkUnit: ...


SubmittedT = TypeVar("SubmittedT", bound=Submitted)


class UnitRunner(Protocol[SubmittedT]):
    """Works on units of one job."""

    def submit(self, units: Sequence[WorkUnit], refresh: bool = False) -> list[SubmittedT]:
        """Begin some units. ``refresh``: results kept from earlier are not used."""
        ...

    def first_to_end(self, in_flight: Sequence[SubmittedT], seconds: float) -> SubmittedT | None:
        """A unit that has ended; None when none has after ``seconds``."""
        ...

    def result(self, submitted: SubmittedT) -> EmbeddedUnit | BaseException:
        """What became of a unit; waits for its end. Raises what would hit every other unit too."""
        ...


class Progress(Protocol):
    """Shows how far a run is."""

    @property
    def seconds_to_speak(self) -> float:
        """Until the run has been silent for too long."""
        ...

    def finished(self, unit: EmbeddedUnit | None) -> None:
        """Note a unit that ended; None for one that failed."""
        ...

    def still_working(self, n_under_way: int) -> None:
        """Say that the run goes on if nothing was said for a while."""
        ...

    def publish(self) -> None:
        """Say how far the run is."""
        ...


class Execution(Protocol):
    """What the scheduler needs from its surroundings."""

    log: Log

    def runner(self, job: Job, planned: Plan, units: Sequence[WorkUnit]) -> UnitRunner[Any]:
        """Who works on these units of a plan."""
        ...

    def progress(
        self, job: Job, n_units: int, estimated_chunks: int
    ) -> AbstractContextManager[Progress]:
        """Who shows how far they are."""
        ...


class PrefectExecution:
    """A flow run: tasks on Ray or in this process, a bar and an artifact."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.log: Log = get_run_logger()

    def runner(self, job: Job, planned: Plan, units: Sequence[WorkUnit]) -> TaskRunner:
        """Tasks in this process when there is little to do, else on Ray."""
        little = is_small(planned, units, job.recipe, job.resources, self._settings)
        current_runner().prepare(self._settings, job.resources, little)
        if current_runner().in_process:
            self.log.info("little to do: tasks run in this process, without Ray")
        return TaskRunner(job)

    def progress(self, job: Job, n_units: int, estimated_chunks: int) -> RunProgress:
        """The bar in the terminal and the artifact in Prefect."""
        return RunProgress(job, n_units, estimated_chunks)


@dataclass(frozen=True, slots=True)
class SubmittedTasks:
    """The two tasks of a unit."""

    unit: WorkUnit
    staged: PrefectFuture[tasks.Sealed[StagedUnit]]
    embedded: PrefectFuture[EmbeddedUnit]


class TaskRunner:
    """A ``UnitRunner`` by Prefect: a chunk task per unit, and an embed task behind it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._runner = current_runner()
        storage = result_storage(job.recipe)
        self._chunk = tasks.chunk.with_options(result_storage=storage)
        self._embed = tasks.embed.with_options(result_storage=storage)

    def submit(self, units: Sequence[WorkUnit], refresh: bool = False) -> list[SubmittedTasks]:
        """See ``UnitRunner``."""
        embed = self._embed.with_options(refresh_cache=refresh)
        staged = self._chunk.map(unmapped(self._job), [tasks.Sealed(unit) for unit in units])
        with self._runner.with_hardware():
            embedded = embed.map(unmapped(self._job), staged)
        return list(map(SubmittedTasks, units, staged, embedded))

    def first_to_end(
        self, in_flight: Sequence[SubmittedTasks], seconds: float
    ) -> SubmittedTasks | None:
        """See ``UnitRunner``."""
        ended = self._runner.first_ended([unit.embedded for unit in in_flight], seconds)
        return next((unit for unit in in_flight if unit.embedded is ended), None)

    def result(self, submitted: SubmittedTasks) -> EmbeddedUnit | BaseException:
        """See ``UnitRunner``. When the chunk task failed, its own error."""
        staged = self._runner.result(submitted.staged)
        if isinstance(staged, BaseException):
            return staged
        embedded: EmbeddedUnit | BaseException = self._runner.result(submitted.embedded)
        if isinstance(embedded, EmbeddedUnit):
            # A cached result carries the plan of the run that made it: use this run's.
            return replace(embedded, unit=submitted.unit)
        return embedded
