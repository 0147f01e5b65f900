"""Who works on a run's units and who hears of it: what a run asks of its surroundings.

``InProcess`` is the plainest answer: this process, one unit after the other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from embedding_core.errors import SetupError
from embedding_core.records import EmbeddedUnit, Plan, SourceFile, WorkUnit
from embedding_core.runs.choosing.settling import SurveyInProcess, SurveyRunner
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.job import Job

Log: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"


class Submitted(Protocol):
    """A unit that is being worked on."""

    @property
    def unit(self) -> WorkUnit: ...


SubmittedT = TypeVar("SubmittedT", bound=Submitted)


class UnitRunner(Protocol[SubmittedT]):
    """Works on units of one job."""

    @property
    def n_workers(self) -> int:
        """Units that are embedded at once, now: a cluster may grow."""
        ...

    def submit(self, units: Sequence[WorkUnit]) -> list[SubmittedT]:
        """Begin some units."""
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

    def expect(self, n_more: int) -> None:
        """Note that there are more units than the run began with."""
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
    """The surroundings of a run."""

    log: Log

    def planned(self, job: Job, planned: Plan) -> Plan:
        """Show what the run will do; the plan, with what is known here of the time it takes."""
        ...

    def surveyor(self, job: Job, files: Sequence[SourceFile]) -> SurveyRunner[Any]:
        """Who surveys files, of which these are the first."""
        ...

    def runner(self, job: Job, planned: Plan, units: Sequence[WorkUnit]) -> UnitRunner[Any]:
        """Who works on these units of a plan."""
        ...

    def progress(
        self, job: Job, n_units: int, estimated_chunks: int
    ) -> AbstractContextManager[Progress]:
        """Who shows how far they are."""
        ...

    def train(self, job: Job) -> None:
        """Train the vector index if that is due, where the units were worked on; else the end of
        the run does."""
        ...


class SilentProgress:
    """A ``Progress`` that nobody sees."""

    seconds_to_speak = math.inf

    def expect(self, n_more: int) -> None:
        """See ``Progress``."""

    def finished(self, unit: EmbeddedUnit | None) -> None:
        """See ``Progress``."""

    def still_working(self, n_under_way: int) -> None:
        """See ``Progress``."""

    def publish(self) -> None:
        """See ``Progress``."""


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A unit that is worked on when its result is asked for."""

    unit: WorkUnit


class InProcess:
    """An ``Execution`` and a ``UnitRunner`` without any server; talks to its log alone."""

    log: Log = logging.getLogger(__name__)
    job: Job
    """Whose units are worked on, once there is a runner."""

    def planned(self, job: Job, planned: Plan) -> Plan:
        """See ``Execution``."""
        return planned

    def surveyor(self, job: Job, files: Sequence[SourceFile]) -> SurveyRunner[Any]:
        """See ``Execution``."""
        return SurveyInProcess(job)

    def runner(self, job: Job, planned: Plan, units: Sequence[WorkUnit]) -> InProcess:
        """See ``Execution``."""
        self.job = job
        return self

    def progress(
        self, job: Job, n_units: int, estimated_chunks: int
    ) -> AbstractContextManager[Progress]:
        """See ``Execution``."""
        return nullcontext(SilentProgress())

    def train(self, job: Job) -> None:
        """See ``Execution``."""

    @property
    def n_workers(self) -> int:
        """See ``UnitRunner``."""
        return 1

    def submit(self, units: Sequence[WorkUnit]) -> list[Begun]:
        """See ``UnitRunner``."""
        return list(map(Begun, units))

    def first_to_end(self, in_flight: Sequence[Begun], seconds: float) -> Begun | None:
        """See ``UnitRunner``."""
        return in_flight[0]

    def result(self, submitted: Begun) -> EmbeddedUnit | BaseException:
        """See ``UnitRunner``."""
        try:
            return embed_unit(self.job, chunk_unit(self.job, submitted.unit), self.log.info)
        except SetupError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the unit that failed
            return error
