"""What ``prefect deploy --all`` makes of deployments/prefect.yaml."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow

from embedlake.orchestration.parameters import fail_for_parameters, wrong_parameters

FILE = Path(__file__).resolve().parents[2] / "deployments" / "prefect.yaml"
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: str(one["name"]))
def test_deployment_names_a_flow_and_parameters_that_are_there(deployment: dict[str, Any]) -> None:
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    assert isinstance(flow, Flow)
    assert set(deployment["parameters"]) <= set(flow.parameters.properties)


@pytest.mark.parametrize(
    ("module", "given", "said"),
    [
        ("embed", {"recipe": "r.yaml", "recpie": 1}, ["'recpie' (did you mean 'recipe'?)"]),
        ("embed", {"a": 1, "z": 2}, ["'a'; unknown parameter 'z'; parameter 'recipe' is missing"]),
        ("reembed", {"recipe": "r.yaml", "modle": "m"}, ["'modle' (did you mean 'model'?)"]),
        ("maintain", {}, ["parameter 'recipe' is missing", "takes recipe: correct"]),
    ],
)
def test_wrong_parameters_of_a_run_are_named_with_those_the_flow_takes(
    module: str, given: dict[str, Any], said: list[str]
) -> None:
    flow = getattr(import_module(f"flows.{module}"), module)
    assert fail_for_parameters in flow.on_crashed_hooks
    why = wrong_parameters(flow, given) or ""
    assert all(words in why for words in [*said, *flow.parameters.properties])
    assert wrong_parameters(flow, {"recipe": "r.yaml"}) is None


def test_maintain_has_a_schedule_that_waits_for_its_recipe() -> None:
    (maintain,) = (one for one in DEPLOYMENTS if one["name"] == "maintain")
    (schedule,) = maintain["schedules"]
    assert len(schedule["cron"].split()) == 5 and schedule["active"] is False
