"""Where tasks run: what Ray is asked for, what a machine lacks, and that nothing starts early."""

from __future__ import annotations

import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import ray
from prefect.states import Failed
from prefect_ray.context import RemoteOptionsContext
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)

from embedding_core.errors import SetupError, Transient
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.records import Plan, WorkUnit
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.job import Job
from embedlake.execution.ray_runner import (
    RayRunner,
    broke_down,
    options,
    own_signals,
    went_without_the_api,
)
from embedlake.execution.runner import EndedTask, Runner, ray_broke_down
from embedlake.local import hardware, small_work
from embedlake.local.hardware import Needs, lacking, resources_for
from embedlake.orchestration.placement import SEES_ALL_GPUS
from embedlake.settings import Settings
from embedlake.silence import saying_a_slow_load, saying_it_goes_on
from tests.driver import begin, recipe_for, write_jsonl

LOCAL = Settings(ray_address="local", ray_cpus=6)
UNSET = Settings(ray_cpus=6)
CLUSTER = Settings(ray_address="head:6379", ray_cpus=6)


def options_for(resources: Resources, settings: Settings) -> dict[str, Any]:
    with options(Needs.of(resources, settings)):
        return dict(RemoteOptionsContext.get().current_remote_options)


def test_embed_task_on_a_gpu_keeps_its_process_and_with_it_the_model() -> None:
    asked = options_for(Resources(gpus_per_task=0.5), LOCAL)
    assert (asked["num_gpus"], asked["num_cpus"], asked["max_calls"]) == (0.5, 1, 0)
    assert asked["runtime_env"] == {"env_vars": SEES_ALL_GPUS}


def test_index_task_on_a_gpu_gets_a_process_of_its_own() -> None:
    with options(Needs.of(Resources(gpus_per_task=1), LOCAL), keeps_process=False):
        asked = dict(RemoteOptionsContext.get().current_remote_options)
    assert asked == {"num_gpus": 1, "num_cpus": 1}


@pytest.mark.parametrize("settings", [LOCAL, UNSET])
def test_embed_task_on_a_local_cpu_takes_all_cores(settings: Settings) -> None:
    assert options_for(Resources(), settings) == {"num_gpus": 0, "num_cpus": 6, "max_calls": 0}


def test_embed_task_on_a_cluster_does_not_ask_for_this_machine_s_cores() -> None:
    assert options_for(Resources(), CLUSTER)["num_cpus"] == 1


@pytest.mark.parametrize("settings", [LOCAL, CLUSTER])
@pytest.mark.parametrize("gpus", [0, 1])
def test_cpus_per_task_is_what_an_embed_task_takes(settings: Settings, gpus: int) -> None:
    resources = Resources(cpus_per_task=3, gpus_per_task=gpus)
    assert options_for(resources, settings)["num_cpus"] == 3


@pytest.mark.parametrize("settings", [LOCAL, UNSET])
def test_runner_local_says_local_and_bounds_the_cpus(settings: Settings) -> None:
    runner = RayRunner.of(settings)
    assert runner.address == "local"
    assert runner.init_kwargs["num_cpus"] == 6
    assert runner.init_kwargs["include_dashboard"] is False


def test_runner_passes_a_cluster_s_address_on_and_does_not_size_it() -> None:
    runner = RayRunner.of(CLUSTER)
    assert runner.address == "head:6379"
    assert "num_cpus" not in runner.init_kwargs


def test_runner_auto_asks_for_a_running_cluster_instead_of_starting_one() -> None:
    assert RayRunner.of(Settings(ray_address="auto")).init_kwargs["address"] == "auto"


