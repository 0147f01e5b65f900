"""Where Ray places a task: the GPU it was given, or none; a process that stays. Ray is real, its
GPUs are said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

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


KEPT = """
import json, os, ray, sys, time
from pathlib import Path
from prefect.logging import disable_run_logger
from embedlake.orchestration.tasks import told_to_the_flow

def look(folder, loads_model):
    if loads_model:
        with disable_run_logger():
            told_to_the_flow("model")
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < 2:  # so each task has a process of its own
        time.sleep(0.01)
    return os.getpid()

def is_alive(pid):
    return os.path.exists(f"/proc/{pid}")

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
task, folder = ray.remote(num_cpus=0.5)(look), Path(sys.argv[1])
kept, other = ray.get([task.remote(folder, loads_model) for loads_model in (True, False)])
deadline = time.monotonic() + 240
while is_alive(other) and time.monotonic() < deadline:
    time.sleep(0.05)
print(json.dumps({"other": is_alive(other), "kept": is_alive(kept)}))
ray.shutdown()
while is_alive(kept) and time.monotonic() < deadline:
    time.sleep(0.05)
print(json.dumps(is_alive(kept)))
"""


@pytest.mark.e2e
def test_process_that_loaded_a_model_stays_until_the_run_ends(tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_idle_worker_killing_time_threshold_ms": "100",
                   "RAY_num_workers_soft_limit": "0"}  # fmt: skip
    command = [sys.executable, "-c", KEPT, str(tmp_path)]
    printed = subprocess.check_output(command, env=environment, text=True).splitlines()
    assert list(map(json.loads, printed[-2:])) == [{"other": False, "kept": True}, False]
