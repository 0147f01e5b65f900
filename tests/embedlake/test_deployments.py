"""What ``prefect deploy`` makes of deployments/prefect.yaml, and ``embedlake deploy`` prints."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow

from embedlake.orchestration.parameters import fail_for_parameters, wrong_parameters
from tests.embedlake.conftest import Embedlake

FILE = Path(__file__).resolve().parents[2] / "deployments" / "prefect.yaml"
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["deployments"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: str(deployment["name"]))
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
        ("evaluate", {"recipe": "r.yaml", "qrel": "q"}, ["'qrel' (did you mean 'qrels'?)"]),
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


@pytest.mark.parametrize("name", ["maintain", "reembed", "evaluate"])
def test_schedule_waits_for_its_recipe(name: str) -> None:
    (deployment,) = (entry for entry in DEPLOYMENTS if entry["name"] == name)
    (schedule,) = deployment["schedules"]
    assert len(schedule["cron"].split()) == 5 and schedule["active"] is False


def test_deploy_prints_the_file_as_it_is_from_any_folder(
    embedlake: Embedlake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = embedlake("deploy", "--print")
    assert (answer.code, answer.out, answer.err) == (0, FILE.read_text(), "")
    assert embedlake("deploy", "--print", "--json").json["deployments"] == DEPLOYMENTS


def test_deploy_without_a_recipe_says_what_to_do(embedlake: Embedlake) -> None:
    answer = embedlake("deploy")
    assert (answer.code, answer.out) == (2, "") and "embedlake deploy --print" in answer.err
