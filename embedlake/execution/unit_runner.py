"""A run inside a flow: its units are Prefect tasks on Ray or in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefect import get_run_logger, unmapped
from prefect.futures import PrefectFuture

from embedding_core.records import EmbeddedUnit, Plan, SourceFile, StagedUnit, SurveyUnit, WorkUnit
from embedding_core.reports.plan import PlanView
from embedding_core.runs.embed.execution import Log
from embedding_core.runs.job import Job
from embedding_core.runs.serving import is_endpoint
from embedlake.execution.runner import current_runner
from embedlake.execution.window import train_if_due
from embedlake.local import speeds
from embedlake.local.small_work import is_small
from embedlake.orchestration import tasks
from embedlake.orchestration.progress import RunProgress
from embedlake.orchestration.publishing import publish
from embedlake.settings import Settings


class PrefectExecution:
    """An ``Execution`` of a flow run: tasks on Ray or in this process, a bar and an artifact."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.log: Log = get_run_logger()

    def planned(self, job: Job, planned: Plan) -> Plan:
        """The plan with its time on this machine, shown in the log and as an artifact."""
        planned = speeds.estimated(planned, job.recipe, job.resources, self._settings)
        cost = speeds.cost(planned.estimated_seconds, self._settings)
        publish("embed-plan", job.recipe, PlanView(planned, cost))
        return planned

    def surveyor(self, job: Job, files: Sequence[SourceFile]) -> SurveyTasks:
        """Tasks in this process when there is little to read, else on Ray."""
        n_bytes = sum(file.size_bytes for file in files)
        little = self._settings.ray_address is None and n_bytes <= job.resources.unit_bytes
        asks_servers = is_endpoint(job.recipe.model)
        current_runner().prepare(self._settings, job.resources, little, asks_servers)
        return SurveyTasks(job)

    def runner(self, job: Job, planned: Plan, units: Sequence[WorkUnit]) -> TaskRunner:
        """Tasks in this process when there is little to do, else on Ray."""
        little = is_small(planned, units, job.recipe, job.resources, self._settings)
        asks_servers = is_endpoint(job.recipe.model)
        current_runner().prepare(self._settings, job.resources, little, asks_servers)
        if current_runner().in_process:
            self.log.info("little to do: tasks run in this process, without Ray")
        return TaskRunner(job)

    def progress(self, job: Job, n_units: int, estimated_chunks: int) -> RunProgress:
        """The bar in the terminal and the artifact in Prefect."""
        return RunProgress(job, n_units, estimated_chunks)

    def train(self, job: Job) -> None:
        """In a task, with an embed task's hardware."""
        train_if_due(job)


@dataclass(frozen=True, slots=True, eq=False)
class SubmittedSurvey:
    """The task of a unit that is being surveyed."""

    unit: SurveyUnit
    future: PrefectFuture[str]


class SurveyTasks:
    """A ``SurveyRunner`` by Prefect: a task per unit."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._runner = current_runner()

    def submit(self, units: Sequence[SurveyUnit]) -> list[SubmittedSurvey]:
        """See ``SurveyRunner``."""
        sealed = [tasks.Sealed(unit) for unit in units]
        return list(map(SubmittedSurvey, units, tasks.survey.map(unmapped(self._job), sealed)))

    def has_ended(self, submitted: SubmittedSurvey, seconds: float) -> bool:
        """See ``SurveyRunner``."""
        return self._runner.first_ended([submitted.future], seconds) is not None

    def result(self, submitted: SubmittedSurvey) -> str | BaseException:
        """See ``SurveyRunner``."""
        result: str | BaseException = self._runner.result(submitted.future)
        return result


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

    @property
    def n_workers(self) -> int:
        """See ``UnitRunner``."""
        return self._runner.n_workers

    def submit(self, units: Sequence[WorkUnit]) -> list[SubmittedTasks]:
        """See ``UnitRunner``."""
        staged = tasks.chunk.map(unmapped(self._job), [tasks.Sealed(unit) for unit in units])
        with self._runner.with_hardware():
            embedded = tasks.embed.map(unmapped(self._job), staged)
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
        return embedded
