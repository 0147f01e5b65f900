"""What ``prefect deploy --all`` makes of deployments/prefect.yaml."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow

FILE = Path(__file__).resolve().parents[2] / "deployments" / "prefect.yaml"
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: str(one["name"]))
def test_deployment_names_a_flow_and_parameters_that_are_there(deployment: dict[str, Any]) -> None:
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    assert isinstance(flow, Flow)
    assert set(deployment["parameters"]) <= set(flow.parameters.properties)


def test_maintain_has_a_schedule_that_waits_for_its_recipe() -> None:
    (maintain,) = (one for one in DEPLOYMENTS if one["name"] == "maintain")
    (schedule,) = maintain["schedules"]
    assert len(schedule["cron"].split()) == 5 and schedule["active"] is False
