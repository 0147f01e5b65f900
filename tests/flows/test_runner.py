"""Where tasks run: what Ray is asked for, and that it is started only for a task."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from prefect_ray.context import RemoteOptionsContext

from embedding_core.errors import SetupError
from embedding_core.recipe import Resources
from flows import runner as runner_module
from flows.runner import embed_options, ray_runner
from flows.settings import Settings

LOCAL = Settings(ray_address="local", ray_cpus=6)
CLUSTER = Settings(ray_address="ray://head:10001", ray_cpus=6)


def options_for(resources: Resources, settings: Settings) -> dict[str, Any]:
    with embed_options(resources, settings):
        return dict(RemoteOptionsContext.get().current_remote_options)


def test_embed_task_on_a_gpu_keeps_its_process_and_with_it_the_model() -> None:
    options = options_for(Resources(gpus_per_task=0.5), LOCAL)
    assert options == {"num_gpus": 0.5, "num_cpus": 1, "max_calls": 0}


def test_embed_task_on_a_local_cpu_takes_all_cores() -> None:
    assert options_for(Resources(), LOCAL) == {"num_gpus": 0, "num_cpus": 6, "max_calls": 0}


def test_embed_task_on_a_cluster_does_not_ask_for_this_machine_s_cores() -> None:
    assert options_for(Resources(), CLUSTER)["num_cpus"] == 1


@pytest.mark.parametrize("settings", [LOCAL, CLUSTER])
@pytest.mark.parametrize("gpus", [0, 1])
def test_cpus_per_task_is_what_an_embed_task_takes(settings: Settings, gpus: int) -> None:
    resources = Resources(cpus_per_task=3, gpus_per_task=gpus)
    assert options_for(resources, settings)["num_cpus"] == 3


def test_runner_local_says_local_and_bounds_the_cpus() -> None:
    runner = ray_runner(LOCAL)
    assert runner.address == "local"
    assert runner.init_kwargs["num_cpus"] == 6
    assert runner.init_kwargs["include_dashboard"] is False


def test_runner_passes_a_cluster_s_address_on_and_does_not_size_it() -> None:
    runner = ray_runner(CLUSTER)
    assert runner.address == "ray://head:10001"
    assert "num_cpus" not in runner.init_kwargs


def test_runner_auto_asks_for_a_running_cluster_instead_of_starting_one() -> None:
    assert ray_runner(Settings(ray_address="auto")).init_kwargs["address"] == "auto"


def test_runner_without_a_task_does_not_start_ray() -> None:
    with ray_runner(LOCAL).duplicate():  # a flow run works with a duplicate
        assert not ray.is_initialized()
    assert not ray.is_initialized()


@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", "127.0.0.1:9", "nonsense"])
def test_runner_cluster_that_does_not_answer_is_a_setup_error(address: str) -> None:
    with (
        ray_runner(Settings(ray_address=address)) as runner,
        pytest.raises(SetupError, match=rf"{address}.*EMBEDLAKE_RAY_ADDRESS"),
    ):
        runner.submit(None, {})
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    ("settings", "device", "gpus"),
    [(LOCAL, "auto", 1.0), (LOCAL, "cuda", 1.0), (LOCAL, "cpu", 0), (CLUSTER, "auto", 0)],
)
def test_embed_task_takes_the_gpu_of_a_local_machine_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, device: str, gpus: float
) -> None:
    monkeypatch.setattr(runner_module, "has_nvidia_gpu", lambda: True)
    assert options_for(Resources(device=device), settings)["num_gpus"] == gpus
    assert options_for(Resources(device=device, gpus_per_task=0), settings)["num_gpus"] == 0
