"""The environment of processes that embed."""

from __future__ import annotations

import os

import pytest

from embedding_core.store.retry import TASK_RETRIES
from embedlake.environment import PREFECT_PATIENCE, SPIN_COUNT, process_environment
from embedlake.execution.ray_runner import OOM_RETRIES, RayRunner
from embedlake.settings import Settings


def test_defaults_are_given_and_what_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("LANCE_LOG", "debug")
    defaults = {"LANCE_LOG": "debug", "GOMP_SPINCOUNT": SPIN_COUNT, **PREFECT_PATIENCE}
    assert process_environment() == defaults


def test_workers_of_a_cluster_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    runner = RayRunner.of(Settings(ray_address="head:6379"))
    assert runner.init_kwargs["runtime_env"]["env_vars"]["GOMP_SPINCOUNT"] == SPIN_COUNT


@pytest.mark.parametrize(("before", "after"), [(None, str(TASK_RETRIES)), ("7", "7")])
def test_ray_tries_a_task_that_exhausts_memory_some_times_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    monkeypatch.delenv(OOM_RETRIES, raising=False)
    if before is not None:
        monkeypatch.setenv(OOM_RETRIES, before)
    RayRunner.of(Settings())
    assert os.environ[OOM_RETRIES] == after
