"""A real Prefect server and worker for the end-to-end tests, started once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedding_core.runs.outcome import EXIT_CODES
from embedlake.local import stack
from embedlake.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS = 240
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

    @property
    def environment(self) -> dict[str, str]:
        """The environment commands run in."""
        return {
            **os.environ,
            "PREFECT_API_URL": self.api_url,
            "PREFECT_HOME": str(self.home / "prefect"),
            "EMBEDLAKE_HOME": str(self.home),
        }

    def run(self, *command: str, **environment: str) -> Answer:
        """Run a console script of the environment the tests run in."""
        return run_command(command, {**self.environment, **environment})

    def api(self, path: str, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """POST to the Prefect API."""
        import httpx

        answer = httpx.post(f"{self.api_url}{path}", json=dict(body), timeout=30)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def task_runs(self, flow_run_id: str) -> list[dict[str, Any]]:
        """Task runs of a flow run; waits until the server has stored them all as ended."""
        body = {"flow_runs": {"id": {"any_": [flow_run_id]}}}
        deadline = time.monotonic() + 30
        while True:
            found = self.api("/task_runs/filter", body)
            if all(one["state_type"] in ENDED for one in found) or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


DONE, FAILED, REJECTED = (EXIT_CODES[outcome] for outcome in ("done", "failed", "rejected"))
"""Exit codes of commands."""
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


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Console scripts against a server and a worker that run for the session."""
    home = tmp_path_factory.mktemp("embedlake-home")
    settings = Settings(home=home)
    # The worker hands its environment to the flow runs it starts.
    os.environ["EMBEDLAKE_HOME"] = str(home)
    os.environ[SLOT_WAIT] = "2"
    running = stack.up(settings, with_s3=True)
    try:
        yield Commands(running.api_url, home, stack.s3_environment(home, running.s3_url or ""))
    finally:
        stack.down(settings)
        del os.environ["EMBEDLAKE_HOME"], os.environ[SLOT_WAIT]


@pytest.fixture(scope="session")
def no_api(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment that names no Prefect API and has no stack running."""
    home = tmp_path_factory.mktemp("no-api")
    environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    return environment | {"EMBEDLAKE_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}
