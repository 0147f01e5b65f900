"""The services of ``infra/compose.yaml`` without containers; drills end each part under a run."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from embedding_core.encoder.parity import PARITY_TEXTS
from embedding_core.recipe import Recipe
from embedlake.local.stack import BUCKET
from tests.driver import rows, run
from tests.e2e.conftest import DONE, ENDED, FAILED, Answer, asked, run_command, wait_for
from tests.e2e.topology import RAY_NODES, Topology
from tests.encoder.remote.stub_engine import Reply, StubEngine, stub_engine

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        sys.platform != "linux", reason="nodes need 127.0.0.2 and on, which Linux alone has"
    ),
]

WAIT_SECONDS = 300
"""Longest wait for one step; a busy machine takes its time."""
N_FILES = 14
RESOURCES = {"unit_bytes": 1, "units_per_commit": 2, "at_once": 2}
RESTARTED = ("postgres", "server", "store", RAY_NODES[-1])
COLUMNS = ("chunk_id", "file_key", "source_uri", "doc_id", "text", "n_tokens", "vector")


@dataclass
class Gate:
    """Stands before the model: lets some documents pass, and others wait until more may."""

    n_allowed: int = 0
    passed: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, _engine: StubEngine, texts: Sequence[str]) -> Reply | None:
        """Wait until the documents of a request may pass."""
        documents = set(texts) - set(PARITY_TEXTS)
        with self.changed:
            self.waiting |= documents - self.passed
            self.changed.notify_all()
            self.changed.wait_for(
                lambda: documents <= self.passed or len(self.passed) < self.n_allowed, WAIT_SECONDS
            )
            self.passed |= documents
            self.waiting -= documents
        return None

    def let(self, n_more: int) -> None:
        """Let more documents pass."""
        with self.changed:
            self.n_allowed = len(self.passed) + n_more
            self.changed.notify_all()

    def wait_for_run(self) -> None:
        """Return when a run waits here with a document, and all that may have passed."""
        with self.changed:
            assert self.changed.wait_for(
                lambda: self.waiting and len(self.passed) >= self.n_allowed, WAIT_SECONDS
            ), "no run came to the model"


@dataclass
class World:
    """The topology with a model's server beside it, and what an operator does with them."""

    topology: Topology
    engine: StubEngine
    gate: Gate
    folder: Path

    def recipe(self, table: str) -> Recipe:
        """A recipe over the bucket."""
        return Recipe.load({
            "name": table,
            "source": {"uri": f"s3://{BUCKET}/in", "id": "id"},
            "model": {"name": self.engine.url, "tokenizer": "cautious"},
            "lake": {"uri": f"s3://{BUCKET}/lake", "table": table},
        })  # fmt: skip

    def deploy(self) -> None:
        """Deploy the recipe ``articles``, without a limit: a run that was killed holds its slot of
        that until an automation marks it."""
        path = self.folder / "articles.yaml"
        path.write_text(yaml.safe_dump(self.recipe("articles").model_dump(mode="json")))
        embed = {"parameters": {"resources": RESOURCES}, "concurrency": None}
        content = {"recipe": "inline", "deployments": {"embed": embed}}
        path.with_suffix(".deploy.yaml").write_text(yaml.safe_dump(content))
        answer = self.command("embedlake", "deploy", str(path))
        assert answer.code == DONE, answer.err

    def start_run(self) -> str:
        """Id of a new run of the deployment."""
        answer = self.command("prefect", "deployment", "run", "embed/articles")
        (run_id,) = re.findall(r"UUID: (\S+)", answer.out)
        return str(run_id)

    def state(self, run_id: str) -> dict[str, Any]:
        """The state in which a run ends."""
        url = f"{self.topology.api_url}/flow_runs/{run_id}"

        def ended() -> dict[str, Any] | None:
            answer = asked("GET", url, login=self.topology.login).raise_for_status()
            state: dict[str, Any] = answer.json()["state"]
            return state if state["type"] in ENDED else None

        return wait_for(ended, WAIT_SECONDS)

    def command(self, *words: str, **variables: str) -> Answer:
        """Run a command as an operator."""
        return run_command(words, os.environ | self.topology.client_environment() | variables)

    def write(self, texts: Mapping[str, str]) -> None:
        """Write files of one document each."""
        store = self._store()
        for name, text in texts.items():
            line = json.dumps({"id": name, "text": text}).encode()
            store.pipe_file(f"{BUCKET}/in/{name}.jsonl", line)

    def drop_lock(self) -> None:
        """Take the lock of a run that was killed: it would expire in half a minute, which has its
        own tests."""
        self._store().rm(f"{BUCKET}/lake/_embedlake/articles/lock", recursive=True)

    def _store(self) -> fsspec.AbstractFileSystem:
        variables = self.topology.client_environment()
        return fsspec.filesystem(
            "s3", key=variables["AWS_ACCESS_KEY_ID"], secret=variables["AWS_SECRET_ACCESS_KEY"],
            client_kwargs={"endpoint_url": variables["AWS_ENDPOINT_URL"],
                           "region_name": variables["AWS_REGION"]},
            skip_instance_cache=True,
        )  # fmt: skip

    def assert_as_clean(self, table: str) -> None:
        """Hold the deployed table against ``table``, which a run makes here without any trouble."""
        with pytest.MonkeyPatch.context() as patch:
            for name, text in self.topology.client_environment().items():
                patch.setenv(name, text)
            assert run(self.recipe(table)).outcome == "done"
            clean, deployed = (rows(self.recipe(name), *COLUMNS) for name in (table, "articles"))
        assert len(clean) == len({row["chunk_id"] for row in clean}) == N_FILES
        assert deployed == clean


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Every part runs, and the bucket holds a document a file."""
    gate = Gate()
    with (
        tempfile.TemporaryDirectory(prefix="topology-") as folder,
        stub_engine(before=gate) as model,
    ):
        topology = Topology(Path(folder))
        try:
            topology.start_all()
            world = World(topology, model, gate, tmp_path_factory.mktemp("recipes"))
            world.write({f"d{number}": f"document number {number}" for number in range(N_FILES)})
            world.deploy()
            yield world
        finally:
            gate.let(10**6)
            topology.end()


def test_doctor_finds_nothing_wrong_until_the_password_is(world: World) -> None:
    healthy = world.command("embedlake", "doctor", str(world.folder / "articles.yaml"))
    assert healthy.code == DONE, healthy.out
    refused = world.command("embedlake", "doctor", PREFECT_API_AUTH_STRING="admin:another")
    assert refused.code == FAILED
    assert "does not accept the credentials (HTTP 401)" in refused.out
    recipe = str(world.folder / "articles.yaml")
    for command in (("deploy", recipe), ("embed", recipe)):
        ended = world.command("embedlake", *command, PREFECT_API_AUTH_STRING="admin:another")
        assert (ended.code, ended.err.count("Traceback")) == (FAILED, 0), ended.err
        assert "does not accept the credentials (HTTP 401)" in ended.err.splitlines()[-1]


def test_deployed_run_makes_what_a_run_here_makes(world: World) -> None:
    run_id = world.start_run()
    world.gate.let(N_FILES)
    state = world.state(run_id)
    assert state["name"] == "Completed", state
    world.assert_as_clean("clean")


@pytest.mark.drill
def test_run_goes_on_while_each_part_is_killed_and_started_again(world: World) -> None:
    world.write({f"d{number}": f"document {number}, again" for number in range(N_FILES)})
    run_id = world.start_run()
    for part in RESTARTED:
        world.gate.let(2)
        world.gate.wait_for_run()
        world.topology.kill(part)
        world.gate.let(1)  # the run finds it gone
        world.topology.start(part)
    world.gate.let(N_FILES)
    state = world.state(run_id)
    assert state["name"] == "Completed", state
    world.assert_as_clean("clean-again")


@pytest.mark.drill
def test_run_whose_worker_was_killed_is_finished_by_the_next(world: World) -> None:
    world.write({f"d{number}": f"document {number}, changed" for number in range(0, N_FILES, 2)})
    world.start_run()
    world.gate.let(3)
    world.gate.wait_for_run()
    world.topology.kill("worker")  # and the run, which was a process of it
    world.drop_lock()
    world.gate.let(N_FILES)
    world.topology.start("worker")
    state = world.state(world.start_run())
    assert state["name"] == "Completed", state
    world.assert_as_clean("clean-changed")
