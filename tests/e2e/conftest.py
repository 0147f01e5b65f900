"""A real Prefect server and worker for the end-to-end tests, started once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from embedding_core.runs.outcome import EXIT_CODES
from embedlake.local import processes, stack
from embedlake.settings import Settings
from tests.e2e.forks import Call, Forks
from tests.waiting import Pieces, waiting_engine

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS = 600
Seen = TypeVar("Seen")
NO_CERTIFICATES = False
"""Servers on loopback have none, and loading those of the system takes longer than an answer."""
SLOT_WAIT = "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS"
"""How soon the server lets a run try again that waits for another of its deployment."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def json(self) -> dict[str, Any]:
        """Its one object on stdout."""
        data: dict[str, Any] = json.loads(self.out)
        return data


@dataclass(frozen=True, slots=True)
class Commands:
    """Runs console scripts against one Prefect API."""

    api_url: str
    home: Path
    s3: Mapping[str, str]
    """What a shell exports to use the S3 server that the worker knows."""
    forks: Forks

    @property
    def environment(self) -> dict[str, str]:
        """The environment commands run in."""
        return environment_of(self.api_url, self.home)

    def run(self, *command: str, cwd: Path = ROOT, **variables: str) -> Answer:
        """Run a console script of the environment the tests run in, in a fork where it can be."""
        program, *arguments = command
        environment = {**self.environment, **variables}
        if not self.forks.can_run(program, environment):
            return run_command(command, environment, cwd)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            code = self.forks.run(
                Call(program, tuple(arguments), environment, str(cwd), str(out), str(err),
                     COMMAND_SECONDS)
            )  # fmt: skip
            return Answer(code, out.read_text(), err.read_text(), time.monotonic() - started)

    def api(self, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """POST to the Prefect API."""
        answer = asked("POST", f"{self.api_url}{path}", dict(body))
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def task_runs(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Task runs of a flow run, as soon as the server has stored them all as ended."""
        body = {"flow_runs": {"id": {"any_": [flow_run_id]}}}

        def ended() -> tuple[list[dict[str, Any]]] | None:
            runs = self.api("/task_runs/filter", body)
            over = (run["state_type"] in ENDED or run["state_name"] == NEVER_BEGAN for run in runs)
            return (runs,) if all(over) else None

        return wait_for(ended)[0]


def environment_of(api_url: str, home: Path) -> dict[str, str]:
    """The environment of commands that use a stack."""
    return {
        **os.environ,
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(home / "prefect"),
        "EMBEDLAKE_HOME": str(home),
        "EMBEDLAKE_RAY_CPUS": "1",  # each process of Ray's takes seconds to load what it runs
    }


DONE, FAILED, REJECTED, REFUSED = (
    EXIT_CODES[outcome] for outcome in ("done", "failed", "rejected", "refused")
)
"""Exit codes of commands."""
NEVER_BEGAN = "NotReady"
"""State that a task whose input failed stays in."""
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def run_command(command: Sequence[str], environment: Mapping[str, str], cwd: Path = ROOT) -> Answer:
    """Run a console script, of the tests' environment unless its path says another, and collect
    what it says."""
    program = Path(sys.executable).parent / command[0]
    started = time.monotonic()
    done = subprocess.run(
        [str(program), *command[1:]],
        cwd=cwd,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr, time.monotonic() - started)


def wait_for(look: Callable[[], Seen | None], seconds: float = COMMAND_SECONDS) -> Seen:
    """What ``look`` sees, soon after it sees something: each look costs the server that it asks."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(0.5)
    raise AssertionError(f"nothing came in {seconds:g} s")


def asked(
    method: str, url: str, content: Any = None, login: tuple[str, str] | None = None
) -> httpx.Response:
    """A Prefect server's answer to a request that may be sent again.

    The server says 503 while another request writes to its database; on a busy machine it says
    nothing in time.
    """

    def answer() -> httpx.Response | None:
        try:
            response = httpx.request(
                method, url, json=content, auth=login, timeout=60, verify=NO_CERTIFICATES
            )
        except httpx.TransportError:
            return None
        return None if response.status_code == httpx.codes.SERVICE_UNAVAILABLE else response

    return wait_for(answer)


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Console scripts against a server and a worker that run for the session."""
    home = tmp_path_factory.mktemp("embedlake-home")
    settings = Settings(home=home)
    # The worker hands its environment to the flow runs it starts.
    os.environ["EMBEDLAKE_HOME"] = str(home)
    os.environ[SLOT_WAIT] = "2"
    running = stack.up(settings, with_s3=True)
    forks = Forks(environment_of(running.api_url, home), ROOT)
    s3 = stack.s3_environment(home, running.s3_url or "")
    try:
        yield Commands(running.api_url, home, s3, forks)
    finally:
        forks.end()
        processes.stop(*running.servers, patience_seconds=0)
        del os.environ["EMBEDLAKE_HOME"], os.environ[SLOT_WAIT]


@pytest.fixture(scope="session")
def no_api(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment that names no Prefect API and has no stack running."""
    home = tmp_path_factory.mktemp("no-api")
    environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    return environment | {"EMBEDLAKE_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}


@pytest.fixture
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pieces]:
    """What the engine ``waiting`` may encode."""
    with waiting_engine(tmp_path_factory.mktemp("waiting")) as allowed:
        yield allowed
