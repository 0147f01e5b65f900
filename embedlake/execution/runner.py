"""Where a flow's tasks run: on Ray, or in the flow's own process.

The same Prefect tasks run in both. Nothing is read or started when a flow is defined; Ray is
imported and started with the first task that runs on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

from prefect import get_run_logger
from prefect.client.schemas.objects import RunInput, State
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture, PrefectTaskRunFuture
from prefect.runtime import flow_run
from prefect.task_engine import run_task_sync
from prefect.task_runners import TaskRunner
from prefect.tasks import Task

from embedding_core.errors import SetupError, Transient, words
from embedding_core.plurals import counted
from embedding_core.recipe import Resources
from embedlake import interrupts
from embedlake.local.folders import check_folders
from embedlake.local.hardware import Needs, lacking
from embedlake.settings import Settings
from embedlake.silence import saying_it_goes_on

if TYPE_CHECKING:  # loads ray
    from ray.exceptions import RayTaskError

    from embedlake.execution.ray_runner import RayRunner

WAITING_SECONDS = 30.0
"""How often a run says what it waits for when the cluster has no room for its tasks."""

COUNTING_SECONDS = 10.0
"""How often the workers of a cluster are counted."""

LISTENING_SECONDS = 1.0
"""How soon a flow says what a task on Ray told it."""

SHOWN = ("CPU", "GPU")
"""Kinds of resource that a message names."""


class EndedTask(PrefectTaskRunFuture[Any]):
    """The future of a task that ran when it was submitted."""

    def __init__(self, task_run_id: UUID, state: State[Any]) -> None:
        super().__init__(task_run_id)
        self._final_state = state

    def wait(self, timeout: float | None = None) -> None:
        """Return at once."""

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """What the task returned, or the error it raised."""
        return self.state.result(raise_on_failure=raise_on_failure)

    def add_done_callback(self, fn: Callable[[PrefectFuture[Any]], None]) -> None:
        """Call at once."""
        fn(self)


class Runner(TaskRunner[PrefectFuture[Any]]):
    """Runs the tasks of one flow run where ``prepare`` says."""

    def __init__(self, waiting_seconds: float = WAITING_SECONDS) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._waiting_seconds = waiting_seconds
        self._prepared: tuple[Settings, Resources] | None = None
        self._ray: RayRunner | None = None
        self._asks_servers = False
        self._permits: Any = None
        self._lacking: str | None = None
        self._said_at = 0.0
        self._counted_at, self._n_workers = -COUNTING_SECONDS, 1
        self.in_process = False

    def duplicate(self) -> Self:
        """A new runner for each flow run."""
        return type(self)(self._waiting_seconds)

    def prepare(
        self,
        settings: Settings,
        resources: Resources,
        in_process: bool = False,
        asks_servers: bool = False,
    ) -> None:
        """Say where tasks run and what an embed task needs; starts nothing.

        Once Ray runs, tasks stay there. ``asks_servers``: tasks share the run's requests. Raises
        ``SetupError`` when no task could get what it asks for, or when there is no room in this
        machine's folders.
        """
        self._prepared = settings, resources
        self._asks_servers = asks_servers
        self.in_process = in_process and self._ray is None
        check_folders(settings)
        if (problem := lacking(resources, settings)) is not None:
            raise SetupError(problem)

    def submit(
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> PrefectFuture[Any]:
        """Submit a task; in this process it has ended when this returns."""
        interrupts.check()
        if not self.in_process:
            future: PrefectFuture[Any] = self._started_ray().submit(
                task, parameters, wait_for, dependencies
            )
            return future
        task_run_id = uuid4()
        with saying_it_goes_on(get_run_logger().info, task.name):
            state: Any = run_task_sync(
                task,
                task_run_id=task_run_id,
                parameters=parameters,
                wait_for=wait_for,
                return_type="state",
                dependencies=dependencies,
            )
        return EndedTask(task_run_id, state)

    @property
    def n_workers(self) -> int:
        """Embed tasks that run at once; starts or joins Ray. A cluster is looked at now and then,
        since it may grow."""
        if self.in_process:
            return 1
        self._started_ray()
        from embedlake.execution.ray_runner import nodes

        if time.monotonic() - self._counted_at >= COUNTING_SECONDS:
            self._counted_at = time.monotonic()
            self._n_workers = max(1, self._needs.fitting(nodes()))
        return self._n_workers

    def with_hardware(self, keeps_process: bool = True) -> AbstractContextManager[Any]:
        """Tasks submitted in this context get the hardware of an embed task.

        ``keeps_process``: the next such task finds the worker process as this one left it.
        """
        if self.in_process:
            return nullcontext()
        from embedlake.execution.ray_runner import options

        return options(self._needs, keeps_process)

    def first_ended(
        self, futures: Sequence[PrefectFuture[Any]], seconds: float
    ) -> PrefectFuture[Any] | None:
        """A task that has ended, None when none has after ``seconds``; meanwhile what tasks tell
        the flow is said in its log.

        Raises ``Transient`` when Ray itself broke down. Says now and then what is waited for when
        the cluster has no room for an embed task.
        """
        interrupts.check()
        if self.in_process:
            return futures[0]
        from ray.exceptions import RayError

        from embedlake.execution.ray_runner import first_ended

        over, ended = time.monotonic() + seconds, None
        try:
            while ended is None and (left := over - time.monotonic()) > 0:
                ended = first_ended(list(futures), min(left, LISTENING_SECONDS))
                self._repeat_lines()
        except RayError as error:
            raise ray_broke_down(error) from error
        if ended is None and self._lacking is not None:
            self._say_lacking()
        return ended

    def result(self, future: PrefectFuture[Any]) -> Any:
        """What an ended task returned, or the exception that stopped it.

        Raises ``Transient`` when that was Ray itself, and the ``SetupError`` of a task: both would
        hit every other task too. Returns a ``Transient`` for a task that the Prefect API did not
        answer.
        """
        future.wait()
        result = future.state.result(raise_on_failure=False)
        interrupts.check()
        if isinstance(result, SetupError):
            raise result
        if isinstance(result, Exception) and not self.in_process:
            from embedlake.execution.ray_runner import broke_down, went_without_the_api

            if broke_down(result):
                raise ray_broke_down(result) from result
            if went_without_the_api(result):
                return api_gave_no_answer(result)
        return result

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ray is not None:
            self._ray.__exit__(kind, error, traceback)
            self._ray = self._permits = None
        super().__exit__(kind, error, traceback)

    def _started_ray(self) -> RayRunner:
        if self._ray is None:
            from embedlake.execution.ray_runner import RayRunner, nodes

            if self._settings.is_local_ray:
                get_run_logger().info(
                    "starting Ray with %s", counted(self._settings.ray_cpus, "CPU")
                )
            else:
                get_run_logger().info("joining the Ray cluster at %s", self._settings.ray_address)
            with saying_it_goes_on(get_run_logger().info, "starting Ray"):
                self._ray = RayRunner.of(self._settings).__enter__()
            get_run_logger().info("Ray runs; each worker loads the model before its first texts")
            self._lacking = self._needs.lacking_among(nodes())
            if self._lacking is not None:
                self._say_lacking()
        if self._asks_servers and self._permits is None:
            from embedlake.orchestration.shared_requests import share_requests

            self._permits = share_requests(str(flow_run.get_id()), self._as_prepared()[1].at_once)
        return self._ray

    @property
    def _settings(self) -> Settings:
        return self._as_prepared()[0]

    @property
    def _needs(self) -> Needs:
        settings, resources = self._as_prepared()
        return Needs.of(resources, settings)

    def _as_prepared(self) -> tuple[Settings, Resources]:
        if self._prepared is None:
            raise RuntimeError("prepare() says where tasks run; call it before the first task")
        return self._prepared

    def _repeat_lines(self) -> None:
        from embedlake.orchestration.worker_lines import told

        for line in told(str(flow_run.get_id())):
            get_run_logger().info(line)

    def _say_lacking(self) -> None:
        """The cluster may grow: what is missing is looked at again, and said again and again."""
        from embedlake.execution.ray_runner import nodes

        if time.monotonic() - self._said_at < self._waiting_seconds:
            return
        on_cluster = nodes()
        self._lacking = self._needs.lacking_among(on_cluster)
        if self._lacking is not None:
            self._said_at = time.monotonic()
            get_run_logger().warning(
                "%s. Waiting for the cluster to grow; what the cluster of %s has now: %s",
                self._lacking,
                counted(len(on_cluster), "node"),
                "; ".join(map(_shown, on_cluster)),
            )


def _shown(node: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {node.get(kind, 0):g}" for kind in SHOWN)


def current_runner() -> Runner:
    """The runner of the flow run that this code is part of."""
    context = FlowRunContext.get()
    if context is None or not isinstance(context.task_runner, Runner):
        raise RuntimeError("tasks of embedlake run inside one of its flows")
    return context.task_runner


def api_gave_no_answer(error: RayTaskError) -> Transient:
    """The error of a task that never began; its files are not to blame."""
    return Transient(
        f"the Prefect API did not answer a task ({words(error.cause)}); look whether its server "
        "runs, then run the same command again"
    )


def ray_broke_down(error: BaseException) -> Transient:
    """The error of a run whose Ray, or a node of it, went away."""
    first_line = words(error).partition("\n")[0]
    return Transient(
        f"Ray broke down during the run ({type(error).__name__}: {first_line}), so its tasks are "
        "lost, whatever files they were for. What was committed is kept: run the same command "
        "again to go on; if it happens again, look for a full disk or memory on the nodes"
    )
