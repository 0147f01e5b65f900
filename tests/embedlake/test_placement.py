"""The device of a task on Ray: the GPU it was given, or none. Ray is real, its GPUs are said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from embedding_core.recipe import Resources
from embedlake.orchestration.placement import device_of, placed

PROGRAM = """
import json, os, ray
from embedding_core.recipe import Resources
from embedlake.orchestration.placement import SEES_ALL_GPUS, placed

def look():
    device = placed(Resources()).device
    return device, os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()

ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)
reserved = dict(num_gpus=1, max_calls=0, runtime_env={"env_vars": SEES_ALL_GPUS})
with_gpu = ray.remote(**reserved)(look)
without = ray.remote(num_cpus=1)(look)
answers = dict(gpu=ray.get([with_gpu.remote() for _ in range(6)]), cpu=ray.get(without.remote()))
print(json.dumps(answers | {"flow": placed(Resources()).device}))
"""


@pytest.mark.parametrize(
    ("asked", "gpu_ids", "visible", "device"),
    [
        ("auto", [], None, "cpu"),
        ("auto", [], "0,1", "cpu"),
        ("auto", [1], None, "cuda:1"),
        ("auto", ["3"], "2,3", "cuda:1"),
        ("cuda", [0, 1], None, "cuda:0"),
        ("cuda:1", [0], None, "cuda:0"),
        ("cpu", [1], None, "cpu"),
    ],
)
def test_device_is_the_gpu_that_the_task_was_given(
    asked: str, gpu_ids: Sequence[int | str], visible: str | None, device: str
) -> None:
    assert device_of(asked, gpu_ids, visible) == device


def test_outside_of_ray_the_resources_stay_as_they_are() -> None:
    assert placed(Resources(device="auto")).device == "auto"


@pytest.mark.e2e
def test_each_worker_uses_its_own_gpu_and_tasks_without_one_see_none() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0,1"}
    printed = subprocess.check_output([sys.executable, "-c", PROGRAM], env=environment, text=True)
    answers = json.loads(printed.splitlines()[-1])
    assert {device for device, _, _ in answers["gpu"]} <= {"cuda:0", "cuda:1"}
    assert {visible for _, visible, _ in answers["gpu"]} == {"0,1"}
    device, visible, _ = answers["cpu"]
    assert (device, visible) == ("cpu", "")
    assert answers["flow"] == "auto"
