"""Where tasks run: on Ray, started for the run or joined at an address."""

from __future__ import annotations

import logging
import socket
import warnings
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

import ray
from prefect.task_runners import TaskRunner
from prefect.utilities.collections import visit_collection
from prefect_ray import RayTaskRunner
from prefect_ray.context import remote_options

from embedding_core.errors import SetupError
from embedding_core.hardware import has_nvidia_gpu
from embedding_core.recipe import Resources
from flows.settings import Settings

CONNECT_SECONDS = 5.0
QUIET = {
    "prefect.task_runner": logging.WARNING,  # "connecting to an existing instance" for a new one
    "ray._private.authentication": logging.ERROR,  # says that authentication is on, as it should be
    "pylance": logging.WARNING,  # timings of every index
}
"""Loggers whose ordinary lines mislead or repeat what the report says."""


class RayWhenNeeded(RayTaskRunner[Any]):  # type: ignore[misc]  # prefect-ray has no types
    """A ``RayTaskRunner`` that starts Ray with the first task.

    A run that finds nothing to do submits nothing, and should not wait for a cluster.
    """

    def __enter__(self) -> RayWhenNeeded:
        TaskRunner.__enter__(self)
        return self

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Submit a task; the first one starts Ray."""
        if self._ray_context is None and not self._owns_ray:
            self._started = False  # the parent's __enter__ starts Ray and sets it again
            with warnings.catch_warnings():
                # Lance warns of every fork; Ray forks only to exec its servers.
                warnings.filterwarnings("ignore", message=r"lance.*fork")
                self._start_ray()
        return super().submit(*args, **kwargs)

    @staticmethod
    def _run_prefect_task(*upstream: Any, parameters: dict[str, Any], **call: Any) -> Any:
        """Run a task in its worker, with the upstream results that Ray has handed to it.

        The parent fetches each once more by its reference. Ray takes a worker that fetches for one
        that waits and gives its cores away: two embed tasks, each with all cores, ran at once.
        """
        results = iter(upstream)

        def result_for(value: Any) -> Any:
            return next(results) if isinstance(value, ray.ObjectRef) else value

        given = visit_collection(parameters, visit_fn=result_for, return_data=True)
        return RayTaskRunner._run_prefect_task(parameters=given, **call)

    def _start_ray(self) -> None:
        try:
            if self.address not in (None, "local"):
                check_reachable(self.address)
            super().__enter__()
        except ConnectionError as error:
            raise SetupError(
                f"no Ray cluster at {self.address or 'auto'}: {error}; correct "
                "EMBEDLAKE_RAY_ADDRESS, or unset it to have Ray started for the run"
            ) from error
        finally:
            # The parent claims a Ray before it has one, and its __exit__ would then start another.
            self._owns_ray = self._ray_context is not None


def check_reachable(address: str) -> None:
    """Raise ``ConnectionError`` unless something listens at ``ray://host:port`` or ``host:port``.

    Ray itself waits for minutes before it says so.
    """
    where = urlsplit(address if "://" in address else f"ray://{address}")
    if where.hostname is None or where.port is None:
        raise ConnectionError(f"{address!r} is no address; write ray://host:10001")
    try:
        socket.create_connection((where.hostname, where.port), CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(str(error)) from error


def ray_runner(settings: Settings) -> RayWhenNeeded:
    """The task runner for these settings.

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
        return RayWhenNeeded(address="local", init_kwargs=options)
    joined = {"log_to_driver": False}
    if settings.ray_address == "auto":  # as an address of its own, the parent would start a Ray
        return RayWhenNeeded(init_kwargs={"address": "auto", **joined})
    return RayWhenNeeded(address=settings.ray_address, init_kwargs=joined)


def embed_options(resources: Resources, settings: Settings) -> AbstractContextManager[Any]:
    """Ray's options for embed tasks.

    ``max_calls=0`` keeps the worker process, and with it the loaded model, from task to task;
    Ray's default for GPU tasks is a new process each. On a local CPU one embed task takes all
    cores: one model in memory, its matrices spread over all of them.
    """
    if gpus := _gpus(resources, settings):
        return _options(num_gpus=gpus, num_cpus=resources.cpus_per_task or 1)
    everything = settings.ray_cpus if settings.is_local_ray else 1
    return _options(num_gpus=0, num_cpus=resources.cpus_per_task or everything)


def _gpus(resources: Resources, settings: Settings) -> float:
    """GPUs an embed task needs. Ray hides every GPU from a task that asked for none."""
    if resources.gpus_per_task is not None:
        return resources.gpus_per_task
    return float(settings.is_local_ray and resources.device != "cpu" and has_nvidia_gpu())


def _options(num_gpus: float, num_cpus: float) -> AbstractContextManager[Any]:
    options: AbstractContextManager[Any] = remote_options(
        num_gpus=num_gpus, num_cpus=num_cpus, max_calls=0
    )
    return options
