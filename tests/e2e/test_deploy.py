"""`embedlake deploy` against a real Prefect server: made, unchanged, changed, removed, heard."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from embedlake.environment import PREFECT_PATIENCE
from tests.e2e.conftest import Answer, Commands, asked, wait_for

pytestmark = pytest.mark.e2e

FLOWS = {"embed", "reembed", "evaluate", "maintain", "export", "report"}


@dataclass
class Deployed:
    """A recipe with a file beside it, and what the server has of it."""

    commands: Commands
    recipe: Path
    name: str

    def write(self, content: dict[str, Any]) -> None:
        """The file beside the recipe; runs of a pool without a worker stay where they are."""
        pool = {"name": f"{self.name}-pool", "type": "process"}
        path = self.recipe.with_suffix(".deploy.yaml")
        path.write_text(yaml.safe_dump({"pool": pool} | content))

    def deploy(self, *options: str) -> dict[str, Any]:
        """What the command says it did."""
        answer = self.try_to_deploy(*options)
        assert answer.code == 0, answer.err
        return answer.json

    def try_to_deploy(self, *options: str) -> Answer:
        """The command, whatever its end."""
        return self.commands.run("embedlake", "deploy", str(self.recipe), "--json", *options)

    def changed(self, *options: str) -> list[str]:
        """What the command changed, in a word each."""
        return [
            f"{change['action']} {change['name']}" for change in self.deploy(*options)["changes"]
        ]

    def deployments(self) -> dict[str, dict[str, Any]]:
        """Deployments of the recipe by the entrypoint's flow."""
        named = {"deployments": {"name": {"any_": [self.name]}}}
        there = self.commands.api("/deployments/filter", named)
        return {entry["entrypoint"].rpartition(".")[2]: entry for entry in there}

    def automations(self) -> dict[str, dict[str, Any]]:
        """Automations of the recipe by name."""
        tagged = {"automations": {"tags": {"any_": [f"embedlake-deploy:{self.name}"]}}}
        return {entry["name"]: entry for entry in self.commands.api("/automations/filter", tagged)}

    def started(self, flow: str) -> list[dict[str, Any]]:
        """Runs of one of the deployments."""
        wanted = {"id": {"any_": [self.deployments()[flow]["id"]]}}
        return self.commands.api("/flow_runs/filter", {"deployments": wanted})

    def start(self, flow: str, state: dict[str, Any] | None = None, **parameters: Any) -> str:
        """Id of a new run of a deployment."""
        url = f"{self.commands.api_url}/deployments/{self.deployments()[flow]['id']}"
        body = {"parameters": parameters, "state": state or {"type": "SCHEDULED"}}
        made = asked("POST", f"{url}/create_flow_run", body)
        return str(made.raise_for_status().json()["id"])


@pytest.fixture
def deployed(commands: Commands, tmp_path: Path) -> Deployed:
    """A recipe of a name that no other test has."""
    name = f"articles-{uuid4().hex[:8]}"
    recipe = tmp_path / "articles.yaml"
    content = {
        "name": name,
        "source": {"uri": "./data", "id": "id"},
        "model": {"name": "hashing", "dim": 32},
        "lake": {"uri": "./lake", "table": "articles"},
    }
    recipe.write_text(yaml.safe_dump(content))
    made = Deployed(commands, recipe, name)
    made.write({})
    return made


def test_plan_says_everything_and_changes_nothing(deployed: Deployed) -> None:
    planned = deployed.deploy("--plan")
    assert planned["applied"] is False and len(planned["changes"]) == 2 + len(FLOWS)
    assert deployed.deployments() == deployed.automations() == {}
    assert deployed.deploy()["changes"] == planned["changes"]


