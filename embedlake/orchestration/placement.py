"""Where Ray placed a task: its device, and a process that stays.

Ray hides no GPU from a task that reserved none, and it may give a worker process another GPU than
before, which CUDA, once it runs, does not notice. So each task is told its device by name. A worker
of tasks that reserve GPUs sees every GPU of its node (``SEES_ALL_GPUS``) and uses the one that it
is given; any other worker sees none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from embedding_core.recipe import Resources
from embedding_core.runs.job import Job

SEES_ALL_GPUS = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
"""Environment of a worker whose tasks reserve GPUs: Ray leaves ``CUDA_VISIBLE_DEVICES`` alone."""


def placed_job(job: Job) -> Job:
    """The job with ``placed`` resources."""
    return replace(job, resources=placed(job.resources))


def placed(resources: Resources) -> Resources:
    """The resources with the device that Ray gave the task which asks.

    In the flow's own process nothing changes.
    """
    if not is_on_ray():
        return resources
    import ray

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpu_ids = ray.get_gpu_ids()
    if not gpu_ids:  # this process never gets one: Ray keeps workers by their environment
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    device = device_of(resources.device, gpu_ids, visible)
    return resources.updated({"device": device})


def is_on_ray() -> bool:
    """Whether a task of Ray asks."""
    if "ray" not in sys.modules:
        return False
    import ray

    return ray.is_initialized() and ray.get_runtime_context().get_task_id() is not None


def keep_process() -> None:
    """Keep this worker's process, and the model it loads, until the run ends.

    When a node has more processes than CPUs, Ray ends those that have had no task for a second, and
    the next task would load its model again. It leaves a process alone that owns an object.
    """
    import ray

    _owned.append(ray.put(None))


_owned: list[Any] = []


def device_of(device: str, gpu_ids: Sequence[int | str], visible: str | None) -> str:
    """What a task that reserved these GPUs runs on: ``cpu`` without any, else the first of them.

    ``visible`` is ``CUDA_VISIBLE_DEVICES`` of the worker: torch counts from 0 within it.
    """
    if device == "cpu" or not gpu_ids:
        return "cpu"
    first = str(gpu_ids[0])
    shown = visible.split(",") if visible else []
    return f"cuda:{shown.index(first) if first in shown else first}"
