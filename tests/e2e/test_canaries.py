"""Secrets that a run can see are in nothing that it leaves behind, whether it ends well or not.

A stack of its own, with authentication everywhere: Prefect, Ray, S3, a hub, a server of a model.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import httpx2
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings

from embedlake.local import processes, stack
from embedlake.settings import Settings
from tests.driver import write_jsonl
from tests.e2e.conftest import COMMAND_SECONDS, DONE, FAILED, Answer, run_command
from tests.e2e.recipes import write_recipe
from tests.embedlake.test_cli_serve import served
from tests.encoder.remote.stub_engine import StubEngine, stub_engine
from tests.sources.stub_hub import StubHub, stub_hub
from tests.traces import traces

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "Canary/aws+secret/7Qx4kZpL0vW9sT2eRb",
    "HF_TOKEN": "hf_CanaryHubToken7Qx4kZpL0vW9",
    "EMBEDLAKE_ENGINE_TOKEN": "canary-engine-7Qx4kZpL0v",
    "EMBEDLAKE_SERVE_TOKEN": "canary-serve-token-7Qx4kZ",
    "PREFECT_API_AUTH_STRING": "admin:canary-prefect-7Qx4kZ",
    "RAY_AUTH_TOKEN": "canary-ray-0123456789abcdef0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY of a failing run": "Wrong/canary+secret/7Qx4kZpL0vW9sT2e",
    "token of a failing run": "canary-wrong-token-7Qx4kZpL",
    "password of a proxy": "canary-proxy-7Qx4kZpL",
    "password in a URL": "canary-url-7Qx4kZpL",
    "signature of a URL": "canary-signature-7Qx4kZpL",
}
"""Recognisable, and with the characters that real ones have."""
CRASH = "import os\n\n\ndef crash(record):\n    os._exit(1)\n"


@dataclass(slots=True)
class Guarded:
    """Commands with secrets in their environment, and what they meet."""

    folder: Path
    environment: dict[str, str]
    s3_url: str
    hub: StubHub
    engine: StubEngine
    said: list[str] = field(default_factory=list)
    """What commands wrote to their terminal."""

    @property
    def storage(self) -> dict[str, Any]:
        """How a recipe names the S3 server."""
        return {"endpoint_url": self.s3_url, "region": stack.S3_REGION}

    def recipe(self, name: str, **changes: Any) -> str:
        """Path of a new recipe over the folder's files."""
        (self.folder / name).mkdir(exist_ok=True)
        source = {"uri": str(self.folder / "src")} | changes.pop("source", {})
        return str(write_recipe(self.folder / name, name=name, source=source, **changes))

    def run(self, *command: str, **environment: str) -> Answer:
        """Run a command; its words are searched with the files."""
        answer = run_command(command, {**self.environment, **environment})
        self.said.append(f"$ {command}\n{answer.out}\n{answer.err}\n")
        return answer

    def traces(self) -> list[str]:
        """Secrets in what is left: databases, logs, lakes on disk and S3, words in a terminal."""
        store = fsspec.filesystem(
            "s3",
            key=self.environment["AWS_ACCESS_KEY_ID"],
            secret=SECRETS["AWS_SECRET_ACCESS_KEY"],
            client_kwargs={"endpoint_url": self.s3_url, "region_name": stack.S3_REGION},
        )
        if store.exists(f"{stack.BUCKET}/lake"):
            store.get(f"{stack.BUCKET}/lake/", f"{self.folder / 'lake of S3'}/", recursive=True)
        (self.folder / "said.txt").write_text("\n".join(self.said))
        return traces([self.folder], SECRETS, kept=[self.folder / "home" / "s3.json"])


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    folder = Path(tempfile.mkdtemp(prefix="canary-"))  # Ray's sockets need a short path
    home, temporary = folder / "home", folder / "tmp"
    home.mkdir()
    temporary.mkdir()
    keys = {"accessKey": "CANARYKEYID7Q", "secretKey": SECRETS["AWS_SECRET_ACCESS_KEY"]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "embedlake", "credentials": [keys], "actions": actions}
    (home / "s3.json").write_text(json.dumps({"identities": [identity]}))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
        **{name: value for name, value in SECRETS.items() if name.isupper()},
        "TMPDIR": str(temporary),
        "EMBEDLAKE_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_API_AUTH_STRING": SECRETS["PREFECT_API_AUTH_STRING"],
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "RAY_AUTH_MODE": "token",
        "AWS_ACCESS_KEY_ID": keys["accessKey"],
        "AWS_REGION": stack.S3_REGION,
    }
    write_jsonl(folder, "a.jsonl", {"x": "words", "y": "more words"})
    settings = Settings(home=home)
    with (
        stub_hub() as hub,
        stub_engine(token=SECRETS["EMBEDLAKE_ENGINE_TOKEN"]) as engine,
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_AUTH_STRING: SECRETS["PREFECT_API_AUTH_STRING"]}),
    ):
        hub.token = SECRETS["HF_TOKEN"]
        for name, value in environment.items():
            patch.setenv(name, value)
        running = stack.up(settings, with_s3=True)
        environment["PREFECT_API_URL"] = running.api_url
        try:
            yield Guarded(folder, environment, running.s3_url or "", hub, engine)
        finally:
            processes.stop(*running.servers, patience_seconds=0)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def on_s3(guarded: Guarded) -> str:
    """Path of a recipe of a table on S3 by the server of a model, embedded on Ray."""
    model = {"name": guarded.engine.url, "dim": None, "tokenizer": "cautious"}
    lake = {"uri": f"s3://{stack.BUCKET}/lake", "storage": guarded.storage}
    path = guarded.recipe("on-s3", model=model, lake=lake)
    done = guarded.run("embedlake", "embed", path, EMBEDLAKE_RAY_ADDRESS="local")
    assert done.code == DONE, done.err
    return path