def test_sigterm_while_ray_starts_is_for_the_handler_that_was_there() -> None:
    def ours(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def as_ray_does(number: int, _frame: object) -> None:
        sys.exit(number)

    before = signal.signal(signal.SIGTERM, ours)
    try:
        with pytest.raises(KeyboardInterrupt), own_signals():
            signal.signal(signal.SIGTERM, as_ray_does)
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


def test_work_without_a_word_is_said_to_go_on_until_it_ends() -> None:
    said: queue.Queue[str] = queue.Queue()
    with saying_it_goes_on(said.put, "embed", every_seconds=0.001):
        lines = [said.get(timeout=60) for _ in range(2)]
    assert all(line.startswith("embed: under way for ") for line in lines)
    assert not any(thread.name == "embedlake-silence" for thread in threading.enumerate())


def test_model_that_loads_slowly_is_said_to_load_and_to_be_ready() -> None:
    said: queue.Queue[str] = queue.Queue()
    with saying_a_slow_load(said.put, "m", moment_seconds=0.001, every_seconds=0.001):
        lines = [said.get(timeout=60) for _ in range(3)]
    assert lines[0] == "loading the model m"
    assert all(one.startswith("loading the model m: under way for ") for one in lines[1:])
    *_, last = list(said.queue)
    assert last.startswith("the model m is ready after ")


def test_model_that_loads_at_once_or_not_at_all_is_not_said_to_be_ready() -> None:
    said: queue.Queue[str] = queue.Queue()
    with saying_a_slow_load(said.put, "m", moment_seconds=600):
        pass
    assert said.empty()
    with pytest.raises(OSError), saying_a_slow_load(said.put, "m", moment_seconds=0.001):
        said.get(timeout=60)
        raise OSError
    assert said.empty()


def test_runner_without_a_task_does_not_start_ray() -> None:
    with Runner().duplicate() as runner:  # a flow run works with a duplicate
        runner.prepare(LOCAL, Resources())
        assert not ray.is_initialized()
    assert not ray.is_initialized()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1:port", "nonsense"])
def test_runner_cluster_that_does_not_answer_is_a_setup_error(address: str) -> None:
    runner = RayRunner.of(Settings(ray_address=address))
    with pytest.raises(SetupError, match=rf"{address}.*EMBEDLAKE_RAY_ADDRESS"):
        runner.__enter__()
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("settings", "device", "gpus"),
    [(LOCAL, "auto", 1.0), (LOCAL, "cuda", 1.0), (LOCAL, "cpu", 0), (CLUSTER, "auto", 0)],
)
def test_embed_task_takes_the_gpu_of_a_local_machine_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, device: str, gpus: float
) -> None:
    monkeypatch.setattr(hardware, "n_nvidia_gpus", lambda: 1)
    assert options_for(Resources(device=device), settings)["num_gpus"] == gpus
    assert options_for(Resources(device=device, gpus_per_task=0), settings)["num_gpus"] == 0


# What a machine lacks is said before anything runs


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"gpus_per_task": 1}, ["1 GPU", "there are 0", "gpus_per_task"]),
        ({"cpus_per_task": 7}, ["7 CPUs", "there are 6", "cpus_per_task", "EMBEDLAKE_RAY_CPUS"]),
        ({"device": "cuda"}, ["'cuda'", "device to auto or cpu"]),
        ({"device": "cuda:1", "gpus_per_task": 0}, ["'cuda:1'", "gets none"]),
    ],
)
def test_prepare_refuses_what_no_task_could_get_here(
    resources: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SetupError) as caught:
        Runner().prepare(UNSET, Resources(**resources))
    assert all(word in str(caught.value) for word in words)
    assert not ray.is_initialized()


@pytest.mark.parametrize("resources", [{}, {"cpus_per_task": 6}, {"device": "cpu"}])
def test_prepare_takes_what_this_machine_has(resources: dict[str, Any]) -> None:
    assert lacking(Resources(**resources), UNSET) is None


def test_prepare_refuses_a_device_that_a_cluster_s_tasks_do_not_get() -> None:
    with pytest.raises(SetupError, match="gpus_per_task to 1"):
        Runner().prepare(CLUSTER, Resources(device="cuda"))
    Runner().prepare(CLUSTER, Resources(device="cuda", gpus_per_task=1))


def test_a_cluster_is_asked_for_what_it_has() -> None:
    needs = Needs.of(Resources(gpus_per_task=1, cpus_per_task=3), CLUSTER)
    small, large = {"CPU": 2.0, "GPU": 1.0}, {"CPU": 4.0}
    assert "1 GPU and there are 0" in (needs.lacking_among([large, large]) or "")
    assert "3 CPUs and 1 GPU of one node" in (needs.lacking_among([small, large]) or "")
    assert needs.lacking_among([small, large, {"CPU": 4.0, "GPU": 1.0}]) is None
    assert needs.lacking_among([]) is not None


def test_needs_tasks_that_fit_on_nodes_at_once() -> None:
    nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 16.0, "GPU": 8.0}, {"CPU": 64.0}]
    assert Needs(cpus=3, gpus=1).fitting(nodes) == 1 + 5
    assert Needs(cpus=1, gpus=0.25).fitting(nodes) == 4 + 16
    assert Needs(cpus=2, gpus=0).fitting(nodes) == 2 + 8 + 32


# Ray's own faults are nobody's file


