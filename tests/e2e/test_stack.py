"""What `embedlake up` starts: its page, its ports, its worker, its bucket; servers that end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pytest

from embedlake.local import processes, stack
from tests.driver import write_jsonl
from tests.e2e.conftest import Commands, asked, run_command, wait_for
from tests.e2e.recipes import write_recipe

pytestmark = pytest.mark.e2e

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DEPLOY_ALL = ("prefect", "--no-prompt", "deploy", "--prefect-file", "deployments/prefect.yaml",
              "--all")  # fmt: skip


def test_page_of_the_server_asks_the_server_itself(commands: Commands) -> None:
    page = commands.api_url.removesuffix("/api")
    assert asked("GET", f"{page}/ui-settings").json()["api_url"] == commands.api_url


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_page_in_a_browser_shows_the_pool(commands: Commands, tmp_path: Path) -> None:
    page = f"{commands.api_url.removesuffix('/api')}/work-pools"
    # The browser counts virtual time while it waits for the server: a busy one may need another go.
    shown = (page_in_browser(page, tmp_path / str(attempt)) for attempt in range(10))
    assert any(f"work-pool/{stack.WORK_POOL}" in document for document in shown)


def page_in_browser(url: str, profile: Path) -> str:
    """The document as a browser has it once its scripts have run."""
    return subprocess.run(
        [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu",
         "--disable-dev-shm-usage", f"--user-data-dir={profile}", "--virtual-time-budget=20000",
         "--dump-dom", url],
        capture_output=True, text=True, timeout=300, check=True,
    ).stdout  # fmt: skip


def test_up_takes_the_usual_port_and_returns_when_the_worker_takes_runs(
    no_api: dict[str, str], tmp_path: Path
) -> None:
    (port,) = processes.free_ports(1)
    (tmp_path / "ports.json").write_text(json.dumps({stack.PREFECT_SERVER: port}))
    here = no_api | {"EMBEDLAKE_HOME": str(tmp_path)}
    try:
        up = run_command(["embedlake", "up", "--json"], here)
        assert up.code == 0, up.err
        url = up.json["environment"]["PREFECT_API_URL"]
        assert url == f"http://127.0.0.1:{port}/api"
        shown = run_command(["embedlake", "up"], here).out.splitlines()
        assert (
            f"export PREFECT_API_URL={url}" in shown and f"page: http://127.0.0.1:{port}" in shown
        )
        workers = asked("POST", f"{url}/work_pools/{stack.WORK_POOL}/workers/filter", {})
        assert [one["status"] for one in workers.json()] == ["ONLINE"]
    finally:
        assert run_command(["embedlake", "down"], here).code == 0


@pytest.fixture(scope="module")
def deployed(commands: Commands) -> None:
    """All deployments of prefect.yaml."""
    done = commands.run(*DEPLOY_ALL)
    assert done.code == 0, done.out + done.err


def recipe_on_s3(commands: Commands) -> dict[str, Any]:
    """A recipe without a word of where the bucket is; the worker knows."""
    key = commands.s3
    store = fsspec.filesystem(
        "s3", key=key["AWS_ACCESS_KEY_ID"], secret=key["AWS_SECRET_ACCESS_KEY"],
        client_kwargs={"endpoint_url": key["AWS_ENDPOINT_URL"], "region_name": key["AWS_REGION"]},
    )  # fmt: skip
    store.pipe_file(f"{stack.BUCKET}/in/a.jsonl", b'{"id": "x", "text": "words"}\n')
    return {
        "name": "inline",
        "source": {"uri": f"s3://{stack.BUCKET}/in", "id": "id"},
        "model": {"name": "hashing", "dim": 32},
        "lake": {"uri": f"s3://{stack.BUCKET}/lake", "table": "docs"},
    }


@pytest.mark.usefixtures("deployed")
def test_deployment_runs_a_recipe_given_as_json_on_the_bucket_of_the_stack(
    commands: Commands,
) -> None:
    given = f"recipe={json.dumps(recipe_on_s3(commands))}"
    run = commands.run("prefect", "deployment", "run", "embed/embed", "--watch", "--param", given)
    assert run.code == 0, run.out + run.err
    found = commands.run("embedlake", "status", given.removeprefix("recipe="), "--json",
                         **commands.s3)  # fmt: skip
    assert found.json["rows"] == 1


@pytest.mark.usefixtures("deployed")
def test_deployment_with_a_relative_path_in_json_is_refused_with_why(commands: Commands) -> None:
    recipe = recipe_on_s3(commands) | {"lake": {"uri": "./lake", "table": "docs"}}
    given = json.dumps({"recipe": json.dumps(recipe)})  # as text, as Prefect's page hands it over
    run = commands.run("prefect", "deployment", "run", "embed/embed", "--watch", "--params", given)
    assert run.code == 1
    named = {"flow_runs": {"state": {"type": {"any_": ["FAILED"]}}}}
    said = [one["state"]["message"] or "" for one in commands.api("/flow_runs/filter", named)]
    assert any("lake.uri: './lake' is relative" in message for message in said)


@pytest.mark.usefixtures("deployed")
def test_deployment_run_with_an_unknown_parameter_says_which_are_known(commands: Commands) -> None:
    run = commands.run("prefect", "deployment", "run", "embed/embed", "--param", "recpie=x")
    assert run.code == 1
    said = run.out + run.err
    assert all(name in said for name in ("recpie", "recipe", "resources", "allow_removals"))


@pytest.mark.usefixtures("deployed")
def test_run_made_by_the_api_with_an_unknown_parameter_fails_and_says_so(
    commands: Commands,
) -> None:
    named = {"deployments": {"name": {"any_": ["embed"]}}}
    (deployment,) = commands.api("/deployments/filter", named)
    body = {"parameters": {"recipe": "/r.yaml", "recpie": "x"}, "state": {"type": "SCHEDULED"}}
    url = f"{commands.api_url}/deployments/{deployment['id']}/create_flow_run"
    made = asked("POST", url, body).raise_for_status().json()
    this = {"flow_runs": {"id": {"any_": [made["id"]]}}}

    def failed() -> dict[str, Any] | None:  # as crashed first, until the worker says why
        (run,) = commands.api("/flow_runs/filter", this)
        return run if run["state_type"] == "FAILED" else None

    said = wait_for(failed)["state"]["message"]
    for word in ("'recpie'", "did you mean 'recipe'", "allow_removals", "start another"):
        assert word in said


@pytest.mark.usefixtures("deployed")
def test_only_the_demo_starts_in_the_folder_it_was_deployed_from(commands: Commands) -> None:
    found = {one["name"]: one["pull_steps"] for one in commands.api("/deployments/filter", {})}
    assert {name for name, steps in found.items() if steps} == {"demo"}


def test_embed_that_is_killed_leaves_no_server_behind(
    no_api: dict[str, str], tmp_path: Path
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    command = [str(Path(sys.executable).parent / "embedlake"), "embed", str(write_recipe(tmp_path))]
    with subprocess.Popen(command, env=no_api, stderr=subprocess.DEVNULL) as flow:
        started = psutil.Process(flow.pid)
        family = wait_for(lambda: both(started.children(recursive=True)))
        flow.kill()
        _, alive = psutil.wait_procs(family, timeout=300)
    assert alive == []


def both(children: list[psutil.Process]) -> list[psutil.Process] | None:
    """The guard and the server, once both are there."""
    return children if len(children) >= 2 else None