@pytest.fixture(scope="module")
def of_hub(guarded: Guarded) -> str:
    """Path of a recipe of a table of a private dataset, embedded in the flow's process."""
    guarded.hub.commit({"a.jsonl": b'{"id": "h", "text": "of a hub"}\n'})
    storage = {"endpoint_url": guarded.hub.url}
    source = {"uri": "hf://datasets/owner/name", "storage": storage}
    path = guarded.recipe("hub", source=source)
    done = guarded.run("embedlake", "embed", path)
    assert done.code == DONE, done.err
    return path


@pytest.mark.usefixtures("of_hub")
def test_runs_that_end_well_leave_no_secret(guarded: Guarded, on_s3: str) -> None:
    exported = guarded.run(
        "embedlake", "export", on_s3, str(guarded.folder / "export"), "--to", "parquet"
    )
    assert exported.code == DONE, exported.err
    page = str(guarded.folder / "report.html")
    assert guarded.run("embedlake", "report", on_s3, "-o", page).code == DONE
    assert guarded.traces() == []


def test_server_leaves_no_secret(guarded: Guarded, of_hub: str) -> None:
    with served(of_hub, **guarded.environment) as (url, process):
        for token in (SECRETS["EMBEDLAKE_SERVE_TOKEN"], SECRETS["token of a failing run"]):
            client = httpx2.Client(
                base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60
            )
            with client:
                for path in ("/", "/openapi.json", "/metrics", "/api/tables"):
                    guarded.said.append(client.get(path).text)
                asked = client.post("/api/tables/docs/search", json={"query": f"a {token[:3]}"})
                guarded.said.append(asked.text)
        process.terminate()
        out, err = process.communicate(timeout=COMMAND_SECONDS)
        guarded.said.append(out + err)
    assert guarded.traces() == []


def crashing(guarded: Guarded) -> str:
    (guarded.folder / "crash").mkdir()
    (guarded.folder / "crash" / "crash.py").write_text(CRASH)
    return guarded.recipe("crash", source={"map": "crash:crash"})


WRONG_TOKEN = SECRETS["token of a failing run"]
PROXY = f"http://me:{SECRETS['password of a proxy']}@127.0.0.1:9"
FAILING: dict[str, tuple[str, dict[str, str], str]] = {
    "wrong key of S3": (
        "on_s3",
        {"AWS_SECRET_ACCESS_KEY": SECRETS["AWS_SECRET_ACCESS_KEY of a failing run"]},
        "access denied",
    ),
    "wrong token of a model's server": (
        "on_s3", {"EMBEDLAKE_ENGINE_TOKEN": WRONG_TOKEN}, "HTTP 401",
    ),
    "proxy that is not there": (
        "of_hub",
        {"HTTP_PROXY": PROXY, "http_proxy": PROXY, "NO_PROXY": "localhost"},
        "could not reach",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAILING)
def test_run_that_fails_leaves_no_secret(
    guarded: Guarded, request: pytest.FixtureRequest, kind: str
) -> None:
    recipe, environment, words = FAILING[kind]
    path = request.getfixturevalue(recipe)
    command = "plan" if "proxy" in kind else "embed"
    failed = guarded.run("embedlake", command, path, **environment)
    assert failed.code == FAILED and words in failed.err
    assert guarded.traces() == []


def test_run_that_crashes_on_ray_leaves_no_secret(guarded: Guarded) -> None:
    crashed = guarded.run("embedlake", "embed", crashing(guarded), EMBEDLAKE_RAY_ADDRESS="local")
    assert crashed.code != DONE
    assert guarded.traces() == []


@pytest.mark.parametrize(
    "uri",
    [
        f"http://me:{SECRETS['password in a URL']}@127.0.0.1/list.txt",
        f"s3://bucket/in?X-Amz-Signature={SECRETS['signature of a URL']}",
    ],
)
def test_recipe_with_a_secret_in_a_url_leaves_no_secret(guarded: Guarded, uri: str) -> None:
    inline = json.dumps({"name": "inline", "source": {"uri": uri}})
    refused = guarded.run("embedlake", "embed", inline)
    guarded.said[-1] = refused.out + refused.err  # without the command, which has it
    assert refused.code == 2 and "holds" in refused.err
    assert guarded.traces() == []
