"""The environment of processes that embed."""

from __future__ import annotations

import pytest

from embedlake.environment import SPIN_COUNT, process_environment
from embedlake.execution.ray_runner import RayRunner
from embedlake.settings import Settings


def test_defaults_are_given_and_what_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("LANCE_LOG", "debug")
    assert process_environment() == {"LANCE_LOG": "debug", "GOMP_SPINCOUNT": SPIN_COUNT}


def test_workers_of_a_cluster_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    runner = RayRunner.of(Settings(ray_address="head:6379"))
    assert runner.init_kwargs["runtime_env"]["env_vars"]["GOMP_SPINCOUNT"] == SPIN_COUNT
