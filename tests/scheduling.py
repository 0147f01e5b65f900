"""What the scheduler needs, in this process: a unit is worked on when its result is asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from embedding_core.errors import SetupError
from embedding_core.records import EmbeddedUnit, Plan, WorkUnit
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.job import Job
from embedlake.execution.unit_runner import Log


class SilentProgress:
    """Stands in for the terminal and the Prefect API."""

    seconds_to_speak = 60.0

    def finished(self, _unit: EmbeddedUnit | None) -> None: ...
    def still_working(self, _n_under_way: int) -> None: ...
    def publish(self) -> None: ...


@dataclass(eq=False)
class Begun:
    """A unit that is worked on when its result is asked for."""

    unit: WorkUnit


class InProcess:
    """Runs units where it stands instead of on Ray, and watches how many are in flight."""

    log: Log = logging.getLogger("test")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.in_flight = self.most_in_flight = 0

    def runner(self, job: Job, _planned: Plan, _units: Sequence[WorkUnit]) -> InProcess:
        """See ``Execution``."""
        self.job = job
        return self

    def progress(
        self, _job: Job, _n_units: int, _chunks: int
    ) -> AbstractContextManager[SilentProgress]:
        """See ``Execution``."""
        return nullcontext(SilentProgress())

    def submit(self, units: Sequence[WorkUnit], refresh: bool = False) -> list[Begun]:
        """See ``UnitRunner``."""
        self.in_flight += len(units)
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return [Begun(unit) for unit in units]

    def first_to_end(self, in_flight: Sequence[Begun], seconds: float) -> Begun | None:
        """See ``UnitRunner``."""
        return in_flight[0]

    def result(self, submitted: Begun) -> EmbeddedUnit | BaseException:
        """See ``UnitRunner``."""
        self.in_flight -= 1
        assert self.job is not None
        try:
            return embed_unit(self.job, chunk_unit(self.job, submitted.unit))
        except SetupError:
            raise
        except Exception as error:
            return error
