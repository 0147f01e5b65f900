"""Tasks on Ray: one started for the run, or a cluster that is joined at an address."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import ray
from prefect.task_runners import TaskRunner
from prefect.utilities.collections import visit_collection
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from embedding_core.errors import SetupError
from embedlake.environment import process_environment
from embedlake.local.hardware import Needs
from embedlake.orchestration.placement import SEES_ALL_GPUS
from embedlake.settings import Settings

CONNECT_SECONDS = 5.0
QUIET = {
    "prefect.task_runner": logging.WARNING,  # "connecting to an existing instance" for a new one
    "ray._private.authentication": logging.ERROR,  # says that authentication is on, as it should be
}
"""Loggers whose ordinary lines mislead."""

DIED_ALONE = (WorkerCrashedError, OutOfMemoryError, RayTaskError)
"""Ray's errors that one task can cause. Any other means that Ray itself, or a node, broke down."""


class RayRunner(RayTaskRunner[Any]):  # type: ignore[misc]  # prefect-ray has no types
    """prefect-ray's runner with errors that say what to do, and without its double fetch."""

    @classmethod
    def of(cls, settings: Settings) -> RayRunner:
        """The runner for these settings.

        ``local`` must be said to Ray: without an address it joins any cluster it finds on the host.
        """
        for name, level in QUIET.items():
            logging.getLogger(name).setLevel(level)
        if settings.is_local_ray:
            options = {
                "num_cpus": settings.ray_cpus,
                "include_dashboard": False,
                "log_to_driver": False,  # tasks log through Prefect
                "logging_level": "WARNING",
            }
            return cls(address="local", init_kwargs=options)
        # Workers of a Ray that this process starts have its environment; others do not.
        joined = {"log_to_driver": False, "runtime_env": {"env_vars": process_environment()}}
        if settings.ray_address == "auto":  # as an address, the parent would start a Ray
            return cls(init_kwargs={"address": "auto", **joined})
        return cls(address=settings.ray_address, init_kwargs=joined)

    def __enter__(self) -> RayRunner:
        try:
            if self.address not in (None, "local"):
                check_reachable(self.address)
            with warnings.catch_warnings(), own_signals():
                # Lance warns of every fork; Ray forks only to exec its servers.
                warnings.filterwarnings("ignore", message=r"lance.*fork")
                super().__enter__()
        except ConnectionError as error:
            raise SetupError(
                f"no Ray cluster at {self.address or 'auto'}: {error}; correct "
                "EMBEDLAKE_RAY_ADDRESS, or unset it to have Ray started for the run. A cluster "
                "with token authentication wants RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here too"
            ) from error
        except (RuntimeError, OSError, RayError) as error:
            raise SetupError(
                f"Ray did not start: {_last_line(error)}; its logs are under the folder `ray` of "
                "TMPDIR (or /tmp). Look for a full disk and for the memory that is free, then run "
                "the same command again"
            ) from error
        finally:
            # The parent claims a Ray before it has one, and its __exit__ would then start another.
            self._owns_ray = self._ray_context is not None
        return self

    def __exit__(self, *exc_info: Any) -> None:
        """Stop Ray if this runner started it, or let go of a cluster that was joined."""
        if self._owns_ray:
            ray.shutdown()
        TaskRunner.__exit__(self, *exc_info)

    @staticmethod
    def _run_prefect_task(*upstream: Any, parameters: dict[str, Any], **call: Any) -> Any:
        """Run a task in its worker, with the upstream results that Ray has handed to it.

        The parent fetches each once more by its reference. Ray takes a worker that fetches for one
        that waits and gives its cores away: two embed tasks, each with all cores, ran at once.
        """
        results = iter(upstream)

        def result_for(value: Any) -> Any:
            return next(results) if isinstance(value, ray.ObjectRef) else value

        arguments = visit_collection(parameters, visit_fn=result_for, return_data=True)
        return RayTaskRunner._run_prefect_task(parameters=arguments, **call)


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep this process's handler of SIGTERM: Ray puts in its own, which exits with code 15 and
    leaves the flow run as running. A signal that comes while Ray starts goes to ours too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


def first_ended(futures: list[Any], seconds: float | None) -> Any | None:
    """The future of a task that has ended; waits for at most ``seconds``, None after that."""
    by_reference = {future.wrapped_future: future for future in futures}
    try:
        ended, _ = ray.wait(list(by_reference), timeout=seconds)
    except SystemError as error:
        # Prefect's handler of SIGTERM raised while Ray waited in C: what it raised is the cause.
        raise error.__cause__ or error from None
    return by_reference[ended[0]] if ended else None


def broke_down(error: object) -> bool:
    """Whether an error says that Ray or a node broke down, not that a task failed."""
    return isinstance(error, RayError) and not isinstance(error, DIED_ALONE)


def nodes() -> list[Mapping[str, float]]:
    """What each node of the cluster has, by Ray's names: ``CPU``, ``GPU``, …"""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def options(needs: Needs, keeps_process: bool = True) -> AbstractContextManager[Any]:
    """Ray's options for tasks that need this.

    ``keeps_process`` keeps the worker process, and with it the loaded model, from task to task;
    Ray's default for GPU tasks is a new process each, which sees no other GPU than its own.
    """
    chosen: dict[str, Any] = {"num_gpus": needs.gpus, "num_cpus": needs.cpus}
    if keeps_process:
        chosen["max_calls"] = 0
    if keeps_process and needs.gpus:
        chosen["runtime_env"] = {"env_vars": SEES_ALL_GPUS}
    context: AbstractContextManager[Any] = remote_options(**chosen)
    return context


def check_reachable(address: str) -> None:
    """Raise ``ConnectionError`` unless something listens at ``host:port``.

    Ray itself waits for minutes before it says so.
    """
    where = urlsplit(f"//{address}")
    try:
        host, port = where.hostname, where.port
    except ValueError:
        host = port = None
    if host is None or port is None:
        raise ConnectionError(f"{address!r} is no address; write host:6379")
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(str(error)) from error


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