@pytest.mark.parametrize(
    "error", [LocalRayletDiedError(), NodeDiedError("gone"), RaySystemError("no GCS")]
)
def test_ray_that_breaks_down_ends_the_run(error: Exception) -> None:
    assert broke_down(error)
    said = str(ray_broke_down(error))
    assert type(error).__name__ in said and "What was committed is kept" in said


@pytest.mark.parametrize(
    "error", [WorkerCrashedError(), OutOfMemoryError("killed"), ValueError("x")]
)
def test_a_task_that_dies_is_looked_at_alone(error: Exception) -> None:
    assert not broke_down(error)


def test_task_that_the_prefect_api_did_not_answer_says_so_and_blames_no_file() -> None:
    """What a task's own function raises is no error of Ray's."""
    refused = httpx.ConnectError("connection refused")
    died = RayTaskError("embed", "a traceback", refused)
    assert went_without_the_api(died) and not broke_down(died)
    assert not went_without_the_api(refused)
    assert not went_without_the_api(RayTaskError("embed", "a traceback", ValueError("x")))
    ended = EndedTask(uuid4(), Failed(data=died))
    error = Runner().result(ended)
    assert isinstance(error, Transient)
    assert "the Prefect API did not answer a task (connection refused)" in str(error)


# Small work needs no Ray


def small(job: Job, planned: Plan, units: list[WorkUnit], settings: Settings) -> bool:
    return small_work.is_small(planned, units, job.recipe, job.resources, settings)


def test_one_unit_of_little_text_runs_in_the_flow_s_process(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "few words"})
    job, planned = begin(recipe_for(tmp_path), Resources())
    (unit,) = work_units(planned, job.resources.unit_bytes)
    assert small(job, planned, [unit], UNSET)
    assert not small(job, planned, [unit], LOCAL)
    assert not small(job, planned, [unit], CLUSTER)
    assert not small(job, planned, [unit, unit], UNSET)


def test_a_unit_that_an_earlier_run_began_runs_where_a_worker_can_be_lost(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "few words"})
    job, planned = begin(recipe_for(tmp_path), Resources())
    (unit,) = work_units(planned, job.resources.unit_bytes)
    chunk_unit(job, unit)
    assert not small(job, planned, [unit], UNSET)


def test_much_text_or_a_slow_model_is_worth_a_ray(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {str(n): "word " * 400 for n in range(700)})
    job, planned = begin(recipe_for(tmp_path), Resources())
    (unit,) = work_units(planned, job.resources.unit_bytes)
    assert planned.estimated_tokens > small_work.SMALL_TOKENS
    assert not small(job, planned, [unit], UNSET)


def test_a_gpu_that_a_task_must_not_see_is_hidden_by_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "few words"})
    monkeypatch.setattr(hardware, "n_nvidia_gpus", lambda: 1)
    monkeypatch.setattr(small_work, "n_nvidia_gpus", lambda: 1)
    job, planned = begin(recipe_for(tmp_path), Resources(gpus_per_task=0))
    (unit,) = work_units(planned, job.resources.unit_bytes)
    assert not small(job, planned, [unit], UNSET)


def test_ray_that_broke_down_without_a_message_is_said_in_words() -> None:
    assert "ConnectionError, without a message" in str(ray_broke_down(ConnectionError()))


# Models behind servers


SERVED = ModelSpec(name="http://host:8000")


@pytest.mark.parametrize(
    ("n_cpus", "at_once", "cpus"), [(2, 32, 1.0), (16, 32, 1.0), (16, 4, 4.0), (8, 1, 8.0)]
)
def test_tasks_that_ask_a_server_are_no_more_than_its_requests_and_take_no_gpu(
    monkeypatch: pytest.MonkeyPatch, n_cpus: int, at_once: int, cpus: float
) -> None:
    monkeypatch.setattr(hardware, "n_nvidia_gpus", lambda: 1)
    settings = LOCAL.model_copy(update={"ray_cpus": n_cpus})
    resources = resources_for(SERVED, Resources(at_once=at_once), settings)
    assert Needs.of(resources, settings) == Needs(cpus, 0.0)
    assert resources.at_once == at_once  # of the run, for whichever tasks need them
    assert lacking(resources, settings) is None


def test_tasks_that_ask_a_server_on_a_cluster_take_a_cpu() -> None:
    resources = resources_for(SERVED, Resources(at_once=64, cpus_per_task=2), CLUSTER)
    assert Needs.of(resources, CLUSTER) == Needs(2.0, 0.0)
    assert resources.at_once == 64


def test_tasks_of_other_models_need_what_they_needed() -> None:
    assert resources_for(ModelSpec(name="hashing"), Resources(), LOCAL) == Resources()
