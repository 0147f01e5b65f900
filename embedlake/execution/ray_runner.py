"""Tasks on Ray: one started for the run, or a cluster that is joined at an address."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import ray
from prefect.task_runners import TaskRunner
from prefect.utilities.collections import visit_collection
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options
from ray._private import ray_constants
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from embedding_core.errors import SetupError
from embedding_core.store.retry import TASK_RETRIES
from embedlake.environment import process_environment
from embedlake.local.hardware import Needs
from embedlake.orchestration.placement import SEES_ALL_GPUS
from embedlake.settings import Settings

Answer = TypeVar("Answer")

CONNECT_SECONDS = 5.0
QUIET = {
    "prefect.task_runner": logging.WARNING,  # "connecting to an existing instance" for a new one
    "ray._private.authentication": logging.ERROR,  # says that authentication is on, as it should be
}
"""Loggers whose ordinary lines mislead."""

OTHER_VERSIONS = "Version mismatch"
"""Ray has no class for the error of a cluster with other versions."""

TOKEN_FILE = Path("~/.ray/auth_token")
"""Where Ray keeps the token that it makes for itself when no variable names one."""

DIED_ALONE = (WorkerCrashedError, OutOfMemoryError, RayTaskError)
"""Ray's errors that one task can cause. Any other means that Ray itself, or a node, broke down."""


OOM_RETRIES = "RAY_task_oom_retries"
"""How often Ray tries a task again that it killed for want of memory: without end, unless the
process that submits it says otherwise. One text that exhausts memory would hold up its run for
ever."""


class RayRunner(RayTaskRunner[Any]):  # type: ignore[misc]  # prefect-ray has no types
    """prefect-ray's runner with errors that say what to do, and without its double fetch."""

    @classmethod
    def of(cls, settings: Settings) -> RayRunner:
        """The runner for these settings.

        ``local`` must be said to Ray: without an address it joins any cluster it finds on the host.
        """
        for name, level in QUIET.items():
            logging.getLogger(name).setLevel(level)
        os.environ.setdefault(OOM_RETRIES, str(TASK_RETRIES))  # Ray reads it when it starts
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
            binding = on_loopback() if self.address == "local" else nullcontext()
            with warnings.catch_warnings(), own_signals(), binding:
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
            if OTHER_VERSIONS in str(error):
                raise SetupError(
                    f"{' '.join(str(error).split())}; install the Ray and the Python of the "
                    "cluster where flows run, or this one's on every node, as by one image"
                ) from error
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
def on_loopback() -> Iterator[None]:
    """Have the Ray that starts in this context listen on 127.0.0.1 alone, and keep its token to
    this user.

    Without it Ray's servers listen on every interface of the machine. On systems where Ray makes no
    clusters it listens on loopback by itself; this has it behave as there.
    """
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        token = TOKEN_FILE.expanduser()
        if token.is_file():  # Ray writes it for every user to read, and it lets them run code
            token.chmod(0o600)


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


def went_without_the_api(error: object) -> bool:
    """Whether a task never began because the Prefect API did not answer it.

    What the task's own function raises is in its state, and no error of Ray's.
    """
    return isinstance(error, RayTaskError) and isinstance(error.cause, httpx.HTTPError)


def nodes() -> list[Mapping[str, float]]:
    """What each node of the cluster has, by Ray's names: ``CPU``, ``GPU``, …"""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def from_each_node(ask: Callable[[], Answer], seconds: float) -> dict[str, Answer]:
    """What a function returns in a process of each node, by the node's address and name.

    Raises ``SetupError`` for a node that cannot run it.
    """
    probe = ray.remote(num_cpus=0, max_retries=0)(ask)
    asked = {
        f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']}, {node['NodeID'][:8]})":
        probe.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in ray.nodes()
        if node["Alive"]
    }  # fmt: skip
    answers = {}
    for name, task in asked.items():
        try:
            answers[name] = ray.get(task, timeout=seconds)
        except RayError as error:
            raise SetupError(
                f"node {name} cannot run embedlake: {_last_line(error)}; install the same there as "
                "here, and look at the node's logs"
            ) from error
    return answers


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