def test_deploys_each_flow_once_and_a_second_time_changes_nothing(deployed: Deployed) -> None:
    first = deployed.changed()
    assert first[0] == f"create {deployed.name}-pool"
    assert set(first[1:7]) == {f"create {flow}/{deployed.name}" for flow in FLOWS}
    assert deployed.changed() == []
    there = deployed.deployments()
    assert set(there) == FLOWS
    for flow, entry in there.items():
        assert entry["entrypoint"] == f"embedlake.flows.{flow}.{flow}"
        assert entry["parameters"]["recipe"] == str(deployed.recipe)
        assert entry["tags"] == [f"embedlake-deploy:{deployed.name}"]
        assert entry["work_pool_name"] == f"{deployed.name}-pool"
        assert entry["enforce_parameter_schema"] is True
        assert entry["global_concurrency_limit"]["limit"] == 1
        assert entry["schedules"] == [] and not entry["pull_steps"]


def test_what_the_file_says_is_there_and_what_it_no_longer_says_is_gone(
    deployed: Deployed,
) -> None:
    schedules = [
        {"cron": "17 3 * * *", "timezone": "Europe/Zurich"},
        {"interval": 3600, "active": False},
        {"rrule": "FREQ=WEEKLY;BYDAY=MO", "parameters": {"allow_removals": True}},
    ]
    everything = {
        "tags": ["docs"],
        "job_variables": {"env": {"A": "1", "B": "1"}},
        "deployments": {
            "embed": {
                "schedules": schedules,
                "parameters": {"resources": {"unit_bytes": 1000}},
                "tags": ["night"],
                "concurrency": {"limit": 2, "collision_strategy": "CANCEL_NEW"},
                "job_variables": {"env": {"B": "2"}, "working_dir": "/"},
            },
            "maintain": None,
        },
    }
    deployed.write(everything)
    deployed.deploy()
    assert deployed.changed() == []
    there = deployed.deployments()
    assert set(there) == {"embed", "maintain"}
    embed = there["embed"]
    rules = ("cron", "interval", "rrule")
    by_rule = {
        rule: schedule
        for schedule in embed["schedules"]
        for rule in rules
        if rule in schedule["schedule"]
    }
    assert by_rule["cron"]["schedule"]["timezone"] == "Europe/Zurich"
    assert by_rule["interval"]["active"] is False
    assert by_rule["rrule"]["parameters"] == {"allow_removals": True}
    assert embed["parameters"]["resources"] == {"unit_bytes": 1000}
    assert set(embed["tags"]) == {"docs", "night", f"embedlake-deploy:{deployed.name}"}
    assert embed["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    env = {"A": "1", "B": "2", **PREFECT_PATIENCE}
    assert embed["job_variables"] == {"env": env, "working_dir": "/"}
    wait_for(lambda: deployed.started("embed"))  # the server plans runs of active schedules

    deployed.write({"deployments": {"embed": {"concurrency": None}}})
    changes = deployed.deploy()["changes"]
    assert [(change["action"], change["name"]) for change in changes] == [
        ("remove", f"maintain/{deployed.name}"),
        ("update", f"embed/{deployed.name}"),
    ]
    assert set(changes[1]["fields"]) == {
        "concurrency", "job_variables", "parameters", "schedules", "tags",
    }  # fmt: skip
    there = deployed.deployments()
    assert set(there) == {"embed"} and there["embed"]["schedules"] == []
    assert there["embed"]["global_concurrency_limit"] is None
    assert deployed.started("embed") == []

    deployed.write({"deployments": {}})
    assert deployed.changed() == [f"remove embed/{deployed.name}"]
    assert deployed.deployments() == {}


def test_what_somebody_changed_on_the_page_is_said_and_set_right(deployed: Deployed) -> None:
    deployed.write({"deployments": {"embed": {"schedules": [{"cron": "0 * * * *"}]}}})
    deployed.deploy()
    url = f"{deployed.commands.api_url}/deployments/{deployed.deployments()['embed']['id']}"
    patch = {"tags": [f"embedlake-deploy:{deployed.name}", "mine"], "schedules": []}
    asked("PATCH", url, patch).raise_for_status()
    (change,) = deployed.deploy()["changes"]
    assert set(change["fields"]) == {"schedules", "tags"} and change["action"] == "update"
    assert deployed.changed() == []


def test_deployment_that_somebody_else_made_is_left_alone(deployed: Deployed) -> None:
    deployed.write({"deployments": {"embed": None}})
    deployed.deploy()
    url = f"{deployed.commands.api_url}/deployments/{deployed.deployments()['embed']['id']}"
    asked("PATCH", url, {"tags": ["mine"]}).raise_for_status()
    for content in ({"deployments": {"embed": None}}, {"deployments": {}}):
        deployed.write(content)
        answer = deployed.try_to_deploy()
        assert answer.code == 2
        assert f"embed/{deployed.name}" in answer.json["error"] and "lacks" in answer.json["error"]
    assert deployed.deployments()["embed"]["tags"] == ["mine"]


def test_pool_of_another_type_is_refused_and_one_in_an_image_gets_the_recipe_inline(
    deployed: Deployed,
) -> None:
    deployed.deploy()
    pool = {"name": f"{deployed.name}-pool", "type": "docker"}
    image = {"image": "registry/embedlake:1"}
    deployed.write({"pool": pool, "job_variables": image})
    answer = deployed.try_to_deploy()
    assert answer.code == 2 and "of type 'process'" in answer.json["error"]
    for pool_type in ("docker", "kubernetes"):
        deployed.write({
            "pool": {"name": f"{deployed.name}-{pool_type}", "type": pool_type},
            "job_variables": image,
        })  # fmt: skip
        deployed.deploy()
        assert deployed.changed() == []
        embed = deployed.deployments()["embed"]
        assert embed["work_pool_name"] == f"{deployed.name}-{pool_type}"
        assert embed["parameters"]["recipe"]["lake"]["uri"] == str(deployed.recipe.parent / "lake")


def test_server_refuses_a_run_with_resources_that_nobody_knows(deployed: Deployed) -> None:
    deployed.deploy()
    with pytest.raises(httpx.HTTPStatusError) as refused:
        deployed.start("embed", resources={"gpu_per_task": 1})
    assert refused.value.response.status_code == 409
    assert "gpu_per_task" in refused.value.response.text
    deployed.start("embed", resources={"gpus_per_task": 1})


def test_announced_model_starts_a_run_of_its_recipe_alone(deployed: Deployed) -> None:
    deployed.deploy()
    announced = deployed.commands.run(
        "embedlake", "announce-model", "/models/new", "--for", deployed.name, "--unchecked"
    )
    assert announced.code == 0, announced.err
    (run,) = wait_for(lambda: deployed.started("reembed"))
    assert run["parameters"]["model"] == "/models/new" and run["parameters"]["announced"]


def test_worker_runs_what_was_deployed_without_a_word_about_the_recipe(deployed: Deployed) -> None:
    data = deployed.recipe.parent / "data"
    data.mkdir()
    (data / "a.jsonl").write_text('{"id": "x", "text": "words"}\n')
    deployed.write({"pool": {"name": "embedlake"}, "deployments": {"embed": None}})
    deployed.deploy()
    run = deployed.commands.run("prefect", "deployment", "run", f"embed/{deployed.name}", "--watch")
    assert run.code == 0, run.out + run.err
    status = deployed.commands.run("embedlake", "status", str(deployed.recipe), "--json")
    assert status.json["rows"] == 1


@dataclass
class Mailbox:
    """Messages that came by HTTP."""

    url: str
    messages: list[str] = field(default_factory=list)


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A server on loopback that keeps what it is sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name is the library's
            body = self.rfile.read(int(self.headers["Content-Length"]))
            box.messages.append(body.decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        box = Mailbox(f"http://127.0.0.1:{listening.server_port}/")
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield box
        listening.shutdown()
        thread.join()


@pytest.fixture
def block(commands: Commands, mailbox: Mailbox) -> str:
    """A block of Prefect's that sends messages to the mailbox."""
    (block_type,) = commands.api(
        "/block_types/filter", {"block_types": {"slug": {"any_": ["custom-webhook"]}}}
    ) or [None]
    assert block_type is not None
    (schema, *_) = commands.api(
        "/block_schemas/filter",
        {"block_schemas": {"block_type_id": {"any_": [block_type["id"]]}}},
    )
    name = f"box-{uuid4().hex[:8]}"
    body = {
        "name": name,
        "block_type_id": block_type["id"],
        "block_schema_id": schema["id"],
        "data": {
            "name": name,
            "url": mailbox.url,
            "method": "POST",
            "json_data": {"subject": "{{subject}}", "body": "{{body}}"},
        },
    }
    asked("POST", f"{commands.api_url}/block_documents/", body).raise_for_status()
    return f"custom-webhook/{name}"


def test_messages_go_to_the_block_when_a_run_ends_badly(
    deployed: Deployed, block: str, mailbox: Mailbox
) -> None:
    names = ["failed", "locked", "refused", "late"]
    content = {"automations": {"apply": names, "notify": block}}
    deployed.write(content)
    deployed.deploy()
    assert deployed.changed() == []
    assert {f"{deployed.name}: {name}" for name in names} < set(deployed.automations())
    for number, (name, type_) in enumerate(
        [
            ("Failed", "FAILED"),
            ("Locked", "FAILED"),
            ("Refused", "COMPLETED"),
            ("Late", "SCHEDULED"),
        ],
        1,
    ):
        run = deployed.start("embed")
        url = f"{deployed.commands.api_url}/flow_runs/{run}/set_state"
        state = {"type": type_, "name": name, "message": f"why {name}"}
        asked("POST", url, {"state": state, "force": True}).raise_for_status()
        wait_for(lambda number=number: len(mailbox.messages) >= number)
        assert len(mailbox.messages) == number, mailbox.messages
    said = [json.loads(message) for message in mailbox.messages]
    assert all(deployed.name in message["subject"] for message in said)
    assert ["why Failed" in said[0]["body"], "why Locked" in said[1]["body"],
            "why Refused" in said[2]["body"]] == [True] * 3  # fmt: skip

    deployed.write({})
    gone = deployed.changed()
    assert sorted(gone) == sorted(f"remove {deployed.name}: {name}" for name in names)


def heartbeat(api_url: str, run_id: str, tag: str) -> None:
    """Say that a run lives, as the run itself would."""
    event = {
        "id": str(uuid4()),
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
        "related": [
            {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"},
        ],
    }
    asked("POST", f"{api_url}/events", [event]).raise_for_status()


def test_run_that_is_not_heard_of_is_marked_as_crashed_and_one_that_ended_is_not(
    deployed: Deployed,
) -> None:
    shipped = Path(__file__).resolve().parents[2] / "deployments" / "automations" / "dead.yaml"
    fast = yaml.safe_load(shipped.read_text()) | {}
    fast["trigger"]["within"] = 10
    (deployed.recipe.parent / "fast.yaml").write_text(yaml.safe_dump(fast))
    deployed.write({"automations": {"apply": ["fast.yaml"]}})
    deployed.deploy()
    assert deployed.changed() == []
    variables = deployed.deployments()["embed"]["job_variables"]
    assert variables == {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30", **PREFECT_PATIENCE}}
    api_url = deployed.commands.api_url
    running = {"type": "RUNNING", "name": "Running"}
    dead, ended = deployed.start("embed", running), deployed.start("embed", running)
    for run in (dead, ended):
        heartbeat(api_url, run, f"embedlake-deploy:{deployed.name}")
    state = {"type": "COMPLETED", "name": "Refused", "message": "the gate said no"}
    asked(
        "POST",
        f"{api_url}/flow_runs/{ended}/set_state",
        {"state": state, "force": True},
    ).raise_for_status()

    def state_of(run: str) -> dict[str, Any]:
        state: dict[str, Any] = asked("GET", f"{api_url}/flow_runs/{run}").json()["state"]
        return state

    assert wait_for(lambda: state_of(dead)["type"] == "CRASHED")
    assert "Nothing was heard" in state_of(dead)["message"]
    assert state_of(ended)["name"] == "Refused"
